"""The RSNA Pneumonia Detection Challenge of 2018: radiographs of NIH in DICOM, with boxes around lung opacities.

A source has this format if it holds ``stage_2_train_labels.csv`` and files ``<patientId>.dcm`` (or with another ending
of DICOM, or none) in any folder. Images with Target 1 are ``PNEUMONIA``. ``NORMAL`` means here that there is no opacity
that suggests pneumonia: many of these images show something else. ``stage_2_detailed_class_info.csv`` says which; where
it is part of the source, its classes become subtypes.

A patientId names one image. NIH's set has several images of many patients, and only RSNA's table of names in both sets
(``pneumonia-challenge-dataset-mappings_2018.json``) says which they are. Without it a patient can be in two splits.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cxr.data.boxes import AnnotatedImage, BoxAnnotations, to_corners
from cxr.data.dataset import CLASSES, NORMAL, PNEUMONIA, DatasetCard
from cxr.data.fetching.layout import SourceLayout
from cxr.data.fetching.rsna_tables import (
    CLASSES_FILE,
    LABELS_FILE,
    MAPPING_FILE,
    parse_classes,
    parse_labels,
    parse_mapping,
)
from cxr.data.image_files import NOT_DICOM, SYSTEM_FILE, UNLABELLED, is_system_file
from cxr.errors import ImageError, SourceError
from cxr.files import PATIENTS_FILE
from cxr.images.dicom.reader import read_dicom_header
from cxr.images.file_types import FORMAT_SUFFIXES
from cxr.images.headers import ImageHeader
from cxr.images.raw_images import RawImages
from cxr.images.reading_options import STRICT
from cxr.storage.contents import SourceContents, SourceFile, shorten_list

NAME = "rsna-pneumonia"
LICENCE = (
    "RSNA's terms of use; cite Shih et al. 2019, doi 10.1148/ryai.2019180041 (boxes), and Wang et al. 2017, "
    "arXiv:1705.02315 (images of the NIH Clinical Center)"
)
_SUFFIX = ".dcm"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RsnaImage:
    """What the tables say about one image.

    Attributes:
        boxes: float64 ``(boxes, 4)``: x, y, width, height in stored pixels.
        patient: key of the patient.
        subtype: class of the image; None without the table of classes.
    """

    boxes: NDArray[np.float64]
    patient: str
    subtype: str | None


@dataclass(frozen=True)
class RsnaSet:
    """A source in the format of the challenge.

    Attributes:
        layout: which of its files are copied, and under which names.
        images: path in the data folder to what the tables say about the image.
    """

    layout: SourceLayout
    images: Mapping[PurePosixPath, RsnaImage]

    @property
    def card(self) -> DatasetCard:
        """Card of the challenge's set, without counts and source."""
        return DatasetCard(NAME, "patients", "", 0, 0, LICENCE)

    def write_side_files(self, raw: RawImages) -> None:
        """Write boxes and table of patients into the data folder.

        Args:
            raw: the images of the data folder.

        Raises:
            SourceError: if a box is not inside of its image (all are listed).
        """
        annotations: dict[str, AnnotatedImage] = {}
        boxes_outside: list[str] = []
        for path, image in self.images.items():
            rows = image.boxes
            header = _read_header(raw, path) if len(rows) else None
            if header is not None:
                far_sides = (header.width, header.height)
                is_outside = ((rows[:, :2] < 0) | (rows[:, :2] + rows[:, 2:] > far_sides)).any(axis=1)
                size = f"{header.width}x{header.height}"
                boxes_outside += [f"{path.stem}: {row} in {size}" for row in rows[is_outside].tolist()]
                rows = rows * np.tile(header.enlargement[::-1], 2)
            annotations[str(path)] = AnnotatedImage(to_corners(rows), None, image.subtype)
        if boxes_outside:
            raise SourceError(
                f"expected every box inside of its image, received {LABELS_FILE} with {len(boxes_outside):,} others "
                f"(patientId: [x, y, width, height] in width x height): {shorten_list(boxes_outside)}; correct the rows"
            )
        BoxAnnotations(annotations).write(raw.folder)
        with (raw.folder / PATIENTS_FILE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["path", "patient"])
            writer.writerows([str(path), self.images[path].patient] for path in sorted(self.images))
        log.info("patients are in %s: set validate.naming to any", PATIENTS_FILE)


def read_rsna_set(contents: SourceContents, *, accept_missing_images: bool, remedy: str) -> RsnaSet | None:
    """Read the tables of a source in the format of the challenge, and find the image of each row.

    Args:
        contents: files of the source.
        accept_missing_images: whether rows without an image are left out.
        remedy: what to do about a partial copy.

    Returns:
        The set; None if the source has no table of labels.

    Raises:
        SourceError: if a table or an image is there twice, a table is wrong or contradicts itself (all rows are
            listed), rows have no image, or a class has none.
    """
    tables = _find_tables(contents)
    if LABELS_FILE not in tables:
        return None
    content = {
        file.path.name: b"".join(pieces) for file, pieces in contents.read([file.path for file in tables.values()])
    }
    boxes = parse_labels(content[LABELS_FILE], contents.name)
    subtypes = parse_classes(content[CLASSES_FILE], contents.name) if CLASSES_FILE in content else {}
    files, ignored = _find_images(contents, boxes.keys())
    ignored[NOT_DICOM] = [path for path in ignored[NOT_DICOM] if path not in {f.path for f in tables.values()}]
    _check_completeness(boxes.keys() - files.keys(), len(boxes), contents.name, accept_missing_images, remedy)
    patients = parse_mapping(content[MAPPING_FILE], files, contents.name) if MAPPING_FILE in content else {}
    if not patients:
        log.warning(
            "%s: without %s each image counts as a patient, so that images of one person can be in two splits",
            contents.name,
            MAPPING_FILE,
        )
    targets: dict[PurePosixPath, PurePosixPath] = {}
    images: dict[PurePosixPath, RsnaImage] = {}
    for key, file in files.items():
        target = PurePosixPath(PNEUMONIA if len(boxes[key]) else NORMAL, file.path.name)
        targets[file.path] = target
        images[target] = RsnaImage(boxes[key], patients.get(key, key), subtypes.get(key))
    counts = Counter(target.parts[0] for target in images)
    if missing := [label for label in CLASSES if not counts[label]]:
        raise SourceError(
            f"expected images with Target 0 and with Target 1, received source={contents.name} without "
            f"{' and '.join(missing)}; {remedy}"
        )
    layout = SourceLayout(
        root=tables[LABELS_FILE].path.parent,
        images=targets,
        side={},
        counts={("", label): count for label, count in counts.items()},
        bytes=sum(file.bytes for file in files.values()),
        ignored={reason: tuple(paths) for reason, paths in ignored.items() if paths},
    )
    return RsnaSet(layout, images)


def _find_tables(contents: SourceContents) -> dict[str, SourceFile]:
    tables: dict[str, SourceFile] = {}
    for file in contents.entries:
        name = file.path.name
        if name not in (LABELS_FILE, CLASSES_FILE, MAPPING_FILE) or is_system_file(file.path):
            continue
        if name in tables:
            raise SourceError(
                f"expected {name} once, received source={contents.name} with {str(tables[name].path)!r} and "
                f"{str(file.path)!r}; remove one of them"
            )
        tables[name] = file
    return tables


def _find_images(
    contents: SourceContents, keys: Collection[str]
) -> tuple[dict[str, SourceFile], dict[str, list[PurePosixPath]]]:
    """Return patientId to its image, sorted, and the files that are left out."""
    files: dict[str, SourceFile] = {}
    ignored: dict[str, list[PurePosixPath]] = defaultdict(list)
    for file in contents.entries:
        key, suffix = file.path.stem, file.path.suffix.lower()
        if is_system_file(file.path):
            ignored[SYSTEM_FILE].append(file.path)
        elif suffix not in FORMAT_SUFFIXES["DICOM"] and (suffix or key not in keys):
            ignored[NOT_DICOM].append(file.path)
        elif key not in keys:
            ignored[UNLABELLED].append(file.path)
        elif key in files:
            raise SourceError(
                f"expected each image once, received source={contents.name} with {str(files[key].path)!r} and "
                f"{str(file.path)!r}; remove one of them"
            )
        else:
            files[key] = file
    return dict(sorted(files.items())), ignored


def _check_completeness(missing: set[str], patients: int, source_name: str, accept_missing: bool, remedy: str) -> None:
    if not missing:
        return
    names = shorten_list([f"{key}{_SUFFIX}" for key in sorted(missing)])
    if not accept_missing:
        raise SourceError(
            f"expected an image for each of the {patients:,} patientIds in {LABELS_FILE}, received source="
            f"{source_name} without {len(missing):,} of them: {names}; {remedy}; for a part of the set on purpose set "
            "fetch.expect to any in params.yaml, or pass --expect any"
        )
    log.warning("%s: left out the rows of %s patientIds without an image: %s", source_name, f"{len(missing):,}", names)


def _read_header(raw: RawImages, path: PurePosixPath) -> ImageHeader | None:
    """Header of an image; None for one that cannot be read, which ``validate`` will leave out."""
    try:
        return read_dicom_header(raw.read(str(path)), STRICT)
    except ImageError:
        return None
