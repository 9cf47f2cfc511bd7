"""Prepared images: a data set after its recipe, as one memory-mapped uint8 array with an index.

The folder holds ``images.npy``, ``(images, size, size, planes)`` uint8; ``index.parquet``, with the columns
``path``, ``sha256`` (of the file) and ``row``; and ``recipe.json``. It depends on the images and the recipe
alone, never on a split, so that every model and every split shares it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.errors import DataError, ImageError, MissingInputError
from cxr.images.decoding import MAX_PIXELS, decode_grey, read_bytes
from cxr.images.recipes import Recipe, apply

IMAGES_NAME = "images.npy"
INDEX_NAME = "index.parquet"
RECIPE_NAME = "recipe.json"

Result = TypeVar("Result")

_WAITING_PER_WORKER = 4
"""Images decoded or waiting per worker: enough to ride out one slow image, few enough to hold in memory."""


def prepare(
    data: Path,
    paths: Sequence[str],
    recipe: Recipe,
    folder: Path,
    workers: int | None = None,
    progress: bool = True,
    *,
    sha256: Sequence[str] | None = None,
    max_pixels: int = MAX_PIXELS,
    scale_16_bit: bool = False,
) -> Prepared:
    """Decode images, apply a recipe and write the result in order, streamed.

    Threads decode and filter in parallel (OpenCV releases Python's lock), a bounded queue keeps only a few
    images in memory, and rows are appended to the file in the order of ``paths``: the result does not depend
    on ``workers``, and memory does not grow with the number of images.

    Args:
        data: data folder.
        paths: image paths relative to it, posix, without repetition; their order is the order of the rows.
        recipe: what to do to each image.
        folder: where to write; made if it is not there.
        workers: threads; all cores of the machine if ``None``.
        progress: whether to show a progress bar on stderr.
        sha256: expected digest per path (the manifest's); ``None`` checks nothing.
        max_pixels: largest number of pixels that is decoded.
        scale_16_bit: whether images of more than 8 bits are taken, stretched to 0 to 255.

    Returns:
        The prepared images, opened.

    Raises:
        ImageError: naming the first file that cannot be decoded; nothing takes its place.
        DataError: if there are no paths, one comes twice, or a file is not the one the manifest describes.
    """
    if not paths or len(set(paths)) != len(paths):
        repeated = sorted({path for path in paths if list(paths).count(path) > 1})[:10] if paths else []
        raise DataError(
            f"expected at least one image and each once, received images={len(paths)}, repeated={repeated}; "
            "run `cxr validate` again"
        )
    work = partial(_prepare_one, data, recipe, max_pixels, scale_16_bit)
    expected = [None] * len(paths) if sha256 is None else sha256
    folder.mkdir(parents=True, exist_ok=True)
    digests: list[str] = []
    try:
        with (folder / IMAGES_NAME).open("wb") as file:
            _write_header(file, (len(paths), recipe.size, recipe.size, recipe.planes))
            rows = in_order(work, zip(paths, expected, strict=True), workers or os.cpu_count() or 1)
            shown = tqdm(
                rows,
                desc=f"preprocess {recipe.name}",
                total=len(paths),
                unit="image",
                mininterval=0.5,
                disable=None if progress else True,
            )
            for digest, pixels in shown:
                file.write(pixels.data)
                digests.append(digest)
    except BaseException:
        (folder / IMAGES_NAME).unlink(missing_ok=True)
        raise
    index = pd.DataFrame({"path": list(paths), "sha256": digests, "row": np.arange(len(paths), dtype=np.int64)})
    index.to_parquet(folder / INDEX_NAME, index=False)
    (folder / RECIPE_NAME).write_text(json.dumps(recipe.to_dict(), indent=2) + "\n", encoding="utf-8")
    return Prepared.open(folder)


def prepare_accepted(
    data: Path, manifest: pd.DataFrame, recipe: Recipe, folder: Path, workers: int | None = None
) -> Prepared:
    """Prepare the images that validation has accepted, as it saw them.

    What validation accepted is not judged a second time: its own limits on size and depth hold.

    Args:
        data: data folder.
        manifest: one row per file with the columns path, sha256, width, height and status.
        recipe: what to do to each image.
        folder: where to write.
        workers: threads; all cores of the machine if ``None``.

    Returns:
        The prepared images, opened, in the manifest's order.

    Raises:
        ImageError: naming the first file that cannot be decoded.
        DataError: if no image was accepted, or a file has changed since.
    """
    accepted = manifest[manifest["status"] == "accepted"]
    largest = int((accepted["width"] * accepted["height"]).max()) if len(accepted) else 0
    return prepare(
        data,
        accepted["path"].tolist(),
        recipe,
        folder,
        workers,
        sha256=accepted["sha256"].tolist(),
        max_pixels=max(largest, MAX_PIXELS),
        scale_16_bit=True,
    )


@dataclass(frozen=True)
class Prepared:
    """A folder of prepared images, opened for reading.

    Attributes:
        images: ``(images, size, size, planes)``, uint8, memory-mapped: only what is read comes into memory.
        index: one row per image with the columns path, sha256 and row (its place in ``images``).
        recipe: recipe that they were prepared with.
    """

    images: NDArray[np.uint8]
    index: pd.DataFrame
    recipe: Recipe
    _row_of: dict[str, int] = field(repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path, recipe_name: str | None = None) -> Prepared:
        """Open what :func:`prepare` wrote.

        Args:
            folder: folder with the images, the index and the recipe.
            recipe_name: name of the recipe that the images must have; ``None`` takes any.

        Returns:
            The prepared images.

        Raises:
            MissingInputError: if one of the files is not there, or the recipe is another one.
            DataError: if the files do not belong together.
        """
        absent = [name for name in (IMAGES_NAME, INDEX_NAME, RECIPE_NAME) if not (folder / name).is_file()]
        if absent:
            raise MissingInputError(
                f"expected prepared images, received {folder} without {', '.join(absent)}; run `cxr preprocess`"
            )
        recipe = Recipe.from_dict(json.loads((folder / RECIPE_NAME).read_text(encoding="utf-8")))
        if recipe_name not in (None, recipe.name):
            raise MissingInputError(
                f"expected images prepared with recipe={recipe_name}, "
                f"received {folder} with recipe={recipe.name}; "
                f"run `cxr preprocess --recipe {recipe_name}` and name its folder"
            )
        index = pd.read_parquet(folder / INDEX_NAME)
        images: NDArray[np.uint8] = np.load(folder / IMAGES_NAME, mmap_mode="r")
        expected = (len(index), recipe.size, recipe.size, recipe.planes)
        if images.shape != expected:
            raise DataError(
                f"expected images of shape {expected}, received shape={images.shape} in {folder}; "
                "run `cxr preprocess` again"
            )
        return cls(images, index, recipe, dict(zip(index["path"], index["row"].astype(int), strict=True)))

    def rows(self, paths: Iterable[str]) -> NDArray[np.int64]:
        """Find images by path.

        Args:
            paths: image paths, relative to the data folder, in any order.

        Returns:
            Row of each path, in the order given, ``(paths,)`` int64.

        Raises:
            DataError: listing the paths that were not prepared.
        """
        wanted = list(paths)
        absent = [path for path in wanted if path not in self._row_of]
        if absent:
            raise DataError(
                f"expected prepared images, received {len(absent)} paths without one: "
                f"{', '.join(absent[:10])}; run `cxr preprocess` again"
            )
        return np.array([self._row_of[path] for path in wanted], dtype=np.int64)


def _prepare_one(
    data: Path, recipe: Recipe, max_pixels: int, scale_16_bit: bool, path: str, expected: str | None
) -> tuple[str, NDArray[np.uint8]]:
    try:
        content = read_bytes(data / path)
        digest = hashlib.sha256(content).hexdigest()
        if expected is not None and expected != digest:
            raise DataError(
                f"expected the file that the manifest describes (sha256={expected}), received {path} with "
                f"sha256={digest}; run `cxr validate` again"
            )
        grey = decode_grey(content, max_pixels=max_pixels, scale_16_bit=scale_16_bit)
    except ImageError as error:
        raise ImageError(error.problem, f"{path}: {error.detail}") from error
    return digest, apply(recipe, grey)


def in_order(
    work: Callable[..., Result], items: Iterable[tuple[object, ...]], workers: int, waiting: int | None = None
) -> Iterator[Result]:
    """Work on items in threads and yield the results in the items' order, with only some of them under way.

    Args:
        work: what to do with an item; OpenCV runs on one thread inside it.
        items: arguments of each call, taken as they are needed.
        workers: threads.
        waiting: most results and items that wait at once; a few per worker if ``None``.

    Yields:
        What ``work`` returned; what it raised is raised in its turn.
    """
    under_way: deque[Future[Result]] = deque()
    most = waiting or workers * _WAITING_PER_WORKER
    with _one_opencv_thread(), ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool:
        try:
            for item in items:
                under_way.append(pool.submit(work, *item))
                if len(under_way) >= most:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Keep OpenCV from splitting each image over the cores while whole images are spread over them."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    """Write the ``.npy`` header, so that rows can be appended and the file be mapped."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
