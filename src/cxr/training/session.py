"""One training from its settings: the network, its phases, and the data that each of them reads."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import keras

from cxr.errors import ParameterError
from cxr.images.prepared import Prepared
from cxr.models.networks import build
from cxr.models.pretrained import NO_WEIGHTS, backbone_layers
from cxr.training.augmentation import Augmentation
from cxr.training.batches import Balance, Batches
from cxr.training.checkpoint import Checkpoint, Saved
from cxr.training.device import evidence, make_deterministic
from cxr.training.frozen_activations import store
from cxr.training.frozen_split import cut
from cxr.training.loop import Before, Monitor, OptimizerName, Plan, Result, fit
from cxr.training.training_set import SplitData

log = logging.getLogger(__name__)

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]
CutWhen = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Settings:
    """Everything that a trained network depends on beside its images; the step ``train`` describes each value."""

    architecture: str
    optimizer: OptimizerName = "adam"
    learning_rate: float = 1e-3
    batch_size: int = 32
    epochs: int = 30
    phantom_epochs: int = 3
    monitor: Monitor = "loss"
    early_stop_patience: int = 0
    reduce_lr_patience: int = 0
    reduce_lr_factor: float = 0.1
    min_learning_rate: float = 0.0
    stop_at_accuracy: float | None = None
    dropout: float | None = None
    batch_normalisation: bool | None = None
    weights: str = NO_WEIGHTS
    unfrozen_layers: int = 0
    fine_tune_epochs: int = 0
    fine_tune_optimizer: OptimizerName = "adam"
    fine_tune_learning_rate: float = 1e-5
    cut: CutWhen = "auto"
    augmented_views: int = 2
    gpu_batch_size: int | None = None
    gpu_precision: Precision = "float32"
    balance: Balance = "none"
    augmentation: dict[str, float | bool] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Phase:
    """Epochs in which the same layers are trained.

    Attributes:
        name: in words.
        plan: how they are trained.
        unfrozen: layers of the backbone that are trained, counted from its end; None for all.
    """

    name: str
    plan: Plan
    unfrozen: int | None

    def freeze(self, network: keras.Model) -> None:
        """Set which layers of a network training changes; frozen batch normalisation works as in prediction.

        Args:
            network: the network.
        """
        layers = backbone_layers(network)
        first = 0 if self.unfrozen is None else len(layers) - self.unfrozen
        for place, layer in enumerate(layers):
            layer.trainable = place >= first


class Session:
    """One training, ready to start or to go on.

    Attributes:
        network: the network; after :meth:`learn` with the weights of its best epoch.
        device: evidence of the device.
        phases: what will be run.
        run_id: tracking run that a killed training logged to, or None.
    """

    def __init__(
        self, settings: Settings, prepared: Prepared, data: SplitData, folder: Path, *, resume: bool = True
    ) -> None:
        """Build the network and check the settings; nothing long is done yet.

        Args:
            settings: what the network depends on.
            prepared: prepared images.
            data: split of the images.
            folder: where checkpoints and activations are kept until the caller removes it.
            resume: whether to go on from checkpoints of a killed run with the same settings.

        Raises:
            ParameterError: if the settings do not suit the network or the recipe.
        """
        self.settings = settings
        self.prepared = prepared
        self.data = data
        self.folder = folder
        self.device = evidence()
        on_gpu = self.device["kind"] == "gpu"
        keras.config.set_dtype_policy(settings.gpu_precision if on_gpu else "float32")
        make_deterministic(settings.seed)
        self.batch_size = (settings.gpu_batch_size if on_gpu else None) or settings.batch_size
        self.cuts = settings.cut == "always" or (settings.cut == "auto" and not on_gpu)
        self.network = build(
            settings.architecture, prepared.recipe.input_shape, dropout=settings.dropout,
            batch_normalisation=settings.batch_normalisation, weights=settings.weights,
        )  # fmt: skip
        self.phases = phases(settings, self.network, phantom=data.dataset.kind == "phantom")
        self._train, self._validation = self._images()
        saved = [one for one in map(self._saved, range(len(self.phases)) if resume else ()) if one is not None]
        self.run_id: str | None = saved[-1].progress.run_id if saved else None
        self._resume = resume

    def learn(self, *, run_id: str | None = None, on_epoch: Callable[[dict[str, float]], None] | None = None) -> Result:
        """Train, phase after phase.

        A phase begins with the best weights so far and keeps them unless one of its epochs is better on
        validation.

        Args:
            run_id: tracking run to note in checkpoints.
            on_epoch: called with the row of figures after each epoch; what it raises ends the training.

        Returns:
            The history of all phases and the best epoch.
        """
        found: list[Result] = []
        before = Before()
        spent = 0.0
        for number, phase in enumerate(self.phases):
            phase.freeze(self.network)
            parts = cut(self.network) if self.cuts else None
            learner = parts.rest if parts else self.network
            saved = self._saved(number) if self._resume else None
            train, validation = self._train, self._validation
            ended = saved is not None and self._ended(saved, phase, before)
            if parts and not ended:
                folder = self.folder / f"activations-{self._digest(number)[:16]}"
                train = store(parts.frozen, train, self.settings.augmented_views, folder / "train")
                validation = store(parts.frozen, validation, 0, folder / "validation")
                spent += train.seconds + validation.seconds
            log.info("%s: %s", self.network.name, phase.name)
            result = fit(
                learner, train, validation, phase.plan,
                checkpoint=Checkpoint(self._checkpoints(number), self._digest(number)), saved=saved, before=before,
                random_layers=self.network.layers, run_id=run_id, on_epoch=on_epoch,
            )  # fmt: skip
            if parts and not ended:
                shutil.rmtree(folder, ignore_errors=True)
            found.append(result)
            before = Before(before.epochs + len(result.history), result.best, result.best_epoch)
        return Result(
            [row for result in found for row in result.history],
            before.best_epoch,
            before.best,
            "; ".join(result.stopped for result in found if result.stopped),
            sum(result.train_images for result in found),
            spent + sum(result.train_seconds for result in found),
        )

    def fingerprint(self) -> str:
        """Digest of everything that this training depends on.

        Returns:
            Hexadecimal SHA-256.
        """
        weights = Path(self.settings.weights)
        facts = [
            asdict(self.settings),
            hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None,
            self.prepared.recipe.to_dict(),
            self.data.data_digest,
            self.data.digest,
            [self.batch_size, self.cuts, keras.backend.backend(), keras.config.dtype_policy().name],
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _digest(self, number: int) -> str:
        return hashlib.sha256(f"{self.fingerprint()} {number}".encode()).hexdigest()

    def _checkpoints(self, number: int) -> Path:
        return self.folder / f"phase-{number}"

    def _saved(self, number: int) -> Saved | None:
        return Checkpoint(self._checkpoints(number), self._digest(number)).find()

    @staticmethod
    def _ended(saved: Saved, phase: Phase, before: Before) -> bool:
        progress = saved.progress
        return bool(progress.stopped) or progress.epoch >= before.epochs + phase.plan.epochs

    def _images(self) -> tuple[Batches, Batches]:
        settings, prepared = self.settings, self.prepared
        common: dict[str, Any] = {
            "batch_size": self.batch_size,
            "outputs": self.network.output_shape[-1],
            "seed": settings.seed,
        }
        changes = Augmentation(**settings.augmentation)  # type: ignore[arg-type]  # bounds are checked there
        paths, labels = self.data.part("train")
        train = Batches(
            prepared.images, prepared.rows(paths), labels, prepared.recipe, shuffle=True,
            augmentation=changes if changes.changes else None, balance=settings.balance, **common,
        )  # fmt: skip
        paths, labels = self.data.part("validation")
        return train, Batches(prepared.images, prepared.rows(paths), labels, prepared.recipe, **common)


def phases(settings: Settings, network: keras.Model, *, phantom: bool) -> list[Phase]:
    """Plan the phases of a training.

    A network with pretrained weights is trained with its backbone frozen, then, if asked for, with the last
    layers of the backbone unfrozen; any other network is trained whole.

    Args:
        settings: what the network depends on.
        network: the network.
        phantom: whether the images are drawn phantoms, which get their own number of epochs.

    Returns:
        One or two phases.

    Raises:
        ParameterError: if more layers are to be unfrozen than the backbone has, or none for fine-tuning.
    """
    most = settings.phantom_epochs if phantom else 10_000
    first = Plan(
        settings.optimizer, settings.learning_rate, min(settings.epochs, most), settings.monitor,
        settings.early_stop_patience, settings.reduce_lr_patience, settings.reduce_lr_factor,
        settings.min_learning_rate, settings.stop_at_accuracy, settings.seed,
    )  # fmt: skip
    layers = backbone_layers(network)
    problems = unfreezing_problems(settings, len(layers))
    if problems:
        raise ParameterError(problems)
    if not layers or settings.weights == NO_WEIGHTS:
        return [Phase("all layers are trained", first, None)]
    found = [Phase("the backbone is frozen", first, 0)]
    if settings.fine_tune_epochs:
        plan = Plan(
            settings.fine_tune_optimizer, settings.fine_tune_learning_rate, min(settings.fine_tune_epochs, most),
            settings.monitor, settings.early_stop_patience, settings.reduce_lr_patience, settings.reduce_lr_factor,
            settings.min_learning_rate, settings.stop_at_accuracy, settings.seed,
        )  # fmt: skip
        count = settings.unfrozen_layers
        found.append(Phase(f"the last {count} layers of the backbone are trained too", plan, count))
    return found


def unfreezing_problems(settings: Settings, layers: int) -> list[str]:
    """Find what is wrong with the layers to unfreeze.

    Args:
        settings: what the network depends on.
        layers: layers of the backbone.

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
