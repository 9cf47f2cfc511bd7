"""What others report on this data set: the five source systems' own figures and the published ones.

They were measured on different images; :attr:`Figure.setting` says on which, and a figure is shown only
beside results of the same split protocol. Shares are in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["grouped", "official"]


@dataclass(frozen=True)
class Figure:
    """Figures that somebody else reports.

    Attributes:
        title: who, in a few words.
        protocols: split protocols whose tables it belongs in; a random re-split by image goes with
            "grouped", a setting that was not stated with both.
        setting: images that it was measured on, and what must be known to compare.
        citation: where the figure comes from.
        measures: measure name to value.
        architecture: network that was built after it; None for published figures.
        apart: measures that it reports at another threshold than 0.5; the bars hold them.
    """

    title: str
    protocols: tuple[Protocol, ...]
    setting: str
    citation: str
    measures: dict[str, float]
    architecture: str | None = None
    apart: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Bar:
    """A figure that a model has to reach, or, if its title says so, aims at.

    Attributes:
        title: what is asked, in words.
        protocol: split protocol that it is asked on.
        measure: measure of the report.
        entry: entry of the test report that holds it: ``at_threshold``, ``uncalibrated_at_half`` or
            ``further_points`` (the point whose wanted sensitivity is the bar's value).
        wanted: the least value.
        architecture: the network it is asked of; None for the model with the best validation AUROC.
    """

    title: str
    protocol: Protocol
    measure: str
    entry: Literal["at_threshold", "uncalibrated_at_half", "further_points"]
    wanted: float
    architecture: str | None = None


SOURCES: tuple[Figure, ...] = (
    Figure(
        "S0, residual separable CNN",
        ("grouped",),
        "15 % of a sample of 3,000 images, divided by image; the same images chose its best epoch",
        "own figure of system S0",
        {"accuracy": 0.9822, "auroc": 0.99515, "precision": 0.9965, "sensitivity": 0.9766},
        "residual_separable",
    ),
    Figure(
        "S1, shallow CNN",
        ("official",),
        "official test",
        "own figure of system S1",
        {"accuracy": 0.8574, "log_loss": 0.3116},
        "shallow",
    ),
    Figure(
        "S2, three-block CNN",
        ("grouped",),
        "70/15/15, divided by image; recall at one of several thresholds; "
        "also stated: false positives 5.71 %, false negatives 2.17 %",
        "own figure of system S2",
        {"auroc": 0.9711, "sensitivity": 0.9703},
        "three_block",
        frozenset({"sensitivity"}),
    ),
    Figure(
        "S3, ResNet50V2",
        ("official",),
        "official test, which was also its validation",
        "own figure of system S3",
        {"accuracy": 0.9620, "sensitivity": 0.9744},
        "resnet50v2",
    ),
    Figure(
        "S4, own CNN", ("grouped", "official"), "test images not stated", "own figure of system S4",
        {"accuracy": 0.86}, "plain_cnn",
    ),
    Figure(
        "S4, VGG16", ("grouped", "official"), "test images not stated", "own figure of system S4",
        {"accuracy": 0.92}, "vgg16",
    ),
    Figure(
        "S4, ResNet50", ("grouped", "official"), "test images not stated", "own figure of system S4",
        {"accuracy": 0.82}, "resnet50",
    ),
)  # fmt: skip

PUBLISHED: tuple[Figure, ...] = (
    Figure(
        "Authors of the data set",
        ("official",),
        "official test, 624 images",
        "Kermany et al. 2018, Cell 172(5), 1122-1131",
        {"accuracy": 0.928, "sensitivity": 0.932, "specificity": 0.901},
    ),
)

BANDS: dict[str, str] = {
    "official": "Credible figures on the official test lie between 90 and 96 % accuracy and between 0.95 "
    "and 0.98 AUROC; training from scratch at 224 pixels gives about 0.965.",
    "grouped": "Credible figures on re-splits by patient lie between 0.987 and 0.996 AUROC, with a "
    "calibration error of 0.02 to 0.04.",
}
"""What the literature makes one expect, per split protocol."""

BARS: tuple[Bar, ...] = (
    Bar("Best model by validation: AUROC", "grouped", "auroc", "at_threshold", 0.985),
    Bar("S2: its AUROC", "grouped", "auroc", "at_threshold", 0.9711, "three_block"),
    Bar(
        "S2: its recall, at the threshold chosen for it on validation",
        "grouped", "sensitivity", "further_points", 0.9703, "three_block",
    ),
    Bar(
        "S1: its accuracy, at 0.5",
        "official", "accuracy", "uncalibrated_at_half", 0.8574, "shallow",
    ),
    Bar("Aim for the best model by validation: AUROC", "grouped", "auroc", "at_threshold", 0.995),
    Bar("Aim for the best model by validation: AUROC", "official", "auroc", "at_threshold", 0.975),
    Bar(
        "Aim for the best model by validation: accuracy, at the threshold chosen on validation",
        "official", "accuracy", "at_threshold", 0.947,
    ),
)  # fmt: skip
