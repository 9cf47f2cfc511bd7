"""What tasks on a cluster get besides their command: GPU, disk, secrets, retries, versions of data and images."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cxr.errors import ParameterError
from cxr.kubeflow.compiler import compile_pipeline

DIGEST = f"sha256:{'cd' * 32}"


GPU = {
    "count": 2,
    "type": "nvidia.com/gpu",
    "node_selector": {"gpu": "yes"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
}
CLUSTER = {
    "gpu": GPU,
    "shared_memory": "1Gi",
    "checkpoints": {"size": "2Gi", "storage_class": "fast"},
    "secrets": {"s3": "cxr-s3", "mlflow": "cxr-mlflow"},
    "api": "http://ml-pipeline.kubeflow:8888",
}
"""What is set on a cluster that has all of it."""


@pytest.fixture(scope="module")
def compiled(repository, tmp_path_factory):
    """Compiles the training pipeline with changes to the section containers; the same changes only once."""
    known = {}

    def compile_with(values=None, output=None, **changes):
        params = yaml.safe_load((repository / "params.yaml").read_text())
        for name in ("residual_separable", "plain_cnn", "shallow"):
            del params["models"][name]
        params["containers"] |= changes
        for section, entries in (values or {}).items():
            params[section] |= entries
        text = yaml.safe_dump(params)
        if text not in known:
            folder = tmp_path_factory.mktemp("compiled")
            (folder / "params.yaml").write_text(text)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(repository)
                package = compile_pipeline("training", folder / "params.yaml", output or folder / "training.yaml")
            known[text] = list(yaml.safe_load_all(package.read_text()))
        graph, platforms = known[text]
        return graph, platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]

    return compile_with


def container(graph, name):
    return graph["deploymentSpec"]["executors"][f"exec-{name}"]["container"]


def tasks(graph):
    return next(part["dag"]["tasks"] for part in graph["components"].values() if "dag" in part)


def test_training_on_a_gpu_asks_for_it_and_nothing_else_does(compiled):
    graph, pods = compiled(**CLUSTER)
    train = container(graph, "train")
    assert train["image"] == "cxr-train-gpu:latest"
    assert train["resources"]["accelerator"]["resourceCount"] == "2"
    assert pods["exec-train"]["nodeSelector"]["labels"] == {"gpu": "yes"}
    assert pods["exec-train"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert pods["exec-train"]["emptyDirMounts"][0]["mountPath"] == "/dev/shm"
    assert container(graph, "evaluate")["image"] == "cxr-train:latest"
    assert "accelerator" not in container(graph, "evaluate")["resources"]
    assert "tolerations" not in pods["exec-evaluate"]


def test_a_checkpoint_is_on_a_disk_that_outlives_the_node(compiled):
    graph, pods = compiled(**CLUSTER)
    assert pods["exec-train"]["pvcMount"][0]["mountPath"] == "/checkpoints"
    assert tasks(graph)["train"]["inputs"]["parameters"]["checkpoints"]["runtimeValue"]["constant"] == "/checkpoints"
    disk = tasks(graph)["createpvc"]["inputs"]["parameters"]
    assert disk["size"]["runtimeValue"]["constant"] == "2Gi"
    assert disk["pvc_name_suffix"]["runtimeValue"]["constant"] == "-three-block"
    assert "train" in tasks(graph)["deletepvc"]["dependentTasks"]


def test_secrets_go_to_the_steps_that_need_them_alone(compiled):
    graph, pods = compiled(**CLUSTER)
    held = {name: [one["secretName"] for one in pod.get("secretAsEnv", ())] for name, pod in pods.items()}
    assert held["exec-fetch"] == ["cxr-s3"]
    assert held["exec-train"] == held["exec-register"] == held["exec-outcome"] == ["cxr-mlflow"]
    assert held["exec-validate"] == held["exec-preprocess"] == []
    assert "cxr-s3" not in str(graph), "the graph itself is shown to everybody"


def test_a_data_version_is_an_input_of_the_pipeline_that_the_cache_sees(compiled, repository):
    graph, _ = compiled(remote="s3://cxr-dvc", version="1f2e3d")
    version = yaml.safe_load((repository / "data.dvc").read_text())["outs"][0]["md5"]
    assert graph["root"]["inputDefinitions"]["parameters"]["data_version"]["defaultValue"] == version
    assert graph["root"]["inputDefinitions"]["parameters"]["source"]["defaultValue"] == "s3://cxr-dvc"
    for name in ("fetch", "train"):
        given = tasks(graph)[name]["inputs"]["parameters"]["data_version"]
        assert given["componentInputParameter"].endswith("data_version")
    assert tasks(graph)["fetch"]["cachingOptions"]["enableCache"]


def test_nothing_is_cached_while_the_tag_does_not_name_the_code(compiled):
    graph, _ = compiled()
    assert not any(task.get("cachingOptions", {}).get("enableCache") for task in tasks(graph).values())
    graph, _ = compiled(version="1f2e3d")
    cached = {name for name, task in tasks(graph).items() if task.get("cachingOptions", {}).get("enableCache")}
    assert {"fetch", "train", "validate"} <= cached
    assert "register" not in cached
    graph, _ = compiled({"fetch": {"source": "s3://bucket/radiographs"}}, version="1f2e3d")
    assert not tasks(graph)["fetch"]["cachingOptions"].get("enableCache"), "an address may hold something else tomorrow"


def test_an_image_s_digest_reaches_the_versions(compiled):
    graph, _ = compiled(digests={"cxr-train": DIGEST}, registry="registry.example.org/cxr")
    reference = f"registry.example.org/cxr/cxr-train@{DIGEST}"
    assert container(graph, "train")["image"] == reference
    assert {"name": "CXR_IMAGE_DIGEST", "value": reference} in container(graph, "train")["env"]


def test_a_run_that_fails_is_told_by_the_exit_handler(compiled):
    graph, pods = compiled(**CLUSTER)
    (last,) = [
        task for task in graph["root"]["dag"]["tasks"].values() if task["componentRef"]["name"] == "comp-outcome"
    ]
    assert last["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert last["inputs"]["parameters"]["api"]["runtimeValue"]["constant"] == "http://ml-pipeline.kubeflow:8888"
    assert pods["exec-outcome"]["fieldPathAsEnv"][0]["name"] == "CXR_PIPELINE_RUN"


def test_a_wrong_value_of_a_step_is_told_before_anything_is_written(compiled, tmp_path):
    with pytest.raises(ParameterError, match="resamples"):
        compiled({"evaluate": {"resamples": 1}}, tmp_path / "out" / "training.yaml")
    assert not (tmp_path / "out").exists()


def test_an_unknown_network_is_told_when_compiling(compiled, tmp_path):
    strange = {"system": "S1", "architecture": "transformer", "recipe": "s1_resize"}
    with pytest.raises(ParameterError, match="transformer"):
        compiled({"models": {"strange": strange}}, tmp_path / "out" / "training.yaml")
    assert not (tmp_path / "out").exists()


def test_an_unknown_pipeline_lists_those_that_there_are(repository, monkeypatch, tmp_path):
    monkeypatch.chdir(repository)
    with pytest.raises(ParameterError, match="there are: scoring, training"):
        compile_pipeline("trainning", Path("params.yaml"), tmp_path / "x.yaml")


def test_every_step_runs_as_the_user_of_the_images(compiled):
    _, pods = compiled()
    for name, pod in pods.items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] == "10001", name
