"""The X-ray absorption of a phantom chest: soft tissue, air, vessels, bones and objects on the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cxr.data.phantom.anatomy import (
    SIDES,
    Anatomy,
    Pose,
    arm_outline,
    bowel_gas_outlines,
    lung_outline,
    mediastinum_outline,
    spine_x,
    torso_outline,
)
from cxr.data.phantom.bones import draw_chin, draw_ribs, draw_shoulders, draw_spine
from cxr.data.phantom.canvas import Canvas, Points, curve, ellipse, ramp, tube
from cxr.data.phantom.filters import Plane
from cxr.data.phantom.overlays import draw_overlays
from cxr.data.phantom.portable_math import sine_and_cosine
from cxr.data.phantom.random_stream import RandomStream

_TREES = {"vessels": (0.022, 7), "bronchi": (0.015, 4), "streaks": (0.008, 13)}
"""Width of the stems and their number at each hilum."""
_SHRINKAGE = (1.0, 0.9, 0.81, 0.729)  # branches of a higher order are shorter
_TAPER = np.linspace(1.0, 0.7, 7)  # a vessel becomes thinner along its course


@dataclass(frozen=True)
class Chest:
    """Layers of one image before an opacity and the scanner.

    Attributes:
        solid: absorption of everything except the content of the lungs.
        vessels: absorption of the vessels; they are invisible where no air surrounds them.
        air: absorption that is missing because the healthy lungs hold air.
        depth: depth of air of the healthy lungs, in [0, 1].
        streaks: strands that radiate from the hila, in [0, 1].
    """

    solid: Plane
    vessels: Plane
    air: Plane
    depth: Plane
    streaks: Plane

    def absorption(self, filled: Plane | None = None, strands: Plane | None = None) -> Plane:
        """Absorption seen by the detector.

        Args:
            filled: share of the air that an opacity replaces.
            strands: absorption that an opacity adds per depth of lung.

        Returns:
            Absorption, about 1 in plain soft tissue.
        """
        content = self.vessels - self.air
        if filled is not None:
            content = content * (1 - filled)
        total = self.solid + content
        return total if strands is None else total + strands * self.depth


def draw_chest(canvas: Canvas, anatomy: Anatomy, pose: Pose, generator: RandomStream) -> Chest:
    """Draw the chest of a patient in a pose.

    Args:
        canvas: where to draw.
        anatomy: the patient.
        pose: the pose.
        generator: the image's generator.

    Returns:
        The layers.
    """
    g = generator
    soft = canvas.reduced(2)
    solid, depth = (canvas.enlarge(layer) for layer in _draw_soft_tissue(soft, anatomy, pose, g))
    vessels = draw_branches(canvas, anatomy, "vessels")
    streaks = draw_branches(canvas, anatomy, "streaks")
    roots = [ellipse(s * 0.15, anatomy.hilum + 0.04 - 0.02 * s, 0.05, 0.10, -0.35 * s) for s in SIDES]
    hila = soft.blur(soft.fill(roots), 0.03)
    texture = 0.016 * soft.cloud(g, 0.02) + 0.022 * soft.cloud(g, 0.05)
    prominence = g.uniform(0.7, 1.35)
    cloudy = canvas.enlarge(prominence * 0.16 * hila + texture)
    lines: Plane = 0.16 * vessels + 0.035 * streaks
    marks: Plane = depth * (prominence * lines + cloudy)
    total = solid + _draw_skeleton(canvas, soft, anatomy, pose) + draw_overlays(canvas, anatomy, g)
    return Chest(total, marks, np.float32(0.62) * depth, depth, streaks)


def _draw_soft_tissue(canvas: Canvas, anatomy: Anatomy, pose: Pose, g: RandomStream) -> tuple[Plane, Plane]:
    """Draw the absorption of the soft tissue and the depth of air in the lungs."""
    _, y = canvas.grid()
    trunk = canvas.fill([torso_outline(anatomy)])
    flesh: Plane = canvas.blur(canvas.rounded(trunk, 0.30), 0.006) * (0.90 + 0.10 * np.clip(y + 0.2, 0, 1))
    for side in SIDES:
        limb = canvas.rounded(canvas.fill([arm_outline(anatomy, pose, side)[0]]), 0.14)
        flesh = np.maximum(flesh, 0.62 * canvas.blur(limb, 0.006)) + 0.12 * canvas.blur(limb, 0.04)
    lungs = canvas.fill([lung_outline(anatomy, pose, side) for side in SIDES])
    heart = canvas.fill([mediastinum_outline(anatomy, pose)])
    depth = canvas.rounded(canvas.blur(lungs, 0.004), 0.24)
    root = np.sqrt(depth)
    depth = root * np.sqrt(root)  # the power 3/4: the lung becomes thick quickly
    depth = canvas.blur(depth * (1 - 0.90 * canvas.blur(heart, 0.008)), 0.0075)
    belly = canvas.blur(trunk, 0.02) * ramp(y, 0.95 + pose.breath, 1.35)
    solid = flesh + 0.22 * belly + 0.16 * canvas.blur(heart, 0.05) + 0.035 * flesh * canvas.cloud(g, 0.35)
    solid = (
        solid
        - 0.42 * canvas.blur(canvas.fill(bowel_gas_outlines(anatomy, g)), 0.012)
        - 0.16 * _draw_trachea(canvas, anatomy)
    )
    return solid, depth


def _draw_skeleton(canvas: Canvas, soft: Canvas, anatomy: Anatomy, pose: Pose) -> Plane:
    """Draw the absorption of the bones; the thick abdomen hides those behind it."""
    visible = canvas.enlarge(1 - 0.5 * ramp(soft.grid()[1], 0.95, 1.3))
    bones = (
        0.27 * visible * draw_ribs(canvas, anatomy, pose)
        + 0.34 * draw_spine(canvas, anatomy)
        + 0.34 * draw_shoulders(canvas, anatomy, pose)
    )
    return canvas.blur(np.float32(anatomy.mineral) * bones, 0.0026) + 0.5 * canvas.enlarge(draw_chin(soft, pose))


def _draw_trachea(canvas: Canvas, anatomy: Anatomy) -> Plane:
    split = anatomy.hilum - 0.09
    y = np.linspace(-0.7, split, 20)
    main = np.column_stack([spine_x(anatomy, y) - 0.012, y])
    end = main[-1]
    right = curve([tuple(end), (end[0] - 0.05, split + 0.05), (end[0] - 0.12, split + 0.13)])
    left = curve([tuple(end), (end[0] + 0.06, split + 0.05), (end[0] + 0.15, split + 0.10)])
    return canvas.blur(canvas.fill([tube(main, 0.062), tube(right, 0.04), tube(left, 0.036)]), 0.007)


def draw_branches(canvas: Canvas, anatomy: Anatomy, kind: Literal["vessels", "bronchi", "streaks"]) -> Plane:
    """Draw branching lines that spread from both hila and become thinner; they are the same in all images of a patient.

    Args:
        canvas: where to draw.
        anatomy: the patient.
        kind: what to draw: vessels, airways or fine strands of the interstitium.

    Returns:
        The lines, in [0, 1].
    """
    width, stems = _TREES[kind]
    g = RandomStream(anatomy.tree, stems)
    side = np.repeat(SIDES, stems).astype(np.float64)
    angle = np.tile(np.linspace(-1.25, 1.45, stems), 2) + g.normal(0, 0.12, 2 * stems)
    # Stems leave the hilum along its height, not from one point.
    height = anatomy.hilum + np.where(side < 0, 0.05, 0.02) + 0.09 * sine_and_cosine(angle)[0]
    start = np.column_stack([side * g.uniform(0.10, 0.15, 2 * stems), height])
    wide = width * g.uniform(0.6, 1.0, 2 * stems)
    layers: list[list[Points]] = [[], []]
    for order in range(len(_SHRINKAGE)):
        draws = g.uniform(0.0, 1.0, (len(side), 11))
        turns = angle[:, None] + np.cumsum(0.44 * (draws[:, :6] - 0.5), axis=1)
        turns += 0.16 * (draws[:, 6:7] - 0.5) * np.arange(6)
        length = (0.030 + 0.016 * draws[:, 8]) * _SHRINKAGE[order]
        sines, cosines = sine_and_cosine(turns)
        moves = np.stack([side[:, None] * cosines, sines], axis=-1) * length[:, None, None]
        points = np.concatenate([start[:, None], start[:, None] + np.cumsum(moves, axis=1)], axis=1)
        layers[order > 1].extend(tube(points, wide[:, None] * _TAPER))
        fork = (0.3 + 0.45 * draws[:, 7]) * (1, -1)[order % 2]
        goes = np.tile(wide > 0.0035, 2)  # each branch ends in one fork and gives off one twig on its way
        start = np.concatenate([points[:, 6], points[:, 3]])[goes]
        angle = np.concatenate([turns[:, 5] + fork, turns[:, 2] - 0.9 * fork])[goes]
        wide = np.concatenate([wide * (0.56 + 0.19 * draws[:, 9]), wide * (0.45 + 0.22 * draws[:, 10])])[goes]
        side = np.tile(side, 2)[goes]
    lines = np.maximum(np.float32(0.38) * canvas.fill(layers[1]), canvas.fill(layers[0]))
    return canvas.blur(lines, 0.0032)
