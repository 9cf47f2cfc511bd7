"""Step resplit: assign every accepted image to train, validation or test by patient, and check the result."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from cxr.files import MANIFEST_FILE
from cxr.steps.base import DATA_IMAGE, Output, Step
from cxr.steps.folder_fields import ManifestFolder
from cxr.tables import read_table


class Resplit(Step):
    """Split the accepted images by patient, fixed by a hash, and stop if anything leaks."""

    name: ClassVar[str] = "resplit"
    follows: ClassVar[str] = "validate"
    sections: ClassVar[tuple[str, ...]] = ("resplit",)
    container_image: ClassVar[str | None] = DATA_IMAGE
    retryable: ClassVar[bool] = False  # a split that it rejects is rejected each time

    manifest: ManifestFolder = Path("artifacts/manifest")
    splits: Annotated[Path, Output("Splits"), Field(description="Folder of the split and its summary.")] = Path(
        "artifacts/splits"
    )

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
        Field(description="Label to number of images to keep, drawn by subtype before the split; {} keeps all."),
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
    def _check_ratios(cls, ratios: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(ratios) <= 0 or not math.isclose(sum(ratios), 1, abs_tol=1e-6):
            raise ValueError("three positive shares with sum 1")
        return ratios

    def run(self) -> None:
        """Read the manifest, split it, check the split, write it."""
        from cxr.data.split_table import check_split, write_split
        from cxr.data.splitting import MANIFEST_COLUMNS, assign_splits

        parameters = self.model_dump(include=set(self.parameters()), mode="json")
        manifest = read_table(
            self.manifest / MANIFEST_FILE, columns=MANIFEST_COLUMNS, where=[("status", "=", "accepted")]
        )
        splits = assign_splits(manifest, **parameters)
        check_split(splits, manifest)
        del manifest  # before the split is written
        write_split(splits, parameters, self.splits)
