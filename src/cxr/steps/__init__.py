"""The steps by name: each module of this folder that defines one. It is imported when the step is needed."""

from __future__ import annotations

from pathlib import Path

from cxr.steps.base import Step
from cxr.steps.registry import find_commands, load_command

STEPS_FOLDER = Path(__file__).parent
STEPS = find_commands(STEPS_FOLDER)
"""Names of the steps, in the order in which data flows."""


def load_step(name: str) -> type[Step]:
    """Import a step's class.

    Args:
        name: one of :data:`STEPS`.

    Returns:
        The class.
    """
    return load_command(__name__, name)
