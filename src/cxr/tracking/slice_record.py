"""Slices of a registered version: its tags and its model card follow the latest evaluation.

All other figures of a version stay those of its registration. Slices are another question about the same model: they
come from parameters and from ``patients.csv``, and a limit on them must meet the slices that are wanted now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cxr.data.split_table import TEST
from cxr.evaluation.slices import SLICES, slice_title
from cxr.promotion.candidates import Candidate
from cxr.promotion.facts import WORST_SLICE, WORST_SLICE_SENSITIVITY
from cxr.tracking.judgement_log import read_judgements_of
from cxr.tracking.store import Store
from cxr.tracking.version_record import read_recorded_metrics, update_card

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def update_slices(store: Store, version: ModelVersion, candidate: Candidate) -> ModelVersion:
    """Bring the slices in the tags and in the model card of a version up to date.

    Args:
        store: the tracking store.
        version: a version of the registered model.
        candidate: the model that it was created from, with its present evaluation.

    Returns:
        The version as it is now.

    Raises:
        RegistryError: if the store fails meanwhile.
    """
    if not candidate.has_slices and WORST_SLICE not in version.tags:
        return version
    metrics, name, number = candidate.read_metrics(), version.name, version.version
    tags = _slice_tags(metrics)
    with store.clear_errors(f"take the slices of version {number} of {name}"):
        for key in (WORST_SLICE_SENSITIVITY, WORST_SLICE):
            if key in tags and version.tags.get(key) != tags[key]:
                store.client.set_model_version_tag(name, number, key, tags[key])
            elif key in version.tags and key not in tags:
                store.client.delete_model_version_tag(name, number, key)
        recorded = read_recorded_metrics(store, version)
        if recorded is not None and (changed := _with_slices_of(recorded, metrics)) != recorded:
            update_card(store, version, read_judgements_of(store, version), changed)
    return store.client.get_model_version(name, number)


def _slice_tags(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Tags about the worst slice; empty without slices, or if all are too small."""
    worst = metrics.get(TEST, {}).get(SLICES, {}).get("worst")
    if worst is None:
        return {}
    return {WORST_SLICE_SENSITIVITY: str(worst["sensitivity"]["value"]), WORST_SLICE: slice_title(worst)}


def _with_slices_of(recorded: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded figures with the slices of others, in the report and in each split of it."""
    changed = {name: value for name, value in recorded.items() if name != SLICES}
    changed |= {SLICES: metrics[SLICES]} if SLICES in metrics else {}
    for split in ("validation", TEST):
        part = {name: value for name, value in recorded.get(split, {}).items() if name != SLICES}
        changed[split] = part | ({SLICES: metrics[split][SLICES]} if SLICES in metrics.get(split, {}) else {})
    return changed
