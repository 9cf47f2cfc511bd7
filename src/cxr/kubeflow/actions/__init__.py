"""What ``cxr kubeflow`` can do, by name; an action's module is imported when the action is asked for."""

from __future__ import annotations

from importlib import import_module

from cxr.steps.base import Step

ACTIONS: dict[str, str] = {
    "components": "Components",
    "compile": "Compile",
    "run": "Run",
    "submit": "Submit",
    "schedule": "Schedule",
    "unschedule": "Unschedule",
    "status": "Status",
}
"""Name of the action, which is also its module, to its class; in the order in which they are used."""


def action(name: str) -> type[Step]:
    """Find an action's class.

    Args:
        name: a key of :data:`ACTIONS`.

    Returns:
        The class.
    """
    found: type[Step] = getattr(import_module(f"cxr.kubeflow.actions.{name}"), ACTIONS[name])
    return found
