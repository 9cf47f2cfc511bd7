"""A raster that is drawn on in body units: the link between a phantom's anatomy and its pixels."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]
"""One drawn layer, shape ``(height, width)``, float32."""
Points = npt.NDArray[np.float64]
"""A line or outline in body units, shape ``(points, 2)`` as x, y."""

_CIRCLE = np.array([(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 36, endpoint=False)])
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
        self.scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))

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
        mapped: Points = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return mapped

    def grid(self) -> tuple[Plane, Plane]:
        """Body coordinates of every pixel.

        Returns:
            The x and the y coordinate, each of shape ``(height, width)``.
        """
        inverse = cv2.invertAffineTransform(self.matrix).astype(np.float32)
        columns = np.arange(self.width, dtype=np.float32)[None, :]
        rows = np.arange(self.height, dtype=np.float32)[:, None]
        x = inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]
        y = inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]
        return x, y

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
        whole, core = self.mask(outer), self.mask(inner)
        return np.asarray(cv2.addWeighted(whole, 1 / 255, core, -share / 255, 0, dtype=cv2.CV_32F), np.float32)

    def mask(self, outlines: Iterable[Points]) -> npt.NDArray[np.uint8]:
        """Fill closed outlines with 255, their edges smoothed.

        Args:
            outlines: closed outlines in body units.

        Returns:
            Coverage in 0..255.
        """
        mask = np.zeros((self.height, self.width), np.uint8)
        for outline in outlines:
            # One at a time: given together, overlapping outlines would cancel out.
            cv2.fillPoly(mask, [self._fixed(outline)], 255, cv2.LINE_AA, _SHIFT)
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
            thickness = max(1, round(width * self.scale))
            cv2.polylines(mask, [self._fixed(points)], False, round(255 * value), thickness, cv2.LINE_AA, _SHIFT)
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
            return np.asarray(cv2.GaussianBlur(plane, (0, 0), pixels), np.float32)
        small = cv2.resize(plane, (-(-self.width // step), -(-self.height // step)), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), pixels / step)
        size = (self.width, self.height)
        return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.float32)

    def rounded(self, mask: Plane, depth: float) -> Plane:
        """Thickness of a rounded body seen through its outline: a quarter circle from the edge inwards.

        Args:
            mask: coverage in [0, 1].
            depth: distance from the edge in body units over which the thickness grows to 1.

        Returns:
            Thickness in [0, 1].
        """
        distance = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
        inward = 1 - np.minimum(distance / np.float32(depth * self.scale), 1)
        return np.asarray(np.sqrt(1 - inward * inward), np.float32)

    def cloud(self, generator: np.random.Generator, grain: float) -> Plane:
        """Smooth noise of zero mean and unit deviation.

        Args:
            generator: source of the noise.
            grain: size of a lump in body units.

        Returns:
            The noise.
        """
        cell = max(grain * self.scale, 1.0)
        shape = (int(self.height / cell) + 4, int(self.width / cell) + 4)
        return self.enlarge(generator.standard_normal(shape, dtype=np.float32) * np.float32(1.4))

    def enlarge(self, small: Plane) -> Plane:
        """Bring a reduced layer to the size of the image.

        Args:
            small: the reduced layer.

        Returns:
            The layer, cubic interpolation.
        """
        return np.asarray(cv2.resize(small, (self.width, self.height), interpolation=cv2.INTER_CUBIC), np.float32)

    def _fixed(self, points: Points) -> npt.NDArray[np.int32]:
        fixed: npt.NDArray[np.int32] = np.rint(self.pixels(points) * 2**_SHIFT).astype(np.int32)
        return fixed


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
    pieces = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
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
    reach = np.asarray(width, np.float64) / 2 / np.maximum(np.hypot(along[..., 0], along[..., 1]), 1e-9)
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
    c, s = np.cos(turn), np.sin(turn)
    outline: Points = _CIRCLE @ np.array([[rx * c, rx * s], [-ry * s, ry * c]]) + (x, y)
    return outline


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
