"""Slices: which image belongs to which, figures as scikit-learn computes them, the worst one, and wrong columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from cxr.errors import DataError, ParameterError
from cxr.evaluation.evaluate import Evaluation
from cxr.evaluation.slices import SLICE_MEASURES, assign_slices, describe_too_small, measure_slices, slice_title
from support.simulated_predictions import evaluated, predictions

SEED = 20


def tables(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A manifest, and patients.csv as it is read: all text, empty where nothing is known."""
    generator = np.random.default_rng(SEED)
    count = len(rows)
    manifest = rows[["path", "subtype"]].assign(
        width=generator.integers(400, 700, count),
        height=300,
        mean=generator.normal(110, 15, count),
        grey=pd.array(generator.random(count) < 0.5, dtype="boolean"),
        series=pd.array(["IM", pd.NA] * (count // 2), dtype="string"),
    )
    patients = pd.DataFrame(
        {
            "path": rows["path"],
            "patient": rows["patient"],
            "sex": generator.choice(["F", " M ", "", "N/A"], count),
            "age": generator.integers(1, 90, count).astype(str),
            "site": generator.choice(["1", "2", "10"], count),
        }
    )
    return manifest, patients


def assign(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return assign_slices(rows, *tables(rows), columns)


@pytest.fixture(scope="module")
def with_slices() -> Evaluation:
    table = assign(predictions(600), "subtype", "sex", "age")
    return evaluated(table, resamples=100, slices=["subtype", "sex", "age"], slice_min_patients=10)


def test_text_has_a_slice_per_value_and_a_missing_one_is_unknown() -> None:
    rows = predictions()
    assigned = assign(rows, "sex", "series", "grey", "site")
    assert list(assigned["slice.sex"].cat.categories) == ["F", "M", "unknown"]
    sex = tables(rows)[1]["sex"].str.strip()
    assert (assigned["slice.sex"].astype(str) == sex.replace({"": "unknown", "N/A": "unknown"})).all()
    assert assigned["slice.series"].astype(str).tolist() == ["IM", "unknown"] * (len(rows) // 2)
    assert list(assigned["slice.grey"].cat.categories) == ["no", "yes"]
    assert list(assigned["slice.site"].cat.categories) == ["1", "2", "10"], "few numbers, in their order"
    assert set(assigned) - set(rows) == {"slice.sex", "slice.series", "slice.grey", "slice.site"}


def test_numbers_are_cut_into_thirds_of_the_validation_images_alone() -> None:
    rows = predictions()
    manifest, patients = tables(rows)
    is_validation = (rows["split"] == "validation").to_numpy()
    assigned = assign_slices(rows, manifest, patients, ["brightness", "size", "age"])
    for column, values in (("brightness", manifest["mean"]), ("size", manifest["width"] * manifest["height"])):
        slices = assigned[f"slice.{column}"]
        low, high = (
            float(text.replace(",", ""))
            for text in re.findall(r"[\d,.]+", slices.cat.categories[1])  # "LOW to HIGH"
        )
        expected = np.select([values <= low, values <= high], [f"up to {low:,g}", f"{low:,g} to {high:,g}"], "")
        expected = np.where(expected == "", f"above {high:,g}", expected)
        assert (slices.astype(str) == expected).all(), column
        shares = slices[is_validation].value_counts(normalize=True)
        assert shares.min() > 0.3, (column, shares)
    bright_test = manifest.assign(mean=manifest["mean"].where(is_validation, manifest["mean"] + 1000))
    other = assign_slices(rows, bright_test, patients, ["brightness"])["slice.brightness"]
    assert list(other.cat.categories) == list(assigned["slice.brightness"].cat.categories)
    assert set(other[~is_validation]) == {other.cat.categories[-1]}


def test_numbers_that_are_nearly_all_equal_have_fewer_slices() -> None:
    rows = predictions()
    manifest, _ = tables(rows)
    values = np.where(np.arange(len(rows)) % 5 == 0, np.arange(len(rows)), 7.0)
    slices = assign_slices(rows, manifest.assign(exposure=values), None, ["exposure"])["slice.exposure"]
    assert list(slices.cat.categories) == ["up to 7", "above 7"]
    only_test = np.where(rows["split"] == "test", np.arange(len(rows)), np.nan)
    slices = assign_slices(rows, manifest.assign(exposure=only_test), None, ["exposure"])["slice.exposure"]
    assert list(slices.cat.categories) == ["known", "unknown"], "validation knows no limits"


def test_figures_are_those_of_scikit_learn_with_intervals_around_them(with_slices: Evaluation) -> None:
    threshold = with_slices.operating_point.threshold
    for split in ("validation", "test"):
        rows = with_slices.predictions[with_slices.predictions["split"] == split]
        slices = with_slices.report[split]["slices"]
        assert len(slices["measured"]) >= 8 and not slices["too_small"]
        for entry in slices["measured"]:
            part = rows[rows[f"slice.{entry['column']}"] == entry["slice"]]
            labels, called = part["label"] == "PNEUMONIA", part["probability"] >= threshold
            assert (entry["images"], entry["patients"]) == (len(part), part["group"].nunique())
            assert (entry["normal"], entry["pneumonia"]) == ((~labels).sum(), labels.sum())
            if labels.any():
                assert entry["sensitivity"]["value"] == pytest.approx(recall_score(labels, called))
                assert entry["sensitivity"]["low"] <= entry["sensitivity"]["value"] <= entry["sensitivity"]["high"]
            else:
                assert np.isnan(list(entry["sensitivity"].values())).all()
            if not labels.all():
                assert entry["specificity"]["value"] == pytest.approx(recall_score(~labels, ~called))
            if labels.nunique() == 2:
                assert entry["auroc"]["value"] == pytest.approx(roc_auc_score(labels, part["probability"]))
                assert entry["auroc"]["low"] < entry["auroc"]["value"] < entry["auroc"]["high"]
            else:
                assert np.isnan(entry["auroc"]["value"])


def test_the_worst_slice_has_the_lowest_sensitivity(with_slices: Evaluation) -> None:
    test = with_slices.report["test"]["slices"]
    sensitivities = {slice_title(entry): entry["sensitivity"]["value"] for entry in test["measured"]}
    assert "subtype: normal" in sensitivities and np.isnan(sensitivities["subtype: normal"])
    lowest = min(sensitivities, key=lambda title: np.nan_to_num(sensitivities[title], nan=2))
    assert slice_title(test["worst"]) == lowest == "subtype: virus"
    assert with_slices.summary()["test_worst_slice_sensitivity"] == sensitivities[lowest]


def ward(name: str, patients: int, missed: int, images_per_patient: int = 1) -> pd.DataFrame:
    """Images with pneumonia of a ward; those of the first patients are missed at 0.5."""
    numbers = np.repeat(np.arange(patients), images_per_patient)
    return pd.DataFrame(
        {
            "slice.ward": name,
            "group": [f"{name}{number}" for number in numbers],
            "label": "PNEUMONIA",
            "probability": np.where(numbers < missed, 0.1, 0.9),
        }
    )


def measure_wards(*wards: pd.DataFrame) -> dict[str, Any]:
    table = pd.concat(wards, ignore_index=True)
    table["slice.ward"] = table["slice.ward"].astype("category")
    return measure_slices(table, 0.5, ["ward"], min_patients=10, resamples=200, seed=SEED)


def test_the_measured_sensitivity_decides_and_the_interval_only_between_equal_ones() -> None:
    large, small, better = ward("A", 200, 40), ward("B", 20, 4), ward("C", 20, 3)
    slices = measure_wards(large, better)
    first, second = slices["measured"]
    assert first["sensitivity"]["low"] > second["sensitivity"]["low"]
    assert slices["worst"] == first, "0.8 of many patients is worse than 0.85 of few"
    slices = measure_wards(large, small)
    first, second = slices["measured"]
    assert first["sensitivity"]["value"] == second["sensitivity"]["value"] == 0.8
    assert slices["worst"] == second


def test_many_images_of_few_patients_are_too_small() -> None:
    slices = measure_wards(ward("A", 10, 2), ward("B", 9, 2, images_per_patient=10))
    assert [entry["slice"] for entry in slices["measured"]] == ["A"]
    assert [(entry["images"], entry["patients"]) for entry in slices["too_small"]] == [(90, 9)]


def test_a_figure_needs_enough_patients_of_its_class_and_a_slice_without_figures_is_only_named() -> None:
    table = predictions(400)
    in_b = (table["subtype"] != "normal") & (table["patient"].isin(sorted(set(table["patient"]))[:40]))
    rare = table.index % 97 == 0
    manifest = table[["path"]].assign(scanner=np.select([rare, in_b], ["rare", "B"], "A"))
    assigned = assign_slices(table, manifest, None, ["scanner"])
    test = evaluated(assigned, resamples=100, slices=["scanner"], slice_min_patients=10).report["test"]["slices"]
    measured = {entry["slice"]: entry for entry in test["measured"]}
    assert set(measured) == {"A", "B"}
    assert measured["B"]["normal"] == 0 and np.isnan(measured["B"]["specificity"]["value"])
    assert np.isfinite([measured["A"][name]["value"] for name in SLICE_MEASURES]).all()
    (small,) = test["too_small"]
    assert small["patients"] < 10 and set(small) == {"column", "slice", "images", "patients", "normal", "pneumonia"}
    assert describe_too_small([small]) == f"scanner: rare ({small['images']})"
    many = evaluated(assigned, resamples=100, slices=["scanner"], slice_min_patients=1000)
    assert many.report["test"]["slices"]["worst"] is None and not many.report["test"]["slices"]["measured"]
    assert np.isnan(many.summary()["test_worst_slice_sensitivity"])


def test_without_slices_nothing_is_added_and_with_them_nothing_else_changes(with_slices: Evaluation) -> None:
    plain = evaluated(predictions(600), resamples=100)
    assert "slice" not in str(plain.report) + str(plain.summary()) + str(list(plain.predictions))
    summary, report = with_slices.summary(), dict(with_slices.report)
    del summary["test_worst_slice_sensitivity"]
    assert report.pop("slices") == {"columns": ["subtype", "sex", "age"], "min_patients": 10}
    for split in ("validation", "test"):
        report[split] = {name: value for name, value in report[split].items() if name != "slices"}
    assert (str(report), summary) == (str(plain.report), plain.summary())
    plain_columns = [name for name in with_slices.predictions if not name.startswith("slice.")]
    pd.testing.assert_frame_equal(with_slices.predictions[plain_columns], plain.predictions)


def test_validation_and_test_have_no_part_in_each_others_figures(with_slices: Evaluation) -> None:
    table = assign(predictions(600), "subtype", "sex", "age")
    is_test = table["split"] == "test"
    table.loc[is_test, "probability_raw"] = 1 - table.loc[is_test, "probability_raw"]
    other = evaluated(table, resamples=100, slices=["subtype", "sex", "age"], slice_min_patients=10)
    assert str(other.report["validation"]) == str(with_slices.report["validation"])
    assert other.report["test"]["slices"] != with_slices.report["test"]["slices"]


Tables = tuple[pd.DataFrame, pd.DataFrame | None]


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        (
            "scanner",
            lambda manifest, patients: (manifest, patients),
            r"columns of subtype, .*sex, age, site, .*scanner",
        ),
        ("sex", lambda manifest, patients: (manifest, None), r"patients\.csv beside the images, and there is none"),
        ("width", lambda manifest, patients: (manifest, patients.assign(width="1")), r"rename that of patients\.csv"),
        ("path", lambda manifest, patients: (manifest, patients), "columns of"),
        ("patient", lambda manifest, patients: (manifest, patients), "columns of"),
        (
            "accession",
            lambda manifest, patients: (manifest, patients.assign(accession=[f"a{row}" for row in patients.index])),
            "at most 50 values, received slices=accession with 400",
        ),
        (
            "sex",
            lambda manifest, patients: (manifest, patients.assign(path="data/" + patients["path"])),
            "correct the paths",
        ),
        ("sex", lambda manifest, patients: (manifest, patients.iloc[:0]), "correct the paths"),
    ],
)
def test_a_column_that_has_no_slices_is_refused_with_the_columns_that_do(
    column: str, change: Callable[..., Tables], message: str
) -> None:
    rows = predictions()
    with pytest.raises(ParameterError, match=message) as caught:
        assign_slices(rows, *change(*tables(rows)), ["subtype", column])
    assert f"slices={column}" in str(caught.value)
    assert assign_slices(rows, *change(*tables(rows)), ["subtype"])["slice.subtype"].notna().all()


def test_predictions_without_the_wanted_slices_are_refused() -> None:
    with pytest.raises(DataError, match=r"slices sex, age, received none of: age; run `cxr evaluate`"):
        evaluated(assign(predictions(), "sex"), slices=["sex", "age"])


def test_odd_text_stays_on_its_line() -> None:
    rows: Any = predictions()
    manifest = rows[["path"]].assign(scanner=["A\n|B\t ", "inf"] * (len(rows) // 2))
    assert list(assign_slices(rows, manifest, None, ["scanner"])["slice.scanner"].cat.categories) == ["A |B", "inf"]
