"""A radiograph in every pose in which it can be shown: turned, inverted, and as it should be."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.images.decoding import decode_image
from cxr.images.reading_options import VALIDATED
from cxr.images.strict_decoding import DecodedImage
from cxr.inference.reference.features import (
    DESCRIPTOR_LENGTH,
    STATISTICS,
    FloatArray,
    describe_image,
    measure_image,
)

POSES: Mapping[str, str] = {
    "upright": "as it should be",
    "turned_left": "turned by 90 degrees to the left",
    "turned_right": "turned by 90 degrees to the right",
    "upside_down": "upside down",
    "inverted": "inverted: bone is dark and air is bright",
}
"""Ways in which a radiograph can be shown, each with a description for people."""

INVERSE_POSE: Mapping[str, str] = {
    "upright": "upright",
    "turned_left": "turned_right",
    "turned_right": "turned_left",
    "upside_down": "upside_down",
    "inverted": "inverted",
}

_QUARTER_TURNS = {"upright": 0, "turned_left": 1, "upside_down": 2, "turned_right": 3}


@dataclass(frozen=True)
class PosedFeatures:
    """An image: its statistics, and its descriptor in each pose.

    Attributes:
        statistics: ``(s,)`` float32.
        descriptors: ``(poses, d)`` float32, in order of :data:`POSES`.
        coloured_share: share of its pixels that are coloured, 0 to 1.
    """

    statistics: FloatArray
    descriptors: FloatArray
    coloured_share: float

    def to_bytes(self) -> bytes:
        """Write the features; :meth:`from_bytes` reads them."""
        return struct.pack("<d", self.coloured_share) + self.statistics.tobytes() + self.descriptors.tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> PosedFeatures:
        """Read what :meth:`to_bytes` wrote."""
        (coloured_share,) = struct.unpack_from("<d", content)
        values = np.frombuffer(content, dtype=np.float32, offset=struct.calcsize("<d"))
        descriptors = values[len(STATISTICS) :].reshape(len(POSES), DESCRIPTOR_LENGTH)
        return cls(values[: len(STATISTICS)], descriptors, coloured_share)


def extract_posed_features(image: DecodedImage) -> PosedFeatures:
    """Compute what the fit and the checks need of an image.

    Args:
        image: the image, upright.

    Returns:
        Statistics, descriptors and share of coloured pixels.
    """
    values = measure_image(image.grey)
    return PosedFeatures(
        np.array([values[name] for name in STATISTICS], dtype=np.float32),
        np.stack([describe_image(apply_pose(image.grey, pose)) for pose in POSES]),
        image.coloured_share,
    )


def read_posed_features(content: bytes) -> PosedFeatures:
    """Decode an image that validation accepted, and extract its features.

    Args:
        content: the whole content of its file.

    Returns:
        The features.
    """
    return extract_posed_features(decode_image(content, VALIDATED))


def apply_pose(grey: NDArray[np.uint8], pose: str) -> NDArray[np.uint8]:
    """Turn or invert an upright radiograph.

    Args:
        grey: ``(height, width)`` uint8, upright.
        pose: key of :data:`POSES`.

    Returns:
        The image in that pose, uint8.
    """
    if pose == "inverted":
        return np.asarray(255 - grey, dtype=np.uint8)
    return np.ascontiguousarray(np.rot90(grey, _QUARTER_TURNS[pose]))


def compose_poses(first: str, second: str) -> str | None:
    """Tell in which pose an image is after :func:`apply_pose` was called twice.

    Args:
        first: pose of the first call.
        second: pose of the second call.

    Returns:
        Key of :data:`POSES`; None if the image is turned and inverted, which is none of them.
    """
    if "inverted" not in (first, second):
        turns = (_QUARTER_TURNS[first] + _QUARTER_TURNS[second]) % 4
        return next(pose for pose, number in _QUARTER_TURNS.items() if number == turns)
    other = second if first == "inverted" else first
    return {"upright": "inverted", "inverted": "upright"}.get(other)
