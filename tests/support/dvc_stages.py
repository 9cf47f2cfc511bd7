"""The stages of a ``dvc.yaml``, filled in as DVC does it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PLACEHOLDER = re.compile(r"\$\{([\w.]+)\}")


def filled_stages(graph: Path, params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Read a graph.

    Args:
        graph: the ``dvc.yaml``.
        params: sections of ``params.yaml``.

    Returns:
        Name of each stage, such as ``train@shallow``, to the stage.
    """
    stages = {}
    for name, stage in yaml.safe_load(graph.read_text(encoding="utf-8"))["stages"].items():
        if "foreach" not in stage:
            stages[name] = _fill(stage, params)
            continue
        for key, item in params[stage["foreach"].strip("${}")].items():
            stages[f"{name}@{key}"] = _fill(stage["do"], {**params, "key": key, "item": item})
    return stages


def _fill(stage: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    def value(match: re.Match[str]) -> str:
        return str(functools.reduce(lambda section, name: section[name], match[1].split("."), values))

    filled: dict[str, Any] = yaml.safe_load(PLACEHOLDER.sub(value, yaml.dump(dict(stage))))
    return filled
