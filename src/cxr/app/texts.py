"""Probabilities, labels and problems as text for visitors; a label never depends on colour alone."""

from __future__ import annotations

from math import isnan

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.images.problems import PROBLEMS
from cxr.models.prediction_sets import UNCERTAIN, PredictionSets

SIGNS = {NORMAL: "●", PNEUMONIA: "▲", UNCERTAIN: "◆"}
NO_PREDICTION = "no answer"
RESEARCH = "For research, not for diagnosis."

PROBLEM_TEXTS = {
    "not_an_image": "it is no JPEG, PNG or DICOM picture",
    "truncated": "it ends too early; part of it is missing. Save or send it again",
    "corrupt": "it is damaged. Save or send it again",
    "empty": "it has no content. Send the file again",
    "too_large": "it is larger than this page takes. Save it with fewer pixels",
    "too_slow": "reading it took too long. Try again, or save it as PNG",
    "animated": "it holds more than one picture. Save one of them",
    "unsuitable": "it is too small or too narrow for the network",
    "cmyk": "it is a file for print. Save it as a grey picture",
    "depth_16": "it has more than 8 bits of grey. Use the DICOM file, or save it with 8 bits",
}
"""Kinds of problem that a visitor can solve, each with what to do."""

WARNING_TEXTS = {
    "depth_16": "This picture has 16 bits of grey and does not say which of them are black and white. Its darkest "
    "value is shown black, its brightest white. The DICOM file is better.",
    "other_modality": "The DICOM file does not name a modality of radiographs that the standard knows. Check that it "
    "is a chest radiograph.",
}
"""Kinds of problem in spite of which a file is read, each with what to know."""


def format_percent(share: float) -> str:
    """Write a share in per cent; a share that is not exactly 0 or 1 is never written as 0 or 100 per cent.

    Args:
        share: 0 to 1, or NaN.

    Returns:
        For example ``"97.3 %"``, ``"unknown"``, ``"< 0.1 %"`` or ``"> 99.9 %"``.
    """
    if isnan(share):
        return "unknown"
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def format_label(label: str | None) -> str:
    """Write a label with its sign.

    Args:
        label: ``"NORMAL"``, ``"PNEUMONIA"`` or ``"UNCERTAIN"``; None without a prediction.

    Returns:
        For example ``"▲ PNEUMONIA"``.
    """
    return NO_PREDICTION if label is None else f"{SIGNS[label]} {label}"


def describe_prediction_set(classes: tuple[str, ...], sets: PredictionSets) -> str:
    """Say why a film is UNCERTAIN, or what a certain label means.

    Args:
        classes: the classes that fit the film.
        sets: the thresholds of the model.

    Returns:
        One or two sentences.
    """
    promise = f"Of films of each class like those of validation, at least {100 * sets.coverage:g} % fit their own class"
    if len(classes) == 1:
        return f"Only {classes[0]} fits this film. {promise}. It is no finding."
    fit = "Both NORMAL and PNEUMONIA fit" if classes else "Neither NORMAL nor PNEUMONIA fits"
    return f"{fit} this film, and so the model does not decide. {promise}."


def problem_sentence(problem: str) -> str:
    """Say why a file cannot be read.

    Args:
        problem: kind of problem, a key of :data:`cxr.images.problems.PROBLEMS`.

    Returns:
        A sentence.
    """
    reason = PROBLEM_TEXTS.get(problem) or PROBLEMS.get(problem)
    return f"This file cannot be read: {reason}." if reason else "This file cannot be read."
