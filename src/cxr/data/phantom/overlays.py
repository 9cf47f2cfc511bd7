"""Harmless objects in the beam, drawn on phantoms of both classes alike."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cxr.data.phantom.anatomy import SIDES, Anatomy, spine_x
from cxr.data.phantom.canvas import Canvas, Points, curve, ellipse, ramp
from cxr.data.phantom.filters import Plane
from cxr.data.phantom.portable_math import sine_and_cosine
from cxr.data.phantom.random_stream import RandomStream

Lines = list[tuple[Points, float, float]]


def draw_overlays(canvas: Canvas, anatomy: Anatomy, g: RandomStream) -> Plane:
    """Draw none, one or several of them: skin fold, breasts, braid, leads, tube, button.

    Args:
        canvas: where to draw.
        anatomy: the patient.
        g: the image's generator.

    Returns:
        Absorption.
    """
    total = np.zeros((canvas.height, canvas.width), np.float32)
    drawers: tuple[tuple[float, Callable[[Canvas, Anatomy, RandomStream], Plane]], ...] = (
        (0.35, _skin_fold),
        (0.30, _breasts),
        (0.12, _braid),
        (0.20, _leads),
        (0.10, _tube),
        (0.07, _button),
    )
    for chance, drawer in drawers:
        if g.uniform() < chance:
            total += drawer(canvas, anatomy, g)
    return total


def _skin_fold(canvas: Canvas, anatomy: Anatomy, g: RandomStream) -> Plane:
    side = g.choice(SIDES)
    x = anatomy.cage * g.uniform(0.65, 1.0)
    edge = curve([(x + 0.08, 0.05), (x, 0.4), (x - g.uniform(0, 0.08), 0.85), (x + 0.02, 1.2)])
    beyond = np.vstack([edge, [(1.5, 1.2), (1.5, 0.05)]]) * (side, 1)
    # A fold is sharp on its inner side and dies away outwards.
    shade = canvas.fill([beyond])
    y = canvas.grid()[1]
    ends = ramp(y, 0.1, 0.35) * (1 - ramp(y, 0.85, 1.15))
    return np.asarray(g.uniform(0.08, 0.15) * ends * shade * (1 - canvas.blur(shade, 0.05)), np.float32)


def _breasts(canvas: Canvas, anatomy: Anatomy, g: RandomStream) -> Plane:
    rx, ry, y = g.uniform(0.20, 0.27), g.uniform(0.16, 0.24), g.uniform(0.72, 0.92)
    shapes = [ellipse(side * anatomy.cage * g.uniform(0.60, 0.75), y, rx, ry) for side in SIDES]
    return np.asarray(g.uniform(0.04, 0.10) * canvas.blur(canvas.rounded(canvas.fill(shapes), 0.2), 0.02), np.float32)


def _braid(canvas: Canvas, anatomy: Anatomy, g: RandomStream) -> Plane:
    x = g.choice(SIDES) * anatomy.cage * g.uniform(0.4, 0.8)
    y = np.linspace(-0.5, g.uniform(0.05, 0.3), 60)
    lines = [
        (np.column_stack([x + 0.016 * sine_and_cosine(34 * y + phase)[0], y]), 0.017, shade)
        for phase, shade in ((0.0, 0.7), (2.1, 1.0), (4.2, 0.85))
    ]
    return np.asarray(0.10 * canvas.blur(canvas.stroke(lines), 0.003), np.float32)


def _leads(canvas: Canvas, anatomy: Anatomy, g: RandomStream) -> Plane:
    lines: Lines = []
    pads = []
    for _ in range(g.integer(1, 4)):
        x, y = g.choice(SIDES) * anatomy.cage * g.uniform(0.5, 1.05), g.uniform(0.0, 1.2)
        way = curve(
            [
                (x, y),
                (x * 1.2 + g.normal(0, 0.1), y + 0.25),
                (x * 1.6, y + g.uniform(0.3, 0.7)),
                (x * 2.5, y + 0.9),
            ]
        )
        lines.append((way, 0.006, 1.0))
        pads.append(ellipse(x, y, 0.026, 0.026))
    return np.asarray(0.35 * canvas.stroke(lines) + 0.45 * canvas.fill(pads), np.float32)


def _tube(canvas: Canvas, anatomy: Anatomy, g: RandomStream) -> Plane:
    x = float(spine_x(anatomy, 0.5)) + g.normal(0, 0.015)
    way = curve([(x + g.normal(0, 0.03), -0.7), (x, 0.0), (x + 0.01, 0.6), (x + 0.05, 1.05), (x + 0.2, 1.25)])
    return np.asarray(0.22 * canvas.stroke([(way, 0.012, 1.0)]), np.float32)


def _button(canvas: Canvas, anatomy: Anatomy, g: RandomStream) -> Plane:
    x, y, r = g.normal(0, 0.3), g.uniform(-0.25, 1.2), g.uniform(0.018, 0.03)
    ring = canvas.fill([ellipse(x, y, r, r * 0.9)]) - 0.5 * canvas.fill([ellipse(x, y, r * 0.6, r * 0.5)])
    return np.asarray(0.7 * ring, np.float32)
