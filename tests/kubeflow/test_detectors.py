"""With ``containers.regions`` a training also has detectors: trained, judged beside a classifier, and registered."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

from cxr.errors import ParameterError
from cxr.kubeflow.components import write_components
from cxr.kubeflow.pipeline_package import compile_pipeline, compile_runs, read_package
from cxr.kubeflow.run_record import RECORD_LIMIT, record_bytes
from support.kubeflow_driver import walk

CLUSTER = {
    "registry": "registry.example.org/cxr",
    "version": "3f2c1ab4d5e6",
    "regions": True,
    "gpu": {
        "count": 1,
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    },
    "shared_memory": "1Gi",
    "checkpoints": {"size": "2Gi"},
    "secrets": {"s3": "cxr-s3", "mlflow": "cxr-mlflow"},
    "api": "http://ml-pipeline.kubeflow:8888",
}
DETECTORS = ("retinanet_lite0", "retinanet_lite0_scratch")
COMPARED = "three_block"


@pytest.fixture
def params(repository, monkeypatch, tmp_path):
    """Writes the parameter file of the repository with changes to its sections, as for a cluster with everything."""
    monkeypatch.chdir(repository)

    def write(**changes) -> Path:
        sections = yaml.safe_load(Path("params.yaml").read_text())
        sections["containers"] |= CLUSTER
        for name, values in changes.items():
            sections[name] |= values
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(sections, sort_keys=False))
        return path

    return write


@pytest.fixture
def package(params, tmp_path):
    """Compiles the training of some models."""

    def compiled(*models, **changes) -> Path:
        return compile_pipeline("training", params(**changes), tmp_path / "training.yaml", models)

    return compiled


def flag(command, name):
    return command[command.index(f"--{name}") + 1]


def test_every_task_of_a_training_with_detectors_starts(package):
    tasks = walk(package("shallow", *DETECTORS))
    for name in DETECTORS:
        assert tasks[f"train_regions {name}"].command[:2] == ["cxr", "train_regions"]
        assert {"fetch", "validate", "resplit", "preprocess s4_resize"} <= tasks[f"train_regions {name}"].producers
        assert f"train_regions {name}" in tasks[f"evaluate_regions {name}"].producers
        assert f"evaluate_regions {name}" in tasks["register_regions"].producers
    assert tasks["register"].producers.isdisjoint(tasks["register_regions"].producers - {"resplit"})


def test_a_detector_is_judged_beside_the_classifier_of_the_parameter_file(package):
    for compared in ("three_block", "plain_cnn"):
        tasks = walk(package(DETECTORS[0], evaluate_regions={"compare_with": compared}))
        task = tasks[f"evaluate_regions {DETECTORS[0]}"]
        assert {f"train {compared}", f"evaluate {compared}"} <= task.producers
        assert flag(task.command, "classifier") == "/classifier"
        assert flag(task.command, "classifier_evaluation") == "/classifier_evaluation"


def test_the_classifier_beside_the_detectors_is_registered_only_where_it_is_a_model_of_the_run(package):
    tasks = walk(package(*DETECTORS))
    assert f"train {COMPARED}" in tasks
    assert not {"register", "ensemble", "reference"} & tasks.keys()
    register = walk(package("shallow", COMPARED, *DETECTORS))["register"].command
    assert {f"--models.{COMPARED}", "--models.shallow"} <= set(register)
    assert f"--models.{COMPARED}" not in walk(package("shallow", *DETECTORS))["register"].command
    register_regions = walk(package("shallow", *DETECTORS))["register_regions"].command
    assert {word for word in register_regions if word.startswith("--models.")} == {
        f"--models.{name}" for name in DETECTORS
    }


def test_training_a_detector_gets_what_training_a_classifier_gets(package):
    package = package(DETECTORS[0])
    tasks, (graph, _) = walk(package), yaml.safe_load_all(package.read_text())
    executors = graph["deploymentSpec"]["executors"]
    classifier, detector = executors["exec-train"]["container"], executors["exec-train-regions"]["container"]
    assert detector["image"] == classifier["image"] == "registry.example.org/cxr/cxr-train-gpu:3f2c1ab4d5e6"
    assert detector["resources"] == classifier["resources"]
    pods = [tasks[label].pod for label in (f"train {COMPARED}", f"train_regions {DETECTORS[0]}")]
    for setting in ("nodeSelector", "tolerations", "emptyDirMounts", "secretAsEnv", "activeDeadlineSeconds"):
        assert pods[0][setting] == pods[1][setting], setting
    evaluation = executors["exec-evaluate-regions"]["container"]
    assert evaluation["image"] == "registry.example.org/cxr/cxr-train:3f2c1ab4d5e6"
    assert "accelerator" not in evaluation["resources"]
    dag_tasks = next(part["dag"]["tasks"] for part in graph["components"].values() if "dag" in part)
    for name in ("train-regions", "evaluate-regions", "register-regions"):
        assert dag_tasks[name]["retryPolicy"]["maxRetryCount"] == 3, name
    assert dag_tasks["train-regions"]["cachingOptions"]["enableCache"]
    assert not dag_tasks["register-regions"].get("cachingOptions", {}).get("enableCache")


def test_each_detector_keeps_its_checkpoints_on_a_disk_of_its_own(package):
    tasks = walk(package(*DETECTORS))
    suffixes = {task.claim["suffix"] for task in tasks.values() if task.claim}
    assert suffixes == {"-retinanet-lite0", "-retinanet-lite0-scratch", "-three-block"}
    for name in DETECTORS:
        task = tasks[f"train_regions {name}"]
        assert [volume["mountPath"] for volume in task.pod["pvcMount"]] == ["/checkpoints"]
        assert flag(task.command, "checkpoints") == "/checkpoints"


def test_the_data_version_reaches_the_metadata_of_a_detector(package, repository):
    version = yaml.safe_load((repository / "data.dvc").read_text())["outs"][0]["md5"]
    tasks = walk(package(DETECTORS[0], containers={"remote": "s3://cxr-dvc"}))
    assert flag(tasks[f"train_regions {DETECTORS[0]}"].command, "data_version") == version


def test_a_training_with_detectors_is_cut_below_the_limit_of_a_record(params, tmp_path):
    files = compile_runs("training", params(), tmp_path / "training.yaml")
    assert all(record_bytes(file) <= RECORD_LIMIT for file in files), [record_bytes(file) for file in files]
    sections = yaml.safe_load(params().read_text())
    tasks = [walk(file) for file in files]
    registered = [
        word.partition(".")[2]
        for labels, step in itertools.product(tasks, ("register", "register_regions"))
        for word in (labels[step].command if step in labels else ())
        if word.startswith("--models.")
    ]
    assert sorted(registered) == sorted([*sections["models"], *sections["regions"]]), "each is registered once"
    assert set(read_package(files[-1]).models) == {COMPARED, *DETECTORS}


def test_a_run_without_classifiers_needs_no_members_of_the_ensemble(package):
    members = {"members": ["shallow", "plain_cnn"]}
    assert "register_regions" in walk(package(*DETECTORS, ensemble=members))
    with pytest.raises(ParameterError, match=r"ensemble\.members"):
        package("shallow", *DETECTORS, ensemble=members)


def test_a_classifier_to_compare_with_that_is_not_there_is_reported(package):
    with pytest.raises(ParameterError, match=r"received evaluate_regions.compare_with=vgg16; name one of them"):
        package(evaluate_regions={"compare_with": "vgg16"})
    assert package(DETECTORS[0], evaluate_regions={"compare_with": "vgg16"}, containers={"transfer": True}).is_file()


def test_a_detector_with_the_name_of_a_classifier_is_refused(package, repository):
    entry = yaml.safe_load((repository / "params.yaml").read_text())["regions"][DETECTORS[0]]
    with pytest.raises(ParameterError, match="names in the section regions that no other model has, received shallow"):
        package(regions={"shallow": entry})


def test_a_detector_is_unknown_while_detectors_are_left_out(package):
    with pytest.raises(ParameterError, match=f"received {DETECTORS[0]}"):
        package(DETECTORS[0], containers={"regions": False})


def test_component_files_name_detectors_only_where_a_step_reads_all_of_them(tmp_path):
    write_components(tmp_path, {"models": ("shallow",), "regions": ("retinanet_lite0",)})

    def folders(name):
        document = yaml.safe_load((tmp_path / name / "component.yaml").read_text())
        return set(document["components"][f"comp-{name.replace('_', '-')}"]["inputDefinitions"]["artifacts"])

    assert folders("register_regions") == {"models_retinanet_lite0", "evaluations_retinanet_lite0", "splits"}
    assert {"models_shallow", "evaluations_shallow"} <= folders("register")
    assert not {field for field in folders("register") if "retinanet" in field}
