"""The gate of an ONNX file: the file and the model itself on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr.data.split_table import SPLIT_SUMMARY_FILE, VALIDATION
from cxr.errors import DataError, MissingInputError
from cxr.evaluation.training_data import check_split_fits
from cxr.export.onnx_file import OnnxNetwork, write_onnx
from cxr.export.probability_network import input_names, probability_network
from cxr.files import SPLITS_FILE
from cxr.images.preparation import prepare_images
from cxr.images.raw_images import RawImages
from cxr.images.reading_options import VALIDATED
from cxr.images.recipes import Recipe
from cxr.inference.predictor import Predictor
from cxr.tables import read_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_DIFFERENCE = 1e-4
"""Largest difference of a probability at which an export is accepted."""


@dataclass(frozen=True)
class Agreement:
    """What the comparison of a file with its model has shown.

    Attributes:
        images: number of compared images.
        largest_difference: largest difference of a calibrated probability; NaN if one of both is no number.
        changed_labels: images on the other side of the threshold.
    """

    images: int
    largest_difference: float
    changed_labels: int

    @property
    def accepted(self) -> bool:
        """Whether every probability is the same to within :data:`MAX_DIFFERENCE`."""
        return self.largest_difference <= MAX_DIFFERENCE


def write_checked_file(
    path: Path,
    predictor: Predictor,
    prepared: Mapping[Recipe, NDArray[np.uint8]],
    *,
    name: str,
    source: str,
    batch_size: int,
) -> Agreement:
    """Write the ONNX file of a model, if ONNX Runtime computes with it what the model computes.

    Args:
        path: file to write; after an error its content is of no use.
        predictor: the calibrated model or ensemble.
        prepared: each recipe of the model to the same images, ``(n, size, size, planes)``.
        name: name of the model in messages, e.g. ``"version 3 of pneumonia-classifier"``.
        source: what the images are, for messages, e.g. ``"validation images"``.
        batch_size: images per call of the comparison.

    Returns:
        The comparison.

    Raises:
        DataError: if the network cannot be converted, or a probability differs by more than :data:`MAX_DIFFERENCE`.
    """
    write_onnx(probability_network(predictor), path)
    agreement = compare_with_model(OnnxNetwork(path, threads=None), predictor, prepared, batch_size=batch_size)
    if not agreement.accepted:
        raise DataError(
            f"expected ONNX Runtime to compute the probabilities of {name} to within {MAX_DIFFERENCE}, received a "
            f"largest difference of {agreement.largest_difference:.2g} on {agreement.images:,} {source}; "
            "the file is not used: serve the model itself with `cxr serve --runtime keras`"
        )
    return agreement


def prepare_validation_images(
    predictor: Predictor, images: RawImages, splits: Path, scratch: Path, *, workers: int | None
) -> dict[Recipe, NDArray[np.uint8]]:
    """Prepare the validation images of a model's training from the raw images.

    Args:
        predictor: the model.
        images: the raw images.
        splits: folder of the split that the model was trained on.
        scratch: an empty folder for the prepared images.
        workers: threads; None for as many as suit the images.

    Returns:
        Each recipe of the model to the prepared images ``(n, size, size, planes)``, all in the same order.

    Raises:
        MissingInputError: if the split, or an image of it, is not there.
        DataError: if the model was trained on another split, or an image is not the one that was split.
        ImageError: if an image cannot be decoded.
    """
    absent = [name for name in (SPLITS_FILE, SPLIT_SUMMARY_FILE) if not (splits / name).is_file()]
    if absent:
        raise MissingInputError(
            f"expected a split, received splits={splits} without {', '.join(absent)}; name the folder of the split "
            "that the version was trained on (`cxr reproduce` says how to make it again)"
        )
    check_split_fits(splits, predictor.metadata)
    rows = read_table(splits / SPLITS_FILE)
    rows = rows[rows["split"] == VALIDATION]
    missing = [path for path in rows["path"] if path not in images]
    if missing:
        raise MissingInputError(
            f"expected the {len(rows):,} validation images of {splits} in {images.folder}, received {len(missing):,} "
            f"missing ones, the first {missing[0]}; name the folder of the raw images as --images, or run `dvc pull`"
        )
    # A file with the digest of the split was accepted when it was split, whatever its size.
    options = replace(VALIDATED, max_pixels=np.iinfo(np.int32).max)
    return {
        recipe: prepare_images(
            images, rows["path"].tolist(), recipe, scratch / name,
            workers=workers, sha256=rows["sha256"].tolist(), options=options,
        ).images[:]
        for recipe, name in zip(predictor.recipes, input_names(predictor.recipes), strict=True)
    }  # fmt: skip


def compare_with_model(
    network: OnnxNetwork, predictor: Predictor, prepared: Mapping[Recipe, NDArray[np.uint8]], *, batch_size: int
) -> Agreement:
    """Compare calibrated probabilities.

    Args:
        network: the exported file.
        predictor: the model that it was made from.
        prepared: each recipe of the model to the same images, ``(n, size, size, planes)``.
        batch_size: images per call.

    Returns:
        The comparison.
    """
    names = dict(zip(predictor.recipes, input_names(predictor.recipes), strict=True))
    count = len(next(iter(prepared.values())))
    expected, received = np.empty(count), np.empty(count)
    for start in range(0, count, batch_size):
        span = slice(start, start + batch_size)
        batch = {recipe: np.array(prepared[recipe][span]) for recipe in names}
        expected[span] = predictor.calibrated(predictor.predict_raw(batch, batch_size))
        received[span] = network.probabilities({names[recipe]: images for recipe, images in batch.items()})
    _, threshold = predictor.operating_point()
    changed_labels = int(((received >= threshold) != (expected >= threshold)).sum())
    return Agreement(count, float(np.abs(received - expected).max()), changed_labels)
