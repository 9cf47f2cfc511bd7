"""Step: the models of a run become versions of a registered model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cxr.steps.base import Input, Output
from cxr.steps.folder_fields import EvaluationFolders, ModelFolders, TransferFolder
from cxr.steps.registration_fields import RegistrationStep


class Register(RegistrationStep):
    """Register evaluated models in MLflow; validation chooses the challenger, the policy the champion."""

    name: ClassVar[str] = "register"
    follows: ClassVar[str] = "ensemble"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "promotion")
    reads_images: ClassVar[bool] = True

    models: ModelFolders = Path("artifacts/models")
    evaluations: EvaluationFolders = Path("artifacts/evaluations")
    transfer: TransferFolder = None
    ensemble: Annotated[
        Path,
        Input("Ensemble", optional=True),
        Field(description="Folder of the ensemble, registered beside its members if it is there."),
    ] = Path("artifacts/ensemble")
    reference: Annotated[
        Path,
        Input("Reference", optional=True),
        Field(
            description="Statistics of training images, carried by each version. Without it, versions refuse no image."
        ),
    ] = Path("artifacts/reference")
    data: Annotated[
        Path,
        Input("Dataset", optional=True),
        Field(description="Folder of the raw images, for a champion that must predict new ones."),
    ] = Path("data")
    registration: Annotated[
        Path,
        Output("Registration"),
        Field(description="decision.json, decision.html and comparison.parquet: who is champion, and why."),
    ] = Path("artifacts/registration")
    registered_name: str = Field("pneumonia-classifier", min_length=1, description="Name of the registered model.")
    include: list[str] = Field(
        [], description="Models to register; empty registers all that are evaluated, and the ensemble (weighted)."
    )
    choose_by: Literal["validation", "stressed_validation"] = Field(
        "validation",
        description="What chooses the challenger, which must be better in it than the champion: the AUROC on "
        "validation, or its mean under the acquisition changes of the stress test.",
    )
    min_auroc: float = Field(0.9, ge=0, le=1, description="Lowest AUROC on test for a champion.")
    min_sensitivity: float = Field(0.9, ge=0, le=1, description="Lowest sensitivity on test for a champion.")
    min_slice_sensitivity: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Lowest sensitivity on test of the slice that a champion does worst on; needs evaluate.slices. "
        "null: no limit.",
    )
    max_calibration_error: float = Field(
        0.15, ge=0, le=1, description="Highest calibration error on test for a champion."
    )
    min_gain: float = Field(
        0.0, ge=0, le=1, description="How much higher than the champion's that AUROC on validation must be."
    )
    margin: float = Field(
        0.005, ge=0, le=1, description="How much AUROC on test the challenger may lose, at the interval's lower end."
    )
    sensitivity_margin: float = Field(
        0.05, ge=0, le=1, description="The same for the sensitivity at the specificity below."
    )
    specificity: float = Field(
        0.9, gt=0, lt=1, description="Specificity at which challenger and champion are compared in sensitivity."
    )

    def run(self) -> None:
        """Register the models, decide about promotion, write the decision."""
        from cxr.promotion.candidates import RunFolders
        from cxr.promotion.policy import PromotionPolicy

        run, policy = RunFolders(**self.values_of(RunFolders)), PromotionPolicy(**self.values_of(PromotionPolicy))
        self.register_and_decide(run, policy, self.registered_name, self.registration)
