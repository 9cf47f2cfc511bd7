# kfp reads annotations as objects: they must not be postponed here.
"""A compiled pipeline also runs: every task resolves as the driver of a real server resolves it."""

from pathlib import Path

import pytest
import yaml

from cxr.cli.main import parse_step
from cxr.kubeflow.components import component_images, write_components
from cxr.kubeflow.pipeline_package import compile_pipeline
from cxr.steps import load_step
from cxr.steps.parameters import read_flags
from support.kubeflow_driver import DriverError, as_text, check_texts, walk

CLUSTER = {
    "version": "1f2e3d",
    "checkpoints": {"size": "2Gi"},
    "secrets": {"s3": "cxr-s3", "mlflow": "cxr-mlflow"},
    "api": "http://ml-pipeline.kubeflow:8888",
}
REQUIRED = {
    "architecture": "shallow",
    "system": "S1",
    "recipe": "s1_resize",
    "shard": "1/1",
    "nodes": {"count": 2, "image": "a", "claim": "b", "runtime": "c", "resources": {}, "hours": 1, "user": 10001},
}
"""Values of required parameters that do not accept every text."""
SCORING = {"images": "s3://cxr-kubeflow/images"}


@pytest.fixture
def package(repository, monkeypatch, tmp_path):
    """Compiles a pipeline with the values of the repository and changes to the section containers."""
    monkeypatch.chdir(repository)

    def compiled(name="training", models=(), rate=0.001, **changes) -> Path:
        params = yaml.safe_load(Path("params.yaml").read_text())
        params["models"]["shallow"]["learning_rate"] = rate
        params["containers"] |= CLUSTER | changes
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        return compile_pipeline(name, tmp_path / "params.yaml", tmp_path / f"{name}.yaml", models)

    return compiled


@pytest.mark.parametrize("models", [("shallow",), ("three_block", "plain_cnn"), ()])
def test_every_task_of_a_training_starts(package, models):
    tasks = walk(package(models=models, transfer=not models))
    trained = {label.removeprefix("train ") for label in tasks if label.startswith("train ")}
    sections = yaml.safe_load(Path("params.yaml").read_text())
    assert trained == (set(models) or {*sections["models"], *sections["transfer"]})
    for task in tasks.values():
        if task.command:
            assert not any("{{$.inputs.parameters" in argument for argument in task.command), task.label


def test_every_task_of_a_scoring_starts(package):
    command = walk(package("scoring"), SCORING)["predict"].command
    assert command[command.index("--images") + 1] == SCORING["images"]
    assert command[command.index("--alias") + 1] == "champion"
    with pytest.raises(DriverError, match="images"):
        walk(package("scoring"))


def other_pipeline(component_file: Path, output: Path) -> Path:
    """A pipeline of somebody else, which passes only what a component requires."""
    from kfp import compiler, components, dsl

    component = components.load_component_from_file(str(component_file))

    @dsl.pipeline(name="other")
    def other():
        folder = dsl.importer(artifact_uri="s3://bucket/folder", artifact_class=dsl.Artifact).output
        inputs = component.component_spec.inputs or {}
        values = {"String": "text", "Dict": {"key": "text"}}
        component(**{name: values.get(spec.type, folder) for name, spec in inputs.items() if not spec.optional})

    compiler.Compiler().compile(other, str(output))
    return output


@pytest.mark.parametrize("name", sorted(component_images().keys() - {"outcome"}))
def test_a_component_file_needs_only_the_values_without_a_default(repository, tmp_path, name):
    package = other_pipeline(repository / "components" / name / "component.yaml", tmp_path / "other.yaml")
    (task,) = walk(package).values()
    flags, problems = read_flags(task.command[2:])
    assert task.command[:2] == ["cxr", name]
    assert not problems
    step_class = load_step(name)
    required = {field for field, info in step_class.model_fields.items() if info.is_required()}
    assert {flag.partition(".")[0] for flag in flags} == {*step_class.artifacts(), *required, "executor_input"}


def test_the_defaults_of_a_component_file_are_those_of_the_step(tmp_path):
    write_components(tmp_path, {"models": ("shallow",), "regions": ("retinanet_lite0",)})
    for name in component_images():
        step_class = load_step(name)
        document = yaml.safe_load((tmp_path / name / "component.yaml").read_text())
        component = document["components"][f"comp-{name.replace('_', '-')}"]
        inputs = component.get("inputDefinitions", {}).get("parameters", {})
        for field in step_class.parameters():
            if "defaultValue" not in inputs.get(field, {}):
                continue
            command_line = [f"--{field}", as_text(inputs[field]["defaultValue"])]
            fields = step_class.model_fields.items()
            required = {other: REQUIRED.get(other, "x") for other, info in fields if info.is_required()}
            # A detector needs a folder of captures, which is no artifact.
            paths = dict.fromkeys(step_class.artifacts().keys() - {"regions_model"}, ".")
            values, problems = read_flags(command_line)
            assert not problems
            default = getattr(step_class.build({**required, **paths}), field)
            assert getattr(step_class.build({**required, **paths, **values}), field) == default, (name, field)


def test_a_task_whose_component_has_a_default_that_the_task_leaves_out_fails(tmp_path):
    """The message of the server for a package in which a placeholder is outside IfPresent."""
    from kfp import compiler, dsl

    @dsl.container_component
    def fetch(downloads: str = "/tmp/downloads"):
        return dsl.ContainerSpec(image="cxr-data", command=["cxr", "fetch"], args=["--downloads", downloads])

    @dsl.pipeline(name="trial")
    def trial():
        fetch()

    compiler.Compiler().compile(trial, str(tmp_path / "trial.yaml"))
    with pytest.raises(DriverError, match='parameter "downloads" not found in executor input'):
        walk(tmp_path / "trial.yaml")


def test_a_number_that_is_meant_as_text_is_refused():
    with pytest.raises(DriverError, match="invalid value for string field args: 1e-05"):
        check_texts("deploymentSpec: {executors: {exec-train: {container: {args: [--rate, 1e-05]}}}}")


def test_every_number_of_a_command_is_text(package):
    """Python writes 0.00001 as 1e-05, which the server reads as a number unless it is quoted."""
    file = package(models=("shallow",), rate=0.00002)
    command = walk(file)["train shallow"].command
    assert command[command.index("--learning_rate") + 1] == "2e-05"
    with pytest.raises(DriverError, match="2e-05"):
        check_texts(yaml.safe_dump_all(yaml.safe_load_all(file.read_text())))


def test_without_a_storage_class_the_cluster_takes_its_default(package):
    for unset in (None, ""):
        tasks = walk(package(models=("shallow",), checkpoints={"size": "2Gi", "storage_class": unset}))
        (claim,) = [task.claim for task in tasks.values() if task.claim]
        assert claim == {"accessModes": ["ReadWriteOnce"], "size": "2Gi", "suffix": "-shallow"}
    tasks = walk(package(models=("shallow",), checkpoints={"size": "2Gi", "storage_class": "fast"}))
    assert [task.claim["storageClassName"] for task in tasks.values() if task.claim] == ["fast"]


def test_every_pod_has_a_user_and_a_time_limit_and_only_training_has_the_volume(package):
    for task in walk(package(models=("shallow",))).values():
        if not task.command:
            continue
        assert task.pod["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
        assert int(task.pod["activeDeadlineSeconds"]) >= 3600, task.label
        volumes = [volume["taskOutputParameter"]["producerTask"] for volume in task.pod.get("pvcMount", ())]
        assert volumes == (["createpvc"] if task.label == "train shallow" else []), task.label


def test_the_steps_that_look_at_every_image_keep_results_on_the_volume_for_them(package):
    keeping = {"validate", "reference", "preprocess s1_resize"}
    for task in walk(package(models=("shallow",), cache={"claim": "cxr-cache", "path": "/kept"})).values():
        volumes = [(volume.get("constant"), volume["mountPath"]) for volume in task.pod.get("pvcMount", ())]
        assert (("cxr-cache", "/kept") in volumes) == (task.label in keeping), task.label
        if task.label in keeping:
            flags, _ = read_flags(task.command[2:])
            assert flags["cache"] == "/kept"
            assert "cache_gigabytes" not in flags


def test_without_a_volume_nothing_is_kept_on_a_disk_that_ends_with_its_task(package):
    tasks = walk(package(models=("shallow",)))
    for label in ("validate", "reference", "preprocess s1_resize"):
        flags, _ = read_flags(tasks[label].command[2:])
        assert float(flags["cache_gigabytes"]) == 0, label
        assert not tasks[label].pod.get("pvcMount"), label


def test_a_run_that_waits_for_ever_is_stopped(package):
    _, platforms = yaml.safe_load_all(package(hours=36).read_text())
    assert platforms["platforms"]["kubernetes"]["pipelineConfig"]["activeDeadlineSeconds"] == 36 * 3600


def test_the_last_task_receives_the_status_of_the_run(package):
    for name in ("training", "scoring"):
        task = walk(package(name), SCORING)["outcome"]
        flags, problems = read_flags(task.command[2:])
        assert not problems
        assert flags["final_status"]["state"] == "FAILED"
        flags.pop("executor_input")
        assert parse_step(load_step("outcome"), task.command[2 : task.command.index("--executor_input")]).final_status


def test_runs_of_other_models_take_the_prepared_images_from_the_cache(package):
    first = walk(package(models=("shallow",)))
    second = walk(package(models=("three_block",)))
    for label in ("fetch", "validate", "resplit", "reference"):
        assert first[label].cache_key == second[label].cache_key != "", label
    assert "train shallow" not in second
    assert not first["register"].cache_key
