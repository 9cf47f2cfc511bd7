"""Runs as Kubeflow Pipelines 2.17.0 returns them: nodes of Argo, written by the rules of Argo and of the API server.

A node's id is the workflow's name and the FNV-1a hash of the node's path; ``child_tasks`` holds such ids; ``error``,
``pod_name`` and ``parent_task_id`` are never filled. A cluster with 2.17.0 and Argo 4.0.8 showed these names and
states.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

WORKFLOW = "cxr-training-x7k2p"
START = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
GROUP = "exit-handler-1"
INSIDE = f"root(0).{GROUP}(0)"
"""Path of the tasks inside the exit handler."""
EPOCH = "1970-01-01T00:00:00Z"


def node_id(path: str) -> str:
    """Argo's id of a node, e.g. of ``root(0).fetch-driver``."""
    text = f"{WORKFLOW}.{path}".encode()
    return f"{WORKFLOW}-{functools.reduce(lambda value, byte: ((value ^ byte) * 16777619) % 2**32, text, 2166136261)}"


def pod_name(template: str, path: str) -> str:
    """Argo's name of a pod."""
    return f"{WORKFLOW}-{template}-{node_id(path).rpartition('-')[2]}"


class RunDetails:
    """The nodes of one run."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}
        self._clock = START
        self._nodes_together(("root-driver", "root-driver(0)"), "SUCCEEDED", 4)
        self.driver(GROUP, "SUCCEEDED", inside="root(0)")
        for path in ("root", "root(0)", f"root(0).{GROUP}", INSIDE):
            self.node(path, "RUNNING")

    def node(self, path: str, state: str) -> None:
        """Set a node's state now."""
        parts = path.split(".")
        entry = self._nodes.setdefault(
            path,
            {
                "task_id": str(uuid.uuid4()),
                "display_name": ".".join(parts[-2:]) if parts[-1] == "onExit" else parts[-1],
                "create_time": _text(START),
                "start_time": _text(self._clock),
            },
        )
        ended = state in {"SUCCEEDED", "FAILED", "SKIPPED"}
        entry |= {"state": state, "end_time": _text(self._clock) if ended else EPOCH}

    def _nodes_together(self, paths: Iterable[str], state: str, seconds: float) -> None:
        """Set the state of nodes that start now, if they are new, and get this state some seconds later."""
        for path in paths:
            self.node(path, state)
        self._clock += timedelta(seconds=seconds)
        for path in paths:
            self.node(path, state)

    def driver(self, key: str, state: str, inside: str = INSIDE) -> None:
        self._nodes_together((f"{inside}.{key}-driver", f"{inside}.{key}-driver(0)"), state, 2)

    def task(self, key: str, state: str, *, tries: tuple[str, ...] | None = None, seconds: float = 60,
             inside: str = INSIDE) -> None:  # fmt: skip
        """Set a task's state; tries are the states of its containers, by default one with the task's state."""
        if f"{inside}.{key}-driver" not in self._nodes:
            self.driver(key, "SUCCEEDED", inside)
        base = f"{inside}.{key}(0)"
        tries = (state,) if tries is None else tries
        self.node(f"{base}.executor", state if tries else "SKIPPED")
        for number, value in enumerate(tries):
            self.node(f"{base}.executor({number})", value)
        self._nodes_together((f"{inside}.{key}", base), state, seconds)

    def cached(self, key: str) -> None:
        self.task(key, "SUCCEEDED", tries=(), seconds=0)

    def omitted(self, key: str) -> None:
        """A task that was not started, since one before it failed."""
        for path in (f"{INSIDE}.{key}-driver", f"{INSIDE}.{key}"):
            self.node(path, "SKIPPED")

    def volume(self, key: str, state: str, seconds: float = 2) -> None:
        self._nodes_together((f"{INSIDE}.{key}", f"{INSIDE}.{key}(0)"), state, seconds)

    def end(self, state: str) -> None:
        """End the groups and run the exit handler's task."""
        hook = f"root(0).{GROUP}.onExit"
        self.node(hook, "RUNNING")
        self.task("outcome", "SUCCEEDED", seconds=5, inside=hook)
        self.node(hook, "SUCCEEDED")
        for path in (INSIDE, f"root(0).{GROUP}", "root(0)", "root"):
            self.node(path, state)

    def to_json(self) -> list[dict[str, Any]]:
        """``run_details.task_details``; the API keeps no order."""
        paths = sorted(self._nodes)
        children: dict[str, list[str]] = {path: [] for path in ("", *paths)}
        for path in paths:
            children[_parent(path, self._nodes)].append(node_id(path))
        details = [
            {**self._nodes[path], "child_tasks": [{"pod_name": child} for child in children[path]]} for path in paths
        ]
        workflow = {"task_id": str(uuid.uuid4()), "display_name": WORKFLOW, "create_time": _text(START),
                    "start_time": _text(START), "end_time": EPOCH, "state": "RUNNING",
                    "child_tasks": [{"pod_name": child} for child in children[""]]}  # fmt: skip
        # The driver's own entry for the cache.
        own = {"task_id": str(uuid.uuid4()), "create_time": _text(START), "start_time": EPOCH, "end_time": EPOCH}
        return [*details, workflow, own]


def _parent(path: str, nodes: dict[str, Any]) -> str:
    """The node that lists a node as its child: the one whose try it is, or the group around it."""
    if path.endswith(")") and path.rpartition("(")[0] in nodes:
        return path.rpartition("(")[0]
    parent = path.rpartition(".")[0]
    return parent if parent in nodes else ""


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
