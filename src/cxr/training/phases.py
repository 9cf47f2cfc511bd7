"""The phases of a training: which layers of the network are trained, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace

import keras

from cxr.errors import ParameterError
from cxr.models.pretrained import NO_WEIGHTS, backbone_layers
from cxr.training.plan import TrainingPlan
from cxr.training.training_settings import ClassifierTrainingSettings


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


def plan_phases(
    settings: ClassifierTrainingSettings, network: keras.Model, learning_rate_factor: float, *, phantom: bool
) -> list[TrainingPhase]:
    """Plan the phases of a training.

    A network with pretrained weights is trained with its backbone frozen, and then, if ``fine_tune_epochs`` is above
    0, with the last layers of the backbone unfrozen. Any other network is trained as a whole, and so is every network
    if ``freeze_backbone`` is False.

    Args:
        settings: what the network depends on.
        network: the network.
        learning_rate_factor: multiplies the learning rates.
        phantom: whether the images are drawn phantoms, which have their own number of epochs.

    Returns:
        One or two phases.

    Raises:
        ParameterError: if more layers are to be unfrozen than the backbone has, or none for fine-tuning.
    """
    plan = settings.plan(learning_rate_factor, phantom=phantom)
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
            learning_rate=learning_rate_factor * settings.fine_tune_learning_rate,
            epochs=settings.limit_epochs(settings.fine_tune_epochs, phantom=phantom),
        )
        count = settings.unfrozen_layers
        phases.append(TrainingPhase(f"the last {count} layers of the backbone are trained too", fine_tuning, count))
    return phases


def unfreezing_problems(settings: ClassifierTrainingSettings, layers: int) -> list[str]:
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
