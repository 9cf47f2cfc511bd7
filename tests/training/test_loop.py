"""Training keeps the best epoch, follows its schedule, and resumes after a kill with the same result."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cxr.errors import TrainingError
from cxr.images.recipes import recipe_named
from cxr.models import residual_separable
from cxr.models.networks import build
from cxr.training.batches import Batches
from cxr.training.checkpoint import Checkpoint
from cxr.training.device import evidence, make_deterministic
from cxr.training.loop import Plan, fit, probabilities

RECIPE = recipe_named("s2_resize", size=48)


def patches(count, seed):
    """Noise with a bright patch on the sick: learnable in a few epochs."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 120, (count, 48, 48, 1), dtype=np.uint8)
    labels = np.arange(count) % 2
    images[labels == 1, 10:26, 10:26] += 60
    return images, labels


def sides(architecture="three_block"):
    images, labels = patches(64, 1)
    outputs = 2 if architecture == "residual_separable" else 1
    common = {"batch_size": 16, "outputs": outputs, "seed": 4}
    train = Batches(images[:48], np.arange(48), labels[:48], RECIPE, shuffle=True, **common)
    return train, Batches(images, np.arange(48, 64), labels[48:], RECIPE, **common)


def network(architecture="three_block", dropout=0.3):
    make_deterministic(7)
    return build(architecture, RECIPE.input_shape, dropout=dropout)


class KilledError(Exception):
    """Stands for a kill between two epochs."""


@pytest.mark.parametrize("architecture", ["three_block", "residual_separable"])
def test_resumed_training_ends_with_the_same_weights_as_an_uninterrupted_one(tmp_path, architecture, monkeypatch):
    # One block has every kind of layer that the four of the source have; TensorFlow takes long to trace those.
    monkeypatch.setattr(residual_separable, "BLOCKS", residual_separable.BLOCKS[:1])
    plan = Plan("adam", 1e-3, epochs=4, reduce_lr_patience=1, seed=4)
    whole = network(architecture)
    expected = fit(whole, *sides(architecture), plan)

    checkpoint = Checkpoint(tmp_path / "checkpoints", "same")
    stopped = network(architecture)

    def kill(row):
        if row["epoch"] == 3:  # its checkpoint is not written yet: epoch 3 has to be run again
            raise KilledError

    with pytest.raises(KilledError):
        fit(stopped, *sides(architecture), plan, checkpoint=checkpoint, on_epoch=kill)
    resumed = network(architecture)
    result = fit(resumed, *sides(architecture), plan, checkpoint=checkpoint, saved=checkpoint.find())

    assert result.best_epoch == expected.best_epoch
    assert [row["val_loss"] for row in result.history] == [row["val_loss"] for row in expected.history]
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_checkpoint_of_other_parameters_is_not_used(tmp_path):
    fit(network(), *sides(), Plan("adam", 1e-3, epochs=1), checkpoint=Checkpoint(tmp_path, "these"))
    assert Checkpoint(tmp_path, "these").find() is not None
    assert Checkpoint(tmp_path, "others").find() is None


def test_only_the_last_checkpoint_stays(tmp_path):
    fit(network(), *sides(), Plan("adam", 1e-3, epochs=2), checkpoint=Checkpoint(tmp_path, "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0002"]


def test_network_ends_with_the_weights_of_its_best_epoch():
    model = network()
    train, validation = sides()
    # A rate this high ruins the weights after a few epochs, so that the last epoch is not the best.
    result = fit(model, train, validation, Plan("sgd", 0.5, epochs=6, monitor="loss"))
    best = min(result.history, key=lambda row: row["val_loss"])
    assert result.best_epoch == best["epoch"]
    truth = validation.labels
    probability = np.clip(probabilities(model, validation), 1e-7, 1 - 1e-7)
    loss = -np.mean(truth * np.log(probability) + (1 - truth) * np.log(1 - probability))
    assert loss == pytest.approx(best["val_loss"], rel=1e-5)


def test_early_stop_waits_for_its_patience_and_says_why():
    result = fit(network(), *sides(), Plan("sgd", 1e-12, epochs=30, monitor="auroc", early_stop_patience=3))
    assert len(result.history) == result.best_epoch + 3
    assert "validation auroc" in result.stopped


def test_learning_rate_falls_on_a_plateau_and_not_below_its_floor():
    plan = Plan("sgd", 1e-9, epochs=5, reduce_lr_patience=1, reduce_lr_factor=0.1, min_learning_rate=1e-11)
    rates = [row["learning_rate"] for row in fit(network(), *sides(), plan).history]
    assert rates == pytest.approx([1e-9, 1e-9, 1e-10, 1e-11, 1e-11])


def test_history_holds_every_figure_on_train_and_validation():
    result = fit(network(), *sides(), Plan("adam", 2e-3, epochs=8))
    row = result.history[-1]
    for figure in ("loss", "accuracy", "precision", "recall", "f1", "auroc"):
        assert math.isfinite(row[figure])
        assert math.isfinite(row[f"val_{figure}"])
    assert row["val_auroc"] > 0.9
    assert result.train_images == 8 * 48


def test_loss_that_is_no_number_stops_training_with_advice():
    with pytest.raises(TrainingError, match="lower the learning rate"):
        fit(network(), *sides(), Plan("sgd", 1e30, epochs=3))


def test_evidence_names_device_and_framework():
    found = evidence()
    assert found["kind"] in {"cpu", "gpu"}
    assert found["name"]
    assert found["framework"].split()[0] == found["backend"]
    assert (found["driver"] is None) == (found["kind"] == "cpu")
