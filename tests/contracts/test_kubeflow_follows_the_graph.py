"""The pipeline that Kubeflow gets has the steps, edges, values and commands of ``dvc.yaml``."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path, PurePosixPath

import pytest
import yaml

from cxr.cli.main import parse
from cxr.kubeflow.compiler import compile_pipeline
from cxr.kubeflow.components import IMAGES, write
from cxr.steps import step
from cxr.steps.parameters import read_flags

ABOUT_THE_PLACE = {"tracking_uri", "data_version", "data_pointer"}
"""Where runs are logged, and how a container knows the data's version."""


@pytest.fixture(scope="module")
def package(repository, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        output = compile_pipeline("training", Path("params.yaml"), tmp_path_factory.mktemp("package") / "training.yaml")
    graph, platforms = yaml.safe_load_all(output.read_text())
    return graph, platforms


@pytest.fixture(scope="module")
def tasks(package):
    """Label of every task, such as ``train@shallow``, to its command line and the tasks that it waits for."""
    graph, _ = package
    inside = next(part["dag"]["tasks"] for name, part in graph["components"].items() if "dag" in part)
    labels = {name: task["taskInfo"]["name"].replace(" ", "@") for name, task in inside.items()}
    found = {}
    for name, task in inside.items():
        part = graph["components"][task["componentRef"]["name"]]
        container = graph["deploymentSpec"]["executors"][part["executorLabel"]]["container"]
        needed = (
            {one["taskOutputArtifact"]["producerTask"] for one in task["inputs"].get("artifacts", {}).values()}
            if "inputs" in task
            else set()
        )
        found[labels[name]] = (
            [*container["command"], *words_of(container["args"], part, task)],
            {labels[one] for one in needed | set(task.get("dependentTasks", ()))},
        )
    return found


def words_of(args, part, task):
    """Fill a container's arguments as Kubeflow does."""
    inputs = part.get("inputDefinitions", {}).get("parameters", {})
    given = task.get("inputs", {}).get("parameters", {})

    def text(name):
        value = given.get(name, {}).get("runtimeValue", {}).get("constant", inputs[name].get("defaultValue"))
        if name in given and "componentInputParameter" in given[name]:
            return f"<{name}>"
        kind = inputs[name]["parameterType"]
        if kind == "NUMBER_INTEGER":
            return str(int(value))
        return value if kind == "STRING" else json.dumps(value)

    words = []
    for word in args:
        parameter = re.fullmatch(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}", word)
        path = re.fullmatch(r"\{\{\$\.(?:inputs|outputs)\.artifacts\['(\w+)'\]\.path\}\}", word)
        if word == "{{$}}":
            words.append(json.dumps({"of": "the task"}))
            continue
        words.append(text(parameter[1]) if parameter else f"/{path[1]}" if path else word)
    return words


@pytest.fixture(scope="module")
def stages(repository):
    """The same of dvc.yaml."""
    params = yaml.safe_load((repository / "params.yaml").read_text())
    filled = {}
    for name, stage in yaml.safe_load((repository / "dvc.yaml").read_text())["stages"].items():
        if "foreach" not in stage:
            filled[name] = stage
            continue
        for key, item in params[stage["foreach"].strip("${}")].items():
            text = re.sub(r"\$\{item\.(\w+)\}", lambda match, item=item: str(item[match[1]]), yaml.dump(stage["do"]))
            filled[f"{name}@{key}"] = yaml.safe_load(text.replace("${key}", key))

    def inside(one, other):
        return PurePosixPath(one).is_relative_to(other) or PurePosixPath(other).is_relative_to(one)

    return {
        name: (
            shlex.split(stage["cmd"]),
            {
                other
                for other, maker in filled.items()
                if any(inside(out, dep) for out in maker["outs"] for dep in stage["deps"])
            },
        )
        for name, stage in filled.items()
    }


def test_steps_are_the_same_and_kubeflow_fetches_besides(tasks, stages):
    assert set(tasks) == {"fetch", *stages}


def test_edges_are_the_same_and_images_come_from_fetch(tasks, stages, repository):
    documents = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]
    for name, (_, needed) in stages.items():
        from_fetch = (
            {"fetch"}
            if "data" in documents[name.partition("@")[0]].get("do", documents[name.partition("@")[0]])["deps"]
            else set()
        )
        assert tasks[name][1] == needed | from_fetch, name
    assert tasks["fetch"][1] == set()


def test_commands_have_the_same_values(tasks, stages, repository, monkeypatch):
    monkeypatch.chdir(repository)
    for name, (words, _) in stages.items():
        found = step(words[1])
        there = tasks[name][0]
        assert there[:2] == words[:2], name
        flags, problems = read_flags(there[2:])
        assert not problems, name
        assert flags.pop("executor_input") == {"of": "the task"}
        values = {flag: value for flag, value in flags.items() if "." not in flag}
        here = parse(found, words[2:])
        same = set(found.parameters()) - ABOUT_THE_PLACE
        assert found.build(values).model_dump(include=same) == here.model_dump(include=same), name


def test_every_artifact_of_a_stage_is_one_of_the_task(tasks, stages):
    for name, (words, _) in stages.items():
        paths = set(step(words[1]).artifacts())
        named = {flag for flag in read_flags(words[2:])[0] if flag in paths}
        there = {flag.partition(".")[0] for flag in read_flags(tasks[name][0][2:])[0]}
        assert named <= there, name


def test_what_validation_refuses_is_not_tried_again_and_a_registration_is_never_cached(package):
    graph, _ = package
    inside = next(part["dag"]["tasks"] for part in graph["components"].values() if "dag" in part)
    assert "retryPolicy" not in inside["validate"]
    assert "retryPolicy" not in inside["resplit"]
    assert inside["train"]["retryPolicy"]["maxRetryCount"] == 3
    assert not inside["register"].get("cachingOptions", {}).get("enableCache")


def test_component_files_are_those_of_the_steps(repository, tmp_path):
    models = tuple(yaml.safe_load((repository / "params.yaml").read_text())["models"])
    write(tmp_path, models)
    for name in IMAGES:
        committed = repository / "components" / name / "component.yaml"
        assert committed.read_text() == (tmp_path / name / "component.yaml").read_text(), f"{name}: run make components"
