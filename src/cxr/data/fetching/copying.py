"""Copies the images of a source into a data folder, and writes the dataset card."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from cxr.data.dataset import DatasetCard
from cxr.data.fetching import kermany
from cxr.data.fetching.archives import ARCHIVE_SUFFIXES
from cxr.data.fetching.layout import NESTED_COPY, SYSTEM_FILES, SourceLayout, find_layout
from cxr.data.fetching.request import AUTO, FetchRequest
from cxr.data.fetching.rsna import read_rsna_set
from cxr.errors import SourceError
from cxr.files import DATASET_FILE
from cxr.storage.contents import GIGABYTE, SourceContents, shorten_list

log = logging.getLogger(__name__)


def copy_images(
    contents: SourceContents,
    folder: Path,
    request: FetchRequest,
    *,
    label: str,
    expected_bytes: int | None,
    remedy: str,
) -> DatasetCard:
    """Copy the images of a source as they are, also broken ones, and write the dataset card.

    Copied are the image files in the class folders and, beside these folders, ``dataset.json``, ``boxes.json`` and
    ``patients.csv``. A source in the format of the RSNA challenge has no class folders: its tables say which class,
    boxes and patient an image has (:mod:`cxr.data.fetching.rsna`). No pixel is decoded. Files that are left out are
    logged.

    Args:
        contents: files of the source.
        folder: empty folder to fill.
        request: what to fetch; its source is not read.
        label: address of the source, as the card spells it.
        expected_bytes: total size of the images, where it is known in advance.
        remedy: what to do about a partial copy.

    Returns:
        The card that was written.

    Raises:
        SourceError: if the source is damaged, unsafe, too large, partial or of an unknown layout, or if its tables are
            wrong.
    """
    rsna_set = read_rsna_set(contents, accept_missing_images=request.expect == "any", remedy=remedy)
    layout = find_layout(contents.entries, contents.name) if rsna_set is None else rsna_set.layout
    if layout.bytes > request.max_bytes:
        raise SourceError(
            f"expected at most max_gigabytes={request.max_bytes / GIGABYTE:g}, received source={contents.name} with "
            f"{layout.bytes / GIGABYTE:,.1f} GB of images; raise max_gigabytes if that is right"
        )
    source_card = _read_card(contents, layout) if rsna_set is None else rsna_set.card
    is_kermany = source_card.name == kermany.NAME if source_card else kermany.looks_like_kermany(layout, contents.name)
    if request.expect == "kermany" or (request.expect == "auto" and (is_kermany or expected_bytes is not None)):
        kermany.check_complete(layout.counts, layout.bytes, contents.name, remedy, expected_bytes=expected_bytes)
        is_whole_kermany = True
    else:
        is_whole_kermany = is_kermany and kermany.is_complete(layout.counts)
    if source_card is None and is_whole_kermany:
        source_card = DatasetCard(kermany.NAME, "patients", "", 0, 0, kermany.LICENCE)
    card = _make_card(request, contents.name, label, layout, source_card)
    _log_ignored_files(layout, contents.name)
    _expect_free_space(folder, layout.bytes)
    _copy_files(contents, layout, folder)
    if rsna_set is not None:
        rsna_set.write_side_files(folder)
    card.write(folder)
    return card


def _read_card(contents: SourceContents, layout: SourceLayout) -> DatasetCard | None:
    """Read the card that lies beside the images of the source."""
    path = layout.root / DATASET_FILE
    for _, pieces in contents.read([path] if path in layout.side else []):
        try:
            return DatasetCard(**json.loads(b"".join(pieces)))
        except (TypeError, ValueError) as error:
            raise SourceError(
                f"expected a {DATASET_FILE} with the fields of DatasetCard, received source={contents.name} "
                f"({error}); correct it or remove it"
            ) from error
    return None


def _make_card(
    request: FetchRequest, name: str, label: str, layout: SourceLayout, source_card: DatasetCard | None
) -> DatasetCard:
    """Make the card. The request comes first, then the source's own card, then the source's name."""
    if source_card is not None and request.data_kind not in (AUTO, source_card.kind):
        raise SourceError(
            f"expected data_kind to agree with the source's {DATASET_FILE}, which says {source_card.kind!r}, received "
            f"data_kind={request.data_kind!r}; leave data_kind at auto"
        )
    defaults = source_card or DatasetCard(_without_archive_suffix(name), "patients", "", 0, 0, "unknown")
    return DatasetCard(
        name=defaults.name if request.data_name == AUTO else request.data_name,
        kind=defaults.kind if request.data_kind == "auto" else request.data_kind,
        source=label,
        images=len(layout.images),
        bytes=layout.bytes,
        licence=defaults.licence if request.data_licence == AUTO else request.data_licence,
    )


def _without_archive_suffix(name: str) -> str:
    file_name = PurePosixPath(name).name
    suffix = next((suffix for suffix in ARCHIVE_SUFFIXES[::-1] if file_name.lower().endswith(suffix)), "")
    return file_name[: len(file_name) - len(suffix)] or name


def _log_ignored_files(layout: SourceLayout, name: str) -> None:
    for reason, paths in layout.ignored.items():
        level = logging.INFO if reason in (SYSTEM_FILES, NESTED_COPY) else logging.WARNING
        log.log(level, "%s: left out %s %s: %s", name, f"{len(paths):,}", reason, shorten_list(paths))


def _expect_free_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise SourceError(
            f"expected {size / GIGABYTE:,.2f} GB of free disk space for the images, received free="
            f"{free / GIGABYTE:,.2f} GB; make room"
        )


def _copy_files(contents: SourceContents, layout: SourceLayout, folder: Path) -> None:
    """Write the images and side files; each is checked against its declared size while it is read."""
    targets = {**layout.images, **layout.side}
    missing = set(targets)
    with tqdm(total=len(targets), unit=" files", desc=f"copy {contents.name}", disable=None) as bar:
        for entry, pieces in contents.read(targets):
            if entry.path not in missing:
                raise SourceError(f"expected {str(entry.path)!r} once, received source={contents.name} with it twice")
            missing.remove(entry.path)
            target = folder / targets[entry.path]
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_new_file(target, pieces)
            bar.update()
    if missing:
        raise SourceError(
            f"expected all listed files, received source={contents.name} without {shorten_list(sorted(missing))}"
        )


def _write_new_file(target: Path, pieces: Iterator[bytes]) -> None:
    with target.open("xb") as stream:
        for piece in pieces:
            stream.write(piece)
