"""Step: the models of a run become versions of a registered model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Reads, Writes
from cxr.steps.tracked import Tracked

log = logging.getLogger(__name__)


class Register(Tracked):
    """Register evaluated models in MLflow; validation chooses the challenger, the policy the champion."""

    name: ClassVar[str] = "register"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register")
    without_effect: ClassVar[tuple[str, ...]] = ()  # a registration is about one store: another one, another run

    models: Annotated[Path, Reads("Models"), Field(description="Folder with one folder per trained model.")] = Path(
        "artifacts/models"
    )
    evaluations: Annotated[
        Path,
        Reads("Evaluations"),
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
    registration: Annotated[
        Path,
        Writes("Registration"),
        Field(description="decision.json and decision.md: who is champion, and why."),
    ] = Path("artifacts/registration")
    registered_name: str = Field("pneumonia-classifier", min_length=1, description="Name of the registered model.")
    include: list[str] = Field(
        [], description="Models to take; empty takes all that are evaluated, and the ensemble, named weighted."
    )
    require_gpu: bool = Field(True, description="Whether only GPU-trained versions may become champion.")
    min_auroc: float = Field(0.9, ge=0, le=1, description="Lowest AUROC on test for a champion.")
    min_sensitivity: float = Field(0.9, ge=0, le=1, description="Lowest sensitivity on test for a champion.")
    margin: float = Field(
        0.0, ge=0, le=1, description="How much higher than the champion's the AUROC on validation must be."
    )

    def run(self) -> None:
        """Register, decide, write the decision."""
        from cxr.promotion import Policy
        from cxr.tracking.registry import register

        outcome = register(
            self.models,
            self.evaluations,
            uri=self.needed_store(),
            experiment=self.experiment,
            registered_name=self.registered_name,
            policy=Policy(self.require_gpu, self.min_auroc, self.min_sensitivity, self.margin),
            include=self.include,
            ensemble=self.ensemble,
            transfer=self.transfer,
        )
        (self.registration / "decision.json").write_text(
            json.dumps(outcome.to_dict(), indent=2) + "\n", encoding="utf-8"
        )
        (self.registration / "decision.md").write_text(outcome.to_markdown(), encoding="utf-8")
        log.info(outcome.headline())
