"""The built-in data set: drawn chest radiographs ("phantoms") of children with and without pneumonia.

Files, folders and names follow the public set of Kermany et al. (2018), so that every step works on both.
What an opacity changes in an image's mean, contrast and file size is taken back (see :func:`picture`): a
classifier has to look at the lungs.
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

from cxr.data.dataset import NORMAL, OFFICIAL_SPLITS, PNEUMONIA, SUBTYPES, DatasetCard
from cxr.data.phantom.anatomy import Anatomy, Pose
from cxr.data.phantom.canvas import Canvas
from cxr.data.phantom.chest import branches, compose
from cxr.data.phantom.opacity import LOBES, Box, boxes, consolidation, interstitial
from cxr.data.phantom.scanner import Exposure, Plate, encode
from cxr.errors import ParameterError
from cxr.files import BOXES_FILE

SMALLEST = 20
"""Fewest images of a set: below it a class or subtype would be missing from a split."""

_SHARES = {"normal": 0.40, "bacteria": 0.39, "virus": 0.21}
_TEST_SHARE = 0.17
_OFFICIAL_VALIDATION = 8  # images per class in the public set


@dataclass(frozen=True)
class Plan:
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
class Picture:
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


def draw_dataset(folder: Path, *, images: int = 600, seed: int = 0, workers: int | None = None) -> DatasetCard:
    """Draw a data set of phantoms.

    Writes ``{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg``, ``dataset.json`` (the card) and ``boxes.json`` (for
    each path the scanner style, the subtype, the difficulty and the boxes of the opacities).

    Args:
        folder: where to write; made if missing.
        images: number of images, at least :data:`SMALLEST`.
        seed: the same seed gives the same bytes, whatever the number of workers.
        workers: images drawn at a time; None takes the number of cores.

    Returns:
        The card of the data set.

    Raises:
        ParameterError: if there are too few images.
    """
    if images < SMALLEST:
        raise ParameterError([f"expected at least {SMALLEST} phantoms, received images={images}; ask for more"])
    plans = plan(images, seed)
    for directory in sorted({(folder / item.path).parent for item in plans}):
        directory.mkdir(parents=True, exist_ok=True)

    one = partial(_draw, folder, seed)
    count = workers or os.cpu_count() or 1
    with ExitStack() as stack:
        if count == 1:
            drawing: Iterator[tuple[int, dict[str, object]]] = map(one, plans)
        else:
            # Processes: much of the drawing is Python. Spawned, because a forked OpenCV may hang.
            pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _end_with_parent)
            stack.callback(pool.shutdown, cancel_futures=True)  # also when interrupted: nothing new is drawn
            drawing = pool.map(one, plans, chunksize=4)
        drawn = list(tqdm(drawing, "phantoms", len(plans), unit="image", disable=None))
    facts = {item.path: fact for item, (_, fact) in sorted(zip(plans, drawn, strict=True), key=lambda p: p[0].path)}
    lines = ",\n".join(f"{json.dumps(path)}: {json.dumps(fact)}" for path, fact in facts.items())
    (folder / BOXES_FILE).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    card = DatasetCard("phantom", "phantom", "phantom", len(plans), sum(size for size, _ in drawn), "CC0-1.0")
    card.write(folder)
    return card


def _end_with_parent() -> None:
    """Let a drawing process end when the one that started it is killed: it would wait for work for ever."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _draw(folder: Path, seed: int, item: Plan) -> tuple[int, dict[str, object]]:
    """Draw one image into its file; gives the file's size and what the side file says of it."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one image per process is faster than several threads per image
    try:
        drawn = picture(item, seed)
    finally:
        cv2.setNumThreads(threads)
    (folder / item.path).write_bytes(drawn.data)
    return len(drawn.data), {
        "style": drawn.style,
        "subtype": item.subtype,
        "difficulty": drawn.difficulty,
        "boxes": drawn.boxes,
    }


def picture(item: Plan, seed: int, *, healthy: bool = False) -> Picture:
    """Draw one image.

    A pneumonia is drawn twice, with and without its opacity; the image with it gets the mean grey, the
    standard deviation and nearly the file size of the one without. So these follow the same distribution in
    both classes.

    Args:
        item: what to draw.
        seed: seed of the data set.
        healthy: leave a pneumonia's opacity out: the same image of the same patient in health.

    Returns:
        The image.
    """
    patient = np.random.default_rng([seed, SUBTYPES.index(item.subtype), item.patient])
    anatomy = Anatomy.draw(patient)
    lobe = LOBES[str(patient.choice(list(LOBES)))]
    generator = np.random.default_rng([seed, SUBTYPES.index(item.subtype), item.patient, 1 + item.image])
    canvas = _frame(anatomy, generator)
    pose = Pose.draw(generator)
    exposure = Exposure.draw(generator)
    chest = compose(canvas, anatomy, pose, generator)
    plate = Plate(canvas, exposure)
    plain = plate.develop(chest.absorption())
    data = encode(plain, exposure)
    if healthy or item.subtype == "normal":
        return Picture(data, exposure.style, None, [])
    difficulty = round(float(generator.uniform()), 3)
    if item.subtype == "bacteria":
        opacity = consolidation(
            canvas, anatomy, pose, branches(canvas, anatomy, "bronchi"), difficulty, lobe, generator
        )
    else:
        opacity = interstitial(canvas, anatomy, pose, chest.streaks, difficulty, generator)
    pixels = plate.develop(chest.absorption(opacity.filled, opacity.strands), like=plain)
    data = encode(pixels, exposure, like=len(data))
    return Picture(data, exposure.style, difficulty, boxes(opacity, chest.depth))


def _frame(anatomy: Anatomy, g: np.random.Generator) -> Canvas:
    """Size and framing of an image: how large, where and how straight the chest lies in it."""
    width = round(float(g.uniform(430, 660)))
    aspect = g.uniform(1.0, 1.42)
    height = round(width / aspect)
    span = max(g.uniform(1.30, 1.58), (2 * anatomy.cage + g.uniform(0.10, 0.32)) / aspect)
    scale = height / span
    turn = g.normal(0, 0.035)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.array([0.0, 0.51]) + g.normal(0, 0.035, 2)
    offset = np.array([width / 2, height / 2]) - rotation @ middle
    return Canvas(width, height, np.column_stack([rotation, offset]))


def plan(images: int, seed: int) -> list[Plan]:
    """Plan a data set: subtypes, official splits, patients and file names.

    Args:
        images: number of images.
        seed: seed of the data set.

    Returns:
        One plan per image.
    """
    generator = np.random.default_rng([seed, 7])
    plans: list[Plan] = []
    number = 0
    for subtype in SUBTYPES:
        quotas = _quotas(images, subtype)
        groups = [
            (split, size)
            for split in OFFICIAL_SPLITS
            for size in _patients(quotas[split], several=split != "val", generator=generator)
        ]
        numbers = generator.permutation(len(groups)) + 1
        for patient, (split, size) in sorted(zip(numbers.tolist(), groups, strict=True)):
            for image in range(size):
                number += 1
                plans.append(Plan(split, subtype, patient, image, _name(subtype, patient, image, number)))
    return plans


def _quotas(images: int, subtype: str) -> dict[str, int]:
    counts = {name: round(share * images) for name, share in _SHARES.items()}
    counts["bacteria"] = images - counts["normal"] - counts["virus"]
    validation = _OFFICIAL_VALIDATION if images >= 200 else max(1, images // 30)
    held = {"normal": validation, "bacteria": -(-validation * 2 // 3), "virus": validation // 3}
    test = max(2, round(_TEST_SHARE * counts[subtype]))
    return {"train": counts[subtype] - held[subtype] - test, "val": held[subtype], "test": test}


def _patients(images: int, *, several: bool, generator: np.random.Generator) -> Iterator[int]:
    """Numbers of images of the patients of one split, at least one patient with two where asked for."""
    first = several and images >= 2
    while images > 0:
        size = 2 if first else int(generator.choice([1, 2, 3, 4], p=[0.66, 0.22, 0.08, 0.04])) if several else 1
        first = False
        yield min(size, images)
        images -= size


def _name(subtype: str, patient: int, image: int, number: int) -> str:
    if subtype != "normal":
        return f"person{patient}_{subtype}_{number}.jpeg"
    series = "IM" if patient % 3 else "NORMAL2-IM"
    tail = "" if image == 0 else f"-{image + 1:04d}"
    return f"{series}-{100 + patient:04d}-0001{tail}.jpeg"
