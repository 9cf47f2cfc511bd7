"""Walks a compiled pipeline as the driver of Kubeflow Pipelines 2.17 does, and raises its errors.

The rules are those of the public source (``backend/src/v2/driver``: ``driver.go``, ``resolve.go``, ``util.go``,
``k8s.go``, ``cache.go``) and were seen on a cluster. The local runner of kfp is more lenient: it knows the defaults of
components and reads YAML by Python's rules.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['(.+?)'\]\}\}")
ARTIFACT_PATH = re.compile(r"\{\{\$\.(?:inputs|outputs)\.artifacts\['(.+?)'\]\.path\}\}")
NUMBER = re.compile(
    r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?|0x[0-9a-fA-F]+|0o[0-7]+|[-+]?\.(inf|nan)", re.IGNORECASE
)
WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", ""}
TYPES: dict[str, tuple[type, ...]] = {
    "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": (bool,), "LIST": (list,),
    "STRUCT": (dict,), "TASK_FINAL_STATUS": (dict,),
}  # fmt: skip
FINAL_STATUS = {"state": "FAILED", "pipelineTaskName": "exit-handler-1", "pipelineJobResourceName": "cxr", "error": {}}
"""What an exit handler receives."""


class DriverError(Exception):
    """The driver's own message: the run fails at this task."""


@dataclass(frozen=True)
class DriverTask:
    """A task as the driver starts it.

    Attributes:
        label: name that people see; in a loop with the item, such as ``"validate_shard 2/3"``.
        command: command and arguments of its container; paths of artifacts are ``/NAME``. Empty for a volume.
        producers: labels of the tasks whose outputs it reads, or that it waits for.
        pod: settings of its pod: user, volumes, limits.
        claim: the volume that it creates; empty for all other tasks.
        cache_key: equal for two tasks where the second one is taken from the cache; empty if it is never cached.
    """

    label: str
    command: list[str]
    producers: frozenset[str]
    pod: Mapping[str, Any]
    claim: Mapping[str, Any] = field(default_factory=dict)
    cache_key: str = ""


def walk(package: Path, arguments: Mapping[str, Any] | None = None) -> dict[str, DriverTask]:
    """Start every task of a package.

    Args:
        package: the compiled pipeline.
        arguments: arguments of the run.

    Returns:
        Label of each task to the task.

    Raises:
        DriverError: where the server would refuse the run, or its driver would fail.
    """
    text = package.read_text(encoding="utf-8")
    check_texts(text)
    graph, *platforms = yaml.safe_load_all(text)
    pods = platforms[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platforms else {}
    root = graph["root"]
    inputs = _group_inputs(root, arguments or {})
    return {task.label: task for task in _walk_group(graph, pods, root, inputs, {}, "")}


def check_texts(package: str) -> None:
    """Refuse texts that the server's reader of YAML takes for something else.

    Raises:
        DriverError: naming the field.
    """
    for document in yaml.compose_all(package):
        for path, node in _scalars(document, ()):
            if not {"args", "command", "image"} & set(path) and path[-2:-1] != ("env",):
                continue
            if node.style is None and (NUMBER.fullmatch(node.value) or node.value.lower() in WORDS):
                raise DriverError(f"proto: invalid value for string field {path[-1]}: {node.value}")


def _scalars(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], yaml.ScalarNode]]:
    if isinstance(node, yaml.ScalarNode):
        yield path, node
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _scalars(item, path)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(value, (*path, key.value))


def _group_inputs(component: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a pipeline or a group of tasks: only here the driver adds defaults, and null where there is none."""
    result = dict(values)
    for name, spec in component.get("inputDefinitions", {}).get("parameters", {}).items():
        if name not in result:
            if "defaultValue" not in spec and not spec.get("isOptional"):
                raise DriverError(f'neither value nor default value provided for non-optional parameter "{name}"')
            result[name] = spec.get("defaultValue")
    return result


def _walk_group(
    graph: Mapping[str, Any],
    pods: Mapping[str, Any],
    group: Mapping[str, Any],
    inputs: Mapping[str, Any],
    folders: Mapping[str, list[tuple[str, str]]],
    item: str,
) -> Iterator[DriverTask]:
    """Start the tasks of a group; ``folders`` are its input artifacts with the labels and outputs that make them."""
    tasks = group["dag"]["tasks"]
    labels = {name: f"{task['taskInfo']['name']}{item}" for name, task in tasks.items()}
    for name, task in tasks.items():
        component = graph["components"][task["componentRef"]["name"]]
        values = _task_values(task, component, inputs, tasks)
        producers = frozenset(labels[other] for other in task.get("dependentTasks", ()))
        artifacts = _artifact_producers(graph, task, component, tasks, labels, folders)
        if "dag" in component:
            for items, inner_item in _loop_items(task):
                group_inputs = _group_inputs(component, values | items)
                yield from _walk_group(graph, pods, component, group_inputs, artifacts, inner_item or item)
            continue
        executor = graph["deploymentSpec"]["executors"][component["executorLabel"]]
        if "importer" in executor:
            continue
        container = executor["container"]
        pod = pods.get(component["executorLabel"], {})
        if container["image"].startswith("argostub/"):
            claim = _claim(values) if container["image"].endswith("createpvc") else {}
            yield DriverTask(labels[name], [], producers, pod, claim)
            continue
        _check_types(component, values)
        cached = task.get("cachingOptions", {}).get("enableCache", False)
        key = json.dumps(
            [container["image"], container["command"], container["args"], values, artifacts], sort_keys=True
        )
        made_by = {producer for makers in artifacts.values() for producer, _ in makers}
        yield DriverTask(
            labels[name],
            [*container["command"], *_resolve(container["args"], values)],
            producers | made_by,
            _checked_pod(pod),
            cache_key=hashlib.sha256(key.encode()).hexdigest() if cached else "",
        )


def _loop_items(task: Mapping[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """The input of each iteration of a loop and its name; one without both for a group that is no loop."""
    if "parameterIterator" not in task:
        return [({}, "")]
    loop = task["parameterIterator"]
    return [({loop["itemInput"]: item}, f" {item}") for item in json.loads(loop["items"]["raw"])]


def _task_values(
    task: Mapping[str, Any], component: Mapping[str, Any], inputs: Mapping[str, Any], tasks: Mapping[str, Any]
) -> dict[str, Any]:
    """Values that the task passes. The driver does not add a component's defaults."""
    specs = component.get("inputDefinitions", {}).get("parameters", {})
    values: dict[str, Any] = {}
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        if "runtimeValue" in source:
            values[name] = source["runtimeValue"]["constant"]
        elif "taskFinalStatus" in source:
            values[name] = FINAL_STATUS
        elif "taskOutputParameter" in source:
            output = source["taskOutputParameter"]
            if output["producerTask"] not in tasks:
                raise DriverError(f"producer task, {output['producerTask']}, not in tasks")
            values[name] = f"<{output['producerTask']}.{output['outputParameterKey']}>"
        else:
            parent = source["componentInputParameter"]
            if parent not in inputs:
                raise DriverError(f"parent DAG does not have input parameter {parent}")
            if inputs[parent] is not None:
                values[name] = inputs[parent]
            elif not specs.get(name, {}).get("isOptional"):
                raise DriverError(f"the resolved input parameter is null: {parent}")
    item = task.get("parameterIterator", {}).get("itemInput")  # each iteration gets it
    for name, spec in specs.items():
        if name not in {*values, item} and not spec.get("isOptional") and "defaultValue" not in spec:
            raise DriverError(f'neither value nor default value provided for non-optional parameter "{name}"')
    return values


def _check_types(component: Mapping[str, Any], values: dict[str, Any]) -> None:
    for name, spec in component.get("inputDefinitions", {}).get("parameters", {}).items():
        kind = spec["parameterType"]
        if name not in values:
            continue
        if kind == "STRING":
            values[name] = as_text(values[name])
        elif not isinstance(values[name], TYPES[kind]) or (isinstance(values[name], bool) and kind != "BOOLEAN"):
            actual = type(values[name]).__name__
            raise DriverError(f'input parameter "{name}" type mismatch: expect {kind}, got {actual}')


def _artifact_producers(
    graph: Mapping[str, Any],
    task: Mapping[str, Any],
    component: Mapping[str, Any],
    tasks: Mapping[str, Any],
    labels: Mapping[str, str],
    folders: Mapping[str, list[tuple[str, str]]],
) -> dict[str, list[tuple[str, str]]]:
    """Labels and outputs of the tasks that make each input: several where it collects the outputs of a loop."""
    sources = task.get("inputs", {}).get("artifacts", {})
    specs = component.get("inputDefinitions", {}).get("artifacts", {})
    for name, spec in specs.items():
        if name not in sources and not spec.get("isOptional"):
            raise DriverError(f'artifact "{name}" not found in executor input')
    producers: dict[str, list[tuple[str, str]]] = {}
    for name, source in sources.items():
        if "componentInputArtifact" in source:
            producers[name] = folders[source["componentInputArtifact"]]
            continue
        output = source["taskOutputArtifact"]
        producer, key = output["producerTask"], output["outputArtifactKey"]
        if producer not in tasks:
            raise DriverError(f'cannot find producer task "{producer}"')
        items = [item for _, item in _loop_items(tasks[producer])]
        if items == [""]:
            producers[name] = [(labels[producer], key)]
        else:
            loop = graph["components"][tasks[producer]["componentRef"]["name"]]["dag"]
            (selector,) = loop["outputs"]["artifacts"][key]["artifactSelectors"]
            label = loop["tasks"][selector["producerSubtask"]]["taskInfo"]["name"]
            producers[name] = [(f"{label}{item}", selector["outputArtifactKey"]) for item in items]
        if len(producers[name]) > 1 and not specs[name].get("isArtifactList"):
            raise DriverError(f'input "{name}" takes one artifact, received {len(producers[name])}')
    return producers


def _resolve(arguments: list[str], values: Mapping[str, Any]) -> list[str]:
    """Fill in the placeholders of a command; ``IfPresent`` counts what is absent or null as not present."""
    resolved: list[str] = []
    for argument in arguments:
        if argument.strip().startswith('{"IfPresent":'):
            condition = json.loads(argument)["IfPresent"]
            branch = condition.get("Then" if values.get(condition["InputName"]) is not None else "Else")
            items = [] if branch is None else [branch] if isinstance(branch, str) else branch
            resolved += [_fill(item, values) for item in items]
        else:
            resolved.append(_fill(argument, values))
    return resolved


def _fill(argument: str, values: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise DriverError(
                "failed to resolve container args: failed to resolve input parameters: "
                f'parameter "{match[1]}" not found in executor input'
            )
        return as_text(values[match[1]])

    # The launcher fills in the rest in the pod: paths of artifacts, and the description of the task.
    text = ARTIFACT_PATH.sub(lambda match: f"/{match[1]}", PLACEHOLDER.sub(value, argument))
    return json.dumps({"description": "of the task"}) if text == "{{$}}" else text


def as_text(value: Any) -> str:
    """A value as the driver writes it into a command."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, separators=(",", ":"))


def _claim(values: Mapping[str, Any]) -> dict[str, Any]:
    """The volume claim that the driver creates; without the input, it names no storage class."""
    claim = {"accessModes": values["access_modes"], "size": values["size"], "suffix": values.get("pvc_name_suffix")}
    if "storage_class_name" in values:
        claim["storageClassName"] = values["storage_class_name"]
    return claim


def _checked_pod(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check what the driver converts: 64-bit integers are text in the package."""
    context = pod.get("securityContext", {})
    for name, value in (
        ("runAsUser", context.get("runAsUser")),
        ("activeDeadlineSeconds", pod.get("activeDeadlineSeconds")),
    ):
        if value is not None and not str(value).isdigit():
            raise DriverError(f"failed to unmarshal kubernetes config: invalid value for int64 field {name}: {value}")
    return pod
