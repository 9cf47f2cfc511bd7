"""The rules that a data set must satisfy, and the columns of the manifest that they look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from cxr.data.dataset import CLASSES, PNEUMONIA, DatasetCard

Severity = Literal["critical", "warning", "off"]
Table = Literal["files", "images", "drift"]


@dataclass(frozen=True)
class Bounds:
    """Limits that checks compare with.

    Attributes:
        max_megapixels: largest image, in millions of pixels.
        min_side: shortest allowed side, in pixels.
        max_aspect: largest ratio of the longer to the shorter side.
        min_pneumonia_share: smallest share of PNEUMONIA among accepted images, 0..1.
        max_pneumonia_share: largest share of PNEUMONIA among accepted images, 0..1.
        max_quarantined_share: largest share of files left out, 0..1.
    """

    max_megapixels: float = 50.0
    min_side: int = 64
    max_aspect: float = 4.0
    min_pneumonia_share: float = 0.1
    max_pneumonia_share: float = 0.9
    max_quarantined_share: float = 0.05


@dataclass(frozen=True)
class Check:
    """One rule about a data set.

    Attributes:
        name: key of the rule in ``params.yaml``.
        title: the rule as a sentence.
        expects: what is expected, in words, with limits.
        table: rows it is about: every file, the accepted images, or the statistics of drift.
        severity: what happens by default when it is broken: ``critical`` stops the pipeline.
        expectation: class name in ``great_expectations.expectations``.
        arguments: arguments of the expectation.
    """

    name: str
    title: str
    expects: str
    table: Table
    severity: Severity
    expectation: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check.

    Attributes:
        name: key of the check.
        title: the rule as a sentence.
        severity: ``"critical"``, ``"warning"`` or ``"off"``.
        passed: whether the rule holds; None if it was not run.
        observed: what was found.
        expected: what was expected.
        paths: offending files, relative to the data folder (offending statistics, for drift).
    """

    name: str
    title: str
    severity: Severity
    passed: bool | None
    observed: str
    expected: str
    paths: tuple[str, ...] = field(default=(), repr=False)

    @property
    def stops(self) -> bool:
        """Whether this outcome stops the pipeline."""
        return self.passed is False and self.severity == "critical"

    @property
    def outcome(self) -> str:
        """The outcome in one word: passed, failed, warning or not run."""
        if self.passed is None:
            return "not run"
        if self.passed:
            return "passed"
        return "failed" if self.stops else "warning"


def all_checks(bounds: Bounds | None = None, card: DatasetCard | None = None) -> tuple[Check, ...]:
    """List every rule, with its limits filled in.

    Args:
        bounds: limits of sizes and shares.
        card: card of the data set, whose image count the files must match when it is known.

    Returns:
        The checks, in the order of the report.
    """
    return _file_checks(bounds or Bounds(), card) + _image_checks(bounds or Bounds()) + (_DRIFT,)


def _file_checks(limits: Bounds, card: DatasetCard | None) -> tuple[Check, ...]:
    known = card is not None and card.images > 0
    count = card.images if card is not None and known else None
    return (
        Check(
            "complete",
            "The data card's number of files is there",
            f"{count} files" if known else "at least 1 file",
            "files",
            "warning",
            "ExpectTableRowCountToBeBetween",
            {"min_value": count or 1, "max_value": count},
        ),
        _true("refused", "No file has a problem that the policy refuses", "no such file", "files", "critical"),
        _true("decodable", "Every file can be read as an image", "readable files", "files"),
        _true(
            "known_class",
            "Every file is in the folder of a class",
            f"folders {' and '.join(CLASSES)}",
            "files",
        ),
        _true("known_name", "Every file tells its patient", "a patient per file", "files"),
        _between("shortest_side", "No image is too small", "files", "pixels", low=limits.min_side),
        _between("megapixels", "No image is too large", "files", "megapixels", high=limits.max_megapixels),
        _between("aspect", "No image is a narrow strip", "files", "times the shorter side", high=limits.max_aspect),
        _share("left_out", "Few files are left out", "files", 0.0, limits.max_quarantined_share),
    )


def _image_checks(limits: Bounds) -> tuple[Check, ...]:
    low, high = limits.min_pneumonia_share, limits.max_pneumonia_share
    return (
        _true("labelled", "Every image has a label", " or ".join(CLASSES), "images", "critical"),
        _share("pneumonia_share", "Both classes are well represented", "images", low, high),
        _true("grey_content", "Every image is grey", "no coloured pixels", "images"),
        _true("usual_mode", "All images are stored in one pixel mode", "the most frequent mode", "images"),
        _between("copies", "No file is there twice, byte for byte", "images", "copy", high=1),
        _between("lookalikes", "No two files show the same picture", "images", "file per picture", high=1),
        _between("labels_of_picture", "No picture has both labels", "images", "label", "critical", high=1),
        _between("splits_of_picture", "No picture is in two official splits", "images", "split", high=1),
        _between("splits_of_patient", "No patient is in two official splits", "images", "split", high=1),
        _true(
            "test_patients",
            "No patient of the official test is trained on",
            "patients of test in no other split",
            "images",
            "critical",
        ),
    )


def check_table(manifest: pd.DataFrame) -> pd.DataFrame:
    """Derive the columns that the checks look at, one named like each check, from a manifest.

    Args:
        manifest: one row per file; see :func:`cxr.data.manifest.builder.build_manifest`.

    Returns:
        One row per file: ``path``, ``accepted`` and a column per check; unknown numbers are NaN, which no
        check counts.
    """
    accepted = manifest["status"] == "accepted"
    sides = manifest[["width", "height"]].astype(float)
    longest, shortest = sides.max(axis=1, skipna=False), sides.min(axis=1, skipna=False)
    modes = manifest.loc[accepted, "mode"].mode()
    near = manifest["near_group"].fillna("")
    group = manifest["duplicate_group"].fillna("")
    picture = group.where(group != "", manifest["path"])
    of_picture = manifest[accepted].groupby(picture[accepted])
    split = manifest["official_split"].where(manifest["official_split"] != "")
    in_test = set(manifest.loc[accepted & (split == "test"), "patient"].dropna())
    elsewhere = set(manifest.loc[accepted & split.isin(["train", "val"]), "patient"].dropna())
    return pd.DataFrame(
        {
            "path": manifest["path"].astype(object),
            "accepted": accepted.astype(bool),
            "refused": (manifest["status"] != "refused").astype(bool),
            "decodable": manifest["readable"].astype(bool),
            "known_class": manifest["label"].isin(CLASSES).astype(bool),
            "known_name": manifest["patient"].notna(),
            "shortest_side": shortest,
            "megapixels": sides["width"] * sides["height"] / 1e6,
            "aspect": longest / shortest,
            "left_out": (~accepted).astype(float),
            "labelled": manifest["label"].isin(CLASSES).astype(bool),
            "pneumonia_share": (manifest["label"] == PNEUMONIA).fillna(False).astype(float),
            "grey_content": manifest["grey"].fillna(True).astype(bool),
            # The rarer mode is listed: the published set stores 283 files in colour, all of them PNEUMONIA.
            "usual_mode": manifest["mode"].isin(modes[:1]).astype(bool),
            "copies": manifest["copies"].astype(float),
            "lookalikes": near.map(near[accepted].value_counts()).where(near != "", 1).astype(float),
            "labels_of_picture": picture.map(of_picture["label"].nunique()).astype(float),
            "splits_of_picture": picture.map(split[accepted].groupby(picture[accepted]).nunique()).astype(float),
            "splits_of_patient": manifest["splits_of_patient"].astype(float),
            "test_patients": ~manifest["patient"].isin(in_test & elsewhere).astype(bool),
        }
    )


def _true(name: str, title: str, expects: str, table: Table, severity: Severity = "warning") -> Check:
    """Every row has True in the column of the check's name."""
    arguments = {"column": name, "value_set": [True]}
    return Check(name, title, expects, table, severity, "ExpectColumnValuesToBeInSet", arguments)


def _between(
    name: str,
    title: str,
    table: Table,
    unit: str,
    severity: Severity = "warning",
    *,
    low: float | None = None,
    high: float | None = None,
) -> Check:
    """Every row has a number between the limits, or none, in the column of the check's name."""
    arguments = {"column": name, "min_value": low, "max_value": high}
    expects = f"at least {low:g} {unit}" if high is None else f"at most {high:g} {unit}"
    return Check(name, title, expects, table, severity, "ExpectColumnValuesToBeBetween", arguments)


def _share(name: str, title: str, table: Table, low: float, high: float) -> Check:
    """The mean of the column of the check's name is between the limits."""
    arguments = {"column": name, "min_value": low, "max_value": high}
    expects = f"a share of {low:g} to {high:g}" if low else f"a share of at most {high:g}"
    return Check(name, title, expects, table, "critical", "ExpectColumnMeanToBeBetween", arguments)


_DRIFT = _true("drift", "The data look like the last accepted set", "distances within their limits", "drift")
