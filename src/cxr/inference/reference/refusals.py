"""Reasons why an image gets no prediction; no other module knows them.

To add a reason, write a function that takes an :class:`InspectedImage` and returns a sentence for people or None, and
add it to :data:`REASONS`. Page, service, batch scoring, prediction log and reports take kinds and texts from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from cxr.images.strict_decoding import DecodedImage
from cxr.inference.reference.features import FloatArray, describe_image
from cxr.inference.reference.poses import INVERSE_POSE, POSES, apply_pose
from cxr.inference.reference.reference import ImageFeatures, Reference


@dataclass(frozen=True)
class Refusal:
    """Why an image gets no prediction.

    Attributes:
        kind: a key of :data:`REASONS`.
        detail: for people: what the image looks like, and what to do.
    """

    kind: str
    detail: str

    def __str__(self) -> str:
        """One text for tables: ``"kind: detail"``."""
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True)
class InspectedImage:
    """An image and what several checks need to know about it.

    Attributes:
        coloured_share: share of its pixels that are coloured, 0 to 1.
        reference: statistics of the model's training images.
        load_image: gives the image before any recipe.
        load_features: gives what :meth:`cxr.inference.reference.reference.Reference.features` gives for it.
        describe_in_pose: gives the descriptor of the image after
            :func:`cxr.inference.reference.poses.apply_pose`.
    """

    coloured_share: float
    reference: Reference
    load_image: Callable[[], DecodedImage]
    load_features: Callable[[], ImageFeatures]
    describe_in_pose: Callable[[str], FloatArray]

    @cached_property
    def image(self) -> DecodedImage:
        """The image before any recipe."""
        return self.load_image()

    @cached_property
    def features(self) -> ImageFeatures:
        """Its statistics, embedding and descriptor."""
        return self.load_features()

    @cached_property
    def descriptor(self) -> FloatArray:
        """What :func:`cxr.inference.reference.features.describe_image` gives for it."""
        return self.describe_in_pose("upright")

    @cached_property
    def pose(self) -> str:
        """How the image is probably shown, a key of :data:`cxr.inference.reference.poses.POSES`."""
        return self.reference.classify_pose(self.descriptor)

    @cached_property
    def is_far(self) -> bool:
        """Whether the image is farther from the training images than nearly all of them."""
        return bool(self.reference.distance(self.descriptor[None])[0] > 1)

    @cached_property
    def is_chest_in_wrong_pose(self) -> bool:
        """Whether the image would be a chest radiograph if its pose were undone."""
        if self.pose == "upright":
            return False
        if not self.is_far:
            return True
        upright = self.describe_in_pose(INVERSE_POSE[self.pose])
        return bool(self.reference.distance(upright[None])[0] <= 1)


def find_refusal(reference: Reference, image: DecodedImage, features: ImageFeatures) -> Refusal | None:
    """Check whether an image is a radiograph of the kind that the model was trained on.

    Args:
        reference: statistics of the model's training images.
        image: the image before any recipe.
        features: what ``reference.features`` gave for it.

    Returns:
        The first reason of :data:`REASONS` that applies; None if the image gets a prediction.
    """

    def describe_in_pose(pose: str) -> FloatArray:
        return features.descriptor if pose == "upright" else describe_image(apply_pose(image.grey, pose))

    return first_refusal(
        InspectedImage(
            image.coloured_share,
            reference,
            load_image=lambda: image,
            load_features=lambda: features,
            describe_in_pose=describe_in_pose,
        )
    )


def first_refusal(inspected: InspectedImage) -> Refusal | None:
    """Check an image of which more is known than its pixels.

    Args:
        inspected: the image.

    Returns:
        The first reason of :data:`REASONS` that applies; None if the image gets a prediction.
    """
    for kind, check in REASONS.items():
        detail = check(inspected)
        if detail is not None:
            return Refusal(kind, detail)
    return None


def _check_colour(inspected: InspectedImage) -> str | None:
    share = inspected.coloured_share
    if share <= inspected.reference.max_coloured:
        return None
    return (
        f"{share:.0%} of its pixels are coloured, and a radiograph is grey; "
        "give the film itself, not a photograph or a report with colours"
    )


def _check_inversion(inspected: InspectedImage) -> str | None:
    if inspected.pose != "inverted" or not inspected.is_chest_in_wrong_pose:
        return None
    return f"it looks like a chest film {POSES[inspected.pose]}; invert it and ask again"


def _check_rotation(inspected: InspectedImage) -> str | None:
    if inspected.pose == "inverted" or not inspected.is_chest_in_wrong_pose:
        return None
    return f"it looks like a chest film {POSES[inspected.pose]}; turn it and ask again"


def _check_distance(inspected: InspectedImage) -> str | None:
    if not inspected.is_far:
        return None
    phantom = inspected.reference.dataset_kind == "phantom"
    known = "drawn chest films (phantoms)" if phantom else "frontal chest films"
    return (
        f"it does not look like the {known} that the model was trained on; "
        "give one frontal chest radiograph, upright and without a frame around it"
    )


REASONS: dict[str, Callable[[InspectedImage], str | None]] = {
    "coloured": _check_colour,
    "inverted": _check_inversion,
    "turned": _check_rotation,
    "no_chest_film": _check_distance,
}
"""Kind of refusal to its check, in the order in which they are tried. Logs and metrics hold the kinds."""
