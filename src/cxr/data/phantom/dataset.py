"""The built-in data set: drawn chest radiographs ("phantoms") of children with and without pneumonia.

Files, folders and names follow the public set of Kermany et al. (2018), so that every step works on both.
An image with pneumonia gets the mean, contrast and file size of the same image without it (see
:func:`draw_image`), so that a classifier has to look at the lungs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from cxr.cpu import available_cores
from cxr.data.dataset import NORMAL, OFFICIAL_SPLITS, PNEUMONIA, SUBTYPES, DatasetCard
from cxr.data.phantom.anatomy import Anatomy, Pose
from cxr.data.phantom.canvas import Canvas
from cxr.data.phantom.chest import draw_branches, draw_chest
from cxr.data.phantom.opacity import LOBES, Box, draw_consolidation, draw_interstitial_pattern, enclosing_boxes
from cxr.data.phantom.portable_math import sine_and_cosine
from cxr.data.phantom.random_stream import RandomStream
from cxr.data.phantom.scanner import Detector, Exposure, encode_jpeg
from cxr.errors import ParameterError
from cxr.files import BOXES_FILE
from cxr.freed_memory import keep_freed_memory

MIN_IMAGES = 20
"""Fewest images of a data set: with fewer, a split would lack a class or subtype."""

_SHARES = {"normal": 0.40, "bacteria": 0.39, "virus": 0.21}
_TEST_SHARE = 0.17
_OFFICIAL_VALIDATION = 8  # images per class in the public set


@dataclass(frozen=True)
class PhantomPlan:
    """One image to draw.

    Attributes:
        split: official split.
        subtype: one of :data:`cxr.data.dataset.SUBTYPES`.
        patient: number of the patient within the subtype, from 1.
        image: number of the image within the patient, from 0.
        name: file name.
    """

    split: str
    subtype: str
    patient: int
    image: int
    name: str

    @property
    def path(self) -> str:
        """Path of the file relative to the data folder."""
        label = NORMAL if self.subtype == "normal" else PNEUMONIA
        return f"{self.split}/{label}/{self.name}"


@dataclass(frozen=True)
class PhantomImage:
    """One drawn image.

    Attributes:
        data: JPEG file.
        style: scanner style.
        difficulty: 0 (easy) to 1 (subtle); None for a normal image.
        boxes: boxes of the opacities in pixels.
    """

    data: bytes
    style: str
    difficulty: float | None
    boxes: list[Box]


def draw_dataset(folder: Path, *, images: int, seed: int, workers: int | None = None) -> DatasetCard:
    """Draw a data set of phantoms.

    Writes ``{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg``, ``dataset.json`` (the card) and ``boxes.json`` (for
    each path the scanner style, the subtype, the difficulty and the boxes of the opacities).

    Args:
        folder: where to write; made if missing.
        images: number of images, at least :data:`MIN_IMAGES`.
        seed: the same seed gives the same bytes, whatever the number of workers and the processor.
        workers: number of processes that draw; None means one per core.

    Returns:
        The card of the data set.

    Raises:
        ParameterError: if there are too few images.
    """
    if images < MIN_IMAGES:
        raise ParameterError([f"expected at least {MIN_IMAGES} phantoms, received images={images}; ask for more"])
    plans = plan_dataset(images, seed)
    for directory in sorted({(folder / item.path).parent for item in plans}):
        directory.mkdir(parents=True, exist_ok=True)

    draw = partial(_draw_to_file, folder, seed)
    count = workers or available_cores()
    with ExitStack() as stack:
        if count == 1:
            results: Iterator[tuple[int, dict[str, object]]] = map(draw, plans)
        else:
            # Processes: much of the drawing is Python. Spawned, because a forked OpenCV may hang.
            pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _prepare_process)
            stack.callback(pool.shutdown, cancel_futures=True)  # an interrupt cancels what has not begun
            results = pool.map(draw, plans, chunksize=4)
        drawn = list(tqdm(results, "phantoms", len(plans), unit="image", disable=None))
    entries = {item.path: entry for item, (_, entry) in sorted(zip(plans, drawn, strict=True), key=lambda p: p[0].path)}
    lines = ",\n".join(f"{json.dumps(path)}: {json.dumps(entry)}" for path, entry in entries.items())
    (folder / BOXES_FILE).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    card = DatasetCard("phantom", "phantom", "phantom", len(plans), sum(size for size, _ in drawn), "CC0-1.0")
    card.write(folder)
    return card


def _prepare_process() -> None:
    """Let a drawing process keep its memory, and end when its parent is killed; otherwise it would wait forever."""
    keep_freed_memory()

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _draw_to_file(folder: Path, seed: int, item: PhantomPlan) -> tuple[int, dict[str, object]]:
    """Draw one image into its file; returns the file's size in bytes and its entry of ``boxes.json``."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one image per process is faster than several threads per image
    try:
        image = draw_image(item, seed)
    finally:
        cv2.setNumThreads(threads)
    (folder / item.path).write_bytes(image.data)
    return len(image.data), {
        "style": image.style,
        "subtype": item.subtype,
        "difficulty": image.difficulty,
        "boxes": image.boxes,
    }


def draw_image(item: PhantomPlan, seed: int, *, healthy: bool = False) -> PhantomImage:
    """Draw one image.

    An image with pneumonia is drawn twice, with and without its opacity. The image with the opacity gets the mean
    grey, the standard deviation and nearly the file size of the one without, so that these follow the same
    distribution in both classes.

    Args:
        item: what to draw.
        seed: seed of the data set.
        healthy: whether to leave the opacity out: the same patient in the same pose without pneumonia.

    Returns:
        The image.
    """
    patient = RandomStream(seed, SUBTYPES.index(item.subtype), item.patient)
    anatomy = Anatomy.draw(patient)
    lobe = LOBES[patient.choice(list(LOBES))]
    generator = RandomStream(seed, SUBTYPES.index(item.subtype), item.patient, 1 + item.image)
    canvas = _draw_frame(anatomy, generator)
    pose = Pose.draw(generator)
    exposure = Exposure.draw(generator)
    chest = draw_chest(canvas, anatomy, pose, generator)
    detector = Detector(canvas, exposure)
    plain = detector.develop(chest.absorption())
    data = encode_jpeg(plain, exposure)
    if healthy or item.subtype == "normal":
        return PhantomImage(data, exposure.style, None, [])
    difficulty = round(generator.uniform(), 3)
    if item.subtype == "bacteria":
        opacity = draw_consolidation(
            canvas, anatomy, pose, draw_branches(canvas, anatomy, "bronchi"), difficulty, lobe, generator
        )
    else:
        opacity = draw_interstitial_pattern(canvas, anatomy, pose, chest.streaks, difficulty, generator)
    pixels = detector.develop(chest.absorption(opacity.filled, opacity.strands), like=plain)
    data = encode_jpeg(pixels, exposure, like=len(data))
    return PhantomImage(data, exposure.style, difficulty, enclosing_boxes(opacity, chest.depth))


def _draw_frame(anatomy: Anatomy, g: RandomStream) -> Canvas:
    """Draw the size of an image and the position, scale and rotation of the chest in it."""
    width = round(g.uniform(430, 660))
    aspect = g.uniform(1.0, 1.42)
    height = round(width / aspect)
    span = max(g.uniform(1.30, 1.58), (2 * anatomy.cage + g.uniform(0.10, 0.32)) / aspect)
    scale = height / span
    turn = g.normal(0, 0.035)
    s, c = (scale * float(value) for value in sine_and_cosine(turn))
    x, y = g.normal(0, 0.035), g.normal(0.51, 0.035)
    matrix = np.array([[c, -s, width / 2 - (c * x - s * y)], [s, c, height / 2 - (s * x + c * y)]])
    return Canvas(width, height, matrix)


def plan_dataset(images: int, seed: int) -> list[PhantomPlan]:
    """Plan a data set: subtypes, official splits, patients and file names.

    Args:
        images: number of images.
        seed: seed of the data set.

    Returns:
        One plan per image.
    """
    generator = np.random.default_rng([seed, 7])
    plans: list[PhantomPlan] = []
    number = 0
    for subtype in SUBTYPES:
        quotas = _images_per_split(images, subtype)
        groups = [
            (split, size)
            for split in OFFICIAL_SPLITS
            for size in _patient_sizes(quotas[split], several=split != "val", generator=generator)
        ]
        numbers = generator.permutation(len(groups)) + 1
        for patient, (split, size) in sorted(zip(numbers.tolist(), groups, strict=True)):
            for image in range(size):
                number += 1
                plans.append(PhantomPlan(split, subtype, patient, image, _file_name(subtype, patient, image, number)))
    return plans


def _images_per_split(images: int, subtype: str) -> dict[str, int]:
    counts = {name: round(share * images) for name, share in _SHARES.items()}
    counts["bacteria"] = images - counts["normal"] - counts["virus"]
    validation = _OFFICIAL_VALIDATION if images >= 200 else max(1, images // 30)
    validation_counts = {"normal": validation, "bacteria": -(-validation * 2 // 3), "virus": validation // 3}
    test = max(2, round(_TEST_SHARE * counts[subtype]))
    return {
        "train": counts[subtype] - validation_counts[subtype] - test,
        "val": validation_counts[subtype],
        "test": test,
    }


def _patient_sizes(images: int, *, several: bool, generator: np.random.Generator) -> Iterator[int]:
    """Yield the number of images of each patient of a split; with ``several``, one patient has at least two."""
    first = several and images >= 2
    while images > 0:
        size = 2 if first else int(generator.choice([1, 2, 3, 4], p=[0.66, 0.22, 0.08, 0.04])) if several else 1
        first = False
        yield min(size, images)
        images -= size


def _file_name(subtype: str, patient: int, image: int, number: int) -> str:
    if subtype != "normal":
        return f"person{patient}_{subtype}_{number}.jpeg"
    series = "IM" if patient % 3 else "NORMAL2-IM"
    suffix = "" if image == 0 else f"-{image + 1:04d}"
    return f"{series}-{100 + patient:04d}-0001{suffix}.jpeg"
