"""Scoring: one row per file in order, broken files become rows, memory stays small, no work is repeated."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cxr.data.image_files import NO_IMAGE, REASONS, SYSTEM_FILE
from cxr.errors import SourceError
from cxr.images.reading_options import STRICT
from cxr.inference.predictor import Predictor
from cxr.inference.scoring.batch import ScoringModel, predict_rows, score, score_to_table, score_to_text
from cxr.inference.scoring.sources import FolderImages, ImageFile, ImageSource, ObjectStoreImages
from cxr.inference.scoring.table import PredictionRow, TableParts
from cxr.models.metadata import ModelMetadata
from cxr.models.prediction_sets import UNCERTAIN, PredictionSets
from support import bad_images
from support.dicom_files import dicom_file
from support.loopback import Gate
from support.model_folders import RECIPE, ModelFolders, make_metadata, write_models
from support.servers import ObjectStore


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    return write_models(tmp_path_factory.mktemp("scoring"))


@pytest.fixture(scope="module")
def predictor(folders: ModelFolders) -> Predictor:
    return Predictor.load(folders.models / "three_block", ModelMetadata.read(folders.evaluations / "three_block"))


def rows_of(
    source: ImageSource, predictor: Predictor, *, workers: int | None = None, batch_size: int = 64
) -> list[PredictionRow]:
    return list(
        predict_rows(
            source, source.files, ScoringModel(predictor), options=STRICT, workers=workers, batch_size=batch_size
        )
    )


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (7, 2), (64, 5)])
def test_rows_are_the_predictions_of_the_predictor_in_order(
    folders: ModelFolders, predictor: Predictor, batch_size: int, workers: int
) -> None:
    rows = rows_of(FolderImages(folders.images[0].parent), predictor, workers=workers, batch_size=batch_size)
    expected = predictor.predict(sorted(folders.images))
    assert [row.path for row in rows] == sorted(path.name for path in folders.images)
    probabilities = [prediction.probability for prediction in expected]
    assert [row.probability for row in rows] == pytest.approx(probabilities, abs=1e-6)
    assert [(row.label, row.threshold) for row in rows] == [
        (prediction.label, prediction.threshold) for prediction in expected
    ]
    assert {(row.width, row.height, row.error) for row in rows} == {(52, 40, "")}
    assert {row.label for row in rows} == {"NORMAL", "PNEUMONIA"}


def test_uncertain_stands_in_rows_table_summary_and_terminal(
    folders: ModelFolders, predictor: Predictor, tmp_path: Path
) -> None:
    source = FolderImages(folders.images[0].parent)
    sets = PredictionSets(0.9, 0.165, 0.835, 24, 24)
    with_sets = Predictor.load(folders.models / "three_block", replace(predictor.metadata, prediction_sets=sets))
    plain_rows, rows = rows_of(source, predictor), rows_of(source, with_sets)
    uncertain = [row for row in rows if row.label == UNCERTAIN]
    assert 0 < len(uncertain) < len(rows)
    assert all(row.probability is not None and 0.165 < row.probability < 0.835 for row in uncertain)
    assert [replace(row, label=plain.label) for row, plain in zip(rows, plain_rows, strict=True)] == plain_rows
    parts = TableParts(tmp_path / "parts", source.files, "model", 20)
    table, summary = tmp_path / "rows.csv", tmp_path / "summary.json"
    options: dict[str, Any] = {"options": STRICT, "workers": None, "batch_size": 64}
    score_to_table(source, ScoringModel(with_sets), parts, table, summary, **options)
    assert table.read_text().count(f",{UNCERTAIN},") == len(uncertain)
    assert json.loads(summary.read_text())["labels"][UNCERTAIN] == len(uncertain)
    lines = list(score_to_text(source, ScoringModel(with_sets), **options))
    assert sum(f"  {UNCERTAIN}  " in line for line in lines) == len(uncertain)
    assert lines[0] == "Labels follow the coverage of 0.9, not the threshold."
    assert next(iter(score_to_text(source, ScoringModel(predictor), **options))).startswith("file ")


def test_a_broken_file_is_a_row_with_the_reason_and_does_not_affect_others(
    folders: ModelFolders, predictor: Predictor, tmp_path: Path
) -> None:
    image, good = bad_images.draw_image(), folders.images[3].read_bytes()
    contents = {
        "0-empty.jpeg": b"",
        "1-truncated.jpeg": bad_images.jpeg(image)[:-200],
        "2-text.jpeg": b"no picture",
        "3-good.jpeg": good,
        "4-deep.png": bad_images.png(image.astype(np.uint16) * 256),
        "6-tiny.png": bad_images.png(np.full((1, 1), 7, np.uint8)),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "5-link.jpeg").symlink_to(folders.images[0])
    rows = {row.path: row for row in rows_of(FolderImages(tmp_path), predictor, batch_size=3)}
    assert {path: row.error.partition(":")[0] for path, row in rows.items()} == {
        "0-empty.jpeg": "empty", "1-truncated.jpeg": "truncated", "2-text.jpeg": "not_an_image", "3-good.jpeg": "",
        "4-deep.png": "depth_16", "5-link.jpeg": "symlink", "6-tiny.png": "",
    }  # fmt: skip
    assert rows["3-good.jpeg"].probability == pytest.approx(predictor.predict([good])[0].probability, abs=1e-6)
    broken = rows["1-truncated.jpeg"]
    assert (broken.label, broken.probability, broken.width) == (None, None, None) and broken.sha256
    assert rows["5-link.jpeg"].sha256 is None


def test_images_are_told_by_content_and_all_other_files_are_listed(
    folders: ModelFolders, predictor: Predictor, tmp_path: Path
) -> None:
    radiograph = dicom_file(bad_images.draw_image())
    names = ["0001.dicom", "0002.DICOM", "0003.ima", "0004.DCM", "1.2.840.113.12", "DICOM/0000/IM1"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(radiograph)
    (tmp_path / "scan").write_bytes(folders.images[3].read_bytes())
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "README").write_text("about")
    (tmp_path / ".hidden").touch()
    source = FolderImages(tmp_path)
    rows = rows_of(source, predictor)
    assert [row.path for row in rows] == sorted([*names, "empty.dcm", "scan"])
    assert {row.path: row.error for row in rows if row.error} == {"empty.dcm": rows[-2].error}
    assert rows[-2].error.startswith("empty: ")
    assert source.left_out_figures == {
        NO_IMAGE: {"why": REASONS[NO_IMAGE], "files": 1, "paths": ["README"]},
        SYSTEM_FILE: {"why": REASONS[SYSTEM_FILE], "files": 1, "paths": [".hidden"]},
    }


def test_a_link_to_a_name_that_is_not_valid_utf_8_is_a_row(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.png").symlink_to(os.fsdecode(b"m\xfcller.png"))
    (tmp_path / "in" / os.fsdecode(b"m\xfcller.txt")).write_text("about")
    source = FolderImages(tmp_path / "in")
    parts = TableParts(tmp_path / "parts", source.files, "model", 10)
    score(source, ScoringModel(predictor), parts, options=STRICT, workers=None, batch_size=64)
    parts.join(tmp_path / "out.parquet")
    (error,) = pq.read_table(tmp_path / "out.parquet")["error"].to_pylist()
    assert error.startswith("symlink: ") and r"m\xfcller.png" in error
    assert source.left_out_figures == {NO_IMAGE: {"why": REASONS[NO_IMAGE], "files": 1, "paths": [r"m\xfcller.txt"]}}


def test_names_stay_on_their_line_of_the_terminal(folders: ModelFolders, predictor: Predictor, tmp_path: Path) -> None:
    name = os.fsdecode(b"two\nlines\x1b[31m \xfc \xc3\xbc.png")
    (tmp_path / name).write_bytes(folders.images[0].read_bytes())
    lines = list(
        score_to_text(FolderImages(tmp_path), ScoringModel(predictor), options=STRICT, workers=1, batch_size=1)
    )
    assert len(lines) == 2
    assert lines[1].startswith(r"two\nlines\x1b[31m \xfc ü.png  NORMAL ")


def test_a_file_that_is_deleted_during_scoring_is_a_row(
    folders: ModelFolders, predictor: Predictor, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(folders.images[0].read_bytes())
    source = FolderImages(tmp_path)
    (tmp_path / "a.png").unlink()
    (row,) = rows_of(source, predictor)
    assert row.error.startswith("unreadable: ")


def test_a_file_name_that_is_not_valid_utf_8_can_be_written(
    folders: ModelFolders, predictor: Predictor, tmp_path: Path
) -> None:
    name = b"m\xfcller\n,.png".decode("utf-8", "surrogateescape")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(folders.images[0].read_bytes())
    source = FolderImages(tmp_path / "in")
    parts = TableParts(tmp_path / "parts", source.files, "model", 10)
    score(source, ScoringModel(predictor), parts, options=STRICT, workers=None, batch_size=64)
    for target in (tmp_path / "out.parquet", tmp_path / "out.csv"):
        assert parts.join(target)["answered"] == 1
    assert pq.read_table(tmp_path / "out.parquet")["path"].to_pylist() == ["m\\xfcller\n,.png"]
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == '"m\\xfcller'


class RepeatedImage(ImageSource):
    """Many large images that need no disk."""

    def __init__(self, count: int) -> None:
        self.name = "repeated"
        self.files = [ImageFile(f"{number}.jpeg", "x") for number in range(count)]
        self.read_paths: list[str] = []
        self._data = bad_images.jpeg(bad_images.draw_image(height=700, width=700))

    def read(self, file: ImageFile) -> bytes:
        self.read_paths.append(file.path)
        return bytes(bytearray(self._data))


def large_predictor() -> Predictor:
    """Predicts for images of 256 pixels a side, so that every image kept in memory would be noticed."""
    import keras

    recipe = replace(RECIPE, size=256)
    image = keras.Input(recipe.input_shape)
    mean = keras.layers.GlobalAveragePooling2D()(image)
    network = keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(mean))
    changes = {"recipe": recipe.to_dict(), "input_shape": recipe.input_shape}
    return Predictor(network, make_metadata(**changes).with_calibration(1.0, 0.5, "by hand"))


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    predictor = large_predictor()

    def peak(count: int) -> float:
        source = RepeatedImage(count)
        parts = TableParts(tmp_path / str(count), source.files, "model", 32)
        tracemalloc.start()
        score(source, ScoringModel(predictor), parts, options=STRICT, workers=2, batch_size=16)
        parts.join(tmp_path / f"{count}.parquet")
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak_bytes / 2**20

    peak(20)  # what is loaded and compiled once
    few, many = peak(40), peak(400)
    assert many < few + 10, "360 images of 0.5 MiB more"


def test_reading_is_at_most_one_batch_ahead_of_the_network(predictor: Predictor) -> None:
    source = RepeatedImage(300)
    rows = predict_rows(source, source.files, ScoringModel(predictor), options=STRICT, workers=2, batch_size=8)
    next(rows)
    time.sleep(1)
    assert 8 < len(source.read_paths) <= 8 + 8
    rows.close()


def test_parts_are_reused_only_for_the_same_files_and_model(tmp_path: Path) -> None:
    files = [ImageFile(f"{number}.png", "1") for number in range(5)]
    parts = TableParts(tmp_path, files, "model", 2)
    assert parts.missing() == {0: files[:2], 1: files[2:4], 2: files[4:]}
    parts.write(1, [PredictionRow("2.png", "NORMAL"), PredictionRow("3.png", error="empty: no bytes")], {})
    assert TableParts(tmp_path, files, "model", 2).missing() == {0: files[:2], 2: files[4:]}
    assert list(TableParts(tmp_path, files, "another", 2).missing()) == [0, 1, 2]
    changed = [*files[:3], ImageFile("3.png", "2"), files[4]]
    assert list(TableParts(tmp_path, changed, "model", 2).missing()) == [0, 1, 2]
    tables = ((files, "model"), (files, "another"), (changed, "model"))
    assert len({TableParts(tmp_path, *table, 2).digest for table in tables}) == 3
    assert list(TableParts(tmp_path, [files[0], files[1], *changed[2:]], "model", 2).missing()) == [0, 1, 2]


def test_only_files_that_did_not_arrive_are_read_again(tmp_path: Path) -> None:
    files = [ImageFile(f"{number}.png", "1") for number in range(4)]
    parts = TableParts(tmp_path, files, "model", 4)
    lost = "transfer: expected 9 bytes"
    rows = [PredictionRow("0.png", error=lost), PredictionRow("1.png", "NORMAL"), PredictionRow("2.png", error=lost)]
    parts.write(0, [*rows, PredictionRow("3.png", error="empty: no bytes")], {})
    assert parts.missing() == {0: [files[0], files[2]]}
    assert parts.join(tmp_path / "table.csv")["digest"] is None, "the table is not complete"
    parts.write(0, [PredictionRow("0.png", "PNEUMONIA"), PredictionRow("2.png", "NORMAL")], {})
    assert parts.missing() == {}
    assert parts.join(tmp_path / "table.parquet")["digest"] == parts.digest
    labels = pq.read_table(tmp_path / "table.parquet", columns=["path", "label"]).to_pydict()
    assert labels == {"path": [file.path for file in files], "label": ["PNEUMONIA", "NORMAL", "NORMAL", None]}


@pytest.fixture
def stored(bucket: str, object_store: ObjectStore, folders: ModelFolders) -> str:
    """Address of the images in an object store, with a text and a broken image beside them."""
    client = object_store.client()
    for path in folders.images:
        client.put_object(Bucket=bucket, Key=f"set/deep/{path.name}", Body=path.read_bytes())
    client.put_object(Bucket=bucket, Key="set/notes.txt", Body=b"no picture")
    client.put_object(Bucket=bucket, Key="set/deep/zz.jpeg", Body=folders.images[2].read_bytes()[:-30])
    client.put_object(Bucket=bucket, Key="settled/a.jpeg", Body=b"of another prefix")
    return f"s3://{bucket}/set"


@pytest.mark.integration
def test_a_prefix_of_an_object_store_gives_the_same_rows_and_needs_no_disk(
    stored: str, folders: ModelFolders, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = rows_of(ObjectStoreImages(stored), predictor, batch_size=16)
    expected = predictor.predict(sorted(folders.images))
    assert [row.path for row in rows] == [f"deep/{path.name}" for path in sorted(folders.images)] + ["deep/zz.jpeg"]
    probabilities = [prediction.probability for prediction in expected]
    assert [row.probability for row in rows[:-1]] == pytest.approx(probabilities, abs=1e-6)
    assert rows[-1].error.startswith("truncated: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_objects_without_an_ending_are_told_by_content_and_all_others_are_listed(
    bucket: str, object_store: ObjectStore, predictor: Predictor
) -> None:
    client = object_store.client()
    for key in ("cd/DICOM/IM1", "cd/1.2.840.113.12", "cd/a.dicom"):
        client.put_object(Bucket=bucket, Key=key, Body=dicom_file(bad_images.draw_image()))
    client.put_object(Bucket=bucket, Key="cd/README", Body=b"about")
    client.put_object(Bucket=bucket, Key="cd/.DS_Store", Body=b"x")
    source = ObjectStoreImages(f"s3://{bucket}/cd")
    rows = rows_of(source, predictor)
    assert [(row.path, row.error) for row in rows] == [("1.2.840.113.12", ""), ("DICOM/IM1", ""), ("a.dicom", "")]
    assert source.left_out_figures == {
        NO_IMAGE: {"why": REASONS[NO_IMAGE], "files": 1, "paths": ["README"]},
        SYSTEM_FILE: {"why": REASONS[SYSTEM_FILE], "files": 1, "paths": [".DS_Store"]},
    }


@pytest.mark.integration
def test_an_object_that_was_deleted_or_changed_after_the_listing_is_a_row(
    stored: str, bucket: str, object_store: ObjectStore, folders: ModelFolders, predictor: Predictor
) -> None:
    source = ObjectStoreImages(stored)
    first, second = source.files[0].path, source.files[1].path
    object_store.client().delete_object(Bucket=bucket, Key=f"set/{first}")
    object_store.client().put_object(Bucket=bucket, Key=f"set/{second}", Body=folders.images[9].read_bytes() + b"x")
    rows = predict_rows(source, source.files[:3], ScoringModel(predictor), options=STRICT, workers=None, batch_size=64)
    assert [row.error.partition(":")[0] for row in rows] == ["unreadable", "unreadable", ""]


@pytest.fixture
def gate(object_store: ObjectStore) -> Iterator[Gate]:
    gate = Gate(int(object_store.url.rpartition(":")[2]))
    yield gate
    gate.close()


@pytest.mark.integration
def test_a_store_that_fails_ends_the_run_and_the_next_run_continues(
    stored: str, gate: Gate, predictor: Predictor, tmp_path: Path
) -> None:
    class FailingStore(ObjectStoreImages):
        def read(self, file: ImageFile) -> bytes:
            if file is self.files[20]:
                gate.shut()
            return super().read(file)

    source = FailingStore(stored, endpoint_url=gate.uri)
    parts = TableParts(tmp_path / "parts", source.files, "model", 8)
    with pytest.raises(SourceError, match="could not reach the object store"):
        score(source, ScoringModel(predictor), parts, options=STRICT, workers=1, batch_size=8)
    assert list(parts.missing()) == [2, 3, 4, 5, 6], "the earlier files are not read again"
    gate.open()
    restored = ObjectStoreImages(stored, endpoint_url=gate.uri)
    score(restored, ScoringModel(predictor), parts, options=STRICT, workers=None, batch_size=8)
    assert parts.join(tmp_path / "out.csv")["answered"] == 48
