"""Resplit: assign every accepted image to train, validation or test by patient, and check the result."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from cxr.files import SPLITS_FILE
from cxr.steps.base import Reads, Step, Writes


class Resplit(Step):
    """Split the accepted images by patient, fixed by a hash, and stop if anything leaks."""

    name: ClassVar[str] = "resplit"
    sections: ClassVar[tuple[str, ...]] = ("resplit",)

    manifest: Annotated[Path, Reads("Manifest"), Field(description="Folder of the manifest.")] = Path(
        "artifacts/manifest"
    )
    splits: Annotated[
        Path, Writes("Splits"), Field(description="Folder of the assignment and of what it achieved.")
    ] = Path("artifacts/splits")

    protocol: Annotated[
        Literal["grouped", "official"],
        Field(
            description="grouped: all patients by the ratios. official: the published test set stays, the "
            "other patients are divided into train and validation."
        ),
    ] = "grouped"
    ratios: Annotated[
        tuple[float, float, float],
        Field(description="Shares of train, validation, test; with protocol official only the first two count."),
    ] = (0.70, 0.15, 0.15)
    seed: Annotated[int, Field(ge=0, description="Chooses one of many equally good splits.")] = 9
    sample: Annotated[
        dict[Literal["NORMAL", "PNEUMONIA"], Annotated[int, Field(ge=1)] | None],
        Field(description="Label to images kept, drawn by subtype before the split; {} keeps all."),
    ] = Field(default={})
    max_deviation: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Largest accepted distance of a large stratum's share from its ratio.",
        ),
    ] = 0.05

    @field_validator("ratios")
    @classmethod
    def _shares(cls, ratios: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(ratios) <= 0 or not math.isclose(sum(ratios), 1, abs_tol=1e-6):
            raise ValueError("three positive shares with sum 1")
        return ratios

    def run(self) -> None:
        """Read the manifest, split it, pass the gate, write the assignment and what it achieved."""
        import pandas as pd

        from cxr.data.split_table import achieved, gate, strata
        from cxr.data.splitting import split

        choices = self.model_dump(include=set(self.parameters()), mode="json")
        manifest = pd.read_parquet(self.manifest / "manifest.parquet")
        splits = split(manifest, **choices)
        gate(splits, manifest)
        splits.to_parquet(self.splits / SPLITS_FILE, index=False)
        text = json.dumps({**choices, **achieved(splits)}, indent=2)
        (self.splits / "achieved.json").write_text(text + "\n", encoding="utf-8")
        strata(splits).to_csv(self.splits / "achieved.csv", index=False)
