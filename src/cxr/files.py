"""Names of files that several packages read or write, and writes that leave a whole file or none."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.errors import AccessError, DataError, DiskFullError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATASET_FILE = "dataset.json"
PATIENTS_FILE = "patients.csv"
BOXES_FILE = "boxes.json"
IMAGE_INDEX_FILE = "images.parquet"
"""Beside the raw images: the data set's card, a table of patients, and the boxes of opacities; in place of the images:
the index of their addresses."""

MANIFEST_FILE = "manifest.parquet"
EXPLORATION_FILE = "exploration.html"
SPLITS_FILE = "splits.parquet"
REFERENCE_FILE = "reference.npz"
"""Outputs of the steps ``validate``, ``resplit`` and ``reference``."""

NETWORK_FILE = "model.keras"
METADATA_FILE = "card.json"
HISTORY_FILE = "history.csv"
TRAINING_FILE = "training.json"
"""Folder of a trained model: network, metadata, figures per epoch, and evidence of the training."""

METRICS_FILE = "metrics.json"
SUMMARY_FILE = "summary.json"
PREDICTIONS_FILE = "predictions.parquet"
STRESS_FILE = "stress.json"
CHANGED_PREDICTIONS_FILE = "changed_predictions.parquet"
COMPARISON_FILE = "comparison.json"
"""Folder of an evaluation, with the stress test if there was one; the comparison stands beside that of an ensemble."""

VALIDATION_SCORES_FILE = "validation.npz"
MODEL_CARD_FILE = "MODEL_CARD.md"
"""What a registered version carries besides its model."""

DRIFT_FILE = "drift.json"
"""Output of the step ``drift``."""

JUDGEMENT_FILE = "JUDGEMENT.md"
"""Page to read in the folder of a judgement on other data, whose other files are named as those of an evaluation."""


REPEAT_STEP = (
    "restore it from a copy, or run the step that wrote it again (`dvc repro --force STAGE`); if it is damaged again, "
    "rename the folder .dvc/cache first"
)
"""What to do about a damaged output of a step."""

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk is full, the account's share of it is, or the file would be larger than the account's limit."""

_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""The account may not do so, or nobody may, because the disk is mounted for reading only."""

_SCRATCH = "cxr-"
"""Beginning of the names of scratch folders; the number of the process follows."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Args:
        path: the file; its folder is made if it is not there.

    Yields:
        A hidden file beside it to write to; it takes the final name when the block ends without an error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_partial_files(path)
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folders(outputs: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Write folders so that each appears complete or not at all.

    Args:
        outputs: any key to the final folder; an older folder of that name is replaced.

    Yields:
        The same keys to hidden, empty folders beside the final ones; they take the final names when the block ends
        without an error.
    """
    partial: dict[str, Path] = {}
    try:
        for key, final in outputs.items():
            final.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(final)
            partial[key] = final.with_name(f".{final.name}.partial-{os.getpid()}")
            partial[key].mkdir()
        yield partial
        for key, final in outputs.items():
            old = final.with_name(f".{final.name}.old-{os.getpid()}")
            if final.exists():
                final.rename(old)
            partial[key].rename(final)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        for folder in partial.values():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Write one folder as :func:`whole_folders` does.

    Args:
        path: the final folder.

    Yields:
        The hidden folder to write to.
    """
    with whole_folders({"": path}) as partial:
        yield partial[""]


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for files that nobody needs afterwards, and remove those that killed processes left.

    Yields:
        An empty folder in the system's folder for temporary files.
    """
    for leftover in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        match = re.fullmatch(rf"{_SCRATCH}(\d+)-\w+", leftover.name)
        if match is not None and not _is_running(int(match[1])):
            shutil.rmtree(leftover, ignore_errors=True)  # those of other users stay: they cannot be removed
    with tempfile.TemporaryDirectory(prefix=f"{_SCRATCH}{os.getpid()}-") as folder:
        yield Path(folder)


def expect_free_space(folder: Path, size: int, content: str) -> None:
    """Check before the work that a disk has room for its result.

    Args:
        folder: where the result is written; it need not exist.
        size: bytes that the result needs.
        content: what is written, for the message.

    Raises:
        DiskFullError: if there is less room.
    """
    folder = folder.absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise DiskFullError(
            f"expected {size / 1e6:,.1f} MB of free disk space for {content}, received free={free / 1e6:,.1f} MB on "
            f"the disk of {folder.parent}; make room, or name a folder on another disk"
        )


def is_disk_full(error: BaseException) -> bool:
    """Tell whether something could not be written because there is no room for it.

    Args:
        error: an error of a write.

    Returns:
        True for a full disk, and for the limits of an account.
    """
    return isinstance(error, OSError) and (error.errno in _DISK_FULL or os.strerror(errno.ENOSPC) in str(error))


@contextmanager
def explain_file_errors(outputs: Iterable[Path]) -> Iterator[None]:
    """Say in one sentence that a disk is full, or that a file may not be read or written.

    Args:
        outputs: the files and folders that are written in the block.

    Raises:
        DiskFullError: in place of the error of a write for which there is no room.
        AccessError: in place of the error of a file that this user may not read or write.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _REFUSED and error.filename is not None:
            raise AccessError(
                f"expected permission to read or write {error.filename}, received {error.strerror}; change its "
                "permissions or its disk's, or name another folder"
            ) from error
        if not is_disk_full(error):
            raise
        names = error.filename or " or ".join(str(output) for output in outputs) or "the output"
        raise DiskFullError(
            f"expected room on the disk to write {names}, received {error.strerror or error}; make room, or name a "
            "folder on another disk, and run the same command again"
        ) from error


def _remove_partial_files(path: Path) -> None:
    """Remove the hidden files that killed processes left beside a file."""
    for leftover in path.parent.glob(f".{path.stem}.partial-*{path.suffix}"):
        match = re.fullmatch(rf"\.{re.escape(path.stem)}\.partial-(\d+){re.escape(path.suffix)}", leftover.name)
        if match is not None and not _is_running(int(match[1])):
            leftover.unlink(missing_ok=True)


def remove_leftovers(final: Path) -> None:
    """Remove the hidden folders that killed processes left beside an output; those of running processes stay.

    Args:
        final: the output's final path. If a process was killed between its two renames, the old output comes back.
    """
    for leftover in final.parent.glob(f".{final.name}.*-*"):
        match = re.fullmatch(rf"\.{re.escape(final.name)}\.(partial|old)-(\d+)", leftover.name)
        if match is None or _is_running(int(match[2])):
            continue
        if match[1] == "old" and not final.exists():
            leftover.rename(final)
        else:
            shutil.rmtree(leftover, ignore_errors=True)


def utf8_name(name: str) -> str:
    """Make the name of a file one that every table and text file can hold.

    Args:
        name: a name or path as ``os.fsdecode`` gives it, with surrogates where it is not UTF-8.

    Returns:
        The same name; bytes that are not UTF-8 are written as ``\\xfc``.
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def printable_name(name: str) -> str:
    """Make the name of a file one that stays on its line of a terminal.

    Args:
        name: a name or path as ``os.fsdecode`` gives it.

    Returns:
        The same name; characters that are not printable, such as a line feed, are written as ``\\n``.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in utf8_name(name)
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Args:
        path: the file; its folder is made if it is not there.
        text: its content.
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """Write JSON that every program reads, whole or not at all: numbers that are not finite become null.

    Args:
        path: the file; its folder is made if it is not there.
        values: mappings, sequences and plain values.
    """
    write_text(path, json.dumps(without_nan(values), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a step has written.

    Args:
        path: the file.

    Returns:
        Its entries.

    Raises:
        DataError: if there is no such file, or it holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"expected JSON, received {path} ({error}); {REPEAT_STEP}") from error
    if not isinstance(values, dict):
        raise DataError(f"expected a JSON object, received {path}={values!r}; {REPEAT_STEP}")
    return values


def without_nan(values: Any) -> Any:
    """Replace numbers that are not finite by None, at any depth.

    Args:
        values: mappings, sequences and plain values.

    Returns:
        The same with plain dicts and lists.
    """
    if isinstance(values, dict):
        return {key: without_nan(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_nan(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values


def read_arrays(path: Path, names: Sequence[str], remedy: str) -> dict[str, NDArray[Any]]:
    """Read arrays of an ``.npz`` file; objects are refused, because unpickling them would run code.

    Args:
        path: the file.
        names: arrays that it must hold.
        remedy: what to do about a damaged file, for the error message.

    Returns:
        Name to array.

    Raises:
        DataError: if the file is damaged or lacks an array.
    """
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except Exception as error:  # a damaged file raises errors of zipfile, zlib, NumPy and Python's parser
        raise DataError(f"expected arrays {', '.join(names)}, received {path} ({error}); {remedy}") from error


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # A killed process stays in the list of processes until its parent asks for it, in some containers for ever.
    try:
        state = (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        )
    except (OSError, IndexError):
        return True
    return state not in ("Z", "X")
