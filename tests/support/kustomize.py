"""The Kubernetes objects of an overlay, and the pods that they, Kubeflow Pipelines and KServe create."""

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

STEP_LABELS = {"workflows.argoproj.io/workflow": "cxr-training-x7k2p"}
"""Labels that Argo gives to each pod of a run."""
OTHER_PODS = (
    ("kube-system", {"k8s-app": "kube-dns"}),
    ("kubeflow", {"app": "ml-pipeline"}),
    ("traefik", {"app.kubernetes.io/name": "traefik"}),
    ("monitoring", {"app.kubernetes.io/name": "prometheus"}),
)
"""Pods of other software in clusters as the README describes them."""


@dataclass(frozen=True)
class Pod:
    """A pod or a pod template: its namespace, labels and specification."""

    owner: str
    namespace: str
    labels: dict[str, str]
    spec: Object


@functools.cache
def _command() -> tuple[str, ...] | str:
    """Command that renders a folder, or the reason why there is none."""
    reason = "neither kubectl nor kustomize is installed: nothing renders infra/kubernetes"
    version_commands = (("kubectl", "version", "--client", "--output=json"), ("kustomize", "version"))
    for version_command, command in zip(
        version_commands, (("kubectl", "kustomize"), ("kustomize", "build")), strict=True
    ):
        if shutil.which(version_command[0]) is None:
            continue
        output = subprocess.run(version_command, capture_output=True, text=True).stdout
        version = re.search(r'(?:"kustomizeVersion": "|^)v(\d+)', output)
        if version and int(version[1]) >= OLDEST_KUSTOMIZE:
            return command
        reason = (
            f"{version_command[0]} contains a kustomize before version {OLDEST_KUSTOMIZE}, which cannot read "
            "infra/kubernetes"
        )
    return reason


@functools.cache
def _rendered(folder: Path) -> tuple[Object, ...]:
    command = _command()
    if isinstance(command, str):
        pytest.skip(command)
    result = subprocess.run([*command, folder], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return tuple(manifest for manifest in yaml.safe_load_all(result.stdout) if manifest)


def render(folder: Path) -> list[Object]:
    """Render the folder of an overlay; the caller may change the objects."""
    return copy.deepcopy(list(_rendered(folder)))


def overlay(name: str) -> list[Object]:
    """Render an overlay of the repository."""
    return render(KUBERNETES / "overlays" / name)


def production_with(folder: Path, *components: str) -> list[Object]:
    """Render `production` with further components after the champion, as the README says."""
    overlay_folder = shutil.copytree(KUBERNETES, folder / "kubernetes") / "overlays" / "production"
    text = (overlay_folder / "kustomization.yaml").read_text(encoding="utf-8")
    champion = "  - ../../components/champion\n"
    added = champion + "".join(f"  - ../../components/{name}\n" for name in components)
    assert champion in text
    (overlay_folder / "kustomization.yaml").write_text(text.replace(champion, added), encoding="utf-8")
    return render(overlay_folder)


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [manifest for manifest in objects if manifest["kind"] == kind]


def named(objects: list[Object], kind: str, name: str) -> Object:
    return next(manifest for manifest in of_kind(objects, kind) if manifest["metadata"]["name"] == name)


def pods(objects: list[Object]) -> list[Pod]:
    """All pods that the objects create."""
    return list(_pods(objects))


def _pods(objects: list[Object]) -> Iterator[Pod]:
    for manifest in objects:
        kind, spec = manifest["kind"], manifest.get("spec", {})
        owner = f"{kind}/{manifest['metadata']['name']}"
        namespace = manifest["metadata"].get("namespace", "")
        if kind == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if kind in ("Deployment", "StatefulSet", "Job", "CronJob"):
            yield Pod(owner, namespace, spec["template"]["metadata"]["labels"], spec["template"]["spec"])
        elif kind == "InferenceService":
            label = {"serving.kserve.io/inferenceservice": manifest["metadata"]["name"]}
            yield Pod(owner, namespace, label, spec["predictor"])


def containers(pod: Pod) -> list[Object]:
    return [*pod.spec.get("initContainers", ()), *pod.spec["containers"]]


def assert_restricted(pod: Pod) -> None:
    """Hold a pod against the Pod Security Standard "restricted", and a read-only root file system."""
    context = pod.spec["securityContext"]
    assert context["runAsNonRoot"] is True, pod.owner
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec)
    for volume in pod.spec["volumes"]:
        assert set(volume) - {"name"} <= {"emptyDir", "configMap", "secret", "projected"}
    for container in containers(pod):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, f"{pod.owner} {container['name']}"
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "runAsUser", "runAsNonRoot", "seccompProfile"} & set(context)
        assert not any("hostPort" in port for port in container.get("ports", ()))
