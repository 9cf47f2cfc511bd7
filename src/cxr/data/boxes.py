"""The boxes of opacities in the images of a data folder, read from its ``boxes.json``.

In files and tables a box is a row x, y, width, height; in arrays it is left, top, right, bottom, where right and bottom
are the first column and row behind it. Both are in pixels of the original, that is, of the image as
:func:`cxr.images.decoding.decode_grey` returns it, before any recipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.errors import DataError, MissingInputError
from cxr.files import BOXES_FILE, write_text
from cxr.storage.contents import shorten_list

Boxes = NDArray[np.float32]
"""float32 ``(boxes, 4)``: left, top, right, bottom in pixels."""


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """What is known about the opacities of one image.

    Attributes:
        boxes: :data:`Boxes` in pixels of the original; ``(0, 4)`` for an image without opacities.
        difficulty: 0 (easy to see) to 1 (subtle); None if it has no opacity or the source does not say it.
        subtype: kind of the image, for example ``"bacteria"``; None if the source does not say it.
    """

    boxes: Boxes
    difficulty: float | None
    subtype: str | None


@dataclass(frozen=True)
class BoxAnnotations:
    """The annotated images of a data folder; an image that is not among them was not looked at.

    Attributes:
        images: path relative to the data folder (posix) to its annotation, sorted by path; also images without boxes.
    """

    images: Mapping[str, AnnotatedImage]

    def select(self, paths: Sequence[str]) -> list[AnnotatedImage]:
        """Return the annotations of some images.

        Args:
            paths: paths relative to the data folder.

        Returns:
            One annotation per path, in the same order.

        Raises:
            DataError: if an image is not annotated: that is not the same as an image without opacities.
        """
        missing = [path for path in paths if path not in self.images]
        if missing:
            raise DataError(
                f"expected every image in {BOXES_FILE}, also those without boxes, received {len(missing):,} images "
                f"that are not there: {shorten_list(missing)}; add them or leave these images out"
            )
        return [self.images[path] for path in paths]

    def write(self, data: Path) -> None:
        """Write the annotations into a data folder, one image per line.

        Args:
            data: the data folder.
        """
        lines = ",\n".join(
            f"{json.dumps(path)}: {json.dumps(_to_entry(image))}" for path, image in sorted(self.images.items())
        )
        write_text(data / BOXES_FILE, f"{{\n{lines}\n}}\n")


def read_boxes(data: Path) -> BoxAnnotations:
    """Read the annotations of a data folder.

    Args:
        data: the data folder. Its ``boxes.json`` maps the path of each annotated image to ``boxes``, a list of rows
            ``[x, y, width, height]``, and, where they are known, ``difficulty`` and ``subtype``.

    Returns:
        The annotations.

    Raises:
        MissingInputError: if the folder has no such file, as for data sets without boxes.
        DataError: if the file cannot be read, or an annotation is wrong (all are listed).
    """
    path = data / BOXES_FILE
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingInputError(
            f"expected a data set with the boxes of its opacities, received data={data} without {BOXES_FILE}; "
            "fetch one that has them: the phantoms, or the RSNA Pneumonia Detection Challenge"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"expected JSON with one entry per image, received {path}: {error}; correct it, or run "
            "`cxr fetch --refresh true`"
        ) from error
    images: dict[str, AnnotatedImage] = {}
    problems: list[str] = []
    for name, entry in sorted(entries.items()) if isinstance(entries, dict) else [("the file", entries)]:
        try:
            images[name] = _from_entry(entry)
        except (TypeError, ValueError) as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise DataError(
            "expected for each image boxes with rows [x, y, width, height] that have an area, and difficulty in "
            f"[0, 1] and subtype where they are known, received {path} with {len(problems):,} wrong entries: "
            f"{shorten_list(problems)}; correct them"
        )
    return BoxAnnotations(images)


def to_corners(rows: ArrayLike) -> Boxes:
    """Convert rows of a table to corners.

    Args:
        rows: ``(boxes, 4)``: x, y, width, height; an empty list gives no boxes.

    Returns:
        The :data:`Boxes`.
    """
    table = np.asarray(rows, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([table[:, :2], table[:, :2] + table[:, 2:]], axis=1).astype(np.float32)


def to_rows(boxes: Boxes) -> NDArray[np.float32]:
    """Convert corners to rows of a table.

    Args:
        boxes: the :data:`Boxes`.

    Returns:
        float32 ``(boxes, 4)``: x, y, width, height.
    """
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _from_entry(entry: Any) -> AnnotatedImage:
    """Check one entry of the file and convert it; ValueError or TypeError says what is wrong."""
    if not isinstance(entry, dict) or not isinstance(entry.get("boxes"), list):
        raise ValueError("expected an object with a list named boxes")
    rows = entry["boxes"]
    if not all(isinstance(row, list) and len(row) == 4 for row in rows):
        raise ValueError(f"received boxes={rows}")
    boxes = to_corners(rows)
    is_box = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if not is_box.all():
        raise ValueError(f"received boxes={rows}")
    difficulty, subtype = entry.get("difficulty"), entry.get("subtype")
    if difficulty is not None and not 0 <= float(difficulty) <= 1:
        raise ValueError(f"received difficulty={difficulty}")
    if subtype is not None and not isinstance(subtype, str):
        raise ValueError(f"received subtype={subtype}")
    return AnnotatedImage(boxes, None if difficulty is None else float(difficulty), subtype)


def _to_entry(image: AnnotatedImage) -> dict[str, object]:
    rows = [[int(value) if value.is_integer() else value for value in row] for row in to_rows(image.boxes).tolist()]
    return {"subtype": image.subtype, "difficulty": image.difficulty, "boxes": rows}
