"""Many small images, no two alike, in the layout of the public set: a few phantoms, each changed in many ways.

A phantom takes a tenth of a second to draw, a changed copy of one a thousandth. The change moves, turns, mirrors and
shades the phantom and adds noise, so that each image has another content, and pairs of images have near hashes about as
often as pairs of radiographs do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.data.dataset import DatasetCard
from cxr.data.phantom.dataset import PhantomPlan, draw_image, plan_dataset

SIDE = 64
"""Pixels; the least that the default limits accept."""
_PHANTOMS = 120
_BLOCK = 500
_QUALITY = 90
_SHADES = 4
"""Cells a side of the field that shades an image."""
_DEPTH = 9.0
"""Standard deviation of the shades, in grey levels."""
_NOISE = 6.0

Grey = NDArray[np.uint8]


def draw_changed_phantoms(folder: Path, images: int, seed: int) -> None:
    """Write images and their card. On one machine the same seed gives the same bytes.

    Args:
        folder: an empty folder.
        images: how many.
        seed: seed of the phantoms and of the changes.
    """
    plans = plan_dataset(images, seed)
    for parent in {(folder / plan.path).parent for plan in plans}:
        parent.mkdir(parents=True, exist_ok=True)
    numbered = enumerate(plans)
    blocks: Iterator[list[tuple[int, PhantomPlan]]] = iter(lambda: list(islice(numbered, _BLOCK)), [])
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        small = list(pool.map(partial(_draw_small, seed), plan_dataset(_PHANTOMS, seed), chunksize=8))
        written = sum(pool.map(partial(_write_block, folder, small, seed), blocks))
    DatasetCard("changed phantoms", "phantom", "changed phantoms", images, written, "CC0-1.0").write(folder)


def _draw_small(seed: int, plan: PhantomPlan) -> tuple[str, Grey]:
    """Draw a phantom; gives its subtype and its pixels."""
    content = np.frombuffer(draw_image(plan, seed).data, np.uint8)
    grey = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    return plan.subtype, np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _write_block(
    folder: Path, phantoms: Sequence[tuple[str, Grey]], seed: int, block: Sequence[tuple[int, PhantomPlan]]
) -> int:
    """Write images; gives their bytes."""
    cv2.setNumThreads(1)
    written = 0
    for number, plan in block:
        generator = np.random.default_rng([seed, number])
        of_subtype = [grey for subtype, grey in phantoms if subtype == plan.subtype]
        changed = _change(of_subtype[generator.integers(len(of_subtype))], generator)
        _, jpeg = cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        written += (folder / plan.path).write_bytes(jpeg.tobytes())
    return written


def _change(grey: Grey, generator: np.random.Generator) -> Grey:
    """Move, turn, zoom, mirror, shade and amplify an image, and add noise."""
    centre = (SIDE / 2, SIDE / 2)
    turn = cv2.getRotationMatrix2D(centre, generator.uniform(-8, 8), generator.uniform(0.95, 1.2))
    turn[:, 2] += generator.uniform(-4, 4, 2)
    moved = cv2.warpAffine(grey, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    if generator.random() < 0.5:
        moved = moved[:, ::-1]
    shades = generator.normal(0, _DEPTH, (_SHADES, _SHADES)).astype(np.float32)
    shaded = moved * generator.uniform(0.8, 1.2) + cv2.resize(shades, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    noisy = shaded + generator.normal(0, _NOISE, shaded.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
