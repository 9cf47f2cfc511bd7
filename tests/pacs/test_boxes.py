"""Captures show the boxes of a detector, in the node and in a batch, by the same rule as the page."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from cxr.cli.main import main
from support.dicom_node import ReportArchive, running_node, send, wait_for
from support.dicom_reports import radiograph
from support.model_folders import ModelFolders
from support.small_detector import PATIENTS, PHANTOM, Box, bright_rectangle, write_detector

ORANGE = (0xE6, 0x9F, 0x00)
SHAPE = (480, 400)


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two detectors, by what they were trained on; the classifier was trained on patients."""
    root = tmp_path_factory.mktemp("detectors")
    kinds = {"patients": PATIENTS, "phantom": PHANTOM}
    return {kind: write_detector(root / kind, dataset=dataset).trained for kind, dataset in kinds.items()}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "bright.dcm"
    path.write_bytes(radiograph(bright_rectangle(*SHAPE)[0]))
    return path


def orange(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((pixels == ORANGE).all(axis=-1))


def drawn_box(pixels: NDArray[np.uint8]) -> Box:
    """x, y, width and height of the box in pixels of the original; the score above it has the same colour."""
    mask = orange(pixels)
    columns = np.flatnonzero(mask[mask.shape[0] // 2 :].any(axis=0))
    (widest,) = np.nonzero(mask.sum(axis=1) >= 0.9 * (columns[-1] - columns[0]))  # upper and lower line
    scale = SHAPE[0] / pixels.shape[0]
    left, top, right, bottom = (round(scale * edge) for edge in (columns[0], widest[0], columns[-1], widest[-1]))
    return left, top, right - left, bottom - top


def predict(tmp_path: Path, folders: ModelFolders, image: Path, *arguments: object) -> pydicom.Dataset:
    captures = tmp_path / "captures"
    model = folders.models / "three_block"
    assert main([*map(str, ("predict", image, "--model", model, "--captures", captures, *arguments))]) == 0
    (capture,) = captures.iterdir()
    return pydicom.dcmread(capture)


def test_captures_of_a_batch_show_the_boxes_of_a_detector_that_fits_the_classifier(
    tmp_path: Path,
    folders: ModelFolders,
    detectors: dict[str, Path],
    image: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = predict(tmp_path, folders, image)
    with caplog.at_level(logging.WARNING):
        distrusted = predict(tmp_path, folders, image, "--regions_model", detectors["phantom"])
    assert "captures show no boxes: the detector was trained on phantom, the classifier on patients" in caplog.text
    boxed = predict(tmp_path, folders, image, "--regions_model", detectors["patients"])
    assert drawn_box(boxed.pixel_array) == pytest.approx(bright_rectangle(*SHAPE)[1], abs=6)
    for capture in (plain, distrusted):
        assert not orange(capture.pixel_array).any()
    uids: list[Any] = [capture.SOPInstanceUID for capture in (plain, distrusted, boxed)]
    assert uids[0] == uids[1] != uids[2], "an archive that keeps the first capture gets that with boxes, too"
    assert any("small_detector" in version for version in boxed.SoftwareVersions)


def test_captures_of_the_node_show_the_boxes_beside_heat(
    tmp_path: Path, folders: ModelFolders, detectors: dict[str, Path], image: Path, archive: ReportArchive
) -> None:
    arguments = ("--model", folders.models / "three_block", "--regions_model", detectors["patients"])
    with running_node(tmp_path, archive.address, *map(str, arguments), "--capture", "true") as node:
        assert send(node.port, image) == 0
        wait_for(lambda: len(archive.received) == 2)
    (capture,) = (report for report in archive.received if report.Modality != "SR")
    pixels = np.frombuffer(capture.PixelData, np.uint8).reshape(capture.Rows, capture.Columns, 3)
    assert drawn_box(pixels) == pytest.approx(bright_rectangle(*SHAPE)[1], abs=6)
    elsewhere = pixels[~orange(pixels)]
    assert (elsewhere[:, 0] != elsewhere[:, 2]).any(), "heat is coloured"
