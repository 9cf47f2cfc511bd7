"""Training on several devices: they divide each batch among themselves, and the result is that of one device.

Each device holds all weights. The step is compiled for the whole batch, and JAX divides its computation. Losses,
gradients and the statistics of batch normalisation are therefore those of the whole batch, and dropout draws the same
numbers on any number of devices. Only the order of additions differs, and so the last digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cxr.errors import ParameterError
from cxr.training.prepared_input import PreparedInputNetwork
from cxr.training.processes import ONE_PROCESS, ProcessGroup

INPUTS = "inputs"
"""In a divided batch: the input of the network, as one device would get it."""

ADDED_ROWS = "added_rows"
"""In a divided batch: an empty array ``(devices, n, 0)``, where n is the number of images that were added at the end so
that the batch could be divided. The compiled step needs this number when it is compiled, and knows shapes then."""


@dataclass(frozen=True)
class DeviceGroup:
    """The devices that train one network together.

    Attributes:
        names: Keras's names of the devices of all processes, those of process 0 first; empty for one device that Keras
            chooses.
        processes: the processes that they belong to.
    """

    names: tuple[str, ...] = ()
    processes: ProcessGroup = ONE_PROCESS

    @property
    def count(self) -> int:
        """Number of devices of all processes."""
        return max(1, len(self.names))

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Have Keras put the variables that are made here on all devices, and divide the batches of ``fit``."""
        if self.count == 1:
            yield
            return
        with keras.distribution.DataParallel(devices=list(self.names), auto_shard_dataset=False).scope():
            yield

    def check_batch_size(self, name: str, batch_size: int) -> None:
        """Check that a batch can be divided.

        Args:
            name: name of the parameter.
            batch_size: images per batch.

        Raises:
            ParameterError: if not; it names the next sizes that can.
        """
        below = batch_size // self.count * self.count
        if below == batch_size:
            return
        sizes = " or ".join(str(size) for size in (below, below + self.count) if size)
        raise ParameterError(
            [
                f"expected {name} to be a multiple of the number of devices, received {name}={batch_size}, "
                f"devices={self.count}; set {name} to {sizes}, or train on another number of devices"
            ]
        )

    def own_rows(self, count: int) -> NDArray[np.int64] | slice:
        """Choose the images of a batch that this process reads.

        Args:
            count: images of the batch. If they cannot be divided evenly, the last one is repeated.

        Returns:
            Positions in the batch, or a slice of all.
        """
        if self.count == 1:
            return slice(None)
        padded = np.minimum(np.arange(count + self.added_rows(count)), count - 1)
        return np.split(padded, self.processes.count)[self.processes.number]

    def added_rows(self, count: int) -> int:
        """Number of rows that a batch of ``count`` images needs in addition so that it can be divided."""
        return -count % self.count

    def divide(self, inputs: Any, count: int) -> Any:
        """Tell the compiled step how many of the rows of a batch were added.

        Args:
            inputs: input of the network for the images of :meth:`own_rows`.
            count: images of the whole batch.

        Returns:
            A mapping for :class:`DividedInputNetwork`; the inputs themselves for one device.
        """
        if self.count == 1:
            return inputs
        own_devices = self.count // self.processes.count
        return {INPUTS: inputs, ADDED_ROWS: np.empty((own_devices, self.added_rows(count), 0), dtype=np.uint8)}


ONE_DEVICE = DeviceGroup()


class DividedInputNetwork(PreparedInputNetwork):
    """A network whose batches are divided among devices; JAX only.

    The rows that were added to a batch are taken away in the compiled step, before anything is computed from them.
    """

    def train_step(self, state: Any, data: tuple[Any, ...]) -> Any:
        """Train on a batch; see ``keras.Model.train_step`` of the backend JAX."""
        divided, *targets = data
        return super().train_step(state, _without_added_rows((divided[INPUTS], *targets), divided))

    def predict_step(self, state: Any, data: tuple[Any, ...]) -> Any:
        """Predict a batch, and give all devices the outputs; see ``keras.Model.predict_step`` of the backend JAX."""
        (divided,) = data
        outputs, state = super().predict_step(state, _without_added_rows((divided[INPUTS],), divided))
        return keras.tree.map_structure(_on_all_devices, outputs), state

    def predict_on_batch(self, x: Any) -> Any:
        """Predict the part of a batch that each process has read.

        Args:
            x: the return value of :meth:`DeviceGroup.divide`.

        Returns:
            Outputs for the whole batch, in every process.
        """
        import jax

        distribution = keras.distribution.distribution()
        return super().predict_on_batch(
            keras.tree.map_structure(
                lambda array: jax.make_array_from_process_local_data(
                    distribution.get_data_layout(array.shape).backend_layout, array
                ),
                x,
            )
        )


def choose_devices(devices: int | None, processes: ProcessGroup) -> DeviceGroup:
    """Choose the devices of a training, after its processes have met.

    Args:
        devices: devices of each process; None takes all its GPUs with JAX, and else one device.
        processes: the processes.

    Returns:
        The devices.

    Raises:
        ParameterError: if there are fewer devices, or Keras does not compute with JAX and there is to be more than one.
    """
    backend = keras.backend.backend()
    if backend != "jax":
        if devices not in {None, 1}:
            raise ParameterError(
                [
                    f"expected devices=1 with KERAS_BACKEND={backend}, received devices={devices}; only JAX divides "
                    "batches: set KERAS_BACKEND=jax"
                ]
            )
        return ONE_DEVICE
    import jax

    own_count = jax.local_device_count()
    count = (own_count if jax.default_backend() == "gpu" else 1) if devices is None else devices
    if count > own_count:
        on_cpu = jax.default_backend() == "cpu"
        remedy = f"; for a trial on a CPU set XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        raise ParameterError(
            [
                f"expected devices of at most {own_count}, the devices that JAX has here, received devices={devices}; "
                f"lower it{remedy if on_cpu else ''}"
            ]
        )
    if count * processes.count == 1:
        return ONE_DEVICE
    processes.expect_same(str(count), "number of devices")
    names = [
        f"{device.platform}:{device.id}"
        for number in range(processes.count)
        for device in jax.local_devices(number)[:count]
    ]
    return DeviceGroup(tuple(names), processes)


def _without_added_rows(arrays: Any, divided: Mapping[str, Any]) -> Any:
    added = divided[ADDED_ROWS].shape[1]
    return keras.tree.map_structure(lambda array: array[: array.shape[0] - added], arrays) if added else arrays


def _on_all_devices(tensor: Any) -> Any:
    mesh = keras.distribution.distribution().device_mesh
    return keras.distribution.distribute_tensor(
        tensor, keras.distribution.TensorLayout([None] * len(tensor.shape), mesh)
    )
