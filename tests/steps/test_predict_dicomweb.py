"""Predictions for the radiographs of an archive: Orthanc's DICOMweb on loopback, read image by image."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pydicom
import pytest

from cxr.cli.main import main
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.storage import dicomweb
from support.dicom_files import SECRET
from support.dicom_reports import HAS_DCIODVFY, errors_of, planted_values, radiograph, ramp
from support.model_folders import ModelFolders, write_models
from support.orthanc import HAS_DICOMWEB, PASSWORD, USER, Gate, Orthanc, running_orthanc

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not HAS_DICOMWEB, reason="Orthanc with its DICOMweb plugin is not installed"),
]
FIRST_STUDY = "1.2.826.0.1.3680043.8.498.77"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    return write_models(tmp_path_factory.mktemp("dicomweb"))


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Two radiographs of one study, another one of a later day, and a CT slice in the first study."""
    first = {"StudyInstanceUID": FIRST_STUDY, "StudyDate": "20240101"}
    return {
        "dx": radiograph(ramp(1), 1, **first),
        "cr": radiograph(ramp(2), 2, **first, Modality="CR", SOPClassUID="1.2.840.10008.5.1.4.1.1.1"),
        "ct": radiograph(ramp(3), 3, **first, Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2"),
        "later": radiograph(ramp(4), 4, StudyDate="20240601"),
    }


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]) -> Iterator[tuple[Orthanc, Gate]]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as (orthanc, gate):
        orthanc.store(list(contents.values()))
        yield orthanc, gate


@pytest.fixture
def gate(archive: tuple[Orthanc, Gate], monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setenv(dicomweb.USER_VARIABLE, USER)
    monkeypatch.setenv(dicomweb.PASSWORD_VARIABLE, PASSWORD)
    monkeypatch.setattr(dicomweb, "_PAUSE_SECONDS", 0.01)
    archive[1].disturbances.clear()
    archive[1].token, archive[1].images = None, 0
    return archive[1]


def predict(folders: ModelFolders, *arguments: object) -> int:
    return main(["predict", "--model", str(folders.models / "three_block"), *map(str, arguments)])


def uid_of(content: bytes) -> str:
    return str(pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).SOPInstanceUID)


def series_of(content: bytes) -> str:
    return str(pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).SeriesInstanceUID)


def name_of(content: bytes) -> str:
    return hashlib.sha256(uid_of(content).encode()).hexdigest()[:24]


def expected(folders: ModelFolders, contents: list[bytes]) -> dict[str, float]:
    predictor = Predictor.load(folders.models / "three_block", ModelMetadata.read(folders.evaluations / "three_block"))
    predictions = predictor.predict(contents)
    return {name_of(content): answer.probability for content, answer in zip(contents, predictions, strict=True)}


def test_the_radiographs_of_a_study_get_the_same_answer_as_their_files(
    folders: ModelFolders, gate: Gate, contents: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "rows.parquet"
    assert predict(folders, "--dicomweb", gate.address, "--study", FIRST_STUDY, "--output", output) == 0
    table = pd.read_parquet(output).set_index("path")
    assert dict(table["probability"]) == pytest.approx(expected(folders, [contents["dx"], contents["cr"]]))
    assert gate.images == 2, "nothing but CR and DX is fetched, each once"


def test_studies_since_a_day_are_read_and_reports_go_back_into_the_archive(
    folders: ModelFolders, archive: tuple[Orthanc, Gate], gate: Gate, contents: dict[str, bytes], tmp_path: Path
) -> None:
    orthanc, reports, captures = archive[0], tmp_path / "sr", tmp_path / "pictures"
    arguments = ("--dicomweb", gate.address, "--since", "2024-03-01", "--output", tmp_path / "rows.csv")
    assert predict(folders, *arguments, "--keep_uids", "true", "--sr", reports, "--captures", captures) == 0
    source = pydicom.dcmread(io.BytesIO(contents["later"]))
    uids = f"{source.StudyInstanceUID}/{source.SeriesInstanceUID}/{source.SOPInstanceUID}"
    assert list(pd.read_csv(tmp_path / "rows.csv")["path"]) == [uids]
    for folder, modality in ((reports, "SR"), (captures, "OT")):
        (file,) = folder.iterdir()
        (number,) = orthanc.store([file.read_bytes()])
        assert orthanc.store([file.read_bytes()]) == [number], "the archive keeps one instance"
        study = orthanc.request(f"/instances/{number}/study")["MainDicomTags"]
        assert study["StudyInstanceUID"] == source.StudyInstanceUID
        tags = orthanc.request(f"/instances/{number}/simplified-tags")
        assert tags["PatientName"] == f"{SECRET}^Person" and tags["Modality"] == modality
        if HAS_DCIODVFY:
            assert errors_of(file) == []


def test_what_can_pass_is_asked_for_again_and_the_rest_by_the_next_run(
    folders: ModelFolders, gate: Gate, contents: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "rows.parquet"
    arguments = ("--dicomweb", gate.address, "--study", FIRST_STUDY, "--output", output)
    gate.disturbances[uid_of(contents["dx"])] = [503, "cut"]
    gate.disturbances[uid_of(contents["cr"])] = ["cut", "cut", 502, "cut"]
    assert predict(folders, *arguments) == 0
    table = pd.read_parquet(output).set_index("path")
    assert table.loc[name_of(contents["dx"]), "error"] == ""
    assert table.loc[name_of(contents["cr"]), "error"].startswith("transfer: ")
    fetched = gate.images
    assert predict(folders, *arguments) == 0 and gate.images == fetched + 1
    assert set(pd.read_parquet(output)["error"]) == {""}


def test_a_run_that_ended_keeps_its_reports_for_the_next_one(
    folders: ModelFolders, gate: Gate, contents: dict[str, bytes], tmp_path: Path
) -> None:
    reports = tmp_path / "sr"
    arguments = ("--dicomweb", gate.address, "--study", FIRST_STUDY, "--output", tmp_path / "rows.csv", "--sr", reports)
    one_by_one = ("--part_size", 1, "--batch_size", 1, "--workers", 1)
    first, second = sorted((contents["dx"], contents["cr"]), key=series_of)
    gate.disturbances[uid_of(second)] = [403]
    assert predict(folders, *arguments, *one_by_one) == 1
    assert not reports.exists() and not (tmp_path / "rows.csv").exists()
    fetched = gate.images
    assert predict(folders, *arguments, *one_by_one) == 0 and gate.images == fetched + 1
    assert {path.stem for path in reports.iterdir()} == {hashlib.sha256(each).hexdigest() for each in (first, second)}
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".parts")], "nothing is left beside"


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({dicomweb.PASSWORD_VARIABLE: "wrong-password"}, "expected access to the archive"),
        ({dicomweb.USER_VARIABLE: ""}, "expected access to the archive"),
        ({dicomweb.TOKEN_VARIABLE: "wrong-token"}, "expected access to the archive"),
    ],
)
def test_wrong_credentials_are_told_and_not_shown(
    folders: ModelFolders, gate: Gate, tmp_path: Path, variables: dict[str, str], sentence: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    arguments = ("--dicomweb", gate.address, "--study", FIRST_STUDY, "--output", tmp_path / "rows.csv")
    assert predict(folders, *arguments) == 1
    messages = capsys.readouterr().err
    assert sentence in messages and not any(
        value in messages for value in (*variables.values(), PASSWORD, USER) if value
    )
    assert list(tmp_path.iterdir()) == []


def test_a_bearer_token_opens_an_archive_that_asks_for_one(
    folders: ModelFolders, gate: Gate, contents: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    gate.token = "token-of-the-archive"
    output = tmp_path / "rows.parquet"
    arguments = ("--dicomweb", gate.address, "--study", FIRST_STUDY, "--output", output)
    assert predict(folders, *arguments) == 1 and "received status=401" in capsys.readouterr().err
    monkeypatch.setenv(dicomweb.TOKEN_VARIABLE, gate.token)
    assert predict(folders, *arguments) == 0
    table = pd.read_parquet(output).set_index("path")
    assert dict(table["probability"]) == pytest.approx(expected(folders, [contents["dx"], contents["cr"]]))
    assert gate.token not in capsys.readouterr().err


def test_nothing_but_reports_says_whose_images_they_were(
    folders: ModelFolders, gate: Gate, contents: dict[str, bytes], tmp_path: Path,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    logging.getLogger("dicomweb_client").setLevel(logging.NOTSET)
    gate.disturbances[uid_of(contents["dx"])] = [503, "cut"]
    gate.disturbances[uid_of(contents["cr"])] = [404]
    arguments = ("--dicomweb", gate.address, "--study", FIRST_STUDY, "--predictions", tmp_path / "out")
    assert predict(folders, *arguments, "--sr", tmp_path / "sr") == 0
    planted = planted_values(list(contents.values()))
    for path in (tmp_path / "out").iterdir():
        assert [value for value in planted if value in path.read_bytes()] == [], path.name
    output = capfd.readouterr()
    messages = (caplog.text + output.out + output.err + " ".join(map(str, tmp_path.rglob("*")))).encode()
    assert [value for value in planted if value in messages] == []
    assert set(pd.read_parquet(tmp_path / "out" / "predictions.parquet")["error"].str.partition(":")[0]) == {
        "", "unreadable"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--dicomweb", "http://user:hidden-word@127.0.0.1:1/dicom-web", "--study", "1.2"], "without user, password"),
        (["--dicomweb", "http://127.0.0.1:1/dicom-web"], "expected study or since with dicomweb"),
        (["--study", "1.2"], "expected dicomweb with study"),
        (["--dicomweb", "http://127.0.0.1:1/dicom-web", "--study", f"{SECRET}"], "expected study to be a UID"),
        (["--dicomweb", "http://127.0.0.1:1/dicom-web", "--since", "yesterday"], "expected since to be a valid date"),
    ],
)
def test_wrong_requests_say_what_was_expected(
    folders: ModelFolders, arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(folders, *arguments, "--output", tmp_path / "rows.csv") == 2
    messages = capsys.readouterr().err
    assert sentence in messages and "hidden-word" not in messages and SECRET not in messages


def test_an_archive_that_does_not_answer_ends_the_run(
    folders: ModelFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dicomweb, "_PAUSE_SECONDS", 0.01)
    address = "http://127.0.0.1:1/dicom-web"
    assert predict(folders, "--dicomweb", address, "--study", FIRST_STUDY, "--output", tmp_path / "rows.csv") == 1
    messages = capsys.readouterr().err
    assert "expected an answer from the archive 127.0.0.1:1, received ConnectionError" in messages
    assert FIRST_STUDY not in messages and list(tmp_path.iterdir()) == []
