"""The training loop of one network: epochs, early stopping, learning-rate schedule, best epoch, resume."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from cxr.errors import TrainingError
from cxr.training.batches import Batches
from cxr.training.checkpoint import (
    Arrays,
    Checkpoint,
    TrainingProgress,
    TrainingState,
    assign_variables,
    copy_variables,
)
from cxr.training.compilation import learning_rate_schedule
from cxr.training.data_parallel import DividedInputNetwork
from cxr.training.plan import TrainingPlan, higher_is_better
from cxr.training.prepared_input import PreparedInputNetwork
from cxr.training.read_ahead import ReadAhead
from cxr.training.task import TrainingTask
from cxr.training.weight_average import AveragedNetwork

log = logging.getLogger(__name__)

PLATEAU_DELTA = 1e-4
"""Smaller improvements do not count for the learning-rate schedule, as in Keras's ReduceLROnPlateau."""


@dataclass(frozen=True)
class PreviousPhase:
    """What an earlier training phase of the same network has reached.

    Attributes:
        epochs: number of epochs run before.
        best: monitored metric of the weights that the network has now, NaN if they are untrained.
        best_epoch: epoch that those weights are from.
    """

    epochs: int = 0
    best: float = float("nan")
    best_epoch: int = 0


@dataclass(frozen=True)
class TrainingResult:
    """What training has reached.

    Attributes:
        history: one row of metrics per epoch: epoch (from 1), loss and other metrics of the task on the training images
            as measured during the epoch, its metrics of validation with ``val_``, learning_rate (of the last step),
            seconds (training alone), devices (how many trained), ended (when the epoch ended, in seconds since 1970).
        best_epoch: epoch (from 1) whose weights the network now has.
        best: monitored metric of that epoch.
        stopped: why training ended before its last epoch, or "".
        train_images: number of images trained on in all epochs.
        train_seconds: seconds spent training on them, without validation.
        seconds_here: the part of them that this process spent; a killed process spent the rest.
        other_seconds: seconds of the epochs of this process without training: validation, bookkeeping, and waiting for
            a checkpoint.
        steps_per_execution: batches that one call of the compiled step trains on.
        on_device: whether all training images lay on the device.
        batch_size: images per batch, of all devices together.
        devices: number of devices that trained in this process's epochs.
    """

    history: list[dict[str, float]]
    best_epoch: int
    best: float
    stopped: str
    train_images: int
    train_seconds: float
    seconds_here: float
    other_seconds: float
    steps_per_execution: int
    on_device: bool
    batch_size: int
    devices: int

    @property
    def other_share(self) -> float | None:
        """Share of the epochs' time that is not training; None if this process ran no epoch."""
        seconds = self.seconds_here + self.other_seconds
        return self.other_seconds / seconds if seconds else None


def fit(
    model: keras.Model,
    train: Batches,
    task: TrainingTask,
    plan: TrainingPlan,
    *,
    steps_per_execution: int = 1,
    checkpoint: Checkpoint | None = None,
    state: TrainingState | None = None,
    previous: PreviousPhase | None = None,
    random_layers: Sequence[Any] | None = None,
    run_id: str | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> TrainingResult:
    """Train a network. At the end it has the weights of its best epoch on validation.

    Order, augmentation and dropout of an epoch follow from the seed and the number of the epoch, and a checkpoint
    holds weights, their averages, optimizer and schedule. A run that was killed and resumed therefore ends with the
    same weights as one that was not.

    Args:
        model: untrained network; it is compiled here.
        train: shuffled batches.
        task: what the network is trained for: its loss, its metrics and its validation.
        plan: how to train.
        steps_per_execution: batches that one call of the compiled step trains on; the result does not depend on it.
        checkpoint: where to keep the state after each epoch; None keeps none.
        state: state to resume from; None starts anew.
        previous: epochs of an earlier phase; the network keeps their weights unless an epoch is better.
        random_layers: layers whose position decides their random numbers, so that a part of a network draws the same
            numbers as the whole; None takes the layers of the network itself.
        run_id: tracking run to note in checkpoints, so that a resumed training logs to the same run.
        on_epoch: called with the row of metrics after each epoch.

    Returns:
        The history and the best epoch.

    Raises:
        TrainingError: if the loss is no longer a finite number.
    """
    previous = previous or PreviousPhase()
    trained = AveragedNetwork(model, plan.average_decay) if plan.average_decay else model
    schedule = learning_rate_schedule(plan, len(train))
    devices = train.devices
    network_class = PreparedInputNetwork if devices.count == 1 else DividedInputNetwork
    on_planes = network_class(trained, train.recipe, train.device_images(), train.prepare_targets)
    task.compile(on_planes, plan, schedule)
    on_planes.steps_per_execution = min(steps_per_execution, len(train))
    if state:
        state.restore(trained, on_planes.optimizer)
        progress, best = state.progress, state.best
        log.info("training goes on after epoch %d%s", progress.epoch, _describe_change(progress, devices.count))
    else:
        progress = TrainingProgress(plan.learning_rate, previous.epochs, previous.best, previous.best_epoch)
        best = copy_variables(model.variables)
    progress.run_id = run_id
    last_epoch = previous.epochs + plan.epochs
    epochs_before = len(progress.history)
    finished_batches = (progress.epoch - previous.epochs) * len(train)
    layers = model.layers if random_layers is None else random_layers
    started = time.perf_counter()
    with (
        tqdm(total=plan.epochs * len(train), initial=finished_batches, unit="batch", disable=None) as bar,
        ReadAhead(train) as batches,
        checkpoint.writer() if checkpoint else nullcontext() as writer,
    ):
        data = batches.for_fit()
        while progress.epoch < last_epoch and not progress.stopped:
            bar.set_description(f"{model.name} epoch {progress.epoch + 1}/{last_epoch}")
            _reseed(layers, plan.seed, progress.epoch)
            if schedule is None:
                learning_rate = progress.learning_rate
                on_planes.optimizer.learning_rate.assign(learning_rate)
            else:
                last_step = (progress.epoch + 1 - previous.epochs) * len(train) - 1
                learning_rate = float(keras.ops.convert_to_numpy(schedule(last_step)))
            train.epoch = progress.epoch
            row, seconds = _train_epoch(on_planes, data, task, progress, learning_rate, bar)
            with trained.averages_as_weights() if plan.average_decay else nullcontext():
                measured = task.validation_metrics(on_planes)
                row |= {f"val_{name}": value for name, value in measured.items()}
                row |= {"learning_rate": learning_rate, "seconds": seconds, "devices": devices.count}
                row |= {"ended": round(time.time(), 3)}
                # All processes decide from the same numbers: their processors may round differently.
                row = json.loads(devices.processes.from_first(json.dumps(row).encode))
                _show(row, task.shown, bar)
                progress.history.append(row)
                progress.epoch += 1
                best = _update_progress(model, best, progress, plan, row)
            if on_epoch:
                on_epoch(row)
            if writer:
                writer.save(trained, on_planes.optimizer, best, progress)
    seconds_here = sum(row["seconds"] for row in progress.history[epochs_before:])
    other_seconds = time.perf_counter() - started - seconds_here if len(progress.history) > epochs_before else 0.0
    assign_variables(model.variables, best)
    return TrainingResult(
        progress.history, progress.best_epoch, progress.best, progress.stopped,
        train_images=len(progress.history) * train.count,
        train_seconds=sum(row["seconds"] for row in progress.history),
        seconds_here=seconds_here,
        other_seconds=other_seconds,
        steps_per_execution=on_planes.steps_per_execution,
        on_device=train.stays_on_device,
        batch_size=train.batch_size,
        devices=devices.count,
    )  # fmt: skip


def _train_epoch(
    model: keras.Model,
    data: Any,
    task: TrainingTask,
    progress: TrainingProgress,
    learning_rate: float,
    bar: Any,
) -> tuple[dict[str, float], float]:
    """Train one epoch. Returns the metrics on the training images, and the seconds that it took."""
    epoch = progress.epoch + 1
    started = time.perf_counter()
    first_batch = bar.n
    advance_bar = keras.callbacks.LambdaCallback(
        # The last call of an epoch may train on fewer batches than the others.
        on_train_batch_end=lambda batch, logs: bar.update(first_batch + min(batch + 1, len(data)) - bar.n)
    )
    logs = model.fit(data, epochs=1, verbose=0, shuffle=False, callbacks=[advance_bar]).history
    seconds = time.perf_counter() - started
    row = {"epoch": float(epoch)}
    row |= task.training_metrics({name: float(values[-1]) for name, values in logs.items()})
    if not np.isfinite(row["loss"]):
        raise TrainingError(
            f"expected a finite loss, received loss={row['loss']} in {epoch=}; "
            f"lower the learning rate (learning_rate={learning_rate:g})"
        )
    return row, seconds


def _describe_change(progress: TrainingProgress, devices: int) -> str:
    """Say that the devices are not those of the last epoch, which rounding shows."""
    before = int(progress.history[-1]["devices"])
    return "" if before == devices else f", with devices={devices} after devices={before}: the last digits will differ"


def _show(row: dict[str, float], metrics: Sequence[str], bar: Any) -> None:
    """Show metrics of an epoch in the progress bar and in the log."""
    words = {name: name.replace("_", " ") for name in metrics}
    bar.set_postfix_str(", ".join(f"val {words[name]} {row[f'val_{name}']:.4f}" for name in metrics))
    log.info(
        "%s: %s; validation %s (%.0f s)",
        bar.desc.removesuffix(": "),
        ", ".join(f"{words[name]} {row[name]:.4f}" for name in metrics if name in row),
        ", ".join(f"{words[name]} {row[f'val_{name}']:.4f}" for name in metrics),
        row["seconds"],
    )


def _update_progress(
    model: keras.Model, best: Arrays, progress: TrainingProgress, plan: TrainingPlan, row: dict[str, float]
) -> Arrays:
    """Note whether the epoch was the best, and whether to lower the rate or stop. Returns the best weights."""
    value = row[f"val_{plan.monitor}"]
    sign = 1.0 if higher_is_better(plan.monitor) else -1.0
    if not np.isfinite(progress.best) or sign * value > sign * progress.best:
        progress.best, progress.best_epoch, progress.since_best = value, progress.epoch, 0
        best = copy_variables(model.variables)
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
        progress.stopped = f"no better validation {plan.monitor.replace('_', ' ')} for {progress.since_best} epochs"
    return best


def _reseed(layers: Sequence[Any], seed: int, epoch: int) -> None:
    """Set each random layer to a state that follows from seed, epoch and position in the network alone."""
    if keras.backend.backend() == "torch":
        import torch

        # Keras's dropout draws from the generator of torch itself, which no checkpoint holds.
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))
    for position, layer in enumerate(layers):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            state = np.random.SeedSequence([seed, epoch, position]).generate_state(2)
            generator.state.assign((state & 0x7FFFFFFF).astype(np.uint32))
