"""The step predict: text for a few files, a table file for many; no half-written file, no repeated work."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cxr.cli.main import main
from cxr.data.image_files import NO_IMAGE, SYSTEM_FILE
from cxr.errors import ParameterError
from cxr.inference.predictor import Predictor
from cxr.inference.scoring.table import SCHEMA
from cxr.models.metadata import ModelMetadata
from cxr.steps.predict import Predict
from cxr.tracking.store import Store
from support.forked_processes import COMMAND, ForkedProcess
from support.model_folders import ModelFolders, write_models
from support.s3_server import S3Server
from support.servers import ObjectStore
from support.tracking_server import NAME, register_versions

COLUMNS = ["path", "label", "probability", "threshold", "version", "alias", "model", "error", "warning", "sha256"]
COLUMNS += ["width", "height"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    return write_models(tmp_path_factory.mktemp("predict"))


@pytest.fixture
def model(folders: ModelFolders) -> str:
    """The folder of a model whose evaluation is where the pipeline writes it."""
    return str(folders.models / "three_block")


@pytest.fixture
def images(folders: ModelFolders, tmp_path: Path) -> Path:
    """Twelve images and a broken one."""
    (tmp_path / "images" / "ward").mkdir(parents=True)
    for path in folders.images[:12]:
        (tmp_path / "images" / "ward" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "images" / "broken.jpeg").write_bytes(folders.images[2].read_bytes()[:-40])
    return tmp_path / "images"


def expected(folders: ModelFolders, count: int = 12) -> list[float]:
    predictor = Predictor.load(folders.models / "three_block", ModelMetadata.read(folders.evaluations / "three_block"))
    return [prediction.probability for prediction in predictor.predict(sorted(folders.images[:count]))]


def predict(*arguments: object) -> int:
    return main(["predict", *map(str, arguments)])


def versions_in(table: pd.DataFrame) -> set[tuple[str, str, str]]:
    """Versions, aliases and models in a table."""
    return set(table[["version", "alias", "model"]].itertuples(index=False, name=None))


def hidden_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".")}


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_folder_becomes_one_row_per_file(
    folders: ModelFolders, model: str, images: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"rows{suffix}"
    assert predict("--images", images, "--model", model, "--output", output, "--part_size", 5) == 0
    table = pd.read_parquet(output) if suffix == ".parquet" else pd.read_csv(output)
    assert list(table.columns) == COLUMNS
    assert table["path"].tolist() == ["broken.jpeg", *(f"ward/{path.name}" for path in sorted(folders.images[:12]))]
    assert table["probability"].tolist()[1:] == pytest.approx(expected(folders), abs=1e-6)
    assert table["error"].fillna("").str.partition(":")[0].tolist() == ["truncated", *12 * [""]]
    assert set(table["model"]) == {"three_block"}
    assert hidden_names(tmp_path) == {f".{output.name}.json"}, "the parts are removed"


def test_a_second_run_on_the_same_images_does_nothing(model: str, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.csv"
    arguments = ("--images", images, "--model", model, "--output", output)
    assert predict(*arguments) == 0
    output.write_text(output.read_text().replace("NORMAL", "MARKED"))
    assert predict(*arguments) == 0
    assert "MARKED" in output.read_text()
    (images / "broken.jpeg").unlink()
    assert predict(*arguments) == 0
    assert "MARKED" not in output.read_text() and "broken" not in output.read_text()


def test_files_that_are_left_out_stand_in_the_summary_and_the_log(
    model: str, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (images / "Thumbs.db").touch()
    for number in range(7):
        (images / f"report{number}").write_text("no image")
    arguments = ("--images", images, "--model", model, "--output", tmp_path / "rows.csv")
    assert predict(*arguments) == 0
    assert "left out 7 files (no JPEG, PNG or DICOM by name or content): 'report0', " in caplog.text
    assert "'report4' and 2 more" in caplog.text and "'Thumbs.db'" in caplog.text

    def left_out() -> dict[str, list[str]]:
        summary = json.loads((tmp_path / ".rows.csv.json").read_text())
        return {reason: figures["paths"] for reason, figures in summary["left_out"].items()}

    reports = [f"report{number}" for number in range(7)]
    assert left_out() == {NO_IMAGE: reports, SYSTEM_FILE: ["Thumbs.db"]}
    modified = (tmp_path / "rows.csv").stat().st_mtime_ns
    (images / "report7").write_text("no image")
    assert predict(*arguments) == 0
    assert (tmp_path / "rows.csv").stat().st_mtime_ns == modified, "no image is predicted again"
    assert left_out() == {NO_IMAGE: [*reports, "report7"], SYSTEM_FILE: ["Thumbs.db"]}


def test_a_truncated_table_is_written_again(model: str, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.csv"
    arguments = ("--images", images, "--model", model, "--output", output)
    assert predict(*arguments) == 0
    complete = output.read_bytes()
    output.write_bytes(complete[:200])
    assert predict(*arguments) == 0
    assert output.read_bytes() == complete


def test_another_model_predicts_again(folders: ModelFolders, images: Path, tmp_path: Path) -> None:
    other_folders = write_models(tmp_path / "other", ("shallow", "three_block"))
    output = tmp_path / "rows.csv"
    for models in (folders.models, other_folders.models):
        assert predict("--images", images, "--model", models / "three_block", "--output", output) == 0
    assert pd.read_csv(output)["probability"].tolist()[1:] != pytest.approx(expected(folders), abs=1e-3)


def test_as_a_component_it_reads_a_folder_and_writes_a_folder(model: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "old.txt").write_text("of an earlier run")
    assert predict("--images", images, "--model", model, "--predictions", tmp_path / "predictions") == 0
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == ["predictions.parquet", "summary.json"]
    summary = json.loads((tmp_path / "predictions" / "summary.json").read_text())
    assert (summary["images"], summary["answered"], summary["errors"]) == (13, 12, {"truncated": 1})
    assert summary["labels"].keys() == {"NORMAL", "PNEUMONIA"}
    assert str(tmp_path) not in json.dumps(summary)
    inode = (tmp_path / "predictions").stat().st_ino
    assert predict("--images", images, "--model", model, "--predictions", tmp_path / "predictions") == 0
    assert (tmp_path / "predictions").stat().st_ino == inode
    assert hidden_names(tmp_path) == set()


def test_predictions_for_a_few_files_are_printed(
    folders: ModelFolders, model: str, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = sorted((images / "ward").iterdir())[0]
    (images / "link.jpeg").symlink_to(first)
    assert predict(first, images / "broken.jpeg", images / "link.jpeg", "--model", model) == 0
    heading, normal, broken, link = capsys.readouterr().out.splitlines()
    assert heading.split() == ["file", "label", "probability", "threshold", "version"]
    assert normal.split() == [str(first), "NORMAL", f"{expected(folders)[0]:.1%}", "60.0%", "-"]
    assert broken.split()[1:3] == ["-", "truncated:"]
    assert link.split()[1:3] == normal.split()[1:3]


def test_without_any_prediction_the_exit_status_is_1(
    model: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(images / "broken.jpeg", "nowhere.jpeg", "--model", model) == 1
    errors = capsys.readouterr().err
    assert "expected at least one radiograph" in errors and "nowhere.jpeg: unreadable" in errors
    for path in (images / "ward").iterdir():
        path.unlink()
    assert predict("--images", images, "--model", model, "--predictions", tmp_path / "out") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_after_a_kill_continues(folders: ModelFolders, model: str, tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "rows.parquet"
    images.mkdir()
    for number in range(800):
        (images / f"{number:04d}.png").write_bytes(folders.images[number % 2].read_bytes())
    arguments = ["--images", str(images), "--model", model, "--output", str(output), "--part_size", "20"]
    process = ForkedProcess(COMMAND, "predict", *arguments, "--batch_size", "2")
    parts = tmp_path / ".rows.parquet.parts"
    deadline = time.monotonic() + 120
    while len(list(parts.glob("0*.parquet"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not output.exists()
    first = min(parts.glob("0*.parquet"))
    table = pq.read_table(first)
    marked = table.set_column(table.schema.get_field_index("error"), SCHEMA.field("error"), [["marked"] * len(table)])
    pq.write_table(marked, first)
    assert predict(*arguments) == 0
    table = pd.read_parquet(output)
    assert table["path"].tolist() == sorted(path.name for path in images.iterdir())
    assert table["error"].tolist() == 20 * ["marked"] + 780 * [""], "the first part was not written again"
    assert hidden_names(tmp_path) == {".rows.parquet.json"}


def test_the_registered_version_predicts_and_is_named(uri: str, images: Path, tmp_path: Path) -> None:
    folders = register_versions(tmp_path / "run", uri)
    arguments = ("--tracking_uri", uri, "--images", images, "--output", tmp_path / "rows.parquet")
    assert predict(*arguments) == 2, "no version is champion"
    Store(uri).client.set_registered_model_alias(NAME, "challenger", "1")
    assert predict(*arguments) == 2, "the challenger predicts only with --fallback"
    assert predict(*arguments, "--fallback", "challenger") == 0
    challenger = pd.read_parquet(tmp_path / "rows.parquet")
    assert set(zip(challenger["version"], challenger["alias"], challenger["model"], strict=True)) == {
        ("1", "challenger", "three_block")
    }
    assert challenger["probability"].tolist()[1:] == pytest.approx(expected(folders), abs=1e-6)
    Store(uri).client.set_registered_model_alias(NAME, "champion", "2")
    assert predict(*arguments, "--fallback", "challenger") == 0
    champion = pd.read_parquet(tmp_path / "rows.parquet")
    assert versions_in(champion) == {("2", "champion", "shallow")}
    assert predict(*arguments, "--version", "1") == 0
    by_number = pd.read_parquet(tmp_path / "rows.parquet")
    assert by_number["probability"].equals(challenger["probability"]) and set(by_number["version"]) == {"1"}
    assert by_number["alias"].isna().all()


def test_a_model_trained_on_phantoms_has_a_banner(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    phantom = write_models(tmp_path / "run", dataset={"name": "phantom", "kind": "phantom"})
    assert (
        predict("--images", images, "--model", phantom.models / "three_block", "--predictions", tmp_path / "out") == 0
    )
    assert "Trained on phantoms" in caplog.text
    assert "Trained on phantoms" in json.loads((tmp_path / "out" / "summary.json").read_text())["banner"]


def test_a_model_that_was_not_evaluated_is_refused(
    folders: ModelFolders, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "models" / "alone"
    alone.mkdir(parents=True)
    for path in (folders.models / "three_block").iterdir():
        (alone / path.name).write_bytes(path.read_bytes())
    arguments = ("--images", images, "--model", alone, "--output", tmp_path / "rows.csv")
    assert predict(*arguments) == 2
    assert "evaluations/alone" in capsys.readouterr().err
    assert predict(*arguments, "--evaluation", alone) == 2
    assert "run `cxr evaluate`" in capsys.readouterr().err
    assert predict(*arguments, "--evaluation", folders.evaluations / "three_block") == 0


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "expected image files, --images FOLDER"),
        ({"files": ["a.png"], "images": "x", "output": "a.csv"}, "received ['files', 'images']"),
        ({"images": "x"}, "expected one place for the rows"),
        ({"images": "x", "output": "a.csv", "predictions": "y"}, "received ['output', 'predictions']"),
        ({"images": "x", "output": "a.txt"}, "ends in .parquet or .csv"),
        ({"files": ["."]}, "given as --images"),
        ({"files": ["s3://bucket/x"]}, "given as --images"),
        ({"files": ["a.png"], "version": "champion"}, "version='champion'"),
    ],
)
def test_wrong_requests_say_what_was_expected(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ParameterError) as raised:
        Predict.build(values)
    assert sentence in str(raised.value)


def test_a_folder_without_images_is_an_error(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    assert predict("--images", tmp_path / "none", "--model", model, "--output", tmp_path / "rows.csv") == 1
    assert "received none with 0 other files and no image" in capsys.readouterr().err
    (tmp_path / "none" / "notes.txt").write_text("about")
    assert predict("--images", tmp_path / "none", "--model", model, "--output", tmp_path / "rows.csv") == 1
    assert "received none with 1 other files and no image" in capsys.readouterr().err
    assert predict("--images", tmp_path / "absent", "--model", model, "--output", tmp_path / "rows.csv") == 2


def test_images_that_arrive_damaged_are_read_again_by_the_next_run(
    folders: ModelFolders, model: str, tmp_path: Path, s3_store: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    names = [path.name for path in sorted(folders.images[:12])]
    for path in folders.images[:12]:
        s3_store.put(f"ward/{path.name}", path.read_bytes())
    s3_store.put("ward/zz.jpeg", b"no image")
    output, damaged = tmp_path / "rows.csv", names[3:10:2]
    arguments = ("--source", f"s3://{s3_store.bucket}/ward", "--endpoint_url", s3_store.url, "--model", model)
    arguments += ("--output", output, "--part_size", 5)
    s3_store.altered = {f"ward/{name}" for name in damaged}
    assert predict(*arguments) == 0
    errors = pd.read_csv(output).set_index("path")["error"].fillna("").str.partition(":")[0]
    assert errors.to_dict() == dict.fromkeys(names, "") | dict.fromkeys(damaged, "transfer") | {
        "zz.jpeg": "not_an_image"
    }
    assert json.loads((tmp_path / ".rows.csv.json").read_text())["digest"] is None
    assert "4 images did not arrive whole: run the same command again" in caplog.text

    s3_store.altered = set()
    s3_store.ranges.clear()
    assert predict(*arguments) == 0
    assert set(s3_store.ranges) == {f"ward/{name}" for name in damaged}, "the other images have their rows"
    assert pd.read_csv(output)["probability"].tolist()[:-1] == pytest.approx(expected(folders), abs=1e-6)
    assert hidden_names(tmp_path) == {".rows.csv.json"}, "the parts are removed"
    s3_store.ranges.clear()
    assert predict(*arguments) == 0
    assert not s3_store.ranges and "already holds the predictions" in caplog.text


def test_a_store_that_only_fails_ends_the_run(
    folders: ModelFolders,
    model: str,
    tmp_path: Path,
    s3_store: S3Server,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(40):
        s3_store.put(f"ward/{number:02d}.jpeg", folders.images[0].read_bytes())
    s3_store.altered = {f"ward/{number:02d}.jpeg" for number in range(2, 40)}
    output = tmp_path / "rows.csv"
    arguments = ("--source", f"s3://{s3_store.bucket}/ward", "--endpoint_url", s3_store.url, "--model", model)
    assert predict(*arguments, "--output", output, "--part_size", 40) == 1
    assert "other bytes than were listed" in capsys.readouterr().err
    assert not output.exists()
    assert sum(map(len, s3_store.ranges.values())) < 38 * 5, "not all objects are tried"


@pytest.mark.integration
def test_a_prefix_of_an_object_store_is_accepted_in_place_of_a_folder(
    folders: ModelFolders, model: str, bucket: str, object_store: ObjectStore, tmp_path: Path
) -> None:
    for path in folders.images[:4]:
        object_store.client().put_object(Bucket=bucket, Key=f"ward/{path.name}", Body=path.read_bytes())
    output = tmp_path / "rows.csv"
    assert predict("--images", f"s3://{bucket}/ward", "--model", model, "--output", output) == 0
    assert pd.read_csv(output)["probability"].tolist() == pytest.approx(expected(folders, 4), abs=1e-6)
