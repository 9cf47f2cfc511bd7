"""Results: keep the figures of a run as small files, and write the page of all kept results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Keeps, Reads, Step


class Results(Step):
    """Keep the results of the evaluated models and write the page with every kept result."""

    name: ClassVar[str] = "results"
    sections: ClassVar[tuple[str, ...]] = ()

    evaluations: Annotated[
        Path,
        Reads("Evaluations", optional=True),
        Field(description="Folder with one folder per evaluated model; nothing new is kept if it is missing."),
    ] = Path("artifacts/evaluations")
    models: Annotated[
        Path,
        Reads("Models", optional=True),
        Field(description="Folder with one folder per trained model, for its training parameters."),
    ] = Path("artifacts/models")
    kept: Annotated[Path, Keeps("Results"), Field(description="Folder of all kept results, which belongs in git.")] = (
        Path("reports/results")
    )

    ensemble: Annotated[
        Path,
        Reads("Ensemble", optional=True),
        Field(description="Folder of the ensemble, whose figures stand beside the models' if it is there."),
    ] = Path("artifacts/ensemble")

    reference: Annotated[
        Path,
        Reads("Reference", optional=True),
        Field(description="Folder of the reference: how often films of this split would get no answer."),
    ] = Path("artifacts/reference")
    transfer: Annotated[
        Path | None,
        Reads("Transfer", optional=True),
        Field(description="Folder with models/ and evaluations/ of the transfer networks; null leaves them out."),
    ] = None

    page: Annotated[Path, Field(description="Markdown file to write.")] = Path("docs/results.md")
    phantoms: Annotated[bool, Field(description="Whether results on drawn phantoms are kept and shown as well.")] = (
        False
    )

    def run(self) -> None:
        """Keep what the run found, then write the page."""
        from cxr.files import write_text
        from cxr.models.metadata import model_folders
        from cxr.results.page import render
        from cxr.results.result import collect, keep, read_all, read_notes

        folders = model_folders(self.models, self.evaluations, self.transfer)
        keep(collect(folders, self.ensemble, self.reference), self.kept, phantoms=self.phantoms)
        write_text(self.page, render(read_all(self.kept), read_notes(self.kept), phantoms=self.phantoms))
