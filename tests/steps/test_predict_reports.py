"""Reports of a batch: one per DICOM image, valid, named by a digest, whole or not at all, and identity nowhere else."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

import pandas as pd
import pydicom
import pytest

from cxr.cli.main import main
from cxr.dicom_report.answer import NOTICE
from cxr.images.decoding import decode_grey
from support.chest_models import BACTERIAL, HEALTHY, LETTER, write_chest_models
from support.dicom_files import SECRET
from support.dicom_reports import HAS_DCIODVFY, content_items, errors_of, planted_values, radiograph

needs_dciodvfy = pytest.mark.skipif(not HAS_DCIODVFY, reason="dicom3tools is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chest_models(tmp_path_factory.mktemp("reports")).models / "three_block"


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    healthy, ill, letter = (decode_grey(data) for data in (HEALTHY, BACTERIAL, LETTER))
    return {
        "healthy.dcm": radiograph(healthy, 1),
        "ill.dcm": radiograph(ill, 2),
        "letter.dcm": radiograph(letter, 3),
        "side.dcm": radiograph(ill, 4, ViewPosition="LL"),
        "no_study.dcm": radiograph(healthy, 5, StudyInstanceUID=None),
        "drawn.jpeg": HEALTHY,
    }


@pytest.fixture
def images(contents: dict[str, bytes], tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def predict(model: Path, *arguments: object) -> int:
    return main(["predict", "--model", str(model), *map(str, arguments)])


def digest(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}.dcm"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_each_dicom_image_gets_a_report_and_a_picture_of_the_same_answer(
    model: Path, images: Path, contents: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows, reports, captures = tmp_path / "rows.csv", tmp_path / "sr", tmp_path / "pictures"
    assert predict(model, "--images", images, "--output", rows, "--sr", reports, "--captures", captures) == 0
    reported = {"healthy.dcm", "ill.dcm", "letter.dcm", "side.dcm"}
    assert names(reports) == {digest(contents[name]) for name in reported}
    assert names(captures) == {digest(contents[name]) for name in reported - {"side.dcm"}}
    assert "2 files got no report: 1 no_dicom, 1 unidentified" in caplog.text
    table = pd.read_csv(rows, keep_default_na=False).set_index("path")
    for name in reported:
        report = pydicom.dcmread(reports / digest(contents[name]))
        source = pydicom.dcmread(images / name)
        items = dict(content_items(report))
        assert report.PatientName == source.PatientName and report.StudyInstanceUID == source.StudyInstanceUID
        assert items["Source of Measurement"] == source.SOPInstanceUID
        row = table.loc[name]
        if row["error"]:
            kind, _, text = row["error"].partition(": ")
            assert items["Reason why there is no prediction"] == kind.upper()[:16]
            assert text in [value for _, value in content_items(report)]
            assert "Label of the model" not in items
        else:
            assert items["Calibrated probability of pneumonia"] == pytest.approx(float(row["probability"]), abs=1e-6)
            assert items["Operating point on the probability of pneumonia"] == pytest.approx(float(row["threshold"]))
            assert items["Label of the model"] == row["label"]
        assert NOTICE in [value for _, value in content_items(report)]
    ill = pydicom.dcmread(captures / digest(contents["ill.dcm"]))
    assert ill.BurnedInAnnotation == "YES" and NOTICE in ill.DerivationDescription
    assert (ill.pixel_array[..., 0] != ill.pixel_array[..., 2]).any(), "heat is coloured"
    letter = pydicom.dcmread(captures / digest(contents["letter.dcm"])).pixel_array
    assert (letter[..., 0] == letter[..., 2]).all(), "a refused image has no heat"
    if HAS_DCIODVFY:
        files = [*reports.iterdir(), *captures.iterdir()]
        assert {file.name: errors_of(file) for file in files} == {file.name: [] for file in files}


def test_identity_is_in_the_reports_alone(
    model: Path,
    images: Path,
    contents: dict[str, bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    folders = ("--sr", tmp_path / "sr", "--captures", tmp_path / "pictures")
    assert predict(model, "--images", images, "--predictions", tmp_path / "out", *folders) == 0
    reported = [content for name, content in contents.items() if name not in ("no_study.dcm", "drawn.jpeg")]
    planted = planted_values(reported)
    assert any(SECRET.encode() in path.read_bytes() for path in (tmp_path / "sr").iterdir())
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.parts[-2] not in
               ("images", "sr", "pictures")]  # fmt: skip
    assert {path.name for path in written} >= {"predictions.parquet", "summary.json"}
    for path in written:
        assert [value for value in planted if value in path.read_bytes()] == [], path.name
    output = capfd.readouterr()
    messages = (caplog.text + output.out + output.err + " ".join(map(str, tmp_path.rglob("*")))).encode()
    assert [value for value in planted if value in messages] == []


def test_without_identity_only_uids_of_the_study_remain(
    model: Path, images: Path, contents: dict[str, bytes], tmp_path: Path
) -> None:
    reports, captures = tmp_path / "sr", tmp_path / "pictures"
    file = images / "ill.dcm"
    assert predict(model, file, "--sr", reports, "--captures", captures, "--deidentified", "true") == 0
    for path in (reports / digest(contents["ill.dcm"]), captures / digest(contents["ill.dcm"])):
        assert SECRET.encode() not in path.read_bytes() and b"19610203" not in path.read_bytes()
        dataset = pydicom.dcmread(path)
        assert dataset.PatientIdentityRemoved == "YES" and not dataset.PatientID and not dataset.StudyDate
        assert dataset.StudyInstanceUID == pydicom.dcmread(file).StudyInstanceUID
        if HAS_DCIODVFY:
            assert errors_of(path) == []


def test_what_is_there_is_not_written_again_and_what_is_missing_is(
    model: Path, images: Path, contents: dict[str, bytes], tmp_path: Path
) -> None:
    reports, name = tmp_path / "sr", digest(contents["ill.dcm"])
    arguments = ("--images", images, "--output", tmp_path / "rows.csv", "--sr", reports)
    assert predict(model, *arguments) == 0
    written = (reports / name).stat().st_mtime_ns
    assert predict(model, *arguments) == 0 and (reports / name).stat().st_mtime_ns == written
    shutil.rmtree(reports)
    assert predict(model, *arguments) == 0 and (reports / name).stat().st_mtime_ns > written


def test_the_summary_keeps_why_images_have_no_report_when_a_run_continues(
    model: Path, images: Path, tmp_path: Path
) -> None:
    rows, reports, parts = tmp_path / "rows.csv", tmp_path / "sr", tmp_path / "parts"
    arguments = ("--images", images, "--output", rows, "--sr", reports, "--parts", parts)
    rows.mkdir()
    with pytest.raises(IsADirectoryError):
        predict(model, *arguments)
    assert list(parts.glob("*.parquet")), "all rows exist, and the table does not"
    rows.rmdir()
    for _ in range(2):
        assert predict(model, *arguments) == 0
        summary = json.loads((tmp_path / ".rows.csv.json").read_text())
        assert summary["without_report"] == {"no_dicom": 1, "unidentified": 1}
    assert not parts.exists() and len(names(reports)) == 4


def test_a_folder_with_other_files_is_never_replaced(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = names(images)
    assert predict(model, "--images", images, "--output", tmp_path / "rows.csv", "--sr", images) == 2
    assert "expected sr to be a new folder" in capsys.readouterr().err and names(images) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sr", "a", "--captures", "a"], "expected two folders"),
        (["--sr", "a", "--regions", "true"], "expected reports of a classifier"),
    ],
)
def test_wrong_requests_say_what_was_expected(
    model: Path, images: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(model, images / "ill.dcm", *arguments) == 2
    assert sentence in capsys.readouterr().err
