"""Training of one network: epochs, early stopping, learning-rate schedule, best epoch, resume."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.errors import TrainingError
from cxr.evaluation import metrics
from cxr.training.batches import Batches
from cxr.training.checkpoint import Arrays, Checkpoint, Progress, Saved, arrays_of, assign

log = logging.getLogger(__name__)

OptimizerName = Literal["adam", "nadam", "rmsprop", "sgd"]
Monitor = Literal["loss", "auroc"]

PLATEAU_DELTA = 1e-4
"""Smaller improvements do not count for the learning-rate schedule, as in Keras's ReduceLROnPlateau."""


@dataclass(frozen=True)
class Plan:
    """How a network is trained.

    Attributes:
        optimizer: name of the Keras optimizer.
        learning_rate: rate of the first epoch.
        epochs: most epochs to run.
        monitor: validation figure that decides on the best epoch, early stop and learning rate.
        early_stop_patience: epochs without a better figure before training stops; 0 never stops.
        reduce_lr_patience: epochs without a better figure before the rate is lowered; 0 never lowers it.
        reduce_lr_factor: what the rate is multiplied by.
        min_learning_rate: the rate is never lowered below this.
        stop_at_accuracy: accuracy on train, as seen while training, at which training stops (S3: 0.975); None never.
        seed: seed of weights, order, augmentation and dropout.
    """

    optimizer: OptimizerName
    learning_rate: float
    epochs: int
    monitor: Monitor = "loss"
    early_stop_patience: int = 0
    reduce_lr_patience: int = 0
    reduce_lr_factor: float = 0.1
    min_learning_rate: float = 0.0
    stop_at_accuracy: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Before:
    """What training goes on from when the same network has been trained in another way before.

    Attributes:
        epochs: epochs run before.
        best: monitored figure of the weights that the network has now, NaN if they are untrained.
        best_epoch: epoch that they are from.
    """

    epochs: int = 0
    best: float = float("nan")
    best_epoch: int = 0


@dataclass(frozen=True)
class Result:
    """What training gave.

    Attributes:
        history: one row of figures per epoch: epoch (from 1), loss, accuracy, precision, recall, f1, auroc on
            train as seen while training, the same with ``val_`` on validation, learning_rate, seconds (training
            alone), ended (when the epoch ended, in seconds since 1970).
        best_epoch: epoch (from 1) whose weights the network now has.
        best: monitored figure of that epoch.
        stopped: why training ended before its last epoch, or "".
        train_images: images trained on in all epochs.
        train_seconds: seconds spent training on them, without validation.
    """

    history: list[dict[str, float]]
    best_epoch: int
    best: float
    stopped: str
    train_images: int
    train_seconds: float


def fit(
    model: keras.Model,
    train: Batches,
    validation: Batches,
    plan: Plan,
    *,
    checkpoint: Checkpoint | None = None,
    saved: Saved | None = None,
    before: Before | None = None,
    random_layers: Sequence[Any] | None = None,
    run_id: str | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Result:
    """Train a network and leave it with the weights of its best epoch on validation.

    Order, augmentation and dropout of an epoch follow from seed and number of the epoch, and a checkpoint holds
    weights, optimizer and schedule: a run that was killed and resumed ends with the same weights as one that was
    not.

    Args:
        model: untrained network; it is compiled here.
        train: shuffled batches.
        validation: batches in fixed order, without augmentation.
        plan: how to train.
        checkpoint: where to keep the state after each epoch; None keeps none.
        saved: state to go on from; None starts anew.
        before: epochs that were run in another way before; the network keeps their weights unless an epoch is
            better.
        random_layers: layers in whose order random numbers are dealt, so that a part of a network draws what
            the whole would; the network's own if None.
        run_id: tracking run to note in checkpoints, so that a resumed training goes on logging there.
        on_epoch: called with the row of figures after each epoch.

    Returns:
        The history and the best epoch.

    Raises:
        TrainingError: if the loss is no longer a number.
    """
    before = before or Before()
    _compile(model, plan)
    if saved:
        saved.restore(model)
        progress, best = saved.progress, saved.best
        log.info("training goes on after epoch %d", progress.epoch)
    else:
        progress = Progress(plan.learning_rate, before.epochs, before.best, before.best_epoch)
        best = arrays_of(model)
    progress.run_id = run_id
    last = before.epochs + plan.epochs
    done = (progress.epoch - before.epochs) * len(train)
    layers = model.layers if random_layers is None else random_layers
    with tqdm(total=plan.epochs * len(train), initial=done, unit="batch", disable=None) as bar:
        while progress.epoch < last and not progress.stopped:
            bar.set_description(f"{model.name} epoch {progress.epoch + 1}/{last}")
            _reseed(layers, plan.seed, progress.epoch)
            row = _epoch(model, train, validation, progress, bar)
            best = _judge(model, best, progress, plan, row)
            if on_epoch:
                on_epoch(row)
            if checkpoint:
                checkpoint.save(model, best, progress)
    assign(model, best)
    seconds = sum(row["seconds"] for row in progress.history)
    images = len(progress.history) * train.count
    return Result(progress.history, progress.best_epoch, progress.best, progress.stopped, images, seconds)


def probabilities(model: keras.Model, batches: Batches) -> NDArray[np.float64]:
    """Probabilities of pneumonia while training; float32 precision, not calibrated.

    Args:
        model: the network.
        batches: batches in fixed order.

    Returns:
        ``(images,)`` float64 in [0, 1].
    """
    answers = [np.asarray(model.predict_on_batch(batches[number][0]))[:, -1] for number in range(len(batches))]
    return np.concatenate(answers).astype(np.float64)


def _epoch(model: keras.Model, train: Batches, validation: Batches, progress: Progress, bar: Any) -> dict[str, float]:
    """Train one epoch and measure it; the row is added to the history."""
    number = progress.epoch + 1
    train.epoch = progress.epoch
    model.optimizer.learning_rate.assign(progress.learning_rate)
    started = time.perf_counter()
    advance = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: bar.update(1))
    logs = model.fit(train, epochs=1, verbose=0, shuffle=False, callbacks=[advance]).history
    seconds = time.perf_counter() - started
    row = {"epoch": float(number)}
    row |= {name: float(logs[name][-1]) for name in ("loss", "accuracy", "precision", "recall", "auroc")}
    row["f1"] = _f1(row["precision"], row["recall"])
    if not np.isfinite(row["loss"]):
        raise TrainingError(
            f"expected a finite loss, received loss={row['loss']} in epoch={number}; "
            f"lower the learning rate (learning_rate={progress.learning_rate:g})"
        )
    row |= {f"val_{name}": value for name, value in _figures(model, validation).items()}
    row |= {"learning_rate": progress.learning_rate, "seconds": seconds, "ended": round(time.time(), 3)}
    progress.history.append(row)
    progress.epoch = number
    bar.set_postfix_str(f"val loss {row['val_loss']:.4f}, val auroc {row['val_auroc']:.4f}")
    log.info(
        "%s: loss %.4f, auroc %.4f; validation loss %.4f, auroc %.4f (%.0f s)",
        bar.desc.removesuffix(": "), row["loss"], row["auroc"], row["val_loss"], row["val_auroc"], seconds,
    )  # fmt: skip
    return row


def _judge(model: keras.Model, best: Arrays, progress: Progress, plan: Plan, row: dict[str, float]) -> Arrays:
    """Note whether the epoch was the best, and whether to lower the rate or stop."""
    value = row[f"val_{plan.monitor}"]
    sign = -1.0 if plan.monitor == "loss" else 1.0
    if not np.isfinite(progress.best) or sign * value > sign * progress.best:
        progress.best, progress.best_epoch, progress.since_best = value, progress.epoch, 0
        best = arrays_of(model)
    else:
        progress.since_best += 1
    if not np.isfinite(progress.plateau_best) or sign * value > sign * progress.plateau_best + PLATEAU_DELTA:
        progress.plateau_best, progress.since_plateau = value, 0
    else:
        progress.since_plateau += 1
    if plan.reduce_lr_patience and progress.since_plateau >= plan.reduce_lr_patience:
        progress.learning_rate = max(progress.learning_rate * plan.reduce_lr_factor, plan.min_learning_rate)
        progress.since_plateau = 0
    if plan.stop_at_accuracy is not None and row["accuracy"] >= plan.stop_at_accuracy:
        progress.stopped = f"training accuracy reached {plan.stop_at_accuracy:g}"
    if plan.early_stop_patience and progress.since_best >= plan.early_stop_patience:
        progress.stopped = f"no better validation {plan.monitor} for {progress.since_best} epochs"
    return best


def _figures(model: keras.Model, batches: Batches) -> dict[str, float]:
    """Exact figures on images in fixed order, at threshold 0.5."""
    probability = probabilities(model, batches)
    decided = metrics.decision_measures(metrics.confusion(batches.labels, probability, 0.5))
    return {
        "loss": float(metrics.log_loss(batches.labels, probability)),
        "accuracy": float(decided["accuracy"]),
        "precision": float(decided["precision"]),
        "recall": float(decided["sensitivity"]),
        "f1": float(decided["f1"]),
        "auroc": float(metrics.auroc(batches.labels, probability)),
    }


def _compile(model: keras.Model, plan: Plan) -> None:
    optimizers = {
        "adam": keras.optimizers.Adam,
        "nadam": keras.optimizers.Nadam,
        "rmsprop": keras.optimizers.RMSprop,
        "sgd": keras.optimizers.SGD,
    }
    two = model.output_shape[-1] == 2
    model.compile(
        optimizer=optimizers[plan.optimizer](plan.learning_rate),
        loss="categorical_crossentropy" if two else "binary_crossentropy",
        metrics=[
            _of_pneumonia(keras.metrics.BinaryAccuracy)(name="accuracy"),
            _of_pneumonia(keras.metrics.Precision)(name="precision"),
            _of_pneumonia(keras.metrics.Recall)(name="recall"),
            _of_pneumonia(keras.metrics.AUC)(name="auroc"),
        ],
        # Graph compilation of convolutions is slower than oneDNN's kernels on a CPU (benchmarks/training.py).
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    # Variables made while TensorFlow traces the first step would have it trace the step again.
    model.optimizer.build(model.trainable_variables)


def _of_pneumonia(base: type[Any]) -> type[Any]:
    """Metric of the last column, the probability of pneumonia for one output as for two."""

    class OfPneumonia(base):  # type: ignore[misc]  # the base is chosen at run time
        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            return super().update_state(y_true[..., -1:], y_pred[..., -1:], sample_weight)

    return OfPneumonia


def _reseed(layers: Sequence[Any], seed: int, epoch: int) -> None:
    """Give each random layer a state that follows from seed, epoch and place in the network alone."""
    for place, layer in enumerate(layers):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            words = np.random.SeedSequence([seed, epoch, place]).generate_state(2)
            generator.state.assign((words & 0x7FFFFFFF).astype(np.uint32))


def _f1(precision: float, recall: float) -> float:
    total = precision + recall
    return 2 * precision * recall / total if total else float("nan")
