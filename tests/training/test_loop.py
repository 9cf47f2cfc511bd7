"""Training keeps the best epoch, follows its schedule, and resumes after a kill with the same result."""

from __future__ import annotations

import math
import shutil
import threading
import time

import keras
import numpy as np
import pytest

from cxr.errors import DataError, TrainingError
from cxr.models import residual_separable
from cxr.training.checkpoint import Checkpoint, TrainingProgress, assign_variables, copy_variables
from cxr.training.classification import predict_batches
from cxr.training.device import describe_device
from cxr.training.loop import fit
from support.patch_images import network, on_planes, train_and_task
from support.sweeps import exhaustive
from support.training_settings import training_plan


class KilledError(Exception):
    """Represents a kill between two epochs."""


@pytest.mark.parametrize("architecture", ["shallow", *exhaustive("residual_separable")])
def test_resumed_training_ends_with_the_same_weights_as_an_uninterrupted_one(tmp_path, architecture, monkeypatch):
    # One block has every kind of layer that the four of the source have; TensorFlow takes long to trace those.
    monkeypatch.setattr(residual_separable, "BLOCKS", residual_separable.BLOCKS[:1])
    plan = training_plan("adam", 1e-3, epochs=4, reduce_lr_patience=1, seed=4)
    whole = network(architecture)
    expected = fit(whole, *train_and_task(architecture), plan)

    checkpoint = Checkpoint(tmp_path / "checkpoints", "same")
    stopped = network(architecture)

    def kill(row):
        if row["epoch"] == 3:  # its checkpoint is not written yet: epoch 3 has to be run again
            raise KilledError

    with pytest.raises(KilledError):
        fit(stopped, *train_and_task(architecture), plan, checkpoint=checkpoint, on_epoch=kill)
    resumed = network(architecture)
    result = fit(resumed, *train_and_task(architecture), plan, checkpoint=checkpoint, state=checkpoint.load())

    assert result.best_epoch == expected.best_epoch
    assert [row["val_loss"] for row in result.history] == [row["val_loss"] for row in expected.history]
    for expected_weights, weights in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, expected_weights)


def test_a_checkpoint_is_written_while_the_next_epoch_trains_and_then_whole(tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoints", "same")
    model = network()
    progress = TrainingProgress(1e-3, epoch=1, history=[{"epoch": 1.0}])
    may_write = threading.Event()

    class SlowCheckpoint(Checkpoint):
        def write(self, *arguments):
            assert may_write.wait(60)
            super().write(*arguments)

    expected = copy_variables(model.variables)
    with SlowCheckpoint(checkpoint.folder, "same").writer() as writer:
        writer.save(model, keras.optimizers.SGD(), [], progress)
        # What training does meanwhile is not in the checkpoint.
        assign_variables(model.variables, [array + 1 for array in expected])
        progress.epoch = 2
        progress.history.append({"epoch": 2.0})
        assert checkpoint.load() is None
        may_write.set()
    state = checkpoint.load()
    assert (state.progress.epoch, state.progress.history) == (1, [{"epoch": 1.0}])
    for array, expected_array in zip(state.model, expected, strict=True):
        np.testing.assert_array_equal(array, expected_array)


@pytest.mark.parametrize("epochs", [1, 3], ids=["after the last epoch", "before the next checkpoint"])
def test_a_checkpoint_that_cannot_be_written_ends_the_training_with_its_error(tmp_path, epochs):
    folder = tmp_path / "checkpoints"
    folder.write_text("a file where the folder should be")
    rows = []
    with pytest.raises(OSError, match="checkpoints"):
        fit(
            network(), *train_and_task(), training_plan("adam", 1e-3, epochs=epochs),
            checkpoint=Checkpoint(folder, "x"), on_epoch=rows.append,
        )  # fmt: skip
    assert len(rows) == min(epochs, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_the_share_of_the_time_that_is_not_training_is_known(tmp_path):
    plan = training_plan("adam", 1e-3, epochs=2)
    started = time.perf_counter()
    result = fit(
        network(), *train_and_task(), plan, checkpoint=Checkpoint(tmp_path, "x"), on_epoch=lambda row: time.sleep(0.2)
    )
    assert 0.4 < result.other_seconds < time.perf_counter() - started - result.train_seconds
    assert result.seconds_here == result.train_seconds
    assert result.other_share == pytest.approx(result.other_seconds / (result.other_seconds + result.train_seconds))
    resumed = fit(network(), *train_and_task(), plan, state=Checkpoint(tmp_path, "x").load())
    assert (resumed.seconds_here, resumed.other_share) == (0, None), "no epoch is left"
    assert resumed.train_seconds == result.train_seconds


@pytest.fixture(scope="module")
def trained_for_an_epoch(tmp_path_factory):
    """Folder of the checkpoint of a training with the parameters "these"; read only."""
    folder = tmp_path_factory.mktemp("trained_for_an_epoch")
    fit(network(), *train_and_task(), training_plan("adam", 1e-3, epochs=1), checkpoint=Checkpoint(folder, "these"))
    return folder


def test_checkpoint_of_other_parameters_is_not_used(trained_for_an_epoch):
    assert Checkpoint(trained_for_an_epoch, "these").load() is not None
    assert Checkpoint(trained_for_an_epoch, "others").load() is None


@pytest.mark.parametrize("name", ["state.json", "model.npz"])
def test_a_damaged_checkpoint_is_named_and_stays(trained_for_an_epoch, tmp_path, name):
    shutil.copytree(trained_for_an_epoch, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "epoch-0001" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 128
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"expected a whole checkpoint, received .*epoch-0001 .* remove it"):
        Checkpoint(tmp_path, "these").load()
    assert path.read_bytes() == content


def test_only_the_last_checkpoint_stays(tmp_path):
    fit(network(), *train_and_task(), training_plan("adam", 1e-3, epochs=2), checkpoint=Checkpoint(tmp_path, "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0002"]


def test_network_ends_with_the_weights_of_its_best_epoch():
    model = network()
    train, task = train_and_task()
    # A rate this high ruins the weights after a few epochs, so that the last epoch is not the best.
    result = fit(model, train, task, training_plan("sgd", 0.5, epochs=6, monitor="loss"))
    best = min(result.history, key=lambda row: row["val_loss"])
    assert result.best_epoch == best["epoch"]
    labels = task.validation.labels
    probability = np.clip(predict_batches(on_planes(model), task.validation), 1e-7, 1 - 1e-7)
    loss = -np.mean(labels * np.log(probability) + (1 - labels) * np.log(1 - probability))
    assert loss == pytest.approx(best["val_loss"], rel=1e-5)


def test_early_stop_waits_for_its_patience_and_says_why():
    result = fit(
        network(),
        *train_and_task(),
        training_plan("sgd", 1e-12, epochs=30, monitor="auroc", early_stop_patience=3),
    )
    assert len(result.history) == result.best_epoch + 3
    assert "validation auroc" in result.stopped


def test_learning_rate_falls_on_a_plateau_and_not_below_its_floor():
    plan = training_plan("sgd", 1e-9, epochs=5, reduce_lr_patience=1, reduce_lr_factor=0.1, min_learning_rate=1e-11)
    rates = [row["learning_rate"] for row in fit(network(), *train_and_task(), plan).history]
    assert rates == pytest.approx([1e-9, 1e-9, 1e-10, 1e-11, 1e-11])


def test_history_holds_every_metric_on_train_and_validation():
    result = fit(network(), *train_and_task(), training_plan("adam", 2e-3, epochs=8))
    row = result.history[-1]
    for metric in ("loss", "accuracy", "precision", "recall", "f1", "auroc"):
        assert math.isfinite(row[metric])
        assert math.isfinite(row[f"val_{metric}"])
    assert row["val_auroc"] > 0.9
    assert result.train_images == 8 * 48


def test_a_loss_that_is_not_finite_stops_training_with_advice():
    with pytest.raises(TrainingError, match="lower the learning rate"):
        fit(network(), *train_and_task(), training_plan("sgd", 1e30, epochs=3))


def test_the_device_is_described_with_its_framework():
    device = describe_device()
    assert device["kind"] in {"cpu", "gpu"}
    assert device["name"]
    assert device["framework"].split()[0] == device["backend"]
    assert (device["driver"] is None) == (device["kind"] == "cpu")
