"""Training images from an archive: the studies of a table, with its labels and patients."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pydicom
import pytest

from cxr.cli.main import main
from cxr.data.dataset import DatasetCard
from cxr.data.image_index import read_index
from cxr.data.image_opening import open_raw_images
from cxr.steps.preprocess import Preprocess
from cxr.steps.validate import CheckName, Validate
from cxr.storage import dicomweb
from support.dicom_reports import planted_values, radiograph, ramp
from support.folder_digests import folder_digests
from support.orthanc import HAS_DICOMWEB, PASSWORD, USER, Gate, running_orthanc
from support.s3_server import S3Server

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not HAS_DICOMWEB, reason="Orthanc with its DICOMweb plugin is not installed"),
]
CONTENTS = [radiograph(ramp(number), number) for number in range(1, 4)]
CONTENTS.append(radiograph(ramp(4), 4, Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2"))


COLUMNS = ("StudyInstanceUID", "label", "patient")


def study_of(content: bytes) -> str:
    return str(pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).StudyInstanceUID)


ROWS = [[study_of(content), label, patient] for content, label, patient in
        zip(CONTENTS, ("NORMAL", "PNEUMONIA", "PNEUMONIA"), ("p1", "p2", "p1"), strict=False)]  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as (orthanc, gate):
        orthanc.store(CONTENTS)
        yield gate


@pytest.fixture
def gate(running: Gate, monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setenv(dicomweb.USER_VARIABLE, USER)
    monkeypatch.setenv(dicomweb.PASSWORD_VARIABLE, PASSWORD)
    monkeypatch.setattr(dicomweb, "_PAUSE_SECONDS", 0.01)
    running.disturbances.clear()
    running.images = 0
    return running


def write_labels(folder: Path, rows: list[list[str]], columns: tuple[str, ...] = COLUMNS) -> Path:
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder / "labels.csv"


def fetch(folder: Path, address: str, *arguments: object) -> int:
    source = f"dicomweb+{address}"
    places = ("--data", folder / "data", "--downloads", folder / "downloads")
    return main(["fetch", "--source", source, *map(str, (*places, *arguments))])


def test_studies_of_a_table_become_a_data_folder(gate: Gate, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    labels = write_labels(tmp_path, ROWS)
    gate.disturbances[study_of(CONTENTS[1]) + "/series/"] = ["cut", 503]
    assert fetch(tmp_path, gate.address, "--labels", labels) == 0
    images = sorted((tmp_path / "data").rglob("*.dcm"))
    assert {path.read_bytes() for path in images} == set(CONTENTS[:3])
    assert [path.parent.name for path in images] == ["NORMAL", "PNEUMONIA", "PNEUMONIA"]
    with (tmp_path / "data" / "patients.csv").open() as file:
        patients = {row["path"]: row["patient"] for row in csv.DictReader(file)}
    assert sorted(patients.values()) == ["p1", "p1", "p2"]
    assert patients.keys() == {path.relative_to(tmp_path / "data").as_posix() for path in images}
    assert DatasetCard.read(tmp_path / "data").kind == "patients"
    output = capfd.readouterr()
    messages = output.out + output.err + " ".join(map(str, tmp_path.rglob("*")))
    assert [value for value in planted_values(CONTENTS) if value.decode() in messages] == []
    requests = gate.images
    assert fetch(tmp_path, gate.address, "--labels", labels) == 0 and gate.images == requests, "nothing is left to do"
    labels = write_labels(tmp_path, ROWS[:2])
    assert fetch(tmp_path, gate.address, "--labels", labels) == 0
    assert len(list((tmp_path / "data").rglob("*.dcm"))) == 2, "another table gives other images"


@pytest.mark.parametrize(("rows", "requests", "images"), [(ROWS, 1, 3), (ROWS[::2], 1, 2)])
def test_an_interrupted_fetch_continues_with_what_the_table_names(
    gate: Gate, tmp_path: Path, rows: list[list[str]], requests: int, images: int
) -> None:
    instance = str(pydicom.dcmread(io.BytesIO(CONTENTS[2])).SOPInstanceUID)
    gate.disturbances[instance] = [503] * 4
    assert fetch(tmp_path, gate.address, "--labels", write_labels(tmp_path, ROWS)) == 1
    assert not (tmp_path / "data").exists()
    requests_before = gate.images
    assert fetch(tmp_path, gate.address, "--labels", write_labels(tmp_path, rows)) == 0
    assert gate.images == requests_before + requests, "images that had arrived are not fetched again"
    assert len(list((tmp_path / "data").rglob("*.dcm"))) == images


def test_an_index_of_an_archive_holds_the_images_of_the_folder(
    gate: Gate, s3_store: S3Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    labels = ("--labels", write_labels(tmp_path, ROWS))
    folder, address = tmp_path / "folder", tmp_path / "address"
    store = ("--index", "true", "--image_store", f"s3://{s3_store.bucket}/images", "--endpoint_url", s3_store.url)
    assert fetch(folder, gate.address, *labels) == 0
    assert fetch(address, gate.address, *labels, *store) == 0
    copied, indexed = open_raw_images(folder / "data"), open_raw_images(address / "data")
    assert {path.name for path in (address / "data").iterdir()} == {"images.parquet", "dataset.json", "patients.csv"}
    for name in ("dataset.json", "patients.csv"):
        assert (address / "data" / name).read_bytes() == (folder / "data" / name).read_bytes()
    assert indexed.names() == copied.names() and len(copied.names()) == 3
    assert [indexed.read(name) for name in indexed.names()] == [copied.read(name) for name in copied.names()]
    assert not list((address / "downloads").rglob("*.dcm")), "the object store holds them"
    prepared = []
    for root in (folder, address):
        values = {"data": root / "data", "manifest": root / "manifest", "cache_gigabytes": 0}
        Validate.build(
            {**values, "image_cache_gigabytes": 0, "naming": "any", "min_side": 16, "tracking_uri": "",
             **{name: root / name for name in ("report", "baseline", "rejected")},
             "severity": dict.fromkeys(get_args(CheckName), "off")}
        ).execute()  # fmt: skip
        Preprocess.build(
            {**values, "image_cache_gigabytes": 0, "recipe": "s2_resize", "prepared": root / "p"}
        ).execute()
        prepared.append((folder_digests(root / "p"), (root / "manifest" / "manifest.parquet").read_bytes()))
    assert prepared[0] == prepared[1]
    output = capfd.readouterr()
    object_names_and_output = (
        output.out + output.err + str(s3_store.client.list_objects_v2(Bucket=s3_store.bucket)["Contents"])
    )
    table = read_index(address / "data").to_csv()
    assert [value for value in planted_values(CONTENTS) if value.decode() in object_names_and_output + table] == []


def test_an_index_that_the_store_interrupts_is_continued_without_the_archive(
    gate: Gate, s3_store: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--labels", write_labels(tmp_path, ROWS), "--index", "true")
    assert fetch(tmp_path, gate.address, *arguments) == 2, "an archive keeps no images for readers without its login"
    assert "name a place for the images as image_store" in capsys.readouterr().err
    arguments += ("--image_store", f"s3://{s3_store.bucket}/images", "--endpoint_url", s3_store.url)
    s3_store.answers_left = 1
    assert fetch(tmp_path, gate.address, *arguments) == 1
    assert not (tmp_path / "data").exists()
    s3_store.answers_left, images = None, gate.images
    assert fetch(tmp_path, gate.address, *arguments) == 0
    assert gate.images == images, "images that had arrived are not fetched again"
    assert len(read_index(tmp_path / "data")) == 3
    assert fetch(tmp_path, gate.address, *arguments) == 0 and gate.images == images, "nothing is left to do"


@pytest.mark.parametrize(
    ("rows", "columns", "sentence"),
    [
        (None, (), "because an archive has no class folders"),
        ([], ("StudyInstanceUID", "label"), "without patient"),
        ([], COLUMNS, "without a row"),
        ([[ROWS[0][0], "ill", "p"]], COLUMNS, "1 rows with a label other than"),
        ([["4711-x", "NORMAL", ""]], COLUMNS, "no valid StudyInstanceUID; 1 rows with an empty"),
        ([[study_of(CONTENTS[3]), "NORMAL", "p"]], COLUMNS, "1 studies without"),
    ],
)  # fmt: skip
def test_a_table_that_labels_nothing_is_refused_without_its_values(
    gate: Gate, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    rows: list[list[str]] | None, columns: tuple[str, ...], sentence: str,
) -> None:  # fmt: skip
    arguments = () if rows is None else ("--labels", write_labels(tmp_path, rows, columns))
    assert fetch(tmp_path, gate.address, *arguments) == 1
    messages = capsys.readouterr().err
    assert sentence in messages and "4711-x" not in messages and not (tmp_path / "data").exists()
    assert [value for value in planted_values(CONTENTS) if value.decode() in messages] == []
