"""Bring radiographs from a folder, an archive, Kaggle or object storage into a data folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from tqdm import tqdm

from cxr.data.dataset import IMAGE_SUFFIXES, DatasetCard
from cxr.data.sources import kermany
from cxr.data.sources.archives import ARCHIVE_SUFFIXES, is_archive, open_archive
from cxr.data.sources.layout import OTHER, Layout, find_layout
from cxr.errors import SourceError
from cxr.files import DATASET_FILE
from cxr.storage.contents import GIGABYTE, Contents, FolderContents, some

PHANTOM = "phantom"
KAGGLE = "kaggle"
S3 = "s3://"
AUTO: Literal["auto"] = "auto"

Expect = Literal["auto", "kermany", "any"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Description:
    """What a person says about their own data; ``"auto"`` takes it from the source.

    Attributes:
        name: short name of the data set.
        kind: ``"patients"`` or ``"phantom"``.
        licence: licence with attribution.
    """

    name: str = AUTO
    kind: Literal["auto", "phantom", "patients"] = AUTO
    licence: str = AUTO


def bring(
    source: str,
    folder: Path,
    *,
    downloads: Path,
    expect: Expect = "auto",
    description: Description = Description(),
    max_bytes: int = 20 * GIGABYTE,
    endpoint_url: str | None = None,
) -> DatasetCard:
    """Copy the images of a source as they are, broken ones too, and write the data card.

    Kept are the image files in the class folders and, beside these, ``dataset.json``, ``boxes.json`` and
    ``patients.csv``; nothing is decoded. What is left out is logged.

    Args:
        source: a folder, an archive, ``kaggle``, ``kaggle:owner/name`` or ``s3://bucket/prefix``.
        folder: empty folder to fill.
        downloads: where partial downloads are kept.
        expect: ``"kermany"`` demands the published number of images, ``"any"`` nothing, ``"auto"``
            demands it of sources that are meant to be that set (:func:`cxr.data.sources.kermany.is_meant`).
        description: name, kind and licence for the card.
        max_bytes: total size above which a source is refused.
        endpoint_url: address of an object store other than Amazon's.

    Returns:
        The card that was written.

    Raises:
        SourceError: if the source is missing, unreachable, damaged, unsafe, partial or of an unknown layout.
    """
    contents = open_source(source, downloads, max_bytes=max_bytes, endpoint_url=endpoint_url)
    layout = find_layout(contents.entries, contents.name)
    if layout.bytes > max_bytes:
        raise SourceError(
            f"expected at most max_gigabytes={max_bytes / GIGABYTE:g}, received source={contents.name} with "
            f"{layout.bytes / GIGABYTE:,.1f} GB of images; raise max_gigabytes if that is right"
        )
    given = _given_card(contents, layout)
    whole = _check(source, contents.name, layout, expect, given, downloads)
    card = _card(source, contents.name, layout, description, given, whole)
    _report(layout, contents.name)
    _expect_room(folder, layout.bytes)
    _copy(contents, layout, folder)
    card.write(folder)
    return card


def open_source(source: str, downloads: Path, *, max_bytes: int, endpoint_url: str | None = None) -> Contents:
    """List a source; Kaggle and single archives in object storage are downloaded for that.

    Args:
        source: see :func:`bring`.
        downloads: where downloads are kept.
        max_bytes: total size above which an archive is refused.
        endpoint_url: address of an object store other than Amazon's.

    Returns:
        The contents of the source.

    Raises:
        SourceError: if there is no such source or it cannot be listed.
    """
    if source == KAGGLE or source.startswith(f"{KAGGLE}:"):
        from cxr.data.sources import kaggle

        handle = _kaggle_handle(source)
        return FolderContents(kaggle.download(handle, downloads / KAGGLE), f"{KAGGLE}:{handle}")
    if source.startswith(S3):
        return _open_stored(source, downloads / "s3", max_bytes, endpoint_url)
    path = Path(source).expanduser()
    if path.is_dir():
        return FolderContents(path)
    if path.is_file():
        return open_archive(path, max_bytes=max_bytes)
    raise SourceError(
        f"expected {PHANTOM}, {KAGGLE}, {KAGGLE}:owner/name, {S3}bucket/prefix, or an existing folder or "
        f"archive ({', '.join(ARCHIVE_SUFFIXES)}), received source={source}; check the spelling"
    )


def label(source: str) -> str:
    """Name a source without the folders of this machine, as the data card spells it.

    Args:
        source: see :func:`bring`.

    Returns:
        For example ``"kermany224.tar"`` or ``"kaggle:owner/name"``.
    """
    if source == KAGGLE or source.startswith(f"{KAGGLE}:"):
        return f"{KAGGLE}:{_kaggle_handle(source)}"
    if source == PHANTOM or source.startswith(S3):
        return source.rstrip("/")
    return Path(source).expanduser().resolve().name


def expected_bytes(source: str) -> int | None:
    """Total size of the images, where it is known.

    Args:
        source: see :func:`bring`.

    Returns:
        Bytes for the Kaggle original, ``None`` for every other source.
    """
    original = label(source).partition("/versions/")[0] == f"{KAGGLE}:{kermany.KAGGLE_HANDLE}"
    return kermany.KAGGLE_BYTES if original else None


def is_local(source: str) -> bool:
    """Tell paths from other sources.

    Args:
        source: see :func:`bring`.

    Returns:
        Whether it names a folder or file of this machine, which need not exist.
    """
    return source not in (PHANTOM, KAGGLE) and not source.startswith((f"{KAGGLE}:", S3))


def _open_stored(source: str, folder: Path, max_bytes: int, endpoint_url: str | None) -> Contents:
    """Objects as they are, or the one archive among them if there are no images."""
    from cxr.storage.object_store import StoredPrefix

    stored = StoredPrefix(source, folder, endpoint_url=endpoint_url)
    images = any(entry.path.suffix.lower() in IMAGE_SUFFIXES for entry in stored.entries)
    archives = [entry for entry in stored.entries if is_archive(entry.path.name)]
    if images or not archives:
        return stored
    if len(archives) > 1:
        names = some([entry.path for entry in archives])
        raise SourceError(f"expected one archive, received source={source} with {names}; give the address of one")
    if archives[0].bytes > max_bytes:
        raise SourceError(
            f"expected at most max_gigabytes={max_bytes / GIGABYTE:g}, received source={source} with an "
            f"archive of {archives[0].bytes / GIGABYTE:,.1f} GB; raise max_gigabytes if that is right"
        )
    path = archives[0].path
    return open_archive(stored.download([path])[path], path.name, max_bytes=max_bytes)


def _kaggle_handle(source: str) -> str:
    return source.partition(":")[2] or kermany.KAGGLE_HANDLE


def _given_card(contents: Contents, layout: Layout) -> DatasetCard | None:
    """Card that lies beside the images of the source."""
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


def _check(source: str, name: str, layout: Layout, expect: Expect, given: DatasetCard | None, downloads: Path) -> bool:
    """Check the numbers where they are known; whether the source is the whole Kermany set."""
    size = expected_bytes(source)
    meant = given.name == kermany.NAME if given is not None else kermany.is_meant(layout, name)
    if expect == "kermany" or (expect == "auto" and (meant or size is not None)):
        cached = not is_local(source) and not source.startswith(S3)
        remedy = f"delete {downloads / KAGGLE} and fetch again" if cached else "copy or download it again"
        kermany.check(layout.counts, layout.bytes, name, remedy, expected_bytes=size)
        return True
    return meant and kermany.is_whole(layout.counts)


def _card(
    source: str, name: str, layout: Layout, said: Description, given: DatasetCard | None, whole: bool
) -> DatasetCard:
    """Card from what the person says, else the source's own card, else the known set, else the name."""
    if given is not None and said.kind not in (AUTO, given.kind):
        raise SourceError(
            f"expected data_kind to agree with the source's {DATASET_FILE}, which says {given.kind!r}, received "
            f"data_kind={said.kind!r}; leave data_kind at auto"
        )
    if given is None and whole:
        given = DatasetCard(kermany.NAME, "patients", "", 0, 0, kermany.LICENCE)
    if given is None:
        given = DatasetCard(_stem(name), "patients", "", 0, 0, "unknown")
    return DatasetCard(
        name=given.name if said.name == AUTO else said.name,
        kind=given.kind if said.kind == "auto" else said.kind,
        source=label(source),
        images=len(layout.images),
        bytes=layout.bytes,
        licence=given.licence if said.licence == AUTO else said.licence,
    )


def _stem(name: str) -> str:
    last = PurePosixPath(name).name
    suffix = next((suffix for suffix in ARCHIVE_SUFFIXES[::-1] if last.lower().endswith(suffix)), "")
    return last[: len(last) - len(suffix)] or name


def _report(layout: Layout, name: str) -> None:
    for reason, paths in layout.ignored.items():
        level = logging.WARNING if reason == OTHER else logging.INFO
        logger.log(level, "%s: left out %s %s: %s", name, f"{len(paths):,}", reason, some(paths))


def _expect_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise SourceError(
            f"expected {size / GIGABYTE:,.2f} GB of free disk space for the images, received free="
            f"{free / GIGABYTE:,.2f} GB; make room"
        )


def _copy(contents: Contents, layout: Layout, folder: Path) -> None:
    """Write the kept files; each is checked against its declared size while it is read."""
    targets = {**layout.images, **layout.side}
    left = set(targets)
    with tqdm(total=len(left), unit=" files", desc=f"copy {contents.name}", disable=None) as bar:
        for entry, pieces in contents.read(targets):
            if entry.path not in left:
                raise SourceError(f"expected {str(entry.path)!r} once, received source={contents.name} with it twice")
            left.remove(entry.path)
            target = folder / targets[entry.path]
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, pieces)
            bar.update()
    if left:
        raise SourceError(f"expected all listed files, received source={contents.name} without {some(sorted(left))}")


def _write(target: Path, pieces: Iterator[bytes]) -> None:
    with target.open("xb") as stream:
        for piece in pieces:
            stream.write(piece)
