"""The CSV of the page: the columns of the command, and nothing that a spreadsheet would carry out."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import pytest

from cxr.app.answer_table import frame, harmless, to_csv
from cxr.app.uploads import Film, Outcome
from cxr.inference.answers import Answer
from cxr.inference.predictor import Prediction
from cxr.inference.reference.reference import Refusal
from cxr.inference.scoring.parts import SCHEMA

SERVED = SimpleNamespace(version="3", alias="champion", card=SimpleNamespace(model="three_block"))


def film(name: str) -> Film:
    return Film(name, name, bytes)


ANSWERED = Outcome(
    film("=HYPERLINK(1).png"), Answer(Prediction(0.7, "PNEUMONIA", 0.4, 0.8), None, None), "", "", "ab", 40, 30, b"x"
)
REFUSED = Outcome(film("leg.png"), Answer(None, Refusal("no_chest_film", "a leg"), None), "", "", "cd", 40, 30, b"x")
BROKEN = Outcome(film("cut.png"), None, "It is cut.", "truncated: it ends early", "ef")


def rows(threshold: float) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv([ANSWERED, REFUSED, BROKEN], SERVED, threshold))))


def test_it_has_the_columns_of_the_command():
    assert list(rows(0.5)[0]) == SCHEMA.names


def test_a_row_says_who_answered_what_about_which_file():
    assert rows(0.5)[0] == {
        "path": "'=HYPERLINK(1).png", "label": "PNEUMONIA", "probability": "0.7", "threshold": "0.5",
        "version": "3", "alias": "champion", "model": "three_block", "error": "", "sha256": "ab", "width": "40",
        "height": "30",
    }  # fmt: skip


def test_the_label_follows_the_threshold():
    assert [rows(threshold)[0]["label"] for threshold in (0.7, 0.701)] == ["PNEUMONIA", "NORMAL"]


def test_without_an_answer_label_probability_and_threshold_are_empty():
    for row, error in zip(rows(0.5)[1:], ("no_chest_film: a leg", "truncated: it ends early"), strict=True):
        assert (row["label"], row["probability"], row["threshold"], row["error"]) == ("", "", "", error)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_text_that_could_be_a_formula_is_made_harmless(text):
    assert harmless(text) == f"'{text}"


def test_other_texts_and_numbers_stay_as_they_are():
    assert [harmless(value) for value in ("a=1.png", -0.5, None, "")] == ["a=1.png", -0.5, None, ""]


def test_the_table_says_why_a_film_has_no_answer():
    table = frame([ANSWERED, REFUSED, BROKEN], 0.5)
    assert list(table["Label"]) == ["▲ PNEUMONIA", "no answer", "no answer"]
    assert list(table["Problem"]) == ["", "No answer: a leg.", "It is cut."]
    assert table["Probability"].isna().tolist() == [False, True, True]
