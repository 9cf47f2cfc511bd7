"""Copies or indexes the images of a source, and writes the dataset card."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from cxr.data.dataset import DatasetCard
from cxr.data.fetching import kermany
from cxr.data.fetching.archives import ARCHIVE_SUFFIXES
from cxr.data.fetching.indexing import index_images
from cxr.data.fetching.layout import SourceLayout, find_layout
from cxr.data.fetching.request import AUTO, FetchRequest
from cxr.data.fetching.rsna import read_rsna_set
from cxr.data.image_files import NESTED_COPY, SYSTEM_FILE, describe_left_out
from cxr.data.image_opening import open_raw_images
from cxr.data.manifest.patients import is_kermany_name
from cxr.errors import SourceError
from cxr.files import DATASET_FILE, PATIENTS_FILE, expect_free_space, is_disk_full, utf8_name
from cxr.storage.contents import GIGABYTE, SourceContents, each_once, shorten_list

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
    """Copy the images of a source as they are, also broken ones, or index them, and write the dataset card.

    Copied are the images in the class folders (:func:`cxr.data.image_files.choose_images`) under their own names and,
    beside these folders, ``dataset.json``, ``boxes.json`` and ``patients.csv``. A source in the format of the RSNA
    challenge has no class folders: its tables say which class, boxes and patient an image has
    (:mod:`cxr.data.fetching.rsna`). No pixel is decoded. Files that are left out are logged.

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
        SourceError: if the source is damaged, unsafe, too large, partial or of an unknown layout, if a name cannot be
            kept, or if its tables are wrong.
        DiskFullError: if the disk has no room for the images.
    """
    rsna_set = read_rsna_set(contents, accept_missing_images=request.expect == "any", remedy=remedy)
    layout = rsna_set.layout if rsna_set else find_layout(contents.entries, contents.name, contents.read_heads)
    _refuse_names(layout, contents.name)
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
    _log_ignored_files(layout, contents)
    _advise_about_patients(layout, contents.name, has_patients=rsna_set is not None)
    if request.index:
        index_images(contents, layout.images, folder, request)
        _copy_files(contents, layout.side, folder)
    else:
        expect_free_space(folder, layout.bytes, f"the images of {contents.name}")
        _copy_files(contents, {**layout.images, **layout.side}, folder)
    if rsna_set is not None:
        rsna_set.write_side_files(open_raw_images(folder))
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


def _refuse_names(layout: SourceLayout, name: str) -> None:
    """Refuse names with which DVC cannot keep the images: those that are not UTF-8, and those of its own files."""
    in_other_encodings = [path for path, target in layout.images.items() if utf8_name(target.name) != target.name]
    if in_other_encodings:
        raise SourceError(
            f"expected names in UTF-8, received source={name} with {len(in_other_encodings):,} in another encoding: "
            f"{shorten_list(in_other_encodings)}; rename these files (in a folder, for example, with `convmv -r -f "
            "latin1 -t utf8 --notest FOLDER`), unpack an archive for that and give the folder"
        )
    of_dvc = [path for path, target in layout.images.items() if target.suffix == ".dvc" or target.name == "dvc.yaml"]
    if of_dvc:
        raise SourceError(
            f"expected images with other names than those of DVC's own files, received source={name} with "
            f"{shorten_list(of_dvc)}; rename these files"
        )


def _log_ignored_files(layout: SourceLayout, contents: SourceContents) -> None:
    for reason, paths in layout.ignored.items():
        level = logging.INFO if reason in (SYSTEM_FILE, NESTED_COPY) else logging.WARNING
        log.log(level, "%s: %s", contents.name, describe_left_out(reason, paths))
    if folders := contents.hidden_folders:
        log.info("%s: left out hidden folders: %s", contents.name, shorten_list(folders))


def _advise_about_patients(layout: SourceLayout, name: str, *, has_patients: bool) -> None:
    """Say how the patients of a set become known whose file names do not tell them."""
    if has_patients or any(is_kermany_name(path.name) for path in layout.images):
        return
    if any(path.name == PATIENTS_FILE for path in layout.side):
        log.info("%s: patients are in %s: set validate.naming to any", name, PATIENTS_FILE)
    else:
        log.info(
            "%s: the file names do not say which patient they show: set validate.naming to any, where each name counts "
            "as a patient. If patients have several images, put a table %s with the columns path and patient beside "
            "the class folders and fetch again, so that no patient is in two splits. Patient IDs inside of DICOM files "
            "are never read",
            name,
            PATIENTS_FILE,
        )


def _copy_files(contents: SourceContents, targets: Mapping[PurePosixPath, PurePosixPath], folder: Path) -> None:
    """Write files; each is checked against its declared size while it is read."""
    with tqdm(total=len(targets), unit=" files", desc=f"copy {contents.name}", disable=None) as bar:
        for entry, pieces in each_once(contents.read(targets), targets, contents.name):
            target = folder / targets[entry.path]
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_new_file(target, pieces)
            bar.update()


def _write_new_file(target: Path, pieces: Iterator[bytes]) -> None:
    try:
        with target.open("xb") as stream:
            for piece in pieces:
                stream.write(piece)
    except FileExistsError as error:
        raise SourceError(
            f"expected names that differ on this disk, received {target.name!r} twice: the disk takes upper and lower "
            "case, or two ways of writing a letter, for the same; rename one of the files"
        ) from error
    except OSError as error:
        if is_disk_full(error):
            raise
        raise SourceError(
            f"expected to write a copy of {target.name!r}, received {error.strerror}; rename the file if its name is "
            "too long"
        ) from error
