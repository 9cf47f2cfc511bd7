"""What others report on this data set (the five source systems and publications), and the targets for our models.

They measured on different images; :attr:`ReportedResult.setting` says on which. A reported result appears only beside
results of the same split protocol. Shares are in 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["grouped", "official"]


@dataclass(frozen=True)
class ReportedResult:
    """Measures that others report.

    Attributes:
        title: whose result it is, in a few words.
        protocols: split protocols of the tables in which it appears. A random split by image counts as "grouped", a
            setting that is not stated as both.
        setting: the images that it was measured on, and what else one must know to compare.
        citation: where the result comes from.
        measures: measure to value.
        architecture: network that was built after it; None for publications.
        at_other_threshold: measures that it reports at another threshold than 0.5. They are compared as targets.
        selected_on_test: whether the images that it was measured on had also chosen its epoch or threshold.
    """

    title: str
    protocols: tuple[Protocol, ...]
    setting: str
    citation: str
    measures: dict[str, float]
    architecture: str | None = None
    at_other_threshold: frozenset[str] = frozenset()
    selected_on_test: bool = False


@dataclass(frozen=True)
class PerformanceTarget:
    """A value that a model has to reach, or that it aims at, if the title says so.

    Attributes:
        title: what is required, for a reader.
        protocol: split protocol that it applies to.
        measure: measure of the report.
        entry: entry of the test report with the measure: ``at_threshold``, ``uncalibrated_at_half`` or
            ``further_points`` (the point whose requested sensitivity is the bound).
        bound: smallest value that reaches the target; the largest one if ``is_maximum``.
        architecture: the network that it applies to; None for the model with the best validation AUROC.
        is_maximum: whether lower values are better.
        over_trainings: whether the mean over several trainings of one network is compared: of the network whose mean
            validation AUROC is highest.
    """

    title: str
    protocol: Protocol
    measure: str
    entry: Literal["at_threshold", "uncalibrated_at_half", "further_points"]
    bound: float
    architecture: str | None = None
    is_maximum: bool = False
    over_trainings: bool = False


SOURCE_SYSTEMS: tuple[ReportedResult, ...] = (
    ReportedResult(
        "S0, residual separable CNN",
        ("grouped",),
        "15 % of a sample of 3,000 images, split by image; the same images chose its best epoch",
        "reported by system S0",
        {"accuracy": 0.9822, "auroc": 0.99515, "precision": 0.9965, "sensitivity": 0.9766},
        "residual_separable",
        selected_on_test=True,
    ),
    ReportedResult(
        "S1, shallow CNN",
        ("official",),
        "official test",
        "reported by system S1",
        {"accuracy": 0.8574, "log_loss": 0.3116},
        "shallow",
    ),
    ReportedResult(
        "S2, three-block CNN",
        ("grouped",),
        "70/15/15, split by image; recall at one of several thresholds; "
        "also stated: false positives 5.71 %, false negatives 2.17 %",
        "reported by system S2",
        {"auroc": 0.9711, "sensitivity": 0.9703},
        "three_block",
        frozenset({"sensitivity"}),
    ),
    ReportedResult(
        "S3, ResNet50V2",
        ("official",),
        "official test, which was also its validation",
        "reported by system S3",
        {"accuracy": 0.9620, "sensitivity": 0.9744},
        "resnet50v2",
        selected_on_test=True,
    ),
    ReportedResult(
        "S4, own CNN", ("grouped", "official"), "test images not stated", "reported by system S4",
        {"accuracy": 0.86}, "plain_cnn",
    ),
    ReportedResult(
        "S4, VGG16", ("grouped", "official"), "test images not stated", "reported by system S4",
        {"accuracy": 0.92}, "vgg16",
    ),
    ReportedResult(
        "S4, ResNet50", ("grouped", "official"), "test images not stated", "reported by system S4",
        {"accuracy": 0.82}, "resnet50",
    ),
)  # fmt: skip

MEDMNIST_PLUS = "Doerrich et al. 2025, MedMNIST+, Scientific Reports, doi 10.1038/s41598-025-92156-9"
MEDMNIST_PLUS_SETTING = "official test; {pixels} pixels; accuracy at 0.5; mean of three seeds; not selected on test"

PUBLISHED: tuple[ReportedResult, ...] = (
    ReportedResult(
        "Authors of the data set",
        ("official",),
        "official test, 624 images",
        "Kermany et al. 2018, Cell 172(5), 1122-1131",
        {"auroc": 0.968, "accuracy": 0.928, "sensitivity": 0.932, "specificity": 0.901},
    ),
    ReportedResult(
        "Google AutoML Vision",
        ("official",),
        "official test; 28 pixels; not selected on test",
        "Yang et al. 2023, MedMNIST v2, Scientific Data, doi 10.1038/s41597-022-01721-8",
        {"auroc": 0.991, "accuracy": 0.946},
    ),
    ReportedResult(
        "DINO ViT-B/16, linear probe",
        ("official",), MEDMNIST_PLUS_SETTING.format(pixels=224), MEDMNIST_PLUS,
        {"auroc": 0.9892, "accuracy": 0.9156},
    ),
    ReportedResult(
        "DenseNet121",
        ("official",), MEDMNIST_PLUS_SETTING.format(pixels=128), MEDMNIST_PLUS,
        {"auroc": 0.9875, "accuracy": 0.8980},
    ),
    ReportedResult(
        "VGG16",
        ("official",), MEDMNIST_PLUS_SETTING.format(pixels=64), MEDMNIST_PLUS,
        {"auroc": 0.9869, "accuracy": 0.8926},
    ),
    ReportedResult(
        "ResNet18",
        ("official",), MEDMNIST_PLUS_SETTING.format(pixels=224), MEDMNIST_PLUS,
        {"auroc": 0.9804, "accuracy": 0.9113},
    ),
)  # fmt: skip
"""MedMNIST and MedMNIST+ call the data set PneumoniaMNIST. They crop its images to squares and scale them down, take a
tenth of the training folder as validation, and measure on the 624 images of the official test."""

EXPECTED_RANGES: dict[str, str] = {
    "official": "Credible results on the official test lie between 90 and 96 % accuracy and between 0.95 "
    "and 0.99 AUROC; training from scratch at 224 pixels gives about 0.965, pretrained networks 0.98 to 0.99.",
    "grouped": "Credible results on re-splits by patient lie between 0.987 and 0.998 AUROC, with a "
    "calibration error of 0.02 to 0.04.",
}
"""Values to expect according to the literature and our own measurements, by split protocol."""

PERFORMANCE_TARGETS: tuple[PerformanceTarget, ...] = (
    PerformanceTarget("Best model by validation: AUROC", "grouped", "auroc", "at_threshold", 0.985),
    PerformanceTarget("S2: its AUROC", "grouped", "auroc", "at_threshold", 0.9711, "three_block"),
    PerformanceTarget(
        "S2: its recall, at the threshold chosen for it on validation",
        "grouped", "sensitivity", "further_points", 0.9703, "three_block",
    ),
    PerformanceTarget(
        "S1: its accuracy, at 0.5",
        "official", "accuracy", "uncalibrated_at_half", 0.8574, "shallow",
    ),
    PerformanceTarget("Aim for the best model by validation: AUROC", "grouped", "auroc", "at_threshold", 0.997),
    PerformanceTarget(
        "Aim for the best model by validation: accuracy, at the threshold chosen on validation",
        "grouped", "accuracy", "at_threshold", 0.97,
    ),
    PerformanceTarget(
        "Aim for the best model by validation: calibration error",
        "grouped", "calibration_error", "at_threshold", 0.02, is_maximum=True,
    ),
    PerformanceTarget("Aim for the best model by validation: AUROC", "official", "auroc", "at_threshold", 0.985),
    PerformanceTarget(
        "Aim for the best model by validation: accuracy, at the threshold chosen on validation",
        "official", "accuracy", "at_threshold", 0.95,
    ),
    PerformanceTarget(
        "Aim for the mean of single trainings of one network: AUROC",
        "official", "auroc", "at_threshold", 0.98, over_trainings=True,
    ),
)  # fmt: skip
