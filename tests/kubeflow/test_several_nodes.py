"""With several nodes for each training, a task of the pipeline starts a TrainJob instead of training itself."""

from __future__ import annotations

import pytest
import yaml

from cxr.cli.main import parse_step
from cxr.errors import ParameterError
from cxr.kubeflow.container_settings import ContainerSettings
from cxr.kubeflow.pipeline_package import compile_pipeline, read_package
from cxr.steps.train_on_nodes import TrainOnNodes
from support.kubeflow_driver import walk

CLUSTER = {
    "version": "1f2e3d",
    "nodes": {"count": 3, "claim": "training", "runtime": "jax-distributed"},
    "gpu": {"count": 2, "type": "nvidia.com/gpu", "node_selector": {"gpu": "yes"}, "tolerations": []},
    "checkpoints": {"size": "2Gi", "storage_class": None},
    "secrets": {"s3": None, "mlflow": "cxr-mlflow", "image_pull": None},
    "shared_memory": "1Gi",
    "regions": True,
}


@pytest.fixture(scope="module")
def params(repository):
    params = yaml.safe_load((repository / "params.yaml").read_text())
    for name in ("residual_separable", "plain_cnn", "three_block"):
        del params["models"][name]
    params["evaluate_regions"]["compare_with"] = "shallow"
    params["containers"] |= CLUSTER
    return params


@pytest.fixture(scope="module")
def package(params, repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        return compile_pipeline("training", folder / "params.yaml", folder / "training.yaml")


@pytest.fixture
def step(package):
    command = walk(package)["train shallow"].command
    assert command[:2] == ["cxr", "train_on_nodes"]
    return parse_step(TrainOnNodes, command[2 : command.index("--executor_input")])


def test_the_nodes_get_what_the_task_would_get(step, monkeypatch):
    monkeypatch.setenv("CXR_PIPELINE_RUN", "run-1")
    trainer = step.describe_job()["spec"]["trainer"]
    assert (trainer["image"], trainer["numNodes"]) == ("cxr-train-gpu:1f2e3d", 3)
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": 2}
    assert step.nodes["node_selector"] == {"gpu": "yes"}
    assert step.nodes["shared_memory"] == "1Gi"
    assert step.nodes["secrets"] == {"cxr-mlflow": ["MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"]}


def test_the_values_are_those_of_a_training_on_one_node(step, params):
    section = params["train"] | params["models"]["shallow"]
    values = step.model_dump(mode="json")
    assert {name: values[name] for name in section} == section


def test_task_and_nodes_share_a_volume_and_only_the_nodes_have_gpus(package, step):
    graph, platforms = yaml.safe_load_all(package.read_text())
    container = graph["deploymentSpec"]["executors"]["exec-train-on-nodes"]["container"]
    pod = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train-on-nodes"]
    (mount,) = pod["pvcMount"]
    assert mount["mountPath"] == str(step.checkpoints)
    assert mount["pvcNameParameter"]["runtimeValue"]["constant"] == step.nodes["claim"] == "training"
    assert container["image"] == "cxr-train:1f2e3d"
    assert "accelerator" not in container["resources"]
    assert not {"nodeSelector", "tolerations", "emptyDirMounts"} & set(pod)


def test_a_detector_is_trained_on_one_node_with_its_own_disk(package):
    tasks = walk(package)
    detectors = [name for name in tasks if name.startswith("train_regions ")]
    assert detectors
    graph = package.read_text()
    assert graph.count("pvc_name_suffix") >= len(detectors)
    assert '"-shallow"' not in graph, "a disk that no training uses"


def test_the_pipeline_still_says_which_models_it_trains(package):
    assert "shallow" in read_package(package).models


def test_an_image_of_the_nodes_that_may_be_any_code_is_not_cached(params, repository, tmp_path, monkeypatch):
    digest = f"sha256:{'ab' * 32}"
    changes = {"version": "latest", "digests": {"cxr-train": digest}, "regions": False}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params | {"containers": params["containers"] | changes}))
    monkeypatch.chdir(repository)
    graph = next(
        yaml.safe_load_all(compile_pipeline("training", tmp_path / "params.yaml", tmp_path / "t.yaml").read_text())
    )
    tasks = next(part["dag"]["tasks"] for part in graph["components"].values() if "dag" in part)
    assert not tasks["train-on-nodes"].get("cachingOptions", {}).get("enableCache")
    assert tasks["evaluate"]["cachingOptions"]["enableCache"]


def test_several_nodes_without_a_volume_are_refused():
    with pytest.raises(ParameterError, match=r"containers\.nodes to be a count of 1, or a count and the claim"):
        ContainerSettings.read({"containers": {"nodes": {"count": 2}}})
