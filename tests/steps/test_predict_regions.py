"""The step predict with regions: boxes in pixels of each original, refusals with reasons, no repeated work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cxr.cli.main import main
from cxr.regions.scoring import BOX_SCHEMA
from cxr.steps.app import App
from cxr.steps.node import Node
from cxr.steps.predict import Predict
from cxr.steps.register_regions import RegisterRegions
from cxr.steps.serve import Serve
from support.chest_models import HEALTHY, LETTER, chest_reference, write_versions
from support.dicom_files import dicom_file
from support.model_folders import write_models
from support.small_detector import (
    MODEL,
    DetectorFolders,
    add_version,
    bright_rectangle,
    overlap,
    png,
    set_detector_alias,
    write_detector,
)

SIZES = {"small.png": (300, 260), "square.png": (1024, 1024), "large.png": (2500, 2048), "wide.png": (400, 900)}
BOX = ["x", "y", "width", "height"]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> DetectorFolders:
    return write_detector(tmp_path_factory.mktemp("regions"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes with an opacity, one without, and a broken one."""
    folder = tmp_path_factory.mktemp("images")
    for name, size in SIZES.items():
        (folder / name).write_bytes(png(bright_rectangle(*size)[0]))
    inverted = 255 - bright_rectangle(600, 500)[0]
    (folder / "inverted.dcm").write_bytes(dicom_file(inverted, PhotometricInterpretation="MONOCHROME1"))
    (folder / "dark.png").write_bytes(png(np.full((300, 260), 40, np.uint8)))
    (folder / "broken.png").write_bytes(png(bright_rectangle(300, 260)[0])[:-40])
    (folder / "README").write_text("no image")
    return folder


def predict(*arguments: object) -> int:
    return main(["predict", "--regions", "true", *map(str, arguments)])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_boxes_of_a_folder_are_in_pixels_of_the_originals(detector, images, tmp_path, suffix):
    output = tmp_path / f"boxes{suffix}"
    assert predict("--images", images, "--model", detector.trained, "--output", output, "--part_size", 2) == 0
    table = pd.read_csv(output) if suffix == ".csv" else pd.read_parquet(output)
    assert list(table.columns) == BOX_SCHEMA.names
    assert table["path"].tolist() == sorted([*SIZES, "inverted.dcm"]), "one box each, none without an opacity"
    rows = table.set_index("path")
    for name, size in {**SIZES, "inverted.dcm": (600, 500)}.items():
        assert overlap(rows.loc[name, BOX].to_numpy(np.float64), bright_rectangle(*size)[1]) > 0.95, name
    assert rows["score"].between(0.5, 1).all()
    assert set(table["model"]) == {MODEL} and set(table["trained_on"]) == {"phantom"}
    summary = json.loads((tmp_path / f".{output.name}.json").read_text())
    assert (summary["images"], summary["searched"], summary["with_boxes"], summary["boxes"]) == (7, 6, 5, 5)
    assert summary["errors"] == {"truncated": 1}
    assert summary["left_out"]["no_image"]["paths"] == ["README"]
    (unanswered,) = summary["without_answer"]
    assert unanswered["path"] == "broken.png" and unanswered["reason"].startswith("truncated: ")
    assert "drawn phantoms" in summary["banner"] and summary["threshold"] == 0.5
    assert {path.name for path in tmp_path.iterdir()} == {output.name, f".{output.name}.json"}, "no parts remain"


def test_the_boxes_of_shards_are_joined(detector, images, tmp_path):
    common = ("--images", images, "--model", detector.trained, "--part_size", 2)
    assert predict(*common, "--output", tmp_path / "whole.csv") == 0
    for number in (1, 2, 3):
        assert predict(*common, "--predictions", tmp_path / "scored" / str(number), "--shard", f"{number}/3") == 0
    assert predict(*common, "--output", tmp_path / "joined.csv", "--scored", tmp_path / "scored") == 0
    assert (tmp_path / "joined.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len(list(tmp_path.glob("scored/*/*.parquet"))) == 4


def test_boxes_of_a_few_files_are_printed(detector, images, capsys):
    files = [images / "square.png", images / "dark.png", images / "broken.png", images / "square.png"]
    assert predict(*files, "--model", detector.trained) == 0
    heading, first, dark, broken, second, summary = capsys.readouterr().out.splitlines()
    assert heading.split() == ["file", *BOX, "score"]
    path, *values = first.split()
    assert path == str(files[0])
    assert overlap(np.array(values[:4], np.float64), bright_rectangle(1024, 1024)[1]) > 0.95
    assert "no opacity above the threshold" in dark
    assert "truncated: " in broken
    assert second == first
    assert summary == "2 boxes in 2 of 4 images; 1 without an answer: 1 truncated"


def test_a_second_run_repeats_nothing_and_another_threshold_everything(detector, images, tmp_path):
    output = tmp_path / "boxes.csv"
    arguments = ("--images", images, "--output", output)
    assert predict(*arguments, "--model", detector.trained) == 0
    boxes = len(pd.read_csv(output))
    output.write_text(output.read_text().replace("small.png", "SMALL.png"))
    assert predict(*arguments, "--model", detector.trained) == 0
    assert "SMALL.png" in output.read_text()
    stricter = write_detector(tmp_path / "stricter", threshold=0.99)
    assert predict(*arguments, "--model", stricter.trained) == 0
    assert boxes == 5 and len(pd.read_csv(output)) == 0


def test_as_a_component_it_writes_a_folder(detector, images, tmp_path):
    assert predict("--images", images, "--model", detector.trained, "--predictions", tmp_path / "boxes") == 0
    assert sorted(path.name for path in (tmp_path / "boxes").iterdir()) == ["predictions.parquet", "summary.json"]
    assert len(pd.read_parquet(tmp_path / "boxes" / "predictions.parquet")) == 5


def test_an_image_that_is_no_radiograph_has_no_box_and_its_reason(detector, tmp_path, uri, capsys):
    detector = write_detector(tmp_path / "detector", threshold=0.01)
    set_detector_alias(uri, "champion", add_version(uri, detector, reference=chest_reference()))
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "chest.jpeg").write_bytes(HEALTHY)
    (tmp_path / "films" / "letter.jpeg").write_bytes(LETTER)
    output = tmp_path / "boxes.csv"
    assert predict("--images", tmp_path / "films", "--output", output, "--tracking_uri", uri) == 0
    table = pd.read_csv(output, dtype={"version": str})
    assert set(table["path"]) == {"chest.jpeg"}
    assert set(table["version"]) == {"1"} and set(table["alias"]) == {"champion"}
    summary = json.loads((tmp_path / ".boxes.csv.json").read_text())
    assert [image["path"] for image in summary["without_answer"]] == ["letter.jpeg"]
    (kind,) = summary["errors"]
    assert summary["without_answer"][0]["reason"].startswith(f"{kind}: ")
    assert predict(tmp_path / "films" / "letter.jpeg", "--tracking_uri", uri) == 1
    assert "expected at least one radiograph" in capsys.readouterr().err


def test_a_detector_without_a_reference_refuses_what_the_classifier_refuses(tmp_path):
    versions = write_versions(tmp_path / "classifier")
    detector = write_detector(tmp_path / "detector", threshold=0.01)
    set_detector_alias(versions.uri, "champion", add_version(versions.uri, detector))
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "chest.jpeg").write_bytes(HEALTHY)
    (tmp_path / "films" / "letter.jpeg").write_bytes(LETTER)
    output = tmp_path / "boxes.csv"
    assert predict("--images", tmp_path / "films", "--output", output, "--tracking_uri", versions.uri) == 0
    assert set(pd.read_csv(output)["path"]) == {"chest.jpeg"}
    summary = json.loads((tmp_path / ".boxes.csv.json").read_text())
    assert [image["path"] for image in summary["without_answer"]] == ["letter.jpeg"]


def test_without_a_detector_the_error_says_what_to_do(images, tmp_path, uri, capsys):
    assert predict(images / "small.png", "--tracking_uri", uri) != 0
    errors = capsys.readouterr().err
    assert "pneumonia-regions" in errors and "cxr register_regions" in errors
    folders = write_models(tmp_path / "classifier")
    assert predict(images / "small.png", "--model", folders.models / "three_block") != 0
    assert "which classifies" in capsys.readouterr().err
    detector = write_detector(tmp_path / "detector")
    (detector.evaluation / "card.json").unlink()
    assert predict(images / "small.png", "--model", detector.trained) != 0
    assert "run `cxr evaluate_regions`" in capsys.readouterr().err


def test_predictions_without_regions_load_no_detector(tmp_path):
    folders = write_models(tmp_path / "classifier")
    program = (
        "import sys; from cxr.cli.main import main; "
        f"status = main(['predict', {str(folders.images[0])!r}, '--model', {str(folders.models / 'three_block')!r}]); "
        "sys.exit(status or any(f'cxr.regions.{name}' in sys.modules for name in ('predictor', 'scoring', 'detector')))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_all_steps_agree_on_the_name_of_the_registered_detector(repository):
    params = yaml.safe_load((repository / "params.yaml").read_text())
    names = {params[section]["regions_name"] for section in ("predict", "serve", "app", "node")}
    assert names == {params["register_regions"]["registered_name"]}
    assert {step.model_fields["regions_name"].default for step in (Predict, Serve, App, Node)} == names
    assert RegisterRegions.model_fields["registered_name"].default in names
