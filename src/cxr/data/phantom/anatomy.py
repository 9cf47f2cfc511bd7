"""The anatomy of a phantom patient: proportions of the chest and outlines of its soft tissue, in body units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cxr.data.phantom.canvas import Points, curve, ellipse
from cxr.data.phantom.portable_math import power, sine_and_cosine
from cxr.data.phantom.random_stream import RandomStream

Side = Literal[-1, 1]
"""-1 is the patient's right (the image's left), 1 the patient's left."""
SIDES: tuple[Side, Side] = (-1, 1)


@dataclass(frozen=True)
class Anatomy:
    """Proportions of one phantom patient, the same in all of the patient's images (body units).

    Attributes:
        cage: half width of the rib cage at its base.
        roundness: how early the cage reaches its width (exponent of its outline).
        heart: size of the heart relative to the cage.
        thymus: width added to the upper mediastinum on each side (a child's thymus), 0 for none.
        flesh: soft tissue outside the ribs.
        ribs: distance between two ribs.
        slope: how far a rib falls from the spine to its front end.
        rib_width: width of a rib.
        dome: height of the domes of the diaphragm above their edge.
        tilt: how much lower the left dome stands than the right one.
        curvature: sideways bow of the spine.
        hilum: height of the hila.
        mineral: how much the bones absorb.
        tree: seed of the vascular tree.
    """

    cage: float
    roundness: float
    heart: float
    thymus: float
    flesh: float
    ribs: float
    slope: float
    rib_width: float
    dome: float
    tilt: float
    curvature: float
    hilum: float
    mineral: float
    tree: int

    @classmethod
    def draw(cls, generator: RandomStream) -> Anatomy:
        """Draw a patient.

        Args:
            generator: the patient's generator.

        Returns:
            The proportions.
        """
        g = generator
        return cls(
            cage=g.uniform(0.56, 0.68),
            roundness=g.uniform(1.9, 2.5),
            heart=g.uniform(0.88, 1.12),
            thymus=g.uniform(0.03, 0.10) if g.uniform() < 0.3 else 0.0,
            flesh=g.uniform(0.05, 0.13),
            ribs=g.uniform(0.098, 0.112),
            slope=g.uniform(0.34, 0.48),
            rib_width=g.uniform(0.026, 0.034),
            dome=g.uniform(0.12, 0.19),
            tilt=g.uniform(0.0, 0.06),
            curvature=g.normal(0, 0.012),
            hilum=g.uniform(0.46, 0.54),
            mineral=g.uniform(0.8, 1.2),
            tree=g.integer(0, 2**31),
        )


@dataclass(frozen=True)
class Pose:
    """The pose of a patient in one image (body units).

    Attributes:
        breath: how much lower (deeper inspiration) or higher the diaphragm stands.
        turn: rotation of the patient about the long axis, in [-1, 1].
        arms: angle of each arm from hanging down, radians, right then left.
        chin: how low the chin reaches.
    """

    breath: float
    turn: float
    arms: tuple[float, float]
    chin: float

    @classmethod
    def draw(cls, generator: RandomStream) -> Pose:
        """Draw a pose.

        Args:
            generator: the image's generator.

        Returns:
            The pose.
        """
        g = generator
        base = g.uniform(0.15, 0.6) if g.uniform() < 0.55 else g.uniform(1.2, 2.5)
        return cls(
            breath=g.normal(0, 0.03),
            turn=min(max(g.normal(0, 0.4), -1.0), 1.0),
            arms=(base + g.normal(0, 0.12), base + g.normal(0, 0.12)),
            chin=g.uniform(-0.45, -0.17),
        )


def cage_width(anatomy: Anatomy, y: Points | float) -> Points:
    """Half width of the rib cage at a height.

    Args:
        anatomy: the patient.
        y: heights, body units.

    Returns:
        Half widths, body units.
    """
    rise = np.clip((np.asarray(y, np.float64) + 0.03) / 1.05, 0, 1)
    width: Points = anatomy.cage * power(1 - power(1 - rise, anatomy.roundness), 1 / anatomy.roundness)
    return width


def spine_x(anatomy: Anatomy, y: Points | float) -> Points:
    """Sideways position of the spine at a height.

    Args:
        anatomy: the patient.
        y: heights, body units.

    Returns:
        Positions, body units.
    """
    sine, _ = sine_and_cosine(2.2 * np.asarray(y, np.float64))
    return anatomy.curvature * sine


def lung_outline(anatomy: Anatomy, pose: Pose, side: Side) -> Points:
    """Outline of one lung up to the midline: apex, side wall, costophrenic angle, dome.

    Args:
        anatomy: the patient.
        pose: the pose.
        side: which lung.

    Returns:
        The closed outline; the mediastinum covers its inner part.
    """
    base = 1.0 + pose.breath + (anatomy.tilt if side == 1 else 0.0)
    angle = base + anatomy.dome
    y = np.linspace(0.0, angle, 40)
    wall = np.column_stack([(cage_width(anatomy, y) - 0.012) * (1 + 0.05 * side * pose.turn), y])
    wide = wall[-1, 0]
    dome = curve(
        [
            (wide, angle),
            (wide * 0.93, base + anatomy.dome * 0.5),
            (wide * 0.72, base + anatomy.dome * 0.1),
            (wide * 0.48, base),
            (wide * 0.24, base + 0.03),
            (0.0, base + 0.1),
        ]
    )
    apex = curve([(0.0, 0.10), (0.05, 0.03), (0.12, -0.01), (wall[0, 0], 0.0)])
    outline = np.vstack([apex[:-1], wall[1:], dome[1:]])
    return outline * (side, 1.0)


def mediastinum_outline(anatomy: Anatomy, pose: Pose) -> Points:
    """Outline of heart and great vessels.

    Args:
        anatomy: the patient.
        pose: the pose.

    Returns:
        The closed outline, the heart's tip to the patient's left.
    """
    k = anatomy.heart * anatomy.cage / 0.6
    low = pose.breath
    shift = 0.035 * pose.turn
    thymus = anatomy.thymus
    right = [
        (-0.10, -0.15),
        (-0.11 - thymus * 0.3, 0.08),
        (-0.105 - thymus, 0.27),
        (-0.10 - thymus * 0.5, 0.42),
        (-0.125 * k, 0.53),
        (-0.195 * k, 0.66 + low * 0.5),
        (-0.215 * k, 0.80 + low),
        (-0.17 * k, 0.96 + low),
        (-0.10, 1.15 + low),
    ]
    left = [
        (0.26 * k, 1.15 + low),
        (0.365 * k, 1.05 + low),
        (0.40 * k, 0.95 + low),
        (0.38 * k, 0.83 + low * 0.8),
        (0.31 * k, 0.69 + low * 0.5),
        (0.225 * k, 0.57),
        (0.160 * k, 0.475),
        (0.118 + thymus * 0.6, 0.40),
        (0.130 + thymus, 0.29),
        (0.105 + thymus * 0.4, 0.14),
        (0.10, -0.15),
    ]
    return np.add(curve([*right, *left], closed=True), (shift, 0.0))


def torso_outline(anatomy: Anatomy) -> Points:
    """Outline of neck, shoulders and trunk.

    Args:
        anatomy: the patient.

    Returns:
        The closed outline, reaching below any image.
    """
    wide = anatomy.cage + anatomy.flesh
    half = [
        (0.15 + anatomy.flesh * 0.5, -0.9),
        (0.15 + anatomy.flesh * 0.5, -0.32),
        (0.24 + anatomy.flesh * 0.5, -0.19),
        (wide * 0.72, -0.11),
        (wide * 1.0, -0.01),
        (wide * 1.04, 0.15),
        (wide * 0.99, 0.36),
        (wide * 0.985, 0.60),
        (wide * 1.0, 0.90),
        (wide * 0.98, 1.25),
        (wide * 0.95, 1.7),
        (wide * 0.95, 2.4),
    ]
    right = [(-x, y) for x, y in reversed(half)]
    return curve([*half, *right])


def arm_outline(anatomy: Anatomy, pose: Pose, side: Side) -> tuple[Points, Points]:
    """Soft outline of an upper arm, and the line of its bone.

    Args:
        anatomy: the patient.
        pose: the pose.
        side: which arm.

    Returns:
        The closed outline and the centre line of the humerus.
    """
    wide = anatomy.cage + anatomy.flesh
    angle = pose.arms[0 if side == -1 else 1]
    shoulder = np.array([wide * 0.98, 0.04])
    along = np.array(sine_and_cosine(angle))
    line = shoulder + np.linspace(0, 2.0, 12)[:, None] * along
    normal = np.array([-along[1], along[0]])
    thick = np.full(12, 0.12 + 0.6 * anatomy.flesh)
    sines, cosines = sine_and_cosine(np.linspace(0, np.pi, 12)[:, None])
    cap = shoulder - thick[0] * (cosines * normal + sines * along)
    outline = np.vstack([cap, line + normal * thick[:, None], (line - normal * thick[:, None])[::-1]])
    return outline * (side, 1.0), line * (side, 1.0)


def bowel_gas_outlines(anatomy: Anatomy, generator: RandomStream) -> list[Points]:
    """Outlines of air under the left dome: stomach bubble and a few loops of bowel.

    Args:
        anatomy: the patient.
        generator: the image's generator.

    Returns:
        Closed outlines.
    """
    g = generator
    shapes = []
    if g.uniform() < 0.7:
        x, y = anatomy.cage * g.uniform(0.4, 0.6), 1.17 + g.uniform(0.02, 0.1)
        shapes.append(ellipse(x, y, g.uniform(0.07, 0.15), g.uniform(0.035, 0.07), g.normal(0.2, 0.2)))
    for _ in range(g.integer(0, 6)):
        x, y = g.uniform(-0.3, 0.45), g.uniform(1.3, 1.6)
        shapes.append(ellipse(x, y, g.uniform(0.03, 0.08), g.uniform(0.02, 0.05), g.uniform(0, 3)))
    return shapes
