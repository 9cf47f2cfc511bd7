"""Measures what the checks look at: how many rows break a rule, and which.

Each check reads the columns of its values when it is looked at, and only its outcome stays in memory. All columns, or
all values, of ten million files would need several gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.checks.rules import Check
from cxr.data.dataset import CLASSES, PNEUMONIA
from cxr.data.grouping import count_different, count_rows

Column = Callable[[str], "pd.Series[Any]"]
"""Reads a column of a manifest: one row per file."""

Values = NDArray[Any]
"""``(rows,)``: bool, or float64 with NaN for an unknown number, which breaks no rule."""


@dataclass(frozen=True)
class Measurement:
    """What was measured for a check.

    Attributes:
        value: number of rows, mean of the values, or number of rows that break the rule.
        rows: number of all rows that count.
        paths: names of the rows that break the rule, or for ``left_out`` of the files that are left out, sorted.
    """

    value: float
    rows: int
    paths: tuple[str, ...] = field(default=(), repr=False)


class FileValues:
    """The values of the checks for the files of a manifest.

    Args:
        column: reads a column of the manifest; see :data:`cxr.data.manifest.builder.MANIFEST_DTYPES`.
    """

    def __init__(self, column: Column) -> None:
        self.accepted: NDArray[np.bool_] = (column("status") == "accepted").to_numpy(dtype=bool)
        self.column = column

    def measure(self, check: Check) -> Measurement:
        """Measure a check of all files, or of the accepted images."""
        counted = np.ones_like(self.accepted) if check.table == "files" else self.accepted
        values = self.accepted if check.measure == "rows" else self.values(check.name)
        measurement = measure_values(check, values, counted, lambda: self.column("path"))
        if check.name != "left_out":
            return measurement
        return replace(measurement, paths=tuple(sorted(self.column("path")[~self.accepted])))

    def values(self, name: str) -> Values:
        """Compute the values of a check, one per file."""
        return _VALUES[name](self)

    def sides(self) -> NDArray[np.float64]:
        """Width and height of each file, ``(rows, 2)``."""
        sides = [self.column(name).to_numpy(np.float64, na_value=np.nan) for name in ("width", "height")]
        return np.column_stack(sides)

    def numbers(self, name: str) -> NDArray[np.int64]:
        """Numbers in place of texts, -1 for none: to group by texts takes a gigabyte for a few million files."""
        texts = self.column(name)
        return pd.factorize(texts.mask(texts == ""))[0].astype(np.int64, copy=False)

    def is_one_of(self, name: str, texts: tuple[str, ...] | list[str]) -> NDArray[np.bool_]:
        """Which files have one of these texts in a column."""
        return self.column(name).isin(texts).to_numpy(dtype=bool)

    @cached_property
    def image(self) -> NDArray[np.int64]:
        """Number of the image that a file shows: one for all its copies."""
        group = self.numbers("duplicate_group")
        return np.where(group < 0, len(group) + np.arange(len(group)), group)

    def of_accepted(self, counts: pd.arrays.IntegerArray, group: NDArray[np.int64]) -> NDArray[np.float64]:
        """Counts in groups, where an accepted file is in the group."""
        known = count_rows(group, self.accepted).to_numpy(dtype=np.int64, na_value=0) > 0
        return np.where(known, counts.to_numpy(dtype=np.float64, na_value=np.nan), np.nan)

    def different_in_image(self, name: str) -> NDArray[np.float64]:
        """How many different texts of a column the accepted files of an image have."""
        different = count_different(self.image, np.where(self.accepted, self.numbers(name), -1))
        return self.of_accepted(different, self.image)

    def near_files(self) -> NDArray[np.float64]:
        """How many accepted files show the image of a file; 1 for an image without a group."""
        group = self.numbers("near_group")
        return np.where(group < 0, 1.0, self.of_accepted(count_rows(group, self.accepted), group))

    def patients_are_apart(self) -> NDArray[np.bool_]:
        """Whether the patient of a file is not both in the official test set and elsewhere."""
        patient = self.numbers("patient")
        in_test, elsewhere = (
            patient[self.accepted & (patient >= 0) & self.is_one_of("official_split", names)]
            for names in (["test"], ["train", "val"])
        )
        return ~np.isin(patient, np.intersect1d(in_test, elsewhere))


def measure_values(
    check: Check, values: Values, counted: NDArray[np.bool_], names: Callable[[], pd.Series[Any]]
) -> Measurement:
    """Measure a check of given values.

    Args:
        check: the check.
        values: ``(rows,)``: bool, or numbers with NaN for unknown ones.
        counted: bool ``(rows,)``, which rows count.
        names: reads the names of the rows; called if a row breaks the rule.

    Returns:
        The measurement; its value is NaN if no row counts.
    """
    rows = int(counted.sum())
    if not rows:
        return Measurement(float("nan"), 0)
    if check.measure == "rows":
        return Measurement(rows, rows)
    if check.measure == "mean":
        return Measurement(float(values[counted].mean(dtype=np.float64)), rows)
    is_broken = np.zeros(len(values), dtype=bool)
    if check.low is not None:
        is_broken |= values < check.low
    if check.high is not None:
        is_broken |= values > check.high
    is_broken &= counted
    broken = int(is_broken.sum())
    return Measurement(broken, rows, tuple(sorted(names()[is_broken])) if broken else ())


def _usual_modes(files: FileValues) -> list[str]:
    """The most frequent pixel mode of accepted images.

    Files of rarer modes break the rule: the published set stores 283 files in colour, all of them PNEUMONIA.
    """
    return files.column("mode")[files.accepted].mode()[:1].tolist()


_VALUES: Mapping[str, Callable[[FileValues], Values]] = {
    "refused": lambda files: ~files.is_one_of("status", ["refused"]),
    "decodable": lambda files: files.column("readable").to_numpy(dtype=bool),
    "known_class": lambda files: files.is_one_of("label", CLASSES),
    "known_name": lambda files: files.column("patient").notna().to_numpy(dtype=bool),
    "shortest_side": lambda files: files.sides().min(axis=1),
    "megapixels": lambda files: files.sides().prod(axis=1) / 1e6,
    "aspect": lambda files: files.sides().max(axis=1) / files.sides().min(axis=1),
    "left_out": lambda files: ~files.accepted,
    "labelled": lambda files: files.is_one_of("label", CLASSES),
    "pneumonia_share": lambda files: files.is_one_of("label", [PNEUMONIA]),
    "grey_content": lambda files: files.column("grey").fillna(True).to_numpy(dtype=bool),
    "usual_modality": lambda files: ~files.is_one_of("problem", ["other_modality"]),
    "usual_mode": lambda files: files.is_one_of("mode", _usual_modes(files)),
    "copies": lambda files: files.column("copies").to_numpy(np.float64, na_value=np.nan),
    "lookalikes": FileValues.near_files,
    "labels_of_picture": lambda files: files.different_in_image("label"),
    "splits_of_picture": lambda files: files.different_in_image("official_split"),
    "splits_of_patient": lambda files: files.column("splits_of_patient").to_numpy(np.float64, na_value=np.nan),
    "test_patients": FileValues.patients_are_apart,
}
"""Name of a check to what computes its values."""
