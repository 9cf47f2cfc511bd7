"""The library calls of the step ``validate``, with the step's defaults."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from cxr.data.checks import drift, expectations
from cxr.data.checks.drift import BaselineStatistics, DatasetComparison, DriftLimits
from cxr.data.checks.rules import CheckBounds, CheckResult
from cxr.data.image_folder import ImageFolder
from cxr.data.manifest import builder
from cxr.steps.validate import Validate
from support.bad_images import IMAGE_LIMITS

DEFAULTS: dict[str, Any] = {name: Validate.model_fields[name].default for name in Validate.parameters()}
CHECK_BOUNDS = CheckBounds(**{field.name: DEFAULTS[field.name] for field in fields(CheckBounds)})
DRIFT_LIMITS = DriftLimits(*(DEFAULTS[name] for name in ("drift_distance", "drift_shares", "drift_significance")))


def build_manifest(data: Path, **arguments: Any) -> pd.DataFrame:
    """Build a manifest and read it; ``arguments`` are those of :func:`cxr.data.manifest.builder.build_manifest`."""
    defaults = {name: DEFAULTS[name] for name in ("naming", "policy", "near_distance")}
    with TemporaryDirectory() as name:
        folder = Path(name)
        builder.build_manifest(
            ImageFolder(data), folder, **{"limits": IMAGE_LIMITS, "progress": False, **defaults, **arguments}
        )
        return builder.read_manifest(folder)


def compare_datasets(current: BaselineStatistics, accepted: BaselineStatistics | None) -> DatasetComparison:
    """Compare a data set with the last accepted one."""
    return drift.compare_datasets(current, accepted, DRIFT_LIMITS)


def run_checks(
    manifest: pd.DataFrame, comparison: DatasetComparison, docs: Path, **arguments: Any
) -> list[CheckResult]:
    """Check a manifest; ``arguments`` are those of :func:`cxr.data.checks.expectations.run_checks`."""
    defaults = {"card": None, "bounds": CHECK_BOUNDS, "severities": DEFAULTS["severity"], "run_name": "manifest"}
    return expectations.run_checks(manifest.__getitem__, comparison, docs, **{**defaults, **arguments})
