"""A detector beside reference methods: chosen on validation, measured on test by stratum, with intervals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.data.boxes import AnnotatedImage, BoxAnnotations, to_corners
from cxr.errors import DataError
from cxr.evaluation.shortcut_checks import lung_field
from cxr.regions.average_precision import IOU_THRESHOLDS, image_average_precisions, mean_average_precision
from cxr.regions.evaluation import MEASURES, PER_IMAGE, PHANTOM_NOTE, RegionEvaluation, RegionMethod, evaluate_regions
from cxr.regions.examples import choose_examples
from cxr.regions.files import METHODS_FILE, write_region_evaluation
from cxr.regions.image_tables import IMAGE_COLUMNS, divide_into_strata, image_tables
from cxr.regions.matching import PREDICTION_COLUMNS, match_predictions
from cxr.regions.operating_point import RegionOperatingPoint
from cxr.regions.unmarked_images import evaluate_without_boxes
from support.simulated_boxes import (
    PATIENTS_CARD,
    PHANTOM_CARD,
    SETTINGS,
    annotated_images,
    detected_boxes,
    judged,
    region_methods,
)

DETECTOR = "detector"


@pytest.fixture(scope="module")
def evaluation() -> RegionEvaluation:
    return judged()


def test_the_table_has_every_method_and_stratum_with_intervals(evaluation: RegionEvaluation) -> None:
    table = evaluation.table("test")
    assert table["stratum"].unique().tolist() == [
        "all", "pneumonia", "bacteria", "virus", "easy", "moderate", "hard"
    ]  # fmt: skip
    assert (table.groupby("stratum")["method"].nunique() == 4).all()
    images, opacities = (table.drop_duplicates("stratum").set_index("stratum")[key] for key in ("images", "opacities"))
    assert images["pneumonia"] == images[["bacteria", "virus"]].sum() == images[["easy", "moderate", "hard"]].sum()
    assert opacities["all"] == opacities[["bacteria", "virus"]].sum() == opacities[["easy", "moderate", "hard"]].sum()
    for measure in MEASURES:
        assert (table[f"{measure}_low"] <= table[measure] + 1e-9).mean() > 0.95
        assert (table[f"{measure}_high"] >= table[measure] - 1e-9).mean() > 0.95


def test_figures_equal_those_of_the_measures_alone(evaluation: RegionEvaluation) -> None:
    images, boxes = annotated_images(400)
    point = RegionOperatingPoint(**evaluation.report["methods"][DETECTOR]["operating_point"])
    for split in ("validation", "test"):
        part = images[images["split"] == split]
        predictions = detected_boxes(images, boxes)
        predictions = point.resize(part, predictions[predictions["path"].isin(part["path"])])
        matched = match_predictions(part["path"].tolist(), boxes, predictions, IOU_THRESHOLDS)
        per_image = image_average_precisions(matched, point.threshold)
        entries = evaluation.report[split]["methods"][DETECTOR]
        assert entries["all"]["mean_average_precision"]["value"] == pytest.approx(mean_average_precision(per_image))
        virus = (part["subtype"] == "virus").to_numpy()
        expected = mean_average_precision(per_image[virus])
        assert entries["virus"]["mean_average_precision"]["value"] == pytest.approx(expected)
        if split == "validation":
            assert point.mean_average_precision == pytest.approx(mean_average_precision(per_image))


def test_simulated_difficulty_and_references_are_seen(evaluation: RegionEvaluation) -> None:
    test = evaluation.report["test"]["methods"]
    easy, hard = (test[DETECTOR][stratum]["mean_average_precision"]["value"] for stratum in ("easy", "hard"))
    assert easy > hard + 0.1
    for name in ("heat", "prior_with_classifier", "prior"):
        against = test[name]["against"]
        ours, theirs = (test[key]["all"]["mean_average_precision"]["value"] for key in (DETECTOR, name))
        assert against["difference"]["value"] == pytest.approx(ours - theirs)
        assert against["ratio"]["value"] == pytest.approx(ours / theirs)
        assert against["ratio"]["low"] > 2
    assert "against" not in test[DETECTOR]
    # The same boxes with a score of the image are better where normal images count.
    prior, with_classifier = (test[key]["all"] for key in ("prior", "prior_with_classifier"))
    assert with_classifier["mean_average_precision"]["value"] > prior["mean_average_precision"]["value"]
    assert (prior["auroc"]["value"], with_classifier["auroc"]["value"] > 0.9) == (0.5, True)


def test_test_images_choose_nothing(evaluation: RegionEvaluation) -> None:
    images, boxes = annotated_images(400)
    methods = region_methods(images, boxes)
    is_test = images[images["split"] == "test"]["path"]
    for name, method in methods.items():
        table = method.predictions.copy()
        table.loc[table["path"].isin(is_test), "score"] /= 10
        table.loc[table["path"].isin(is_test), ["width", "height"]] *= 0.7
        methods[name] = RegionMethod(method.title, table)
    changed = evaluate_regions(images, boxes, methods, PHANTOM_CARD, SETTINGS).report
    assert changed["methods"] == evaluation.report["methods"]
    assert changed["validation"] == evaluation.report["validation"]
    assert changed["test"] != evaluation.report["test"]


def test_images_of_training_are_ignored(evaluation: RegionEvaluation) -> None:
    images, boxes = annotated_images(400)
    images = images[images["split"] != "train"]
    boxes = boxes[boxes["path"].isin(images["path"])]
    methods = region_methods(*annotated_images(400))
    assert evaluate_regions(images, boxes, methods, PHANTOM_CARD, SETTINGS).report == evaluation.report


def test_the_bootstrap_draws_patients() -> None:
    images, boxes = annotated_images(200)
    methods = {DETECTOR: RegionMethod("Detector", detected_boxes(images, boxes))}
    by_patient = evaluate_regions(images, boxes, methods, PHANTOM_CARD, SETTINGS).report["test"]
    by_image = evaluate_regions(images.assign(group=images["path"]), boxes, methods, PHANTOM_CARD, SETTINGS).report[
        "test"
    ]
    assert by_patient["patients"] < by_image["patients"] == by_patient["images"]
    widths = []
    for part in (by_patient, by_image):
        entry = part["methods"][DETECTOR]["all"]["mean_average_precision"]
        widths.append(entry["high"] - entry["low"])
    assert widths[0] != widths[1]


def test_curves_and_band_of_the_test_images(evaluation: RegionEvaluation) -> None:
    curve = evaluation.free_response[evaluation.free_response["method"] == DETECTOR]
    assert curve["sensitivity"].is_monotonic_increasing
    assert curve["false_positives_per_image"].is_monotonic_increasing
    band = evaluation.free_response_band.set_index("false_positives_per_image")
    assert (band["low"] <= band["high"]).all()
    value = evaluation.report["test"]["methods"][DETECTOR]["all"]["sensitivity"]
    assert (band.loc[0.5, "low"], band.loc[0.5, "high"]) == (value["low"], value["high"])


def test_every_file_says_that_the_images_are_phantoms(evaluation: RegionEvaluation, tmp_path: Path) -> None:
    write_region_evaluation(tmp_path, evaluation)
    assert json.loads((tmp_path / "metrics.json").read_text())["data"]["note"] == PHANTOM_NOTE
    methods = pd.read_csv(tmp_path / METHODS_FILE)
    assert (methods["data"] == PHANTOM_NOTE).all()
    assert methods["split"].unique().tolist() == ["test", "validation"]
    predictions = pd.read_parquet(tmp_path / "predictions.parquet")
    assert set(predictions) == {*PREDICTION_COLUMNS, "method", "counts", "data"}
    curves = [pd.read_csv(tmp_path / "curves" / f"{name}.csv") for name in ("free_response", "free_response_band")]
    assert all((table["data"] == PHANTOM_NOTE).all() for table in (predictions, *curves))
    summary = json.loads((tmp_path / "summary.json").read_text())
    value = evaluation.report["test"]["methods"][DETECTOR]["all"]["mean_average_precision"]["value"]
    assert summary["test_mean_average_precision"] == value
    images = pd.read_parquet(tmp_path / "images.parquet")
    assert images.loc[images["split"] == "test", PER_IMAGE].mean() == pytest.approx(value, abs=1e-12)
    references = evaluation.report["validation"]["methods"]
    assert {key: summary[f"validation_mean_average_precision_{key}"] for key in list(references)[1:]} == {
        key: entries["all"]["mean_average_precision"]["value"]
        for key, entries in references.items() if key != DETECTOR
    }  # fmt: skip
    write_region_evaluation(tmp_path, judged(PATIENTS_CARD, 100))
    assert PHANTOM_NOTE not in (tmp_path / "metrics.json").read_text() + (tmp_path / METHODS_FILE).read_text()


def test_a_method_without_boxes_has_zero_and_no_ratio(tmp_path: Path) -> None:
    images, boxes = annotated_images(100)
    nothing = RegionMethod("Nothing", pd.DataFrame(columns=PREDICTION_COLUMNS))
    detector = RegionMethod("Detector", detected_boxes(images, boxes))
    evaluation = judged(count=100, detector=detector, nothing=nothing)
    entries = evaluation.report["test"]["methods"]["nothing"]
    assert entries["all"]["mean_average_precision"]["value"] == 0
    assert entries["all"]["auroc"]["value"] == 0.5
    assert np.isnan(entries["against"]["ratio"]["value"])
    write_region_evaluation(tmp_path, judged(count=100, nothing=nothing))
    assert json.loads((tmp_path / "summary.json").read_text())["test_sensitivity_at_0.5_fp"] == 0


def test_unknown_difficulty_and_subtype_make_no_stratum() -> None:
    images, _ = annotated_images(50)
    strata = divide_into_strata(images.assign(difficulty=np.nan, subtype=None))
    assert list(strata) == ["all", "pneumonia"]
    edges = images.assign(label="PNEUMONIA", difficulty=0.5).head(4).assign(difficulty=[0.0, 1 / 3, 2 / 3, 1.0])
    strata = divide_into_strata(edges)
    assert {name: strata[name].tolist() for name in ("easy", "moderate", "hard")} == {
        "easy": [True, True, False, False],
        "moderate": [False, False, True, False],
        "hard": [False, False, False, True],
    }


def test_images_are_joined_with_their_annotations() -> None:
    splits = pd.DataFrame(
        [("b.png", "p", "PNEUMONIA", "virus", "test"), ("a.png", "q", "NORMAL", "normal", "train")],
        columns=["path", "group", "label", "subtype", "split"],
    )
    manifest = pd.DataFrame({"path": ["a.png", "b.png"], "height": [10, 30], "width": [20, 40]})
    corners = to_corners([[1, 2, 3, 4], [5, 6, 7, 8]])
    annotations = BoxAnnotations(
        {
            "a.png": AnnotatedImage(to_corners([]), None, "normal"),
            "b.png": AnnotatedImage(corners, 0.25, "virus"),
            "c.png": AnnotatedImage(corners, 0.5, "virus"),
        }
    )
    images, boxes = image_tables(splits, manifest, annotations)
    assert list(images) == IMAGE_COLUMNS
    assert images[["path", "height", "width"]].to_numpy().tolist() == [["b.png", 30, 40], ["a.png", 10, 20]]
    assert images["difficulty"].tolist() == pytest.approx([0.25, np.nan], nan_ok=True)
    assert boxes.to_numpy().tolist() == [["b.png", 1, 2, 3, 4], ["b.png", 5, 6, 7, 8]]
    with pytest.raises(DataError, match=r"a\.png"):
        image_tables(splits, manifest, BoxAnnotations({"b.png": annotations.images["b.png"]}))


def test_what_is_missing_is_named() -> None:
    images, boxes = annotated_images(100)
    method = RegionMethod("Detector", detected_boxes(images, boxes))
    unscored = RegionMethod("Detector", method.predictions.drop(columns="score"))
    is_test = images["split"] == "test"
    for tables, methods, message in (
        ((images.drop(columns="group"), boxes), method, "the images with columns .* none of group"),
        ((images, boxes), unscored, "the predictions of detector with columns .* none of score"),
        ((images[~is_test], boxes), method, "opacities in test, received 0 images"),
        ((images[~is_test | (images["label"] == "PNEUMONIA")], boxes), method, r"test, received .*\['PNEUMONIA'\]"),
        ((images, boxes[~boxes["path"].str.startswith("validation")]), method, "in validation, .* and 0 boxes"),
        ((pd.concat([images, images[is_test].tail(1)]), boxes), method, "each image once, received 1 twice"),
    ):
        with pytest.raises(DataError, match=message):
            evaluate_regions(*tables, {DETECTOR: methods}, PHANTOM_CARD, SETTINGS)


def test_examples_run_from_the_worst_to_the_best_and_end_with_false_alarms(evaluation: RegionEvaluation) -> None:
    examples = choose_examples(evaluation, 12)
    assert len(examples) == 12
    is_test = examples["path"].str.startswith("test/")
    assert is_test.all()
    ill = examples[examples["label"] == "PNEUMONIA"]["average_precision"]
    everything = evaluation.images[(evaluation.images["split"] == "test") & (evaluation.images["label"] == "PNEUMONIA")]
    assert ill.is_monotonic_increasing
    assert (ill.min(), ill.max()) == (everything["average_precision"].min(), everything["average_precision"].max())
    alarms = examples[examples["label"] == "NORMAL"]
    assert 2 <= len(alarms) <= 3
    assert alarms["highest_score"].is_monotonic_decreasing
    normal = evaluation.images[(evaluation.images["split"] == "test") & (evaluation.images["label"] == "NORMAL")]
    assert alarms["highest_score"].max() == normal["highest_score"].max()
    assert (alarms["average_precision"] == 0).all()
    assert len(choose_examples(evaluation, 1)) == 1
    assert len(choose_examples(evaluation, 10_000)) <= len(everything) * 2


def unmarked(boxes: list[tuple[object, ...]]) -> dict[str, object]:
    images = pd.DataFrame(
        [
            ("a.png", "p", "PNEUMONIA", 200, 100), ("b.png", "q", "PNEUMONIA", 100, 100),
            ("c.png", "r", "NORMAL", 300, 300), ("d.png", "s", "NORMAL", 50, 80),
        ],
        columns=["path", "group", "label", "height", "width"],
    )  # fmt: skip
    point = RegionOperatingPoint(0.5, 1.0, None, 0.3)
    predictions = pd.DataFrame(boxes, columns=PREDICTION_COLUMNS)
    return evaluate_without_boxes(images, predictions, point, resamples=50, seed=0)


def test_images_without_marked_opacities_tell_auroc_and_the_area_in_the_lungs() -> None:
    inside = ("a.png", 40, 80, 20, 40, 0.9)  # in the middle of the lung field
    corner = ("b.png", 0, 0, 10, 10, 0.8)
    weak = ("c.png", 0, 0, 300, 300, 0.4)  # below the threshold
    result = unmarked([inside, corner, weak])
    # The area in shares of the image: 0.2 x 0.2 inside and 0.1 x 0.1 outside.
    assert result["area_in_lungs"]["value"] == pytest.approx(0.8, abs=0.01)
    assert result["auroc"]["value"] == 1.0
    assert (result["images"], result["patients"], result["boxes"]) == (4, 4, 2)
    assert result["area_in_lungs_by_chance"] == pytest.approx(lung_field(1000, 1000).mean(), abs=0.005)
    whole = unmarked([("a.png", 0, 0, 100, 200, 0.9)])
    assert whole["area_in_lungs"]["value"] == pytest.approx(result["area_in_lungs_by_chance"])
    assert whole["auroc"]["value"] == 0.75
    assert np.isnan(unmarked([weak])["area_in_lungs"]["value"])


def test_the_settings_are_reported(evaluation: RegionEvaluation) -> None:
    assert evaluation.report["rules"] == {
        "iou_thresholds": list(IOU_THRESHOLDS), "iou_threshold": 0.4, "false_positives": 0.5,
        "box_scales": [0.8, 0.9, 1.0, 1.1],
    }  # fmt: skip
    images, boxes = annotated_images(100)
    methods = {DETECTOR: RegionMethod("Detector", detected_boxes(images, boxes, noise=0.2))}
    lax, strict = (
        evaluate_regions(images, boxes, methods, PHANTOM_CARD, replace(SETTINGS, iou_threshold=overlap)).report["test"]
        for overlap in (0.3, 0.7)
    )
    lax_entry, strict_entry = (part["methods"][DETECTOR]["all"] for part in (lax, strict))
    assert lax_entry["sensitivity"]["value"] > strict_entry["sensitivity"]["value"]
    assert lax_entry["mean_average_precision"] == strict_entry["mean_average_precision"]
