"""The files of a stored model: digests that show damage, and reading the network.

``digests.json`` is written last into a folder and names the SHA-256 of each file there. Whoever opens a file compares
it; that takes about 0.8 s per gigabyte. A folder that an earlier version of the program wrote has no ``digests.json``,
and its files are read without the comparison.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cxr.errors import DataError
from cxr.files import REPEAT_STEP, write_json

DIGESTS_FILE = "digests.json"


def record_digests(folder: Path) -> Path:
    """Write ``digests.json``: the digest of each file of a folder, after all of them are written.

    Args:
        folder: the folder; files of its subfolders are named by their relative path.

    Returns:
        The written file.
    """
    path = folder / DIGESTS_FILE
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != path)
    write_json(path, {file.relative_to(folder).as_posix(): sha256(file) for file in files})
    return path


def check_digest(path: Path) -> None:
    """Refuse a file that is not as it was written: a disk, a cache or a person may have changed it since.

    Args:
        path: the file. If it is missing, or its folder has no digest of it, nothing is compared.

    Raises:
        DataError: if the file or ``digests.json`` is damaged.
    """
    if not path.is_file():
        return
    expected = _read_digests(path.parent).get(path.name)
    if expected not in (None, sha256(path)):
        raise DataError(f"expected {path.name} as it was written, received a damaged or changed {path}; {REPEAT_STEP}")


def check_all_digests(folder: Path) -> None:
    """Refuse a folder of which a file is not as it was written, before its files are copied.

    Args:
        folder: the folder. If it has no ``digests.json``, nothing is compared.

    Raises:
        DataError: if a file is damaged; all are named.
    """
    if damaged := damaged_files(folder):
        raise DataError(
            f"expected the files of {folder} as they were written, received damaged or changed {', '.join(damaged)}; "
            f"{REPEAT_STEP}"
        )


def damaged_files(folder: Path) -> list[str]:
    """List the files of a folder that are not as they were written.

    Args:
        folder: the folder. If it has no ``digests.json``, nothing is compared.

    Returns:
        Relative paths, as in ``digests.json``. Missing files are not among them.

    Raises:
        DataError: if ``digests.json`` is damaged.
    """
    digests = _read_digests(folder)
    return [name for name, digest in digests.items() if (folder / name).is_file() and sha256(folder / name) != digest]


def load_network(path: Path) -> Any:
    """Load a network. Code that the file might carry is not executed (Keras safe mode).

    Args:
        path: the file.

    Returns:
        Keras model, not compiled.

    Raises:
        DataError: if the file is damaged, or names code that is not Keras's own.
    """
    check_digest(path)
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged file can raise anything
        # Keras repeats the whole configuration; what went wrong stands behind "Exception encountered".
        cause = str(error).rpartition("Exception encountered: ")[2].strip()
        reason = cause.partition("\n")[0].rstrip(",") or repr(error)
        raise DataError(
            f"expected a network that Keras loads in safe mode, received {path} ({reason}); {REPEAT_STEP}"
        ) from error


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file.

    Args:
        path: the file.

    Returns:
        64 hex digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_digests(folder: Path) -> dict[str, str]:
    """The digests of a folder's files; empty if an earlier version of the program wrote the folder."""
    path = folder / DIGESTS_FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, TypeError, ValueError) as error:
        raise DataError(f"expected digests of the files beside it, received {path} ({error}); {REPEAT_STEP}") from error
