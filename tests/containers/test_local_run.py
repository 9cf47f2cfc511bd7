"""Pipelines in containers on this machine: failures are reported, and folders are passed from step to step."""

import os
from pathlib import Path

import pytest

from cxr.errors import InstallationError, PipelineError
from cxr.kubeflow.container_engine import ContainerEngine

WRITE = """
import json, pathlib, sys
task, folder = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
folder.mkdir(parents=True)
(folder / "number").write_text(sys.argv[3])
pathlib.Path(task["outputs"]["outputFile"]).write_text(json.dumps({"artifacts": task["outputs"]["artifacts"]}))
"""


def container(image, *command):
    from kfp import dsl

    @dsl.container_component
    def single():
        return dsl.ContainerSpec(image=image, command=list(command[:1]), args=list(command[1:]))

    return single


def compiled(tmp_path, wire):
    from kfp import compiler, dsl

    def trial():
        wire()

    package = tmp_path / "trial.yaml"
    compiler.Compiler().compile(dsl.pipeline(name="trial")(trial), str(package))
    return package


def start(engine, tmp_path, wire, **environment):
    options = engine.options(environment, "64m")
    engine.run(compiled(tmp_path, wire), tmp_path / "root", options, {})


def test_a_folder_is_passed_on_and_containers_run_as_on_a_cluster(engine, tag, tmp_path, capfd):
    from kfp import dsl

    image = f"cxr-data:{tag}"

    @dsl.container_component
    def write(folder: dsl.Output[dsl.Dataset]):
        args = ["-c", WRITE, dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER, folder.path, "7"]
        return dsl.ContainerSpec(image=image, command=["python"], args=args)

    @dsl.container_component
    def read(folder: dsl.Input[dsl.Dataset]):
        script = 'echo "received $(cat $0/number) $COLOUR $CXR_IMAGE_DIGEST as $(id -u)"; ! touch /x; df -k /dev/shm'
        return dsl.ContainerSpec(image=image, command=["sh", "-c", script], args=[folder.path])

    start(engine, tmp_path, lambda: read(folder=write().outputs["folder"]), COLOUR="grey")
    shown = capfd.readouterr().out
    assert "received 7 grey sha256:" in shown
    assert f"as {os.getuid() or 10001}" in shown
    assert "65536" in shown
    assert (next((tmp_path / "root").glob("*/write/folder")) / "number").read_text() == "7"


@pytest.mark.parametrize("status", [1, 2, 137])
def test_a_step_that_fails_at_once_fails_the_run(engine, tag, tmp_path, status):
    for _ in range(3):  # sometimes kfp reads the status in time
        with pytest.raises(PipelineError, match=f"exit status {status} of `sh -c`"):
            start(engine, tmp_path, container(f"cxr-data:{tag}", "sh", "-c", f"exit {status}"))


def test_steps_after_a_failed_one_do_not_run(engine, tag, tmp_path, capfd):
    image = f"cxr-data:{tag}"
    fails, after = container(image, "sh", "-c", "exit 3"), container(image, "echo", "came", "after")
    with pytest.raises(PipelineError, match="exit status 3"):
        start(engine, tmp_path, lambda: after().after(fails()))
    assert "came after" not in capfd.readouterr().out


def test_an_exit_handler_hides_no_failure(engine, tag, tmp_path, capfd):
    from kfp import dsl

    image = f"cxr-data:{tag}"
    fails, last = container(image, "sh", "-c", "exit 3"), container(image, "echo", "said", "last")

    def wire():
        with dsl.ExitHandler(last()):
            fails()

    with pytest.raises(PipelineError, match="exit status 3"):
        start(engine, tmp_path, wire)
    assert "said last" in capfd.readouterr().out


def test_a_missing_image_is_not_pulled_from_a_registry(engine, tmp_path):
    with pytest.raises((InstallationError, PipelineError), match="image=cxr-none:1; build it with `make images`"):
        start(engine, tmp_path, container("cxr-none:1", "true"))


def test_no_container_remains(engine, tag, tmp_path, capfd):
    import docker

    own = f"container of {tmp_path}"  # other tests start containers at the same time
    client = docker.from_env()
    start(engine, tmp_path, container(f"cxr-data:{tag}", "echo", own))
    assert own in capfd.readouterr().out
    commands = [each.attrs["Config"]["Cmd"] for each in client.containers.list(all=True, ignore_removed=True)]
    assert ["echo", own] not in commands
    client.close()


def test_a_missing_engine_is_reported(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(InstallationError, match="expected docker, or podman with its socket, to respond") as caught:
        ContainerEngine.find()
    assert caught.value.exit_status == 2
