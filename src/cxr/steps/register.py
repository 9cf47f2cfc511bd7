"""Step: the models of a run become versions of a registered model."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Reads, Writes
from cxr.steps.tracking_fields import Tracked

log = logging.getLogger(__name__)


class Register(Tracked):
    """Register evaluated models in MLflow; validation chooses the challenger, the policy the champion."""

    name: ClassVar[str] = "register"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "promotion")
    without_effect: ClassVar[tuple[str, ...]] = ()  # a registration is about one store: another one, another run

    models: Annotated[
        Path,
        Reads("Models", each="Model"),
        Field(description="Folder with one folder per trained model."),
    ] = Path("artifacts/models")
    evaluations: Annotated[
        Path,
        Reads("Evaluations", each="Evaluation"),
        Field(description="Folder with one folder per evaluation, named as the models."),
    ] = Path("artifacts/evaluations")
    transfer: Annotated[
        Path | None,
        Reads("Transfer", optional=True),
        Field(description="Folder with models/ and evaluations/ of the transfer networks; null leaves them out."),
    ] = None
    ensemble: Annotated[
        Path,
        Reads("Ensemble", optional=True),
        Field(description="Folder of the ensemble, registered beside its members if it is there."),
    ] = Path("artifacts/ensemble")
    splits: Annotated[
        Path, Reads("Splits"), Field(description="Folder of the split that the models were judged on.")
    ] = Path("artifacts/splits")
    reference: Annotated[
        Path,
        Reads("Reference", optional=True),
        Field(
            description="What training films look like: each version carries it. Without it, versions answer for all."
        ),
    ] = Path("artifacts/reference")
    data: Annotated[
        Path,
        Reads("Dataset", optional=True),
        Field(description="Folder of the raw images, for a champion that must be asked about new ones."),
    ] = Path("data")
    registration: Annotated[
        Path,
        Writes("Registration"),
        Field(description="decision.json, decision.html and comparison.parquet: who is champion, and why."),
    ] = Path("artifacts/registration")
    registered_name: str = Field("pneumonia-classifier", min_length=1, description="Name of the registered model.")
    include: list[str] = Field(
        [], description="Models to take; empty takes all that are evaluated, and the ensemble, named weighted."
    )
    require_gpu: bool = Field(True, description="Whether only GPU-trained versions may become champion.")
    min_auroc: float = Field(0.9, ge=0, le=1, description="Lowest AUROC on test for a champion.")
    min_sensitivity: float = Field(0.9, ge=0, le=1, description="Lowest sensitivity on test for a champion.")
    max_calibration_error: float = Field(
        0.15, ge=0, le=1, description="Highest calibration error on test for a champion."
    )
    min_gain: float = Field(
        0.0, ge=0, le=1, description="How much higher than the champion's the AUROC on validation must be."
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
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of the intervals of the differences.")
    resamples: int = Field(2000, ge=100, le=100_000, description="Bootstrap replicates over patients.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the bootstrap.")

    def run(self) -> None:
        """Register, decide, write the decision."""
        from cxr.promotion.report import write_decision
        from cxr.promotion.rules import Policy
        from cxr.tracking.registry import Run, keep_decision, register

        policy = Policy(**{field.name: getattr(self, field.name) for field in fields(Policy)})
        run = Run(
            self.models,
            self.evaluations,
            self.splits,
            self.data,
            self.ensemble,
            self.transfer,
            tuple(self.include),
            self.reference,
        )
        outcome, rows = register(
            run,
            uri=self.needed_store(),
            experiment=self.experiment,
            registered_name=self.registered_name,
            policy=policy,
        )
        write_decision(self.registration, outcome, rows)
        keep_decision(self.tracking_uri, outcome, self.registration)
        log.info(outcome.headline())
