"""Several trainings of one network that differ in their seed only: how much single trainings scatter."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, stdev

from cxr.results.formatting import UNKNOWN, format_value, markdown_table
from cxr.results.model_result import ModelResult

NAME_AND_SEED = ("model", "seed")
"""Training parameters in which repeated trainings differ."""


def repeated_trainings(models: Sequence[ModelResult]) -> list[list[ModelResult]]:
    """Group the models that differ in their seed only.

    The device may differ too. Models that were trained with other parameters, or before a parameter existed, are
    not in one group.

    Args:
        models: results of one data set and split.

    Returns:
        Groups of at least two seeds, each by seed; the group with the highest mean of the validation AUROC first.
        Ensembles, and models whose training parameters were not kept, are in no group.
    """
    groups: dict[str, list[ModelResult]] = defaultdict(list)
    for result in models:
        if result.architecture and result.facts["seed"] is not None:
            settings = {key: value for key, value in result.facts["settings"].items() if key not in NAME_AND_SEED}
            groups[json.dumps([settings, result.facts["recipe"]], sort_keys=True)].append(result)
    repeated = [
        sorted(group, key=lambda result: (result.facts["seed"], result.model))
        for group in groups.values()
        if len({result.facts["seed"] for result in group}) > 1
    ]
    return sorted(repeated, key=lambda group: (-_mean_validation_auroc(group), group[0].model))


def _mean_validation_auroc(trainings: Sequence[ModelResult]) -> float:
    return fmean(result.validation_auroc for result in trainings)


def mean_at_threshold(trainings: Sequence[ModelResult], measure: str) -> float | None:
    """Average a measure over trainings.

    Args:
        trainings: a group of :func:`repeated_trainings`.
        measure: its key in the test report, at the threshold chosen on validation.

    Returns:
        The mean on test; None if it is unknown for one of them.
    """
    known = [value for value in _values(trainings, measure) if value is not None]
    return fmean(known) if len(known) == len(trainings) else None


def repeated_trainings_table(models: Sequence[ModelResult]) -> str:
    """Write mean, standard deviation and range of AUROC and accuracy over the trainings of each network.

    Args:
        models: results of one data set and split.

    Returns:
        A Markdown table; empty if no network was trained with several seeds.
    """
    rows = []
    for trainings in repeated_trainings(models):
        devices = (str((result.facts["training"].get("device") or {}).get("name", UNKNOWN)) for result in trainings)
        rows.append(
            [
                f"**{trainings[0].architecture}**",
                str(len(trainings)),
                ", ".join(str(result.facts["seed"]) for result in trainings),
                "<br>".join(dict.fromkeys(devices)),
                _scatter("auroc", [result.validation_auroc for result in trainings]),
                *(_scatter(measure, _values(trainings, measure)) for measure in ("auroc", "accuracy")),
            ]
        )
    headings = ["Network", "Trainings", "Seeds", "Device of training", "Validation AUROC", "AUROC", "Accuracy"]
    return markdown_table(headings, rows) if rows else ""


def _values(trainings: Sequence[ModelResult], measure: str) -> list[float | None]:
    """A measure on test of each training, at its own threshold; None where it is unknown."""
    return [result.test["at_threshold"][measure]["value"] for result in trainings]


def _scatter(measure: str, values: Sequence[float | None]) -> str:
    """Mean, standard deviation and range: ``"98.2 % ± 0.3<br>(97.9 to 98.5)"``; a dash if one is unknown."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return UNKNOWN
    spread, lowest, highest = (
        format_value(measure, value).removesuffix(" %") for value in (stdev(known), min(known), max(known))
    )
    return f"{format_value(measure, fmean(known))} ± {spread}<br>({lowest} to {highest})"
