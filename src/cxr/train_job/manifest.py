"""The TrainJob of the Kubeflow Trainer that runs ``cxr train`` on several nodes, as Kubernetes reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

API_VERSION = "trainer.kubeflow.org/v1alpha1"
"""Group and version of the TrainJob; its ``runtimePatches`` need the Kubeflow Trainer 2.2 or newer."""
NODE = "node"
"""Name of the job and of the container in the Trainer's runtime for JAX."""
POD_LABELS = {"app.kubernetes.io/name": "training-node"}
"""Label of the pods, by which the network policies know them."""


class TrainingNodes(BaseModel):
    """The nodes of one training, and what each of them gets."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    count: int = Field(ge=2)
    """Number of nodes; each runs one process."""
    image: str = Field(min_length=1)
    """Image with JAX, by tag or digest."""
    claim: str = Field(min_length=1)
    """Claim of the volume that all nodes mount, with access mode ReadWriteMany."""
    runtime: str = Field(min_length=1)
    """Name of the Trainer's ClusterTrainingRuntime."""
    resources: dict[str, str | int]
    """Resources of each node, e.g. ``{"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": 1}``."""
    hours: float = Field(gt=0)
    """Time after which the Trainer ends the training."""
    user: int = Field(gt=0)
    """Id of the user and group that the processes run as."""
    node_selector: dict[str, str] = {}
    """Labels of the nodes."""
    tolerations: list[dict[str, str | int]] = []
    """Tolerations for the taints of the nodes."""
    shared_memory: str | None = None
    """Size of /dev/shm; None keeps the default."""
    secrets: dict[str, tuple[str, ...]] = {}
    """Name of a secret to those of its keys that become environment variables."""
    image_pull_secret: str | None = None
    """Secret for pulling the image."""


def train_job(
    name: str, nodes: TrainingNodes, arguments: Sequence[str], variables: Mapping[str, str], mount: Path
) -> dict[str, Any]:
    """Describe a TrainJob.

    Args:
        name: its name.
        nodes: the nodes.
        arguments: the command line after ``cxr``.
        variables: environment variables.
        mount: where the volume is mounted on each node.

    Returns:
        The object, as JSON. It fits a namespace with the Pod Security level ``restricted``.
    """
    environment: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in variables.items()]
    environment += [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for secret, keys in nodes.secrets.items()
        for key in keys
    ]
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": POD_LABELS},
        "spec": {
            "runtimeRef": {"name": nodes.runtime},
            "activeDeadlineSeconds": round(3600 * nodes.hours),
            "trainer": {
                "image": nodes.image,
                "command": ["cxr"],
                "args": list(arguments),
                "env": environment,
                "numNodes": nodes.count,
                "resourcesPerNode": {"requests": nodes.resources, "limits": nodes.resources},
            },
            "runtimePatches": [
                {
                    "manager": "cxr.pipeline/train",
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [_node_patch(nodes, mount)]}}},
                }
            ],
        },
    }


def _node_patch(nodes: TrainingNodes, mount: Path) -> dict[str, Any]:
    """Volumes, rights and place of the pods, which a TrainJob can only set as a change of the runtime."""
    volumes: list[dict[str, Any]] = [{"name": "shared", "persistentVolumeClaim": {"claimName": nodes.claim}}]
    mounts = [{"name": "shared", "mountPath": str(mount)}]
    if nodes.shared_memory is not None:
        volumes.append({"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": nodes.shared_memory}})
        mounts.append({"name": "memory", "mountPath": "/dev/shm"})
    pod: dict[str, Any] = {
        "volumes": volumes,
        "nodeSelector": nodes.node_selector,
        "tolerations": nodes.tolerations,
        "securityContext": {
            "runAsUser": nodes.user,
            "runAsGroup": nodes.user,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": NODE,
                "volumeMounts": mounts,
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    }
    if nodes.image_pull_secret is not None:
        pod["imagePullSecrets"] = [{"name": nodes.image_pull_secret}]
    return {"name": NODE, "template": {"spec": {"template": {"metadata": {"labels": POD_LABELS}, "spec": pod}}}}
