"""Bones of a phantom: ribs, spine, clavicles, shoulder blades and upper arms, as layers of absorption."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from cxr.data.phantom.anatomy import SIDES, Anatomy, Pose, Side, arm_outline, cage_width, spine_x
from cxr.data.phantom.canvas import Canvas, Points, curve, ellipse, tube
from cxr.data.phantom.filters import Plane
from cxr.data.phantom.portable_math import interpolate, power, sine_and_cosine

Bones = Sequence[tuple[Points, Points | float]]
"""Centre line and width of each bone."""

_RIBS = 12


def _draw_bones(canvas: Canvas, lines: Bones, cortex: float = 0.5) -> Plane:
    """Draw bones as hollow tubes: a weak core between two bright rims.

    Args:
        canvas: where to draw.
        lines: centre line and width of every bone.
        cortex: share of the absorption in the rim.

    Returns:
        Absorption, 1 at most.
    """
    outer = [tube(line, width) for line, width in lines]
    inner = [tube(line, np.asarray(width) * 0.62) for line, width in lines]
    return canvas.difference(outer, inner, cortex)


@cache
def _profile(points: int, positions: tuple[float, ...], values: tuple[float, ...]) -> Points:
    """Interpolate a property of a bone at equal steps along its centre line, from 0 to 1."""
    return interpolate(np.linspace(0, 1, points), positions, values)


def _rib_lines(anatomy: Anatomy, pose: Pose, side: Side) -> tuple[Points, Points]:
    """Compute the centre lines of the ribs of a side: tilted rings about the chest, seen from the front.

    Args:
        anatomy: the patient.
        pose: the pose.
        side: which side.

    Returns:
        The lines, shape ``(ribs, points, 2)``, and how far each point lies from the spine along the ring, in
        radians, shape ``(ribs, points)``.
    """
    index = np.arange(_RIBS, dtype=np.float64)[:, None]
    start = -0.035 + anatomy.ribs * index
    fall = anatomy.slope * (0.45 + 0.55 * np.minimum(index, 6) / 6)
    reach = cage_width(anatomy, start + 0.55 * fall) * (0.99 + 0.05 * side * pose.turn)
    last = interpolate(index, (0, 1, 6, 8, 10, 11), (2.5, 2.55, 2.25, 2.05, 1.75, 1.35))
    angle = 0.09 + (last - 0.09) * np.linspace(0, 1, 44)
    sines, cosines = sine_and_cosine(angle)
    x = side * reach * power(sines, 0.92) + 0.03 * pose.turn * (1 - cosines) / 2
    y = start + fall * (1 - cosines) / 2 + 0.16 * np.maximum(angle - np.pi / 2, 0)
    y = y - 0.044 * sines * cosines * (angle < np.pi / 2)
    return np.stack([x + spine_x(anatomy, y), y], axis=-1), angle


def draw_ribs(canvas: Canvas, anatomy: Anatomy, pose: Pose) -> Plane:
    """Draw both halves of twelve pairs of ribs.

    Args:
        canvas: where to draw.
        anatomy: the patient.
        pose: the pose.

    Returns:
        Absorption; the front halves fade into cartilage.
    """
    backs: list[tuple[Points, Points]] = []
    fronts: list[tuple[Points, Points]] = []
    for side in SIDES:
        for index, (line, angle) in enumerate(zip(*_rib_lines(anatomy, pose, side), strict=True)):
            back, front = line[angle <= np.pi / 2 + 0.18], line[angle >= np.pi / 2 - 0.18]
            width = anatomy.rib_width * (0.85 if index in (0, 10, 11) else 1.0)
            # Near the side wall a rib is seen edge-on: thinner and, because the beam runs along it, brighter.
            backs.append((back, width * _profile(len(back), (0, 0.6, 1), (0.85, 1.0, 0.72))))
            if len(front) > 3 and index < 10:
                fronts.append((front, width * _profile(len(front), (0, 0.85, 1), (0.72, 1.2, 0.5))))
    coarse = canvas.reduced(4)
    x, y = coarse.grid()
    edge = power(np.minimum(np.abs(x) / np.maximum(cage_width(anatomy, y.astype(np.float64)), 0.1), 1.1), 5)
    middle = np.clip(np.abs(x) / 0.30 - 0.25, 0.0, 1.0)  # front ends turn into cartilage, which hardly absorbs
    front_layer = _draw_bones(canvas, fronts, 0.40) * canvas.enlarge(np.asarray(0.25 + 0.75 * middle, np.float32))
    return np.asarray(
        canvas.enlarge(np.asarray(0.72 + 0.55 * edge, np.float32))
        * (_draw_bones(canvas, backs, 0.36) + 0.60 * front_layer),
        np.float32,
    )


def draw_spine(canvas: Canvas, anatomy: Anatomy) -> Plane:
    """Draw vertebral bodies with their plates, pedicles and spinous processes.

    Args:
        canvas: where to draw.
        anatomy: the patient.

    Returns:
        Absorption, about 1 in a vertebral body.
    """
    y = -0.45
    bodies: list[Points] = []
    cores: list[Points] = []
    marks: list[Points] = []
    while y < 1.5:
        pitch = anatomy.ribs * (0.78 if y < 0 else 0.92 + 0.16 * min(y, 1.4))
        half = 0.048 + 0.012 * max(min(y, 1.5), -0.5)
        x = float(spine_x(anatomy, y))
        for outlines, inset in ((bodies, 0.0), (cores, 0.009)):
            h, w = pitch * 0.40 - inset, half - inset
            outlines.append(
                curve(
                    [
                        (x - w, y - h),
                        (x - w * 0.9, y),
                        (x - w, y + h),
                        (x + w, y + h),
                        (x + w * 0.9, y),
                        (x + w, y - h),
                    ],
                    closed=True,
                    steps=4,
                )
            )
        for side in SIDES:
            marks.append(ellipse(x + side * half * 0.62, y - pitch * 0.08, 0.011, 0.016))
        marks.append(ellipse(x, y + pitch * 0.30, 0.009, 0.022))
        y += pitch
    heights = np.linspace(-0.7, 2.1, 30)
    column = np.column_stack([spine_x(anatomy, heights), heights])
    disc = canvas.blur(canvas.fill([tube(column, 0.105)]), 0.012)
    wings = canvas.blur(canvas.fill([tube(column, 0.17)]), 0.02)
    plates = canvas.difference(bodies, cores, 0.52)
    layer: Plane = 0.34 * disc + 0.20 * wings + 0.42 * plates + 0.22 * canvas.fill(marks)
    return layer


def draw_shoulders(canvas: Canvas, anatomy: Anatomy, pose: Pose) -> Plane:
    """Draw clavicles, shoulder blades and the upper ends of the arms.

    Args:
        canvas: where to draw.
        anatomy: the patient.
        pose: the pose.

    Returns:
        Absorption, about 1 in a clavicle.
    """
    wide = anatomy.cage + anatomy.flesh
    clavicles: list[tuple[Points, Points]] = []
    limbs: list[tuple[Points, Points]] = []
    blades, borders, heads = [], [], []
    for side in SIDES:
        raised = pose.arms[0 if side == -1 else 1] > 1.0
        lift = 0.07 if raised else 0.0
        near = 0.035 + 0.03 * side * pose.turn
        line = curve(
            [
                (near, 0.075),
                (0.15, 0.045),
                (0.30, -0.02 - lift * 0.5),
                (0.45, -0.045 - lift),
                (wide * 0.9, -0.03 - lift),
            ]
        )
        clavicles.append(
            (
                line * (side, 1),
                _profile(len(line), (0, 0.2, 0.8, 0.95, 1), (0.05, 0.032, 0.032, 0.040, 0.02)),
            )
        )
        out = 0.05 if raised else 0.0
        blade = curve(
            [
                (wide * 0.58 + out, -0.02 - lift),
                (wide * 0.95, -0.02 - lift),
                (wide * 0.90 + out, 0.12),
                (wide * 0.84 + out, 0.32),
                (wide * 0.74 + out, 0.48),
                (wide * 0.64 + out, 0.30),
                (wide * 0.58 + out, 0.12),
            ],
            closed=True,
        )
        blades.append(blade * (side, 1))
        edge = curve([(wide * 0.93, 0.03 - lift), (wide * 0.87 + out, 0.20), (wide * 0.76 + out, 0.47)])
        borders.append((edge * (side, 1), _profile(len(edge), (0, 0.3, 1), (0.012, 0.024, 0.012))))
        spur = curve([(wide * 0.60 + out, 0.06 - lift), (wide * 0.8, 0.0 - lift), (wide * 0.99, -0.035 - lift)])
        borders.append((spur * (side, 1), _profile(len(spur), (0, 0.3, 1), (0.005, 0.02, 0.03))))
        _, bone = arm_outline(anatomy, pose, side)
        limbs.append((bone, _profile(len(bone), (0, 0.08, 0.2, 1), (0.085, 0.085, 0.055, 0.05))))
        (x, y), (dx, dy) = bone[0], bone[0] - bone[-1]
        reach = 0.022 / np.sqrt(dx * dx + dy * dy)
        turn = np.pi / 2 - side * pose.arms[0 if side == -1 else 1]
        heads.append(ellipse(x + reach * dx, y + reach * dy, 0.030, 0.055, turn))
    layer: Plane = (
        0.85 * _draw_bones(canvas, clavicles, 0.45)
        + 0.16 * canvas.fill(blades)
        + 0.30 * _draw_bones(canvas, borders, 0.3)
        + 0.62 * _draw_bones(canvas, limbs, 0.4)
        + 0.42 * canvas.fill(heads)
    )
    return layer


def draw_chin(canvas: Canvas, pose: Pose) -> Plane:
    """Draw the lower jaw at the upper edge of the image.

    Args:
        canvas: where to draw.
        pose: the pose.

    Returns:
        Absorption, about 1 in the bone.
    """
    y = pose.chin
    jaw = curve(
        [
            (-0.27, y - 0.5),
            (-0.25, y - 0.2),
            (-0.13, y - 0.04),
            (0, y),
            (0.13, y - 0.04),
            (0.25, y - 0.2),
            (0.27, y - 0.5),
        ]
    )
    soft = canvas.blur(canvas.fill([ellipse(0, y - 0.36, 0.32, 0.40)]), 0.008)
    return np.asarray(0.8 * soft + 0.6 * _draw_bones(canvas, [(jaw, 0.05)], 0.4), np.float32)
