"""Shards in containers on this machine: one that is killed is tried again alone, and one that always fails is named."""

import threading
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from cxr.errors import PipelineError
from cxr.kubeflow.actions.run import LOCAL_OVERRIDES, local_parameters
from cxr.kubeflow.pipeline_graph import PipelineGraph
from cxr.steps.parameters import override_parameters, read_parameter_file

IMAGES = 20
KILLED = "2/3"
"""The shard whose container is killed."""


@pytest.fixture
def package(repository, tag, tmp_path):
    """Makes a pipeline that looks at phantoms in three shards, and then validates them."""
    from kfp import compiler, dsl

    def make(retries) -> Path:
        changes = {"containers.version": tag, "containers.shards": 3, "fetch.phantom_images": IMAGES}
        if retries:
            changes |= {"containers.retries.count": retries, "containers.retries.seconds": 0}
        sections = local_parameters(read_parameter_file(repository / "params.yaml"), [], changes)
        graph = PipelineGraph(override_parameters(sections, [], LOCAL_OVERRIDES, add=True))

        @dsl.pipeline(name="trial")
        def trial():
            data = graph.task("fetch", {}, source="phantom").outputs["data"]
            results = graph.image_results("validate_shard", {"data": data})
            graph.task("validate", {"data": data, **results})

        compiler.Compiler().compile(trial, str(tmp_path / "trial.yaml"))
        return tmp_path / "trial.yaml"

    return make


class Killer:
    """Kills the containers of one shard as they start.

    Attributes:
        started: shards whose containers started, in this order.
    """

    def __init__(self, root: Path, kills: int) -> None:
        """Watch the containers of a run.

        Args:
            root: its folder, which its commands name.
            kills: number of containers to kill.
        """
        import docker

        self.started: list[str] = []
        self._root, self._kills, self._client = str(root), kills, docker.from_env()
        self._events = self._client.events(decode=True, filters={"type": "container", "event": "start"})
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._events.close()
        self._thread.join(30)
        self._client.close()

    def _watch(self) -> None:
        from docker.errors import NotFound

        for event in self._events:
            try:
                container = self._client.containers.get(event["id"])
            except NotFound:  # of another test, and ended already
                continue
            command = container.attrs["Config"]["Cmd"] or []
            if "validate_shard" not in command or self._root not in " ".join(command):
                continue
            shard = command[command.index("--shard") + 1]
            self.started.append(shard)
            if shard == KILLED and self._kills:
                self._kills -= 1
                container.kill()


def files(root, name):
    """Files of a run, by the folder of their task."""
    return {path.relative_to(root).parts[1] for path in root.rglob(name)}


def test_a_shard_that_is_killed_is_tried_again_alone(engine, package, tmp_path):
    root = tmp_path / "root"
    with Killer(root, kills=1) as killer:
        engine.run(package(retries=1), root, engine.options({}, "64m"), {})
    assert Counter(killer.started) == {"1/3": 1, "2/3": 2, "3/3": 1}
    (manifest,) = root.rglob("manifest.parquet")
    assert len(pd.read_parquet(manifest)) == IMAGES
    assert not list(root.rglob(".*"))


@pytest.mark.parametrize(("retries", "tries"), [(1, 2), pytest.param(0, 1, marks=pytest.mark.exhaustive)])
def test_a_shard_that_always_fails_ends_the_run_and_leaves_nothing_half(engine, package, tmp_path, retries, tries):
    root = tmp_path / "root"
    with Killer(root, kills=9) as killer, pytest.raises(PipelineError) as error:
        engine.run(package(retries), root, engine.options({}, "64m"), {})
    assert "exit status 137 of `cxr validate_shard --shard 2/3` (killed" in str(error.value)
    assert Counter(killer.started) == {"1/3": 1, "2/3": tries, "3/3": 1}
    assert files(root, "shard.json") == {"for-loop-2-iteration-0", "for-loop-2-iteration-2"}, "the others stay"
    assert not list(root.rglob("manifest.parquet")) and not list(root.rglob(".*"))
