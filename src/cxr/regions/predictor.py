"""From an image to the boxes of its opacities: training, evaluation, page and service share this code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.data.boxes import Boxes, to_rows
from cxr.errors import DataError, MissingInputError
from cxr.files import NETWORK_FILE
from cxr.images.prepared import PreparedImages
from cxr.images.recipes import Recipe, apply_recipe, network_batches
from cxr.models.metadata import DetectorMetadata, ModelMetadata
from cxr.models.stored_files import load_network
from cxr.regions.anchors import DELTA_SCALES, make_anchors
from cxr.regions.matching import BOX_COLUMNS
from cxr.regions.operating_point import scale_boxes
from cxr.regions.placement import to_original
from cxr.regions.suppression import DetectedBoxes, detect_boxes


class RegionPredictor:
    """A detector with its metadata: recipe, anchors, threshold and box scale are applied as in evaluation.

    Attributes:
        metadata: the detector's metadata.
        recipe: the image recipe of the metadata.
    """

    def __init__(self, network: Any, metadata: ModelMetadata) -> None:
        """Join a network and its metadata.

        Args:
            network: Keras model, see :func:`cxr.regions.detector.build_detector`.
            metadata: metadata of the detector; before its evaluation it can propose boxes, but not choose among them.

        Raises:
            DataError: if the metadata is not that of a detector.
            MissingInputError: if the detector was trained with other anchors than this version of the program has.
        """
        self.metadata = metadata
        self.recipe = Recipe.from_dict(metadata.recipe)
        if metadata.detector is None:
            raise DataError(
                f"expected a detector, received model={metadata.model}, which classifies; "
                "give a folder that `cxr train_regions` wrote"
            )
        self._detector = metadata.detector
        expected = anchors_version(self.recipe.size)
        if self._detector.anchors != expected:
            raise MissingInputError(
                f"expected a detector with the anchors of this version of the program ({expected}), received "
                f"model={metadata.model} with anchors={self._detector.anchors}; train it again"
            )
        self._network = network
        self._anchors = make_anchors(self.recipe.size)

    @classmethod
    def load(cls, folder: Path, metadata: ModelMetadata | None = None) -> RegionPredictor:
        """Load a detector. Code that the file might carry is not executed (Keras safe mode).

        Args:
            folder: folder with ``model.keras`` and ``card.json``.
            metadata: metadata to use instead of the folder's, e.g. with the threshold of an evaluation.

        Returns:
            The predictor.

        Raises:
            DataError: if it is no detector, or a file is damaged.
            MissingInputError: if a file is missing, or the anchors are others.
        """
        path = folder / NETWORK_FILE
        if not path.is_file():
            raise MissingInputError(f"expected a detector, received {path} (no such file); run `cxr train_regions`")
        return cls(load_network(path), metadata or ModelMetadata.read(folder))

    def predict(self, images: Mapping[str, NDArray[np.uint8]]) -> pd.DataFrame:
        """Draw the boxes that count.

        Args:
            images: name of each image, for the table, to the decoded image, ``(height, width)`` uint8, 0 black to 255
                white, of any size.

        Returns:
            One row per box with :data:`cxr.regions.matching.PREDICTION_COLUMNS` in pixels of the image, by image and
            falling score.

        Raises:
            MissingInputError: if the detector is not evaluated: it has no threshold and no box scale.
        """
        sizes = pd.DataFrame([(name, *image.shape) for name, image in images.items()],
                             columns=["path", "height", "width"])  # fmt: skip
        prepared = [apply_recipe(self.recipe, image) for image in images.values()]
        return self.predict_prepared(sizes, prepared, batch_size=1 << max(len(prepared) - 1, 0).bit_length())

    def predict_prepared(
        self, sizes: pd.DataFrame, prepared: Sequence[NDArray[np.uint8]], *, batch_size: int
    ) -> pd.DataFrame:
        """Draw the boxes that count in images that are prepared already.

        Args:
            sizes: one row per image with its path, each another, and height and width of the original in pixels.
            prepared: the images as the recipe gives them, ``(size, size, planes)`` uint8, in the same order.
            batch_size: images per network call.

        Returns:
            The boxes, as :meth:`predict` returns them.

        Raises:
            MissingInputError: if the detector is not evaluated: it has no threshold and no box scale.
        """
        threshold, scale = self.metadata.threshold, self._detector.box_scale
        if threshold is None or scale is None:
            raise MissingInputError(
                f"expected a detector with threshold and box scale, received model={self.metadata.model} without; run "
                "`cxr evaluate_regions`, and use the metadata of the evaluation"
            )
        if not prepared:
            return detection_table([], [])
        proposed = self._to_originals(sizes, self.propose(np.stack(prepared), batch_size=batch_size))
        scaled = scale_boxes(sizes, proposed[proposed["score"] >= threshold], scale)
        return scaled[(scaled["width"] > 0) & (scaled["height"] > 0)].reset_index(drop=True)

    def propose(self, images: NDArray[np.uint8], *, batch_size: int) -> list[DetectedBoxes]:
        """Propose boxes, also those with low scores.

        Args:
            images: prepared images ``(n, size, size, planes)``, uint8, as the recipe gives them.
            batch_size: images per network call.

        Returns:
            The boxes of each image in pixels of the prepared image.

        Raises:
            DataError: if an output is not finite; without this check such a detector would find nothing, silently.
        """
        detections: list[DetectedBoxes] = []
        for batch, count in network_batches(images, self.recipe, batch_size):
            outputs = self._network.predict_on_batch(batch)
            arrays = {name: np.asarray(values)[:count] for name, values in outputs.items()}
            if not all(np.isfinite(values).all() for values in arrays.values()):
                raise DataError(
                    f"expected finite outputs of the detector, received some that are not from "
                    f"model={self.metadata.model}; train it again"
                )
            detections += decode_outputs(arrays, self._anchors, self.recipe.size, self._detector)
        return detections

    def propose_in_originals(self, prepared: PreparedImages, images: pd.DataFrame, *, batch_size: int) -> pd.DataFrame:
        """Propose boxes in prepared images and move them to the originals.

        Args:
            prepared: prepared images.
            images: the images, with path, height and width of the original in pixels.
            batch_size: images per network call.

        Returns:
            One row per box with :data:`cxr.regions.matching.PREDICTION_COLUMNS`, by image and falling score, not
            scaled and also with low scores.
        """
        rows = prepared.rows(images["path"])
        detections: list[DetectedBoxes] = []
        with tqdm(total=len(rows), desc="boxes", unit="image", disable=None) as bar:
            for start in range(0, len(rows), batch_size):
                chunk = rows[start : start + batch_size]
                detections += self.propose(prepared.images[chunk], batch_size=batch_size)
                bar.update(len(chunk))
        return self._to_originals(images, detections)

    def _to_originals(self, images: pd.DataFrame, detections: Sequence[DetectedBoxes]) -> pd.DataFrame:
        moved = []
        sizes = zip(images["height"].tolist(), images["width"].tolist(), strict=True)
        for (height, width), image in zip(sizes, detections, strict=True):
            placed = to_original(image.boxes, self.recipe, height, width)
            moved.append(DetectedBoxes(placed.boxes, image.scores[placed.index]))
        return detection_table(images["path"].tolist(), moved)


def anchors_version(side: int) -> str:
    """Name the anchors of an image, and what deltas from them mean.

    Args:
        side: side of the square image, pixels.

    Returns:
        16 hex digits of the SHA-256 of the anchors and the scales of the deltas: others give another name.
    """
    return hashlib.sha256(make_anchors(side).tobytes() + DELTA_SCALES.tobytes()).hexdigest()[:16]


def decode_outputs(
    outputs: Mapping[str, NDArray[np.float32]], anchors: Boxes, side: int, detector: DetectorMetadata
) -> list[DetectedBoxes]:
    """Decode the outputs of a detector as its metadata says, see :func:`cxr.regions.suppression.detect_boxes`."""
    return detect_boxes(
        outputs, anchors, side, min_score=detector.min_score, max_overlap=detector.max_overlap,
        max_boxes=detector.max_boxes,
    )  # fmt: skip


def box_table(paths: Sequence[str], boxes: Sequence[Boxes]) -> pd.DataFrame:
    """Write the boxes of images as a table.

    Args:
        paths: the images.
        boxes: :data:`cxr.data.boxes.Boxes` of each image.

    Returns:
        One row per box with :data:`cxr.regions.matching.BOX_COLUMNS`, in the order of images and boxes.
    """
    rows = np.concatenate([np.empty((0, 4), np.float32), *map(to_rows, boxes)]).astype(np.float64)
    table = pd.DataFrame(rows, columns=BOX_COLUMNS[1:])
    table.insert(0, "path", np.repeat(np.array(paths, dtype=object), [len(image_boxes) for image_boxes in boxes]))
    return table


def detection_table(paths: Sequence[str], detections: Sequence[DetectedBoxes]) -> pd.DataFrame:
    """Write the boxes that a detector proposes as a table.

    Args:
        paths: the images.
        detections: the boxes of each image.

    Returns:
        One row per box with :data:`cxr.regions.matching.PREDICTION_COLUMNS`, by image and falling score.
    """
    scores = np.concatenate([np.empty(0, np.float32), *(image.scores for image in detections)])
    return box_table(paths, [image.boxes for image in detections]).assign(score=scores.astype(np.float64))
