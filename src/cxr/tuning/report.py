"""The outcome of a search: a table of its trials, the values to take over, and the facts."""

from __future__ import annotations

import json
import logging
import math
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from optuna import Study

from cxr.errors import TrainingError
from cxr.models.pretrained_network import MAIN_PINS
from cxr.models.pretrained_networks import PRETRAINED_NETWORKS
from cxr.training.split_data import SplitData
from cxr.tuning.space import Space
from cxr.tuning.study import (
    COMPLETE,
    ERROR,
    KILLED,
    STATES,
    best_trial,
    ended_trials,
    monitored_value,
    trial_state,
    trial_values,
)

log = logging.getLogger(__name__)

COLUMNS = ("trial", "state", "value", "epochs", "seconds", "error")
"""Columns of the table beside the searched parameters."""


def trials_table(study: Study, names: Iterable[str]) -> pd.DataFrame:
    """Tabulate the trials.

    Args:
        study: the study.
        names: the searched parameters.

    Returns:
        One row per trial: trial (its number), state, value (the monitored metric of its best epoch, NaN if unknown),
        epochs, seconds, one column per parameter, error.
    """
    rows = []
    for trial in ended_trials(study):
        state = trial_state(trial)
        duration = trial.duration if state != KILLED else None
        row: dict[str, Any] = {
            "trial": trial.number,
            "state": state,
            "value": monitored_value(study, trial),
            "epochs": len(trial.intermediate_values),
            "seconds": round(duration.total_seconds(), 1) if duration else math.nan,
            "error": str(trial.user_attrs.get(ERROR, "")),
        }
        rows.append(row | {name: trial_values(trial).get(name) for name in names})
    return pd.DataFrame(rows, columns=[*COLUMNS[:-1], *names, COLUMNS[-1]])


def changed_values(study: Study, base: Mapping[str, Any]) -> dict[str, Any]:
    """Find the values of the best trial that differ from those of the model.

    Args:
        study: the study.
        base: the model's present values.

    Returns:
        Parameter to value, in the order of the space; empty without a best trial.
    """
    best = best_trial(study)
    if best is None:
        return {}
    return {name: value for name, value in trial_values(best).items() if value != base[name]}


def params_section(architecture: str) -> str:
    """Name the section of ``params.yaml`` that holds a model.

    Args:
        architecture: network of the model.

    Returns:
        ``"transfer"`` for networks whose pretrained weights are not installed with the project, otherwise ``"models"``.
    """
    network = PRETRAINED_NETWORKS.get(architecture)
    is_installed = network is None or (network.package is not None and network.package.pins == MAIN_PINS)
    return "models" if is_installed else "transfer"


def dvc_command(model: str, values: Mapping[str, Any], section: str) -> str:
    """Write the command that sets values in ``params.yaml`` and runs what depends on them; comments and order stay.

    Args:
        model: name of the model.
        values: parameter to value.
        section: section of the parameter file that holds the model.

    Returns:
        One line for a shell.
    """
    # ++ sets a value whether or not it is in the file already.
    settings = [f"++{section}.{model}.{name}={value if isinstance(value, str) else json.dumps(value)}"
                for name, value in values.items()]  # fmt: skip
    graph = [] if section == "models" else [f"{section}/dvc.yaml"]
    return shlex.join(["dvc", "exp", "run", *graph, *(word for setting in settings for word in ("-S", setting))])


def search_facts(study: Study, planned: int) -> dict[str, Any]:
    """Count the trials and name the best.

    Args:
        study: the study.
        planned: planned number of trials.

    Returns:
        ``best`` (trial, value, values; None without one), ``trials`` (wanted, complete, pruned, failed, killed)
        and ``seconds`` of all trials except killed ones.
    """
    table = trials_table(study, ())
    counts = table["state"].value_counts()
    best = best_trial(study)
    return {
        "best": best and {"trial": best.number, "value": best.value, "values": dict(trial_values(best))},
        "trials": {"wanted": planned} | {state: int(counts.get(state, 0)) for state in STATES},
        "seconds": round(float(table["seconds"].sum()), 1),
    }


def best_so_far(trials: pd.DataFrame, *, higher: bool) -> pd.Series[float]:
    """Compute the best value after each trial that was trained to its end.

    Args:
        trials: the return value of :func:`trials_table`.
        higher: whether higher values are better.

    Returns:
        The best value, indexed by the number of the trial.
    """
    complete = trials[trials["state"] == COMPLETE].set_index("trial")["value"]
    return complete.cummax() if higher else complete.cummin()


def write_search(
    folder: Path, study: Study, space: Space, base: Mapping[str, Any], data: SplitData, planned: int
) -> pd.DataFrame:
    """Write ``trials.csv``, ``search.json`` and ``best.yaml``, and log how to take the best values over.

    Args:
        folder: where to write; must exist.
        study: the study after the search, with the attribute ``device``.
        space: what was searched.
        base: the model's own values, with ``model``, ``architecture`` and ``monitor``.
        data: split of the images.
        planned: planned number of trials.

    Returns:
        The table of the trials.

    Raises:
        TrainingError: if no trial was trained to its end.
    """
    facts = search_facts(study, planned)
    trials = trials_table(study, space)
    trials.to_csv(folder / "trials.csv", index=False)
    if facts["best"] is None:
        errors = "; ".join(dict.fromkeys(trials["error"].iloc[-3:]))
        raise TrainingError(
            f"expected a trial that was trained to its end, received {facts['trials']}: {errors}; "
            "change space or base values"
        )
    model, monitor, best = base["model"], base["monitor"], facts["best"]
    origin = {
        "model": model,
        "monitor": monitor,
        "dataset": {"name": data.dataset.name, "kind": data.dataset.kind},
        "data_digest": data.data_digest,
        "split_protocol": data.protocol,
        "split_digest": data.digest,
        "device": study.user_attrs["device"],
        "study": study.study_name,
    }
    (folder / "search.json").write_text(json.dumps({**facts, **origin}, indent=2) + "\n", encoding="utf-8")
    better, section = changed_values(study, base), params_section(base["architecture"])
    patch = yaml.safe_dump({section: {model: better}}, sort_keys=False)
    (folder / "best.yaml").write_text(patch, encoding="utf-8")
    log.info("best: validation %s %.4f in trial %d", monitor, best["value"], best["trial"])
    if better:
        log.info("values to take over into params.yaml:\n%s", patch.rstrip())
        log.info("or let DVC write them there and run what depends on them:\n%s", dvc_command(model, better, section))
    else:
        log.info("the values of params.yaml are the best that were tried")
    return trials
