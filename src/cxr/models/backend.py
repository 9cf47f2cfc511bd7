"""Keras and its backend: loading them without their greetings on the terminal, and what differs between backends."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.fast_import import load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GREETINGS = re.compile(r"^(I0000 |WARNING: All log messages before absl)")
"""Lines that TensorFlow's libraries write while they load, whatever their log level is set to."""
NOT_NEEDED = ("jax", "matplotlib", "sklearn")
"""What Keras and TensorFlow import where it is installed, for parts of theirs that nothing here uses."""


def load_keras() -> None:
    """Import Keras and its backend; of what they write to stderr, greetings are dropped and the rest is passed on.

    The libraries write to the file descriptor itself, so that Python's own redirection does not reach them.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as written:
        terminal = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            load("keras", without=[name for name in NOT_NEEDED if name != backend_name()])
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            written.seek(0)
            for line in written.read().decode(errors="replace").splitlines(keepends=True):
                if not GREETINGS.match(line):
                    sys.stderr.write(line)


def backend_name() -> str:
    """Name of the backend that Keras takes here, without the seconds that importing it takes.

    Returns:
        ``KERAS_BACKEND``, else what Keras's own configuration file says, else ``"tensorflow"``: Keras's own order.
    """
    named = os.environ.get("KERAS_BACKEND")
    if named:
        return named
    try:
        return str(json.loads((keras_home() / "keras.json").read_text(encoding="utf-8")).get("backend", "tensorflow"))
    except (OSError, ValueError):
        return "tensorflow"


def keras_home() -> Path:
    """Folder of Keras's own configuration, and of the weights it has fetched, under ``models/``.

    Returns:
        ``KERAS_HOME``, else ``~/.keras``.
    """
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))


def gradient_of(score: Callable[[Any], Any]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Make the function that gives a score's gradient: the one thing that Keras has no common word for.

    Args:
        score: from a tensor of any shape to a scalar tensor, by Keras layers and operations.

    Returns:
        From an array to the gradient at it, same shape, float32. It may be called from several threads.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow

        def gradient(values: NDArray[np.float32]) -> Any:
            tensor = tensorflow.convert_to_tensor(values)
            with tensorflow.GradientTape() as tape:
                tape.watch(tensor)
                value = score(tensor)
            return tape.gradient(value, tensor)

    elif keras.backend.backend() == "jax":
        import jax

        gradient = jax.jit(jax.grad(score))
    else:
        import torch

        def gradient(values: NDArray[np.float32]) -> Any:
            tensor = keras.ops.convert_to_tensor(values).requires_grad_()
            return torch.autograd.grad(score(tensor), tensor)[0]

    return lambda values: keras.ops.convert_to_numpy(keras.ops.cast(gradient(values), "float32"))
