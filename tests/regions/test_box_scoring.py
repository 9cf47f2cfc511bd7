"""Boxes of many images: a killed run continues where it stopped, and a batch changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from cxr.errors import SourceError
from cxr.images.reading_options import STRICT
from cxr.inference.scoring.sources import FolderImages, ImageFile
from cxr.regions.predictor import RegionPredictor
from cxr.regions.scoring import BoxParts, ScoringDetector, boxes_to_table, predict_boxes
from support.small_detector import bright_rectangle, png, write_detector


class FailingImages(FolderImages):
    """A folder on a disk that fails after some files."""

    def __init__(self, folder: Path, files: int) -> None:
        super().__init__(folder)
        self.remaining = files

    def read(self, file: ImageFile) -> bytes:
        if self.remaining == 0:
            raise SourceError("the disk is gone")
        self.remaining -= 1
        return super().read(file)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> ScoringDetector:
    folders = write_detector(tmp_path_factory.mktemp("detector"))
    return ScoringDetector(RegionPredictor.load(folders.trained, folders.metadata), None, None, None, None)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(9):
        (folder / f"{number}.png").write_bytes(png(bright_rectangle(200 + 30 * number, 240)[0]))
    return folder


def test_a_run_that_was_cut_off_reads_only_what_is_missing(
    detector: ScoringDetector, images: Path, tmp_path: Path
) -> None:
    table, summary = tmp_path / "boxes.csv", tmp_path / "boxes.json"

    def run(source: FolderImages) -> None:
        parts = BoxParts(tmp_path / "parts", source.files, "detector", 2)
        boxes_to_table(source, detector, parts, table, summary, options=STRICT, workers=1, batch_size=2)

    with pytest.raises(SourceError):
        run(FailingImages(images, 7))
    assert not table.exists()
    finished = len(list((tmp_path / "parts").iterdir()))
    assert 1 <= finished <= 3
    run(FailingImages(images, 9 - 2 * finished))
    assert pd.read_csv(table)["path"].tolist() == [f"{number}.png" for number in range(9)]
    assert json.loads(summary.read_text())["with_boxes"] == 9


def test_boxes_do_not_depend_on_the_batch(detector: ScoringDetector, images: Path) -> None:
    source = FolderImages(images)
    results = [
        [(image.path, len(image.boxes), *vars_of(image.boxes[0])) for image in
         predict_boxes(source, source.files, detector, options=STRICT, workers=2, batch_size=size)]
        for size in (1, 4, 64)
    ]  # fmt: skip
    for other in results[1:]:
        assert other == [(path, count, *map(pytest.approx, values)) for path, count, *values in results[0]]


def vars_of(box: object) -> list[float]:
    return [getattr(box, name) for name in ("x", "y", "width", "height", "score")]
