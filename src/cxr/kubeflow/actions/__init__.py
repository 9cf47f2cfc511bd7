"""What ``cxr kubeflow`` can do, by name; an action's module is imported when the action is needed."""

from __future__ import annotations

from pathlib import Path

from cxr.steps.base import Step
from cxr.steps.registry import find_commands, load_command

ACTIONS_FOLDER = Path(__file__).parent
ACTIONS = find_commands(ACTIONS_FOLDER)
"""Names of the actions, in the order in which they are used."""


def load_action(name: str) -> type[Step]:
    """Import an action's class.

    Args:
        name: one of :data:`ACTIONS`.

    Returns:
        The class.
    """
    return load_command(__name__, name)
