"""Results: keep the measures of a run as small files, and write the page of all kept results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Input, Step, WorkingFolder
from cxr.steps.folder_fields import TransferFolder


class Results(Step):
    """Keep the results of the evaluated models and write the page with every kept result, and the README's figures."""

    name: ClassVar[str] = "results"
    follows: ClassVar[str] = "reproduce"
    sections: ClassVar[tuple[str, ...]] = ()

    evaluations: Annotated[
        Path,
        Input("Evaluations", optional=True),
        Field(description="Folder with one folder per evaluated model; nothing new is kept if it is missing."),
    ] = Path("artifacts/evaluations")
    models: Annotated[
        Path,
        Input("Models", optional=True),
        Field(description="Folder with one folder per trained model, for its training parameters."),
    ] = Path("artifacts/models")
    kept: Annotated[
        Path, WorkingFolder("Results"), Field(description="Folder of all kept results, which belongs in git.")
    ] = Path("reports/results")
    ensemble: Annotated[
        Path,
        Input("Ensemble", optional=True),
        Field(description="Folder of the ensemble, which gets a row beside the models if it exists."),
    ] = Path("artifacts/ensemble")

    reference: Annotated[
        Path,
        Input("Reference", optional=True),
        Field(description="Folder of the reference: how many images of this split would get no answer."),
    ] = Path("artifacts/reference")
    judgements: Annotated[
        Path,
        Input("Judgements", optional=True),
        Field(description="Folder with one folder per judgement on other data (`cxr judge --judgement ...`)."),
    ] = Path("artifacts/judgements")
    transfer: TransferFolder = None

    page: Annotated[Path, Field(description="Markdown file to write.")] = Path("docs/results.md")
    readme: Annotated[
        Path | None,
        Field(description="File with two marks, between which the figures on the official test go; null: none."),
    ] = Path("README.md")
    phantoms: Annotated[bool, Field(description="Whether to keep and show results on drawn phantoms.")] = False

    def run(self) -> None:
        """Collect and keep the results of the run, then write the page and the figures of the README."""
        from cxr.files import write_text
        from cxr.models.metadata import model_folders
        from cxr.results.collection import collect_results
        from cxr.results.model_result import keep_results, read_notes, read_results
        from cxr.results.page import render_page
        from cxr.results.readme import update_readme

        folders = model_folders(self.models, self.evaluations, self.transfer)
        own_results = collect_results(folders, self.ensemble, self.reference, self.judgements)
        keep_results(own_results, self.kept, phantoms=self.phantoms)
        results = read_results(self.kept)
        write_text(self.page, render_page(results, read_notes(self.kept), phantoms=self.phantoms))
        if self.readme is not None:
            update_readme(self.readme, results)
