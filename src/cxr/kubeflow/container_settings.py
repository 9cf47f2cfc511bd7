"""Section ``containers`` of ``params.yaml``: images, resources and secrets of the steps on a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cxr.errors import ParameterError
from cxr.kubeflow import CONTAINERS
from cxr.kubeflow.components import IMAGES

QUANTITY = r"^\d+(\.\d+)?(m|[kMGTP]i?)?$"
"""How Kubernetes writes amounts of processor time and memory."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Resources(_Settings):
    """What a step's container is given."""

    cpu: str = Field("1", pattern=QUANTITY)
    """Processor cores."""
    memory: str = Field("2Gi", pattern=QUANTITY)
    """Memory."""
    hours: float = Field(1.0, gt=0)
    """Time after which the container is ended as failed."""


class Gpu(_Settings):
    """The GPU that training gets."""

    count: int = Field(0, ge=0, le=64)
    """GPUs for each training; 0 trains on processor cores."""
    type: str = Field("nvidia.com/gpu", min_length=1)
    """Name of the resource."""
    node_selector: dict[str, str] = {}
    """Labels of the nodes that have them."""
    tolerations: list[dict[str, str | int]] = []
    """Taints of these nodes that training accepts, as Kubernetes writes them."""


class Retries(_Settings):
    """How often a step that failed is tried again."""

    count: int = Field(3, ge=0, le=20)
    """Further tries."""
    seconds: int = Field(30, ge=0)
    """Pause before the first one."""
    factor: float = Field(2.0, ge=1)
    """What each further pause is multiplied by."""
    longest: int = Field(600, ge=0)
    """Longest pause, in seconds."""


class Checkpoints(_Settings):
    """The disk that keeps a training's checkpoint while its node is replaced."""

    size: str | None = Field(None, pattern=QUANTITY)
    """Size of the disk for each model; null keeps checkpoints in the container, and a lost node costs all epochs."""
    storage_class: str = ""
    """Storage class; empty takes the cluster's own."""


class Volume(_Settings):
    """Images that lie on a volume of the cluster, for scoring."""

    claim: str | None = None
    """Name of the volume's claim; null mounts nothing."""
    path: str = Field("/images", pattern="^/.+")
    """Where it is mounted."""


class Secrets(_Settings):
    """Names of the Kubernetes secrets whose keys become environment variables."""

    s3: str | None = None
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL; null: the nodes' own rights."""
    mlflow: str | None = None
    """Secret with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""
    image_pull: str | None = None
    """Secret of the registry."""


class Containers(_Settings):
    """How the steps run on a cluster."""

    registry: str = ""
    """What stands before the images' names; empty: images of this machine."""
    version: str = Field("latest", min_length=1)
    """Tag of the images, as ``make images VERSION=...`` gives it."""
    digests: dict[str, str] = {}
    """Image name to sha256:...; such an image is taken by its digest, which versions then name."""
    pull: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes fetch images."""
    caching: bool = True
    """Whether a step with the same inputs is not run again; never with the tag latest, which doesn't name the code."""
    tracking_uri: str | None = None
    """Address of MLflow as the containers reach it; null takes that of the section tracking."""
    remote: str | None = None
    """DVC remote (s3://...) from which the version of data.dvc is taken; null fetches as the section fetch says."""
    transfer: bool = False
    """Whether the networks of the section transfer are trained too."""
    api: str | None = None
    """Address of Kubeflow's API inside the cluster, which the end of a run asks how the run went; null asks nobody."""
    gpu: Gpu = Gpu()
    """The GPU that training gets."""
    shared_memory: str | None = Field(None, pattern=QUANTITY)
    """Size of /dev/shm while training; null leaves it."""
    checkpoints: Checkpoints = Checkpoints()
    """The disk for checkpoints."""
    images: Volume = Volume()
    """Volume with images to score."""
    retries: Retries = Retries()
    """Further tries of the steps that may be tried again."""
    secrets: Secrets = Secrets()
    """Secrets."""
    resources: dict[str, Resources] = {}
    """Step to its resources; ``default`` is for the others."""

    @field_validator("digests")
    @classmethod
    def _are_digests(cls, digests: dict[str, str]) -> dict[str, str]:
        wrong = [
            f"{name}={value}" for name, value in digests.items() if not re.fullmatch(r"sha256:[0-9a-f]{64}", value)
        ]
        if wrong:
            raise ValueError(f"sha256: and 64 hex digits; wrong: {', '.join(wrong)}")
        return digests

    @field_validator("resources")
    @classmethod
    def _of_steps(cls, resources: dict[str, Resources]) -> dict[str, Resources]:
        unknown = sorted(set(resources) - set(IMAGES) - {"default"})
        if unknown:
            raise ValueError(f"keys among default, {', '.join(IMAGES)}; unknown: {', '.join(unknown)}")
        return resources

    @model_validator(mode="after")
    def _remote_has_an_address(self) -> Self:
        if self.remote is not None and "://" not in self.remote and not self.remote.startswith("/"):
            raise ValueError(f"a DVC remote such as s3://bucket/prefix, received remote={self.remote!r}")
        return self

    @classmethod
    def read(cls, sections: Mapping[str, Any]) -> Self:
        """Take the settings from a parameter file.

        Args:
            sections: its sections.

        Returns:
            The settings; defaults where there is no such section.

        Raises:
            ParameterError: listing all unknown and wrong values.
        """
        try:
            return cls.model_validate(sections.get(CONTAINERS) or {})
        except ValidationError as error:
            raise ParameterError([_sentence(problem) for problem in error.errors()]) from None

    def image(self, name: str) -> str:
        """Reference of an image.

        Args:
            name: its name without registry, e.g. ``"cxr-train"``.

        Returns:
            With registry, and with digest or version.
        """
        path = f"{self.registry.rstrip('/')}/{name}" if self.registry else name
        return f"{path}@{self.digests[name]}" if name in self.digests else f"{path}:{self.version}"

    def names_code(self, name: str) -> bool:
        """Whether an image's reference changes when the code in it does.

        Args:
            name: its name.

        Returns:
            False for the tag ``latest``.
        """
        return name in self.digests or self.version != "latest"

    def of(self, step: str) -> Resources:
        """Resources of a step.

        Args:
            step: its name.

        Returns:
            Its own, else the default ones.
        """
        return self.resources.get(step) or self.resources.get("default") or Resources()


def _sentence(problem: Any) -> str:
    name = ".".join([CONTAINERS, *map(str, problem["loc"])])
    if problem["type"] == "extra_forbidden":
        return f"unknown parameter {name}={problem['input']!r}; docs/kubeflow.md lists what there is"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"expected {name} to be {message}, received {name}={problem['input']!r}"
