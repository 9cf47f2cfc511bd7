"""What the promotion rules look at: the facts of a version, and the limits of the policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

AUROC, SENSITIVITY = "auroc", "sensitivity"
"""Figures of the comparison on test that the rules look at."""

ChooseBy = Literal["validation", "stressed_validation"]
"""Figure by which the challenger is chosen, and must be better than the champion: the AUROC on validation images as
they are, or its mean under the changes of the stress test."""

PINNED = "pinned"
"""Tag by which a person keeps a version where it is; any value except false, no and 0."""

GPU_EVIDENCE = {"device": "device", "framework": "framework", "driver": "driver", "train_seconds": "seconds"}
"""Tags that prove a training on a GPU, with their names for messages; without all of them it is only a claim."""


@dataclass(frozen=True)
class VersionFacts:
    """What the rules look at in a version.

    Attributes:
        model: the model's name in ``params.yaml``.
        version: number in the registry.
        dataset: name of the data set.
        dataset_kind: ``"phantom"`` or ``"patients"``.
        gpu: whether it was trained on a GPU.
        device: name of the device it was trained on.
        evidence_missing: what the proof of training on a GPU lacks, e.g. ``"driver"``.
        data_digest: content version of the images.
        split_protocol: how the images were split.
        split_digest: digest of the assignment image -> split.
        validation_auroc: AUROC on the validation images; NaN if unknown.
        test_auroc: AUROC on the test images; NaN if unknown.
        test_sensitivity: sensitivity on the test images at the model's threshold; NaN if unknown.
        test_calibration_error: calibration error on the test images; NaN if unknown.
        validation_stress_auroc: mean AUROC on validation images under the changes of the stress test; NaN if unknown.
        pinned: whether a person has pinned it with a tag.
        missing_files: files that prediction needs and the store has lost.
    """

    model: str
    version: str
    dataset: str
    dataset_kind: str
    gpu: bool
    device: str
    evidence_missing: tuple[str, ...]
    data_digest: str
    split_protocol: str
    split_digest: str
    validation_auroc: float
    test_auroc: float
    test_sensitivity: float
    test_calibration_error: float
    validation_stress_auroc: float = math.nan
    pinned: bool = False
    missing_files: tuple[str, ...] = ()

    @classmethod
    def from_tags(cls, version: str, tags: Mapping[str, str], missing_files: tuple[str, ...]) -> VersionFacts:
        """Read the facts from a version's tags; what no tag says is unknown.

        Args:
            version: number in the registry.
            tags: the version's tags.
            missing_files: files that prediction needs and the store has lost.

        Returns:
            The facts.
        """

        def figure(name: str) -> float:
            try:
                return float(tags.get(name, "nan"))
            except ValueError:
                return math.nan

        texts = ("model", "dataset", "dataset_kind", "device", "data_digest", "split_protocol", "split_digest")
        figures = (
            "validation_auroc", "validation_stress_auroc", "test_auroc", "test_sensitivity", "test_calibration_error"
        )  # fmt: skip
        values: dict[str, Any] = {name: tags.get(name, "") for name in texts}
        values |= {name: figure(name) for name in figures}
        return cls(
            **values,
            version=version,
            gpu=tags.get("gpu") == "yes",
            evidence_missing=tuple(name for tag, name in GPU_EVIDENCE.items() if not tags.get(tag)),
            pinned=is_pinned(tags),
            missing_files=missing_files,
        )

    def choice_figure(self, choose_by: ChooseBy) -> float:
        """The figure by which versions are chosen; NaN if unknown."""
        return self.validation_auroc if choose_by == "validation" else self.validation_stress_auroc

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for ``decision.json``."""
        values = asdict(self)
        return values | {"absent": values.pop("missing_files")}


def is_pinned(tags: Mapping[str, str]) -> bool:
    """Whether a person has pinned a version.

    Args:
        tags: the version's tags.
    """
    return tags.get(PINNED, "false").lower() not in {"false", "no", "0"}


@dataclass(frozen=True)
class PromotionPolicy:
    """Limits of the rules: the section ``promotion`` of ``params.yaml``.

    Attributes:
        choose_by: figure on validation by which the challenger is chosen, and must be better than the champion.
        require_gpu: whether only GPU-trained versions may become champion.
        min_auroc: lowest AUROC on the test images.
        min_sensitivity: lowest sensitivity on the test images at the model's threshold.
        max_calibration_error: highest calibration error on the test images.
        min_gain: how much higher than the champion's that figure must be; a tie is never enough.
        margin: how much lower the AUROC on test may be at the lower end of the difference's interval.
        sensitivity_margin: the same for the sensitivity at the specificity.
        specificity: specificity that both models keep when their sensitivities are compared.
        confidence: share of the replicates inside an interval.
        resamples: bootstrap replicates over patients.
        seed: seed of the bootstrap.
    """

    choose_by: ChooseBy
    require_gpu: bool
    min_auroc: float
    min_sensitivity: float
    max_calibration_error: float
    min_gain: float
    margin: float
    sensitivity_margin: float
    specificity: float
    confidence: float
    resamples: int
    seed: int
