"""The processes of one training on several nodes: who they are, how they meet, and what the first tells the others."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from cxr.errors import CxrError, ParameterError, TrainingError
from cxr.models.backend import backend_name

log = logging.getLogger(__name__)

COUNT_VARIABLE = "JAX_NUM_PROCESSES"
NUMBER_VARIABLE = "JAX_PROCESS_ID"
ADDRESS_VARIABLE = "JAX_COORDINATOR_ADDRESS"
"""Environment variables that the JAX runtime of the Kubeflow Trainer sets in the container of each node."""

START_SECONDS = 600
"""Time for all processes to start; nodes may still have to pull the image."""
HEARTBEAT_SECONDS = 30
"""Time without a sign of life after which a process counts as dead."""
END_SECONDS = 3600
"""Time that the other processes wait at the end, while the first one writes and uploads the model."""

_LOST_CONNECTION = "Gloo "
"""In errors of the library that connects CPUs; JAX raises some of them as ``ValueError``."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one network together, as one of them sees them.

    Attributes:
        count: number of processes.
        number: number of this process, from 0.
        address: ``host:port`` of process 0, where they meet; empty for a single process.
    """

    count: int = 1
    number: int = 0
    address: str = ""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read the group from the variables that the Kubeflow Trainer sets.

        Args:
            environment: environment variables; without the number of processes there is a single one.

        Returns:
            The group.

        Raises:
            ParameterError: listing the variables that are missing or wrong; or if there are several processes and Keras
                does not compute with JAX.
        """
        values = {name: environment.get(name, "") for name in (COUNT_VARIABLE, NUMBER_VARIABLE, ADDRESS_VARIABLE)}
        if values[COUNT_VARIABLE] in {"", "1"}:
            return cls()
        count = int(values[COUNT_VARIABLE]) if values[COUNT_VARIABLE].isdecimal() else 0
        number = int(values[NUMBER_VARIABLE]) if values[NUMBER_VARIABLE].isdecimal() else -1
        host, _, port = values[ADDRESS_VARIABLE].rpartition(":")
        valid = {
            COUNT_VARIABLE: ("a number of processes", count >= 1),
            NUMBER_VARIABLE: (f"a number from 0 to {max(count, 1) - 1}", 0 <= number < max(count, 1)),
            ADDRESS_VARIABLE: ("the host and port of process 0, host:port", bool(host) and port.isdecimal()),
        }
        problems = [
            f"expected the environment variable {name} to be {expected}, received {name}={values[name]!r}; set it, or "
            f"unset {COUNT_VARIABLE} to train in one process"
            for name, (expected, is_valid) in valid.items()
            if not is_valid
        ]
        if backend_name() != "jax":
            problems.append(
                "expected KERAS_BACKEND=jax for training in several processes, received "
                f"KERAS_BACKEND={backend_name()}, {COUNT_VARIABLE}={values[COUNT_VARIABLE]}; set KERAS_BACKEND=jax"
            )
        if problems:
            raise ParameterError(problems)
        return cls(count, number, values[ADDRESS_VARIABLE])

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.number == 0

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Meet the other processes, and part from them when all have come to the end; one process alone does nothing.

        Raises:
            TrainingError: if another process has ended before the training.
        """
        if self.count == 1:
            yield
            return
        import jax

        # If they do not meet in time, JAX itself ends the process.
        log.info("process %d of %d waits for the others at %s", self.number, self.count, self.address)
        try:
            jax.distributed.initialize(
                self.address, self.count, self.number, initialization_timeout=START_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=END_SECONDS,
                cluster_detection_method="deactivate",  # in a pod, JAX would ask Kubernetes for what is known already
            )  # fmt: skip
            yield
            jax.distributed.shutdown()
        except BaseException as error:
            # At its normal exit, JAX would first wait for the other processes, and then crash.
            atexit.register(_leave, getattr(error, "exit_status", 1))
            if not isinstance(error, jax.errors.JaxRuntimeError) and _LOST_CONNECTION not in str(error):
                raise
            raise TrainingError(
                f"expected all {self.count} processes to train to the end, received {_first_line(error)} in process "
                f"{self.number}; the log of the process that ended first has the cause. Start all of them again: "
                "training goes on after the last finished epoch"
            ) from error

    def from_first(self, produce: Callable[[], bytes]) -> bytes:
        """Give all processes what the first one has.

        Args:
            produce: makes it, or raises an error, in the first process; the others do not call it.

        Returns:
            What it made.

        Raises:
            TrainingError: in the other processes, if it raised an error; the first raises this error itself.
        """
        if self.count == 1:
            return produce()
        try:
            content = produce() if self.is_first else b""
        except CxrError as error:  # the others would wait for ever
            self._send(b"error " + str(error).encode())
            raise
        kind, _, content = self._send(b"value " + content).partition(b" ")
        if kind == b"error":
            raise TrainingError(f"process 0 cannot train: {content.decode()}")
        return content

    def expect_same(self, text: str, content: str) -> None:
        """Check that all processes have the same.

        Args:
            text: what must be the same in all processes.
            content: what it stands for, for the message.

        Raises:
            TrainingError: in every process, if one has another text than the first.
        """
        if self.count == 1:
            return
        import numpy as np
        from jax.experimental import multihost_utils

        own = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.uint8)
        digests = np.asarray(multihost_utils.process_allgather(own)).reshape(self.count, -1)
        others = [str(number) for number in range(self.count) if (digests[number] != digests[0]).any()]
        if others:
            raise TrainingError(
                f"expected the same {content} in all processes, received others than those of process 0 in process "
                f"{', '.join(others)}; start all of them with the same command, on copies of the same folders"
            )

    def _send(self, content: bytes) -> bytes:
        """Send what the first process has to all; what the others have does not count."""
        import numpy as np
        from jax.experimental import multihost_utils

        own = np.frombuffer(content, dtype=np.uint8)
        size = int(multihost_utils.broadcast_one_to_all(np.array(len(own), dtype=np.uint32)))
        sent = multihost_utils.broadcast_one_to_all(own if self.is_first else np.zeros(size, dtype=np.uint8))
        return np.asarray(sent, dtype=np.uint8).tobytes()


ONE_PROCESS = ProcessGroup()


def _first_line(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0]
    return line[max(0, line.find(_LOST_CONNECTION)) :]


def _leave(status: int) -> None:
    """End the process without what other modules would do at its exit."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
