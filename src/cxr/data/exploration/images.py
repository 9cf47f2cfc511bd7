"""Pictures of the exploration report: thumbnails, sample sheets, average images, duplicates side by side."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.images.decoding import decode_grey, read_bytes

SIDE = 208
"""Longest side of a thumbnail, in pixels: sharp on a phone, about 6 KB."""

_QUALITY = 82
_AVERAGE_SIDE = 160


@dataclass(frozen=True)
class Picture:
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
class Sheet:
    """A row of thumbnails under one heading.

    Attributes:
        title: heading.
        pictures: the thumbnails.
        note: what to look at, or ``""``.
    """

    title: str
    pictures: tuple[Picture, ...]
    note: str = ""


def load(data: Path, path: str, max_pixels: int) -> NDArray[np.uint8]:
    """Read an accepted image as grey.

    Args:
        data: the data folder.
        path: file inside it.
        max_pixels: largest number of pixels to decode.

    Returns:
        uint8 ``(height, width)``.
    """
    return decode_grey(read_bytes(data / path), max_pixels=max_pixels, scale_16_bit=True)


def picture(grey: NDArray[np.uint8], path: str, caption: str) -> Picture:
    """Make a thumbnail.

    Args:
        grey: uint8 ``(height, width)``.
        path: file it shows.
        caption: text below it.

    Returns:
        The thumbnail, its longest side at most :data:`SIDE` pixels.
    """
    height, width = grey.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    _, coded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    source = f"data:image/jpeg;base64,{base64.b64encode(coded.tobytes()).decode('ascii')}"
    return Picture(source, size[0], size[1], caption, path)


def samples(images: pd.DataFrame, data: Path, *, max_pixels: int, count: int = 12, seed: int = 0) -> tuple[Sheet, ...]:
    """Show some images of each subtype, each of another patient.

    Args:
        images: accepted images.
        data: the data folder.
        max_pixels: largest number of pixels to decode.
        count: images per sheet.
        seed: seed of the choice.

    Returns:
        One sheet per class and subtype.
    """
    sheets = []
    for (label, subtype), found in images.groupby(["label", "subtype"], sort=True):
        chosen = found.sample(frac=1, random_state=seed).drop_duplicates("patient").head(count)
        title = str(label) if subtype == "normal" else f"{label}, {subtype}"
        note = f"{len(chosen)} of {len(found):,} images, each of another patient"
        sheets.append(Sheet(title, _pictures(chosen, data, max_pixels), note))
    return tuple(sheets)


def averages(
    images: pd.DataFrame, data: Path, *, max_pixels: int, count: int = 150, seed: int = 0
) -> tuple[Picture, ...]:
    """Average images of each class: what differs here can be seen without looking at any single lung.

    Args:
        images: accepted images.
        data: the data folder.
        max_pixels: largest number of pixels to decode.
        count: images per class that are averaged.
        seed: seed of the choice.

    Returns:
        One picture per class, stretched to the full range of grey levels.
    """
    found = []
    for label, members in images.groupby("label", sort=True):
        chosen = members.sample(min(count, len(members)), random_state=seed)
        total = np.zeros((_AVERAGE_SIDE, _AVERAGE_SIDE), dtype=np.float64)
        for path in chosen["path"]:
            grey = load(data, path, max_pixels)
            total += cv2.resize(grey, (_AVERAGE_SIDE, _AVERAGE_SIDE), interpolation=cv2.INTER_AREA)
        stretched = cv2.normalize(total, np.zeros_like(total), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        found.append(picture(stretched, f"average of {label}", f"{label}: average of {len(chosen)} images"))
    return tuple(found)


def duplicates(images: pd.DataFrame, data: Path, *, max_pixels: int, groups: int = 12) -> tuple[Sheet, ...]:
    """Show pictures that occur more than once side by side, the worst groups first.

    Args:
        images: accepted images.
        data: the data folder.
        max_pixels: largest number of pixels to decode.
        groups: largest number of groups of each kind (same bytes, same look).

    Returns:
        One sheet per group: those with both labels first, then those of several official splits or patients.
    """
    repeated = images[images["duplicate_group"].fillna("") != ""]
    facts = repeated.groupby("duplicate_group").agg(
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
    sheets = []
    for group, fact in shown.iterrows():
        members = repeated[repeated["duplicate_group"] == group].head(6)
        remarks = [
            text
            for column, text in (
                ("labels", "both labels"),
                ("splits", "two official splits"),
                ("patients", "two patients"),
            )
            if fact[column] > 1
        ]
        title = "Same bytes" if fact["same_bytes"] else "Same look"
        sheets.append(Sheet(title, _pictures(members, data, max_pixels), ", ".join(remarks)))
    return tuple(sheets)


def odd_modes(images: pd.DataFrame, data: Path, *, max_pixels: int, count: int = 6) -> tuple[Sheet, ...]:
    """Show files with coloured pixels or stored in another pixel mode than most.

    Args:
        images: accepted images.
        data: the data folder.
        max_pixels: largest number of pixels to decode.
        count: images per sheet.

    Returns:
        One sheet per pixel mode other than the usual one, and one for coloured pixels; shown as they are
        read: in grey.
    """
    sheets = []
    usual = images["mode"].mode().iloc[0] if len(images) else ""
    coloured = images[~images["grey"].fillna(True).astype(bool)]
    for mode, found in images[images["mode"] != usual].groupby("mode"):
        sheets.append(_odd_sheet(f"Stored as {mode}, most are {usual}", found, data, max_pixels, count))
    if len(coloured):
        sheets.append(_odd_sheet("Coloured pixels", coloured, data, max_pixels, count))
    return tuple(sheets)


def _odd_sheet(title: str, found: pd.DataFrame, data: Path, max_pixels: int, count: int) -> Sheet:
    classes = ", ".join(f"{number:,} {label}" for label, number in found["label"].value_counts().items())
    return Sheet(title, _pictures(found.head(count), data, max_pixels), classes)


def _pictures(rows: pd.DataFrame, data: Path, max_pixels: int) -> tuple[Picture, ...]:
    """Make a thumbnail of each row, captioned with patient and official split."""
    return tuple(
        picture(load(data, path, max_pixels), path, f"{patient}, {split}" if split else str(patient))
        for path, patient, split in zip(rows["path"], rows["patient"], rows["official_split"], strict=True)
    )
