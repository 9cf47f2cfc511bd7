"""The images that a detector is judged on, as tables: joined with their opacities, checked, and divided into strata."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.boxes import BoxAnnotations, to_rows
from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.data.split_table import TEST, VALIDATION
from cxr.errors import DataError
from cxr.regions.matching import BOX_COLUMNS, PREDICTION_COLUMNS

IMAGE_COLUMNS = ["path", "group", "label", "subtype", "difficulty", "split", "height", "width"]
"""Columns of the table of images: one row per image; difficulty is NaN where it is unknown, sizes are in pixels."""

ALL, WITH_PNEUMONIA = "all", "pneumonia"
DIFFICULTIES = {"easy": (0.0, 1 / 3), "moderate": (1 / 3, 2 / 3), "hard": (2 / 3, 1.0)}
"""Strata of the difficulty: above the first number (and 0 itself) up to the second."""


def image_tables(
    splits: pd.DataFrame, manifest: pd.DataFrame, annotations: BoxAnnotations
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join a split with the annotations of its images.

    Args:
        splits: assignment with the columns path, group, label, subtype and split.
        manifest: one row per file with the columns path, height and width of the original in pixels.
        annotations: the annotated opacities.

    Returns:
        The images with :data:`IMAGE_COLUMNS`, and their opacities with
        :data:`cxr.regions.matching.BOX_COLUMNS`.

    Raises:
        DataError: if an image is not annotated.
    """
    paths = splits["path"].tolist()
    annotated = annotations.select(paths)
    images = splits[["path", "group", "label", "subtype", "split"]].reset_index(drop=True)
    difficulty = [np.nan if image.difficulty is None else image.difficulty for image in annotated]
    sizes = manifest.set_index("path").loc[paths, ["height", "width"]].reset_index(drop=True)
    images = images.assign(difficulty=difficulty, height=sizes["height"], width=sizes["width"])
    rows = np.concatenate([to_rows(image.boxes) for image in annotated]) if annotated else np.empty((0, 4))
    boxes = pd.DataFrame(rows.astype(np.float64), columns=BOX_COLUMNS[1:])
    boxes.insert(0, "path", np.repeat(np.array(paths, dtype=object), [len(image.boxes) for image in annotated]))
    return images[IMAGE_COLUMNS], boxes


def check_tables(
    images: pd.DataFrame, boxes: pd.DataFrame, predictions: Mapping[str, pd.DataFrame]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Check tables, and leave out what is not validation or test.

    Args:
        images: the images.
        boxes: their opacities.
        predictions: what a table of predicted boxes is, for errors, to the table.

    Returns:
        Images and opacities of validation and test.

    Raises:
        DataError: if a column, a split, the opacities of a split or a class is missing, or an image stands twice.
    """
    tables = [("the images", images, IMAGE_COLUMNS), ("the boxes", boxes, BOX_COLUMNS)]
    tables += [(what, table, PREDICTION_COLUMNS) for what, table in predictions.items()]
    for what, table, columns in tables:
        missing = [name for name in columns if name not in table]
        if missing:
            raise DataError(
                f"expected {what} with columns {', '.join(columns)}, received none of {', '.join(missing)}; "
                "run the step again that writes them"
            )
    images = images[images["split"].isin((VALIDATION, TEST))].reset_index(drop=True)
    boxes = boxes[boxes["path"].isin(images["path"])].reset_index(drop=True)
    repeated = images["path"][images["path"].duplicated()].tolist()
    if repeated:
        raise DataError(
            f"expected each image once, received {len(repeated)} twice: {', '.join(repeated[:10])}; "
            "run `cxr resplit` again"
        )
    for split in (VALIDATION, TEST):
        part = images[images["split"] == split]
        if not set(part["label"]) >= {NORMAL, PNEUMONIA} or not boxes["path"].isin(part["path"]).any():
            raise DataError(
                f"expected both classes and opacities in {split}, received {len(part)} images with labels="
                f"{sorted(part['label'].unique())} and {int(boxes['path'].isin(part['path']).sum())} boxes; "
                "choose a data set with boxes, or another split"
            )
    return images, boxes


def divide_into_strata(images: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Divide images by subtype and difficulty.

    Args:
        images: the images with :data:`IMAGE_COLUMNS`.

    Returns:
        Name of the stratum to (images,), whether an image belongs to it: :data:`ALL`, :data:`WITH_PNEUMONIA`, the
        subtypes of pneumonia, and :data:`DIFFICULTIES`; without empty ones.
    """
    is_pneumonia = (images["label"] == PNEUMONIA).to_numpy()
    subtype, difficulty = images["subtype"].to_numpy(dtype=object), images["difficulty"].to_numpy(dtype=np.float64)
    strata = {ALL: np.ones(len(images), dtype=bool), WITH_PNEUMONIA: is_pneumonia}
    for name in images["subtype"][is_pneumonia].dropna().unique():
        strata[str(name)] = is_pneumonia & (subtype == name)
    for name, (low, high) in DIFFICULTIES.items():
        strata[name] = is_pneumonia & ((difficulty > low) | ((low == 0) & (difficulty == 0))) & (difficulty <= high)
    return {name: members for name, members in strata.items() if members.any()}
