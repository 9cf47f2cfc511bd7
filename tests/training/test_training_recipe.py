"""The parts of the training recipe do what they say, alone and together, and resume to the bit."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest

from cxr.errors import ParameterError
from cxr.models import residual_separable
from cxr.steps.train import Train
from cxr.training.augmentation import Augmentation
from cxr.training.checkpoint import Checkpoint
from cxr.training.classification import predict_batches
from cxr.training.compilation import learning_rate_schedule
from cxr.training.loop import fit
from cxr.training.weight_average import AveragedNetwork
from cxr.tuning.space import Choices, Range, combination_problems_in
from support.kept_checkpoints import keep_checkpoint
from support.other_backend import run_on_backend
from support.patch_images import network, on_planes, train_and_task
from support.training_settings import training_plan

EVERYTHING = {
    "weight_decay": 0.05, "schedule": "cosine", "warmup_epochs": 1.0, "average_decay": 0.9, "label_smoothing": 0.1,
    "seed": 4,
}  # fmt: skip
"""All parts of the recipe that belong to the plan."""
AUGMENTATION = Augmentation(horizontal_flip=True, rotation=10, gamma=0.3, contrast=0.3, brightness=0.3, blur=1)


@pytest.fixture
def one_block(monkeypatch):
    """The residual network with one block: it has all kinds of layers, and TensorFlow takes long to trace four."""
    monkeypatch.setattr(residual_separable, "BLOCKS", residual_separable.BLOCKS[:1])


@pytest.mark.usefixtures("one_block")
def test_weight_decay_shrinks_kernels_and_leaves_biases_and_normalisation():
    model = network("residual_separable")
    for weight in model.trainable_variables:
        weight.assign(np.ones(weight.shape))
    plan = training_plan("adamw", 0.1, epochs=1, weight_decay=0.5)
    train_and_task("residual_separable")[1].compile(model, plan, None)
    model.optimizer.apply([np.zeros(weight.shape, "float32") for weight in model.trainable_variables])
    for weight in model.trainable_variables:
        is_kernel = "kernel" in weight.name
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), 0.95 if is_kernel else 1.0, err_msg=weight.path)
    assert {"bias", "gamma", "beta"} <= {weight.name for weight in model.trainable_variables}


def test_the_rate_rises_by_equal_steps_and_falls_along_half_a_cosine():
    plan = training_plan("adam", 1e-3, epochs=5, warmup_epochs=1.0, schedule="cosine")
    schedule = learning_rate_schedule(plan, 10)
    rates = np.array([float(schedule(step)) for step in range(51)])
    np.testing.assert_allclose(rates[:11], 1e-3 * np.arange(1, 12) / 11, rtol=1e-5)
    np.testing.assert_allclose(rates[10:], 5e-4 * (1 + np.cos(np.pi * np.arange(41) / 40)), atol=1e-9)


def test_warm_up_alone_ends_at_a_constant_rate():
    schedule = learning_rate_schedule(training_plan("adam", 1e-3, epochs=5, warmup_epochs=0.5), 10)
    assert [float(schedule(step)) for step in (5, 20, 49)] == pytest.approx([1e-3] * 3)
    assert float(schedule(1)) == pytest.approx(2e-3 / 6)


def test_training_follows_the_schedule_and_reports_the_rate_of_the_last_step():
    plan = training_plan("sgd", 1e-2, epochs=4, schedule="cosine", warmup_epochs=1.0)
    changed = network(dropout=0.0)
    result = fit(changed, *train_and_task(), plan)
    rates = [row["learning_rate"] for row in result.history]
    expected = [1e-2 * 3 / 4, *(5e-3 * (1 + np.cos(np.pi * step / 9)) for step in (2, 5, 8))]
    assert rates == pytest.approx(expected, rel=1e-5)

    crawling, start = network(dropout=0.0), network(dropout=0.0).get_weights()
    fit(crawling, *train_and_task(), replace(plan, epochs=1, warmup_epochs=1e6))
    changes = [
        max(np.abs(after - before).max() for before, after in zip(start, model.get_weights(), strict=True))
        for model in (crawling, changed)
    ]
    assert changes[0] < 1e-6
    assert changes[1] > 1e-4


@pytest.mark.usefixtures("one_block")
def test_validation_measures_the_average_of_all_steps_and_the_network_ends_with_it():
    model = network("residual_separable")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5  # so that nine steps are enough to learn
    weights_of_steps = [model.get_weights()]
    # One batch per epoch: the weights after each step can be seen.
    train, task = train_and_task("residual_separable", batch_size=48)
    plan = training_plan("adam", 1e-2, epochs=9, average_decay=0.4)
    result = fit(model, train, task, plan, on_epoch=lambda row: weights_of_steps.append(model.get_weights()))

    averages = [weights_of_steps[0]]
    for step, weights in enumerate(weights_of_steps[1:], start=1):
        decay = min(0.4, (1 + step) / (10 + step))
        averages.append(
            [decay * average + (1 - decay) * weight for average, weight in zip(averages[-1], weights, strict=True)]
        )
    assert result.best_epoch > 4
    for average, weight in zip(averages[result.best_epoch], model.get_weights(), strict=True):
        np.testing.assert_allclose(weight, average, rtol=1e-4, atol=1e-5)
    assert any("moving_variance" in weight.name for weight in model.weights)
    assert any(
        np.abs(own - average).max() > 1e-2
        for own, average in zip(weights_of_steps[result.best_epoch], model.get_weights(), strict=True)
    ), "the averages must differ from the weights for this test to mean anything"
    probability = np.clip(predict_batches(on_planes(model), task.validation), 1e-7, 1 - 1e-7)
    loss = -np.mean(np.log(np.where(task.validation.labels == 1, probability, 1 - probability)))
    assert loss == pytest.approx(result.best, rel=1e-4)


def test_frozen_layers_are_not_averaged():
    model = network()
    model.layers[1].trainable = False
    assert len(AveragedNetwork(model, 0.9).averages) == len(model.weights) - len(model.layers[1].weights)


@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize("architecture", ["shallow", "residual_separable"])
def test_label_smoothing_spreads_a_share_of_the_label_over_both_classes(architecture):
    model = network(architecture, dropout=0.0)
    train, task = train_and_task(architecture)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False  # so that training predicts as validation does
    probability = predict_batches(on_planes(model), train)
    result = fit(model, train, task, training_plan("sgd", 1e-12, epochs=1, label_smoothing=0.2))
    smoothed = np.where(train.labels[train.order()] == 1, 0.9, 0.1)
    expected = -np.mean(smoothed * np.log(probability) + (1 - smoothed) * np.log(1 - probability))
    assert result.history[0]["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.exhaustive  # test_loop.py resumes a network, test_session.py each phase
@pytest.mark.usefixtures("one_block")
def test_with_everything_on_a_resumed_training_ends_as_an_uninterrupted_one(tmp_path):
    plan = training_plan("adamw", 2e-3, epochs=4, **EVERYTHING)

    def data():
        return train_and_task("residual_separable", augmentation=AUGMENTATION, mixup=0.3)

    whole, resumed = network("residual_separable"), network("residual_separable")
    keep = keep_checkpoint(tmp_path / "whole", tmp_path / "killed", 2)
    expected = fit(whole, *data(), plan, checkpoint=Checkpoint(tmp_path / "whole", "same"), on_epoch=keep)
    checkpoint = Checkpoint(tmp_path / "killed", "same")
    assert checkpoint.load().progress.epoch == 2
    result = fit(resumed, *data(), plan, checkpoint=checkpoint, state=checkpoint.load())

    for row, expected_row in zip(result.history, expected.history, strict=True):
        for key in row.keys() - {"seconds", "ended"}:
            np.testing.assert_equal(row[key], expected_row[key], err_msg=key)
    for expected_weights, weights in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, expected_weights)
    # The checkpoints hold the weights that training goes on with, their averages and the optimizer.
    last = Checkpoint(tmp_path / "whole", "same").load()
    assert len(last.model) > 1.5 * len(last.best)
    for name in ("model", "optimizer", "best"):
        for expected_array, array in zip(getattr(last, name), getattr(checkpoint.load(), name), strict=True):
            np.testing.assert_array_equal(array, expected_array)


OTHER_BACKEND = """
import sys
import numpy as np
from pathlib import Path
from cxr.models import residual_separable
residual_separable.BLOCKS = residual_separable.BLOCKS[:1]
from cxr.training.augmentation import Augmentation
from cxr.training.checkpoint import Checkpoint
from cxr.training.loop import fit
from support.patch_images import network, train_and_task
from support.training_settings import training_plan

folder = Path(sys.argv[1])
plan = training_plan("adamw", 2e-3, epochs=3, **{everything!r})


def train(name, stop_in=None):
    model = network("residual_separable", dropout=0.0)
    with np.load(folder / "start.npz") as stored:
        model.set_weights([stored[key] for key in stored.files])
    checkpoint = Checkpoint(folder / name, "same")

    def kill(row):
        if row["epoch"] == stop_in:
            raise KeyboardInterrupt

    data = train_and_task("residual_separable", augmentation={augmentation!r}, mixup=0.3)
    try:
        result = fit(model, *data, plan, checkpoint=checkpoint, state=checkpoint.load(), on_epoch=kill)
    except KeyboardInterrupt:
        return None
    return [row["val_loss"] for row in result.history], model.get_weights()


losses, weights = train("whole")
assert train("killed", stop_in=2) is None
resumed_losses, resumed_weights = train("killed")
assert resumed_losses == losses
assert all(np.array_equal(*pair) for pair in zip(resumed_weights, weights, strict=True))
np.savez(folder / "end.npz", np.array(losses), *weights)
"""


@pytest.mark.exhaustive  # test_backends trains on another backend, with less of the recipe
@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"))
        for name in ("jax", "torch")
        if name != keras.backend.backend()
    ],
)
def test_another_backend_trains_alike_with_everything_on_and_resumes_to_the_bit(backend: str, tmp_path: Path):
    model = network("residual_separable", dropout=0.0)
    np.savez(tmp_path / "start.npz", *model.get_weights())
    script = OTHER_BACKEND.format(everything=EVERYTHING, augmentation=AUGMENTATION)
    run_on_backend(backend, tmp_path, ["-c", script, str(tmp_path)])
    data = train_and_task("residual_separable", augmentation=AUGMENTATION, mixup=0.3)
    result = fit(model, *data, training_plan("adamw", 2e-3, epochs=3, **EVERYTHING))
    with np.load(tmp_path / "end.npz") as stored:
        losses, *weights = (stored[key] for key in stored.files)
    np.testing.assert_allclose([row["val_loss"] for row in result.history], losses, atol=2e-3)
    for weight, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(weight, other, atol=5e-3)


def train_step(**values):
    required = {"model": "any", "prepared": "prepared", "trained": "trained", "architecture": "mobilenetv2"}
    return Train.build({**required, **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight_decay": 0.05}, "optimizer=adamw.*received optimizer=adam, weight_decay=0.05"),
        (
            {"schedule": "cosine", "reduce_lr_patience": 2},
            "received reduce_lr_patience=2, schedule=cosine",
        ),
        ({"warmup_epochs": 1, "reduce_lr_patience": 2}, "schedule=constant, warmup_epochs=1; use one"),
        ({"warmup_epochs": 5, "epochs": 5}, "warmup_epochs below epochs=5, received warmup_epochs=5"),
        ({"mixup": 0.2, "cut": "always"}, "cut=auto or never with mixup.*received cut=always, mixup=0.2"),
        ({"mixup": 0.2, "stop_at_accuracy": 0.9}, "stop_at_accuracy=null with mixup.*stop_at_accuracy=0.9"),
        ({"freeze_backbone": False, "unfrozen_layers": 3}, "freeze_backbone=false.*received unfrozen_layers=3"),
        ({"freeze_backbone": False, "fine_tune_epochs": 3}, "freeze_backbone=false.*fine_tune_epochs=3"),
        ({"augmentation": {"gama": 0.3}}, "brightness.*gamma.*jpeg_quality.*unknown: gama"),
    ],
)
def test_combinations_that_make_no_sense_are_refused_with_a_reason(values, message):
    with pytest.raises(ParameterError, match=f"(?s){message}"):
        train_step(**values)


def test_the_whole_recipe_is_accepted_for_either_phase():
    train_step(optimizer="adamw", weight_decay=0.05, schedule="cosine", warmup_epochs=1, mixup=0.2, average_decay=0.995,
               label_smoothing=0.1, freeze_backbone=False, mirrored=True, balance="class_weights")  # fmt: skip
    train_step(fine_tune_optimizer="adamw", weight_decay=0.05, fine_tune_epochs=2, unfrozen_layers=5)


def test_a_search_that_would_meet_such_a_combination_is_refused_before_it_begins():
    base = train_step(optimizer="adamw", weight_decay=0.05).model_dump()
    assert combination_problems_in({"weight_decay": Range(0.0, 0.1)}, base) == []
    (problem,) = combination_problems_in({"optimizer": Choices(("adamw", "sgd"))}, base)
    assert "received optimizer=sgd, weight_decay=0.05" in problem
    schedules = {"schedule": Choices(("constant", "cosine")), "reduce_lr_patience": Range(0, 3)}
    (problem,) = combination_problems_in(schedules, base)
    assert "reduce_lr_patience=3, schedule=cosine" in problem
