"""Tasks of a pipeline run on a cluster as their author knows them, read from the nodes that Kubeflow's API lists.

Kubeflow Pipelines 2.17 fills ``run_details.task_details`` with the nodes of its workflow engine (``NodeStatuses`` and
``toModelTasks`` in its API server). A task has several (``train-driver``, ``train-driver(0)``, ``train``, ``train(0)``,
``executor``, ``executor(0)``); groups of tasks and the run have others. A node's name is the key of the task in the
compiled pipeline. The fields ``error``, ``pod_name`` and ``parent_task_id`` stay empty, and ``child_tasks`` holds ids
of nodes, not names of pods (https://github.com/kubeflow/pipelines/issues/14007).

A node's id ends with a hash of its path, such as ``RUN.root(0).exit-handler-1(0).train(0).executor(1)``
(``Workflow.NodeID`` in Argo). So the path of a try is known to exist if some node lists its id. This gives the number
of tries, whether a container ran at all, and the name of the pod.

A task in a loop has these nodes once for each item, at paths such as
``RUN.root(0).for-loop-1.iteration-iterations(2:2).iteration-item(0)...`` (``iteratorTask`` in Kubeflow's compiler).
Their names are the same. A node lists the ids of its children, and its first try is one of them: a path that leads to
this id is the path of the node, and holds the number of the item.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

FAILED_STATES = frozenset({"FAILED", "ERROR", "SYSTEM_ERROR", "CANCELED", "CANCELING"})
SUCCEEDED_STATES = frozenset({"SUCCEEDED", "COMPLETE", "CACHED"})
"""Words for the end of a run or task in Kubeflow's API, its exit handlers and its metadata store."""
VOLUME_IMAGES = ("argostub/createpvc", "argostub/deletepvc")
"""Images in the compiled pipeline that stand for the creation and deletion of a volume; no container runs them."""
EXIT_STRATEGY = "ALL_UPSTREAM_TASKS_COMPLETED"
"""Trigger of the task that runs at the end of a group, whether the group succeeded or not."""
GROUP_NAME = re.compile(
    r"root|(exit-handler|condition|condition-branches|for-loop|sub-dag)-\d+|iteration(-item|-iterations\(\d+:\d+\))?"
    r"|.*\.onExit"
)
"""Names of nodes for groups of tasks, where the compiled pipeline cannot be read."""
LOOP_GROUPS = ("iteration", "iteration-item")
"""Names of the groups that Kubeflow makes of a loop: around all items, and around each."""
VOLUME_NAME = re.compile(r"(createpvc|deletepvc)(-\d+)?")

TaskKind = Literal["step", "exit", "volume", "group"]


@dataclass(frozen=True)
class TaskDefinition:
    """A task in a compiled pipeline.

    Attributes:
        key: its key in the compiled pipeline, e.g. ``"train-2"``.
        name: its display name, e.g. ``"train plain_cnn"``.
        kind: ``"step"``; ``"exit"``, which runs at the end in any case; ``"volume"``, which creates or deletes one; or
            ``"group"``, which holds other tasks.
        groups: names of the groups around it, outermost first; the first one is ``"root"``.
        retries: largest number of further tries; None if the task has no rule for them.
        items: number of items of the loop around it; None if there is none.
    """

    key: str
    name: str
    kind: TaskKind
    groups: tuple[str, ...]
    retries: int | None = None
    items: int | None = None

    @property
    def paths(self) -> list[tuple[str, ...]]:
        """Names of the groups around it, for each item of the loop."""
        if self.items is None:
            return [self.groups]
        return [tuple(group.format(item=item) for group in self.groups) for item in range(self.items)]


@dataclass(frozen=True)
class TaskStatus:
    """How far a task of a run is.

    Attributes:
        definition: the task.
        state: a state of Kubeflow's API, e.g. ``"RUNNING"``; PENDING while Kubeflow prepares the container.
        start: when it started; None if unknown.
        end: when it ended; None if it has not.
        tries: containers that were started for it, in a loop for the first item that failed, or else for the item that
            has most; 0 if unknown.
        cached: whether its outputs were taken from an earlier run.
        driver_failed: whether Kubeflow failed to prepare the container, so that none started.
        pod: name of the pod with its log; empty if unknown, and in a loop of which no item is known to have failed.
        failed_items: items of the loop around it that failed, from 0, the first one first; empty if unknown.
    """

    definition: TaskDefinition
    state: str
    start: datetime | None
    end: datetime | None
    tries: int = 0
    cached: bool = False
    driver_failed: bool = False
    pod: str = ""
    failed_items: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Display name of the task, in a loop with the shards that failed, or else with their number."""
        items = self.definition.items
        if items is None:
            return self.definition.name
        numbers = [str(item + 1) for item in sorted(self.failed_items)]
        if not numbers:
            return f"{self.definition.name} ({items} shards)"
        shards = f"shard {numbers[0]}" if len(numbers) == 1 else f"shards {', '.join(numbers)}"
        return f"{self.definition.name} ({shards} of {items})"


def read_task_definitions(pipeline: Mapping[str, Any]) -> tuple[TaskDefinition, ...]:
    """Read the tasks of a compiled pipeline.

    Args:
        pipeline: a pipeline as in its package, or as Kubeflow's API returns it (with ``pipeline_spec`` around it).

    Returns:
        All tasks and groups; empty if it is no such pipeline.
    """
    spec = pipeline.get("pipeline_spec", pipeline)
    try:
        root = TaskDefinition("root", "the pipeline itself", "group", ())
        tasks = tuple(_read_group(spec, spec["root"], ("root",)))
        loops = [
            TaskDefinition(name, "a loop", "group", ()) for name in LOOP_GROUPS if any(task.items for task in tasks)
        ]
        return (root, *loops, *tasks)
    except (KeyError, TypeError, AttributeError):
        return ()


def read_task_statuses(
    details: Iterable[Mapping[str, Any]], definitions: Sequence[TaskDefinition]
) -> tuple[TaskStatus, ...]:
    """Read the tasks of a run.

    Args:
        details: ``run_details.task_details`` of Kubeflow's API, as JSON.
        definitions: the pipeline's tasks; empty if unknown: then the tasks are recognised by their names, without
            display names, tries and pods.

    Returns:
        The tasks that have begun, in the order in which they started. Of groups, and of volumes, only what their author
        may have to know: a group whose own driver failed, a volume in any state.
    """
    nodes = _RunNodes.read(details)
    statuses = [nodes.status(definition) for definition in definitions or nodes.guess_definitions()]
    started = [status for status in statuses if status is not None]
    return tuple(sorted(started, key=lambda status: status.start or datetime.max.replace(tzinfo=UTC)))


def failed_tasks(statuses: Iterable[TaskStatus]) -> tuple[TaskStatus, ...]:
    """Tasks that failed themselves, the first one first.

    Args:
        statuses: tasks of :func:`read_task_statuses`.

    Returns:
        The tasks. The one that reports the end of the run comes last: it never is the cause.
    """
    failed = [status for status in statuses if status.state in FAILED_STATES]
    latest = datetime.max.replace(tzinfo=UTC)
    return tuple(sorted(failed, key=lambda status: (status.definition.kind == "exit", status.end or latest)))


def all_succeeded(statuses: Iterable[TaskStatus], definitions: Sequence[TaskDefinition]) -> bool:
    """Whether every step of a pipeline is known to have succeeded.

    Args:
        statuses: tasks of :func:`read_task_statuses`.
        definitions: the pipeline's tasks.

    Returns:
        False also if the pipeline is unknown, or the statuses stop before its end.
    """
    steps = {definition.key for definition in definitions if definition.kind == "step"}
    ended = {status.definition.key for status in statuses if status.state in SUCCEEDED_STATES | {"SKIPPED"}}
    return bool(steps) and steps <= ended


def _read_group(
    spec: Mapping[str, Any], component: Mapping[str, Any], groups: tuple[str, ...], items: int | None = None
) -> Iterator[TaskDefinition]:
    for key, task in component["dag"]["tasks"].items():
        name = str(task.get("taskInfo", {}).get("name") or key)
        inner = spec["components"][task["componentRef"]["name"]]
        if "dag" in inner:
            yield TaskDefinition(key, name, "group", groups)
            inner_groups, inner_items = (*groups, key), items
            if "parameterIterator" in task:
                inner_items = len(json.loads(task["parameterIterator"]["items"]["raw"]))
                inner_groups = (*inner_groups, "iteration-iterations({item}:{item})", "iteration-item")
            yield from _read_group(spec, inner, inner_groups, inner_items)
            continue
        executor = spec["deploymentSpec"]["executors"][inner["executorLabel"]]
        retries = int(task["retryPolicy"].get("maxRetryCount", 0)) if "retryPolicy" in task else None
        if executor.get("container", {}).get("image") in VOLUME_IMAGES:
            yield TaskDefinition(key, name, "volume", groups)
        elif task.get("triggerPolicy", {}).get("strategy") == EXIT_STRATEGY:
            # It runs in a hook of the group at whose end it runs.
            yield TaskDefinition(key, name, "exit", (*groups, *task.get("dependentTasks", ())[:1], "onExit"), retries)
        else:
            yield TaskDefinition(key, name, "step", groups, retries, items)


@dataclass(frozen=True)
class _RunNodes:
    """Nodes of a run.

    Attributes:
        by_name: display name to the nodes that have it: one, or in a loop one for each item.
        ids: ids of nodes that are children of others: all but the workflow itself.
        workflow: name of the workflow; empty if unknown.
        cache_used: whether some container was not started, and a missing try shows which: nodes have tries.
    """

    by_name: Mapping[str, Sequence[Mapping[str, Any]]]
    ids: frozenset[str]
    workflow: str
    cache_used: bool

    @classmethod
    def read(cls, details: Iterable[Mapping[str, Any]]) -> _RunNodes:
        # The driver adds entries of its own, without name and state, for the cache.
        nodes = [node for node in details if node.get("display_name") and node.get("state")]
        ids = frozenset(
            str(child["pod_name"]) for node in nodes for child in node.get("child_tasks") or () if child.get("pod_name")
        )
        workflows = Counter(node_id.rpartition("-")[0] for node_id in ids)
        by_name: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for node in nodes:
            by_name[str(node["display_name"])].append(node)
        containers = {node["state"] for node in nodes if node["display_name"] == "executor"}
        return cls(
            by_name,
            ids,
            workflows.most_common(1)[0][0] if workflows else "",
            "SKIPPED" in containers and ("executor(0)" in by_name or containers == {"SKIPPED"}),
        )

    def guess_definitions(self) -> list[TaskDefinition]:
        """Tasks by the names of their nodes."""
        names = (re.sub(r"(-driver)?(\(\d+\))?$", "", name) for name in self.by_name)
        keys = (name for name in dict.fromkeys(names) if name not in {"executor", self.workflow})
        kinds: dict[str, TaskKind] = {
            key: "group" if GROUP_NAME.fullmatch(key) else "volume" if VOLUME_NAME.fullmatch(key) else "step"
            for key in keys
        }
        return [TaskDefinition(key, key, kind, ()) for key, kind in kinds.items()]

    def status(self, definition: TaskDefinition) -> TaskStatus | None:
        """State of a task; None if it has not begun, or is a group that its author need not know about."""
        key = definition.key
        # A driver makes or deletes a volume itself; its node is the only one.
        driver = self._node(key if definition.kind == "volume" else f"{key}-driver", definition.items)
        node = self._node(key, definition.items)
        start = _time(driver, "start_time") or _time(node, "start_time")
        if driver.get("state") in FAILED_STATES:
            items = self._failed_items(definition, f"{key}-driver")
            pod = self._driver_pod(definition, items)
            end = _time(driver, "end_time")
            return TaskStatus(definition, "FAILED", start, end, driver_failed=True, pod=pod, failed_items=items)
        if definition.kind == "group" or not (driver or node):
            return None
        if not node:
            return TaskStatus(definition, "PENDING", start, None)
        items = self._failed_items(definition, key)
        paths = [definition.paths[item] for item in items[:1]] or definition.paths
        tries = max((self._tries((*path, key), "executor") for path in paths), key=len)
        return TaskStatus(
            definition,
            str(node["state"]),
            start,
            _time(node, "end_time"),
            tries=len(tries),
            cached=node["state"] in SUCCEEDED_STATES and not tries and self._is_cached(definition),
            pod=self._container_pod(definition, tries) if definition.items is None or items else "",
            failed_items=items,
        )

    def _node(self, name: str, items: int | None) -> Mapping[str, Any]:
        """The node with a name; in a loop, all nodes with it as one, whose state is the one that matters most."""
        nodes = self.by_name.get(name, ())
        if not nodes or items is None:
            return nodes[-1] if nodes else {}
        states = [str(node["state"]) for node in nodes]
        failed = [state for state in states if state in FAILED_STATES]
        has_ended = len(nodes) == items and set(states) <= SUCCEEDED_STATES | {"SKIPPED"}
        starts = [node["start_time"] for node in nodes if _time(node, "start_time")]
        ends = [node["end_time"] for node in nodes if _time(node, "end_time")]
        return {
            "state": failed[0] if failed else max(states) if has_ended else "RUNNING",
            "start_time": min(starts, default=None),
            "end_time": max(ends, default=None) if failed or has_ended else None,
        }

    def _failed_items(self, definition: TaskDefinition, name: str) -> tuple[int, ...]:
        """Items of the loop around a task whose node with this name failed, the first one first."""
        if definition.items is None:
            return ()
        tries = {self._hash(path, f"{name}(0)"): item for item, path in enumerate(definition.paths)}
        failed = [node for node in self.by_name.get(name, ()) if node["state"] in FAILED_STATES]
        latest = datetime.max.replace(tzinfo=UTC)
        failed.sort(key=lambda node: _time(node, "end_time") or latest)
        hashes = (
            str(child.get("pod_name")).rpartition("-")[2] for node in failed for child in node.get("child_tasks") or ()
        )
        return tuple(dict.fromkeys(tries[node_hash] for node_hash in hashes if node_hash in tries))

    def _is_cached(self, definition: TaskDefinition) -> bool:
        """Whether a task that has no try has a node for its container: it was skipped."""
        paths = ((*path, definition.key) for path in definition.paths)
        return self.cache_used and any(self._hash(path, "executor") is not None for path in paths)

    def _container_pod(self, definition: TaskDefinition, tries: Sequence[str]) -> str:
        """Name of the pod of the last try (``addContainerExecutorTemplate`` in Kubeflow's compiler)."""
        template = "system-container-impl" if definition.retries is None else "retry-system-container-impl"
        return f"{self.workflow}-{template}-{tries[-1]}" if tries else ""

    def _driver_pod(self, definition: TaskDefinition, failed_items: Sequence[int]) -> str:
        """Name of the pod in which Kubeflow prepares a task; the node of a volume has no ``-driver`` in its name."""
        if definition.key in LOOP_GROUPS or (definition.items is not None and not failed_items):
            return ""
        path = definition.paths[failed_items[0] if failed_items else 0]
        name = definition.key if definition.kind == "volume" else f"{definition.key}-driver"
        template = "system-dag-driver" if definition.kind == "group" else "system-container-driver"
        tries = self._tries(path, name)
        node_hash = tries[-1] if tries else self._hash(path, name)
        return f"{self.workflow}-{template}-{node_hash}" if node_hash else ""

    def _tries(self, path: Sequence[str], name: str) -> list[str]:
        """Hashes of the nodes ``name(0)``, ``name(1)`` ... at a path, as far as they exist."""
        hashes = (self._hash(path, f"{name}({number})") for number in itertools.count())
        return [node_hash for node_hash in itertools.takewhile(bool, hashes) if node_hash]

    def _hash(self, path: Sequence[str], name: str) -> str | None:
        """Hash of a node, if it exists. Each part of its path is a node or the node's first try."""
        for suffixes in itertools.product(*[("", "(0)")] * len(path)):
            steps = [f"{part}{suffix}" for part, suffix in zip(path, suffixes, strict=True)]
            node_hash = str(_fnv_1a(".".join((self.workflow, *steps, name))))
            if f"{self.workflow}-{node_hash}" in self.ids:
                return node_hash
        return None


def _time(node: Mapping[str, Any], field: str) -> datetime | None:
    """Time of a node; None if it is unknown: the API writes 1970 then."""
    text = node.get(field)
    moment = datetime.fromisoformat(str(text)) if text else None
    return moment if moment is not None and moment.timestamp() > 0 else None


def _fnv_1a(text: str) -> int:
    """FNV-1a hash of 32 bits (http://www.isthe.com/chongo/tech/comp/fnv/), which Argo uses for ids."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value
