"""The scanner: turns absorption into a JPEG file, in two styles, with noise, borders and markers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from cxr.data.phantom.canvas import Canvas, Points, ellipse, fill_polygon, fixed_point, tube
from cxr.data.phantom.filters import Plane, gaussian_blur
from cxr.data.phantom.portable_math import exponential, logistic, sine_and_cosine
from cxr.data.phantom.random_stream import RandomStream

Style = Literal["digital", "film"]
Pixels = npt.NDArray[np.uint8]

_COARSE = 4  # every fourth pixel is enough to set the exposure
_STEPS = 1024  # per grey level, for exact means


@dataclass(frozen=True)
class Exposure:
    """How one image is taken and stored; nothing in it depends on the label.

    Attributes:
        style: ``"digital"`` (crisp, high contrast) or ``"film"`` (soft, hazy, grainy).
        centre: absorption that becomes middle grey.
        latitude: absorption between dark and bright.
        fog: grey of plain air, in [0, 1].
        scatter: share of the beam that is scattered.
        grain: noise in grey levels.
        softness: blur in body units.
        vignette: loss of brightness towards the corners, in [0, 1].
        quality: JPEG quality.
        colour: whether the file has three equal channels.
        seed: seed of grain, dust and borders.
    """

    style: Style
    centre: float
    latitude: float
    fog: float
    scatter: float
    grain: float
    softness: float
    vignette: float
    quality: int
    colour: bool
    seed: int

    @classmethod
    def draw(cls, generator: RandomStream) -> Exposure:
        """Draw an exposure.

        Args:
            generator: the image's generator.

        Returns:
            The exposure.
        """
        g = generator
        digital = g.uniform() < 0.6
        return cls(
            style="digital" if digital else "film",
            centre=g.uniform(0.66, 0.86),
            latitude=g.uniform(0.66, 0.90) if digital else g.uniform(0.85, 1.15),
            fog=g.uniform(0.0, 0.05) if digital else g.uniform(0.04, 0.14),
            scatter=g.uniform(0.05, 0.15) if digital else g.uniform(0.15, 0.28),
            grain=g.uniform(1.2, 3.2) if digital else g.uniform(2.2, 4.8),
            softness=g.uniform(0.0006, 0.0016) if digital else g.uniform(0.0016, 0.0032),
            vignette=g.uniform(0.0, 0.06) if digital else g.uniform(0.08, 0.25),
            quality=g.integer(62, 93),
            colour=g.uniform() < 0.05,
            seed=g.integer(0, 2**31),
        )


class Detector:
    """The detector of one image: blur, tone curve, noise, dust, collimator and marker.

    The output of the tone curve is multiplied by one layer (gain) and added to another (offset). Both are drawn
    beforehand, so that the same detector can image the same chest with and without an opacity.
    """

    def __init__(self, canvas: Canvas, exposure: Exposure) -> None:
        """Draw noise, dust, collimator and marker.

        Args:
            canvas: the image plane.
            exposure: how the image is taken.
        """
        g = RandomStream(exposure.seed)
        self._canvas = canvas
        self._exposure = exposure
        self._sharpness = np.float32(g.uniform(0.3, 0.7) if exposure.style == "digital" else 0.0)
        x = np.linspace(-1, 1, canvas.width, dtype=np.float32)[None, :]
        y = np.linspace(-1, 1, canvas.height, dtype=np.float32)[:, None]
        heel = np.float32(g.normal(0, 0.03)) * x + np.float32(g.normal(0, 0.03)) * y
        shading = 1 - np.float32(exposure.vignette / 2) * (x * x + y * y) + heel
        noise = g.normal(0, 1, (canvas.height, canvas.width)).astype(np.float32)
        noise = gaussian_blur(noise, g.uniform(0.5, 0.9))
        noise *= np.float32(exposure.grain / 255 / _mean_and_deviation(noise[::_COARSE, ::_COARSE])[1])
        gain, offset = shading * (1 + noise), 0.5 * noise
        if exposure.style == "film":
            offset = offset + _draw_dust(canvas, g)
        if g.uniform() < (0.35 if exposure.style == "digital" else 0.55):
            window = _draw_collimator(canvas, g)
            gain, offset = (
                gain * window,
                offset * window + np.float32(g.uniform(0.01, 0.06)) * (1 - window),
            )
        if g.uniform() < 0.65:
            ink = _draw_marker(canvas, g)
            gain, offset = gain * (1 - ink), offset * (1 - ink) + np.float32(0.97) * ink
        self._gain = np.asarray(255 * gain, np.float32)
        self._offset = np.asarray(255 * offset, np.float32)

    def develop(self, absorption: Plane, like: Pixels | None = None) -> Pixels:
        """Turn absorption into pixels.

        Args:
            absorption: about 0 in air, 1 in soft tissue.
            like: image whose mean and standard deviation are matched, as an automatic exposure control does; None
                keeps the exposure as drawn.

        Returns:
            Pixels, uint8, shape ``(height, width)``.
        """
        share = np.float32(self._exposure.scatter)
        blurred = self._canvas.blur(absorption, self._exposure.softness)
        blurred = (1 - share) * blurred + share * self._canvas.blur(absorption, 0.25)
        if self._sharpness > 0:  # edge enhancement of the console
            blurred = blurred + self._sharpness * (blurred - self._canvas.blur(blurred, 0.02))
        setting = (self._exposure.centre, self._exposure.latitude)
        if like is not None:
            setting = self._expose(blurred[::_COARSE, ::_COARSE], like[::_COARSE, ::_COARSE], setting)
        return quantise(self._gain * self._tone(blurred, setting) + self._offset)

    def _tone(self, blurred: Plane, setting: tuple[float, float]) -> Plane:
        centre, latitude = setting
        steepness = 1 / (latitude * 0.36)
        floor = 1 / (1 + float(exponential(np.array(centre * steepness))))
        fog = self._exposure.fog
        gain = (0.97 - fog) / (1 - floor)
        tone = logistic(np.float32(steepness) * (blurred - np.float32(centre)))
        return np.asarray(np.float32(gain) * tone + np.float32(fog - gain * floor), np.float32)

    def _expose(self, blurred: Plane, like: Pixels, setting: tuple[float, float]) -> tuple[float, float]:
        """Find the centre and latitude that match the mean and deviation of another image (Newton's method)."""
        gain, offset = self._gain[::_COARSE, ::_COARSE], self._offset[::_COARSE, ::_COARSE]

        def error(centre: float, latitude: float) -> tuple[float, float]:
            grey = np.clip(gain * self._tone(blurred, (centre, latitude)) + offset, 0, 255)
            mean, deviation = _mean_and_deviation(grey)
            return mean - target[0], deviation - target[1]

        target = _mean_and_deviation(like)
        centre, latitude = setting
        step = 0.01
        for _ in range(4):
            mean, deviation = error(centre, latitude)
            by_centre, by_latitude = error(centre + step, latitude), error(centre, latitude + step)
            a, b = (by_centre[0] - mean) / step, (by_latitude[0] - mean) / step
            c, d = (by_centre[1] - deviation) / step, (by_latitude[1] - deviation) / step
            determinant = a * d - b * c
            centre = min(max(centre - (d * mean - b * deviation) / determinant, 0.25), 2.0)
            latitude = min(max(latitude - (a * deviation - c * mean) / determinant, 0.25), 2.0)
        return centre, latitude


def _mean_and_deviation(plane: Plane | Pixels) -> tuple[float, float]:
    """Mean and standard deviation of values rounded to multiples of 1/1024: sums of integers have no rounding."""
    steps = np.rint(plane * np.float32(_STEPS)).astype(np.int64)
    count, total, squares = steps.size, int(steps.sum()), int((steps * steps).sum())
    return total / (_STEPS * count), math.sqrt(squares * count - total * total) / (_STEPS * count)


def _draw_dust(canvas: Canvas, g: RandomStream) -> Plane:
    specks = np.zeros((canvas.height, canvas.width), np.float32)
    for _ in range(g.integer(0, 12)):
        at = (g.integer(0, canvas.width), g.integer(0, canvas.height))
        end = (at[0] + g.integer(-4, 5), at[1] + g.integer(-4, 5))
        cv2.line(specks, at, end, g.uniform(-0.25, 0.3), 1)
    return gaussian_blur(specks, 0.6)


def _draw_collimator(canvas: Canvas, g: RandomStream) -> Plane:
    """Draw the opening of the collimator: a slightly rotated rectangle, 1 inside and 0 outside."""
    w, h = canvas.width, canvas.height
    left, top, right, bottom = g.uniform(-0.03, 0.045, 4) * (w, h, w, h)
    corners = np.array([(left, top), (w - right, top), (w - right, h - bottom), (left, h - bottom)])
    corners += g.normal(0, 0.004 * w, corners.shape)
    window = np.zeros((h, w), np.uint8)
    fill_polygon(window, fixed_point(corners), 255)
    return gaussian_blur(window * np.float32(1 / 255), g.uniform(0.8, 3.0))


_LETTERS: dict[str, list[list[tuple[float, float]]]] = {
    "R": [
        [(0, 1), (0, 0), (0.45, 0), (0.62, 0.12), (0.62, 0.36), (0.45, 0.5), (0, 0.5)],
        [(0.3, 0.5), (0.65, 1)],
    ],
    "L": [[(0, 0), (0, 1), (0.58, 1)]],
}


def _draw_marker(canvas: Canvas, g: RandomStream) -> Plane:
    """Draw a lead letter in an upper corner: 1 on the letter, 0 elsewhere."""
    letter = "R" if g.uniform() < 0.75 else "L"
    size = canvas.height * g.uniform(0.035, 0.055)
    left = canvas.width * (g.uniform(0.02, 0.09) if letter == "R" else g.uniform(0.88, 0.94))
    top = canvas.height * g.uniform(0.03, 0.40)
    turn = g.normal(0, 0.08)
    s, c = (size * float(value) for value in sine_and_cosine(turn))
    layer = np.zeros((canvas.height, canvas.width), np.uint8)
    for stroke in _LETTERS[letter]:
        points = np.array([(c * x - s * y + left, s * x + c * y + top) for x, y in stroke])
        for outline in _thick_line(points, max(2, round(size * 0.13))):
            fill_polygon(layer, fixed_point(outline), 255)
    ink = gaussian_blur(layer * np.float32(1 / 255), 0.6)
    return np.asarray(ink * np.float32(g.uniform(0.7, 1.0)), np.float32)


def _thick_line(points: Points, width: float) -> list[Points]:
    """Outlines of a line with round corners and ends; OpenCV's own thick lines round with floating-point numbers."""
    pieces = [tube(points[first : first + 2], width) for first in range(len(points) - 1)]
    return pieces + [ellipse(x, y, width / 2, width / 2) for x, y in points.tolist()]


def quantise(grey: Plane) -> Pixels:
    """Round grey levels to eight bits.

    Args:
        grey: grey levels.

    Returns:
        Pixels, uint8.
    """
    return np.asarray(np.clip(np.rint(grey), 0, 255), np.uint8)


def encode_jpeg(pixels: Pixels, exposure: Exposure, like: int | None = None) -> bytes:
    """Store an image as JPEG.

    Args:
        pixels: uint8, shape ``(height, width)``.
        exposure: gives quality and channels.
        like: file size in bytes to approach by a small change of the quality; None keeps the quality.

    Returns:
        The file's bytes.
    """
    if exposure.colour:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), np.uint8)
    first = _jpeg(pixels, exposure.quality)
    if like is None:
        return first
    best, direction, quality = first, 1 if len(first) < like else -1, exposure.quality
    while 40 < quality < 97:
        quality += direction
        data = _jpeg(pixels, quality)
        if abs(len(data) - like) < abs(len(best) - like):
            best = data
        if (len(data) - like) * direction >= 0:
            break
    return best


def _jpeg(pixels: Pixels, quality: int) -> bytes:
    _, data = cv2.imencode(".jpeg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data.tobytes())
