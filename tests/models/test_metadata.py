from __future__ import annotations

import json
from pathlib import Path

import pytest

from cxr.errors import MissingInputError
from cxr.files import METADATA_FILE
from cxr.models.metadata import ModelCard
from support.model_folders import card


def test_a_card_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    whole = card(training={"device": {"name": "x", "driver": None}}).completed(1.7, 0.31, "rule")
    whole.write(tmp_path)
    assert ModelCard.read(tmp_path) == whole
    assert [path.name for path in tmp_path.iterdir()] == [METADATA_FILE]


def test_completing_leaves_the_first_card_as_it_was() -> None:
    raw = card()
    whole = raw.completed(1.7, 0.31, "rule")
    assert not raw.calibrated and raw.temperature is None
    assert whole.calibrated and (whole.temperature, whole.threshold, whole.threshold_rule) == (
        1.7,
        0.31,
        "rule",
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature above 0, received temperature="):
        card().completed(temperature, 0.5, "rule")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_an_impossible_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1, received threshold="):
        card().completed(1.0, threshold, "rule")


def test_a_missing_card_names_the_step_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"card\.json.*run `cxr train`"):
        ModelCard.read(tmp_path)


def test_a_card_with_unknown_or_missing_fields_is_refused(tmp_path: Path) -> None:
    path = card().write(tmp_path)
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "colour": 1}))
    with pytest.raises(MissingInputError, match="unknown fields colour"):
        ModelCard.read(tmp_path)
    path.write_text(json.dumps({key: value for key, value in values.items() if key != "recipe"}))
    with pytest.raises(MissingInputError, match="recipe"):
        ModelCard.read(tmp_path)
