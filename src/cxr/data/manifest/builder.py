"""The manifest: one row per file of a data folder, with everything that later steps decide on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.data.dataset import CLASSES, NORMAL, OFFICIAL_SPLITS, SUBTYPES
from cxr.data.manifest.duplicates import NEAR_CORRELATION, NEAR_DISTANCE, near_pairs, unite
from cxr.data.manifest.listing import list_files, place
from cxr.data.manifest.patients import ImageName, Patient, parse_name, read_patients
from cxr.errors import DataError, ImageError, ParameterError, SourceError
from cxr.files import MANIFEST_FILE, PATIENTS_FILE
from cxr.images.decoding import SOFT, TRAINING_PROBLEMS, ImageFacts, Limits, decode_grey, inspect, read_bytes

Action = Literal["accept", "quarantine", "refuse"]
Naming = Literal["kermany", "any"]

ACTIONS: tuple[Action, ...] = ("accept", "quarantine", "refuse")
"""What can be done with a file that has a problem, the strictest last."""

STATUSES: dict[Action, str] = {"accept": "accepted", "quarantine": "quarantined", "refuse": "refused"}
"""Status of a file by action: a quarantined file is left out, a refused one stops the pipeline."""


DTYPES: dict[str, str] = {
    "path": "string",
    "sha256": "string",
    "bytes": "Int64",
    "label": "string",
    "subtype": "string",
    "series": "string",
    "patient": "string",
    "official_split": "string",
    "width": "Int64",
    "height": "Int64",
    "mode": "string",
    "bit_depth": "Int64",
    "grey": "boolean",
    "readable": "bool",
    "problem": "string",
    "detail": "string",
    "status": "string",
    "mean": "float64",
    "std": "float64",
    "phash": "string",
    "copies": "Int64",
    "labels_of_hash": "Int64",
    "near_group": "string",
    "duplicate_group": "string",
    "labels_of_group": "Int64",
    "splits_of_patient": "Int64",
}
"""Columns of the manifest and their types: unknown text and numbers are missing values, never 0."""


def default_policy() -> dict[str, Action]:
    """What happens to a file with each kind of problem unless said otherwise.

    Returns:
        Problem to action: coloured images are taken (they are read as grey), all others left out.
    """
    return {problem: "accept" if problem == "colour" else "quarantine" for problem in TRAINING_PROBLEMS}


def build_manifest(
    data: Path,
    *,
    limits: Limits | None = None,
    naming: Naming = "kermany",
    policy: Mapping[str, Action] | None = None,
    near_distance: int = NEAR_DISTANCE,
    near_correlation: float = NEAR_CORRELATION,
    workers: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Look at every file of a data folder and list what was found.

    The folder holds ``train``, ``val`` and ``test`` with the class folders in each, or the class folders
    directly. Each thread holds one image at a time; what is kept of an image are its row and, if its hash is
    near another one's, a thumbnail of 8 KiB.

    Args:
        data: the data folder.
        limits: bounds on what is taken as a radiograph; None for the defaults.
        naming: ``"kermany"`` reads label, subtype and patient from the file name; ``"any"`` takes the patient
            from ``patients.csv`` in the data folder, or else the file name without its ending as the patient.
        policy: action per problem where it differs from :func:`default_policy`; only the problems of
            :data:`cxr.images.decoding.SOFT` can be accepted.
        near_distance: bits of 64 in which the perceptual hashes of near duplicates may differ.
        near_correlation: smallest correlation of the fine structure of near duplicates.
        workers: threads; None for one per core.
        progress: whether to show a progress bar on stderr.

    Returns:
        One row per file, sorted by path, with the columns of :data:`DTYPES`.

    Raises:
        ParameterError: if the policy or the naming is wrong (all problems listed).
        SourceError: if the folder is missing or holds no image.
        DataError: if ``patients.csv`` is wrong.
    """
    limits = limits or Limits()
    actions = _full_policy(policy or {}, naming)
    if not data.is_dir():
        raise SourceError(f"expected a data folder, received data={data}; run `cxr fetch`")
    table = data / PATIENTS_FILE
    patients = read_patients(table) if naming == "any" and table.exists() else None
    names = list_files(data)
    if not names:
        folders = " and ".join(CLASSES)
        raise SourceError(f"expected images in folders {folders}, received data={data} without any; run `cxr fetch`")
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        facts = pool.map(lambda name: inspect(data / name, limits), names)
        shown = tqdm(facts, total=len(names), desc="images", unit="image", disable=None if progress else True)
        rows = [_row(name, fact, naming, patients, actions) for name, fact in zip(names, shown, strict=True)]
    finally:
        pool.shutdown(cancel_futures=True)
    frame = pd.DataFrame(rows).astype({name: DTYPES[name] for name in rows[0]})

    def load(position: int) -> NDArray[np.uint8]:
        content = read_bytes(data / names[position])
        return decode_grey(content, max_pixels=limits.max_pixels, scale_16_bit=True)

    find = partial(near_pairs, distance=near_distance, workers=workers, progress=progress)
    _add_duplicates(frame, partial(find, correlation=near_correlation), load)
    official = frame["official_split"].mask(frame["official_split"] == "")
    frame["splits_of_patient"] = official.groupby(frame["patient"]).transform("nunique")
    return frame.astype(DTYPES)[list(DTYPES)].sort_values("path", ignore_index=True)


def content_digest(frame: pd.DataFrame) -> str:
    """Version of the data: a digest of which content lies under which path.

    Args:
        frame: a manifest.

    Returns:
        Hexadecimal sha256 over the sorted pairs of path and sha256.
    """
    pairs = sorted(zip(frame["path"], frame["sha256"].fillna(""), strict=True))
    return hashlib.sha256("".join(f"{path}\0{digest}\n" for path, digest in pairs).encode()).hexdigest()


def write_manifest(frame: pd.DataFrame, folder: Path) -> Path:
    """Store a manifest as ``manifest.parquet``.

    Args:
        frame: the manifest.
        folder: an existing folder.

    Returns:
        The file.
    """
    path = folder / MANIFEST_FILE
    frame.to_parquet(path, index=False)
    return path


def read_manifest(folder: Path) -> pd.DataFrame:
    """Read a manifest stored by :func:`write_manifest`.

    Args:
        folder: the folder.

    Returns:
        The manifest, with the types of :data:`DTYPES`.

    Raises:
        DataError: if a column is missing.
    """
    frame = pd.read_parquet(folder / MANIFEST_FILE)
    if missing := [name for name in DTYPES if name not in frame]:
        raise DataError(f"expected the columns of a manifest, received {folder} without {missing}; run `cxr validate`")
    return frame.astype(DTYPES)


def _full_policy(policy: Mapping[str, Action], naming: str) -> dict[str, Action]:
    wrong: list[str] = []
    if naming not in ("kermany", "any"):
        wrong.append(f"expected naming to be kermany or any, received naming={naming!r}")
    for problem, action in policy.items():
        received = f"policy {problem}={action!r}"
        if problem not in TRAINING_PROBLEMS:
            wrong.append(f"expected a problem of {', '.join(TRAINING_PROBLEMS)}, received {received}")
        elif action not in ACTIONS:
            wrong.append(f"expected one of {', '.join(ACTIONS)}, received {received}")
        elif action == "accept" and problem not in SOFT:
            soft = ", ".join(sorted(SOFT))
            wrong.append(f"expected quarantine or refuse, received {received}; accept is possible for {soft}")
    if wrong:
        raise ParameterError(wrong)
    return default_policy() | dict(policy)


def _row(
    name: str,
    facts: ImageFacts,
    naming: Naming,
    patients: Mapping[str, Patient] | None,
    actions: Mapping[str, Action],
) -> dict[str, object]:
    """One row of the manifest, without what depends on the other rows."""
    path = PurePosixPath(name)
    split, label = place(path.parent)
    shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    problems = dict(facts.problems)
    if label is None:
        expected = f"[{'|'.join(OFFICIAL_SPLITS)}/]{'|'.join(CLASSES)}"
        problems["misplaced"] = f"expected a folder {expected}, received path={shown}; move or remove the file"
    named = ImageName(None, None, "", 0, "", "")
    try:
        if shown != name:
            raise ImageError("misnamed", f"expected a name in UTF-8, received name={shown!r}; rename the file")
        named = parse_name(path.name) if naming == "kermany" else _look_up(name, patients)
    except ImageError as error:
        problems[error.problem] = error.detail
    if named.label and label and named.label != label:
        problems["mislabelled"] = f"the name says {named.label}, the folder {label}; move or rename the file"
    ordered = [problem for problem in TRAINING_PROBLEMS if problem in problems]
    strictest = max((actions[problem] for problem in ordered), key=ACTIONS.index, default=ACTIONS[0])
    return {
        "path": shown,
        "sha256": facts.sha256 or None,
        "bytes": facts.bytes if facts.bytes >= 0 else None,
        "label": label,
        "subtype": named.subtype or (SUBTYPES[0] if label == NORMAL else None),
        "series": named.series or None,
        "patient": named.patient or None,
        "official_split": split,
        "width": facts.width or None,
        "height": facts.height or None,
        "mode": facts.mode or None,
        "bit_depth": facts.bit_depth or None,
        "grey": facts.grey,
        "readable": facts.readable,
        "problem": ordered[0] if ordered else "",
        "detail": "; ".join(problems[problem] for problem in ordered),
        "status": STATUSES[strictest],
        "mean": facts.mean,
        "std": facts.std,
        "phash": facts.phash,
    }


def _look_up(name: str, patients: Mapping[str, Patient] | None) -> ImageName:
    """Patient of a file whose name follows no rule: from the table, or without one the name itself."""
    stem = PurePosixPath(name).stem
    if patients is None:
        return ImageName(None, None, "", 0, stem, "")
    if name not in patients:
        raise ImageError("misnamed", f"expected a row of {PATIENTS_FILE} with path={name}; add one")
    return ImageName(None, patients[name].subtype, "", 0, patients[name].patient, stem)


def _add_duplicates(
    frame: pd.DataFrame,
    find: Callable[[Sequence[str], Callable[[int], NDArray[np.uint8]]], list[tuple[int, int]]],
    load: Callable[[int], NDArray[np.uint8]],
) -> None:
    """Add how often a content occurs, the groups of files that show one picture, and the labels in each."""
    frame["copies"] = frame.groupby("sha256")["path"].transform("size")
    frame["labels_of_hash"] = frame.groupby("sha256")["label"].transform("nunique")
    pictures = frame.loc[frame["phash"] != "", ["sha256", "phash"]].drop_duplicates("sha256")
    rows, digests = pictures.index.tolist(), pictures["sha256"].tolist()
    pairs = find(pictures["phash"].tolist(), lambda position: load(rows[position]))
    # A group is named after its smallest digest, so that its name depends on no path and no order.
    order = np.argsort(digests)
    rank = np.argsort(order)
    roots = order[unite(len(digests), [(int(rank[low]), int(rank[high])) for low, high in pairs])[rank]]
    first = dict(zip(digests, (digests[root] for root in roots), strict=True))
    picture = frame["sha256"].map(first).astype("string").fillna(frame["sha256"])
    name = picture.str[:16]
    contents = frame.groupby(picture)["sha256"].transform("nunique")
    files = frame.groupby(picture)["path"].transform("size")
    frame["near_group"] = ("near-" + name).where(contents > 1, "")
    frame["duplicate_group"] = ("same-" + name).where(files > 1, "")
    frame["labels_of_group"] = frame.groupby(picture)["label"].transform("nunique")
