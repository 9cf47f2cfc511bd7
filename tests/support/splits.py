"""Splits with the defaults of the step ``resplit``."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cxr.data import splitting
from cxr.steps.resplit import Resplit


def assign_splits(manifest: pd.DataFrame, **parameters: Any) -> pd.DataFrame:
    """Split a manifest.

    Args:
        manifest: as :func:`cxr.data.splitting.assign_splits` takes it.
        parameters: parameters that differ from the step's defaults.
    """
    defaults = {name: Resplit.model_fields[name].default for name in Resplit.parameters()}
    return splitting.assign_splits(manifest, **{**defaults, **parameters})
