"""One training: the settings, the network, its phases, and the data that each phase reads."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from cxr.errors import ParameterError
from cxr.images.prepared import PreparedImages
from cxr.models.networks import build_network
from cxr.training.batches import Batches
from cxr.training.changed_images import ChangedImages
from cxr.training.checkpoint import Checkpoint, TrainingState, fingerprint_training
from cxr.training.classification import ClassificationTask
from cxr.training.data_parallel import ONE_DEVICE, DeviceGroup
from cxr.training.feeding import choose_steps_per_execution, feed_device
from cxr.training.frozen_activations import store_activations
from cxr.training.frozen_split import split_frozen_part
from cxr.training.loop import PreviousPhase, TrainingResult, fit
from cxr.training.phases import TrainingPhase, plan_phases
from cxr.training.plan import (
    is_stressed,
)
from cxr.training.split_data import SplitData
from cxr.training.training_settings import ClassifierTrainingSettings

log = logging.getLogger(__name__)


class TrainingSession:
    """One training, ready to start or to resume.

    Attributes:
        network: the network; after :meth:`train` with the weights of its best epoch.
        device: the device, as :func:`cxr.training.device.describe_device` gives it.
        devices: the devices that divide each batch among themselves.
        phases: the planned phases.
        run_id: tracking run that a killed training logged to, or None.
    """

    def __init__(
        self,
        settings: ClassifierTrainingSettings,
        prepared: PreparedImages,
        data: SplitData,
        folder: Path,
        *,
        resume: bool,
        devices: DeviceGroup = ONE_DEVICE,
    ) -> None:
        """Build the network and check the settings; nothing that takes long is done yet.

        Args:
            settings: what the network depends on.
            prepared: prepared images.
            data: split of the images.
            folder: where checkpoints and activations are kept until the caller removes it.
            resume: whether to resume from checkpoints of a killed run with the same settings, on any number of devices.
            devices: the devices that divide each batch among themselves.

        Raises:
            ParameterError: if the settings do not suit the network, the recipe or the devices.
            TrainingError: if the processes do not have the same settings and data.
        """
        self.settings = settings
        self.prepared = prepared
        self.data = data
        self.folder = folder
        device = settings.prepare_device()
        self.device, self.batch_size = device.facts, device.batch_size
        self.devices = devices
        uses_gpu_size = device.on_gpu and settings.gpu_batch_size is not None
        devices.check_batch_size("gpu_batch_size" if uses_gpu_size else "batch_size", self.batch_size)
        same = fingerprint_training(settings, prepared.recipe, data, [self.batch_size])
        devices.processes.expect_same(same, "parameters and data")
        with devices.scope():
            self.network = build_network(
                settings.architecture, prepared.recipe.input_shape, dropout=settings.dropout,
                batch_normalisation=settings.batch_normalisation, weights=settings.weights,
            )  # fmt: skip
        factor = settings.rate_factor(self.batch_size)
        self.phases = plan_phases(settings, self.network, factor, phantom=data.dataset.kind == "phantom")
        self.stores_activations = self._stores_activations(on_gpu=device.on_gpu)
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
        log.info("%s: %s", self.network.name, self._describe_batches())
        with self.devices.scope():
            return self._train(run_id, on_epoch)

    def _train(self, run_id: str | None, on_epoch: Callable[[dict[str, float]], None] | None) -> TrainingResult:
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
                steps_per_execution=self._steps_per_execution,
                checkpoint=self._checkpoint(number) if self.devices.processes.is_first else None, state=state,
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
            batch_size=self.batch_size,
            devices=self.devices.count,
        )

    def fingerprint(self) -> str:
        """Compute the digest of everything that this training depends on, but for the last digits.

        Returns:
            Hexadecimal SHA-256; the same for any number of devices.
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
        if not self._resume:
            return None

        def load() -> bytes:
            state = self._checkpoint(number).load()
            return b"" if state is None else state.to_bytes()

        processes = self.devices.processes
        if processes.count == 1:
            return self._checkpoint(number).load()
        # Process 0 may be the only one with the disk that holds the checkpoints.
        content = processes.from_first(load)
        return TrainingState.from_bytes(content) if content else None

    def _stores_activations(self, *, on_gpu: bool) -> bool:
        """Whether activations of frozen layers are kept on disk."""
        settings, processes = self.settings, self.devices.processes
        if all(phase.unfrozen is None for phase in self.phases):
            return False
        if settings.cut == "always" and processes.count > 1:
            raise ParameterError(
                [
                    "expected cut=auto or never for training in several processes, which share no disk, received "
                    f"cut=always, processes={processes.count}; set cut to never"
                ]
            )
        # Images are mixed, activations are not.
        cuts_by_itself = settings.cut == "auto" and not on_gpu and not settings.mixup and processes.count == 1
        return settings.cut == "always" or cuts_by_itself

    def _describe_batches(self) -> str:
        count, processes = self.devices.count, self.devices.processes.count
        if count == 1:
            return f"batches of {self.batch_size} images"
        where = f"{count} devices" if processes == 1 else f"{count} devices of {processes} processes"
        return f"batches of {self.batch_size} images, {self.batch_size // count} on each of {where}"

    @staticmethod
    def _is_finished(state: TrainingState, phase: TrainingPhase, previous: PreviousPhase) -> bool:
        progress = state.progress
        return bool(progress.stopped) or progress.epoch >= previous.epochs + phase.plan.epochs

    def _batches(self) -> tuple[Batches, Batches, Batches | None]:
        """Batches of training and validation, and of validation under changes if the monitor needs them."""
        settings, prepared = self.settings, self.prepared
        common: dict[str, Any] = {
            "batch_size": self.batch_size,
            "devices": self.devices,
            "outputs": self.network.output_shape[-1],
            "seed": settings.seed,
        }
        is_phantom = self.data.dataset.kind == "phantom"
        paths, labels = self.data.images_of("train", most=settings.phantom_train_images if is_phantom else None)
        train = Batches(
            prepared.images, prepared.rows(paths), labels, prepared.recipe, shuffle=True,
            augmentation=settings.random_changes(), balance=settings.balance,
            mixup=settings.mixup, **common,
        )  # fmt: skip
        paths, labels = self.data.images_of("validation")
        rows = prepared.rows(paths)
        validation, changed = (
            Batches(images, rows, labels, prepared.recipe, balance="none", mixup=0.0, **common)
            for images in (prepared.images, ChangedImages(prepared.images))
        )
        return train, validation, changed if is_stressed(settings.monitor) else None
