# kfp reads annotations as objects: they must not be postponed here.
"""A run's record stays below what Kubeflow can read; a longer one is cut into several runs."""

import itertools
import json
from pathlib import Path

import pytest
import yaml

from cxr.errors import ParameterError
from cxr.kubeflow.components import build_component
from cxr.kubeflow.pipeline_package import compile_pipeline, compile_runs, read_package
from cxr.kubeflow.run_record import RECORD_LIMIT, record_bytes, task_records
from support.kubeflow_driver import walk

CLUSTER = {
    "registry": "registry.example.org/cxr",
    "version": "3f2c1ab4d5e6",
    "checkpoints": {"size": "2Gi"},
    "shared_memory": "1Gi",
    "secrets": {"s3": "cxr-s3", "mlflow": "cxr-mlflow"},
    "api": "http://ml-pipeline.kubeflow:8888",
    "transfer": True,
}
FURTHER_TRIES = 3


@pytest.fixture
def params(repository, monkeypatch, tmp_path):
    """Parameters with all networks, and everything that a task can get on a cluster."""
    monkeypatch.chdir(repository)

    def write(retries: int = FURTHER_TRIES) -> Path:
        sections = yaml.safe_load(Path("params.yaml").read_text())
        sections["containers"] |= CLUSTER
        sections["containers"]["retries"]["count"] = retries
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(sections))
        return path

    return write


def test_the_estimate_agrees_with_the_node_that_was_measured(tmp_path):
    """29 KB: a training with an input for each of its parameters, and no ``IfPresent``, as it was compiled then."""
    later = {
        "freeze_backbone", "weight_decay", "schedule", "warmup_epochs", "average_decay", "label_smoothing", "mixup",
        "mirrored",
    }  # fmt: skip
    from kfp import compiler, dsl, kubernetes

    component = build_component("train", ("shallow",))
    values = {
        "model": "plain_cnn", "system": "S4", "architecture": "plain_cnn", "recipe": "s4_resize", "optimizer": "adam",
        "learning_rate": 0.001, "batch_size": 32, "epochs": 30, "phantom_epochs": 2, "monitor": "loss",
        "early_stop_patience": 3, "dropout": "0.5", "balance": "class_weights", "seed": 0,
        "augmentation": {"horizontal_flip": True, "rotation": 20.0, "shear": 11.5, "shift": 0.1, "zoom": 0.2},
        "checkpoints": "/checkpoints", "experiment": "pneumonia", "offline": False,
        "tracking_uri": "http://mlflow.cxr.svc.cluster.local:5000",
    }  # fmt: skip

    @dsl.pipeline(name="cxr-training")
    def training():
        folder = dsl.importer(artifact_uri="s3://bucket/folder", artifact_class=dsl.Dataset).output
        task = component(manifest=folder, splits=folder, prepared=folder, **values)
        task.set_display_name("train plain_cnn").set_retry(3, "30s", 2.0, "600s")
        keys = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        kubernetes.use_secret_as_env(task, "cxr-mlflow", {key: key for key in keys})
        kubernetes.set_security_context(task, run_as_user=10001, run_as_group=10001, run_as_non_root=True)

    compiler.Compiler().compile(training, str(tmp_path / "compiled.yaml"))
    graph, platforms = yaml.safe_load_all((tmp_path / "compiled.yaml").read_text())
    container = graph["deploymentSpec"]["executors"]["exec-train"]["container"]
    inputs = graph["components"]["comp-train"]["inputDefinitions"]["parameters"]
    assert later < set(inputs)
    graph["components"]["comp-train"]["inputDefinitions"]["parameters"] = {
        name: value for name, value in inputs.items() if name not in later
    }
    container["args"] = [text for text in container["args"] if not any(f'"--{name}"' in text for name in later)]
    conditions = [
        json.loads(text)["IfPresent"]["Then"] if text.startswith("{") and "IfPresent" in text else [text]
        for text in container["args"]
    ]
    container["args"] = list(itertools.chain.from_iterable(conditions))
    (tmp_path / "training.yaml").write_text(yaml.safe_dump_all([graph, platforms]))
    assert task_records(tmp_path / "training.yaml")["train"].driver_node == pytest.approx(29_000, rel=0.1)


def test_the_record_of_all_models_with_three_further_tries_each_is_cut_below_the_limit(params, tmp_path):
    files = compile_runs("training", params(), tmp_path / "training.yaml")
    assert [file.name for file in files][:2] == ["training.yaml", "training-2.yaml"]
    assert all(record_bytes(file) <= RECORD_LIMIT for file in files), [record_bytes(file) for file in files]
    groups = [read_package(file).models for file in files]
    sections = yaml.safe_load(params().read_text())
    known = sorted([*sections["models"], *sections["transfer"]])
    assert sorted(itertools.chain(*groups)) == known, "every model is trained once"
    assert all("register" in walk(file) for file in files)
    whole = compile_pipeline("training", params(), tmp_path / "whole.yaml")
    assert record_bytes(whole) > 2 * RECORD_LIMIT, "the cut is needed"


def test_a_run_is_not_cut_smaller_than_needed(params, tmp_path):
    files = compile_runs("training", params(retries=0), tmp_path / "training.yaml")
    fewer_files = len(files) - 1
    assert (
        record_bytes(compile_pipeline("training", params(retries=0), tmp_path / "whole.yaml"))
        > (fewer_files * RECORD_LIMIT) * 0.6
    )
    assert len(compile_runs("training", params(), tmp_path / "two.yaml", ["shallow", "three_block"])) == 1


def test_packages_of_an_older_cut_are_removed(params, tmp_path):
    output = tmp_path / "training.yaml"
    assert len(compile_runs("training", params(), output)) > 2
    (tmp_path / "training-notes.yaml").write_text("mine")
    assert compile_runs("training", params(), output, ["shallow"]) == [output]
    assert sorted(path.name for path in tmp_path.glob("training*")) == ["training-notes.yaml", "training.yaml"]


def test_members_of_the_ensemble_are_never_divided_over_runs(params, tmp_path):
    path = params()
    sections = yaml.safe_load(path.read_text()) | {"ensemble": {"members": ["shallow", "plain_cnn"]}}
    path.write_text(yaml.safe_dump(sections))
    with pytest.raises(ParameterError, match=r"members=.*a run that trains .*--models '\[shallow, plain_cnn\]'"):
        compile_runs("training", path, tmp_path / "training.yaml")
    assert not list(tmp_path.glob("training*"))
    assert len(compile_runs("training", path, tmp_path / "training.yaml", ["plain_cnn", "shallow"])) == 1


def test_an_unknown_model_is_reported_with_the_known_ones(params, tmp_path):
    with pytest.raises(ParameterError, match=r"expected models among .*three_block.*; received transformer"):
        compile_runs("training", params(), tmp_path / "training.yaml", ["transformer"])


def test_a_package_has_neither_descriptions_nor_inputs_that_no_task_passes(params):
    graph, _ = yaml.safe_load_all(
        compile_pipeline("training", params(), Path(params()).with_name("x.yaml")).read_text()
    )
    for name, component in graph["components"].items():
        tasks = [
            task
            for group in (graph["root"], *graph["components"].values())
            for task in group.get("dag", {}).get("tasks", {}).values()
            if task["componentRef"]["name"] == name
        ]
        for field, spec in component.get("inputDefinitions", {}).get("parameters", {}).items():
            assert "description" not in spec
            assert all(field in task["inputs"]["parameters"] for task in tasks), (name, field)
