"""Thumbnails of the exploration report: samples of each class, average images, duplicates side by side."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.images.decoding import decode_grey
from cxr.images.raw_images import RawImages
from cxr.images.reading_options import VALIDATED

MAX_THUMBNAIL_SIDE = 208
"""Longest side of a thumbnail, in pixels: sharp on a phone, about 6 KB."""

CAPTION_COLUMNS = ("path", "patient", "official_split")
"""Columns of a manifest that a thumbnail is made and captioned from."""

_QUALITY = 82
_AVERAGE_SIDE = 160


@dataclass(frozen=True)
class Thumbnail:
    """One thumbnail with its caption.

    Attributes:
        source: ``data:`` address of the JPEG.
        width: pixels.
        height: pixels.
        caption: short text below it.
        path: file it shows, relative to the data folder (also the text for screen readers).
    """

    source: str
    width: int
    height: int
    caption: str
    path: str


@dataclass(frozen=True)
class ThumbnailRow:
    """A row of thumbnails under one heading.

    Attributes:
        title: heading.
        images: the thumbnails.
        note: remark beside the heading, or ``""``.
    """

    title: str
    images: tuple[Thumbnail, ...]
    note: str = ""


def read_grey(raw: RawImages, path: str, max_pixels: int) -> NDArray[np.uint8]:
    """Read an accepted image as grey.

    Args:
        raw: the raw images.
        path: name of one of them.
        max_pixels: largest number of pixels to decode.

    Returns:
        uint8 ``(height, width)``.
    """
    return decode_grey(raw.read(path), replace(VALIDATED, max_pixels=max_pixels))


def make_thumbnail(grey: NDArray[np.uint8], path: str, caption: str) -> Thumbnail:
    """Make a thumbnail.

    Args:
        grey: uint8 ``(height, width)``.
        path: file it shows.
        caption: text below it.

    Returns:
        The thumbnail, its longest side at most :data:`MAX_THUMBNAIL_SIDE` pixels.
    """
    height, width = grey.shape
    scale = min(1.0, MAX_THUMBNAIL_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode('ascii')}"
    return Thumbnail(source, size[0], size[1], caption, path)


def sample_images(
    images: pd.DataFrame, raw: RawImages, *, max_pixels: int, count: int = 12, seed: int
) -> tuple[ThumbnailRow, ...]:
    """Show some images of each subtype, each of another patient.

    Args:
        images: accepted images.
        raw: the raw images.
        max_pixels: largest number of pixels to decode.
        count: images per row.
        seed: seed of the choice.

    Returns:
        One row per class and subtype.
    """
    rows = []
    patients = pd.factorize(images["patient"])[0]
    for (label, subtype), members in _rows_of_groups(images, ["label", "subtype"]):
        shuffled = pd.Series(members).sample(frac=1, random_state=seed).to_numpy()
        _, first_of_patient = np.unique(patients[shuffled], return_index=True)
        chosen = images.iloc[shuffled[np.sort(first_of_patient)[:count]]]
        title = str(label) if subtype == "normal" else f"{label}, {subtype}"
        note = f"{len(chosen)} of {len(members):,} images, each of another patient"
        rows.append(ThumbnailRow(title, _make_thumbnails(chosen, raw, max_pixels), note))
    return tuple(rows)


def average_images(
    images: pd.DataFrame, raw: RawImages, *, max_pixels: int, count: int = 150, seed: int
) -> tuple[Thumbnail, ...]:
    """Average images of each class: a difference between the averages is visible without looking at any lung.

    Args:
        images: accepted images.
        raw: the raw images.
        max_pixels: largest number of pixels to decode.
        count: images per class that are averaged.
        seed: seed of the choice.

    Returns:
        One average per class, stretched to the full range of grey levels.
    """
    averages = []
    for label, members in _rows_of_groups(images, "label"):
        chosen = images["path"].iloc[pd.Series(members).sample(min(count, len(members)), random_state=seed)]
        total = np.zeros((_AVERAGE_SIDE, _AVERAGE_SIDE), dtype=np.float64)
        for path in chosen:
            grey = read_grey(raw, path, max_pixels)
            total += cv2.resize(grey, (_AVERAGE_SIDE, _AVERAGE_SIDE), interpolation=cv2.INTER_AREA)
        stretched = cv2.normalize(total, np.zeros_like(total), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        caption = f"{label}: average of {len(chosen)} images"
        averages.append(make_thumbnail(stretched, f"average of {label}", caption))
    return tuple(averages)


def show_duplicates(
    images: pd.DataFrame, raw: RawImages, *, max_pixels: int, groups: int = 12
) -> tuple[ThumbnailRow, ...]:
    """Show images that occur more than once side by side, the worst groups first.

    Args:
        images: accepted images in groups of duplicates.
        raw: the raw images.
        max_pixels: largest number of pixels to decode.
        groups: largest number of groups of each kind (same bytes, same look).

    Returns:
        One row per group: those with both labels first, then those of several official splits or patients.
    """
    facts = images.groupby("duplicate_group").agg(
        labels=("label", "nunique"),
        splits=("official_split", "nunique"),
        patients=("patient", "nunique"),
        contents=("sha256", "nunique"),
        size=("path", "size"),
    )
    facts = facts[facts["size"] > 1]
    facts["same_bytes"] = facts["contents"] == 1
    worst_first = facts.sort_values(["labels", "splits", "patients"], ascending=False, kind="stable")
    shown = worst_first.groupby("same_bytes", sort=False).head(groups)
    remarks = {"labels": "both labels", "splits": "two official splits", "patients": "two patients"}
    rows = []
    for group, fact in shown.iterrows():
        members = images[images["duplicate_group"] == group].head(6)
        title = "Same bytes" if fact["same_bytes"] else "Same look"
        note = ", ".join(remark for column, remark in remarks.items() if fact[column] > 1)
        rows.append(ThumbnailRow(title, _make_thumbnails(members, raw, max_pixels), note))
    return tuple(rows)


def show_unusual_modes(
    images: pd.DataFrame, raw: RawImages, *, max_pixels: int, count: int = 6
) -> tuple[ThumbnailRow, ...]:
    """Show files with coloured pixels, and files stored in another pixel mode than most.

    Args:
        images: accepted images.
        raw: the raw images.
        max_pixels: largest number of pixels to decode.
        count: images per row.

    Returns:
        One row per pixel mode other than the usual one, and one for coloured pixels; shown as they are
        read: in grey.
    """
    usual = images["mode"].mode().iloc[0] if len(images) else ""
    unusual = images[images["mode"] != usual].groupby("mode")
    groups = [(f"Stored as {mode}, most are {usual}", members) for mode, members in unusual]
    coloured = images[~images["grey"].fillna(True).astype(bool)]
    if len(coloured):
        groups.append(("Coloured pixels", coloured))
    rows = []
    for title, members in groups:
        classes = ", ".join(f"{number:,} {label}" for label, number in members["label"].value_counts().items())
        rows.append(ThumbnailRow(title, _make_thumbnails(members.head(count), raw, max_pixels), classes))
    return tuple(rows)


def _rows_of_groups(images: pd.DataFrame, columns: str | list[str]) -> list[tuple[Any, NDArray[np.int64]]]:
    """Positions of the rows of each group, in the order of the groups; a copy of each group takes much memory."""
    rows: Any = images.groupby(columns).indices
    return sorted(rows.items())


def _make_thumbnails(rows: pd.DataFrame, raw: RawImages, max_pixels: int) -> tuple[Thumbnail, ...]:
    """Make a thumbnail of each row, captioned with patient and official split."""
    return tuple(
        make_thumbnail(read_grey(raw, path, max_pixels), path, f"{patient}, {split}" if split else str(patient))
        for path, patient, split in zip(rows["path"], rows["patient"], rows["official_split"], strict=True)
    )
