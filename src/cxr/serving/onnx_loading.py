"""Loading a model for ONNX Runtime: it is converted once for all workers of a service, and compared with itself.

The conversion runs in a process of its own, so that a worker never loads TensorFlow for its classifier.
"""

from __future__ import annotations

import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from filelock import FileLock

from cxr.errors import DataError
from cxr.export.onnx_file import ONNX_FILE, OnnxNetwork, expect_converter
from cxr.export.onnx_predictor import OnnxPredictor
from cxr.files import whole_folder
from cxr.inference.predictor import Predictor
from cxr.models.backend import load_keras
from cxr.models.metadata import ModelMetadata
from cxr.serving.model_folder import folder_identity
from cxr.serving.model_source import LoadPredictor

log = logging.getLogger(__name__)

DRAWN_IMAGES = 8
"""Drawn radiographs on which a file is compared with its model: a service has no validation images."""


def onnx_loader(folder: Path, threads: int) -> LoadPredictor:
    """Make the function that loads a model for ONNX Runtime.

    Args:
        folder: where the files are kept; the workers of a service share it.
        threads: threads of one network call.

    Returns:
        The function. It raises what :meth:`cxr.inference.predictor.Predictor.load` raises, and DataError if the model
        cannot be converted or its file computes something else.
    """

    def load(model: Path, metadata: ModelMetadata | None = None) -> Predictor:
        if metadata is None:
            metadata = ModelMetadata.read(model)
        identity = folder_identity(model, metadata, None)
        converted = folder / identity
        with FileLock(folder / f"{identity}.lock"):
            if not converted.exists():
                _convert_in_own_process(model, metadata, converted)
        return OnnxPredictor(OnnxNetwork(converted / ONNX_FILE, threads), metadata)

    return load


def _convert_in_own_process(model: Path, metadata: ModelMetadata, output: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            difference = pool.submit(_convert, model, metadata, output).result()
        except BrokenProcessPool as error:
            raise DataError(
                f"expected the conversion of {metadata.model} to ONNX to finish, received the end of its process; see "
                "whether there is memory for it, or serve the model itself with runtime=keras"
            ) from error
    log.info(
        "%s runs in ONNX Runtime: largest difference of a probability %.2g on %d drawn images",
        metadata.model, difference, DRAWN_IMAGES,
    )  # fmt: skip


def _convert(model: Path, metadata: ModelMetadata, output: Path) -> float:
    """Write the file into a new folder, and return the largest difference of a probability."""
    from cxr.export.agreement import write_checked_file
    from cxr.export.example import prepare_drawn_images

    load_keras()
    expect_converter()
    predictor = Predictor.load(model, metadata)
    drawn = prepare_drawn_images(predictor.recipes, DRAWN_IMAGES)
    with whole_folder(output) as partial:
        agreement = write_checked_file(
            partial / ONNX_FILE, predictor, drawn, name=metadata.model, source="drawn images", batch_size=DRAWN_IMAGES
        )
    return agreement.largest_difference
