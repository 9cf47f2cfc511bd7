"""The rules that a data set must satisfy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cxr.data.dataset import CLASSES, DatasetCard

Severity = Literal["critical", "warning", "off"]
CheckTable = Literal["files", "images", "drift"]
Measure = Literal["rows", "mean", "broken"]


@dataclass(frozen=True)
class CheckBounds:
    """Limits that checks compare with.

    Attributes:
        max_megapixels: largest image, in millions of pixels.
        min_side: shortest allowed side, in pixels.
        max_aspect: largest ratio of the longer to the shorter side.
        min_pneumonia_share: smallest share of PNEUMONIA among accepted images, 0..1.
        max_pneumonia_share: largest share of PNEUMONIA among accepted images, 0..1.
        max_quarantined_share: largest share of files left out, 0..1.
    """

    max_megapixels: float
    min_side: int
    max_aspect: float
    min_pneumonia_share: float
    max_pneumonia_share: float
    max_quarantined_share: float


@dataclass(frozen=True)
class Check:
    """One rule about a data set.

    Attributes:
        name: key of the rule in ``params.yaml``.
        title: the rule as a sentence.
        expects: what is expected, in words, with limits.
        table: rows that are checked: every file, the accepted images, or the statistics of drift.
        severity: default severity of a violation: ``critical`` stops the pipeline.
        measure: what must be between the limits: the number of rows, the mean of the values, or the value of every row;
            of these, the rows that break the rule are counted.
        low: lower limit; None if there is none. True counts as 1.
        high: upper limit; None if there is none.
    """

    name: str
    title: str
    expects: str
    table: CheckTable
    severity: Severity
    measure: Measure
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check.

    Attributes:
        name: key of the check.
        title: the rule as a sentence.
        severity: ``"critical"``, ``"warning"`` or ``"off"``.
        passed: whether the rule holds; None if it was not run.
        observed: what was observed, in words.
        expected: what was expected, in words.
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


def list_checks(bounds: CheckBounds, card: DatasetCard | None) -> tuple[Check, ...]:
    """List every rule, with its limits filled in.

    Args:
        bounds: limits of sizes and shares.
        card: card of the data set; its number of images, if known, must be that of the files.

    Returns:
        The checks, in the order of the report.
    """
    return _file_checks(bounds, card) + _image_checks(bounds) + (_DRIFT,)


def _file_checks(bounds: CheckBounds, card: DatasetCard | None) -> tuple[Check, ...]:
    count = card.images if card is not None and card.images > 0 else None
    return (
        Check(
            "complete",
            "The number of files is that of the dataset card",
            f"{count} files" if count else "at least 1 file",
            "files",
            "warning",
            "rows",
            low=count or 1,
            high=count,
        ),
        _all_true("refused", "No file has a problem that the policy refuses", "no such file", "files", "critical"),
        _all_true("decodable", "Every file can be read as an image", "readable files", "files"),
        _all_true(
            "known_class",
            "Every file is in the folder of a class",
            f"folders {' and '.join(CLASSES)}",
            "files",
        ),
        _all_true("known_name", "The patient of every file is known", "a patient per file", "files"),
        _all_between("shortest_side", "No image is too small", "files", "pixels", low=bounds.min_side),
        _all_between("megapixels", "No image is too large", "files", "megapixels", high=bounds.max_megapixels),
        _all_between("aspect", "No image is a narrow strip", "files", "times the shorter side", high=bounds.max_aspect),
        _mean_between("left_out", "Few files are left out", "files", 0.0, bounds.max_quarantined_share),
    )


def _image_checks(bounds: CheckBounds) -> tuple[Check, ...]:
    low, high = bounds.min_pneumonia_share, bounds.max_pneumonia_share
    return (
        _all_true("labelled", "Every image has a label", " or ".join(CLASSES), "images", "critical"),
        _mean_between("pneumonia_share", "Both classes are well represented", "images", low, high),
        _all_true("grey_content", "Every image is grey", "no coloured pixels", "images"),
        _all_true(
            "usual_modality", "Every DICOM file has a modality of radiography", "a value of the standard", "images"
        ),
        _all_true("usual_mode", "All images are stored in one pixel mode", "the most frequent mode", "images"),
        _all_between("copies", "No file occurs twice, byte for byte", "images", "copy", high=1),
        _all_between("lookalikes", "No two files show the same image", "images", "file per image", high=1),
        _all_between("labels_of_picture", "No image has both labels", "images", "label", "critical", high=1),
        _all_between("splits_of_picture", "No image is in two official splits", "images", "split", high=1),
        _all_between("splits_of_patient", "No patient is in two official splits", "images", "split", high=1),
        _all_true(
            "test_patients",
            "No patient of the official test set is in another split",
            "patients of the test set in no other split",
            "images",
            "critical",
        ),
    )


def _all_true(name: str, title: str, expects: str, table: CheckTable, severity: Severity = "warning") -> Check:
    """Demand that the value of every row is True."""
    return Check(name, title, expects, table, severity, "broken", low=1, high=None)


def _all_between(
    name: str,
    title: str,
    table: CheckTable,
    unit: str,
    severity: Severity = "warning",
    *,
    low: float | None = None,
    high: float | None = None,
) -> Check:
    """Demand that the value of every row is between the limits, or unknown."""
    expects = f"at least {low:g} {unit}" if high is None else f"at most {high:g} {unit}"
    return Check(name, title, expects, table, severity, "broken", low, high)


def _mean_between(name: str, title: str, table: CheckTable, low: float, high: float) -> Check:
    """Demand that the mean of the values is between the limits."""
    expects = f"a share of {low:g} to {high:g}" if low else f"a share of at most {high:g}"
    return Check(name, title, expects, table, "critical", "mean", low, high)


_DRIFT = _all_true("drift", "The data look like the last accepted data set", "distances within their limits", "drift")
