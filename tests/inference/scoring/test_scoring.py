"""Scoring: one row per file in order, bad files as rows, little memory, nothing done twice."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cxr.errors import SourceError
from cxr.inference.predictor import Predictor
from cxr.inference.scoring.files import File, Files, FolderFiles, StoredFiles
from cxr.inference.scoring.parts import Parts
from cxr.inference.scoring.rows import rows
from cxr.inference.scoring.score import Answering, score
from cxr.models.metadata import ModelCard
from support import bad_images
from support.loopback import Gate
from support.model_folders import RECIPE, Folders, card, write_models
from support.servers import ObjectStore


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return write_models(tmp_path_factory.mktemp("scoring"))


@pytest.fixture(scope="module")
def predictor(folders: Folders) -> Predictor:
    return Predictor.load(folders.models / "three_block", ModelCard.read(folders.evaluations / "three_block"))


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (7, 2), (64, 5)])
def test_rows_are_the_predictors_own_answers_in_order(
    folders: Folders, predictor: Predictor, batch_size: int, workers: int
) -> None:
    files = FolderFiles(folders.images[0].parent)
    found = list(rows(files, files.entries, predictor, workers=workers, batch_size=batch_size))
    expected = predictor.predict(sorted(folders.images))
    assert [row.path for row in found] == sorted(path.name for path in folders.images)
    assert [row.probability for row in found] == pytest.approx([one.probability for one in expected], abs=1e-6)
    assert [(row.label, row.threshold) for row in found] == [(one.label, one.threshold) for one in expected]
    assert {(row.width, row.height, row.error) for row in found} == {(52, 40, "")}
    assert {row.label for row in found} == {"NORMAL", "PNEUMONIA"}


def test_a_bad_file_is_a_row_that_says_why_and_harms_no_other(
    folders: Folders, predictor: Predictor, tmp_path: Path
) -> None:
    picture, good = bad_images.picture(), folders.images[3].read_bytes()
    contents = {
        "0-empty.jpeg": b"",
        "1-truncated.jpeg": bad_images.jpeg(picture)[:-200],
        "2-text.jpeg": b"no picture",
        "3-good.jpeg": good,
        "4-deep.png": bad_images.png(picture.astype(np.uint16) * 256),
        "6-tiny.png": bad_images.png(np.full((1, 1), 7, np.uint8)),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "5-link.jpeg").symlink_to(folders.images[0])
    files = FolderFiles(tmp_path)
    found = {row.path: row for row in rows(files, files.entries, predictor, batch_size=3)}
    assert {path: row.error.partition(":")[0] for path, row in found.items()} == {
        "0-empty.jpeg": "empty", "1-truncated.jpeg": "truncated", "2-text.jpeg": "not_an_image", "3-good.jpeg": "",
        "4-deep.png": "depth_16", "5-link.jpeg": "symlink", "6-tiny.png": "",
    }  # fmt: skip
    assert found["3-good.jpeg"].probability == pytest.approx(predictor.predict([good])[0].probability, abs=1e-6)
    broken = found["1-truncated.jpeg"]
    assert (broken.label, broken.probability, broken.width) == (None, None, None) and broken.sha256
    assert found["5-link.jpeg"].sha256 is None


def test_a_file_that_goes_while_others_are_scored_is_a_row(
    folders: Folders, predictor: Predictor, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(folders.images[0].read_bytes())
    files = FolderFiles(tmp_path)
    (tmp_path / "a.png").unlink()
    (row,) = rows(files, files.entries, predictor)
    assert row.error.startswith("unreadable: ")


def test_a_name_that_is_no_text_can_be_written(folders: Folders, predictor: Predictor, tmp_path: Path) -> None:
    name = b"m\xfcller\n,.png".decode("utf-8", "surrogateescape")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(folders.images[0].read_bytes())
    files = FolderFiles(tmp_path / "in")
    parts = Parts(tmp_path / "parts", files.entries, "model", 10)
    score(files, Answering(predictor), parts)
    for target in (tmp_path / "out.parquet", tmp_path / "out.csv"):
        assert parts.join(target)["answered"] == 1
    assert pq.read_table(tmp_path / "out.parquet")["path"].to_pylist() == ["m\\xfcller\n,.png"]
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == '"m\\xfcller'


class Repeated(Files):
    """Many large pictures that need no disk."""

    def __init__(self, count: int) -> None:
        self.name = "repeated"
        self.entries = [File(f"{number}.jpeg", "x") for number in range(count)]
        self.taken: list[str] = []
        self._data = bad_images.jpeg(bad_images.picture(height=700, width=700))

    def read(self, file: File) -> bytes:
        self.taken.append(file.path)
        return bytes(bytearray(self._data))


def large_predictor() -> Predictor:
    """Answers for images of 256 pixels a side, so that each one that is kept would be seen."""
    import keras

    recipe = replace(RECIPE, size=256)
    image = keras.Input(recipe.input_shape)
    mean = keras.layers.GlobalAveragePooling2D()(image)
    network = keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(mean))
    changes = {"recipe": recipe.to_dict(), "input_shape": recipe.input_shape}
    return Predictor(network, card(**changes).completed(1.0, 0.5, "by hand"))


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    predictor = large_predictor()

    def peak(count: int) -> float:
        files = Repeated(count)
        parts = Parts(tmp_path / str(count), files.entries, "model", 32)
        tracemalloc.start()
        score(files, Answering(predictor), parts, workers=2, batch_size=16)
        parts.join(tmp_path / f"{count}.parquet")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most / 2**20

    peak(20)  # what is loaded and compiled once
    few, many = peak(40), peak(400)
    assert many < few + 10, "360 pictures of 0.5 MiB more"


def test_reading_runs_a_batch_ahead_of_the_network_and_no_further(predictor: Predictor) -> None:
    files = Repeated(300)
    stream = rows(files, files.entries, predictor, workers=2, batch_size=8)
    next(stream)
    time.sleep(1)
    assert 8 < len(files.taken) <= 8 + 8
    stream.close()


def test_parts_are_taken_only_for_the_same_files_and_model(tmp_path: Path) -> None:
    files = [File(f"{number}.png", "1") for number in range(5)]
    parts = Parts(tmp_path, files, "model", 2)
    assert parts.missing() == [0, 1, 2]
    assert [len(parts.files(number)) for number in parts.missing()] == [2, 2, 1]
    parts.write(1, [], {})
    assert Parts(tmp_path, files, "model", 2).missing() == [0, 2]
    assert Parts(tmp_path, files, "another", 2).missing() == [0, 1, 2]
    changed = [*files[:3], File("3.png", "2"), files[4]]
    assert Parts(tmp_path, changed, "model", 2).missing() == [0, 1, 2]
    assert (
        len({Parts(tmp_path, *one, 2).digest for one in ((files, "model"), (files, "another"), (changed, "model"))})
        == 3
    )
    assert Parts(tmp_path, [files[0], files[1], *changed[2:]], "model", 2).missing() == [0, 1, 2]


@pytest.fixture
def stored(bucket: str, object_store: ObjectStore, folders: Folders) -> str:
    """Address of the pictures in a store, with a text and a broken picture beside them."""
    client = object_store.client()
    for path in folders.images:
        client.put_object(Bucket=bucket, Key=f"set/deep/{path.name}", Body=path.read_bytes())
    client.put_object(Bucket=bucket, Key="set/notes.txt", Body=b"no picture")
    client.put_object(Bucket=bucket, Key="set/deep/zz.jpeg", Body=folders.images[2].read_bytes()[:-30])
    client.put_object(Bucket=bucket, Key="settled/a.jpeg", Body=b"of another prefix")
    return f"s3://{bucket}/set"


@pytest.mark.integration
def test_a_prefix_of_a_store_gives_the_same_rows_and_needs_no_disk(
    stored: str, folders: Folders, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = StoredFiles(stored)
    found = list(rows(files, files.entries, predictor, batch_size=16))
    expected = predictor.predict(sorted(folders.images))
    assert [row.path for row in found] == [f"deep/{path.name}" for path in sorted(folders.images)] + ["deep/zz.jpeg"]
    assert [row.probability for row in found[:-1]] == pytest.approx([one.probability for one in expected], abs=1e-6)
    assert found[-1].error.startswith("truncated: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_an_object_that_is_gone_or_changed_since_the_listing_is_a_row(
    stored: str, bucket: str, object_store: ObjectStore, folders: Folders, predictor: Predictor
) -> None:
    files = StoredFiles(stored)
    first, second = files.entries[0].path, files.entries[1].path
    object_store.client().delete_object(Bucket=bucket, Key=f"set/{first}")
    object_store.client().put_object(Bucket=bucket, Key=f"set/{second}", Body=folders.images[9].read_bytes() + b"x")
    found = list(rows(files, files.entries[:3], predictor))
    assert [row.error.partition(":")[0] for row in found] == ["unreadable", "unreadable", ""]


@pytest.fixture
def way(object_store: ObjectStore) -> Iterator[Gate]:
    gate = Gate(int(object_store.url.rpartition(":")[2]))
    yield gate
    gate.close()


@pytest.mark.integration
def test_a_store_that_goes_away_ends_the_run_and_the_next_one_goes_on(
    stored: str, way: Gate, predictor: Predictor, tmp_path: Path
) -> None:
    class Leaving(StoredFiles):
        def read(self, file: File) -> bytes:
            if file is self.entries[20]:
                way.shut()
            return super().read(file)

    files = Leaving(stored, endpoint_url=way.uri)
    parts = Parts(tmp_path / "parts", files.entries, "model", 8)
    with pytest.raises(SourceError, match="could not reach the object store"):
        score(files, Answering(predictor), parts, workers=1, batch_size=8)
    assert parts.missing() == [2, 3, 4, 5, 6], "the files before are not read again"
    way.open()
    score(StoredFiles(stored, endpoint_url=way.uri), Answering(predictor), parts, batch_size=8)
    assert parts.join(tmp_path / "out.csv")["answered"] == 48
