"""Prepared images keep their order, do not depend on the workers, are memory-mapped, and contain no broken file."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr.data.image_folder import ImageFolder
from cxr.errors import DataError, ImageError, MissingInputError
from cxr.images.decoding import decode_grey
from cxr.images.preparation import join_shards, prepare_accepted_images, prepare_images
from cxr.images.prepared import PreparedImages
from cxr.images.reading_options import ReadingOptions
from cxr.images.recipes import RECIPES, apply_recipe, recipe_named
from cxr.images.shards import all_shards

RECIPE = RECIPES["s2_resize"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Create a data folder of twenty different images of different sizes."""
    folder = tmp_path / "data" / "NORMAL"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(20):
        grey = generator.integers(0, 256, (9, 7)).astype(np.uint8)
        size = (100 + 40 * (number % 5), 90 + 30 * (number % 4))
        image = cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC)
        (folder / f"IM-{number:04d}-0001.jpeg").write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    return folder.parent


def paths_of(data: Path) -> list[str]:
    return sorted(path.relative_to(data).as_posix() for path in data.rglob("*.jpeg"))


def test_each_row_is_its_file_after_the_recipe(data: Path, tmp_path: Path) -> None:
    paths = paths_of(data)[::-1]
    prepared = prepare_images(ImageFolder(data), paths, RECIPE, tmp_path / "out", workers=None, progress=False)
    assert isinstance(prepared.images, np.memmap)
    assert prepared.recipe == RECIPE
    assert prepared.index["path"].tolist() == paths
    for path, row, digest in zip(paths, prepared.rows(paths), prepared.index["sha256"], strict=True):
        content = (data / path).read_bytes()
        np.testing.assert_array_equal(prepared.images[row], apply_recipe(RECIPE, decode_grey(content)))
        assert digest == hashlib.sha256(content).hexdigest()


def test_the_result_does_not_depend_on_the_workers(data: Path, tmp_path: Path) -> None:
    recipe = recipe_named("s0_clahe_bilateral", size=48, canny=True)
    threads = cv2.getNumThreads()
    for workers in (1, 7):
        prepare_images(
            ImageFolder(data), paths_of(data), recipe, tmp_path / str(workers), workers=workers, progress=False
        )
    for name in ("images.npy", "index.parquet", "recipe.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "7" / name).read_bytes()
    assert np.load(tmp_path / "1" / "images.npy").shape == (20, 48, 48, 2)
    assert cv2.getNumThreads() == threads


def test_only_a_few_images_are_in_memory(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    written = 0
    max_pending = 0

    def counting_decode(content: bytes, options: ReadingOptions) -> np.ndarray:
        started.append(1)
        nonlocal max_pending
        max_pending = max(max_pending, len(started) - written)
        return decode_grey(content, options)

    class Bar:
        def __init__(self, rows: object, **_: object) -> None:
            self.rows = rows

        def __iter__(self):  # type: ignore[no-untyped-def]
            nonlocal written
            for row in self.rows:  # type: ignore[attr-defined]
                written += 1
                yield row

    monkeypatch.setattr("cxr.images.preparation.decode_grey", counting_decode)
    monkeypatch.setattr("cxr.images.preparation.tqdm", Bar)
    copies = []
    for number, path in enumerate(paths_of(data) * 10):
        copies.append(f"copy-{number}.jpeg")
        (data / copies[-1]).write_bytes((data / path).read_bytes())
    prepare_images(ImageFolder(data), copies, RECIPE, tmp_path / "out", workers=2)
    assert written == 200
    assert max_pending <= 10


def test_images_are_found_by_path_in_any_order(data: Path, tmp_path: Path) -> None:
    paths = paths_of(data)
    prepare_images(ImageFolder(data), paths, RECIPE, tmp_path / "out", workers=None, progress=False)
    prepared = PreparedImages.open(tmp_path / "out")
    np.testing.assert_array_equal(prepared.rows([paths[5], paths[0], paths[5]]), [5, 0, 5])
    with pytest.raises(DataError, match=r"2 paths without one: a\.jpeg, b\.jpeg"):
        prepared.rows(["a.jpeg", paths[0], "b.jpeg"])


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "missing"])
def test_a_broken_file_is_named_and_no_array_is_left(data: Path, tmp_path: Path, damage: str) -> None:
    paths = paths_of(data)
    broken = data / paths[11]
    content = broken.read_bytes()
    broken.unlink()
    if damage != "missing":
        broken.write_bytes({"empty": b"", "text": b"hello", "truncated": content[: len(content) // 2]}[damage])
    with pytest.raises(ImageError) as caught:
        prepare_images(ImageFolder(data), paths, RECIPE, tmp_path / "out", workers=4, progress=False)
    assert paths[11] in str(caught.value)
    assert not (tmp_path / "out" / "images.npy").exists()


def test_a_file_that_changed_since_validation_is_refused(data: Path, tmp_path: Path) -> None:
    paths = paths_of(data)
    digests = [hashlib.sha256((data / path).read_bytes()).hexdigest() for path in paths]
    (data / paths[3]).write_bytes((data / paths[4]).read_bytes())
    with pytest.raises(DataError, match=rf"{paths[3]}.*cxr validate"):
        prepare_images(ImageFolder(data), paths, RECIPE, tmp_path / "out", workers=None, progress=False, sha256=digests)


def test_no_image_and_repeated_images_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images=0"):
        prepare_images(ImageFolder(data), [], RECIPE, tmp_path / "out", workers=None, progress=False)
    path = paths_of(data)[0]
    with pytest.raises(DataError, match=path):
        prepare_images(ImageFolder(data), [path, path], RECIPE, tmp_path / "out", workers=None, progress=False)


def test_only_accepted_images_are_prepared_including_those_of_16_bits(data: Path, tmp_path: Path) -> None:
    deep = data / "NORMAL" / "IM-0100-0001.png"
    deep.write_bytes(cv2.imencode(".png", np.arange(120 * 90, dtype=np.uint16).reshape(90, 120))[1].tobytes())
    paths = [*paths_of(data), "NORMAL/IM-0100-0001.png"]
    manifest = pd.DataFrame(
        {
            "path": paths,
            "sha256": [hashlib.sha256((data / path).read_bytes()).hexdigest() for path in paths],
            "width": 120,
            "height": 90,
            "status": ["quarantined", *["accepted"] * (len(paths) - 1)],
        }
    )
    prepared = prepare_accepted_images(ImageFolder(data), manifest, RECIPE, tmp_path / "out", workers=None)
    assert prepared.index["path"].tolist() == paths[1:]
    assert prepared.images[-1].std() > 50


def test_images_of_another_recipe_are_refused(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    prepare_images(ImageFolder(data), paths_of(data), RECIPE, folder, workers=None, progress=False)
    assert PreparedImages.open(folder, "s2_resize").recipe == RECIPE
    with pytest.raises(MissingInputError, match=r"recipe=s2_resize.*cxr preprocess --recipe s1_resize"):
        PreparedImages.open(folder, "s1_resize")


def test_folders_that_are_incomplete_or_mixed_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"images\.npy, index\.parquet, recipe\.json"):
        PreparedImages.open(tmp_path / "nowhere")
    folder = tmp_path / "out"
    prepare_images(ImageFolder(data), paths_of(data), RECIPE, folder, workers=None, progress=False)
    prepare_images(ImageFolder(data), paths_of(data)[:5], RECIPE, tmp_path / "other", workers=None, progress=False)
    (tmp_path / "other" / "index.parquet").replace(folder / "index.parquet")
    with pytest.raises(DataError, match=r"received shape=\(20, 64, 64, 1\)"):
        PreparedImages.open(folder)


def test_reading_prepared_images_imports_no_decoder() -> None:
    code = "import sys, cxr.images.prepared; print(*(name for name in sys.modules if name.startswith('cxr.')))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    images = {f"cxr.images.{name}" for name in ("joined_images", "prepared", "recipes", "shards")}
    assert set(result.stdout.split()) == {"cxr.errors", "cxr.files", "cxr.images", "cxr.tables", *images}


@pytest.mark.parametrize("position", [200, -1])
def test_damaged_pixels_are_found_when_the_folder_is_opened(data: Path, tmp_path: Path, position: int) -> None:
    folder = tmp_path / "s2_resize"
    prepare_images(ImageFolder(data), paths_of(data), RECIPE, folder, workers=None, progress=False)
    content = bytearray((folder / "images.npy").read_bytes())
    content[position] ^= 1
    (folder / "images.npy").write_bytes(content)
    path = paths_of(data)[0 if position > 0 else -1]
    with pytest.raises(DataError, match=rf"received 1 damaged images.*{path}.*dvc repro --force preprocess@s2_resize"):
        PreparedImages.open(folder)


def test_a_folder_without_checksums_is_refused(data: Path, tmp_path: Path) -> None:
    prepare_images(ImageFolder(data), paths_of(data), RECIPE, tmp_path, workers=None, progress=False)
    pd.read_parquet(tmp_path / "index.parquet").drop(columns="crc32").to_parquet(tmp_path / "index.parquet")
    with pytest.raises(DataError, match="run `cxr preprocess` again"):
        PreparedImages.open(tmp_path)


def test_no_changed_bit_in_the_header_of_the_array_causes_another_error(data: Path, tmp_path: Path) -> None:
    prepare_images(ImageFolder(data), paths_of(data), RECIPE, tmp_path / "out", workers=None, progress=False)
    path = tmp_path / "out" / "images.npy"
    content = path.read_bytes()
    for position in range(128):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            PreparedImages.open(tmp_path / "out")
        except DataError as error:
            assert "images.npy" in str(error) or "received shape=" in str(error) or "damaged images" in str(error)


@pytest.fixture
def shards(data: Path, tmp_path: Path) -> Path:
    """A folder with the images in three shards."""
    for shard in all_shards(3):
        folder = tmp_path / "shards" / str(shard.number)
        prepare_images(ImageFolder(data), paths_of(data), RECIPE, folder, workers=None, progress=False, shard=shard)
    return tmp_path / "shards"


@pytest.mark.parametrize("count", [1, 3, 30])
def test_shards_are_read_as_one_and_joined_to_the_same_bytes(data: Path, tmp_path: Path, count: int) -> None:
    paths = paths_of(data)
    whole = prepare_images(ImageFolder(data), paths, RECIPE, tmp_path / "whole", workers=None, progress=False)
    for shard in all_shards(count):
        folder = tmp_path / "shards" / str(shard.number)
        prepare_images(ImageFolder(data), paths, RECIPE, folder, workers=1, progress=False, shard=shard)
    joined = PreparedImages.open(tmp_path / "shards" if count > 1 else tmp_path / "shards" / "1")
    pd.testing.assert_frame_equal(joined.index, whole.index)
    rows = np.random.default_rng(0).permutation(len(paths))
    np.testing.assert_array_equal(joined.images[rows], whole.images[rows])
    np.testing.assert_array_equal(joined.images[3:7], whole.images[3:7])
    np.testing.assert_array_equal(joined.images[5], whole.images[5])
    assert (joined.images.shape, joined.images.dtype) == (whole.images.shape, whole.images.dtype)
    if count > 1:
        (tmp_path / "joined").mkdir()
        join_shards(tmp_path / "shards", tmp_path / "joined")
        for name in ("images.npy", "index.parquet", "recipe.json"):
            assert (tmp_path / "joined" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_no_row_is_read_beyond_the_last_one(shards: Path) -> None:
    images = PreparedImages.open(shards).images
    for row in (-1, len(images)):
        with pytest.raises(IndexError, match="expected rows from 0 to 19"):
            images[np.array([0, row])]


def test_a_missing_shard_is_named(shards: Path) -> None:
    shutil.rmtree(shards / "2")
    with pytest.raises(DataError, match=r"prepared images of 3 shards, received .* with 1/3, 3/3"):
        PreparedImages.open(shards)


def test_shards_of_different_divisions_are_refused(data: Path, shards: Path) -> None:
    paths = paths_of(data)
    for number, part in enumerate((paths[:8], paths[6:13]), 1):
        shutil.rmtree(shards / str(number))
        prepare_images(ImageFolder(data), part, RECIPE, shards / str(number), workers=None, progress=False)
        (shards / str(number) / "shard.json").write_text(f'{{"number": {number}, "count": 3}}')
    with pytest.raises(DataError, match="each image in one shard"):
        PreparedImages.open(shards)
