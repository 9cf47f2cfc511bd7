"""How fast images reach a training step, and how much of its speed a step keeps when the project feeds it.

First table: images per second that the feeder delivers to a consumer that does nothing, and the bytes of one image that
cross to the device. "Before" is a batch as three channels of float32, made on the CPU; it exists only here. "On the
device" is the same with changes that the device makes (as on a GPU), and with images that lie there. A detector's
batches bring boxes too.
Second table: images per second of a training step fed by the project, and of the same step on one batch in memory, in
turns. Run it with ``python benchmarks/feeding.py [NETWORK ...]`` on any backend (KERAS_BACKEND); no network by default
takes those of params.yaml, on a CPU without the slowest two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import yaml

from cxr.freed_memory import keep_freed_memory
from cxr.models.backend import load_keras

keep_freed_memory()  # as the step does that trains
load_keras()

import cv2  # noqa: E402  # after load_keras
import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter  # noqa: E402

from cxr.images.recipes import recipe_named, to_network_input  # noqa: E402
from cxr.models.networks import build_network  # noqa: E402
from cxr.regions.batches import RegionBatches  # noqa: E402
from cxr.training.augmentation import Augmentation  # noqa: E402
from cxr.training.batches import Batches  # noqa: E402
from cxr.training.device import prepare_device  # noqa: E402
from cxr.training.feeding import choose_steps_per_execution, feed_device  # noqa: E402
from cxr.training.prepared_input import PreparedInputNetwork  # noqa: E402
from cxr.training.read_ahead import LOADER_THREADS, ReadAhead  # noqa: E402

PARAMS = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))
SECTIONS = PARAMS["models"] | PARAMS["transfer"]
RECIPES = PARAMS["recipes"] | PARAMS["transfer_recipes"]
DETECTOR = "retinanet_lite0"
SLOW_ON_A_CPU = ("residual_separable", "efficientnet_lite0")
AFTER = ("after", "after, changed on the device", "after, all on the device")
TIMES = 3


class FloatBatches(Batches):
    """Batches as they were before: a network's input, made on the CPU."""

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        planes, *judged = super().__getitem__(index)
        return to_network_input(planes, self.recipe), *judged


def batches_of(model: str, kind: type[Batches], batches: int, batch_size: int) -> Batches:
    """Batches of random images with recipe and augmentation of a model."""
    entry = SECTIONS[model]
    recipe = recipe_named(entry["recipe"], **RECIPES[entry["recipe"]])
    count = batches * batch_size
    images = np.random.default_rng(0).integers(0, 256, (count, recipe.size, recipe.size, recipe.planes), np.uint8)
    return kind(
        images, np.arange(count), np.arange(count) % 2, recipe, batch_size=batch_size, shuffle=True, seed=0,
        augmentation=Augmentation(**entry["augmentation"]), balance="none", mixup=0.0,
    )  # fmt: skip


def batches_of_detector(batches: int) -> RegionBatches:
    """Batches of random images; every second one has two boxes, as in the labels of the RSNA challenge."""
    entry = PARAMS["regions"][DETECTOR]
    recipe = recipe_named(entry["recipe"], **RECIPES[entry["recipe"]])
    count = batches * entry["batch_size"]
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, recipe.size, recipe.size, recipe.planes), np.uint8)
    corners = generator.uniform(0, 0.7 * recipe.size, (count, 2, 2))
    boxes = np.concatenate([corners, corners + np.array([0.21, 0.29]) * recipe.size], axis=-1).astype(np.float32)
    return RegionBatches(
        images, np.arange(count), np.arange(count) % 2, [boxes[number, : 2 * (number % 2)] for number in range(count)],
        recipe, batch_size=entry["batch_size"], shuffle=True, seed=0,
        augmentation=Augmentation(**entry["augmentation"]), balance="none",
    )  # fmt: skip


@contextmanager
def on_cores(cores: int) -> Any:
    """Let this process use so many cores, where the system can restrict it.

    Linux restricts single threads, and a new thread as the one that starts it. Those of TensorFlow start here and train
    later: afterwards all threads may use all cores again.
    """
    allowed = os.sched_getaffinity(0)
    _restrict_threads(set(sorted(allowed)[:cores]))
    try:
        yield
    finally:
        _restrict_threads(allowed)


def _restrict_threads(cores: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended since
            os.sched_setaffinity(int(thread.name), cores)


def rates_in_turns(works: dict[str, Callable[[], int]]) -> dict[str, list[float]]:
    """Time several works in turns, so that all meet the same load.

    Args:
        works: name to a function that does the work and says how many images it was.

    Returns:
        Name to images per second of each of :data:`TIMES` turns, after one that compiles.
    """
    rates: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(TIMES + 1):
        for name, work in works.items():
            started = time.perf_counter()
            images = work()
            if turn:
                rates[name].append(images / (time.perf_counter() - started))
    return rates


def delivered(batches: Batches, threads: int) -> int:
    """Take an epoch as training does, and do nothing with it."""
    images = 0
    with before_or_after(batches, threads) as feeder:
        for _, targets, *_ in PyDatasetAdapter(feeder).get_numpy_iterator():
            images += len(keras.tree.flatten(targets)[0])
    batches.epoch += 1
    return images


def before_or_after(batches: Batches, threads: int) -> Any:
    """The feeder: Keras's own queue as before, or the project's threads."""
    if not isinstance(batches, FloatBatches):
        return ReadAhead(batches, threads)
    batches.workers, batches.max_queue_size = threads, 2 * threads
    return nullcontext(batches)


def bytes_of_an_image(batches: Batches) -> float:
    """Bytes of a batch, per image."""
    return sum(array.nbytes for array in keras.tree.flatten(batches[0])) / batches.batch_size


def print_delivery() -> None:
    """Print the first table."""
    cv2.setNumThreads(1)
    all_cores = len(os.sched_getaffinity(0))
    core_counts = sorted({1, 2, all_cores} & set(range(1, all_cores + 1)))
    columns = "".join(f"{f'{cores} cores':>12}" for cores in core_counts)
    print(f"delivered to a consumer that does nothing; images/s\n\n{'':<36}{columns}{'bytes an image':>16}")
    for model, count in (("three_block", 130), ("shallow", 130), ("plain_cnn", 30), (DETECTOR, 30)):
        feeders: dict[str, Batches] = {}
        if model == DETECTOR:
            feeders |= {name: batches_of_detector(count) for name in AFTER}
        else:
            batch_size = SECTIONS[model]["batch_size"]
            feeders["before"] = batches_of(model, FloatBatches, count, batch_size)
            feeders |= {name: batches_of(model, Batches, count, batch_size) for name in AFTER}
        for name in AFTER[1:]:
            feeders[name].augments_on_device = True
        feeders[AFTER[-1]].stays_on_device = True
        rates: dict[str, list[float]] = {name: [] for name in feeders}
        for cores in core_counts:
            with on_cores(cores):
                # At least two threads, as in training.
                works = {
                    name: lambda batches=batches, cores=cores: delivered(batches, max(2, cores))
                    for name, batches in feeders.items()
                }
                for name, turns in rates_in_turns(works).items():
                    rates[name].append(max(turns))
        first = feeders["after"]
        print(f"{model}, {first.recipe.size} pixels, batches of {first.batch_size}")
        for name, batches in feeders.items():
            columns = "".join(f"{rate:>12,.0f}" for rate in rates[name])
            print(f"  {name:<34}{columns}{bytes_of_an_image(batches):>16,.0f}")


def print_ratios(models: list[str], device: Any) -> None:
    """Print the second table."""
    name = f"{device.facts['name']}, {device.facts['framework']}"
    print(f"\ntraining on {name}; images/s\n\n{'':<24}{'fed before':>12}{'fed':>12}{'in memory':>12}", end="")
    print(f"{'before':>9}{'fed / in memory':>17}")
    for model in models:
        before, fed, memory = (statistics.median(turns) for turns in training_rates(model, device))
        print(f"{model:<24}{before:>12,.0f}{fed:>12,.0f}{memory:>12,.0f}{before / memory:>9.2f}{fed / memory:>17.2f}")


def training_rates(model: str, device: Any) -> Iterable[list[float]]:
    """Images per second of each turn: fed as before, fed by the project, and on one batch in memory."""
    entry = SECTIONS[model]
    batch_size = (entry.get("gpu_batch_size") if device.on_gpu else None) or entry["batch_size"]
    steps = 60 if device.on_gpu else (20 if RECIPES[entry["recipe"]]["size"] < 100 else 5)
    fed, before = (batches_of(model, kind, steps, batch_size) for kind in (Batches, FloatBatches))
    feed_device(fed, "auto", on_gpu=device.on_gpu)
    network = build_network(entry["architecture"], fed.recipe.input_shape)
    fed.outputs = before.outputs = network.output_shape[-1]
    loss = "categorical_crossentropy" if fed.outputs == 2 else "binary_crossentropy"
    jit = False if keras.backend.backend() == "tensorflow" else "auto"
    on_planes = PreparedInputNetwork(network, fed.recipe, fed.device_images())
    steps_per_execution = choose_steps_per_execution(network, on_gpu=device.on_gpu)
    on_planes.compile(entry["optimizer"], loss, jit_compile=jit, steps_per_execution=steps_per_execution)
    plain = PreparedInputNetwork(network, fed.recipe)
    plain.compile(entry["optimizer"], loss, jit_compile=jit)
    batch = [keras.ops.convert_to_tensor(array) for array in before[0]]

    def train(trained: Any, batches: Batches) -> int:
        with before_or_after(batches, LOADER_THREADS) as feeder:
            data = feeder.for_fit() if isinstance(feeder, ReadAhead) else feeder
            trained.fit(data, epochs=1, verbose=0, shuffle=False)
        batches.epoch += 1
        return steps * batch_size

    return rates_in_turns(
        {
            "before": lambda: train(plain, before),
            "fed": lambda: train(on_planes, fed),
            "memory": lambda: repeat_batch(plain, batch, steps),
        }
    ).values()


def repeat_batch(network: Any, batch: list[Any], steps: int) -> int:
    """Train on one batch that lies on the device, as Keras's fit does, without data that is read or sent."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        options = tensorflow.data.Options()
        options.autotune.enabled = False  # see ReadAhead.for_fit
        data = tensorflow.data.Dataset.from_tensors(tuple(batch)).repeat(steps).with_options(options)
    else:
        data = (tuple(batch) for _ in range(steps))
    network.fit(data, epochs=1, steps_per_epoch=steps, verbose=0, shuffle=False)
    return steps * len(batch[1])


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", choices=[[], *SECTIONS], help="names in params.yaml")
    arguments = parser.parse_args()
    device = prepare_device(0, batch_size=1, gpu_batch_size=None, gpu_precision="float32")
    print_delivery()
    fast = [name for name in SECTIONS if name in PARAMS["models"] and name not in SLOW_ON_A_CPU]
    print_ratios(arguments.networks or (list(SECTIONS) if device.on_gpu else fast), device)


if __name__ == "__main__":
    main()
