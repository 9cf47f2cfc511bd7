"""The limits of the promotion rules: the sections ``promotion`` and ``promotion_regions`` of ``params.yaml``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

from cxr.promotion.facts import (
    FALSE_POSITIVES,
    WORST_SLICE_SENSITIVITY,
    ChooseBy,
    CommonFacts,
    DetectorFacts,
    VersionFacts,
)

AUROC, SENSITIVITY, AVERAGE_PRECISION = "auroc", "sensitivity", "mean_average_precision"
"""Figures of the comparison on test that the rules look at; the last one is that of detectors."""


@dataclass(frozen=True)
class FigureLimit:
    """A limit on one figure of the challenger on the test images.

    Attributes:
        label: name of the figure in sentences, without the split.
        figure: attribute of the facts.
        bound: the limit.
        is_floor: whether the figure must reach the limit; otherwise it must not be above.
    """

    label: str
    figure: str
    bound: float
    is_floor: bool = True


@dataclass(frozen=True)
class ComparedFigure:
    """A figure of challenger and champion on the same images.

    Attributes:
        label: its name in sentences, without the split.
        margin: how much lower the challenger's may be on test, at the lower end of the interval of the difference.
    """

    label: str
    margin: float


@dataclass(frozen=True, kw_only=True)
class CommonPolicy(ABC):
    """Limits of the rules, whatever a version predicts.

    Attributes:
        choose_by: figure on validation by which the challenger is chosen, and must be better than the champion.
        require_gpu: whether only GPU-trained versions may become champion.
        require_approval: whether a version that keeps the rules waits until another user than its trainer approves it.
        min_gain: how much higher than the champion's that figure must be; a tie is never enough.
        margin: how much lower the first compared figure on test may be at the lower end of the difference's interval.
        confidence: share of the replicates inside an interval.
        resamples: bootstrap replicates over patients.
        seed: seed of the bootstrap.
    """

    SECTION: ClassVar[str]
    """Section of ``params.yaml`` with these values."""
    FACTS: ClassVar[type[CommonFacts]]
    """Facts of the versions that the policy is about."""
    RESULT_PER_IMAGE: ClassVar[str]
    """What a version has for each image of a comparison, for the report."""
    CHOSEN_ON_VALIDATION: ClassVar[str]
    """What an evaluation chooses on validation, for the report."""

    choose_by: ChooseBy
    require_gpu: bool
    require_approval: bool
    min_gain: float
    margin: float
    confidence: float
    resamples: int
    seed: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read the limits that a decision was based on.

        Args:
            values: what :meth:`to_dict` has returned.

        Returns:
            The policy.
        """
        limits: dict[str, Any] = {limit.name: values.get(limit.name) for limit in fields(cls) if limit.init}
        return cls(**{**limits, "require_approval": bool(limits["require_approval"])})

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for ``decision.json``; what is not set or asked for is left out."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        if not self.require_approval:
            del values["require_approval"]
        return values

    @property
    @abstractmethod
    def choice_label(self) -> str:
        """Name of the figure that chooses, in sentences."""

    @property
    @abstractmethod
    def limits(self) -> tuple[FigureLimit, ...]:
        """Limits on the test images."""

    @property
    @abstractmethod
    def compared(self) -> Mapping[str, ComparedFigure]:
        """Figures in which challenger and champion are compared; validation uses the first one."""

    @property
    def reference_ratio(self) -> float:
        """How many times the challenger's figure on validation must be that of each reference method; 0: no rule."""
        return 0.0


@dataclass(frozen=True, kw_only=True)
class PromotionPolicy(CommonPolicy):
    """Limits of the rules about classifiers: the section ``promotion`` of ``params.yaml``.

    Attributes:
        min_auroc: lowest AUROC on the test images.
        min_sensitivity: lowest sensitivity on the test images at the model's threshold.
        max_calibration_error: highest calibration error on the test images.
        sensitivity_margin: as ``margin``, which is for the AUROC, for the sensitivity at the specificity.
        specificity: specificity that both models keep when their sensitivities are compared.
        min_slice_sensitivity: lowest sensitivity on the test images of the worst slice; None for no limit.
    """

    SECTION: ClassVar[str] = "promotion"
    FACTS: ClassVar[type[CommonFacts]] = VersionFacts
    RESULT_PER_IMAGE: ClassVar[str] = "Probabilities"
    CHOSEN_ON_VALIDATION: ClassVar[str] = "Threshold, calibration"

    min_auroc: float
    min_sensitivity: float
    max_calibration_error: float
    sensitivity_margin: float
    specificity: float
    min_slice_sensitivity: float | None

    @property
    def choice_label(self) -> str:
        """Name of the figure that chooses, in sentences."""
        if self.choose_by == "stressed_validation":
            return "mean validation AUROC under acquisition changes"
        return "validation AUROC"

    @property
    def limits(self) -> tuple[FigureLimit, ...]:
        """Limits on the test images."""
        limits = (
            FigureLimit("AUROC", "test_auroc", self.min_auroc),
            FigureLimit("sensitivity", "test_sensitivity", self.min_sensitivity),
            FigureLimit("calibration error", "test_calibration_error", self.max_calibration_error, is_floor=False),
        )
        if self.min_slice_sensitivity is None:
            return limits
        worst = FigureLimit("sensitivity of the worst slice", WORST_SLICE_SENSITIVITY, self.min_slice_sensitivity)
        return (*limits, worst)

    @property
    def compared(self) -> Mapping[str, ComparedFigure]:
        """Figures in which challenger and champion are compared."""
        label = f"sensitivity at {100 * self.specificity:g} % specificity"
        return {
            AUROC: ComparedFigure("AUROC", self.margin),
            SENSITIVITY: ComparedFigure(label, self.sensitivity_margin),
        }


@dataclass(frozen=True, kw_only=True)
class DetectorPolicy(CommonPolicy):
    """Limits of the rules about detectors: the section ``promotion_regions`` of ``params.yaml``.

    Attributes:
        min_mean_average_precision: lowest mean average precision on the test images.
        min_sensitivity: lowest sensitivity per opacity on the test images at :data:`FALSE_POSITIVES`.
        min_ratio_to_references: how many times the mean average precision on validation must be that of each of
            :attr:`CommonFacts.REFERENCES`; 0 does not look at them.
    """

    SECTION: ClassVar[str] = "promotion_regions"
    FACTS: ClassVar[type[CommonFacts]] = DetectorFacts
    RESULT_PER_IMAGE: ClassVar[str] = "Average precisions"
    CHOSEN_ON_VALIDATION: ClassVar[str] = "Threshold, box scale"

    choose_by: ChooseBy = field(default="validation", init=False)
    min_mean_average_precision: float
    min_sensitivity: float
    min_ratio_to_references: float

    @property
    def choice_label(self) -> str:
        """Name of the figure that chooses, in sentences."""
        return "validation mean average precision"

    @property
    def limits(self) -> tuple[FigureLimit, ...]:
        """Limits on the test images."""
        return (
            FigureLimit("mean average precision", "test_mean_average_precision", self.min_mean_average_precision),
            FigureLimit(
                f"sensitivity at {FALSE_POSITIVES:g} false positives per image",
                "test_sensitivity",
                self.min_sensitivity,
            ),
        )

    @property
    def compared(self) -> Mapping[str, ComparedFigure]:
        """Figures in which challenger and champion are compared."""
        return {AVERAGE_PRECISION: ComparedFigure("mean average precision", self.margin)}

    @property
    def reference_ratio(self) -> float:
        """How many times the challenger's figure on validation must be that of each reference method; 0: no rule."""
        return self.min_ratio_to_references


AnyPolicy = PromotionPolicy | DetectorPolicy
