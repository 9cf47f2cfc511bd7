"""Made-up but realistic predictions: two subtypes of different difficulty, several images a patient."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from cxr.evaluation.acquisition_changes import ACQUISITION_CHANGES
from cxr.evaluation.calibration import log_odds
from cxr.evaluation.evaluate import Evaluation, EvaluationSettings, evaluate
from cxr.steps.evaluate import Evaluate

MEANS = {"normal": -3.0, "bacteria": 3.5, "virus": 1.5}


def predictions(images: int = 400, seed: int = 0, sharpness: float = 1.7) -> pd.DataFrame:
    """Rows as `cxr.evaluation.evaluate.evaluate` takes them; half validation, half test, no patient in both."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(images):
        subtype = ("normal", "bacteria", "virus", "bacteria")[number % 4]
        patient = f"{subtype}-{number // 8}"
        rows.append(
            {
                "path": f"{subtype}/person{number // 8}_{subtype}_{number}.jpeg",
                "patient": patient,
                "group": patient,
                "label": "NORMAL" if subtype == "normal" else "PNEUMONIA",
                "subtype": subtype,
                "split": "validation" if number // 8 % 2 else "test",
                "probability_raw": float(expit(sharpness * (MEANS[subtype] + 2 * generator.standard_normal()))),
            }
        )
    return pd.DataFrame(rows)


def evaluated(table: pd.DataFrame, **changes: Any) -> Evaluation:
    """Evaluate predictions with the defaults of the step evaluate for what is not stated."""
    names = EvaluationSettings.__dataclass_fields__
    defaults = {name: Evaluate.model_fields[name].default for name in names} | {"sensitivities": ()}
    return evaluate(table, EvaluationSettings(**{**defaults, **changes}))


def changed_predictions(
    table: pd.DataFrame, harm: Mapping[str, float] = MappingProxyType({}), seed: int = 0
) -> pd.DataFrame:
    """Predictions under each acquisition change, as `cxr.evaluation.stress_test.predict_changed_images` gives them.

    `harm` maps the key of a change to the noise that it adds to the log odds; other changes add a little.
    """
    generator = np.random.default_rng(seed)
    parts = []
    for change in ACQUISITION_CHANGES:
        noise = harm.get(change.key, 0.3) * generator.standard_normal(len(table))
        raw = expit(log_odds(table["probability_raw"]) + noise)
        parts.append(pd.DataFrame({"change": change.key, "path": table["path"].to_numpy(), "probability_raw": raw}))
    return pd.concat(parts, ignore_index=True)
