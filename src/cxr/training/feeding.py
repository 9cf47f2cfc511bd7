"""How training images reach the device: where they lie, who augments them, and how many batches one call takes."""

from __future__ import annotations

from typing import Literal

import keras

from cxr.errors import ParameterError
from cxr.training.batches import Batches
from cxr.training.device import gpu_memory

OnDevice = Literal["auto", "always", "never"]

MAX_MEMORY_SHARE = 0.25
"""Largest share of a GPU's memory that training images may take; networks and their activations need the rest."""

SMALL_NETWORK = 2_000_000
SMALL_IMAGE = 128 * 128
STEPS_OF_SMALL_NETWORKS = 8
"""A network with at most so many parameters, for images of at most so many pixels, computes a batch in less time than
starting the computation takes. On a GPU one call therefore trains it on several batches."""


def feed_device(batches: Batches, mode: OnDevice, *, on_gpu: bool) -> None:
    """Decide where training images lie and where they are augmented.

    A GPU augments images itself, unless they are blurred or compressed. All images of the split lie on it if they take
    at most :data:`MAX_MEMORY_SHARE` of its memory. A CPU gains nothing from either: OpenCV is faster there.

    Args:
        batches: training images; changed here.
        mode: ``"auto"`` decides as above, the others whether all images lie on the device.
        on_gpu: whether the device is a GPU.

    Raises:
        ParameterError: if the images must lie on the device, but only the CPU can augment them.
    """
    only_on_cpu = batches.augmentation is not None and batches.augmentation.filters
    if mode == "always" and only_on_cpu:
        raise ParameterError(
            [
                "expected an augmentation without blur and jpeg_quality with on_device=always, because only the CPU "
                f"makes them, received augmentation={batches.augmentation}; set on_device: auto"
            ]
        )
    batches.stays_on_device = mode == "always" or (mode == "auto" and on_gpu and not only_on_cpu and _fits(batches))
    batches.augments_on_device = (on_gpu or batches.stays_on_device) and not only_on_cpu


def choose_steps_per_execution(network: keras.Model, *, on_gpu: bool) -> int:
    """Choose how many batches one call of the compiled step trains on.

    Args:
        network: the network.
        on_gpu: whether the device is a GPU.

    Returns:
        :data:`STEPS_OF_SMALL_NETWORKS` for a small network on a GPU, else 1; always 1 with PyTorch, where Keras refuses
        more.
    """
    if keras.backend.backend() == "torch":
        return 1
    height, width = network.input_shape[1:3]
    is_small = network.count_params() <= SMALL_NETWORK and height * width <= SMALL_IMAGE
    return STEPS_OF_SMALL_NETWORKS if on_gpu and is_small else 1


def _fits(batches: Batches) -> bool:
    # TensorFlow has no kernel that gathers bytes on a GPU: it would copy all of them to the CPU in each step.
    if keras.backend.backend() == "tensorflow":
        return False
    memory = gpu_memory()
    size = len(batches.rows) * batches.recipe.size**2 * batches.recipe.planes
    return memory is not None and size <= MAX_MEMORY_SHARE * memory
