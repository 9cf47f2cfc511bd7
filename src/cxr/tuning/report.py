"""What a search found: a table of its trials, the values to take over, and the facts."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from optuna import Study

from cxr.tuning.study import COMPLETE, ERROR, KILLED, STATES, best_of, ended, figure_of, state_of, values_of

COLUMNS = ("trial", "state", "value", "epochs", "seconds", "error")
"""Columns of the table beside the searched parameters."""


def table(study: Study, names: Iterable[str]) -> pd.DataFrame:
    """Tabulate the trials.

    Args:
        study: the study.
        names: the searched parameters.

    Returns:
        One row per trial: trial (its number), state, value (the monitored figure of its best epoch, NaN if unknown),
        epochs, seconds, one column per parameter, error.
    """
    rows = []
    for trial in ended(study):
        state = state_of(trial)
        duration = trial.duration if state != KILLED else None
        row: dict[str, Any] = {
            "trial": trial.number,
            "state": state,
            "value": figure_of(study, trial),
            "epochs": len(trial.intermediate_values),
            "seconds": round(duration.total_seconds(), 1) if duration else math.nan,
            "error": str(trial.user_attrs.get(ERROR, "")),
        }
        rows.append(row | {name: values_of(trial).get(name) for name in names})
    first, last = list(COLUMNS[:-1]), [COLUMNS[-1]]
    return pd.DataFrame(rows, columns=[*first, *names, *last])


def changed(study: Study, base: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the best trial that differ from those of the model.

    Args:
        study: the study.
        base: the model's present values.

    Returns:
        Parameter to value, in order of the space; empty without a best trial.
    """
    best = best_of(study)
    if best is None:
        return {}
    return {name: value for name, value in values_of(best).items() if value != base[name]}


def command(model: str, values: Mapping[str, Any], section: str = "models") -> str:
    """Command that writes values into ``params.yaml``, comments and order kept, and runs what depends on them.

    Args:
        model: name of the model.
        values: parameter to value.
        section: section of the parameter file that holds the model: ``"models"`` or ``"transfer"``.

    Returns:
        One line for a shell.
    """
    # ++ sets a value whether or not it stands there yet.
    settings = [f"++{section}.{model}.{name}={value if isinstance(value, str) else json.dumps(value)}"
                for name, value in values.items()]  # fmt: skip
    graph = [] if section == "models" else [f"{section}/dvc.yaml"]
    return shlex.join(["dvc", "exp", "run", *graph, *(word for setting in settings for word in ("-S", setting))])


def facts(study: Study, wanted: int) -> dict[str, Any]:
    """Count the trials and name the best.

    Args:
        study: the study.
        wanted: planned number of trials.

    Returns:
        ``best`` (trial, value, values; None without one), ``trials`` (wanted, complete, pruned, failed, killed)
        and ``seconds`` of all trials but killed ones.
    """
    rows = table(study, ())
    counts = rows["state"].value_counts()
    best = best_of(study)
    return {
        "best": best and {"trial": best.number, "value": best.value, "values": dict(values_of(best))},
        "trials": {"wanted": wanted} | {state: int(counts.get(state, 0)) for state in STATES},
        "seconds": round(float(rows["seconds"].sum()), 1),
    }


def best_so_far(trials: pd.DataFrame, *, higher: bool) -> pd.Series[float]:
    """Best value after each trial that was trained to its end.

    Args:
        trials: what :func:`table` gives.
        higher: whether higher values are better.

    Returns:
        The best value, indexed by number of the trial.
    """
    complete = trials[trials["state"] == COMPLETE].set_index("trial")["value"]
    return complete.cummax() if higher else complete.cummin()
