"""Opacities of pneumonia: lobar consolidation (bacteria), interstitial pattern (virus), their boxes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cxr.data.phantom.anatomy import SIDES, Anatomy, Pose, Side
from cxr.data.phantom.canvas import Canvas
from cxr.data.phantom.filters import Plane
from cxr.data.phantom.portable_math import exponential, logistic
from cxr.data.phantom.random_stream import RandomStream

Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""


@dataclass(frozen=True)
class Lobe:
    """Where a lobe is seen from the front.

    Attributes:
        side: which lung.
        x: centre as a fraction of the cage's half width.
        y: centre, body units.
        rx: half width as a fraction of the cage's half width.
        ry: half height, body units.
        above: the lobe ends below at this height (a fissure), if any.
        below: the lobe begins at this height (a fissure), if any.
    """

    side: Side
    x: float
    y: float
    rx: float
    ry: float
    above: float | None = None
    below: float | None = None


LOBES: dict[str, Lobe] = {
    "right upper": Lobe(-1, 0.50, 0.32, 0.42, 0.27, above=0.56),
    "right middle": Lobe(-1, 0.48, 0.72, 0.34, 0.19, below=0.56),
    "right lower": Lobe(-1, 0.58, 0.88, 0.42, 0.24),
    "left upper": Lobe(1, 0.50, 0.36, 0.38, 0.26),
    "lingula": Lobe(1, 0.58, 0.70, 0.30, 0.18),
    "left lower": Lobe(1, 0.66, 0.90, 0.34, 0.23),
}


@dataclass(frozen=True)
class Opacity:
    """What a pneumonia changes in a chest.

    Attributes:
        filled: share of the lung's air that is replaced, in [0, 1].
        strands: absorption added inside the lung by thickened interstitium.
        extent: where the opacity is, in [0, 1]; the boxes come from it.
    """

    filled: Plane
    strands: Plane
    extent: Plane


def draw_consolidation(
    canvas: Canvas,
    anatomy: Anatomy,
    pose: Pose,
    bronchi: Plane,
    difficulty: float,
    lobe: Lobe,
    generator: RandomStream,
) -> Opacity:
    """Lobar consolidation: one lobe filled, with a fuzzy margin and air bronchograms.

    Args:
        canvas: where to draw.
        anatomy: the patient.
        pose: the pose.
        bronchi: drawn airways, in [0, 1]; they stay full of air and are seen as dark branches.
        difficulty: 0 (dense and large) to 1 (faint and small).
        lobe: the affected lobe.
        generator: the image's generator.

    Returns:
        The opacity.
    """
    g = generator
    full, canvas = canvas, canvas.reduced(2)
    x, y = canvas.grid()
    size = (1.12 - 0.36 * difficulty) * g.uniform(0.9, 1.1)
    cage = anatomy.cage
    low = pose.breath * lobe.y
    cx = lobe.side * cage * (lobe.x + g.normal(0, 0.04))
    cy = lobe.y + low + g.normal(0, 0.03)
    radius = _elliptic_radius(x - cx, y - cy, lobe.rx * cage * size, lobe.ry * size)
    radius = radius + 0.13 * canvas.cloud(g, 0.10) + 0.07 * canvas.cloud(g, 0.04)
    filled: Plane = _smooth_step(1 - radius, 0.10 + 0.08 * difficulty)
    # A fissure is a straight edge; it is seen sharply only where the beam runs along it.
    rise = 0.12 * (np.abs(x) / cage - 0.5) + low
    sharp = g.uniform(0.010, 0.022)
    if lobe.above is not None:
        filled = filled * _smooth_step(lobe.above + rise - y, sharp)
    if lobe.below is not None:
        filled = filled * _smooth_step(y - lobe.below - rise, sharp)
    filled = filled * _smooth_step(x * lobe.side, 0.02)
    patchy = np.clip(0.90 + 0.10 * canvas.cloud(g, 0.06), 0.5, 1.1)
    density = (0.98 - 0.44 * difficulty) * g.uniform(0.92, 1.05)
    airways = 1 - (0.42 - 0.25 * difficulty) * bronchi
    replaced = full.enlarge(filled * patchy * density) * airways
    return Opacity(np.clip(replaced, 0, 0.95), np.zeros_like(bronchi), full.enlarge(filled))


def draw_interstitial_pattern(
    canvas: Canvas,
    anatomy: Anatomy,
    pose: Pose,
    streaks: Plane,
    difficulty: float,
    generator: RandomStream,
) -> Opacity:
    """Interstitial pattern on both sides: thickened strands from the hila, a fine net and a faint haze.

    Args:
        canvas: where to draw.
        anatomy: the patient.
        pose: the pose.
        streaks: strands that radiate from the hila, in [0, 1].
        difficulty: 0 (marked) to 1 (faint).
        generator: the image's generator.

    Returns:
        The opacity.
    """
    g = generator
    full, canvas = canvas, canvas.reduced(2)
    x, y = canvas.grid()
    extent: Plane = np.zeros_like(x + y)
    for side in SIDES:
        share = g.uniform(0.75, 1.1)
        cx, cy = (
            side * anatomy.cage * g.uniform(0.34, 0.44),
            anatomy.hilum + g.uniform(0.02, 0.16) + pose.breath / 2,
        )
        rx, ry = anatomy.cage * g.uniform(0.40, 0.52), g.uniform(0.30, 0.42)
        shrink = 1.0 - 0.25 * difficulty
        radius = _elliptic_radius(x - cx, y - cy, rx * shrink, ry * shrink)
        near = _smooth_step(1 - radius - 0.12 * canvas.cloud(g, 0.12), 0.22)
        extent = np.maximum(extent, share * near * _smooth_step(x * side, 0.02))
    lumps = np.clip(0.75 + 0.30 * canvas.cloud(g, 0.07), 0.1, 1.4)
    # The lines where a smooth noise crosses zero make a net, as thickened septa do.
    net = _zero_lines(canvas.cloud(g, 0.028) / 0.22) + 0.7 * _zero_lines(canvas.cloud(g, 0.016) / 0.25)
    strength = (1.12 - 0.68 * difficulty) * g.uniform(0.9, 1.1)
    net = 0.13 * canvas.blur(net, 0.003) * lumps
    where = full.enlarge(extent)
    strands = strength * (0.24 * where * streaks + full.enlarge(extent * net))
    filled = full.enlarge(strength * 0.40 * extent * lumps)
    return Opacity(np.clip(filled, 0, 0.8), strands, np.clip(where, 0, 1))


def enclosing_boxes(opacity: Opacity, air: Plane, generous: float = 0.35) -> list[Box]:
    """Boxes that enclose an opacity where it lies in the lungs.

    Args:
        opacity: the opacity.
        air: depth of air in the healthy lungs, in [0, 1].
        generous: share of the strongest effect from which on a pixel counts.

    Returns:
        One box per connected part of more than 8 % of the largest one's area, the largest first.
    """
    visible = opacity.extent * air
    mask = (visible > generous * float(visible.max())).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    parts = sorted(stats[1:], key=lambda part: -int(part[cv2.CC_STAT_AREA]))
    enough = 0.08 * parts[0][cv2.CC_STAT_AREA]
    return [(int(x), int(y), int(width), int(height)) for x, y, width, height, area in parts if area >= enough]


def _smooth_step(value: npt.NDArray[np.floating], softness: float) -> Plane:
    """Smooth step from 0 to 1 where a value crosses 0."""
    return logistic(np.asarray(value * np.float32(2 / softness), np.float32))


def _elliptic_radius(x: Plane, y: Plane, rx: float, ry: float) -> Plane:
    """Distance from the centre of an ellipse, 1 on its outline."""
    across, along = x / np.float32(rx), y / np.float32(ry)
    radius: Plane = np.sqrt(across * across + along * along)
    return radius


def _zero_lines(noise: Plane) -> Plane:
    """1 where a smooth noise crosses zero, falling to 0 on both sides."""
    return exponential(-(noise * noise))
