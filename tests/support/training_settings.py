"""Settings and plans with the defaults of the steps, for tests that state only what matters to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cxr.steps.train import Train
from cxr.steps.tune import Tune
from cxr.training.plan import TrainingPlan
from cxr.training.training_settings import ClassifierTrainingSettings
from cxr.tuning.search import SearchPlan


def training_settings(architecture: str, **changes: Any) -> ClassifierTrainingSettings:
    """Settings of the step train, with its defaults for what is not stated; bounds are not checked."""
    required = {"model": "any", "prepared": "prepared", "trained": "trained"}
    defaults = Train.build({**required, "architecture": architecture}).settings()
    return replace(defaults, **changes)


def training_plan(optimizer: str, learning_rate: float, epochs: int, **changes: Any) -> TrainingPlan:
    """Plan of one phase, with the defaults of the step train for what is not stated."""
    defaults = {name: Train.model_fields[name].default for name in TrainingPlan.__dataclass_fields__}
    stated = {"optimizer": optimizer, "learning_rate": learning_rate, "epochs": epochs}
    return TrainingPlan(**{**defaults, **stated, **changes})


def search_plan(trials: int, **changes: Any) -> SearchPlan:
    """Plan of a search, with the defaults of the step tune for what is not stated."""
    names = ("seed", "sampler", "startup_trials", "pruner", "warmup_epochs")
    defaults: dict[str, Any] = {name: Tune.model_fields[name].default for name in names}
    return SearchPlan(**{**defaults, "trials": trials, "seconds": None, **changes})
