"""The model card says what the files say, and no more."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr.evaluation.stress_test import measure_stress
from cxr.files import without_nan
from cxr.models.metadata import Member, ModelMetadata
from cxr.models.prediction_sets import PredictionSets
from cxr.promotion.model_card.writer import write_model_card
from support.model_folders import THRESHOLD, make_metadata
from support.simulated_predictions import changed_predictions, evaluated, predictions

KERMANY = {"name": "kermany", "kind": "patients", "source": "kermany224.tar", "licence": "CC BY 4.0, its authors"}


def entry(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def metadata() -> ModelMetadata:
    return make_metadata(dataset=KERMANY, split_protocol="grouped").with_calibration(2.5, THRESHOLD, "chosen by hand")


@pytest.fixture
def metrics() -> dict[str, Any]:
    part = {
        "images": 200,
        "patients": 120,
        "normal": 50,
        "pneumonia": 150,
        "at_threshold": {
            "auroc": entry(0.9876, 0.9654, 0.9987),
            "sensitivity": entry(0.941, 0.912, 0.963),
            "specificity": entry(0.902, 0.871, 0.934),
            "calibration_error": entry(0.021, 0.011, 0.031),
        },
        "confusion": {"true_positives": 141, "false_negatives": 9, "true_negatives": 45, "false_positives": 5},
        "uncalibrated_at_half": {"calibration_error": entry(0.087, 0.07, 0.1)},
        "subtypes": {
            "bacteria": {"images": 90, "sensitivity": entry(0.967, 0.93, 0.99), "auroc": entry(0.991, 0.98, 0.999)},
            "virus": {"images": 60, "sensitivity": entry(0.883, 0.8, 0.95), "auroc": entry(0.957, 0.92, 0.98)},
        },
    }
    return {
        "bins": 15,
        "bootstrap": {"confidence": 0.95, "resamples": 2000, "unit": "patient"},
        "test": part,
        "validation": {**part, "images": 180},
        "honesty": {"metadata": {"auroc": entry(0.898, 0.87, 0.92)}, "lungs_hidden": {"auroc": entry(0.65, 0.6, 0.7)}},
        "split_ratios": [0.7, 0.15, 0.15],
    }


def test_figures_stand_with_their_intervals_overall_and_per_subtype(
    metadata: ModelMetadata, metrics: dict[str, Any]
) -> None:
    text = write_model_card(metadata, metrics)
    for line in (
        "| AUROC | 0.9876 | 0.9654 to 0.9987 |",
        "| Sensitivity | 94.1 % | 91.2 to 96.3 % |",
        "| bacterial pneumonia | 90 | 96.7 % (93.0 to 99.0 %) | 0.9910 (0.9800 to 0.9990) |",
        "| viral pneumonia | 60 | 88.3 % (80.0 to 95.0 %) | 0.9570 (0.9200 to 0.9800) |",
        "it missed 9 of 150 images with pneumonia and called 5 of 50 normal ones PNEUMONIA",
        "Calibration error on test: 0.087 (0.070 to 0.100) before, 0.021 (0.011 to 0.031) after",
        "no image): AUROC 0.8980 (0.8700 to 0.9200)",
        "lungs blacked out: AUROC 0.6500 (0.6000 to 0.7000)",
        "at a calibrated probability of 0.6000 and above",
        "75 % of the test images show pneumonia",
        "(70 / 15 / 15 %)",
        "200 images of 120 patients (50 normal, 150 with pneumonia)",
    ):
        assert line in text, line


def test_the_published_set_is_of_young_children_of_one_hospital(
    metadata: ModelMetadata, metrics: dict[str, Any]
) -> None:
    text = write_model_card(metadata, metrics)
    for text_part in (
        "children of one to five years",
        "one hospital (Guangzhou Women and Children's Medical Center",
        "Licence: CC BY 4.0, its authors",
        "Source: kermany224.tar",
        "Diagnosis, triage, or any decision about a patient",
        "adults",
        "Telling bacterial from viral pneumonia",
    ):
        assert text_part in text, text_part


def test_nothing_is_invented_about_another_data_set(metadata: ModelMetadata, metrics: dict[str, Any]) -> None:
    text = write_model_card(replace(metadata, dataset={"name": "ward 7", "kind": "patients"}), metrics)
    assert "their age, sex and hospital are not stated on its card" in text
    assert "Licence: not stated" in text and "Source: not stated" in text
    assert "children of one to five" not in text and "Guangzhou" not in text and "One hospital" not in text


def test_a_model_of_phantoms_says_so_before_anything_else(metadata: ModelMetadata, metrics: dict[str, Any]) -> None:
    text = write_model_card(replace(metadata, dataset={"name": "kermany", "kind": "phantom"}), metrics)
    assert text.splitlines()[2].startswith("> **Trained on phantoms: drawn images, not patients.**")
    assert "Guangzhou" not in text and "Research and teaching" not in text
    assert "Licence: not stated" in text


def test_an_ensemble_names_its_members_and_weights(metadata: ModelMetadata, metrics: dict[str, Any]) -> None:
    members = (Member("left", 0.75, metadata), Member("right", 0.0, metadata))
    text = write_model_card(replace(metadata, model="weighted", members=members), metrics)
    assert text.count("left 0.7500, right 0.0000") == 2


def test_it_says_how_an_image_becomes_square_and_whether_it_is_mirrored(
    metadata: ModelMetadata, metrics: dict[str, Any]
) -> None:
    card = write_model_card(metadata, metrics)
    assert "the image is stretched to a square" in card
    assert "mirror image" not in card
    padded = replace(metadata, mirrored=True, recipe={**metadata.recipe, "fit": "pad"})
    card = write_model_card(padded, metrics)
    assert "filled up with black to a square" in card
    assert "the mean, in log odds, of the image and its mirror image" in card


def test_uncertain_answers_are_explained_only_where_there_are_some(
    metadata: ModelMetadata, metrics: dict[str, Any]
) -> None:
    assert "UNCERTAIN" not in write_model_card(metadata, metrics)
    sets = PredictionSets(0.95, 0.3123, 0.6789, 48, 152)
    metrics["test"]["prediction_sets"] = {
        "counts": {"normal": 40, "pneumonia": 140, "both": 0, "none": 20},
        "normal_coverage": entry(0.94, 0.91, 0.97),
        "uncertain": entry(0.1, 0.06, 0.14),
    }
    text = write_model_card(replace(metadata, prediction_sets=sets), metrics)
    for line in (
        "follow this threshold: see the section Uncertain answers.",
        "NORMAL fits at a calibrated probability of 0.3123 and below, PNEUMONIA at 0.6789 and above",
        "At least 95 % of the images of each class",
        "48 normal validation images and 152 with pneumonia",
        "| Normal images that NORMAL fits | 94.0 % | 91.0 to 97.0 % |",
        "| Uncertain | 10.0 % | 6.0 to 14.0 % |",
        "| Sensitivity, certain answers | not measured |  |",
        "0 images that both classes fit, 20 that none fits",
    ):
        assert line in text, line


def test_missing_figures_are_called_not_measured(metadata: ModelMetadata, metrics: dict[str, Any]) -> None:
    incomplete = copy.deepcopy(metrics)
    del incomplete["honesty"], incomplete["test"]["subtypes"], incomplete["test"]["uncalibrated_at_half"]
    incomplete["test"]["at_threshold"]["specificity"] = entry(None)
    incomplete["test"]["at_threshold"]["auroc"] = entry(0.9)
    text = write_model_card(metadata, incomplete)
    assert "| Specificity | not measured |  |" in text
    assert "| AUROC | 0.9000 |  |" in text
    assert "no image): AUROC not measured." in text
    assert "by subtype (bacterial, viral): not measured" in text
    assert "on test: not measured before, 0.021" in text
    assert "figures are not measured" in write_model_card(metadata, {})


def test_a_perfect_figure_is_explained(metadata: ModelMetadata, metrics: dict[str, Any]) -> None:
    assert "none of these few images" not in write_model_card(metadata, metrics)
    metrics["test"]["subtypes"]["virus"]["sensitivity"] = entry(1.0, 1.0, 1.0)
    assert "none of these few images was mistaken" in write_model_card(metadata, metrics)


def test_an_uncommitted_change_is_a_limit(metadata: ModelMetadata, metrics: dict[str, Any]) -> None:
    assert "does not hold all of the code" not in write_model_card(metadata, metrics)
    assert "does not hold all of the code" in write_model_card(
        replace(metadata, git_commit="c" * 40 + "-dirty"), metrics
    )


def test_a_short_card_keeps_purpose_and_figures_and_names_what_it_left_out(
    metadata: ModelMetadata, metrics: dict[str, Any]
) -> None:
    whole = write_model_card(metadata, metrics)
    short = write_model_card(metadata, metrics, limit=3500)
    assert len(short) <= 3500 < len(whole) < 6000
    assert "Left out here for want of room, and found in MODEL_CARD.md:" in short and "Use" in short.splitlines()[-1]
    for heading in ("Intended use", "Not for", "Figures on test images", "Honesty checks", "Limits"):
        assert f"## {heading}" in short
    assert "## Split" in whole and "## Split" not in short
    assert len(write_model_card(metadata, metrics, limit=500)) == 500


def test_it_is_written_from_plain_files(metadata: ModelMetadata, metrics: dict[str, Any]) -> None:
    assert write_model_card(metadata, json.loads(json.dumps(metrics))) == write_model_card(metadata, metrics)


def test_slices_are_shown_with_the_worst_one_first_and_small_ones_by_name(
    metadata: ModelMetadata, metrics: dict[str, Any]
) -> None:
    plain = write_model_card(metadata, metrics)
    assert "## Slices" not in plain and "Age, sex, scanner" in plain
    table = predictions(400)
    names = np.select([table.index < 12, table["subtype"] == "virus"], ["rare", "F"], "M")
    table = table.assign(**{"slice.sex": pd.Categorical(names, ordered=True)})
    report = without_nan(evaluated(table, resamples=100, slices=["sex"]).report)
    text = write_model_card(metadata, {**metrics, "slices": report["slices"], "test": report["test"]})
    section = text.partition("## Slices")[2].partition("\n## ")[0]
    entries = {entry["slice"]: entry for entry in report["test"]["slices"]["measured"]}
    lowest = f"{100 * entries['F']['sensitivity']['value']:.1f} %"
    assert section.strip().startswith(f"Lowest sensitivity of a slice: {lowest} (")
    assert f"| sex: F | {entries['F']['images']} | {entries['F']['patients']} | – | {lowest} (" in section
    assert "| sex: M |" in section and "Too small for figures: sex: rare (" in section
    assert "A figure needs 10 patients of its class" in section
    assert "Age, sex, scanner" not in text and "Groups are known by sex only" in text
    metrics |= {"slices": report["slices"], "test": report["test"]}
    assert "%), sex: F. Groups" in write_model_card(metadata, metrics, limit=4500).partition("## Limits")[2]
    none = without_nan(evaluated(table, resamples=100, slices=["sex"], slice_min_patients=500).report)
    text = write_model_card(metadata, {**metrics, "slices": none["slices"], "test": none["test"]})
    assert "No slice has the 500 patients with pneumonia" in text


def test_the_stress_test_is_shown_with_its_lowest_figures(metadata: ModelMetadata, metrics: dict[str, Any]) -> None:
    assert "acquired in another way are not measured" in write_model_card(metadata, metrics)
    evaluation = evaluated(predictions(200), resamples=100)
    changed = changed_predictions(evaluation.predictions, {"jpeg_20": 5.0})
    stress = measure_stress(evaluation, changed, resamples=100, seed=0)
    text = write_model_card(metadata, {**metrics, "stress": without_nan(stress)})
    test = stress["test"]
    lowest = test["worst"]["auroc"]
    assert f"Lowest: AUROC {lowest['value']:.4f} (JPEG quality 20); Sensitivity" in text
    for title, figures in (("Unchanged", test["unchanged"]), ("Mean over the changes", test["mean"])):
        entry = figures["auroc"]
        assert f"| {title} | {entry['value']:.4f} ({entry['low']:.4f} to {entry['high']:.4f}) |" in text
    assert text.count("| Rotated by 7") == 2
    assert "Rotated" not in write_model_card(metadata, {**metrics, "stress": stress}, limit=5000)
