from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cxr.errors import MissingInputError
from cxr.files import METADATA_FILE
from cxr.models.metadata import DetectorMetadata, Member, ModelMetadata
from cxr.models.prediction_sets import PredictionSets
from support.model_folders import make_metadata


def test_metadata_is_read_as_it_was_written(tmp_path: Path) -> None:
    metadata = make_metadata(training={"device": {"name": "x", "driver": None}}).with_calibration(1.7, 0.31, "rule")
    metadata.write(tmp_path)
    assert ModelMetadata.read(tmp_path) == metadata
    assert [path.name for path in tmp_path.iterdir()] == [METADATA_FILE]


def test_calibration_makes_new_metadata() -> None:
    raw = make_metadata()
    calibrated = raw.with_calibration(1.7, 0.31, "rule")
    assert not raw.calibrated and raw.temperature is None
    assert calibrated.calibrated and (calibrated.temperature, calibrated.threshold, calibrated.threshold_rule) == (
        1.7,
        0.31,
        "rule",
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature above 0, received temperature="):
        make_metadata().with_calibration(temperature, 0.5, "rule")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_an_impossible_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1, received threshold="):
        make_metadata().with_calibration(1.0, threshold, "rule")


def test_missing_metadata_names_the_step_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"card\.json.*run `cxr train`"):
        ModelMetadata.read(tmp_path)


def test_metadata_with_unknown_or_missing_fields_is_refused(tmp_path: Path) -> None:
    path = make_metadata().write(tmp_path)
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "colour": 1}))
    with pytest.raises(MissingInputError, match="unknown fields colour"):
        ModelMetadata.read(tmp_path)
    path.write_text(json.dumps({key: value for key, value in values.items() if key != "recipe"}))
    with pytest.raises(MissingInputError, match="recipe"):
        ModelMetadata.read(tmp_path)


DETECTOR = DetectorMetadata("efficientnet_lite0", False, "0123456789abcdef", 0.01, 0.3, 20)


def test_a_detector_is_read_as_it_was_written_and_a_classifier_has_no_such_entry(tmp_path: Path) -> None:
    metadata = make_metadata(detector=DETECTOR)
    metadata.write(tmp_path)
    assert ModelMetadata.read(tmp_path) == metadata
    make_metadata().write(tmp_path)
    assert "detector" not in json.loads((tmp_path / METADATA_FILE).read_text())


def test_the_choice_of_boxes_makes_new_metadata_of_a_detector() -> None:
    raw = make_metadata(detector=DETECTOR)
    chosen = raw.with_box_choice(0.4, 0.9, "rule")
    assert raw.threshold is None and raw.detector == DETECTOR
    assert (chosen.threshold, chosen.threshold_rule) == (0.4, "rule")
    assert chosen.detector is not None and chosen.detector.box_scale == 0.9
    assert not chosen.calibrated
    for values in ((-0.1, 1.0), (1.1, 1.0), (0.5, 0.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="scale above 0, received threshold="):
            raw.with_box_choice(*values, "rule")
    with pytest.raises(ValueError, match="metadata of a detector"):
        make_metadata().with_box_choice(0.4, 0.9, "rule")


SETS = PredictionSets(0.95, 0.31, 0.62, 40, 110)


def test_prediction_sets_are_read_as_they_were_written_and_absent_without_them(tmp_path: Path) -> None:
    """An ensemble's card holds those of its members, too; a card from before there were any is read."""
    plain = make_metadata().with_calibration(1.7, 0.31, "rule")
    with_sets = replace(plain, prediction_sets=SETS)
    ensemble = make_metadata("weighted", members=(Member("a", 0.5, with_sets), Member("b", 0.5, plain)))
    for metadata in (with_sets, replace(ensemble, prediction_sets=SETS), ensemble, plain):
        metadata.write(tmp_path)
        assert ModelMetadata.read(tmp_path) == metadata
    assert "prediction_sets" not in (tmp_path / METADATA_FILE).read_text()


def test_another_calibration_leaves_the_prediction_sets_out() -> None:
    metadata = replace(make_metadata(), prediction_sets=SETS)
    assert metadata.with_calibration(1.7, 0.31, "rule").prediction_sets is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coverage", 1.0),
        ("coverage", 0.0),
        ("normal_at_most", -0.1),
        ("pneumonia_at_least", 1.1),
        ("pneumonia_at_least", float("nan")),
        ("normal_images", 0),
    ],
)
def test_impossible_prediction_sets_are_refused(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"received {name}={value!r}"):
        replace(SETS, **{name: value})
    path = replace(make_metadata(), prediction_sets=SETS).write(tmp_path)
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "prediction_sets": {**values["prediction_sets"], name: value}}))
    with pytest.raises(MissingInputError, match=f"received {name}="):
        ModelMetadata.read(tmp_path)
