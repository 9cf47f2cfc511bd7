"""The limits of a reference as the step sets them by default."""

from __future__ import annotations

from typing import Any

from cxr.steps.reference import DescribeReference

LIMITS: dict[str, Any] = {
    name: DescribeReference.model_fields[name].default for name in ("components", "false_alarms", "max_coloured")
}
