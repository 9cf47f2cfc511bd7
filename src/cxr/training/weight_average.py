"""Exponential moving average of a network's weights, updated in each step on every Keras backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from cxr.training.checkpoint import assign_variables, copy_variables


class AveragedNetwork(keras.Model):  # type: ignore[misc]  # keras ships no types
    """A network that is trained together with the averages of its weights.

    It trains and predicts as the network itself does. The averages are updated at the beginning of a step, as the
    statistics of batch normalisation are: this is the only place that every backend compiles into its step and where
    the weights can be read. The decay grows from 0.1 to its value (as in TensorFlow's ``ExponentialMovingAverage``
    with ``num_updates``), so that a short training does not keep its first weights.

    Keras's own ``use_ema`` is not used: it leaves out the statistics of batch normalisation, and at the end of each
    call of ``fit``, that is after each epoch, it replaces the weights by their averages.

    Attributes:
        network: the network; its layers keep their own weights.
        decay: share of an average that a step keeps, in (0, 1).
        averages: one variable per weight of the layers that are trained, statistics of batch normalisation included.
        steps: number of updates so far.
    """

    def __init__(self, network: keras.Model, decay: float) -> None:
        """Begin with the present weights of the network.

        Args:
            network: flat functional network whose ``trainable`` flags are set.
            decay: as the attribute.
        """
        # Without casting, the network gets its inputs in float32 and casts them itself where precision is mixed.
        super().__init__(name=f"{network.name}_averaged", autocast=False)
        self.network = network
        self.decay = decay
        self.steps = self.add_weight(shape=(), initializer="zeros", dtype="float32", trainable=False, name="steps")
        self.averages = [
            self.add_weight(
                shape=weight.shape, initializer="zeros", dtype=weight.dtype, trainable=False, name=f"average_{number}"
            )
            for number, weight in enumerate(self._averaged_weights())
        ]
        assign_variables(self.averages, copy_variables(self._averaged_weights()))
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Predict as the network; in training, update the averages by the weights that the last step left."""
        if training:
            for average, value in zip(self.averages, self._next_averages(), strict=True):
                average.assign(value)
            self.steps.assign_add(1.0)
        return self.network(inputs, training=training)

    @contextmanager
    def averages_as_weights(self) -> Iterator[None]:
        """Give the network the averages, the last step included; afterwards it has its own weights again."""
        weights = self._averaged_weights()
        own = copy_variables(weights)
        assign_variables(weights, [ops.convert_to_numpy(value) for value in self._next_averages()])
        try:
            yield
        finally:
            assign_variables(weights, own)

    def _averaged_weights(self) -> list[Any]:
        # A frozen weight is left out: rounding would change its average.
        return [weight for layer in self.network.layers if layer.trainable for weight in layer.weights]

    def _next_averages(self) -> list[Any]:
        decay = ops.minimum(self.decay, (1 + self.steps) / (10 + self.steps))
        share = ops.convert_to_tensor(1 - decay)
        return [
            # With tensors of the backend, TensorFlow traces these operations in half the time that Keras's own take.
            average + share * (weight - average)
            for average, weight in zip(
                map(ops.convert_to_tensor, self.averages),
                map(ops.convert_to_tensor, self._averaged_weights()),
                strict=True,
            )
        ]
