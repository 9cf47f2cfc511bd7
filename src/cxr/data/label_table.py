"""Labels of images from elsewhere: by class folders, or by a table whose words are mapped to the two classes.

NIH's table has a row per image with all its findings (``Pneumonia|Infiltration``), covid-chestxray's a finding that
becomes more precise from left to right (``Pneumonia/Viral/COVID-19``). An image is PNEUMONIA if one of its findings is,
and NORMAL only if all of them are. A finding that the mapping does not name is unknown, and stays unknown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from cxr.data.dataset import CLASSES, NORMAL, PNEUMONIA
from cxr.data.manifest.patients import is_kermany_name, parse_kermany_name
from cxr.errors import ParameterError
from cxr.files import printable_name
from cxr.storage.contents import shorten_list

KNOWN_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "Image Index", "filename"),
    "label": ("label", "Finding Labels", "finding"),
    "patient": ("patient", "Patient ID", "patientid"),
}
"""Role of a column to its names: this project's own, NIH's, and covid-chestxray's."""
SEPARATOR, REFINEMENT = "|", "/"
"""Between findings of one image, and between a finding and what makes it more precise."""
NO_WORD = "(empty)"
"""Stands for an empty cell where the words of unknown images are counted."""


@dataclass(frozen=True)
class LabelledImage:
    """An image whose class is known.

    Attributes:
        path: its path in the source.
        label: ``"NORMAL"`` or ``"PNEUMONIA"``.
        patient: key of the patient; None if unknown.
        subtype: ``"normal"``, ``"bacteria"`` or ``"virus"``; None if unknown.
    """

    path: str
    label: str
    patient: str | None = None
    subtype: str | None = None


@dataclass(frozen=True)
class ImageLabels:
    """Which images of a source can be judged, and how many cannot.

    Attributes:
        images: images of a known class, in the order of the source.
        unknown: words of rows that the mapping does not name to the number of images that are left out for them.
        without_label: images of the source that have no row, or lie outside of the class folders.
        other_rows: column to the number of rows that are left out because of their value there.
        missing: rows of a known class whose image is not in the source.
        repeated_rows: rows about an image that an earlier row is about; the image counts once.
        cells: each column of :attr:`LabelReading.slices` that the table has, to the paths of images and their values.
    """

    images: tuple[LabelledImage, ...]
    unknown: Mapping[str, int]
    without_label: int
    other_rows: Mapping[str, int]
    missing: int = 0
    repeated_rows: int = 0
    cells: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each class."""
        labels = Counter(image.label for image in self.images)
        return {label: labels[label] for label in CLASSES}

    def expect_both_classes(self) -> None:
        """Check that there are images of each class.

        Raises:
            ParameterError: if all images are of one class.
        """
        if absent := [label for label, count in self.counts.items() if not count]:
            received = ", ".join(f"{label}={count}" for label, count in self.counts.items())
            raise ParameterError(
                [
                    f"expected images of both classes, received {received}; add images of {' and '.join(absent)}, or "
                    "set one_class=true to learn the sensitivity or the specificity alone"
                ]
            )


@dataclass(frozen=True)
class LabelReading:
    """How a table of labels is read.

    Attributes:
        path_column: column with the path or name of the image; None for one of :data:`KNOWN_COLUMNS`.
        label_column: column with its findings; None likewise.
        patient_column: column with its patient; None likewise, and a table without one has no patients.
        words: word to class; None for a word that is known to be neither. Upper and lower case are the same.
        only: column to the values of the rows that count; empty for all rows.
        accept_missing: whether rows without an image are left out instead of refused.
        slices: further columns to read; a table may lack them.
    """

    path_column: str | None
    label_column: str | None
    patient_column: str | None
    words: Mapping[str, str | None]
    only: Mapping[str, Sequence[str]]
    accept_missing: bool
    slices: Sequence[str]

    def label_of(self, cell: str) -> str | None:
        """Read the class of an image from its findings.

        Args:
            cell: findings, separated by ``|``.

        Returns:
            ``"PNEUMONIA"`` if one of them is, ``"NORMAL"`` if all are; None if the class is unknown.
        """
        return _join_labels({self._label_of_word(word) for word in cell.split(SEPARATOR)})

    def _label_of_word(self, word: str) -> str | None:
        """The class of a finding; the longest word of the mapping that it begins with decides."""
        known = {_fold(name): label for name, label in self.words.items()}
        parts = [part.strip() for part in _fold(word).split(REFINEMENT)]
        candidates = (REFINEMENT.join(parts[:count]) for count in range(len(parts), 0, -1))
        return next((known[candidate] for candidate in candidates if candidate in known), None)


def labels_of_folders(paths: Sequence[str], patients: Mapping[str, str] | None = None) -> ImageLabels:
    """Label images by the folder that they lie in, in any spelling of ``NORMAL`` and ``PNEUMONIA``.

    Args:
        paths: images of a source.
        patients: path to patient, as a table beside the class folders says it; None reads the patient from file names
            in the style of the Kermany set.

    Returns:
        The labels.

    Raises:
        ParameterError: if no image lies in such a folder.
    """
    images = []
    for path in paths:
        label = PurePosixPath(path).parent.name.upper()
        if label in CLASSES:
            patient, subtype = _facts_of_name(PurePosixPath(path).name, label)
            images.append(LabelledImage(path, label, patient if patients is None else patients.get(path), subtype))
    if not images:
        raise ParameterError(
            [f"expected images in folders {' and '.join(CLASSES)}, received {len(paths):,} images elsewhere: "
             f"{shorten_list(paths)}; name the folders like that, or give a table of labels (--labels labels.csv)"]
        )  # fmt: skip
    return ImageLabels(tuple(images), {}, len(paths) - len(images), {})


def labels_of_table(table: Path, paths: Sequence[str], reading: LabelReading) -> ImageLabels:
    """Label images by a table.

    Args:
        table: CSV file with a row per image, or several rows that agree.
        paths: images of the source. A row may name an image by its path, by the end of it, or by a longer path.
        reading: which columns are read, and what their words mean.

    Returns:
        The labels.

    Raises:
        ParameterError: if the table cannot be read or lacks columns, or if rows contradict each other, name no image or
            name several, or if no image has a known class (all problems are listed).
    """
    rows, other_rows = _read_rows(table, reading)
    lookup = _PathLookup(paths)
    labels: dict[str, set[str | None]] = defaultdict(set)
    patients: dict[str, set[str]] = defaultdict(set)
    words: dict[str, str] = {}
    cells: dict[str, dict[str, set[str]]] = {column: defaultdict(set) for column in rows.columns[len(KNOWN_COLUMNS) :]}
    about = Counter[str]()
    missing: list[str] = []
    ambiguous: list[str] = []
    for name, cell, patient, *further in rows.itertuples(index=False, name=None):
        label, matches = reading.label_of(cell), lookup.matches(name)
        if len(matches) != 1:
            if label is not None:  # a row of an unknown class is left out anyway
                (ambiguous if matches else missing).append(name)
            continue
        path = matches[0]
        about[path] += 1
        labels[path].add(label)
        if label is None:
            words.setdefault(path, cell or NO_WORD)
        if patient:
            patients[path].add(patient)
        for column, value in zip(cells, further, strict=True):
            if value:
                cells[column][path].add(value)
    known = {path: _join_labels(values) for path, values in labels.items()}
    problems = {
        f"with rows that contradict each other ({NORMAL} and {PNEUMONIA}) for": [
            path for path, values in labels.items() if {NORMAL, PNEUMONIA} <= values
        ],
        "with several patients for": [path for path, values in patients.items() if len(values) > 1],
        **{
            f"with several values of {column} for": [path for path, texts in values.items() if len(texts) > 1]
            for column, values in cells.items()
        },
        "with names of several images": ambiguous,
        "with rows for images that are not there": [] if reading.accept_missing else missing,
    }
    remedies = (*["correct these rows"] * (2 + len(cells)), "give more of their paths",
                "give all images, remove these rows, or leave them out with --accept_missing true")  # fmt: skip
    errors = [
        f"expected rows that agree, one image for each, received labels={table.name} {problem} "
        f"{len(names):,}: {shorten_list(names)}; {remedy}"
        for (problem, names), remedy in zip(problems.items(), remedies, strict=True)
        if names
    ]
    unknown = Counter(words[path] for path, label in known.items() if label is None)
    if not errors and not any(known.values()):
        errors = [
            f"expected words of {', '.join(map(repr, reading.words)) or 'a mapping'}, received labels={table.name} "
            f"with {shorten_list([word for word, _ in unknown.most_common()]) or 'no rows'}; name their class: "
            f"--words '{{WORD: {NORMAL}, OTHER: {PNEUMONIA}}}'"
        ]
    if errors:
        raise ParameterError(errors)
    images = tuple(
        LabelledImage(
            path, label, next(iter(patients.get(path, ())), None), _facts_of_name(PurePosixPath(path).name, label)[1]
        )
        for path in paths
        if (label := known.get(path)) is not None
    )
    values = {column: {path: next(iter(texts)) for path, texts in cells[column].items()} for column in cells}
    return ImageLabels(
        images, dict(unknown.most_common()), len(paths) - len(known), other_rows, len(missing),
        about.total() - len(about), values,
    )  # fmt: skip


def _read_rows(table: Path, reading: LabelReading) -> tuple[pd.DataFrame, dict[str, int]]:
    """Read path, label, patient and further columns of the rows that count, stripped, and count the other rows."""
    try:
        cells = pd.read_csv(table, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ParameterError(
            [f"expected a table of labels as CSV in UTF-8, received labels={table} ({reason}); correct the file"]
        ) from error
    header = [str(column) for column in cells.columns]
    named = {"path": reading.path_column, "label": reading.label_column, "patient": reading.patient_column}
    columns = {role: _find_column(role, name, header) for role, name in named.items()}
    missing = [
        f"a column for the {role} ({name or ' or '.join(KNOWN_COLUMNS[role])}), which --{role}_column NAME can name"
        for role, name in named.items()
        if columns[role] is None and (role != "patient" or name is not None)
    ]
    missing += [f"the column {name} of only" for name in reading.only if name not in header]
    problems = [f"expected {column}, received labels={table.name} with {', '.join(header)}" for column in missing]
    problems += [
        f"expected slices that patients share, received slices={column}, the column of the {role}; name another one"
        for role, column in columns.items()
        if role != "label" and column in reading.slices
    ]
    if problems:
        raise ParameterError(problems)
    other_rows: dict[str, int] = {}
    for column, values in reading.only.items():
        counts = cells[column].map(_fold).isin([_fold(value) for value in values])
        other_rows[column] = int((~counts).sum())
        cells = cells[counts]
    rows = {role: cells[column].str.strip() if column else "" for role, column in columns.items()}
    further = cells[[column for column in reading.slices if column in header]].map(str.strip)
    return pd.concat([pd.DataFrame(rows, index=cells.index), further], axis=1), other_rows


def _find_column(role: str, name: str | None, columns: Sequence[str]) -> str | None:
    """The column of a role: the one with its name, or else the first known one; None if there is none."""
    names = (name,) if name is not None else KNOWN_COLUMNS[role]
    by_folded = {_fold(column): column for column in reversed(columns)}
    return next((by_folded[_fold(candidate)] for candidate in names if _fold(candidate) in by_folded), None)


class _PathLookup:
    """Finds the images of a source that the name in a row can mean."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = frozenset(paths)
        self._by_name: dict[str, list[PurePosixPath]] = defaultdict(list)
        for path in map(PurePosixPath, paths):
            self._by_name[path.name].append(path)

    def matches(self, name: str) -> list[str]:
        """The image of that path; else those whose path is the end of the name, or has it as its end."""
        row_path = PurePosixPath(name.replace("\\", "/"))
        if str(row_path) in self._paths:
            return [str(row_path)]
        return [str(path) for path in self._by_name.get(row_path.name, ()) if _share_end(path, row_path)]


def _share_end(first: PurePosixPath, second: PurePosixPath) -> bool:
    return all(part == other for part, other in _parts_from_end(first, second))


def _parts_from_end(first: PurePosixPath, second: PurePosixPath) -> Iterator[tuple[str, str]]:
    """Pairs of parts from the last on, as long as both paths have one; a leading slash is no part."""
    return zip(*(reversed([part for part in path.parts if part != "/"]) for path in (first, second)), strict=False)


def _join_labels(labels: set[str | None]) -> str | None:
    """The class of an image by all its findings."""
    return PNEUMONIA if PNEUMONIA in labels else NORMAL if labels == {NORMAL} else None


def _facts_of_name(name: str, label: str) -> tuple[str | None, str | None]:
    """Patient and subtype in a file name of the Kermany style; None for what it does not say."""
    subtype = "normal" if label == NORMAL else None
    if not is_kermany_name(name):
        return None, subtype
    facts = parse_kermany_name(name)
    return facts.patient, facts.subtype if facts.label == label else subtype


def _fold(text: str) -> str:
    return text.strip().casefold()


def describe_unknown(unknown: Mapping[str, int], limit: int = 10) -> str:
    """Say which words were unknown, the most frequent first.

    Args:
        unknown: word to number of images.
        limit: largest number of words that are spelled out.

    Returns:
        For example ``"Effusion (12), Mass (3) and 4 more"``.
    """
    words = [f"{printable_name(word)} ({count:,})" for word, count in list(unknown.items())[:limit]]
    further = len(unknown) - len(words)
    return ", ".join(words) + (f" and {further:,} more" if further else "")
