"""What the promotion rules look at, read from the tags of a version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxr.promotion import Facts

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

PINNED = "pinned"
"""Tag by which a person keeps a version where it is; any value but false, no and 0."""


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
        dataset_kind=tags.get("dataset_kind", ""),
        gpu=tags.get("gpu") == "yes",
        device=tags.get("device", ""),
        data_digest=tags.get("data_digest", ""),
        split_protocol=tags.get("split_protocol", ""),
        split_digest=tags.get("split_digest", ""),
        validation_auroc=figure("validation_auroc"),
        test_auroc=figure("test_auroc"),
        test_sensitivity=figure("test_sensitivity"),
        pinned=tags.get(PINNED, "false").lower() not in {"false", "no", "0"},
    )
