"""Prepared images: the images of a data set after a recipe, as one memory-mapped uint8 array with an index.

The folder holds ``images.npy``, ``(images, size, size, planes)`` uint8; ``index.parquet`` with the columns ``path``,
``sha256`` (of the file), ``row`` and ``crc32`` (of the prepared pixels; checking them takes 0.3 s per gigabyte); and
``recipe.json``. It depends only on the images and the recipe, never on a split, so all models and all splits share it.
:mod:`cxr.images.preparation` writes it.

Where shards prepared the images, a folder holds one such folder for each shard, with the number of the shard in
``shard.json``. It is opened as one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import DataError, MissingInputError
from cxr.files import REPEAT_STEP, read_json
from cxr.images.joined_images import JoinedImages
from cxr.images.recipes import Recipe
from cxr.images.shards import SHARD_FILE, Shard, all_shards
from cxr.tables import read_table

IMAGES_FILE = "images.npy"
INDEX_FILE = "index.parquet"
RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class PreparedImages:
    """A folder of prepared images, opened for reading.

    Attributes:
        images: ``(images, size, size, planes)``, uint8, memory-mapped: only what is read is loaded.
        index: one row per image with the columns path, sha256, row (its position in ``images``) and crc32.
        recipe: the recipe that they were prepared with.
    """

    images: NDArray[np.uint8] | JoinedImages
    index: pd.DataFrame
    recipe: Recipe
    _row_of: dict[str, int] = field(repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path, recipe_name: str | None = None) -> PreparedImages:
        """Open a folder that :func:`cxr.images.preparation.prepare_images` wrote, and check that nothing has changed.

        Args:
            folder: folder with the images, the index and the recipe; or folder with one such folder for each shard.
            recipe_name: name of the recipe that the images must have; None accepts any.

        Returns:
            The prepared images.

        Raises:
            MissingInputError: if a file is missing, or if the recipe is a different one.
            DataError: if the files do not belong together, or pixels are damaged.
        """
        parts = [_open_part(part, recipe_name, folder) for part in _order_shards(folder) or [folder]]
        images, index, recipe = parts[0] if len(parts) == 1 else _join_parts(parts, folder)
        return cls(images, index, recipe, dict(zip(index["path"], index["row"].astype(int), strict=True)))

    def rows(self, paths: Iterable[str]) -> NDArray[np.int64]:
        """Find the rows of images by their paths.

        Args:
            paths: image paths, relative to the data folder, in any order.

        Returns:
            Row of each path, in the same order, ``(paths,)`` int64.

        Raises:
            DataError: with the paths that were not prepared.
        """
        paths = list(paths)
        missing = [path for path in paths if path not in self._row_of]
        if missing:
            raise DataError(
                f"expected prepared images, received {len(missing)} paths without one: "
                f"{', '.join(missing[:10])}; run `cxr preprocess` again"
            )
        return np.array([self._row_of[path] for path in paths], dtype=np.int64)


def _order_shards(folder: Path) -> list[Path]:
    """Folders of the shards in a folder, in their order; empty if it holds the images itself."""
    folders = {Shard.read(file): file.parent for file in sorted(folder.glob(f"*/{SHARD_FILE}"))}
    if not folders:
        return []
    expected = all_shards(next(iter(folders)).count)
    if set(folders) != set(expected):
        raise DataError(
            f"expected the prepared images of {len(expected)} shards, received {folder} with "
            f"{', '.join(sorted(map(str, folders)))}; run `cxr preprocess` for the others"
        )
    return [folders[shard] for shard in expected]


def _open_part(part: Path, recipe_name: str | None, folder: Path) -> tuple[NDArray[np.uint8], pd.DataFrame, Recipe]:
    """Open the images, the index and the recipe of a folder, or of one shard in it, and check them."""
    missing = [name for name in (IMAGES_FILE, INDEX_FILE, RECIPE_FILE) if not (part / name).is_file()]
    if missing:
        raise MissingInputError(
            f"expected prepared images, received {part} without {', '.join(missing)}; run `cxr preprocess`"
        )
    recipe = Recipe.from_dict(read_json(part / RECIPE_FILE))
    if recipe_name not in (None, recipe.name):
        raise MissingInputError(
            f"expected images prepared with recipe={recipe_name}, "
            f"received {part} with recipe={recipe.name}; "
            f"run `cxr preprocess --recipe {recipe_name}` and name its folder"
        )
    index = read_table(part / INDEX_FILE)
    images = _open_array(part / IMAGES_FILE)
    expected = (len(index), recipe.size, recipe.size, recipe.planes)
    if images.shape != expected or images.dtype != np.uint8:
        raise DataError(
            f"expected images of shape {expected} and uint8, received shape={images.shape} and {images.dtype} in "
            f"{part}; run `cxr preprocess` again"
        )
    _refuse_damage(images, index, folder)
    return images, index, recipe


def _open_array(path: Path) -> NDArray[np.uint8]:
    """Map the pixels into memory."""
    try:
        images: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except Exception as error:  # a damaged header raises errors of Python's parser
        raise DataError(f"expected an array of images, received {path} ({error}); {REPEAT_STEP}") from error
    return images


def _join_parts(
    parts: Sequence[tuple[NDArray[np.uint8], pd.DataFrame, Recipe]], folder: Path
) -> tuple[JoinedImages, pd.DataFrame, Recipe]:
    """Put the images and the indexes of all shards one after the other."""
    arrays, indexes, recipes = zip(*parts, strict=True)
    if len(set(recipes)) > 1:
        raise DataError(
            f"expected one recipe in all shards, received different ones in {folder}; run `cxr preprocess` again"
        )
    starts = np.cumsum([0, *map(len, arrays[:-1])])
    index = pd.concat(
        [part.assign(row=part["row"] + start) for part, start in zip(indexes, starts, strict=True)], ignore_index=True
    )
    repeated = index["path"][index["path"].duplicated()]
    if len(repeated):
        raise DataError(
            f"expected each image in one shard, received {len(repeated)} images twice in {folder}, the first of them "
            f"{repeated.iloc[0]}; run `cxr preprocess` again"
        )
    return JoinedImages(arrays), index, recipes[0]


def _refuse_damage(images: NDArray[np.uint8], index: pd.DataFrame, folder: Path) -> None:
    """Compare the pixels with their checksums: a disk or a cache may have changed them since they were written."""
    if "crc32" not in index:
        raise DataError(f"expected a checksum of each image, received none in {folder}; run `cxr preprocess` again")
    rows = zip(index["path"], index["row"], index["crc32"], strict=True)
    damaged = [path for path, row, checksum in rows if zlib.crc32(images[row].data) != checksum]
    if damaged:
        raise DataError(
            f"expected the pixels that `cxr preprocess` wrote, received {len(damaged)} damaged images in {folder}, "
            f"the first of {damaged[0]}; {REPEAT_STEP.replace('STAGE', f'preprocess@{folder.name}')}"
        )
