"""What the promotion rules look at, read from the tags of a version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxr.promotion.rules import Facts

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

PINNED = "pinned"
"""Tag by which a person keeps a version where it is; any value but false, no and 0."""

EVIDENCE = {"device": "device", "framework": "framework", "driver": "driver", "train_seconds": "seconds"}
"""Tags that training on a GPU leaves, with their names in words: without all of them it is only claimed."""


def facts_of(version: ModelVersion) -> Facts:
    """Read what the promotion rules look at from a version's tags; what a tag doesn't tell is unknown.

    Args:
        version: a version of the registered model.

    Returns:
        The facts.
    """
    tags = version.tags

    def figure(name: str) -> float:
        try:
            return float(tags.get(name, "nan"))
        except ValueError:
            return float("nan")

    return Facts(
        model=tags.get("model", ""),
        version=str(version.version),
        dataset=tags.get("dataset", ""),
        dataset_kind=tags.get("dataset_kind", ""),
        gpu=tags.get("gpu") == "yes",
        device=tags.get("device", ""),
        evidence_missing=tuple(words for name, words in EVIDENCE.items() if not tags.get(name)),
        data_digest=tags.get("data_digest", ""),
        split_protocol=tags.get("split_protocol", ""),
        split_digest=tags.get("split_digest", ""),
        validation_auroc=figure("validation_auroc"),
        test_auroc=figure("test_auroc"),
        test_sensitivity=figure("test_sensitivity"),
        test_calibration_error=figure("test_calibration_error"),
        pinned=tags.get(PINNED, "false").lower() not in {"false", "no", "0"},
    )
