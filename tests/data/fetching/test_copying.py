"""Copying images from folders and archives into a data folder."""

from __future__ import annotations

import io
import json
import logging
import os
import tarfile
from collections.abc import Callable, Collection
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr.data.dataset import DatasetCard
from cxr.data.fetching import kermany
from cxr.data.fetching.layout import count_data_folder
from cxr.data.sources.opening import open_source
from cxr.errors import SourceError
from support.dicom_files import dicom_file, draw_12_bits
from support.fetch_requests import fetch_images, fetch_request


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32), dtype=np.uint8)
    return cv2.imencode(".jpeg", pixels)[1].tobytes()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with a broken and an empty image, system files and a nested copy."""
    folder = tmp_path / "hospital"
    for root in (folder / "xrays", folder / "xrays" / "xrays"):
        for number, path in enumerate(("NORMAL/a.jpeg", "NORMAL/b.jpeg", "PNEUMONIA/c.jpeg")):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(jpeg(number))
    (folder / "xrays/PNEUMONIA/broken.jpeg").write_bytes(jpeg(9)[:100])
    (folder / "xrays/PNEUMONIA/empty.jpeg").write_bytes(b"")
    (folder / "xrays/NORMAL/.DS_Store").write_bytes(b"x")
    (folder / "readme.txt").write_text("about")
    return folder


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[..., DatasetCard]:
    def fetch(source: Path | str, **parameters: object) -> DatasetCard:
        data = tmp_path / "data"
        data.mkdir()
        return fetch_images(source, data, downloads=tmp_path / "downloads", **parameters)

    return fetch


def test_the_table_of_patients_is_copied_with_the_images(
    images: Path, fetch: Callable[..., DatasetCard], tmp_path: Path
) -> None:
    table = "path,patient\nNORMAL/a.jpeg,one\n"
    (images / "xrays" / "patients.csv").write_text(table)
    fetch(images)
    assert (tmp_path / "data" / "patients.csv").read_text() == table
    assert not (tmp_path / "data" / "readme.txt").exists()


def pack(folder: Path, name: str, mode: str = "w") -> Path:
    path = folder.with_name(name)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        tar.add(folder, folder.name)
    return path


def kermany_tar(path: Path, missing: int = 0, every: int = 1) -> Path:
    """All 5,856 names of the published layout, with tiny files; the last ones or most may be missing."""
    styles = {"NORMAL": "IM-{:04}-0001.jpeg", "PNEUMONIA": "person{}_bacteria_{}.jpeg"}
    names = [
        f"chest_xray/{split}/{label}/{styles[label].format(number, number)}"
        for (split, label), count in kermany.COUNTS.items()
        for number in range(count)
    ]
    with tarfile.open(path, "w") as tar:
        for name in names[: len(names) - missing : every]:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"xyz"))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("packing", ["folder", "hospital.tar", "hospital.tgz"])
def test_images_are_copied_as_they_are(
    images: Path, tmp_path: Path, fetch: Callable[..., DatasetCard], packing: str
) -> None:
    source = images if packing == "folder" else pack(images, packing, "w:gz" if packing.endswith("gz") else "w")
    card = fetch(source)
    copied = files(tmp_path / "data")
    card_text = copied.pop("dataset.json")
    names = (
        "NORMAL/a.jpeg",
        "NORMAL/b.jpeg",
        "PNEUMONIA/c.jpeg",
        "PNEUMONIA/broken.jpeg",
        "PNEUMONIA/empty.jpeg",
    )
    assert copied == {name: (images / "xrays" / name).read_bytes() for name in names}
    size = sum(map(len, copied.values()))
    assert card == DatasetCard("hospital", "patients", source.name, 5, size, "unknown")
    assert json.loads(card_text)["images"] == 5


def test_what_is_left_out_is_logged(
    images: Path, fetch: Callable[..., DatasetCard], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        fetch(images)
    messages = {record.levelname: record.getMessage() for record in caplog.records}
    assert "readme.txt" in messages["WARNING"]
    assert "nested copy" in caplog.text
    assert ".DS_Store" in caplog.text


def test_name_kind_and_licence_can_be_given(images: Path, fetch: Callable[..., DatasetCard]) -> None:
    card = fetch(images, data_name="clinic", data_kind="patients", data_licence="CC BY 4.0")
    assert (card.name, card.kind, card.licence) == ("clinic", "patients", "CC BY 4.0")


def test_the_card_of_a_source_is_kept(images: Path, tmp_path: Path, fetch: Callable[..., DatasetCard]) -> None:
    DatasetCard("drawn", "phantom", "phantom", 1, 1, "CC0-1.0").write(images / "xrays")
    (images / "xrays" / "boxes.json").write_text("{}")
    card = fetch(images)
    assert (card.name, card.kind, card.images, card.licence) == ("drawn", "phantom", 5, "CC0-1.0")
    assert DatasetCard.read(tmp_path / "data") == card
    assert (tmp_path / "data" / "boxes.json").read_text() == "{}"


def test_phantoms_cannot_be_declared_patients(images: Path, fetch: Callable[..., DatasetCard]) -> None:
    DatasetCard("drawn", "phantom", "phantom", 1, 1, "CC0-1.0").write(images / "xrays")
    with pytest.raises(SourceError, match="data_kind='patients'"):
        fetch(images, data_kind="patients")


def test_a_card_that_cannot_be_read_is_an_error(images: Path, fetch: Callable[..., DatasetCard]) -> None:
    (images / "xrays" / "dataset.json").write_text("{}")
    with pytest.raises(SourceError, match="correct it or remove it"):
        fetch(images)


def test_links_to_files_inside_a_folder_are_copied_as_files(
    images: Path, tmp_path: Path, fetch: Callable[..., DatasetCard]
) -> None:
    (images / "xrays/NORMAL/link.jpeg").symlink_to("a.jpeg")
    fetch(images)
    copy = tmp_path / "data/NORMAL/link.jpeg"
    assert not copy.is_symlink()
    assert copy.read_bytes() == jpeg(0)


@pytest.mark.parametrize("link", ["NORMAL/link.jpeg", "train"])
@pytest.mark.parametrize("target", ["outside.jpeg", "elsewhere", "nowhere"])
def test_links_out_of_a_folder_are_never_followed(
    images: Path, tmp_path: Path, fetch: Callable[..., DatasetCard], link: str, target: str
) -> None:
    (tmp_path / "outside.jpeg").write_bytes(jpeg(5))
    (tmp_path / "elsewhere" / "NORMAL").mkdir(parents=True)
    (images / "xrays" / link).symlink_to(tmp_path / target)
    with pytest.raises(SourceError, match=f"xrays/{link} -> "):
        fetch(images)
    assert not any((tmp_path / "data").iterdir())


def test_the_published_set_gets_its_name_and_licence(tmp_path: Path, fetch: Callable[..., DatasetCard]) -> None:
    card = fetch(kermany_tar(tmp_path / "anything.tar"))
    assert card == DatasetCard("kermany", "patients", "anything.tar", 5856, 3 * 5856, kermany.LICENCE)


def test_a_partial_published_set_is_refused_before_anything_is_copied(
    tmp_path: Path, fetch: Callable[..., DatasetCard]
) -> None:
    with pytest.raises(SourceError, match=r"test/PNEUMONIA +390 +320 +70 missing"):
        fetch(kermany_tar(tmp_path / "anything.tar", missing=70))
    assert not any((tmp_path / "data").iterdir())


def test_a_set_that_differs_on_purpose_is_copied_as_it_is(tmp_path: Path, fetch: Callable[..., DatasetCard]) -> None:
    card = fetch(kermany_tar(tmp_path / "kermany-small.tar", every=100), expect="any")
    assert (card.name, card.images) == ("kermany-small", 59)


def test_the_published_number_of_images_can_be_demanded(images: Path, fetch: Callable[..., DatasetCard]) -> None:
    with pytest.raises(SourceError, match=r"images +5,856 +5 +5,851 missing"):
        fetch(images, expect="kermany")


def test_sources_that_are_too_large_are_refused(images: Path, fetch: Callable[..., DatasetCard]) -> None:
    with pytest.raises(SourceError, match="max_gigabytes"):
        fetch(images, max_gigabytes=1e-6)


@pytest.mark.parametrize("source", ["nowhere", "nowhere.tar", "kagle", "s4://bucket/x"])
def test_an_unknown_source_is_an_error_that_lists_the_choices(fetch: Callable[..., DatasetCard], source: str) -> None:
    with pytest.raises(
        SourceError, match=rf"expected dicomweb.*, kaggle, kaggle:owner/name, phantom, s3://.* received source={source}"
    ):
        fetch(source)


def test_an_empty_folder_is_named(tmp_path: Path, fetch: Callable[..., DatasetCard]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="source=empty, which holds no files"):
        fetch(tmp_path / "empty")


def test_labels_contain_no_folder_of_this_machine(tmp_path: Path) -> None:
    def label(address: str) -> str:
        return open_source(fetch_request(address)).label

    assert label(str(tmp_path / "set.tar")) == "set.tar"
    assert label("kaggle") == "kaggle:paultimothymooney/chest-xray-pneumonia"
    assert label("s3://bucket/set/") == "s3://bucket/set"


def write_dicom_set(folder: Path, names: Collection[str]) -> Path:
    """One radiograph under each name in each class folder, all different."""
    for offset, label in enumerate(("NORMAL", "PNEUMONIA")):
        (folder / label).mkdir(parents=True)
        for number, name in enumerate(names):
            stored = draw_12_bits() // 2 + np.uint16(100 * offset + number)
            (folder / label / name).write_bytes(dicom_file(stored, BitsStored=12))
    return folder


@pytest.mark.parametrize("packing", ["folder", "hospital.tar", "hospital.tgz"])
def test_labelled_dicom_files_are_copied_under_any_name(
    tmp_path: Path, fetch: Callable[..., DatasetCard], caplog: pytest.LogCaptureFixture, packing: str
) -> None:
    names = {"0001.dicom", "0002.DICOM", "0003.ima", "0004.DCM", "1.2.840.113.12", "IM000001", "a\nb.dcm", "ü.dcm"}
    folder = write_dicom_set(tmp_path / "hospital", names)
    (folder / "NORMAL" / "notes.txt").write_text("about")
    (folder / "NORMAL" / "LOCKFILE").touch()
    (folder / ".git" / "NORMAL").mkdir(parents=True)
    (folder / ".git" / "NORMAL" / "a.dcm").touch()
    source = folder if packing == "folder" else pack(folder, packing, "w:gz" if packing.endswith("gz") else "w")
    with caplog.at_level(logging.INFO):
        card = fetch(source)
    copied = files(tmp_path / "data")
    del copied["dataset.json"]
    expected = {f"{label}/{name}" for label in ("NORMAL", "PNEUMONIA") for name in names}
    assert copied == {name: (folder / name).read_bytes() for name in expected}
    assert (card.images, card.bytes) == (len(expected), sum(map(len, copied.values())))
    for name in ("notes.txt", "LOCKFILE", ".git"):
        assert name in caplog.text
    assert "set validate.naming to any" in caplog.text and "patients.csv" in caplog.text
    contents = count_data_folder(tmp_path / "data")
    assert (contents.images, contents.bytes, contents.foreign_files) == (card.images, card.bytes, ())


@pytest.mark.parametrize("packing", ["folder", "hospital.tar"])
def test_names_that_are_not_utf_8_are_refused_with_the_file_and_the_remedy(
    images: Path, tmp_path: Path, fetch: Callable[..., DatasetCard], packing: str
) -> None:
    name = os.fsdecode(b"R\xf6ntgen.jpeg")
    (images / "xrays" / "NORMAL" / name).write_bytes(jpeg(4))
    source = images if packing == "folder" else pack(images, packing)
    with pytest.raises(SourceError) as caught:
        fetch(source)
    assert r"NORMAL/R\xf6ntgen.jpeg'; rename" in str(caught.value)
    assert "convmv" in str(caught.value)
    assert not any((tmp_path / "data").iterdir())


def test_a_name_that_is_too_long_for_the_disk_is_named(tmp_path: Path, fetch: Callable[..., DatasetCard]) -> None:
    with tarfile.open(tmp_path / "long.tar", "w") as tar:
        for name in ("NORMAL/a.jpeg", f"PNEUMONIA/{'x' * 300}.jpeg"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(SourceError, match=r"'x{300}\.jpeg', received File name too long; .*rename the file"):
        fetch(tmp_path / "long.tar")


def test_a_file_that_may_not_be_read_is_named_with_the_way_out(images: Path, fetch: Callable[..., DatasetCard]) -> None:
    path = images / "xrays" / "NORMAL" / "a.jpeg"
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(SourceError, match=r"NORMAL/a\.jpeg; change the permissions"):
        fetch(images)


def test_names_of_files_that_dvc_reads_are_refused(
    images: Path, tmp_path: Path, fetch: Callable[..., DatasetCard]
) -> None:
    (images / "xrays" / "NORMAL" / "a.dvc").write_bytes(jpeg(4))
    with pytest.raises(SourceError, match=r"'xrays/NORMAL/a\.dvc'; rename"):
        fetch(images)
    assert not any((tmp_path / "data").iterdir())


@pytest.mark.real
def test_the_real_archive_is_the_whole_published_set(real_archive: Path, fetch: Callable[..., DatasetCard]) -> None:
    assert fetch(real_archive, expect="kermany").name == "kermany"


@pytest.mark.real
def test_a_real_sample_is_not_taken_for_the_whole_set(
    real_originals: Path, tmp_path: Path, fetch: Callable[..., DatasetCard]
) -> None:
    assert fetch(real_originals).images == 51
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"NORMAL", "PNEUMONIA", "dataset.json"}
