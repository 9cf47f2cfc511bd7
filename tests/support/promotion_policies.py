"""Promotion policies for tests: the defaults of the step, and limits that every model keeps."""

from __future__ import annotations

from dataclasses import fields

from cxr.promotion.policy import PromotionPolicy
from cxr.steps.register import Register


def promotion_policy(**changes: float | bool) -> PromotionPolicy:
    """The policy of `cxr register`, with changes to its defaults."""
    defaults = {field.name: Register.model_fields[field.name].default for field in fields(PromotionPolicy)}
    return PromotionPolicy(**{**defaults, **changes})


EASY_POLICY = promotion_policy(
    require_gpu=False,
    min_auroc=0.0,
    min_sensitivity=0.0,
    max_calibration_error=1.0,
    margin=1.0,
    sensitivity_margin=1.0,
    resamples=100,
)
"""Limits that every model keeps, so that validation alone decides; 24 test images could show nothing else."""
