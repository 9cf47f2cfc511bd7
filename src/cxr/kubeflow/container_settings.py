"""Section ``containers`` of ``params.yaml``: images, resources and secrets of the steps on a cluster."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cxr.errors import ParameterError
from cxr.kubeflow import CONTAINERS_SECTION
from cxr.kubeflow.components import CONTAINER_USER, component_images
from cxr.train_job.manifest import TrainingNodes

MAX_SHARDS = 64
"""Most shards of a pipeline."""
IMAGES_PER_SHARD = 20_000
"""Images from which a further shard saves more time than its copy of the images takes."""
MAX_AUTO_SHARDS = 3
"""Most shards of ``auto``: with a further one, the record of a run of one model is too long for Kubeflow."""
QUANTITY = r"^\d+(\.\d+)?(m|[kMGTP]i?)?$"
"""How Kubernetes writes amounts of CPU time and memory."""


class _SettingsModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ContainerResources(_SettingsModel):
    """CPU, memory and time of a step's container."""

    cpu: str = Field("1", pattern=QUANTITY)
    """CPU cores."""
    memory: str = Field("2Gi", pattern=QUANTITY)
    """Memory."""
    hours: float = Field(1.0, gt=0)
    """Time after which the container is stopped and counts as failed."""


class GpuSettings(_SettingsModel):
    """The GPU that training gets."""

    count: int = Field(0, ge=0, le=64)
    """GPUs for each training; 0 trains on CPU cores."""
    type: str = Field("nvidia.com/gpu", min_length=1)
    """Name of the Kubernetes resource."""
    node_selector: dict[str, str] = {}
    """Labels of the nodes that have GPUs."""
    tolerations: list[dict[str, str | int]] = []
    """Tolerations for the taints of these nodes, as Kubernetes writes them."""


class RetrySettings(_SettingsModel):
    """How often a failed step is retried."""

    count: int = Field(3, ge=0, le=20)
    """Number of retries."""
    seconds: int = Field(30, ge=0)
    """Pause before the first retry."""
    factor: float = Field(2.0, ge=1)
    """Factor by which the pause grows with each retry."""
    longest: int = Field(600, ge=0)
    """Longest pause, in seconds."""


class CheckpointDisk(_SettingsModel):
    """The disk that keeps a training's checkpoints when its node is replaced."""

    size: str | None = Field(None, pattern=QUANTITY)
    """Size of the disk for each model. null keeps checkpoints in the container; a lost node loses all epochs."""
    storage_class: str | None = None
    """Storage class; null or empty takes the default of the cluster."""


class TrainingNodeSettings(_SettingsModel):
    """The nodes that train one classifier together."""

    count: int = Field(1, ge=1, le=64)
    """Nodes for each training; with more than 1, a TrainJob of the Kubeflow Trainer trains it."""
    claim: str | None = None
    """Claim of the volume that all nodes and the task mount (ReadWriteMany)."""
    runtime: str = Field("jax-distributed", min_length=1)
    """Name of the Trainer's ClusterTrainingRuntime."""

    @model_validator(mode="after")
    def _check_claim(self) -> Self:
        if self.count > 1 and self.claim is None:
            raise ValueError("a count of 1, or a count and the claim of a volume that all nodes can write")
        return self


class ImageVolume(_SettingsModel):
    """A volume of the cluster with images to score."""

    claim: str | None = None
    """Name of the volume claim; null mounts nothing."""
    path: str = Field("/images", pattern="^/.+")
    """Path in the container at which it is mounted."""


class CacheVolume(_SettingsModel):
    """A volume of the cluster that keeps results of single images between runs."""

    claim: str | None = None
    """Name of the volume claim, which several pods can write at once; null keeps nothing."""
    path: str = Field("/cache", pattern="^/.+")
    """Path in the container at which it is mounted."""


class SecretNames(_SettingsModel):
    """Names of the Kubernetes secrets whose keys become environment variables."""

    s3: str | None = None
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL; null uses the rights of the nodes."""
    mlflow: str | None = None
    """Secret with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""
    image_pull: str | None = None
    """Secret for pulling images from the registry."""


class ContainerSettings(_SettingsModel):
    """How the steps run on a cluster."""

    registry: str = ""
    """Prefix of the image names; empty takes the images of this machine."""
    version: str = Field("latest", min_length=1)
    """Tag of the images, as ``make images VERSION=...`` gives it."""
    digests: dict[str, str] = {}
    """Image name to sha256:...; such an image is pulled by its digest, and registered versions record the digest."""
    pull: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull images."""
    caching: bool = True
    """Whether outputs of a step with the same inputs are reused; never with the tag latest, which can be any code."""
    tracking_uri: str | None = None
    """Address of MLflow as the containers reach it; null takes the one of the section tracking."""
    remote: str | None = None
    """DVC remote (s3://...) from which the version in data.dvc is fetched; null fetches as the section fetch says."""
    data: Literal["auto", "index", "folder"] = "auto"
    """What travels from fetch to the other tasks: an index of the images, which each task reads where they are, or the
    folder of images, which each task copies. auto: the index where the images lie in an object store."""
    transfer: bool = False
    """Whether the models of the section transfer are trained too."""
    regions: bool = False
    """Whether the detectors of the section regions are trained too."""
    shards: int | str = "auto"
    """Tasks that share the images in each step that works on every image; ``auto``: by the number of images."""
    hours: float = Field(48.0, gt=0, le=24 * 365)
    """Time after which a run is stopped, also when one of its pods still waits for a node, a volume or an image."""
    api: str | None = None
    """Address of Kubeflow's API inside the cluster, where the last step reads how the run ended; null does not ask."""
    gpu: GpuSettings = GpuSettings()
    """The GPU that training gets."""
    shared_memory: str | None = Field(None, pattern=QUANTITY)
    """Size of /dev/shm while training; null keeps the default."""
    checkpoints: CheckpointDisk = CheckpointDisk()
    """The disk for checkpoints."""
    nodes: TrainingNodeSettings = TrainingNodeSettings()
    """Nodes of each training."""
    images: ImageVolume = ImageVolume()
    """Volume with images to score."""
    cache: CacheVolume = CacheVolume()
    """Volume with results of single images."""
    retries: RetrySettings = RetrySettings()
    """Retries of the steps that may be retried."""
    secrets: SecretNames = SecretNames()
    """Kubernetes secrets."""
    resources: dict[str, ContainerResources] = {}
    """Step to its resources; ``default`` is for all other steps."""

    @field_validator("digests")
    @classmethod
    def _check_digests(cls, digests: dict[str, str]) -> dict[str, str]:
        wrong = [
            f"{name}={value}" for name, value in digests.items() if not re.fullmatch(r"sha256:[0-9a-f]{64}", value)
        ]
        if wrong:
            raise ValueError(f"sha256: and 64 hex digits; wrong: {', '.join(wrong)}")
        return digests

    @field_validator("shards", mode="before")
    @classmethod
    def _check_shards(cls, shards: object) -> object:
        is_number = isinstance(shards, int) and not isinstance(shards, bool)
        if shards != "auto" and not (is_number and 1 <= shards <= MAX_SHARDS):  # type: ignore[operator]
            raise ValueError(f"auto, or a whole number from 1 to {MAX_SHARDS}")
        return shards

    @field_validator("resources")
    @classmethod
    def _check_step_names(cls, resources: dict[str, ContainerResources]) -> dict[str, ContainerResources]:
        steps = component_images()
        unknown = sorted(set(resources) - set(steps) - {"default"})
        if unknown:
            raise ValueError(f"keys among default, {', '.join(steps)}; unknown: {', '.join(unknown)}")
        return resources

    @model_validator(mode="after")
    def _check_remote(self) -> Self:
        if self.remote is not None and "://" not in self.remote and not self.remote.startswith("/"):
            raise ValueError(f"a DVC remote such as s3://bucket/prefix, received remote={self.remote!r}")
        return self

    @classmethod
    def read(cls, sections: Mapping[str, Any]) -> Self:
        """Read the settings from a parameter file.

        Args:
            sections: sections of the file.

        Returns:
            The settings; all defaults if the section is missing.

        Raises:
            ParameterError: listing all unknown and wrong values.
        """
        try:
            return cls.model_validate(sections.get(CONTAINERS_SECTION) or {})
        except ValidationError as error:
            raise ParameterError([_describe_problem(problem) for problem in error.errors()]) from None

    def count_shards(self, images: int | None) -> int:
        """Number of tasks that share the images.

        Args:
            images: number of images; None if it is unknown.

        Returns:
            The number that is set. For ``auto``, one for each :data:`IMAGES_PER_SHARD` images, at most
            :data:`MAX_AUTO_SHARDS`; 1 if the number of images is unknown.
        """
        if isinstance(self.shards, int):
            return self.shards
        return min(max(1, math.ceil((images or 0) / IMAGES_PER_SHARD)), MAX_AUTO_SHARDS)

    def image_reference(self, name: str) -> str:
        """Full reference of an image.

        Args:
            name: its name without registry, e.g. ``"cxr-train"``.

        Returns:
            With registry, and with digest or version.
        """
        path = f"{self.registry.rstrip('/')}/{name}" if self.registry else name
        return f"{path}@{self.digests[name]}" if name in self.digests else f"{path}:{self.version}"

    def pins_code(self, name: str) -> bool:
        """Whether the reference of an image changes when its code changes.

        Args:
            name: name of the image without registry.

        Returns:
            False for the tag ``latest``.
        """
        return name in self.digests or self.version != "latest"

    def resources_of(self, step: str) -> ContainerResources:
        """Resources of a step.

        Args:
            step: name of the step.

        Returns:
            Its own resources; else those of ``default``.
        """
        return self.resources.get(step) or self.resources.get("default") or ContainerResources()

    def training_nodes(self, image: str, secret_keys: tuple[str, ...]) -> TrainingNodes:
        """What each node gets where several nodes train one network: the resources of ``train``.

        Args:
            image: name of the image without registry.
            secret_keys: keys of the secret of MLflow that become environment variables.

        Returns:
            The nodes.
        """
        resources, gpu = self.resources_of("train"), self.gpu
        gpus: dict[str, str | int] = {gpu.type: gpu.count} if gpu.count else {}
        return TrainingNodes(
            count=self.nodes.count,
            image=self.image_reference(image),
            claim=str(self.nodes.claim),
            runtime=self.nodes.runtime,
            resources={"cpu": resources.cpu, "memory": resources.memory, **gpus},
            hours=resources.hours,
            user=CONTAINER_USER,
            node_selector=gpu.node_selector if gpu.count else {},
            tolerations=gpu.tolerations if gpu.count else [],
            shared_memory=self.shared_memory,
            secrets={self.secrets.mlflow: secret_keys} if self.secrets.mlflow else {},
            image_pull_secret=self.secrets.image_pull,
        )


def _describe_problem(problem: Any) -> str:
    name = ".".join([CONTAINERS_SECTION, *map(str, problem["loc"])])
    if problem["type"] == "extra_forbidden":
        return f"unknown parameter {name}={problem['input']!r}; docs/kubeflow.md lists the parameters"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"expected {name} to be {message}, received {name}={problem['input']!r}"
