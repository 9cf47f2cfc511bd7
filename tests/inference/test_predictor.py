from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.errors import DataError, ImageError, MissingInputError
from cxr.evaluation.calibration import apply_temperature, log_odds
from cxr.files import METADATA_FILE
from cxr.images.decoding import decode_image
from cxr.images.reading_options import STRICT
from cxr.images.recipes import to_network_input
from cxr.inference.checked_prediction import check_and_predict
from cxr.inference.predictor import EnsemblePredictor, Prediction, Predictor
from cxr.inference.scoring.batch import ScoringModel, predict_rows
from cxr.inference.scoring.sources import NamedImages
from cxr.models.metadata import Member, ModelMetadata
from cxr.models.prediction_sets import UNCERTAIN, PredictionSets
from support.half_lungs import USED
from support.model_folders import (
    RECIPE,
    TEMPERATURE,
    THRESHOLD,
    ModelFolders,
    make_metadata,
    small_network,
    write_images,
    write_models,
)


@pytest.fixture
def folders(tmp_path: Path) -> ModelFolders:
    return write_models(tmp_path)


@pytest.fixture
def predictor(folders: ModelFolders) -> Predictor:
    return Predictor.load(folders.models / "three_block", ModelMetadata.read(folders.evaluations / "three_block"))


def probabilities_of(predictions: list[Prediction]) -> list[float]:
    return [prediction.probability for prediction in predictions]


def assert_same_probabilities(predictions: list[Prediction], expected: pd.DataFrame) -> None:
    raw = [prediction.raw_probability for prediction in predictions]
    assert probabilities_of(predictions) == pytest.approx(expected["probability"].tolist(), abs=1e-6)
    assert raw == pytest.approx(expected["probability_raw"].tolist(), abs=1e-6)


def test_files_get_the_probability_of_the_evaluation(folders: ModelFolders, predictor: Predictor) -> None:
    evaluated = pd.read_parquet(folders.evaluations / "three_block" / "predictions.parquet").set_index("path")
    expected = evaluated.loc[[path.name for path in folders.images]]
    assert_same_probabilities(predictor.predict(folders.images), expected)
    assert expected["probability_raw"].min() < 0.05 and expected["probability_raw"].max() > 0.95


def test_bytes_paths_and_text_are_the_same_image(folders: ModelFolders, predictor: Predictor) -> None:
    path = folders.images[5]
    assert predictor.predict([path]) == predictor.predict([str(path)]) == predictor.predict([path.read_bytes()])


def test_the_label_follows_the_threshold_on_the_calibrated_probability(
    folders: ModelFolders, predictor: Predictor
) -> None:
    predictions = predictor.predict(folders.images)
    for prediction in predictions:
        assert prediction.label == (PNEUMONIA if prediction.probability >= THRESHOLD else NORMAL)
        assert prediction.threshold == THRESHOLD
        calibrated = float(apply_temperature(prediction.raw_probability, TEMPERATURE))
        assert prediction.probability == pytest.approx(calibrated)
    assert {prediction.label for prediction in predictions} == {NORMAL, PNEUMONIA}


def test_the_label_of_a_model_with_prediction_sets_is_the_class_that_fits_alone(
    folders: ModelFolders, predictor: Predictor
) -> None:
    plain = predictor.predict(folders.images)
    for limits in ((0.165, 0.835), (0.835, 0.165)):
        sets = PredictionSets(0.9, *limits, 24, 24)
        with_sets = Predictor.load(
            folders.models / "three_block", replace(predictor.metadata, prediction_sets=sets)
        ).predict(folders.images)
        assert {prediction.label for prediction in with_sets} == {NORMAL, PNEUMONIA, UNCERTAIN}
        for prediction, plain_prediction in zip(with_sets, plain, strict=True):
            expected = UNCERTAIN if 0.165 < prediction.probability < 0.835 else plain_prediction.label
            assert prediction.label == expected
            assert len(prediction.classes or ()) == 1 or prediction.label == UNCERTAIN
            assert replace(prediction, label=plain_prediction.label, classes=None) == plain_prediction


@pytest.mark.parametrize("outputs", [1, 2])
def test_raw_probabilities_are_the_last_column_of_the_network(tmp_path: Path, outputs: int) -> None:
    model = small_network(3, outputs=outputs)
    predictor = Predictor(model, make_metadata())
    images = predictor.prepare(write_images(tmp_path / "images"))
    expected = np.asarray(model.predict_on_batch(to_network_input(images, RECIPE)))[:, -1]
    assert expected.std() > 0.1
    assert predictor.probabilities(images) == pytest.approx(expected, abs=1e-6)


def test_a_network_with_another_last_layer_is_used_unchanged(tmp_path: Path) -> None:
    import keras

    base = small_network(3)
    model = keras.Model(base.inputs, keras.layers.Rescaling(0.5)(base.output))
    predictor = Predictor(model, make_metadata())
    images = predictor.prepare(write_images(tmp_path / "images", 6))
    expected = 0.5 * Predictor(base, make_metadata()).probabilities(images)
    assert predictor.probabilities(images) == pytest.approx(expected, abs=1e-6)


def test_extreme_probabilities_keep_their_digits(tmp_path: Path) -> None:
    import keras

    model = small_network(0, gain=16.0)
    predictor = Predictor(model, make_metadata())
    images = predictor.prepare(write_images(tmp_path / "images"))
    raw = predictor.probabilities(images)
    features = keras.Model(model.inputs, model.layers[-1].input).predict_on_batch(to_network_input(images, RECIPE))
    kernel, bias = (weight.astype(np.float64) for weight in model.layers[-1].get_weights())
    complement = 1 / (1 + np.exp(np.asarray(features, np.float64) @ kernel + bias))[:, 0]
    extreme = (complement > 1e-9) & (complement < 1e-6)
    assert extreme.sum() > 3, "the network must be extreme for this test to mean anything"
    assert 1 - raw[extreme] == pytest.approx(complement[extreme], rel=1e-3)


def test_probabilities_do_not_depend_on_the_batch_size(folders: ModelFolders, predictor: Predictor) -> None:
    images = predictor.prepare(folders.images)
    in_one_batch = predictor.calibrated(predictor.probabilities(images))
    for batch_size in (1, 5, 32):
        in_batches = predictor.calibrated(predictor.probabilities(images, batch_size=batch_size))
        assert in_batches == pytest.approx(in_one_batch, abs=1e-6)


def mirrored_predictor(folders: ModelFolders) -> Predictor:
    """The model of the folders, with ``mirrored`` in its metadata."""
    metadata = ModelMetadata.read(folders.evaluations / "three_block")
    return Predictor.load(folders.models / "three_block", replace(metadata, mirrored=True))


def test_a_mirrored_prediction_is_the_mean_log_odds_of_an_image_and_its_mirror_image(
    folders: ModelFolders, predictor: Predictor
) -> None:
    images = predictor.prepare(folders.images)
    plain, mirror_image = (log_odds(predictor.probabilities(each)) for each in (images, images[:, :, ::-1]))
    mirrored = mirrored_predictor(folders).probabilities(images)
    assert np.abs(plain - mirror_image).max() > 0.5
    assert log_odds(mirrored) == pytest.approx((plain + mirror_image) / 2, abs=1e-6)


def test_all_ways_to_a_mirrored_prediction_give_the_same(folders: ModelFolders) -> None:
    mirrored, paths = mirrored_predictor(folders), folders.images[:9]
    images = mirrored.prepare(paths)
    expected = mirrored.calibrated(mirrored.probabilities(images))
    turned = mirrored.calibrated(mirrored.probabilities(images[:, :, ::-1]))
    assert turned == pytest.approx(expected, abs=1e-6)
    assert probabilities_of(mirrored.predict(paths)) == pytest.approx(expected, abs=1e-6)
    checked = check_and_predict(mirrored, None, [decode_image(path.read_bytes()) for path in paths])
    assert [result.prediction.probability for result in checked if result.prediction] == pytest.approx(
        expected, abs=1e-6
    )
    source = NamedImages([str(path) for path in paths])
    rows = predict_rows(source, source.files, ScoringModel(mirrored), options=STRICT, workers=None, batch_size=4)
    assert [row.probability for row in rows] == pytest.approx(expected, abs=1e-6)
    entry = Member("three_block", 1.0, mirrored.metadata)
    ensemble = EnsemblePredictor([mirrored], make_metadata("e", members=(entry,)).with_calibration(1.0, 0.5, "rule"))
    assert probabilities_of(ensemble.predict(paths)) == pytest.approx(expected, abs=1e-6)


def test_metadata_written_before_there_was_mirroring_predicts_plainly(
    folders: ModelFolders, predictor: Predictor
) -> None:
    trained = folders.models / "three_block"
    values = json.loads((trained / METADATA_FILE).read_text())
    del values["mirrored"]
    (trained / METADATA_FILE).write_text(json.dumps(values))
    older = Predictor.load(trained)
    assert older.metadata.mirrored is False
    images = predictor.prepare(folders.images[:5])
    assert older.probabilities(images) == pytest.approx(predictor.probabilities(images), abs=1e-12)


def test_no_images_give_no_predictions(folders: ModelFolders, predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    for model in (predictor, mirrored_predictor(folders)):
        assert model.probabilities(np.empty((0, 16, 16, 1), np.uint8)).shape == (0,)


def test_a_broken_image_is_named_and_gets_no_prediction(
    folders: ModelFolders, predictor: Predictor, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(folders.images[0].read_bytes()[:200])
    with pytest.raises(ImageError, match=r"broken\.png") as raised:
        predictor.predict([folders.images[1], broken])
    assert raised.value.problem == "truncated"
    with pytest.raises(ImageError, match=r"image 0 \(12 bytes\)"):
        predictor.predict([b"not an image"])
    with pytest.raises(ImageError, match=r"unreadable: .*absent\.png"):
        predictor.predict([tmp_path / "absent.png"])


def test_an_uncalibrated_model_gives_raw_probabilities_and_no_labels(folders: ModelFolders) -> None:
    predictor = Predictor.load(folders.models / "three_block")
    assert predictor.probabilities(predictor.prepare(folders.images[:2])).shape == (2,)
    with pytest.raises(MissingInputError, match=r"temperature=None.*run `cxr evaluate`"):
        predictor.predict(folders.images[:1])


def test_a_folder_without_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"model\.keras.*run `cxr train`"):
        Predictor.load(tmp_path)


def test_a_network_that_carries_code_is_not_loaded(tmp_path: Path) -> None:
    import keras

    image = keras.Input(RECIPE.input_shape)
    x = keras.layers.Lambda(lambda value: value * 2)(image)
    x = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(x))
    keras.Model(image, x).save(tmp_path / "model.keras")
    make_metadata().write(tmp_path)
    with pytest.raises(DataError, match=r"(?i)that Keras loads in safe mode, received .*lambda"):
        Predictor.load(tmp_path)


def test_an_ensemble_predicts_as_in_its_evaluation(half_lungs: tuple[ModelFolders, Path]) -> None:
    folders, folder = half_lungs
    predictor = Predictor.load(folder / "model")
    assert isinstance(predictor, EnsemblePredictor)
    assert [member.metadata.model for member in predictor.members] == USED
    assert len({member.recipe.size for member in predictor.members}) == 2, "recipes must differ"
    evaluated = pd.read_parquet(folder / "evaluation" / "predictions.parquet").set_index("path")
    expected = evaluated.loc[[path.name for path in folders.images]]
    predictions = predictor.predict(folders.images)
    assert_same_probabilities(predictions, expected)
    assert_same_probabilities(
        [predictor.predict([path.read_bytes()])[0] for path in folders.images[:8]], expected.iloc[:8]
    )
    threshold = predictor.metadata.threshold
    assert {(each.threshold, each.label == PNEUMONIA, each.probability >= threshold) for each in predictions} == {
        (threshold, True, True),
        (threshold, False, False),
    }
    assert expected["probability"].min() < 0.1 and expected["probability"].max() > 0.9


def test_an_ensemble_scores_many_files_as_it_predicts_few(half_lungs: tuple[ModelFolders, Path]) -> None:
    folders, folder = half_lungs
    ensemble = Predictor.load(folder / "model")
    source = NamedImages([str(path) for path in folders.images[:10]])
    rows = predict_rows(source, source.files, ScoringModel(ensemble), options=STRICT, workers=None, batch_size=4)
    expected = probabilities_of(ensemble.predict(folders.images[:10]))
    assert [row.probability for row in rows] == pytest.approx(expected, abs=1e-6)


def test_an_ensemble_with_prediction_sets_says_uncertain_whatever_its_members_have(
    half_lungs: tuple[ModelFolders, Path],
) -> None:
    folders, folder = half_lungs
    metadata = ModelMetadata.read(folder / "model")
    ensemble = Predictor.load(
        folder / "model", replace(metadata, prediction_sets=PredictionSets(0.9, 0.3, 0.7, 30, 30))
    )
    predictions = ensemble.predict(folders.images)
    uncertain = [0.3 < prediction.probability < 0.7 for prediction in predictions]
    assert [prediction.label == UNCERTAIN for prediction in predictions] == uncertain
    assert 0 < sum(uncertain) < len(uncertain)


def test_members_that_share_a_recipe_are_pooled_like_others(half_lungs: tuple[ModelFolders, Path]) -> None:
    folders, _ = half_lungs
    single = Predictor.load(folders.models / "left", ModelMetadata.read(folders.evaluations / "left"))
    twins = (Member("left", 0.5, single.metadata), Member("twin", 0.5, single.metadata))
    both = EnsemblePredictor(
        [single, single], make_metadata("weighted", members=twins).with_calibration(1.0, 0.5, "rule")
    )
    expected = probabilities_of(single.predict(folders.images[:9]))
    assert probabilities_of(both.predict(folders.images[:9])) == pytest.approx(expected)


def test_an_ensemble_names_a_broken_image_and_a_missing_network(
    half_lungs: tuple[ModelFolders, Path], tmp_path: Path
) -> None:
    _, folder = half_lungs
    with pytest.raises(ImageError, match=r"image 0 \(12 bytes\)"):
        Predictor.load(folder / "model").predict([b"not an image"])
    shutil.copytree(folder / "model", tmp_path / "model")
    (tmp_path / "model" / "members" / "right" / "model.keras").unlink()
    with pytest.raises(MissingInputError, match=r"members/right/model\.keras"):
        Predictor.load(tmp_path / "model")


def test_an_ensemble_takes_no_prepared_images(half_lungs: tuple[ModelFolders, Path]) -> None:
    folders, folder = half_lungs
    predictor = Predictor.load(folder / "model")
    with pytest.raises(DataError, match="single network for prepare, received the ensemble weighted of left, right"):
        predictor.prepare(folders.images[:1])
    with pytest.raises(DataError, match="use predict, or one of its members"):
        predictor.probabilities(np.zeros((1, 16, 16, 1), np.uint8))
