"""Export: write a version for another runtime, if it computes the same there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cxr.steps.base import Input, Output
from cxr.steps.model_fields import FixedModelStep

log = logging.getLogger(__name__)


class Export(FixedModelStep):
    """Export a version as an ONNX file with all that its use needs, if ONNX Runtime computes the same."""

    name: ClassVar[str] = "export"
    follows: ClassVar[str] = "judge"

    images: Annotated[
        Path, Input("Dataset"), Field(description="Folder of the raw images, for the comparison on validation.")
    ] = Path("data")
    splits: Annotated[
        Path, Input("Splits"), Field(description="Folder of the split that the version was trained on.")
    ] = Path("artifacts/splits")
    output: Annotated[Path, Output("Export"), Field(description="New folder to write; an earlier export is replaced.")]

    format: Annotated[Literal["onnx"], Field(description="Format of the network.")] = "onnx"
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Images per network call.")] = 64
    workers: Annotated[int | None, Field(ge=1, description="Threads that prepare images; null: one per core.")] = None

    def execute(self) -> None:
        """Export, unless the output folder holds other files.

        Raises:
            ParameterError: if it does.
            MissingInputError: if images, split or store don't exist, or the model of a folder isn't evaluated.
            RegistryError: if there is no such version.
            InstallationError: if the converter cannot work with this installation.
            DataError: if the network cannot be converted, computes something else, or the split is another one.
        """
        from cxr.export.folder import expect_export_folder

        expect_export_folder(self.output)
        super().execute()

    def run(self) -> None:
        """Load the model, prepare the validation images, convert, compare and write."""
        from cxr.data.image_opening import open_raw_images
        from cxr.export.agreement import prepare_validation_images
        from cxr.export.folder import write_export
        from cxr.export.onnx_file import expect_converter
        from cxr.files import scratch_folder
        from cxr.models.backend import load_keras

        choice = self.choose_model()
        load_keras()
        expect_converter()
        served = choice.load()
        with scratch_folder() as scratch:
            prepared = prepare_validation_images(
                served.predictor, open_raw_images(self.images), self.splits, scratch, workers=self.workers
            )
            agreement = write_export(
                self.output, served.predictor, prepared,
                name=choice.name, version=served.version or None, batch_size=self.batch_size,
            )  # fmt: skip
        log.info(
            "%s: largest difference of a probability %.2g on %s validation images",
            choice.name, agreement.largest_difference, f"{agreement.images:,}",
        )  # fmt: skip
