"""A compiled pipeline, and a server with Kubeflow's API whose address is in the environment."""

# kfp reads annotations as objects: they must not be postponed here.
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kubeflow_server import KubeflowServer


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with one required and one optional argument, and with settings for Kubernetes."""
    from kfp import compiler, dsl, kubernetes

    @dsl.container_component
    def say(text: str):
        return dsl.ContainerSpec(image="cxr-data", command=["echo", text])

    @dsl.pipeline(name="cxr-training")
    def training(data_md5: str, images: int = 600):
        task = say(text=data_md5)
        kubernetes.use_secret_as_env(task, "cxr-s3", {"AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID"})

    path = tmp_path_factory.mktemp("package") / "training.yaml"
    compiler.Compiler().compile(training, str(path))
    return path


@pytest.fixture(scope="session")
def training_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline in the form of the training pipeline: an exit handler, display names, further tries, a volume."""
    from kfp import compiler, dsl, kubernetes

    @dsl.container_component
    def fetch(data: dsl.Output[dsl.Dataset]):
        return dsl.ContainerSpec(image="cxr-data", command=["cxr", "fetch"], args=[data.path])

    @dsl.container_component
    def validate(data: dsl.Input[dsl.Dataset]):
        return dsl.ContainerSpec(image="cxr-data", command=["cxr", "validate"], args=[data.path])

    @dsl.container_component
    def train(data: dsl.Input[dsl.Dataset], model: str):
        return dsl.ContainerSpec(image="cxr-train", command=["cxr", "train"], args=[data.path, model])

    @dsl.container_component
    def outcome():
        return dsl.ContainerSpec(image="cxr-train", command=["cxr", "outcome"])

    @dsl.pipeline(name="cxr-training")
    def training():
        with dsl.ExitHandler(outcome(), name="steps"):
            data = fetch().outputs["data"]
            checked = validate(data=data)
            claim = kubernetes.CreatePVC(pvc_name_suffix="-a", access_modes=["ReadWriteOnce"], size="1Gi")
            for model in ("plain_cnn", "shallow"):
                task = train(data=data, model=model).after(checked).set_display_name(f"train {model}").set_retry(3)
                kubernetes.mount_pvc(task, pvc_name=claim.outputs["name"], mount_path="/checkpoints")

    path = tmp_path_factory.mktemp("training") / "training.yaml"
    compiler.Compiler().compile(training, str(path))
    return path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KubeflowServer]:
    with KubeflowServer(token="right") as running:
        monkeypatch.setenv("KFP_HOST", running.url)
        monkeypatch.setenv("KFP_TOKEN", "right")
        monkeypatch.setattr("cxr.kubeflow.connection.RETRY_PAUSES", (0.01, 0.01, 0.01))
        monkeypatch.chdir(tmp_path)
        yield running
