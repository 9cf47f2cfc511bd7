"""Decodes images, applies a recipe and writes the folder that :mod:`cxr.images.prepared` reads."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.errors import DataError, ImageError
from cxr.files import expect_free_space, write_json
from cxr.images.decoding import decode_grey
from cxr.images.parallel import map_in_order
from cxr.images.prepared import IMAGES_FILE, INDEX_FILE, RECIPE_FILE, PreparedImages
from cxr.images.raw_images import RawImages
from cxr.images.reading_options import VALIDATED, ReadingOptions
from cxr.images.recipes import Recipe, apply_recipe
from cxr.images.result_cache import NO_CACHE, KeptResults, ResultCache
from cxr.images.shards import WHOLE, Shard
from cxr.tables import write_table

_ROWS_AT_ONCE = 256
"""Images that are copied together where shards are joined."""


def prepare_images(
    images: RawImages,
    paths: Sequence[str],
    recipe: Recipe,
    folder: Path,
    *,
    workers: int | None,
    progress: bool = True,
    sha256: Sequence[str] | None = None,
    options: ReadingOptions = VALIDATED,
    cache: ResultCache = NO_CACHE,
    shard: Shard = WHOLE,
) -> PreparedImages:
    """Decode images, apply a recipe and append the results to one file.

    Threads decode and filter in parallel, because OpenCV and simplejpeg release Python's lock. A bounded queue keeps
    only a few images in memory. Rows are written in the order of ``paths``, so the result does not depend on
    ``workers``, and memory does not grow with the number of images.

    Args:
        images: the raw images.
        paths: names of images, each once; their order is the order of the rows.
        recipe: the recipe to apply.
        folder: output folder; created if it does not exist.
        workers: threads; None for as many as suit the images.
        progress: whether to show a progress bar on stderr.
        sha256: expected digest of each file (from the manifest); None for no check.
        options: what is accepted.
        cache: keeps the prepared images, so that a later call decodes and filters new images only.
        shard: the part of the images that is prepared; the folder says which part it holds.

    Returns:
        The prepared images of the shard, opened.

    Raises:
        ImageError: for the first file that cannot be decoded, with its path.
        DataError: if there are no paths, if one is repeated, or if a file does not match the manifest.
        DiskFullError: if the disk has no room for the array.
    """
    if not paths or len(set(paths)) != len(paths):
        repeated = sorted({path for path in paths if list(paths).count(path) > 1})[:10] if paths else []
        raise DataError(
            f"expected at least one image and each once, received images={len(paths)}, repeated={repeated}; "
            "run `cxr validate` again"
        )
    expected_digests = shard.part_of([None] * len(paths) if sha256 is None else sha256)
    paths = shard.part_of(paths)
    known = cache.results(
        __name__,
        recipe.name,
        key=f"{options.to_text()} {json.dumps(recipe.to_dict(), sort_keys=True)}",
        to_bytes=lambda pixels: pixels.tobytes(),
        from_bytes=lambda content: np.frombuffer(content, np.uint8).reshape(recipe.size, recipe.size, recipe.planes),
    )
    work = partial(_prepare_image, images, recipe, options, known)
    size = len(paths) * recipe.size**2 * recipe.planes
    expect_free_space(folder, size, f"{len(paths):,} images prepared with {recipe.name}")
    folder.mkdir(parents=True, exist_ok=True)
    digests: list[str] = []
    checksums: list[int] = []
    try:
        with (folder / IMAGES_FILE).open("wb") as file:
            _write_npy_header(file, (len(paths), recipe.size, recipe.size, recipe.planes))
            rows = map_in_order(work, zip(paths, expected_digests, strict=True), workers or images.workers)
            bar = tqdm(
                rows,
                desc=f"preprocess {recipe.name}",
                total=len(paths),
                unit="image",
                mininterval=0.5,
                disable=None if progress else True,
            )
            for digest, pixels in bar:
                file.write(pixels.data)
                digests.append(digest)
                checksums.append(zlib.crc32(pixels.data))
    except BaseException:
        (folder / IMAGES_FILE).unlink(missing_ok=True)
        raise
    index = pd.DataFrame(
        {
            "path": list(paths),
            "sha256": digests,
            "row": np.arange(len(paths), dtype=np.int64),
            "crc32": np.array(checksums, dtype=np.uint32),
        }
    ).astype({"path": "str", "sha256": "str"})  # also where a shard has no image
    write_table(folder / INDEX_FILE, index)
    (folder / RECIPE_FILE).write_text(json.dumps(recipe.to_dict(), indent=2) + "\n", encoding="utf-8")
    if shard != WHOLE:
        shard.write(folder)
    return PreparedImages.open(folder)


def prepare_accepted_images(
    images: RawImages,
    manifest: pd.DataFrame,
    recipe: Recipe,
    folder: Path,
    *,
    workers: int | None,
    cache: ResultCache = NO_CACHE,
    shard: Shard = WHOLE,
) -> PreparedImages:
    """Prepare the images that validation accepted.

    An accepted image is not judged a second time.

    Args:
        images: the raw images.
        manifest: one row per file with the columns path, sha256, width, height and status.
        recipe: the recipe to apply.
        folder: output folder.
        workers: threads; None for as many as suit the images.
        cache: keeps the prepared images, as in :func:`prepare_images`.
        shard: the part of the accepted images that is prepared.

    Returns:
        The prepared images, opened, in the order of the manifest.

    Raises:
        ImageError: for the first file that cannot be decoded, with its path.
        DataError: if no image was accepted, or if a file has changed since validation.
    """
    accepted = manifest[manifest["status"] == "accepted"]
    largest = int((accepted["width"] * accepted["height"]).max()) if len(accepted) else 0
    return prepare_images(
        images,
        accepted["path"].tolist(),
        recipe,
        folder,
        workers=workers,
        sha256=accepted["sha256"].tolist(),
        options=replace(VALIDATED, max_pixels=max(largest, VALIDATED.max_pixels)),
        cache=cache,
        shard=shard,
    )


def join_shards(shards: Path, folder: Path) -> None:
    """Write the images of all shards as one array, and remove the shards.

    The files are those that :func:`prepare_images` writes without shards, byte for byte.

    Args:
        shards: folder with one folder for each shard.
        folder: output folder.

    Raises:
        DataError: if a shard is missing or damaged.
    """
    joined = PreparedImages.open(shards)
    with (folder / IMAGES_FILE).open("wb") as file:
        _write_npy_header(file, joined.images.shape)
        for start in range(0, len(joined.images), _ROWS_AT_ONCE):
            file.write(joined.images[start : start + _ROWS_AT_ONCE].data)
    write_table(folder / INDEX_FILE, joined.index)
    write_json(folder / RECIPE_FILE, joined.recipe.to_dict())
    shutil.rmtree(shards)


def _prepare_image(
    images: RawImages,
    recipe: Recipe,
    options: ReadingOptions,
    known: KeptResults[NDArray[np.uint8]],
    path: str,
    expected_digest: str | None,
) -> tuple[str, NDArray[np.uint8]]:
    """Return the digest of a file and its prepared image ``(size, size, planes)``."""

    def expect_digest(digest: str) -> None:
        if expected_digest not in (None, digest):
            raise DataError(
                f"expected the file that the manifest describes (sha256={expected_digest}), received {path} with "
                f"sha256={digest}; run `cxr validate` again"
            )

    try:
        return known.compute(
            images, path, lambda content: apply_recipe(recipe, decode_grey(content, options)), check=expect_digest
        )  # fmt: skip
    except ImageError as error:
        raise ImageError(error.problem, f"{path}: {error.detail}") from error


def _write_npy_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    """Write the header of a ``.npy`` file, so that rows can be appended and the file can be memory-mapped."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
