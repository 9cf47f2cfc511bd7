from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.errors import DataError, ImageError, MissingInputError
from cxr.evaluation.calibration import apply_temperature
from cxr.images.recipes import as_input
from cxr.inference.predictor import PooledPredictor, Predictor
from cxr.inference.scoring.files import NamedFiles
from cxr.inference.scoring.rows import rows
from cxr.models.metadata import Member, ModelCard
from support.half_lungs import USED
from support.model_folders import (
    RECIPE,
    TEMPERATURE,
    THRESHOLD,
    Folders,
    card,
    small_network,
    write_images,
    write_models,
)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return write_models(tmp_path)


@pytest.fixture
def predictor(folders: Folders) -> Predictor:
    return Predictor.load(folders.models / "three_block", ModelCard.read(folders.evaluations / "three_block"))


def test_files_get_the_probability_that_the_evaluation_gave_them(folders: Folders, predictor: Predictor) -> None:
    judged = pd.read_parquet(folders.evaluations / "three_block" / "predictions.parquet").set_index("path")
    answers = predictor.predict(folders.images)
    wanted = judged.loc[[path.name for path in folders.images]]
    assert [one.probability for one in answers] == pytest.approx(wanted["probability"].tolist(), abs=1e-6)
    assert [one.raw_probability for one in answers] == pytest.approx(wanted["probability_raw"].tolist(), abs=1e-6)
    assert wanted["probability_raw"].min() < 0.05 and wanted["probability_raw"].max() > 0.95


def test_bytes_paths_and_text_are_the_same_image(folders: Folders, predictor: Predictor) -> None:
    path = folders.images[5]
    assert predictor.predict([path]) == predictor.predict([str(path)]) == predictor.predict([path.read_bytes()])


def test_the_label_follows_the_threshold_on_the_calibrated_probability(folders: Folders, predictor: Predictor) -> None:
    answers = predictor.predict(folders.images)
    for one in answers:
        assert one.label == (PNEUMONIA if one.probability >= THRESHOLD else NORMAL)
        assert one.threshold == THRESHOLD
        assert one.probability == pytest.approx(float(apply_temperature(one.raw_probability, TEMPERATURE)))
    assert {one.label for one in answers} == {NORMAL, PNEUMONIA}


@pytest.mark.parametrize("outputs", [1, 2])
def test_raw_probabilities_are_the_last_column_of_the_network(tmp_path: Path, outputs: int) -> None:
    model = small_network(3, outputs=outputs)
    predictor = Predictor(model, card())
    images = predictor.prepare(write_images(tmp_path / "images"))
    wanted = np.asarray(model.predict_on_batch(as_input(images, RECIPE)))[:, -1]
    assert wanted.std() > 0.1
    assert predictor.probabilities(images) == pytest.approx(wanted, abs=1e-6)


def test_a_network_with_another_ending_is_taken_as_it_is(tmp_path: Path) -> None:
    import keras

    base = small_network(3)
    model = keras.Model(base.inputs, keras.layers.Rescaling(0.5)(base.output))
    predictor = Predictor(model, card())
    images = predictor.prepare(write_images(tmp_path / "images", 6))
    wanted = 0.5 * Predictor(base, card()).probabilities(images)
    assert predictor.probabilities(images) == pytest.approx(wanted, abs=1e-6)


def test_extreme_probabilities_keep_their_digits(tmp_path: Path) -> None:
    import keras

    model = small_network(0, gain=16.0)
    predictor = Predictor(model, card())
    images = predictor.prepare(write_images(tmp_path / "images"))
    raw = predictor.probabilities(images)
    features = keras.Model(model.inputs, model.layers[-1].input).predict_on_batch(as_input(images, RECIPE))
    kernel, bias = (weight.astype(np.float64) for weight in model.layers[-1].get_weights())
    doubt = 1 / (1 + np.exp(np.asarray(features, np.float64) @ kernel + bias))[:, 0]
    extreme = (doubt > 1e-9) & (doubt < 1e-6)
    assert extreme.sum() > 3, "the network must be extreme for this test to mean anything"
    assert 1 - raw[extreme] == pytest.approx(doubt[extreme], rel=1e-3)


def test_answers_do_not_depend_on_the_batch(folders: Folders, predictor: Predictor) -> None:
    images = predictor.prepare(folders.images)
    together = predictor.calibrated(predictor.probabilities(images))
    for batch_size in (1, 5, 32):
        apart = predictor.calibrated(predictor.probabilities(images, batch_size=batch_size))
        assert apart == pytest.approx(together, abs=1e-6)


def test_no_image_gives_no_answer(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert predictor.probabilities(np.empty((0, 16, 16, 1), np.uint8)).shape == (0,)


def test_a_broken_image_is_named_and_never_answered(folders: Folders, predictor: Predictor, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(folders.images[0].read_bytes()[:200])
    with pytest.raises(ImageError, match=r"broken\.png") as caught:
        predictor.predict([folders.images[1], broken])
    assert caught.value.problem == "truncated"
    with pytest.raises(ImageError, match=r"image 0 \(12 bytes\)"):
        predictor.predict([b"not an image"])
    with pytest.raises(ImageError, match=r"unreadable: .*absent\.png"):
        predictor.predict([tmp_path / "absent.png"])


def test_an_uncalibrated_model_gives_raw_probabilities_and_no_labels(folders: Folders) -> None:
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
    card().write(tmp_path)
    with pytest.raises(ValueError, match=r"(?i)unsafe|lambda"):
        Predictor.load(tmp_path)


def test_an_ensemble_answers_as_its_evaluation_did(half_lungs: tuple[Folders, Path]) -> None:
    folders, folder = half_lungs
    predictor = Predictor.load(folder / "model")
    assert isinstance(predictor, PooledPredictor)
    assert [member.card.model for member in predictor.members] == USED
    assert len({member.recipe.size for member in predictor.members}) == 2, "recipes must differ"
    judged = pd.read_parquet(folder / "evaluation" / "predictions.parquet").set_index("path")
    wanted = judged.loc[[path.name for path in folders.images]]
    answers = predictor.predict(folders.images)
    singly = [predictor.predict([path.read_bytes()])[0] for path in folders.images[:8]]
    for given in (answers, singly):
        expected = wanted.iloc[: len(given)]
        assert [one.probability for one in given] == pytest.approx(expected["probability"].tolist(), abs=1e-6)
        assert [one.raw_probability for one in given] == pytest.approx(expected["probability_raw"].tolist(), abs=1e-6)
    threshold = predictor.card.threshold
    assert {(one.threshold, one.label == PNEUMONIA, one.probability >= threshold) for one in answers} == {
        (threshold, True, True),
        (threshold, False, False),
    }
    assert wanted["probability"].min() < 0.1 and wanted["probability"].max() > 0.9


def test_an_ensemble_scores_many_files_as_it_answers_for_few(half_lungs: tuple[Folders, Path]) -> None:
    folders, folder = half_lungs
    pool = Predictor.load(folder / "model")
    files = NamedFiles([str(path) for path in folders.images[:10]])
    found = [row.probability for row in rows(files, files.entries, pool, batch_size=4)]
    assert found == pytest.approx([one.probability for one in pool.predict(folders.images[:10])], abs=1e-6)


def test_members_that_share_a_recipe_are_pooled_like_others(half_lungs: tuple[Folders, Path]) -> None:
    folders, _ = half_lungs
    alone = Predictor.load(folders.models / "left", ModelCard.read(folders.evaluations / "left"))
    twins = (Member("left", 0.5, alone.card), Member("twin", 0.5, alone.card))
    both = PooledPredictor([alone, alone], card("weighted", members=twins).completed(1.0, 0.5, "rule"))
    wanted = [one.probability for one in alone.predict(folders.images[:9])]
    assert [one.probability for one in both.predict(folders.images[:9])] == pytest.approx(wanted)


def test_an_ensemble_names_a_broken_image_and_a_missing_network(
    half_lungs: tuple[Folders, Path], tmp_path: Path
) -> None:
    _, folder = half_lungs
    with pytest.raises(ImageError, match=r"image 0 \(12 bytes\)"):
        Predictor.load(folder / "model").predict([b"not an image"])
    shutil.copytree(folder / "model", tmp_path / "model")
    (tmp_path / "model" / "members" / "right" / "model.keras").unlink()
    with pytest.raises(MissingInputError, match=r"members/right/model\.keras"):
        Predictor.load(tmp_path / "model")


def test_an_ensemble_takes_no_prepared_images(half_lungs: tuple[Folders, Path]) -> None:
    folders, folder = half_lungs
    predictor = Predictor.load(folder / "model")
    with pytest.raises(DataError, match="single network for prepare, received the ensemble weighted of left, right"):
        predictor.prepare(folders.images[:1])
    with pytest.raises(DataError, match="use predict, or one of its members"):
        predictor.probabilities(np.zeros((1, 16, 16, 1), np.uint8))
