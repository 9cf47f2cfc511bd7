"""Captures show the boxes of a detector, in the node and in a batch, by the same rule as the page."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from cxr.cli.main import main
from cxr.tracking.store import Store
from support.dicom_node import ReportArchive, running_node, send, wait_for
from support.dicom_reports import radiograph
from support.model_folders import ModelFolders, write_store
from support.small_detector import NAME as DETECTOR
from support.small_detector import (
    PATIENTS,
    PHANTOM,
    Box,
    add_version,
    bright_rectangle,
    set_detector_alias,
    write_detector,
)
from support.tracking_server import NAME as CLASSIFIER
from support.tracking_server import register_versions

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


def picture_of(*reports: pydicom.Dataset) -> NDArray[np.uint8]:
    """Pixels of the capture among some reports."""
    (capture,) = (report for report in reports if report.Modality != "SR")
    return np.frombuffer(capture.PixelData, np.uint8).reshape(capture.Rows, capture.Columns, 3)


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
    pixels = picture_of(*archive.received)
    assert drawn_box(pixels) == pytest.approx(bright_rectangle(*SHAPE)[1], abs=6)
    elsewhere = pixels[~orange(pixels)]
    assert (elsewhere[:, 0] != elsewhere[:, 2]).any(), "heat is coloured"


def test_the_node_follows_the_alias_of_a_registered_detector(
    tmp_path: Path, detectors: dict[str, Path], archive: ReportArchive
) -> None:
    uri = write_store(tmp_path)
    register_versions(tmp_path / "run", uri, models=["three_block"])
    Store(uri).client.set_registered_model_alias(CLASSIFIER, "champion", "1")
    widths = {}
    for box_scale in (1.0, 0.5):
        folders = write_detector(tmp_path / str(box_scale), dataset=PATIENTS, box_scale=box_scale)
        widths[add_version(uri, folders)] = box_scale * bright_rectangle(*SHAPE)[1][2]
    set_detector_alias(uri, "champion", "1")
    flags = ("--tracking_uri", uri, "--capture", "true", "--seconds", "0.2")
    with running_node(tmp_path, archive.address, *flags) as node:
        for number, (version, width) in enumerate(widths.items(), start=1):
            set_detector_alias(uri, "champion", version)
            wait_for(lambda version=version: f"version {version} of {DETECTOR} draws boxes" in node.text)
            path = tmp_path / f"{number}.dcm"
            path.write_bytes(radiograph(bright_rectangle(*SHAPE)[0], number))
            assert send(node.port, path) == 0
            wait_for(lambda number=number: len(archive.received) == 2 * number)
            answers = archive.received[-2:]
            assert drawn_box(picture_of(*answers))[2] == pytest.approx(width, abs=6)
            (capture,) = (answer for answer in answers if answer.Modality != "SR")
            assert f"{DETECTOR} version {version}" in capture.SoftwareVersions


@pytest.mark.parametrize("arguments", [("predict", "image.dcm", "--model", "x"), ("node", "--capture", "false")])
def test_a_detector_whose_boxes_nothing_would_show_is_refused(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--regions_model", str(tmp_path)]) == 2
    messages = capsys.readouterr().err
    assert re.search(r"expected capture\S* with regions_model, because .* received regions_model=/", messages)
