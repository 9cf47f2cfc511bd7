"""The model card as Markdown: intended use, figures, limits, and what is not known about a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cxr.data.fetching import kermany
from cxr.evaluation.slices import SLICES
from cxr.files import MODEL_CARD_FILE
from cxr.lineage.provenance import DIRTY_SUFFIX
from cxr.models.metadata import ModelMetadata
from cxr.promotion.model_card.evaluation_sections import (
    NOT_STATED,
    calibration_section,
    describe_counts,
    figures_section,
    prediction_sets_section,
    shortcut_section,
    split_metrics,
    stress_section,
    threshold_section,
)
from cxr.promotion.model_card.outside_section import outside_section
from cxr.promotion.model_card.region_sections import (
    box_choice_section,
    describe_region_counts,
    detector_section,
    region_figures_section,
    strata_section,
    unmarked_section,
)
from cxr.promotion.model_card.slices_section import slices_section, worst_slice_sentence
from cxr.regions.image_tables import WITH_PNEUMONIA
from cxr.results.judgements import JUDGEMENTS_ENTRY

KERMANY_PEOPLE = (
    "children of one to five years, seen at one hospital (Guangzhou Women and Children's Medical Center, China)"
)


_FITS = {
    "squash": "the image is stretched to a square",
    "pad": "the image is filled up with black to a square",
    "crop": "the central square of the image",
}
"""How a recipe makes an image square, for readers."""


@dataclass(frozen=True)
class _Section:
    """A section of the model card.

    Attributes:
        heading: its title.
        body: Markdown.
        rank: sections of a higher rank are left out first if room is short; sections of rank 0 never are.
    """

    heading: str
    body: str
    rank: int = 0

    def __str__(self) -> str:
        return f"## {self.heading}\n\n{self.body}\n"


def write_model_card(
    metadata: ModelMetadata, metrics: Mapping[str, Any], *, origin: str | None = None, limit: int | None = None
) -> str:
    """Write the model card of an evaluated model; it says nothing that the files do not contain.

    Args:
        metadata: the calibrated metadata.
        metrics: content of ``metrics.json``, with that of ``stress.json`` as the entry ``stress``; a missing figure is
            called "not measured".
        origin: Markdown for the section about the origin of the model; None writes what the metadata says.
        limit: largest number of characters, None for no limit; whole sections are left out, the least important first,
            and named at the end.

    Returns:
        Markdown.
    """
    if metadata.detector is not None:
        judged = [
            _Section("Figures on test images", region_figures_section(metrics)),
            _Section("Threshold and box scale", box_choice_section(metadata), 1),
            _Section("By subtype and difficulty", strata_section(metrics), 7),
            _Section("Images of another data set", unmarked_section(metrics), 6),
            _Section("Limits", _limits(metadata, metrics)),
            _Section("Detector", detector_section(metadata.detector), 2),
        ]
    else:
        sets, judgements = metadata.prediction_sets, metrics.get(JUDGEMENTS_ENTRY)
        judged = [
            _Section("Figures on test images", figures_section(metrics)),
            *([_Section("Slices", slices_section(metrics), 6)] if SLICES in metrics else []),
            _Section("Threshold", threshold_section(metadata, metrics), 1),
            *([] if sets is None else [_Section("Uncertain answers", prediction_sets_section(sets, metrics), 1)]),
            _Section("Honesty checks", shortcut_section(metrics)),
            _Section("Images acquired in another way", stress_section(metrics), 7),
            *([_Section("On other data", outside_section(judgements))] if judgements else []),
            _Section("Limits", _limits(metadata, metrics)),
            _Section("Calibration", calibration_section(metadata, metrics), 2),
        ]
    sections = [
        _Section("Intended use", _intended_use(metadata)),
        _Section("Not for", _not_for(metadata)),
        *judged,
        _Section("Data", _data(metadata, metrics), 3),
        _Section("Split", _split(metadata, metrics), 4),
        _Section("Training", _training(metadata), 5),
        _Section("Where it comes from", origin or _origin(metadata), 1),
        _Section("Use", _use(metadata), 6),
    ]
    return _join(_headline(metadata), sections, limit)


def _join(headline: str, sections: list[_Section], limit: int | None) -> str:
    included = list(sections)
    while True:
        omitted = [section.heading for section in sections if section not in included]
        note = f"Left out here for want of room, and found in {MODEL_CARD_FILE}: {', '.join(omitted)}.\n"
        text = "\n".join([headline, *map(str, included), *([note] if omitted else [])])
        least_important = max(included, key=lambda section: section.rank)
        if limit is None or len(text) <= limit or least_important.rank == 0:
            return text if limit is None else text[:limit]
        included.remove(least_important)


def _headline(metadata: ModelMetadata) -> str:
    subject = "pneumonia" if metadata.detector is None else "opacities"
    lines = [f"# {metadata.model}: {subject} on chest radiographs", ""]
    if metadata.dataset_kind == "phantom":
        lines += [
            "> **Trained on phantoms: drawn images, not patients.** Its figures say that the pipeline works, and "
            "nothing about people. Never for use on people.",
            "",
        ]
    if metadata.detector is not None:
        lines.append(
            f"{metadata.model} ({metadata.system}) is a detector with {metadata.parameters:,} parameters: a chest "
            "radiograph in, boxes of opacities with scores out. For research. Not for diagnosis.\n"
        )
        return "\n".join(lines)
    kind = "an ensemble pooling " + _member_weights(metadata) if metadata.members else "one network"
    lines.append(
        f"{metadata.model} ({metadata.system}) is {kind} with {metadata.parameters:,} parameters: a chest radiograph "
        "in, a calibrated probability of pneumonia and a label out. For research. Not for diagnosis.\n"
    )
    return "\n".join(lines)


def _member_weights(metadata: ModelMetadata) -> str:
    return ", ".join(f"{member.model} {member.weight:.4f}" for member in metadata.members)


def _published_people(metadata: ModelMetadata) -> str | None:
    """The people on the images, if the data set's publication describes them."""
    known = metadata.dataset_kind == "patients" and metadata.dataset["name"] == kermany.NAME
    return KERMANY_PEOPLE if known else None


def _intended_use(metadata: ModelMetadata) -> str:
    if metadata.dataset_kind == "phantom":
        return "Trying out and demonstrating the pipeline, without data of patients."
    people = _published_people(metadata)
    who = f"{people}, on frontal (anterior-posterior) radiographs" if people else (
        f"the people of the data set {metadata.dataset['name']}; their age, sex and hospital are {NOT_STATED} on its "
        "card"
    )  # fmt: skip
    return (
        f"Research and teaching on images like those it was trained on: {who}. "
        "Somebody who reads radiographs looks at every image as well."
    )


def _not_for(metadata: ModelMetadata) -> str:
    if metadata.dataset_kind == "phantom":
        return "Anything that concerns people: it has never seen a radiograph."
    people = (
        "infants under one year, older children and adults"
        if _published_people(metadata)
        else "people unlike those of the data set"
    )
    return "\n".join(
        [
            "- Diagnosis, triage, or any decision about a patient. It is not a medical device and has no clearance.",
            f"- {people[0].upper()}{people[1:]}; lateral radiographs; photographs of films or screens.",
            "- Other hospitals and scanners, before it has been judged on their images.",
            "- Other findings: tuberculosis, effusion, a foreign body and everything else get one of its two labels."
            if metadata.detector is None
            else "- Other findings: tuberculosis, effusion, a foreign body and everything else may get boxes, too.",
            "- Telling bacterial from viral pneumonia: subtypes are only reported on.",
        ]
    )


def _limits(metadata: ModelMetadata, metrics: Mapping[str, Any]) -> str:
    test = split_metrics(metrics, "test")
    lines = []
    if test.get("images"):
        share = 100 * _images_with_pneumonia(test) / test["images"]
        lines.append(f"- {share:.0f} % of the test images show pneumonia; where it is rarer, precision is lower.")
    if metadata.dataset_kind == "phantom":
        lines.append("- Drawn images are simpler than radiographs; no figure carries over.")
    else:
        where = "One hospital; no" if _published_people(metadata) else "No"
        if metrics.get(JUDGEMENTS_ENTRY):
            lines.append("- No readers were compared.")
        else:
            lines.append(f"- {where} images of another hospital were used to judge it, and no readers were compared.")
        if SLICES not in metrics:
            lines.append("- Age, sex, scanner and other illness of single patients are not known; neither is fairness.")
        labels = "Labels" if metadata.detector is None else "Boxes"
        lines.append(f"- {labels} are the data set's own; their errors are not measured.")
    if SLICES in metrics:
        columns = ", ".join(metrics[SLICES]["columns"])
        lines.append(f"- {worst_slice_sentence(metrics)} Groups are known by {columns} only.")
    if (metadata.git_commit or DIRTY_SUFFIX).endswith(DIRTY_SUFFIX):
        lines.append("- The commit does not hold all of the code that trained it, or is unknown.")
    return "\n".join(lines)


def _images_with_pneumonia(figures: Mapping[str, Any]) -> int:
    return int(figures["pneumonia"] if "pneumonia" in figures else figures["strata"][WITH_PNEUMONIA]["images"])


def _data(metadata: ModelMetadata, metrics: Mapping[str, Any]) -> str:
    data = metadata.dataset
    count = describe_counts if metadata.detector is None else describe_region_counts
    licence = data.get("licence")
    if licence in (None, "unknown"):
        licence = kermany.LICENCE if _published_people(metadata) else NOT_STATED
    who = {"phantom": "drawn phantoms"}.get(metadata.dataset_kind) or _published_people(metadata) or "patients"
    return "\n".join(
        [
            f"- Data set: {data['name']} ({who})",
            f"- Source: {data.get('source', NOT_STATED)}",
            f"- Licence: {licence}",
            f"- Version: DVC md5 `{metadata.data_md5 or NOT_STATED}`, content digest `{metadata.data_digest[:16]}`",
            f"- Training: {_training_images(metadata)}",
            *(f"- {split.capitalize()}: {count(split_metrics(metrics, split))}" for split in ("validation", "test")),
        ]
    )


def _training_images(metadata: ModelMetadata) -> str:
    trainings = [metadata.training, *(member.card.training for member in metadata.weighted_members)]
    numbers = {training["train_images"] for training in trainings if training.get("train_images")}
    return f"{numbers.pop():,} images" if len(numbers) == 1 else NOT_STATED


def _split(metadata: ModelMetadata, metrics: Mapping[str, Any]) -> str:
    ratios = metrics.get("split_ratios")
    shares = f" ({' / '.join(f'{100 * ratio:g}' for ratio in ratios)} %)" if ratios else ""
    how = {
        "grouped": f"all patients divided anew into train, validation and test{shares} by a hash",
        "official": "the published test folder kept as it is, the other patients divided into train and validation; "
        "images that share a patient or content with the test folder are left out",
    }.get(metadata.split_protocol, f"by patient{shares}")
    chosen = "calibration and threshold" if metadata.detector is None else "threshold and box scale"
    return (
        f"`{metadata.split_protocol}`: {how}. No patient has images on two sides. Validation decided on epoch, "
        f"{chosen}; test was read to report. Split digest `{metadata.split_digest[:16]}`. "
        "Figures of other splits cannot be put beside these."
    )


def _training(metadata: ModelMetadata) -> str:
    training = metadata.training
    device = training.get("device") or {}
    seconds = training.get("seconds")
    lines = [
        f"- Device: {device.get('name') or NOT_STATED} ({device.get('kind') or NOT_STATED}), "
        f"{device.get('framework') or NOT_STATED}",
        f"- Time: {NOT_STATED if seconds is None else f'{seconds:,.0f} s'}",
        f"- Image recipe: {metadata.recipe.get('name')}; {_FITS[metadata.recipe.get('fit', 'squash')]}",
    ]
    if metadata.mirrored:
        lines.append("- Prediction: the mean, in log odds, of the image and its mirror image")
    if metadata.members:
        lines.append(f"- Members and weights: {_member_weights(metadata)}; fitted on validation images")
    else:
        lines.append(
            f"- Epochs: {training.get('epochs_run', NOT_STATED)}, best {training.get('best_epoch', NOT_STATED)}; "
            f"seed {metadata.seed}"
        )
    return "\n".join(lines)


def _origin(metadata: ModelMetadata) -> str:
    return "\n".join(
        [
            f"- Commit `{metadata.git_commit or NOT_STATED}`",
            f"- Data `{metadata.data_md5 or NOT_STATED}` (`data.dvc`)",
            f"- Environment: {metadata.environment or NOT_STATED}",
            f"- Pipeline run: {metadata.pipeline_run or 'none: by hand or by DVC'}",
        ]
    )


def _use(metadata: ModelMetadata) -> str:
    result = "probability, label, threshold"
    if metadata.detector is not None:
        result = "one row per box: path, x, y, width, height, score"
    return (
        "```python\nimport mlflow.pyfunc\n\n"
        'model = mlflow.pyfunc.load_model("models:/NAME/VERSION")\n'
        f'model.predict(["radiograph.jpeg"])  # {result}\n```'
    )
