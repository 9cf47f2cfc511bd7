"""Files that are read although they are unusual: only if the options accept them, and never without a warning."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr.cli.main import main
from cxr.steps.app import App
from cxr.steps.predict import Predict
from cxr.steps.serve import Serve
from cxr.steps.validate import Validate
from support import bad_images
from support.dicom_files import dicom_file
from support.model_folders import ModelFolders, write_models


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    return write_models(tmp_path_factory.mktemp("unusual"))


@pytest.fixture
def images(folders: ModelFolders, tmp_path: Path) -> Path:
    """A JPEG, the same image as PNG of 16 bits, and in a DICOM file that names no modality of the standard."""
    grey = cv2.imread(str(folders.images[0]), cv2.IMREAD_GRAYSCALE)
    grey = cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX)
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(bad_images.png(grey))
    (folder / "b.png").write_bytes(bad_images.png(grey.astype(np.uint16) * 16 + 100))
    (folder / "c.dcm").write_bytes(dicom_file(grey, Modality="DR"))
    return folder


def predict(folders: ModelFolders, images: Path, output: Path, *arguments: str) -> pd.DataFrame:
    model = str(folders.models / "three_block")
    status = main(["predict", "--images", str(images), "--model", model, "--output", str(output), *arguments])
    assert status == 0
    return pd.read_parquet(output).set_index("path")


def summary_of(output: Path) -> dict[str, Any]:
    return dict(json.loads(output.with_name(f".{output.name}.json").read_text()))


def test_16_bits_are_refused_with_advice_that_works(folders: ModelFolders, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.parquet"
    rows = predict(folders, images, output)
    assert rows.loc["b.png", "error"].startswith("depth_16: ") and "scale_16_bit" in rows.loc["b.png", "error"]
    assert summary_of(output)["warnings"] == {"other_modality": 1}
    # The same files with another option are other predictions: the table is made anew.
    rows = predict(folders, images, output, "--scale_16_bit", "true")
    assert rows["error"].tolist() == ["", "", ""]
    assert rows["probability"].nunique() == 1  # the three files show the same image
    assert rows["warning"].str.partition(":")[0].tolist() == ["", "depth_16", "other_modality"]
    assert summary_of(output)["warnings"] == {"depth_16": 1, "other_modality": 1}


def test_a_modality_is_accepted_only_if_it_is_named(
    folders: ModelFolders, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    rows = predict(folders, images, tmp_path / "rows.parquet", "--other_modalities", "[]")
    assert rows.loc["c.dcm", "error"].startswith("modality: ")
    assert "other_modality" not in caplog.text
    rows = predict(folders, images, tmp_path / "rows.parquet", "--other_modalities", "[ dr ]")
    # On some processors the place in a batch changes the last digits.
    assert rows.loc["c.dcm", "probability"] == pytest.approx(rows.loc["a.png", "probability"], rel=1e-6)
    assert "read although unusual: 1 other_modality, a DICOM file" in caplog.text


@pytest.mark.parametrize("step", [Predict, Serve, App, Validate])
def test_training_and_prediction_share_the_section_that_names_modalities(step: type) -> None:
    assert "reading" in step.sections
    assert "DR" in step.model_fields["other_modalities"].default
