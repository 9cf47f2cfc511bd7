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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KubeflowServer]:
    with KubeflowServer(token="right") as running:
        monkeypatch.setenv("KFP_HOST", running.url)
        monkeypatch.setenv("KFP_TOKEN", "right")
        monkeypatch.setattr("cxr.kubeflow.connection.RETRY_PAUSES", (0.01, 0.01, 0.01))
        monkeypatch.chdir(tmp_path)
        yield running
