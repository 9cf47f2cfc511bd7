"""What tasks on a cluster get in addition to their command: GPU, disk, secrets, retries, versions."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cxr.errors import ParameterError
from cxr.kubeflow.pipeline_package import compile_pipeline

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
"""Settings of a cluster that has all of these."""


@pytest.fixture(scope="module")
def compiled(repository, tmp_path_factory):
    """Compiles the training pipeline with changes to the section containers; the same changes only once."""
    packages = {}

    def compile_with(values=None, output=None, **changes):
        params = yaml.safe_load((repository / "params.yaml").read_text())
        for name in ("residual_separable", "plain_cnn", "shallow"):
            del params["models"][name]
        params["containers"] |= changes
        for section, entries in (values or {}).items():
            params[section] |= entries
        text = yaml.safe_dump(params)
        if text not in packages:
            folder = tmp_path_factory.mktemp("compiled")
            (folder / "params.yaml").write_text(text)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(repository)
                package = compile_pipeline("training", folder / "params.yaml", output or folder / "training.yaml")
            packages[text] = list(yaml.safe_load_all(package.read_text()))
        graph, platforms = packages[text]
        return graph, platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]

    return compile_with


def container(graph, name):
    return graph["deploymentSpec"]["executors"][f"exec-{name}"]["container"]


def flag(graph, name, field):
    """Text that a container's command has for a parameter."""
    arguments = container(graph, name)["args"]
    return arguments[arguments.index(f"--{field}") + 1]


def tasks(graph):
    return next(part["dag"]["tasks"] for part in graph["components"].values() if "dag" in part)


def test_only_training_gets_a_gpu(compiled):
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


def test_checkpoints_are_on_a_disk_that_outlives_the_node(compiled):
    graph, pods = compiled(**CLUSTER)
    assert pods["exec-train"]["pvcMount"][0]["mountPath"] == "/checkpoints"
    assert flag(graph, "train", "checkpoints") == "/checkpoints"
    disk = tasks(graph)["createpvc"]["inputs"]["parameters"]
    assert disk["size"]["runtimeValue"]["constant"] == "2Gi"
    assert disk["pvc_name_suffix"]["runtimeValue"]["constant"] == "-" + flag(graph, "train", "model").replace("_", "-")
    assert "train" in tasks(graph)["deletepvc"]["dependentTasks"]


def test_only_steps_that_need_a_secret_get_it(compiled):
    graph, pods = compiled(**CLUSTER)
    secrets = {name: [entry["secretName"] for entry in pod.get("secretAsEnv", ())] for name, pod in pods.items()}
    assert secrets["exec-fetch"] == ["cxr-s3"]
    assert secrets["exec-train"] == secrets["exec-register"] == secrets["exec-outcome"] == ["cxr-mlflow"]
    assert secrets["exec-validate"] == ["cxr-mlflow"], "it logs the reports of rejected data"
    assert secrets["exec-preprocess"] == []
    assert "cxr-s3" not in str(graph), "everybody can read the graph"


READERS = ("validate", "preprocess", "reference", "evaluate", "ensemble", "register")
"""Steps that read raw images."""


@pytest.mark.parametrize(
    ("values", "changes", "is_index"),
    [
        ({}, {}, False),
        ({}, {"remote": "s3://cxr-dvc"}, True),
        ({}, {"remote": "s3://cxr-dvc", "data": "folder"}, False),
        ({"fetch": {"source": "s3://bucket/radiographs"}}, {}, True),
        ({"fetch": {"source": "s3://bucket/radiographs.zip"}}, {}, False),
        ({"fetch": {"image_store": "s3://bucket/images"}}, {}, True),
    ],
)
def test_the_index_travels_where_the_images_lie_in_an_object_store(compiled, values, changes, is_index):
    graph, pods = compiled(values, secrets={"s3": "cxr-s3"}, **changes)
    assert ("--index" in container(graph, "fetch")["args"]) == is_index
    with_secret = {name.removeprefix("exec-").partition("-")[0] for name, pod in pods.items() if pod.get("secretAsEnv")}
    assert with_secret == {"fetch", *(READERS if is_index else ())}


def test_an_index_without_a_place_for_the_images_is_refused_when_the_pipeline_is_compiled(compiled):
    with pytest.raises(ParameterError, match=r"or image_store, received source=phantom with index=True"):
        compiled(data="index")


def test_copies_of_images_lie_on_the_volume_of_the_cache(compiled):
    graph, _ = compiled(cache={"claim": "results"}, remote="s3://cxr-dvc")
    assert flag(graph, "preprocess", "image_cache") == "/cache/images"
    graph, _ = compiled(remote="s3://cxr-dvc")
    assert flag(graph, "preprocess", "image_cache_gigabytes") == "0.0"


def test_the_data_version_is_an_input_of_the_pipeline_so_the_cache_depends_on_it(compiled, repository):
    graph, _ = compiled(remote="s3://cxr-dvc", version="1f2e3d")
    version = yaml.safe_load((repository / "data.dvc").read_text())["outs"][0]["md5"]
    assert graph["root"]["inputDefinitions"]["parameters"]["data_version"]["defaultValue"] == version
    assert graph["root"]["inputDefinitions"]["parameters"]["source"]["defaultValue"] == "s3://cxr-dvc"
    for name in ("fetch", "train"):
        parameter = tasks(graph)[name]["inputs"]["parameters"]["data_version"]
        assert parameter["componentInputParameter"].endswith("data_version")
    assert tasks(graph)["fetch"]["cachingOptions"]["enableCache"]


def test_nothing_is_cached_while_the_tag_does_not_pin_the_code(compiled):
    graph, _ = compiled()
    assert not any(task.get("cachingOptions", {}).get("enableCache") for task in tasks(graph).values())
    graph, _ = compiled(version="1f2e3d")
    cached = {name for name, task in tasks(graph).items() if task.get("cachingOptions", {}).get("enableCache")}
    assert {"fetch", "train", "validate"} <= cached
    assert "register" not in cached
    graph, _ = compiled({"fetch": {"source": "s3://bucket/radiographs"}}, version="1f2e3d")
    assert not tasks(graph)["fetch"]["cachingOptions"].get("enableCache"), "the images at an address may change"


def test_an_image_digest_reaches_the_registered_versions(compiled):
    graph, _ = compiled(digests={"cxr-train": DIGEST}, registry="registry.example.org/cxr")
    reference = f"registry.example.org/cxr/cxr-train@{DIGEST}"
    assert container(graph, "train")["image"] == reference
    assert {"name": "CXR_IMAGE_DIGEST", "value": reference} in container(graph, "train")["env"]


def test_the_exit_handler_reports_a_failed_run(compiled):
    graph, pods = compiled(**CLUSTER)
    (last,) = [
        task for task in graph["root"]["dag"]["tasks"].values() if task["componentRef"]["name"] == "comp-outcome"
    ]
    assert last["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert last["inputs"]["parameters"] == {"final_status": {"taskFinalStatus": {"producerTask": "exit-handler-1"}}}
    assert flag(graph, "outcome", "api") == "http://ml-pipeline.kubeflow:8888"
    assert pods["exec-outcome"]["fieldPathAsEnv"][0]["name"] == "CXR_PIPELINE_RUN"


def test_a_wrong_value_of_a_step_is_reported_before_anything_is_written(compiled, tmp_path):
    with pytest.raises(ParameterError, match="resamples"):
        compiled({"evaluate": {"resamples": 1}}, tmp_path / "out" / "training.yaml")
    assert not (tmp_path / "out").exists()


def test_an_unknown_network_is_reported_when_compiling(compiled, tmp_path):
    entry = {"system": "S1", "architecture": "transformer", "recipe": "s1_resize"}
    with pytest.raises(ParameterError, match="transformer"):
        compiled({"models": {"strange": entry}}, tmp_path / "out" / "training.yaml")
    assert not (tmp_path / "out").exists()


def test_an_unknown_pipeline_lists_the_known_ones(repository, monkeypatch, tmp_path):
    monkeypatch.chdir(repository)
    with pytest.raises(ParameterError, match="there are: scoring, training"):
        compile_pipeline("trainning", Path("params.yaml"), tmp_path / "x.yaml")


def test_every_step_runs_as_the_user_of_the_images(compiled):
    _, pods = compiled()
    for name, pod in pods.items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] == "10001", name
