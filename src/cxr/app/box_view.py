"""What a visitor must read beside the boxes of the detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxr.regions.scoring import ScoredBox
    from cxr.serving.detector_source import ServedDetector


def describe_boxes(boxes: Sequence[ScoredBox], threshold: float) -> str:
    """Say how many boxes there are.

    Args:
        boxes: the boxes.
        threshold: lowest score of a box.

    Returns:
        A sentence.
    """
    if not boxes:
        return f"No opacity found above the detector's threshold of {threshold:.2f}."
    scores = ", ".join(f"{box.score:.2f}" for box in boxes)
    noun, scored = ("box", "score") if len(boxes) == 1 else ("boxes", "scores")
    return f"{len(boxes)} {noun} at or above the detector's threshold of {threshold:.2f}, {scored} {scores}."


def describe_detector(detector: ServedDetector, registered_name: str) -> str:
    """Name the detector and what its scores mean.

    Args:
        detector: the detector.
        registered_name: name of the registered detector; empty for a detector from a folder.

    Returns:
        Two sentences.
    """
    version = f", version {detector.version} of {registered_name}" if detector.version else ", from a folder"
    alias = f" ({detector.alias})" if detector.alias else ""
    return (
        f"Boxes: detector {detector.metadata.model}{version}{alias}; the classifier has no part in them. "
        "A higher score is surer; it is no probability."
    )
