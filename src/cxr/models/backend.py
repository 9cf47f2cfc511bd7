"""Keras and its backend: how they are imported, and what differs between backends."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.fast_import import import_without_garbage_collection, packages_hidden
from cxr.models.startup_messages import without_startup_messages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNUSED_BY_KERAS = ("sklearn", "matplotlib")
"""Packages that Keras imports, where it finds them, for parts that nothing here uses: a third of its own import."""


def load_keras() -> None:
    """Import Keras and its backend, with TensorFlow's log level at warnings unless the environment sets another."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if backend_name() == "tensorflow" and "keras" not in sys.modules:
        with without_startup_messages(), packages_hidden(*UNUSED_BY_KERAS):
            import_without_garbage_collection("keras")
            import tensorflow as tf

            tf.config.list_physical_devices()  # without this, the first network would look for GPUs, and report none
    else:
        with packages_hidden(*UNUSED_BY_KERAS):
            import_without_garbage_collection("keras")
    # It warns of each network of an ensemble that another one was compiled before ("retracing").
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def backend_name() -> str:
    """Name the backend that Keras will use, without the seconds that importing Keras takes.

    Returns:
        ``KERAS_BACKEND``, else what Keras's own configuration file says, else ``"tensorflow"``: the order of Keras.
    """
    name = os.environ.get("KERAS_BACKEND")
    if name:
        return name
    try:
        return str(json.loads((keras_home() / "keras.json").read_text(encoding="utf-8")).get("backend", "tensorflow"))
    except (OSError, ValueError):
        return "tensorflow"


def keras_home() -> Path:
    """Find the folder of Keras's own configuration and, under ``models/``, of the weights that it has downloaded.

    Returns:
        ``KERAS_HOME``, else ``~/.keras``.
    """
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))


def gradient_function(score: Callable[[Any], Any]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Make the function that computes the gradient of a score. Keras itself has none that works on every backend.

    Args:
        score: from a tensor of any shape to a scalar tensor, by Keras layers and operations.

    Returns:
        Function from an array to the gradient there: same shape, float32. Several threads may call it.
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
