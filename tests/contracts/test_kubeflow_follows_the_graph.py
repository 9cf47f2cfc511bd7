"""The compiled Kubeflow pipeline has the steps, edges, values and commands of ``dvc.yaml``.

With ``containers.regions`` it also has those of ``regions/dvc.yaml``.
"""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath

import pytest
import yaml

from cxr.cli.main import parse_step
from cxr.kubeflow.components import component_images, write_components
from cxr.kubeflow.pipeline_package import compile_pipeline
from cxr.steps import load_step
from cxr.steps.parameters import read_flags
from support.dvc_stages import filled_stages
from support.kubeflow_driver import walk

ENVIRONMENT_PARAMETERS = {
    "tracking_uri", "cache_gigabytes", "image_cache_gigabytes", "data_version", "data_pointer"
}  # fmt: skip
"""Parameters that differ between environments: where runs are logged, what is kept, and how a step gets the data
version."""


@pytest.fixture(scope="module")
def params(repository):
    return yaml.safe_load((repository / "params.yaml").read_text())


@pytest.fixture(scope="module")
def package(repository, params, tmp_path_factory):
    """The pipeline with detectors."""
    folder = tmp_path_factory.mktemp("package")
    with_detectors = params | {"containers": params["containers"] | {"regions": True}}
    (folder / "params.yaml").write_text(yaml.safe_dump(with_detectors))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        return compile_pipeline("training", folder / "params.yaml", folder / "training.yaml")


def tasks_of(package):
    """Label of every task, such as ``train@shallow``, to its command line and the tasks that it depends on."""
    return {
        task.label.replace(" ", "@"): (task.command, {label.replace(" ", "@") for label in task.producers})
        for task in walk(package).values()
        if task.label != "outcome"
    }


def stages_with_images(repository, params):
    """The stages of the first graph, without the list of code: a container image holds one version of the code."""
    filled = filled_stages(repository / "dvc.yaml", params)
    return {name: stage for name, stage in filled.items() if name != "code"}


@pytest.fixture(scope="module")
def tasks(package):
    return tasks_of(package)


@pytest.fixture(scope="module")
def stages(repository, params):
    """Label of every stage of both graphs to its command line and the tasks that it depends on."""
    filled = stages_with_images(repository, params)
    for name, stage in filled_stages(repository / "regions" / "dvc.yaml", params).items():
        step_name, at, key = name.partition("@")
        filled[f"{step_name}_regions{at}{key}"] = stage

    def overlap(first, second):
        return PurePosixPath(first).is_relative_to(second) or PurePosixPath(second).is_relative_to(first)

    return {
        name: (
            shlex.split(stage["cmd"]),
            {
                producer
                for producer, producing_stage in filled.items()
                if any(overlap(out, dep) for out in producing_stage["outs"] for dep in stage["deps"])
            }
            | ({"fetch"} if "data" in stage["deps"] else set()),
        )
        for name, stage in filled.items()
    }


def test_steps_are_the_same_and_kubeflow_also_fetches(tasks, stages):
    assert set(tasks) == {"fetch", *stages}


def test_detectors_are_left_out_unless_the_parameter_file_wants_them(repository, params, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    assert params["containers"]["regions"] is False
    package = compile_pipeline("training", Path("params.yaml"), tmp_path / "training.yaml")
    assert set(tasks_of(package)) == {"fetch", *stages_with_images(repository, params)}


def test_edges_are_the_same_and_images_come_from_fetch(tasks, stages):
    for name, (_, needed) in stages.items():
        assert tasks[name][1] == needed, name
    assert tasks["fetch"][1] == set()


def test_commands_have_the_same_values(tasks, stages, repository, monkeypatch):
    monkeypatch.chdir(repository)
    for name, (command, _) in stages.items():
        step_class = load_step(command[1])
        task_command = tasks[name][0]
        assert task_command[:2] == command[:2], name
        flags, problems = read_flags(task_command[2:])
        assert not problems, name
        assert flags.pop("executor_input") == {"description": "of the task"}
        values = {flag: value for flag, value in flags.items() if "." not in flag}
        stage_step = parse_step(step_class, command[2:])
        compared = set(step_class.parameters()) - ENVIRONMENT_PARAMETERS
        assert step_class.build(values).model_dump(include=compared) == stage_step.model_dump(include=compared), name


def test_every_artifact_of_a_stage_is_one_of_the_task(tasks, stages):
    for name, (command, _) in stages.items():
        paths = set(load_step(command[1]).artifacts())
        stage_flags = {flag for flag in read_flags(command[2:])[0] if flag in paths}
        task_flags = {flag.partition(".")[0] for flag in read_flags(tasks[name][0][2:])[0]}
        assert stage_flags <= task_flags, name


def test_checks_are_not_retried_and_a_registration_is_never_cached(package):
    graph, _ = yaml.safe_load_all(package.read_text())
    dag_tasks = next(part["dag"]["tasks"] for part in graph["components"].values() if "dag" in part)
    assert "retryPolicy" not in dag_tasks["validate"]
    assert "retryPolicy" not in dag_tasks["resplit"]
    assert dag_tasks["train"]["retryPolicy"]["maxRetryCount"] == 3
    for name in ("register", "register-regions"):
        assert not dag_tasks[name].get("cachingOptions", {}).get("enableCache"), name


def test_component_files_are_those_of_the_steps(repository, params, tmp_path):
    write_components(tmp_path, {section: tuple(params[section]) for section in ("models", "regions")})
    for name in component_images():
        committed = repository / "components" / name / "component.yaml"
        assert committed.read_text() == (tmp_path / name / "component.yaml").read_text(), f"{name}: run make generate"
