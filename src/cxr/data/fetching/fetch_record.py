"""Records what was fetched: the same request then costs nothing, and no file of a person is deleted."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxr.data.dataset import DatasetCard
from cxr.data.dvc_hashes import folder_md5
from cxr.data.fetching import kermany
from cxr.data.fetching.layout import DataFolderContents, SplitAndClass, count_data_folder
from cxr.data.fetching.source import DataSource
from cxr.data.image_index import has_index
from cxr.errors import SourceError
from cxr.files import DATASET_FILE, write_json
from cxr.storage.contents import shorten_list

FETCH_RECORD_FILE = "fetch.json"
DATA_VERSION = "data_version"
"""Key of a recorded request for one version of the data, which is recognised by its content."""

_NOT_RECORDED = {DATA_VERSION, "max_gigabytes", "downloads", "labels", "index", "image_store"}
_OF_INDEX = ("index", "image_store", "endpoint_url")
"""Parameters that a request records for an index, and only for one."""

log = logging.getLogger(__name__)


def describe_request(source: DataSource) -> dict[str, Any]:
    """Collect everything that decides what the data folder holds after a fetch.

    Args:
        source: source with its request.

    Returns:
        Plain JSON values, without folders of this machine: for one version of the data its md5 and where it came
        from; else the parameters that have an effect, and the fingerprint of a local source (None for others, which
        are recognised by their address alone).
    """
    request = source.request
    index = {name: getattr(request, name) for name in _OF_INDEX} if request.index else {}
    if request.data_version is not None:
        return {"source": source.label, DATA_VERSION: request.data_version, **index}
    ignored = _NOT_RECORDED | source.unused_parameters
    parameters = {name: value for name, value in asdict(request).items() if name not in ignored}
    fingerprint = None if source.local_path is None else fingerprint_path(source.local_path)
    return {**parameters, **index, "source": source.label, "identity": fingerprint}


def fingerprint_path(path: Path) -> str:
    """Compute a fingerprint of a folder or file, to tell whether it has changed.

    Args:
        path: the folder or file.

    Returns:
        SHA-256 of names, sizes and times of modification.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    facts = [(file.relative_to(path.parent).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def needs_fetch(data: Path, source: DataSource, request: Mapping[str, Any], *, refresh: bool) -> bool:
    """Decide whether a data folder has to be fetched, and whether it may be replaced.

    Args:
        data: the data folder, which need not exist.
        source: where it would be fetched from.
        request: result of :func:`describe_request`; for one version of the data, the folder's md5 is compared with it.
        refresh: whether to fetch also what is there already.

    Returns:
        False if the folder holds what is asked for.

    Raises:
        SourceError: if the folder holds files that fetch did not write and that replacing it would delete.
    """
    _expect_apart(data, source)
    if not data.exists() or (data.is_dir() and not any(data.iterdir())):
        return True
    address, downloads = source.request.source, source.request.downloads
    requested, recorded = request.get(DATA_VERSION), _recorded_version(downloads)
    present = folder_md5(data) if data.is_dir() and (requested or recorded) else None
    if present is not None and present == requested and not refresh and _has_form(data, source, request):
        log.info("%s/ already holds version %s", data.name, present)
        return False
    if present is not None and present in (recorded, requested):
        log.warning("%s/ (version %s) is replaced by %s as soon as that is complete", data.name, present, address)
        return True
    if not data.is_dir() or not (data / DATASET_FILE).is_file():
        raise SourceError(
            f"expected a folder that fetch made, received data={data} without {DATASET_FILE}; move it away, "
            "or pass it as --source and another folder as --data"
        )
    card = DatasetCard.read(data)
    contents = count_data_folder(data)
    change = _describe_change(card, contents)
    if not refresh and requested is None and _holds_request(data, source, request, card, contents):
        if change:
            log.warning("%s/ is left as it is; it was changed since it was fetched: %s", data.name, change)
        log.info("%s/ already holds %s: %s images", data.name, card.source, f"{contents.images:,}")
        return False
    if change:
        raise SourceError(
            f"expected a folder that is as fetch made it, received data={data}, which was changed since: "
            f"{change}; it would be deleted, so move it away first"
        )
    log.warning(
        "%s/ (%s, %s images) is replaced by %s as soon as that is complete",
        data.name,
        card.source,
        f"{card.images:,}",
        address,
    )
    return True


def write_record(data: Path, downloads: Path, request: Mapping[str, Any]) -> None:
    """Record a finished fetch.

    Args:
        data: the data folder, with its card.
        downloads: folder for the record.
        request: result of :func:`describe_request` before the fetch: a source that changed since is fetched again.
    """
    card = DatasetCard.read(data)
    if DATA_VERSION in request:
        log.info("%s/ holds version %s from %s", data.name, request[DATA_VERSION], request["source"])
    else:
        log.info("%s/ holds %s from %s: %s images", data.name, card.name, card.source, f"{card.images:,}")
    write_json(downloads / FETCH_RECORD_FILE, {"request": dict(request), "card": asdict(card)})


def _has_form(data: Path, source: DataSource, request: Mapping[str, Any]) -> bool:
    """Whether a folder holds images, or their index with the addresses that are asked for."""
    if not source.request.index:
        return not has_index(data)
    record = _read_record(source.request.downloads)
    return has_index(data) and record is not None and record.get("request") == request


def _read_record(downloads: Path) -> Any:
    try:
        return json.loads((downloads / FETCH_RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _recorded_version(downloads: Path) -> str | None:
    """Version that the last fetch brought, if it was a fetch of one version."""
    try:
        return str(_read_record(downloads)["request"][DATA_VERSION])
    except (KeyError, TypeError):
        return None


def _holds_request(
    data: Path, source: DataSource, request: Mapping[str, Any], card: DatasetCard, contents: DataFolderContents
) -> bool:
    """Compare with the record, or with the published numbers where another machine fetched the folder."""
    record = _read_record(source.request.downloads)
    if record is None and not has_index(data) and not source.request.index:
        return _is_whole_kermany(source, card, contents.counts)
    return bool(record == {"request": dict(request), "card": asdict(card)})


def _is_whole_kermany(source: DataSource, card: DatasetCard, counts: Mapping[SplitAndClass, int]) -> bool:
    """Whether the folder holds the whole Kermany set of a remote source, whichever machine fetched it."""
    size_fits = source.expected_bytes in (None, card.bytes)
    return not source.is_local and card.source == source.label and kermany.is_complete(counts) and size_fits


def _describe_change(card: DatasetCard, contents: DataFolderContents) -> str:
    """Say how a data folder differs from its card; empty if it does not."""
    differences = []
    if (contents.images, contents.bytes) != (card.images, card.bytes):
        differences.append(
            f"{contents.images:,} images of {contents.bytes:,} bytes, where the card says {card.images:,} of "
            f"{card.bytes:,}"
        )
    if contents.foreign_files:
        differences.append(f"{len(contents.foreign_files):,} other files: {shorten_list(contents.foreign_files)}")
    return ", ".join(differences)


def _expect_apart(data: Path, source: DataSource) -> None:
    """Refuse to read from the folder that is to be replaced."""
    if source.local_path is None:
        return
    read_path, data_path = source.local_path.resolve(), data.resolve()
    if read_path.is_relative_to(data_path) or (read_path.is_dir() and data_path.is_relative_to(read_path)):
        raise SourceError(
            f"expected source and data to lie apart, received source={source.request.source} and data={data}; name "
            "another folder"
        )
