"""The search: trials are proposed, trained, ended early when they fall behind, and stored."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from optuna import Study, Trial
from optuna.exceptions import TrialPruned
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from cxr.errors import TrainingError
from cxr.tuning.space import Scalar, Space
from cxr.tuning.study import ERROR, VALUES, best_trial, counted_trials

log = logging.getLogger(__name__)

TrainTrial = Callable[[Trial, dict[str, Scalar]], float]
"""Trains with the values of a trial, reports its epochs to it, and returns its monitored metric."""


@dataclass(frozen=True)
class SearchPlan:
    """How a search proceeds.

    Attributes:
        trials: number of trials, those of earlier runs included.
        seed: seed of the proposals.
        sampler: ``"tpe"`` learns from the trials so far (tree-structured Parzen estimator, Bergstra et al. 2011),
            ``"random"`` does not.
        startup_trials: number of random trials, none of them ended early, before the search learns from them.
        pruner: ``"median"`` ends a trial whose best metric is behind the median of the others at the same epoch.
        warmup_epochs: number of epochs that every trial may run.
        seconds: time after which no further trial begins; None for no limit.
    """

    trials: int
    seed: int
    sampler: Literal["tpe", "random"]
    startup_trials: int
    pruner: Literal["median", "none"]
    warmup_epochs: int
    seconds: float | None


def search(
    study: Study,
    space: Space,
    plan: SearchPlan,
    train: TrainTrial,
    *,
    start: Mapping[str, Scalar] | None = None,
    on_trial: Callable[[FrozenTrial], None] | None = None,
) -> None:
    """Run trials until the planned number is reached.

    A proposal depends only on the seed, the number of the trial and the trials before it. A search that was killed
    and resumed therefore tries the same values as one that was not.

    Args:
        study: the study of :func:`cxr.tuning.study.open_study`.
        space: what may be tried.
        plan: how to proceed.
        train: trains one trial; a TrainingError fails the trial, not the search.
        start: values of the first trial; missing ones are drawn.
        on_trial: called when a trial has ended.
    """
    started = time.monotonic()
    study.pruner = _pruner(plan)
    distributions = {name: dimension.distribution() for name, dimension in space.items()}
    done = len(counted_trials(study))
    with tqdm(total=plan.trials, initial=min(done, plan.trials), unit="trial", desc="search", disable=None) as bar:
        while done < plan.trials:
            if plan.seconds is not None and time.monotonic() - started > plan.seconds:
                log.info("the time is over after %d of %d trials; run the same command to go on", done, plan.trials)
                return
            study.sampler = _sampler(plan, done)
            if done == 0 and start and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                study.enqueue_trial(dict(start))
            trial = study.ask(distributions)
            values = {name: space[name].to_value(drawn) for name, drawn in trial.params.items()}
            trial.set_user_attr(VALUES, values)
            log.info("trial %d (%d of %d): %s", trial.number, done + 1, plan.trials, format_values(values))
            ended = _run_trial(study, trial, values, train)
            done += 1
            if on_trial:
                on_trial(ended)
            best = best_trial(study)
            if best is not None:
                bar.set_postfix_str(f"best {best.value:.4f} in trial {best.number}")
            bar.update()


def epoch_reporter(trial: Trial, monitor: str) -> Callable[[Mapping[str, float]], None]:
    """Make the function that reports each epoch to a trial.

    Args:
        trial: the trial.
        monitor: name of the validation metric, without ``val_``.

    Returns:
        A function of the epoch's row of metrics; it raises TrialPruned if the trial should end.
    """

    def report(row: Mapping[str, float]) -> None:
        trial.report(row[f"val_{monitor}"], int(row["epoch"]))
        if trial.should_prune():
            raise TrialPruned

    return report


def format_values(values: Mapping[str, Any]) -> str:
    """Write values as one line, for example ``"optimizer=adam, learning_rate=0.001"``."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _run_trial(study: Study, trial: Trial, values: dict[str, Scalar], train: TrainTrial) -> FrozenTrial:
    try:
        value = train(trial, values)
        if not np.isfinite(value):
            raise TrainingError(f"expected a finite metric on validation, received {value}")
    except TrialPruned:
        log.info("trial %d ended early: behind the median of the others", trial.number)
        return study.tell(trial, state=TrialState.PRUNED)
    except TrainingError as error:
        log.info("trial %d failed: %s", trial.number, error)
        trial.set_user_attr(ERROR, str(error))
        return study.tell(trial, state=TrialState.FAIL)
    except BaseException:  # also Ctrl-C: without the attribute ERROR, the trial counts as killed and is run again
        study.tell(trial, state=TrialState.FAIL)
        raise
    return study.tell(trial, value)


def _sampler(plan: SearchPlan, done: int) -> BaseSampler:
    seed = int(np.random.SeedSequence([plan.seed, done]).generate_state(1)[0])
    if plan.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=plan.startup_trials)


def _pruner(plan: SearchPlan) -> BasePruner:
    if plan.pruner == "none":
        return NopPruner()
    # Epochs count from 1, and Optuna never prunes below its number of warm-up steps.
    return MedianPruner(n_startup_trials=plan.startup_trials, n_warmup_steps=plan.warmup_epochs + 1)
