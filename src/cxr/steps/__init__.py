"""The steps by name; a step's module is imported when the step is asked for."""

from __future__ import annotations

from importlib import import_module

from cxr.steps.base import Step

STEPS: dict[str, str] = {
    "fetch": "Fetch",
    "validate": "Validate",
    "resplit": "Resplit",
    "preprocess": "Preprocess",
    "reference": "DescribeReference",
    "train": "Train",
    "evaluate": "Evaluate",
    "ensemble": "Ensemble",
    "register": "Register",
    "outcome": "Outcome",
    "predict": "Predict",
    "lineage": "LineageOf",
    "reproduce": "Reproduce",
    "results": "Results",
    "tune": "Tune",
    "champion": "Champion",
    "history": "History",
    "rollback": "Rollback",
    "release": "Release",
    "webhook": "Webhook",
    "app": "App",
    "serve": "Serve",
    "drift": "Drift",
}
"""Name of the step, which is also its module, to its class; in the order in which data flows."""


def step(name: str) -> type[Step]:
    """Find a step's class.

    Args:
        name: a key of :data:`STEPS`.

    Returns:
        The class.
    """
    found: type[Step] = getattr(import_module(f"cxr.steps.{name}"), STEPS[name])
    return found
