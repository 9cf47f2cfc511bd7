"""The CSV of the page: the columns of `cxr predict`, and no text that a spreadsheet would execute."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cxr.app.prediction_table import escape_formula, to_csv, to_frame
from cxr.app.texts import format_label
from cxr.app.uploads import ImageOutcome, UploadedImage
from cxr.inference.checked_prediction import PredictionResult
from cxr.inference.predictor import Prediction
from cxr.inference.reference.refusals import Refusal
from cxr.inference.scoring.table import SCHEMA

SERVED = SimpleNamespace(version="3", alias="champion", metadata=SimpleNamespace(model="three_block"))


def uploaded(name: str) -> UploadedImage:
    return UploadedImage(name, name, bytes)


PREDICTED = ImageOutcome(
    uploaded("=HYPERLINK(1).png"),
    PredictionResult(Prediction(0.7, "PNEUMONIA", 0.4, 0.8)),
    sha256="ab",
    width=40,
    height=30,
    preview=b"x",
)
REFUSED = ImageOutcome(
    uploaded("leg.png"),
    PredictionResult(None, Refusal("no_chest_film", "a leg")),
    sha256="cd",
    width=40,
    height=30,
    preview=b"x",
)
BROKEN = ImageOutcome(uploaded("cut.png"), problem="It is cut.", error="truncated: it ends early", sha256="ef")
OUTCOMES = [PREDICTED, REFUSED, BROKEN]


def rows(threshold: float) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(OUTCOMES, SERVED, threshold))))


def test_the_csv_has_the_columns_of_cxr_predict():
    assert list(rows(0.5)[0]) == SCHEMA.names


def test_a_row_names_file_prediction_and_version():
    assert rows(0.5)[0] == {
        "path": "'=HYPERLINK(1).png", "label": "PNEUMONIA", "probability": "0.7", "threshold": "0.5",
        "version": "3", "alias": "champion", "model": "three_block", "error": "", "warning": "", "sha256": "ab",
        "width": "40", "height": "30",
    }  # fmt: skip


def test_the_label_follows_the_threshold():
    assert [rows(threshold)[0]["label"] for threshold in (0.7, 0.701)] == ["PNEUMONIA", "NORMAL"]


def test_the_label_of_a_model_with_prediction_sets_does_not_follow_the_threshold():
    for classes, label in ((("NORMAL",), "NORMAL"), ((), "UNCERTAIN"), (("NORMAL", "PNEUMONIA"), "UNCERTAIN")):
        result = PredictionResult(Prediction(0.7, label, 0.4, 0.8, classes))
        outcome = replace(PREDICTED, result=result)
        for threshold in (0.4, 0.9):
            (row,) = csv.DictReader(io.StringIO(to_csv([outcome], SERVED, threshold)))
            assert (row["label"], row["probability"], row["threshold"]) == (label, "0.7", str(threshold))
        assert to_frame([outcome], 0.4)["Label"].tolist() == [format_label(label)]
    assert format_label("UNCERTAIN") == "◆ UNCERTAIN"


def test_without_a_prediction_label_probability_and_threshold_are_empty():
    for row, error in zip(rows(0.5)[1:], ("no_chest_film: a leg", "truncated: it ends early"), strict=True):
        assert (row["label"], row["probability"], row["threshold"], row["error"]) == ("", "", "", error)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_text_that_could_be_a_formula_is_escaped(text):
    assert escape_formula(text) == f"'{text}"


def test_other_texts_and_numbers_stay_as_they_are():
    assert [escape_formula(value) for value in ("a=1.png", -0.5, None, "")] == ["a=1.png", -0.5, None, ""]


def test_the_table_says_why_an_image_has_no_prediction():
    table = to_frame(OUTCOMES, 0.5)
    assert list(table["Label"]) == ["▲ PNEUMONIA", "no answer", "no answer"]
    assert list(table["Problem"]) == ["", "No answer: a leg.", "It is cut."]
    assert table["Probability"].isna().tolist() == [False, True, True]
