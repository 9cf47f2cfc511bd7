"""The facts of a version that the promotion rules look at.

Classifiers and detectors of opacities have different figures, which their classes here name. The rules, the comparison,
the report and the registration are the same for both.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

ChooseBy = Literal["validation", "stressed_validation"]
"""Figure by which the challenger is chosen, and must be better than the champion: the AUROC of a classifier on
validation images as they are, or its mean under the changes of the stress test; the mean average precision of a
detector on validation images."""

FALSE_POSITIVES = 0.5
"""False positives per image at which the rules look at the sensitivity of a detector."""

WORST_SLICE_SENSITIVITY, WORST_SLICE = "test_worst_slice_sensitivity", "test_worst_slice"
"""Facts of a classifier, and tags of a version, about the slice with the lowest sensitivity on test; the first one is
in the evaluation's summary, too."""

PINNED = "pinned"
"""Tag by which a person keeps a version where it is; any value except false, no and 0."""

GPU_EVIDENCE = {"device": "device", "framework": "framework", "driver": "driver", "train_seconds": "seconds"}
"""Tags that prove a training on a GPU, with their names for messages; without all of them it is only a claim."""


@dataclass(frozen=True, kw_only=True)
class CommonFacts(ABC):
    """What the rules look at in a version, whatever it predicts.

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
        pinned: whether a person has pinned it with a tag.
        missing_files: files that prediction needs and the store has lost.
        unverified: why its signature is refused; empty if it is trusted, None if it was not looked at.
    """

    HEADINGS: ClassVar[Mapping[str, str]] = {}
    """Figures of the version, in the order of the report: attribute to heading."""
    OPTIONAL: ClassVar[frozenset[str]] = frozenset()
    """Figures that a report leaves out if no version has them."""
    TAGS: ClassVar[Mapping[str, str]] = {}
    """Tags of figures that are not named as the attribute: attribute to tag."""
    REFERENCES: ClassVar[Mapping[str, str]] = {}
    """Figures on validation of the methods that the model is judged beside: attribute to name in sentences."""
    TEXTS: ClassVar[tuple[str, ...]] = (
        "model", "dataset", "dataset_kind", "device", "data_digest", "split_protocol", "split_digest"
    )  # fmt: skip
    """Facts that are tags of the same name."""

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
    pinned: bool = False
    missing_files: tuple[str, ...] = ()
    unverified: str | None = None

    @classmethod
    def from_tags(cls, version: str, tags: Mapping[str, str], missing_files: tuple[str, ...]) -> Self:
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
                return float(tags.get(cls.TAGS.get(name, name), "nan"))
            except ValueError:
                return math.nan

        values: dict[str, Any] = {name: tags.get(name, "") for name in cls.TEXTS}
        values |= {name: figure(name) for name in cls.HEADINGS}
        return cls(
            **values,
            version=version,
            gpu=tags.get("gpu") == "yes",
            evidence_missing=tuple(name for tag, name in GPU_EVIDENCE.items() if not tags.get(tag)),
            pinned=is_pinned(tags),
            missing_files=missing_files,
        )

    @abstractmethod
    def choice_figure(self, choose_by: ChooseBy) -> float:
        """The figure by which versions are chosen; NaN if unknown."""

    def figure(self, name: str) -> float:
        """The figure of :attr:`HEADINGS` with this name; NaN if unknown."""
        return float(getattr(self, name))

    def figure_source(self, name: str) -> str:
        """The images that a figure belongs to if they are only some of a split; empty for a whole split."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for ``decision.json``."""
        values = asdict(self)
        del values["unverified"]  # it stands among the rules
        return values | {"absent": values.pop("missing_files")}


@dataclass(frozen=True, kw_only=True)
class VersionFacts(CommonFacts):
    """What the rules look at in a version of a classifier.

    Attributes:
        validation_auroc: AUROC on the validation images; NaN if unknown.
        test_auroc: AUROC on the test images; NaN if unknown.
        test_sensitivity: sensitivity on the test images at the model's threshold; NaN if unknown.
        test_calibration_error: calibration error on the test images; NaN if unknown.
        validation_stress_auroc: mean AUROC on validation images under the changes of the stress test; NaN if unknown.
        test_worst_slice_sensitivity: sensitivity on the test images of the worst slice; NaN if unknown.
        test_worst_slice: that slice, e.g. ``"sex: female"``; empty if unknown.
    """

    HEADINGS: ClassVar[Mapping[str, str]] = {
        "validation_auroc": "Validation AUROC",
        "validation_stress_auroc": "The same under acquisition changes, mean",
        "test_auroc": "Test AUROC",
        "test_sensitivity": "Test sensitivity",
        "test_calibration_error": "Test calibration error",
        WORST_SLICE_SENSITIVITY: "Test sensitivity of the worst slice",
    }
    OPTIONAL: ClassVar[frozenset[str]] = frozenset({WORST_SLICE_SENSITIVITY})
    TEXTS: ClassVar[tuple[str, ...]] = (*CommonFacts.TEXTS, WORST_SLICE)

    validation_auroc: float
    test_auroc: float
    test_sensitivity: float
    test_calibration_error: float
    validation_stress_auroc: float = math.nan
    test_worst_slice_sensitivity: float = math.nan
    test_worst_slice: str = ""

    def choice_figure(self, choose_by: ChooseBy) -> float:
        """The figure by which versions are chosen; NaN if unknown."""
        return self.validation_auroc if choose_by == "validation" else self.validation_stress_auroc

    def figure_source(self, name: str) -> str:
        """The images that a figure belongs to if they are only some of a split; empty for a whole split."""
        return self.test_worst_slice if name == WORST_SLICE_SENSITIVITY else ""

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for ``decision.json``; without the worst slice if there are no slices."""
        values = super().to_dict()
        if not self.test_worst_slice:
            del values[WORST_SLICE], values[WORST_SLICE_SENSITIVITY]
        return values


@dataclass(frozen=True, kw_only=True)
class DetectorFacts(CommonFacts):
    """What the rules look at in a version of a detector of opacities.

    Attributes:
        validation_mean_average_precision: mean average precision on the validation images; NaN if unknown.
        validation_grad_cam: that of boxes from a classifier's Grad-CAM; NaN if they were not judged.
        validation_prior: that of fixed boxes in every image; NaN if they were not judged.
        validation_prior_with_classifier: that of fixed boxes where a classifier says pneumonia; NaN if they were not
            judged.
        test_mean_average_precision: mean average precision on the test images; NaN if unknown.
        test_sensitivity: sensitivity per opacity on the test images at :data:`FALSE_POSITIVES`; NaN if unknown.
        test_auroc: AUROC of the highest score of an image on the test images; NaN if unknown.
    """

    HEADINGS: ClassVar[Mapping[str, str]] = {
        "validation_mean_average_precision": "Validation mean average precision",
        "validation_grad_cam": "That of Grad-CAM boxes",
        "validation_prior": "That of prior boxes",
        "validation_prior_with_classifier": "That of prior boxes with a classifier",
        "test_mean_average_precision": "Test mean average precision",
        "test_sensitivity": f"Test sensitivity at {FALSE_POSITIVES:g} false positives per image",
        "test_auroc": "Test AUROC of the highest score",
    }
    REFERENCES: ClassVar[Mapping[str, str]] = {
        "validation_grad_cam": "Grad-CAM boxes",
        "validation_prior": "prior boxes",
        "validation_prior_with_classifier": "prior boxes with a classifier",
    }
    TAGS: ClassVar[Mapping[str, str]] = {
        "test_sensitivity": f"test_sensitivity_at_{FALSE_POSITIVES:g}_fp",
        "validation_grad_cam": "validation_mean_average_precision_grad_cam",
        "validation_prior": "validation_mean_average_precision_prior",
        "validation_prior_with_classifier": "validation_mean_average_precision_prior_with_classifier",
    }

    validation_mean_average_precision: float
    validation_grad_cam: float
    validation_prior: float
    validation_prior_with_classifier: float
    test_mean_average_precision: float
    test_sensitivity: float
    test_auroc: float

    def choice_figure(self, choose_by: ChooseBy) -> float:
        """The figure by which versions are chosen; NaN if unknown, and for a stress test, which detectors have not."""
        return self.validation_mean_average_precision if choose_by == "validation" else math.nan


def is_pinned(tags: Mapping[str, str]) -> bool:
    """Whether a person has pinned a version.

    Args:
        tags: the version's tags.
    """
    return tags.get(PINNED, "false").lower() not in {"false", "no", "0"}
