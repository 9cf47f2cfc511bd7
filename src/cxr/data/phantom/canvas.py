"""A raster that is drawn on in body units: the link between a phantom's anatomy and its pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

from cxr.data.phantom.filters import Plane, block_mean, enlarge, gaussian_blur, spread_blocks
from cxr.data.phantom.portable_math import sine_and_cosine
from cxr.data.phantom.random_stream import RandomStream

Points = npt.NDArray[np.float64]
"""A line or outline in body units, shape ``(points, 2)`` as x, y."""

_ANGLES = np.linspace(0, 2 * np.pi, 36, endpoint=False)
_CIRCLE = np.column_stack(sine_and_cosine(_ANGLES))
_SHIFT = 4  # fractional bits of the pixel coordinates that OpenCV takes


class Canvas:
    """Image plane onto which outlines in body units are drawn.

    Body units: x = 0 on the spine and grows to the image's right (the patient's left), y = 0 at the lung
    apex and about 1 at the dome of the diaphragm.
    """

    def __init__(self, width: int, height: int, matrix: Points) -> None:
        """Keep the size and the map from body units to pixels.

        Args:
            width: columns of the image in pixels.
            height: rows of the image in pixels.
            matrix: affine map body units -> pixels, shape ``(2, 3)``.
        """
        self.width = width
        self.height = height
        self.matrix = matrix
        self.scale = math.sqrt(abs(self._determinant()))

    def reduced(self, step: int) -> Canvas:
        """The same view on fewer pixels, for soft layers.

        Args:
            step: how many pixels become one, along each axis.

        Returns:
            The smaller canvas; :meth:`enlarge` of this one brings its layers back.
        """
        width, height = -(-self.width // step), -(-self.height // step)
        shrink = np.array([[width / self.width], [height / self.height]])
        matrix = self.matrix * shrink
        matrix[:, 2] += (shrink[:, 0] - 1) / 2  # a pixel's centre, not its corner, is at whole numbers
        return Canvas(width, height, matrix)

    def pixels(self, points: Points) -> Points:
        """Map body units to pixels.

        Args:
            points: shape ``(points, 2)``, body units.

        Returns:
            Shape ``(points, 2)``, pixels.
        """
        (a, b, c), (d, e, f) = self.matrix.tolist()
        x, y = points[:, 0], points[:, 1]
        mapped: Points = np.column_stack([a * x + b * y + c, d * x + e * y + f])
        return mapped

    def grid(self) -> tuple[Plane, Plane]:
        """Body coordinates of every pixel.

        Returns:
            The x and the y coordinate, each of shape ``(height, width)``.
        """
        (a, b, c), (d, e, f) = self.matrix.tolist()
        determinant = self._determinant()
        columns = np.arange(self.width, dtype=np.float32)[None, :]
        rows = np.arange(self.height, dtype=np.float32)[:, None]
        x = e / determinant * columns + (-b / determinant * rows + (b * f - c * e) / determinant)
        y = -d / determinant * columns + (a / determinant * rows + (c * d - a * f) / determinant)
        return x, y

    def _determinant(self) -> float:
        (a, b, _), (d, e, _) = self.matrix.tolist()
        return float(a * e - b * d)

    def fill(self, outlines: Iterable[Points]) -> Plane:
        """Fill closed outlines; where they overlap they count once.

        Args:
            outlines: closed outlines in body units.

        Returns:
            Coverage in [0, 1].
        """
        return np.multiply(self.mask(outlines), np.float32(1 / 255), dtype=np.float32)

    def difference(self, outer: Iterable[Points], inner: Iterable[Points], share: float) -> Plane:
        """Fill outlines and take back a share inside others: a wall with a lighter core.

        Args:
            outer: closed outlines in body units.
            inner: closed outlines in body units, each inside an outer one.
            share: what is taken back.

        Returns:
            1 in the walls, ``1 - share`` in the cores, 0 elsewhere.
        """
        return self.fill(outer) - np.float32(share) * self.fill(inner)

    def mask(self, outlines: Iterable[Points]) -> npt.NDArray[np.uint8]:
        """Fill closed outlines with 255, their edges smoothed.

        Args:
            outlines: closed outlines in body units.

        Returns:
            Coverage in 0..255.
        """
        mask = np.zeros((self.height, self.width), np.uint8)
        shapes = list(outlines)
        if shapes:
            points = fixed_point(self.pixels(np.concatenate(shapes)))
            start = 0
            for shape in shapes:
                # One at a time: given together, overlapping outlines would cancel out.
                end = start + len(shape)
                fill_polygon(mask, points[start:end], 255)
                start = end
        return mask

    def stroke(self, lines: Iterable[tuple[Points, float, float]]) -> Plane:
        """Draw open lines; later ones cover earlier ones.

        Args:
            lines: for each line its points, its width in body units and its value in [0, 1].

        Returns:
            Values in [0, 1].
        """
        mask = np.zeros((self.height, self.width), np.uint8)
        for points, width, value in lines:
            pixels = max(1, round(width * self.scale))
            fill_polygon(mask, fixed_point(tube(self.pixels(points), pixels)), round(255 * value))
        return np.multiply(mask, np.float32(1 / 255), dtype=np.float32)

    def blur(self, plane: Plane, sigma: float) -> Plane:
        """Gaussian blur; a wide one is computed on a reduced plane, which looks the same and is faster.

        Args:
            plane: the layer.
            sigma: standard deviation in body units.

        Returns:
            The blurred layer.
        """
        pixels = sigma * self.scale
        step = int(pixels // 2)
        if pixels < 0.3:
            return plane
        if step < 2:
            return gaussian_blur(plane, pixels)
        return spread_blocks(gaussian_blur(block_mean(plane, step), pixels / step), step, self.height, self.width)

    def rounded(self, mask: Plane, depth: float) -> Plane:
        """Thickness of a rounded body seen through its outline: a quarter circle from the edge inwards.

        Args:
            mask: coverage in [0, 1].
            depth: distance from the edge in body units over which the thickness grows to 1.

        Returns:
            Thickness in [0, 1].
        """
        # With labels OpenCV adds up the distances as integers; without them some builds use floating-point numbers.
        inside = (mask > 0.5).astype(np.uint8)
        distance, _ = cv2.distanceTransformWithLabels(inside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        inward = 1 - np.minimum(distance / np.float32(depth * self.scale), 1)
        return np.asarray(np.sqrt(1 - inward * inward), np.float32)

    def cloud(self, generator: RandomStream, grain: float) -> Plane:
        """Smooth noise of zero mean and unit deviation.

        Args:
            generator: source of the noise.
            grain: size of a lump in body units.

        Returns:
            The noise.
        """
        cell = max(grain * self.scale, 1.0)
        shape = (int(self.height / cell) + 4, int(self.width / cell) + 4)
        return self.enlarge(generator.normal(0, 1.4, shape).astype(np.float32))

    def enlarge(self, small: Plane) -> Plane:
        """Bring a reduced layer to the size of the image.

        Args:
            small: the reduced layer.

        Returns:
            The layer, cubic interpolation.
        """
        return enlarge(small, self.height, self.width)


def fixed_point(pixels: Points) -> npt.NDArray[np.int32]:
    """Round pixel coordinates to sixteenths, from which OpenCV draws in integer arithmetic.

    Args:
        pixels: shape ``(points, 2)``, pixels.

    Returns:
        Sixteenths of pixels, int32, of the same shape.
    """
    sixteenths: npt.NDArray[np.int32] = np.rint(pixels * 2**_SHIFT).astype(np.int32)
    return sixteenths


def fill_polygon(mask: npt.NDArray[np.uint8], outline: npt.NDArray[np.int32], value: int) -> None:
    """Fill a closed outline in place, its edges smoothed.

    Args:
        mask: where to draw, shape ``(height, width)``.
        outline: sixteenths of pixels, shape ``(points, 2)``.
        value: grey level from 0 to 255.
    """
    cv2.fillPoly(mask, [outline], value, cv2.LINE_AA, _SHIFT)


def curve(points: Iterable[tuple[float, float]], *, closed: bool = False, steps: int = 12) -> Points:
    """Catmull-Rom curve through a few points.

    Args:
        points: the points, body units.
        closed: whether the last point is joined to the first.
        steps: points drawn between two given points.

    Returns:
        The curve, shape ``(points, 2)``.
    """
    knots = np.asarray(list(points), np.float64)
    if closed:
        knots = np.vstack([knots[-1], knots, knots[0], knots[1]])
    else:
        knots = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (knots[i : len(knots) - 3 + i, None, :] for i in range(4))
    pieces = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t * t * t)
    line: Points = pieces.reshape(-1, 2)
    return line if closed else np.vstack([line, knots[-2]])


def tube(line: Points, width: Points | float) -> Points:
    """Outline of a bone or vessel drawn around its centre line, or of many at once.

    Args:
        line: centre lines, shape ``(..., points, 2)``.
        width: widths, one value or one per point, shape ``(..., points)``.

    Returns:
        Closed outlines, shape ``(..., 2 * points, 2)``.
    """
    along = np.empty_like(line)
    along[..., 1:-1, :] = line[..., 2:, :] - line[..., :-2, :]
    along[..., 0, :] = line[..., 1, :] - line[..., 0, :]
    along[..., -1, :] = line[..., -1, :] - line[..., -2, :]
    length = np.sqrt(along[..., 0] * along[..., 0] + along[..., 1] * along[..., 1])
    reach = np.asarray(width, np.float64) / 2 / np.maximum(length, 1e-9)
    across = along[..., ::-1] * reach[..., None] * (-1.0, 1.0)
    outline: Points = np.concatenate([line + across, (line - across)[..., ::-1, :]], axis=-2)
    return outline


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> Points:
    """Outline of an ellipse.

    Args:
        x: centre.
        y: centre.
        rx: half axis along x before turning.
        ry: half axis along y before turning.
        turn: rotation in radians.

    Returns:
        The closed outline.
    """
    across, along = rx * _CIRCLE[:, 0], ry * _CIRCLE[:, 1]
    if turn:
        sine, cosine = sine_and_cosine(turn)
        across, along = cosine * across - sine * along, sine * across + cosine * along
    return np.column_stack([across + x, along + y])


def ramp(value: Plane, low: float, high: float) -> Plane:
    """Smooth rise from 0 to 1.

    Args:
        value: where on the way each pixel is.
        low: value at which the rise begins.
        high: value at which it ends.

    Returns:
        The rise, in [0, 1].
    """
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
