"""Length of the record that a cluster keeps of a run, estimated from the compiled pipeline.

Argo keeps the whole record of a run in one Kubernetes object: the workflow that Kubeflow compiled, and a node for each
pod, retry and group. Above 1 MB it compresses the nodes, and Kubeflow's API, its page and ``submit --wait`` then show
the last state that they could read, for ever (https://github.com/kubeflow/pipelines/issues/13738).

Measured with Kubeflow Pipelines 2.17.0 and Argo 4.0.8. Six nodes belong to a task: ``NAME-driver``, ``NAME-driver(0)``,
``NAME``, ``NAME(0)``, ``executor``, ``executor(0)``; each further try adds one. The driver's nodes hold the
component, the task, the container and the Kubernetes settings as text, and the patch of the pod that the driver made of
them. At least three of the others hold this patch again. The patch repeats the component, the values and address of
every input, each quoted twice over. One folder that a task reads costs about 6 KB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.yaml_text import parse_yaml_documents

RECORD_LIMIT = 2**20
"""Bytes of a workflow above which Argo compresses its nodes (``MAX_WORKFLOW_SIZE``)."""
DRIVER_NODES = 2
PATCH_NODES = 3
"""Nodes of a task with the driver's inputs; and with the patch of the pod alone (measured: between three and four)."""
NODE_BYTES = 900
DRIVER_NODE_BYTES = 1300
"""Bytes of a node's own fields: ids, names, times, addresses of logs."""
TEMPLATE_BYTES = 1250
"""Bytes that a task adds to the workflow besides its component, container and settings."""
RUN_ID = "dfb371f5-4784-4d80-a8da-e46affa01c7b"
"""An id of the usual length."""
STORE_SESSION = {
    "Provider": "s3",
    "Params": {
        "accessKeyKey": "AWS_ACCESS_KEY_ID", "disableSSL": "true", "endpoint": "s3.cxr.svc.cluster.local:8333",
        "forcePathStyle": "true", "fromEnv": "false", "maxRetries": "5", "region": "us-east-1",
        "secretKeyKey": "AWS_SECRET_ACCESS_KEY", "secretName": "cxr-s3",
    },
}  # fmt: skip
"""What Kubeflow writes into each artifact about the store that holds it."""
LAUNCHER = (
    "/kfp-launcher/launch", "--pipeline_name", "cxr-training", "--run_id", RUN_ID, "--execution_id", "123",
    "--pod_name", "$(KFP_POD_NAME)", "--pod_uid", "$(KFP_POD_UID)",
    "--mlmd_server_address", "metadata-grpc-service.kubeflow.svc.cluster.local", "--mlmd_server_port", "8080",
    "--publish_logs", "true", "--",
)  # fmt: skip
"""Command of Kubeflow's launcher around the command of a step."""


@dataclass(frozen=True)
class TaskRecord:
    """Bytes that one task adds to the record of a run.

    Attributes:
        driver_node: bytes of one of its two driver nodes.
        patch_node: bytes of each of its other nodes, and of each further try.
        workflow: bytes of its part of the compiled workflow.
        retries: largest number of further tries.
        runs: number of times that the task runs: once, or once for each item of the loops around it.
    """

    driver_node: int
    patch_node: int
    workflow: int
    retries: int
    runs: int = 1

    @property
    def largest(self) -> int:
        """Bytes of all its nodes and of its part of the workflow, when every try was used."""
        tries = PATCH_NODES + self.retries
        return self.runs * (DRIVER_NODES * self.driver_node + tries * self.patch_node) + self.workflow


def record_bytes(package: Path) -> int:
    """Estimate the longest record of a run: every task uses all its tries.

    Args:
        package: file of a compiled pipeline.

    Returns:
        Bytes, to compare with :data:`RECORD_LIMIT`.
    """
    return sum(record.largest for record in task_records(package).values())


def task_records(package: Path) -> dict[str, TaskRecord]:
    """Estimate what each task of a pipeline adds to the record of a run.

    Args:
        package: file of a compiled pipeline.

    Returns:
        Name of the task to its part of the record.
    """
    graph, *platforms = parse_yaml_documents(package.read_bytes())
    kubernetes = platforms[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platforms else {}
    executors = graph["deploymentSpec"]["executors"]
    return {
        placed.name: _task_record(placed, executors, kubernetes)
        for placed in _placed_tasks(graph, graph["root"]["dag"]["tasks"], 1)
    }


@dataclass(frozen=True)
class _PlacedTask:
    """A task and its place in the graph.

    Attributes:
        name: its key in the compiled pipeline.
        task: the task.
        component: its component.
        runs: as in :class:`TaskRecord`; a loop has nodes of its own besides those of each of its items.
        folders: name of an input to the number of folders that it collects from a loop.
    """

    name: str
    task: Mapping[str, Any]
    component: Mapping[str, Any]
    runs: int
    folders: Mapping[str, int]


def _placed_tasks(graph: Mapping[str, Any], tasks: Mapping[str, Any], runs: int) -> Iterator[_PlacedTask]:
    """Tasks of a group and of the groups in it."""
    items = {name: len(_loop_items(task) or ()) for name, task in tasks.items()}
    for name, task in tasks.items():
        component = graph["components"][task["componentRef"]["name"]]
        sources = task.get("inputs", {}).get("artifacts", {}).items()
        producers = {field: source.get("taskOutputArtifact", {}).get("producerTask") for field, source in sources}
        folders = {field: items[producer] for field, producer in producers.items() if items.get(producer)}
        yield _PlacedTask(name, task, component, runs * (items[name] + 1), folders)
        if "dag" in component:
            yield from _placed_tasks(graph, component["dag"]["tasks"], runs * (items[name] or 1))


def _loop_items(task: Mapping[str, Any]) -> Sequence[Any] | None:
    """Items of a loop; None if the task is none."""
    raw = task.get("parameterIterator", {}).get("items", {}).get("raw")
    return None if raw is None else list(json.loads(raw))


def _task_record(placed: _PlacedTask, executors: Mapping[str, Any], kubernetes: Mapping[str, Any]) -> TaskRecord:
    task, component, runs = placed.task, placed.component, placed.runs
    label = str(component.get("executorLabel"))
    container = executors.get(label, {}).get("container", {})
    settings = kubernetes.get(label, {})
    inputs = sum(_quoted(part) for part in (component, task, container, settings))
    workflow = inputs + TEMPLATE_BYTES
    if not container.get("args"):  # a group of tasks, or a volume: no pod of its own
        return TaskRecord(inputs + DRIVER_NODE_BYTES, NODE_BYTES, workflow, 0, runs)
    patch = _quoted(_pod_patch(placed, container, settings))
    retries = int(task.get("retryPolicy", {}).get("maxRetryCount", 0))
    return TaskRecord(inputs + patch + DRIVER_NODE_BYTES, patch + NODE_BYTES, workflow, retries, runs)


def _pod_patch(placed: _PlacedTask, container: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Patch of the pod as Kubeflow's driver makes it (``initPodSpecPatch`` and ``extendPodSpecPatch``)."""
    task, component = placed.task, placed.component
    inputs, outputs = component.get("inputDefinitions", {}), component.get("outputDefinitions", {})
    values = {
        name: value.get("runtimeValue", {}).get("constant", "s3://bucket/prefix")
        for name, value in task.get("inputs", {}).get("parameters", {}).items()
    }
    executor_input = {
        "inputs": {
            "parameterValues": values,
            "artifacts": {
                name: _artifacts(name, spec, placed.folders.get(name, 1), stored=True)
                for name, spec in inputs.get("artifacts", {}).items()
            },
        },
        "outputs": {
            "artifacts": {
                name: _artifacts(name, spec, 1, stored=False) for name, spec in outputs.get("artifacts", {}).items()
            },
            "outputFile": "/tmp/kfp_outputs/output_metadata.json",
        },
    }

    def filled(argument: str) -> str:
        return re.sub(
            r"\{\{\$\.inputs\.parameters\['(.+?)'\]\}\}", lambda match: str(values.get(match[1], "")), argument
        )

    secrets = [
        {"name": key["envVar"], "valueFrom": {"secretKeyRef": {"name": secret["secretName"], "key": key["secretKey"]}}}
        for secret in settings.get("secretAsEnv", ())
        for key in secret["keyToEnv"]
    ]
    fields = [
        {"name": field["name"], "valueFrom": {"fieldRef": {"fieldPath": field["fieldPath"]}}}
        for field in settings.get("fieldPathAsEnv", ())
    ]
    launcher = [*LAUNCHER, "--executor_input", _json(executor_input), "--component_spec", _json(component)]
    resources = container.get("resources", {})
    amounts = {"cpu": resources.get("resourceCpuLimit"), "memory": resources.get("resourceMemoryLimit")}
    return {
        "containers": [
            {
                "name": "main",
                "image": container["image"],
                "command": launcher,
                "args": [*container["command"], *map(filled, container["args"])],
                "env": [*container.get("env", ()), *secrets, *fields],
                "resources": {"limits": amounts, "requests": amounts},
                "securityContext": {**settings.get("securityContext", {}), "allowPrivilegeEscalation": False,
                                    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}},
            }
        ],
        "volumes": [*settings.get("pvcMount", ()), *settings.get("emptyDirMounts", ())],
        "activeDeadlineSeconds": settings.get("activeDeadlineSeconds"),
    }  # fmt: skip


def _artifacts(name: str, spec: Mapping[str, Any], count: int, *, stored: bool) -> dict[str, Any]:
    artifact = {
        "type": spec["artifactType"],
        "uri": f"s3://cxr-kubeflow/runs/cxr-training/{RUN_ID}/task-name-12/{RUN_ID}/{name}",
    }
    if stored:
        artifact |= {"name": name, "metadata": {"display_name": name, "store_session_info": _json(STORE_SESSION)}}
    return {"artifacts": [artifact] * count}


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _quoted(value: object) -> int:
    """Bytes of a value as JSON text inside a text."""
    return len(json.dumps(_json(value)))
