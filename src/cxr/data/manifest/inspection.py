"""Looks at single images: what is found in each is kept, so that other runs and other processes need not look again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.data.manifest.fine_structure import FINE_STRUCTURE_SIDE
from cxr.errors import ImageError
from cxr.images.decoding import ImageFacts, ImageLimits, decode_grey, inspect_image, kept_facts
from cxr.images.parallel import map_in_order
from cxr.images.raw_images import RawImages
from cxr.images.reading_options import VALIDATED, ReadingOptions
from cxr.images.result_cache import ResultCache


class ImageInspection:
    """What is found in each image of a data set."""

    def __init__(self, images: RawImages, limits: ImageLimits, cache: ResultCache) -> None:
        """Open what earlier runs found.

        Args:
            images: the raw images.
            limits: limits that an image must keep to be accepted as a radiograph.
            cache: keeps what is found.
        """
        self.images = images
        self._limits = limits
        self._known_facts = kept_facts(limits, cache)
        options = replace(VALIDATED, max_pixels=limits.options.max_pixels)
        self._make_thumbnail = partial(_decode_thumbnail, options)
        self._known_thumbnails = cache.results(
            __name__,
            "thumbnails",
            key=options.to_text(),
            to_bytes=lambda thumbnail: thumbnail.tobytes(),
            from_bytes=lambda content: np.frombuffer(content, np.uint8).reshape(
                FINE_STRUCTURE_SIDE, FINE_STRUCTURE_SIDE
            ),
        )

    def facts(self, name: str) -> ImageFacts:
        """Collect the facts of one image. A bad image is described and raises no error.

        Args:
            name: its name.

        Returns:
            The facts, with all problems found.
        """
        return inspect_image(self.images, name, self._limits, self._known_facts)

    def thumbnail(self, name: str) -> NDArray[np.uint8]:
        """Decode an image in the size in which near duplicates are compared.

        Args:
            name: its name.

        Returns:
            ``(side, side)`` uint8, with the side :data:`cxr.data.manifest.fine_structure.FINE_STRUCTURE_SIDE`.

        Raises:
            ImageError: if the image cannot be decoded.
        """
        return self._known_thumbnails.compute(self.images, name, self._make_thumbnail)[1]


def inspect_images(inspection: ImageInspection, names: Sequence[str], *, workers: int | None) -> None:
    """Look at images for a manifest that another process builds, which finds the results in a cache.

    The thumbnails of all images are made, also of those that turn out to have no near duplicate: which ones have is
    known only when all images have been seen.

    Args:
        inspection: where the results are kept.
        names: names of images.
        workers: threads; None for as many as suit the images.
    """

    def inspect(name: str) -> None:
        if inspection.facts(name).phash:
            with suppress(ImageError):  # the manifest says so, if it needs the thumbnail
                inspection.thumbnail(name)

    results = map_in_order(inspect, ((name,) for name in names), workers or inspection.images.workers)
    for _ in tqdm(results, desc="images", total=len(names), unit="image", disable=None):
        pass


def _decode_thumbnail(options: ReadingOptions, content: bytes) -> NDArray[np.uint8]:
    """Decode an image in the size to which its fine structure is reduced first; reducing it again changes nothing."""
    size = (FINE_STRUCTURE_SIDE, FINE_STRUCTURE_SIDE)
    return np.asarray(cv2.resize(decode_grey(content, options), size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
