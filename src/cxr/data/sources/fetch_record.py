"""Remember what was fetched, so that the same request costs nothing and nobody's own files are deleted."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxr.data.dataset import DatasetCard
from cxr.data.sources import kermany
from cxr.data.sources.fetching import expected_bytes, is_local, label
from cxr.data.sources.layout import Folder, Held, held_in
from cxr.data.version import folder_md5
from cxr.errors import SourceError
from cxr.files import DATASET_FILE
from cxr.storage.contents import some

RECORD_NAME = "fetch.json"
VERSION = "data_version"
"""Key of a request for one version of the data, which is known by its content."""

logger = logging.getLogger(__name__)


def identity(source: str) -> str | None:
    """Fingerprint of a local source, from names, sizes and times, to tell whether it has changed.

    Args:
        source: see :func:`cxr.data.sources.fetching.bring`.

    Returns:
        A SHA-256, or ``None`` for sources that are known by their name alone.
    """
    path = Path(source).expanduser()
    if not is_local(source) or not path.exists():
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    facts = [(file.relative_to(path.parent).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def is_due(data: Path, downloads: Path, source: str, request: Mapping[str, Any], *, refresh: bool = False) -> bool:
    """Decide whether a data folder has to be fetched, and whether it may be replaced.

    Args:
        data: the data folder, which need not exist.
        downloads: folder that holds the record of the last fetch.
        source: what is asked for, see :func:`cxr.data.sources.fetching.bring`.
        request: everything that decides what the folder holds, as plain JSON values; with :data:`VERSION` the
            folder's content is compared with that md5.
        refresh: whether to fetch even what is there already.

    Returns:
        False if the folder holds what is asked for.

    Raises:
        SourceError: if the folder holds files that fetch did not write and that replacing it would delete.
    """
    _expect_apart(data, source)
    if not data.exists() or (data.is_dir() and not any(data.iterdir())):
        return True
    wanted, recorded = request.get(VERSION), _recorded_version(downloads)
    present = folder_md5(data) if data.is_dir() and (wanted or recorded) else None
    if present is not None and present == wanted and not refresh:
        logger.info("%s/ already holds version %s", data.name, present)
        return False
    if present is not None and present == recorded:
        logger.warning("%s/ (version %s) is replaced by %s once that is here", data.name, present, source)
        return True
    if not data.is_dir() or not (data / DATASET_FILE).is_file():
        raise SourceError(
            f"expected a folder that fetch made, received data={data} without {DATASET_FILE}; move it away, "
            "or pass it as --source and another folder as --data"
        )
    card = DatasetCard.read(data)
    held = held_in(data)
    change = _change(card, held)
    if not refresh and wanted is None and _holds(downloads, source, request, card, held):
        if change:
            logger.warning("%s/ is left as it is; it was changed since it was fetched: %s", data.name, change)
        logger.info("%s/ already holds %s: %s images", data.name, card.source, f"{held.images:,}")
        return False
    if change:
        raise SourceError(
            f"expected a folder that is as fetch made it, received data={data}, which was changed since: "
            f"{change}; it would be deleted, so move it away first"
        )
    logger.warning(
        "%s/ (%s, %s images) is replaced by %s once that is here",
        data.name,
        card.source,
        f"{card.images:,}",
        source,
    )
    return True


def remember(data: Path, downloads: Path, request: Mapping[str, Any]) -> None:
    """Record a finished fetch.

    Args:
        data: the data folder, with its card.
        downloads: folder for the record.
        request: what was asked for.
    """
    downloads.mkdir(parents=True, exist_ok=True)
    card = DatasetCard.read(data)
    if VERSION in request:
        logger.info("%s/ holds version %s from %s", data.name, request[VERSION], request["source"])
    else:
        logger.info("%s/ holds %s from %s: %s images", data.name, card.name, card.source, f"{card.images:,}")
    text = json.dumps({"request": dict(request), "card": asdict(card)}, indent=2)
    partial = downloads / f".{RECORD_NAME}.partial"
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(downloads / RECORD_NAME)


def _recorded_version(downloads: Path) -> str | None:
    """Version that the last fetch brought, if it was asked for one."""
    try:
        record = json.loads((downloads / RECORD_NAME).read_text(encoding="utf-8"))
        return str(record["request"][VERSION])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _holds(downloads: Path, source: str, request: Mapping[str, Any], card: DatasetCard, held: Held) -> bool:
    """Compare with the record, or with the known numbers where another machine fetched the folder."""
    try:
        record = json.loads((downloads / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return _is_complete(card, source, held.counts)
    return bool(record == {"request": dict(request), "card": asdict(card)})


def _is_complete(card: DatasetCard, source: str, counts: Mapping[Folder, int]) -> bool:
    """Whether the folder holds the whole Kermany set of a remote source, whoever brought it there."""
    size_fits = expected_bytes(source) in (None, card.bytes)
    return not is_local(source) and card.source == label(source) and kermany.is_whole(counts) and size_fits


def _change(card: DatasetCard, held: Held) -> str:
    """Say how a data folder differs from its card, or nothing."""
    differences = []
    if (held.images, held.bytes) != (card.images, card.bytes):
        differences.append(
            f"{held.images:,} images of {held.bytes:,} bytes, where the card says {card.images:,} of {card.bytes:,}"
        )
    if held.foreign:
        differences.append(f"{len(held.foreign):,} other files: {some(held.foreign)}")
    return ", ".join(differences)


def _expect_apart(data: Path, source: str) -> None:
    """Refuse to read from the folder that is to be replaced."""
    if identity(source) is None:
        return
    read, written = Path(source).expanduser().resolve(), data.resolve()
    if read.is_relative_to(written) or (read.is_dir() and written.is_relative_to(read)):
        raise SourceError(
            f"expected source and data to lie apart, received source={source} and data={data}; name another folder"
        )
