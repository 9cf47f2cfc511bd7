"""The limits of a window of predictions as the step ``drift`` sets them by default."""

from __future__ import annotations

from dataclasses import fields

from cxr.drift.window_comparison import WindowLimits
from cxr.steps.drift import Drift

WINDOW_LIMITS = WindowLimits(**{field.name: Drift.model_fields[field.name].default for field in fields(WindowLimits)})
