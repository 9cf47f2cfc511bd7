"""The model card: what a version is for, what it is not for, how it was judged and what is not known, for readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cxr.data.sources import kermany
from cxr.files import MODEL_CARD_FILE
from cxr.lineage.provenance import DIRTY
from cxr.models.metadata import ModelCard
from cxr.promotion.model_card.figures import NOT_STATED, calibration, counts, figures, honesty, part, threshold

KERMANY_PEOPLE = (
    "children of one to five years, seen at one hospital (Guangzhou Women and Children's Medical Center, China)"
)


@dataclass(frozen=True)
class _Section:
    """A part of the card.

    Attributes:
        heading: its title.
        body: Markdown.
        rank: parts of a higher rank are left out first where room is short; those of rank 0 never are.
    """

    heading: str
    body: str
    rank: int = 0

    def __str__(self) -> str:
        return f"## {self.heading}\n\n{self.body}\n"


def write_model_card(
    card: ModelCard, metrics: Mapping[str, Any], *, origin: str | None = None, limit: int | None = None
) -> str:
    """Write the card of a judged model for people: nothing is said that the files do not hold.

    Args:
        card: the calibrated card.
        metrics: the evaluation's report, as in ``metrics.json``; a missing figure is called not measured.
        origin: Markdown for the section on where the model comes from; None writes what the card knows.
        limit: most characters; parts are left out whole, the least important first, and named. None: no limit.

    Returns:
        Markdown.
    """
    top = _headline(card)
    sections = [
        _Section("Intended use", _intended(card)),
        _Section("Not for", _not_for(card)),
        _Section("Figures on test images", figures(metrics)),
        _Section("Threshold", threshold(card, metrics), 1),
        _Section("Honesty checks", honesty(metrics)),
        _Section("Limits", _limits(card, metrics)),
        _Section("Calibration", calibration(card, metrics), 2),
        _Section("Data", _data(card, metrics), 3),
        _Section("Split", _split(card, metrics), 4),
        _Section("Training", _training(card), 5),
        _Section("Where it comes from", origin or _origin(card), 1),
        _Section("Use", _use(), 6),
    ]
    return _joined(top, sections, limit)


def _joined(top: str, sections: list[_Section], limit: int | None) -> str:
    kept = list(sections)
    while True:
        gone = [section.heading for section in sections if section not in kept]
        note = f"Left out here for want of room, and found in {MODEL_CARD_FILE}: {', '.join(gone)}.\n" if gone else ""
        text = "\n".join(filter(None, [top, *map(str, kept), note]))
        least = max(kept, key=lambda section: section.rank)
        if limit is None or len(text) <= limit or least.rank == 0:
            return text if limit is None else text[:limit]
        kept.remove(least)


def _headline(card: ModelCard) -> str:
    lines = [f"# {card.model}: pneumonia on chest radiographs", ""]
    if card.dataset_kind == "phantom":
        lines += [
            "> **Trained on phantoms: drawn images, not patients.** Its figures say that the pipeline works, and "
            "nothing about people. Never for use on people.",
            "",
        ]
    pools = "an ensemble pooling " + _weights(card) if card.members else "one network"
    lines.append(
        f"{card.model} ({card.system}) is {pools} with {card.parameters:,} parameters: a chest radiograph in, a "
        "calibrated probability of pneumonia and a label out. For research. Not for diagnosis.\n"
    )
    return "\n".join(lines)


def _weights(card: ModelCard) -> str:
    return ", ".join(f"{member.model} {member.weight:.4f}" for member in card.members)


def _people(card: ModelCard) -> str | None:
    """Who is on the images, as far as the data set's publication says it."""
    known = card.dataset_kind == "patients" and card.dataset["name"] == kermany.NAME
    return KERMANY_PEOPLE if known else None


def _intended(card: ModelCard) -> str:
    if card.dataset_kind == "phantom":
        return "Trying out and demonstrating the pipeline, without data of patients."
    people = _people(card)
    who = f"{people}, on frontal (anterior-posterior) films" if people else (
        f"the people of the data set {card.dataset['name']}; their age, sex and hospital are {NOT_STATED} on its card"
    )  # fmt: skip
    return (
        f"Research and teaching on images like those it was trained on: {who}. "
        "Somebody who reads radiographs looks at every image as well."
    )


def _not_for(card: ModelCard) -> str:
    if card.dataset_kind == "phantom":
        return "Anything that concerns people: it has never seen a radiograph."
    people = (
        "infants under one year, older children and adults" if _people(card) else "people unlike those of the data set"
    )
    return "\n".join(
        [
            "- Diagnosis, triage, or any decision about a patient. It is not a medical device and has no clearance.",
            f"- {people[0].upper()}{people[1:]}; lateral films; photographs of films or screens.",
            "- Other hospitals and scanners, before it has been judged on their images.",
            "- Other findings: tuberculosis, effusion, a foreign body and everything else get one of its two labels.",
            "- Telling bacterial from viral pneumonia: subtypes are only reported on.",
        ]
    )


def _limits(card: ModelCard, metrics: Mapping[str, Any]) -> str:
    test = part(metrics, "test")
    lines = []
    if test.get("images"):
        share = 100 * test["pneumonia"] / test["images"]
        lines.append(f"- {share:.0f} % of the test images show pneumonia; where it is rarer, precision is lower.")
    if card.dataset_kind == "phantom":
        lines.append("- Drawn images are simpler than radiographs; no figure carries over.")
    else:
        where = "One hospital; no" if _people(card) else "No"
        lines.append(f"- {where} images of another hospital were used to judge it, and no readers were compared.")
        lines.append("- Age, sex, scanner and other illness of single patients are not known; neither is fairness.")
        lines.append("- Labels are the data set's own; their errors are not measured.")
    if (card.git_commit or DIRTY).endswith(DIRTY):
        lines.append("- The commit does not hold all of the code that trained it, or is unknown.")
    return "\n".join(lines)


def _data(card: ModelCard, metrics: Mapping[str, Any]) -> str:
    data = card.dataset
    licence = data.get("licence")
    if licence in (None, "unknown"):
        licence = kermany.LICENCE if _people(card) else NOT_STATED
    who = {"phantom": "drawn phantoms"}.get(card.dataset_kind) or _people(card) or "patients"
    return "\n".join(
        [
            f"- Data set: {data['name']} ({who})",
            f"- Source: {data.get('source', NOT_STATED)}",
            f"- Licence: {licence}",
            f"- Version: DVC md5 `{card.data_md5 or NOT_STATED}`, content digest `{card.data_digest[:16]}`",
            f"- Training: {_trained_on(card)}",
            *(f"- {side.capitalize()}: {counts(part(metrics, side))}" for side in ("validation", "test")),
        ]
    )


def _trained_on(card: ModelCard) -> str:
    trainings = [card.training, *(member.card.training for member in card.pooled)]
    numbers = {one["train_images"] for one in trainings if one.get("train_images")}
    return f"{numbers.pop():,} images" if len(numbers) == 1 else NOT_STATED


def _split(card: ModelCard, metrics: Mapping[str, Any]) -> str:
    ratios = metrics.get("split_ratios")
    shares = f" ({' / '.join(f'{100 * ratio:g}' for ratio in ratios)} %)" if ratios else ""
    how = {
        "grouped": f"all patients divided anew into train, validation and test{shares} by a hash",
        "official": "the published test folder kept as it is, the other patients divided into train and validation; "
        "who shares a patient or picture with the test folder is left out",
    }.get(card.split_protocol, f"by patient{shares}")
    return (
        f"`{card.split_protocol}`: {how}. No patient has images on two sides. Validation decided on epoch, calibration "
        f"and threshold; test was read to report. Split digest `{card.split_digest[:16]}`. "
        "Figures of other splits cannot be put beside these."
    )


def _training(card: ModelCard) -> str:
    training = card.training
    device = training.get("device") or {}
    seconds = training.get("seconds")
    lines = [
        f"- Device: {device.get('name') or NOT_STATED} ({device.get('kind') or NOT_STATED}), "
        f"{device.get('framework') or NOT_STATED}",
        f"- Time: {NOT_STATED if seconds is None else f'{seconds:,.0f} s'}",
        f"- Image recipe: {card.recipe.get('name')}",
    ]
    if card.members:
        lines.append(f"- Members and weights: {_weights(card)}; fitted on validation images")
    else:
        lines.append(
            f"- Epochs: {training.get('epochs_run', NOT_STATED)}, best {training.get('best_epoch', NOT_STATED)}; "
            f"seed {card.seed}"
        )
    return "\n".join(lines)


def _origin(card: ModelCard) -> str:
    return "\n".join(
        [
            f"- Commit `{card.git_commit or NOT_STATED}`",
            f"- Data `{card.data_md5 or NOT_STATED}` (`data.dvc`)",
            f"- Environment: {card.environment or NOT_STATED}",
            f"- Pipeline run: {card.pipeline_run or 'none: by hand or by DVC'}",
        ]
    )


def _use() -> str:
    return (
        "```python\nimport mlflow.pyfunc\n\n"
        'model = mlflow.pyfunc.load_model("models:/NAME/VERSION")\n'
        'model.predict(["radiograph.jpeg"])  # probability, label, threshold\n```'
    )
