"""Register regions: the detectors of a run become versions of a registered model of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Input, Output
from cxr.steps.registration_fields import RegistrationStep


class RegisterRegions(RegistrationStep):
    """Register evaluated detectors in MLflow; validation chooses the challenger, the policy the champion."""

    name: ClassVar[str] = "register_regions"
    follows: ClassVar[str] = "evaluate_regions"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register_regions", "promotion_regions")

    models: Annotated[
        Path,
        Input("Models", item_kind="Model", item_section="regions"),
        Field(description="Folder with one folder per trained detector."),
    ] = Path("artifacts/regions/models")
    evaluations: Annotated[
        Path,
        Input("Evaluations", item_kind="Evaluation", item_section="regions"),
        Field(description="Folder with one folder per evaluation, named as the detectors."),
    ] = Path("artifacts/regions/evaluations")
    registration: Annotated[
        Path,
        Output("Registration"),
        Field(description="decision.json, decision.html and comparison.parquet: who is champion, and why."),
    ] = Path("artifacts/regions/registration")
    registered_name: str = Field("pneumonia-regions", min_length=1, description="Name of the registered model.")
    include: list[str] = Field([], description="Detectors to register; empty registers all that are evaluated.")
    min_mean_average_precision: float = Field(
        0.1, ge=0, le=1, description="Lowest mean average precision on test for a champion."
    )
    min_sensitivity: float = Field(
        0.5, ge=0, le=1, description="Lowest sensitivity on test at 0.5 false positives per image for a champion."
    )
    min_ratio_to_references: float = Field(
        2.0,
        ge=0,
        le=1000,
        description="How many times the mean average precision on validation must be that of the prior boxes, of "
        "those with a classifier, and of the Grad-CAM boxes; 0: they do not matter.",
    )
    min_gain: float = Field(
        0.0, ge=0, le=1, description="How much higher than the champion's that of the challenger on validation must be."
    )
    margin: float = Field(
        0.02,
        ge=0,
        le=1,
        description="How much mean average precision on test the challenger may lose, at the interval's lower end.",
    )

    def run(self) -> None:
        """Register the detectors, decide about promotion, write the decision."""
        from cxr.promotion.candidates import RunFolders
        from cxr.promotion.policy import DetectorPolicy

        run = RunFolders(self.models, self.evaluations, self.splits, include=self.include, detectors=True)
        policy = DetectorPolicy(**self.values_of(DetectorPolicy))
        self.register_and_decide(run, policy, self.registered_name, self.registration)
