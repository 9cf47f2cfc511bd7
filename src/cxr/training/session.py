"""One training: the settings, the network, its phases, and the data that each phase reads."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras

from cxr.errors import ParameterError
from cxr.images.prepared import PreparedImages
from cxr.models.networks import build_network
from cxr.models.pretrained import NO_WEIGHTS, backbone_layers
from cxr.training.augmentation import Augmentation
from cxr.training.batches import Balance, Batches
from cxr.training.changed_images import ChangedImages
from cxr.training.checkpoint import Checkpoint, TrainingState, fingerprint_training
from cxr.training.classification import ClassificationTask
from cxr.training.device import Precision, prepare_device
from cxr.training.feeding import OnDevice, choose_steps_per_execution, feed_device
from cxr.training.frozen_activations import store_activations
from cxr.training.frozen_split import split_frozen_part
from cxr.training.loop import PreviousPhase, TrainingResult, fit
from cxr.training.plan import Monitor, OptimizerName, Schedule, TrainingPlan, is_stressed
from cxr.training.split_data import SplitData

log = logging.getLogger(__name__)

CutMode = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that a trained network depends on beside its images; the step ``train`` describes each value."""

    architecture: str
    optimizer: OptimizerName
    learning_rate: float
    weight_decay: float
    schedule: Schedule
    warmup_epochs: float
    average_decay: float
    label_smoothing: float
    mixup: float
    batch_size: int
    epochs: int
    phantom_epochs: int
    phantom_train_images: int | None
    monitor: Monitor
    early_stop_patience: int
    reduce_lr_patience: int
    reduce_lr_factor: float
    min_learning_rate: float
    stop_at_accuracy: float | None
    dropout: float | None
    batch_normalisation: bool | None
    weights: str
    freeze_backbone: bool
    unfrozen_layers: int
    fine_tune_epochs: int
    fine_tune_optimizer: OptimizerName
    fine_tune_learning_rate: float
    cut: CutMode
    augmented_views: int
    gpu_batch_size: int | None
    gpu_precision: Precision
    on_device: OnDevice
    balance: Balance
    augmentation: dict[str, float | bool]
    seed: int


@dataclass(frozen=True)
class TrainingPhase:
    """Epochs in which the same layers are trained.

    Attributes:
        name: which layers are trained, for the log.
        plan: how they are trained.
        unfrozen: number of layers of the backbone that are trained, counted from its end; None for all.
    """

    name: str
    plan: TrainingPlan
    unfrozen: int | None

    def freeze(self, network: keras.Model) -> None:
        """Set which layers training changes. Frozen batch normalisation works as in prediction.

        Args:
            network: the network.
        """
        layers = backbone_layers(network)
        first_trained = 0 if self.unfrozen is None else len(layers) - self.unfrozen
        for position, layer in enumerate(layers):
            layer.trainable = position >= first_trained


class TrainingSession:
    """One training, ready to start or to resume.

    Attributes:
        network: the network; after :meth:`train` with the weights of its best epoch.
        device: the device, as :func:`cxr.training.device.describe_device` gives it.
        phases: the planned phases.
        run_id: tracking run that a killed training logged to, or None.
    """

    def __init__(
        self, settings: TrainingSettings, prepared: PreparedImages, data: SplitData, folder: Path, *, resume: bool
    ) -> None:
        """Build the network and check the settings; nothing that takes long is done yet.

        Args:
            settings: what the network depends on.
            prepared: prepared images.
            data: split of the images.
            folder: where checkpoints and activations are kept until the caller removes it.
            resume: whether to resume from checkpoints of a killed run with the same settings.

        Raises:
            ParameterError: if the settings do not suit the network or the recipe.
        """
        self.settings = settings
        self.prepared = prepared
        self.data = data
        self.folder = folder
        device = prepare_device(
            settings.seed, batch_size=settings.batch_size, gpu_batch_size=settings.gpu_batch_size,
            gpu_precision=settings.gpu_precision,
        )  # fmt: skip
        self.device, self.batch_size = device.facts, device.batch_size
        # Images are mixed, activations are not.
        cuts_by_itself = settings.cut == "auto" and not device.on_gpu and not settings.mixup
        self.stores_activations = settings.cut == "always" or cuts_by_itself
        self.network = build_network(
            settings.architecture, prepared.recipe.input_shape, dropout=settings.dropout,
            batch_normalisation=settings.batch_normalisation, weights=settings.weights,
        )  # fmt: skip
        self.phases = plan_phases(settings, self.network, phantom=data.dataset.kind == "phantom")
        self._train_batches, self._validation_batches, self._changed_batches = self._batches()
        feed_device(self._train_batches, settings.on_device, on_gpu=device.on_gpu)
        self._steps_per_execution = choose_steps_per_execution(self.network, on_gpu=device.on_gpu)
        self._resume = resume
        states = [state for number in range(len(self.phases)) if (state := self._saved_state(number)) is not None]
        self.run_id: str | None = states[-1].progress.run_id if states else None

    def train(
        self, *, run_id: str | None = None, on_epoch: Callable[[dict[str, float]], None] | None = None
    ) -> TrainingResult:
        """Train phase after phase.

        A phase begins with the best weights so far and keeps them unless one of its epochs is better on validation.

        Args:
            run_id: tracking run to note in checkpoints.
            on_epoch: called with the row of metrics after each epoch; an exception that it raises ends the training.

        Returns:
            The history of all phases and the best epoch.
        """
        results: list[TrainingResult] = []
        previous = PreviousPhase()
        activation_seconds = 0.0
        for number, phase in enumerate(self.phases):
            phase.freeze(self.network)
            parts = split_frozen_part(self.network) if self.stores_activations else None
            trained_part = parts.trained if parts else self.network
            state = self._saved_state(number)
            train, validation, changed = self._train_batches, self._validation_batches, self._changed_batches
            is_finished = state is not None and self._is_finished(state, phase, previous)
            if parts and not is_finished:
                folder = self.folder / f"activations-{self._digest(number)[:16]}"
                train = store_activations(parts.frozen, train, self.settings.augmented_views, folder / "train")
                validation = store_activations(parts.frozen, validation, 0, folder / "validation")
                activation_seconds += train.seconds + validation.seconds
                if changed is not None:
                    changed = store_activations(parts.frozen, changed, 0, folder / "changed_validation")
                    activation_seconds += changed.seconds
            log.info("%s: %s", self.network.name, phase.name)
            result = fit(
                trained_part, train, ClassificationTask(validation, changed), phase.plan,
                steps_per_execution=self._steps_per_execution, checkpoint=self._checkpoint(number), state=state,
                previous=previous, random_layers=self.network.layers, run_id=run_id, on_epoch=on_epoch,
            )  # fmt: skip
            if parts and not is_finished:
                shutil.rmtree(folder, ignore_errors=True)
            results.append(result)
            previous = PreviousPhase(previous.epochs + len(result.history), result.best, result.best_epoch)
        return TrainingResult(
            [row for result in results for row in result.history],
            previous.best_epoch,
            previous.best,
            "; ".join(result.stopped for result in results if result.stopped),
            train_images=sum(result.train_images for result in results),
            train_seconds=activation_seconds + sum(result.train_seconds for result in results),
            seconds_here=sum(result.seconds_here for result in results),
            other_seconds=sum(result.other_seconds for result in results),
            steps_per_execution=max(result.steps_per_execution for result in results),
            on_device=any(result.on_device for result in results),
        )

    def fingerprint(self) -> str:
        """Compute the digest of everything that this training depends on.

        Returns:
            Hexadecimal SHA-256.
        """
        environment = [
            self.batch_size,
            self.stores_activations,
            keras.backend.backend(),
            keras.config.dtype_policy().name,
        ]
        return fingerprint_training(self.settings, self.prepared.recipe, self.data, [environment])

    def _digest(self, number: int) -> str:
        return hashlib.sha256(f"{self.fingerprint()} {number}".encode()).hexdigest()

    def _checkpoint(self, number: int) -> Checkpoint:
        return Checkpoint(self.folder / f"phase-{number}", self._digest(number))

    def _saved_state(self, number: int) -> TrainingState | None:
        return self._checkpoint(number).load() if self._resume else None

    @staticmethod
    def _is_finished(state: TrainingState, phase: TrainingPhase, previous: PreviousPhase) -> bool:
        progress = state.progress
        return bool(progress.stopped) or progress.epoch >= previous.epochs + phase.plan.epochs

    def _batches(self) -> tuple[Batches, Batches, Batches | None]:
        """Batches of training and validation, and of validation under changes if the monitor needs them."""
        settings, prepared = self.settings, self.prepared
        common: dict[str, Any] = {
            "batch_size": self.batch_size,
            "outputs": self.network.output_shape[-1],
            "seed": settings.seed,
        }
        augmentation = Augmentation(**settings.augmentation)  # type: ignore[arg-type]  # bounds are checked there
        is_phantom = self.data.dataset.kind == "phantom"
        paths, labels = self.data.images_of("train", most=settings.phantom_train_images if is_phantom else None)
        train = Batches(
            prepared.images, prepared.rows(paths), labels, prepared.recipe, shuffle=True,
            augmentation=augmentation if augmentation.is_active else None, balance=settings.balance,
            mixup=settings.mixup, **common,
        )  # fmt: skip
        paths, labels = self.data.images_of("validation")
        rows = prepared.rows(paths)
        validation, changed = (
            Batches(images, rows, labels, prepared.recipe, balance="none", mixup=0.0, **common)
            for images in (prepared.images, ChangedImages(prepared.images))
        )
        return train, validation, changed if is_stressed(settings.monitor) else None


def plan_phases(settings: TrainingSettings, network: keras.Model, *, phantom: bool) -> list[TrainingPhase]:
    """Plan the phases of a training.

    A network with pretrained weights is trained with its backbone frozen, and then, if ``fine_tune_epochs`` is above
    0, with the last layers of the backbone unfrozen. Any other network is trained as a whole, and so is every network
    if ``freeze_backbone`` is False.

    Args:
        settings: what the network depends on.
        network: the network.
        phantom: whether the images are drawn phantoms, which have their own number of epochs.

    Returns:
        One or two phases.

    Raises:
        ParameterError: if more layers are to be unfrozen than the backbone has, or none for fine-tuning.
    """
    max_epochs = settings.phantom_epochs if phantom else 10_000
    shared = {name: getattr(settings, name) for name in TrainingPlan.__dataclass_fields__}
    plan = TrainingPlan(**shared | {"epochs": min(settings.epochs, max_epochs)})
    layers = backbone_layers(network)
    problems = unfreezing_problems(settings, len(layers))
    if problems:
        raise ParameterError(problems)
    if not layers or settings.weights == NO_WEIGHTS or not settings.freeze_backbone:
        return [TrainingPhase("all layers are trained", plan, None)]
    phases = [TrainingPhase("the backbone is frozen", plan, 0)]
    if settings.fine_tune_epochs:
        fine_tuning = replace(
            plan,
            optimizer=settings.fine_tune_optimizer,
            learning_rate=settings.fine_tune_learning_rate,
            epochs=min(settings.fine_tune_epochs, max_epochs),
        )
        count = settings.unfrozen_layers
        phases.append(TrainingPhase(f"the last {count} layers of the backbone are trained too", fine_tuning, count))
    return phases


def unfreezing_problems(settings: TrainingSettings, layers: int) -> list[str]:
    """Find what is wrong with the layers to unfreeze.

    Args:
        settings: what the network depends on.
        layers: number of layers of the backbone.

    Returns:
        One sentence per problem.
    """
    problems = []
    count, epochs, name = settings.unfrozen_layers, settings.fine_tune_epochs, settings.architecture
    if count > layers:
        problems.append(
            f"expected unfrozen_layers of at most {layers}, the layers of the backbone of {name}, "
            f"received unfrozen_layers={count}"
        )
    if epochs and not count:
        problems.append(
            f"expected unfrozen_layers of at least 1 for fine-tuning {name}, received unfrozen_layers=0, "
            f"fine_tune_epochs={epochs}; set one of the two"
        )
    return problems
