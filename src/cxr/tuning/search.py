"""Search for values of parameters: trials are proposed, trained, stopped early when they are behind, and kept."""

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
from cxr.tuning.study import ERROR, VALUES, best_of, counted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How a search proceeds.

    Attributes:
        trials: trials in all, those of earlier runs included.
        seed: seed of the proposals.
        sampler: ``"tpe"`` learns from the trials so far (tree-structured Parzen estimator, Bergstra et al. 2011),
            ``"random"`` does not.
        startup_trials: trials at random, and none of them ended early, before the search learns from them.
        pruner: ``"median"`` ends a trial whose best figure is behind the median of the others at the same epoch.
        warmup_epochs: epochs that every trial may run.
        seconds: time after which no further trial begins; None for no limit.
    """

    trials: int
    seed: int = 0
    sampler: Literal["tpe", "random"] = "tpe"
    startup_trials: int = 5
    pruner: Literal["median", "none"] = "median"
    warmup_epochs: int = 3
    seconds: float | None = None


def search(
    study: Study,
    space: Space,
    plan: Plan,
    train: Callable[[Trial, dict[str, Scalar]], float],
    *,
    start: Mapping[str, Scalar] | None = None,
    on_trial: Callable[[FrozenTrial], None] | None = None,
) -> None:
    """Run trials until there are as many as planned.

    A proposal depends on seed, number of the trial and the trials before alone. A search that was killed and goes
    on therefore tries what it would have tried.

    Args:
        study: the study of :func:`cxr.tuning.study.open_study`.
        space: what may be tried.
        plan: how to proceed.
        train: trains with the values of a trial, reports to it, and returns its figure; a TrainingError fails the
            trial, not the search.
        start: values of the first trial; what is left out is drawn.
        on_trial: called when a trial has ended.
    """
    began = time.monotonic()
    study.pruner = _pruner(plan)
    distributions = {name: one.distribution() for name, one in space.items()}
    done = len(counted(study))
    with tqdm(total=plan.trials, initial=min(done, plan.trials), unit="trial", desc="search", disable=None) as bar:
        while done < plan.trials:
            if plan.seconds is not None and time.monotonic() - began > plan.seconds:
                log.info("the time is over after %d of %d trials; run the same command to go on", done, plan.trials)
                return
            study.sampler = _sampler(plan, done)
            if done == 0 and start and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                study.enqueue_trial(dict(start))
            trial = study.ask(distributions)
            values = {name: space[name].value(drawn) for name, drawn in trial.params.items()}
            trial.set_user_attr(VALUES, values)
            log.info("trial %d (%d of %d): %s", trial.number, done + 1, plan.trials, in_words(values))
            ended = _run(study, trial, values, train)
            done += 1
            if on_trial:
                on_trial(ended)
            best = best_of(study)
            if best is not None:
                bar.set_postfix_str(f"best {best.value:.4f} in trial {best.number}")
            bar.update()


def reporter(trial: Trial, monitor: str) -> Callable[[Mapping[str, float]], None]:
    """Make the function that tells a trial about each epoch.

    Args:
        trial: the trial.
        monitor: name of the validation figure, without ``val_``.

    Returns:
        A function of the epoch's row of figures; it raises TrialPruned if the trial should end.
    """

    def report(row: Mapping[str, float]) -> None:
        trial.report(row[f"val_{monitor}"], int(row["epoch"]))
        if trial.should_prune():
            raise TrialPruned

    return report


def in_words(values: Mapping[str, Any]) -> str:
    """Values as one line.

    Args:
        values: parameter to value.

    Returns:
        For example ``"optimizer=adam, learning_rate=0.001"``.
    """
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _run(
    study: Study, trial: Trial, values: dict[str, Scalar], train: Callable[[Trial, dict[str, Scalar]], float]
) -> FrozenTrial:
    try:
        figure = train(trial, values)
        if not np.isfinite(figure):
            raise TrainingError(f"expected a finite figure on validation, received {figure}")
    except TrialPruned:
        log.info("trial %d ended early: behind the median of the others", trial.number)
        return study.tell(trial, state=TrialState.PRUNED)
    except TrainingError as error:
        log.info("trial %d failed: %s", trial.number, error)
        trial.set_user_attr(ERROR, str(error))
        return study.tell(trial, state=TrialState.FAIL)
    except BaseException:  # also Ctrl-C: without a note of its error, the trial counts as killed and is run again
        study.tell(trial, state=TrialState.FAIL)
        raise
    return study.tell(trial, figure)


def _sampler(plan: Plan, done: int) -> BaseSampler:
    seed = int(np.random.SeedSequence([plan.seed, done]).generate_state(1)[0])
    if plan.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=plan.startup_trials)


def _pruner(plan: Plan) -> BasePruner:
    if plan.pruner == "none":
        return NopPruner()
    # Epochs count from 1, and Optuna lets pass what is below its number of steps.
    return MedianPruner(n_startup_trials=plan.startup_trials, n_warmup_steps=plan.warmup_epochs + 1)
