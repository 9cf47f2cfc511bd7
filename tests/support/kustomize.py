"""The Kubernetes objects that an overlay renders to, and the pods that they, Kubeflow Pipelines and KServe make."""

from __future__ import annotations

import copy
import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"
OVERLAYS = ("local", "production", "standalone")
Object = dict[str, Any]
OLDEST_KUSTOMIZE = 5

STEP = {"workflows.argoproj.io/workflow": "cxr-training-x7k2p"}
"""What Argo labels each pod of a run with."""
FOREIGN = (
    ("kube-system", {"k8s-app": "kube-dns"}),
    ("kubeflow", {"app": "ml-pipeline"}),
    ("traefik", {"app.kubernetes.io/name": "traefik"}),
    ("monitoring", {"app.kubernetes.io/name": "prometheus"}),
)
"""Pods that others run, in clusters as the README describes them."""


@dataclass(frozen=True)
class Pod:
    """A pod, or the template of one: where it runs, its labels and its specification."""

    owner: str
    namespace: str
    labels: dict[str, str]
    spec: Object


@functools.cache
def _command() -> tuple[str, ...] | str:
    """Words that render a folder, or why there are none."""
    found = "neither kubectl nor kustomize is installed: nothing renders infra/kubernetes"
    asked = (("kubectl", "version", "--client", "--output=json"), ("kustomize", "version"))
    for words, command in zip(asked, (("kubectl", "kustomize"), ("kustomize", "build")), strict=True):
        if shutil.which(words[0]) is None:
            continue
        answer = subprocess.run(words, capture_output=True, text=True).stdout
        version = re.search(r'(?:"kustomizeVersion": "|^)v(\d+)', answer)
        if version and int(version[1]) >= OLDEST_KUSTOMIZE:
            return command
        found = f"{words[0]} holds a kustomize before version {OLDEST_KUSTOMIZE}, which cannot read infra/kubernetes"
    return found


@functools.cache
def _rendered(folder: Path) -> tuple[Object, ...]:
    command = _command()
    if isinstance(command, str):
        pytest.skip(command)
    answer = subprocess.run([*command, folder], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return tuple(one for one in yaml.safe_load_all(answer.stdout) if one)


def render(folder: Path) -> list[Object]:
    """Render an overlay's folder; the objects may be changed."""
    return copy.deepcopy(list(_rendered(folder)))


def overlay(name: str) -> list[Object]:
    """Render an overlay of the repository."""
    return render(KUBERNETES / "overlays" / name)


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def named(objects: list[Object], kind: str, name: str) -> Object:
    return next(one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)


def pods(objects: list[Object]) -> list[Pod]:
    """All pods that objects lead to."""
    return list(_pods(objects))


def _pods(objects: list[Object]) -> Iterator[Pod]:
    for one in objects:
        kind, spec = one["kind"], one.get("spec", {})
        owner = f"{kind}/{one['metadata']['name']}"
        namespace = one["metadata"].get("namespace", "")
        if kind == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if kind in ("Deployment", "StatefulSet", "Job", "CronJob"):
            yield Pod(owner, namespace, spec["template"]["metadata"]["labels"], spec["template"]["spec"])
        elif kind == "InferenceService":
            label = {"serving.kserve.io/inferenceservice": one["metadata"]["name"]}
            yield Pod(owner, namespace, label, spec["predictor"])


def containers(pod: Pod) -> list[Object]:
    return [*pod.spec.get("initContainers", ()), *pod.spec["containers"]]
