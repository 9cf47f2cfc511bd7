"""Fields of every step that evaluates a classifier: how threshold, metrics and intervals are computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from cxr.steps.base import Input
from cxr.steps.slice_fields import SliceColumns, SliceMinPatients
from cxr.steps.tracking_fields import TrackingStep

if TYPE_CHECKING:
    from cxr.evaluation.evaluate import EvaluationSettings


class EvaluationStep(TrackingStep):
    """A step whose result is an evaluation; its parameters stand in the section ``evaluate``."""

    data: Annotated[
        Path,
        Input("Dataset", optional=True),
        Field(description="Folder of the raw images, for the sheet of mistakes; else prepared ones, or no sheet."),
    ] = Path("data")

    rule: Annotated[
        Literal["sensitivity", "specificity", "youden", "f1", "accuracy", "fixed"],
        Field(
            description="What the threshold is chosen for on validation. sensitivity: the highest "
            "specificity at a sensitivity of at least target; specificity: the reverse; fixed: target is the "
            "threshold."
        ),
    ] = "sensitivity"
    target: Annotated[
        float, Field(ge=0, le=1, description="Wanted sensitivity or specificity, or the fixed threshold.")
    ] = 0.95
    sensitivities: Annotated[
        list[float],
        Field(description="Further sensitivities at which the specificity is reported; 0.9703 is S2's own."),
    ] = Field(default=[0.9703])
    resamples: Annotated[
        int, Field(ge=100, le=100_000, description="Bootstrap replicates over patients for each interval.")
    ] = 2000
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of the bootstrap.")] = 0
    bins: Annotated[int, Field(ge=2, le=100, description="Bins of the calibration error.")] = 15
    coverage: Annotated[
        float | None,
        Field(
            ge=0.5,
            lt=1,
            description="Share of each class that its prediction sets cover; images that fit both classes or neither "
            "are UNCERTAIN. null: labels are NORMAL or PNEUMONIA.",
        ),
    ] = None
    slices: Annotated[
        SliceColumns,
        Field(
            description="Columns of the manifest or of patients.csv, e.g. [subtype, sex, scanner]: figures for the "
            "images of each value, or third of the numbers. Empty: no slices."
        ),
    ] = Field(default=[])
    slice_min_patients: SliceMinPatients = 10
    mistakes: Annotated[
        int, Field(ge=1, le=12, description="Images of each kind of mistake on the sheet of mistakes.")
    ] = 6

    @field_validator("sensitivities")
    @classmethod
    def _shares(cls, sensitivities: list[float]) -> list[float]:
        if not all(0 < value <= 1 for value in sensitivities):
            raise ValueError("a list of shares above 0 and at most 1")
        return sensitivities

    def settings(self) -> EvaluationSettings:
        """Collect how the model is evaluated."""
        from cxr.evaluation.evaluate import EvaluationSettings

        return EvaluationSettings(**{name: getattr(self, name) for name in EvaluationSettings.__dataclass_fields__})
