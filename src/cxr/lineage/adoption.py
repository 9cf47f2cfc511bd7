"""Adopting a model that was trained on another machine: is its folder whole, and does it belong to this project?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxr.errors import DataError, ParameterError
from cxr.files import HISTORY_FILE, METADATA_FILE, NETWORK_FILE, TRAINING_FILE
from cxr.images.recipes import Recipe
from cxr.lineage.model_origin import ModelOrigin
from cxr.lineage.provenance import DIRTY_SUFFIX, run_git
from cxr.models.metadata import ModelMetadata
from cxr.models.stored_files import load_network
from cxr.training.plan import higher_is_better
from cxr.training.split_data import SplitData

if TYPE_CHECKING:
    from cxr.images.prepared import PreparedImages

LOSS_TOLERANCE, AUROC_TOLERANCE = 0.02, 0.002
"""Accepted differences on validation between two machines: of the loss as a share of it, and of the AUROC.

A network trained in float32 on an NVIDIA H200 with JAX has the same AUROC on a CPU with TensorFlow, and a loss that
differs by 0.0003 of it; lower precision differs more. Another network of the same architecture and data usually
differs by 0.05 to 0.3 of the loss.
"""

BATCH_SIZE = 64
"""Images per network call."""

WITHOUT_EFFECT_ON_PATIENTS = frozenset({"phantom_epochs", "phantom_train_images"})
"""Parameters that a training on radiographs of patients does not depend on."""


@dataclass(frozen=True)
class ExpectedTraining:
    """The training that would give the model on this machine.

    Attributes:
        entry: name of its entry in params.yaml; the model may have had another name where it was trained.
        parameters: all parameters that the network depends on, as ``cxr train`` records them.
        defaults: parameter to its default value. A parameter that is younger than the model had this value.
        recipe: recipe of the images.
        data: the images and their split.
    """

    entry: str
    parameters: Mapping[str, Any]
    defaults: Mapping[str, Any]
    recipe: Recipe
    data: SplitData


def adoption_problems(
    folder: Path, origin: ModelOrigin, expected: ExpectedTraining, prepared: PreparedImages
) -> list[str]:
    """Find all reasons why a model cannot stand for the training of this machine.

    Args:
        folder: the model's folder.
        origin: what its files say.
        expected: the training that it is to stand for.
        prepared: the images after its recipe.

    Returns:
        One sentence per problem; empty if the model fits.
    """
    metadata, facts = origin.metadata, origin.facts
    problems = [
        *_data_problems(metadata, expected.data),
        *_recipe_problems(metadata, expected.recipe),
        *_parameter_problems(metadata, facts["parameters"], expected),
        *_device_problems(metadata, facts),
        *_history_problems(origin.history, facts, expected.parameters),
    ]
    try:
        network = load_network(folder / NETWORK_FILE)
    except DataError as error:
        return [*problems, str(error)]
    problems += _network_problems(network, metadata, expected.parameters)
    if prepared.recipe.to_dict() != metadata.recipe:
        problems.append(
            f"expected prepared images of recipe={metadata.recipe}, received recipe={prepared.recipe.to_dict()}; "
            "run `cxr preprocess`"
        )
    # What does not fit cannot be predicted, and its predictions would say nothing.
    return problems or _quality_problems(network, origin, expected.data, prepared)


def adoption_notes(
    metadata: ModelMetadata, facts: Mapping[str, Any], checkout: Path, data_md5: str | None
) -> list[str]:
    """Say what a reader should know about a model that fits.

    Args:
        metadata: its metadata.
        facts: content of ``training.json``.
        checkout: a folder of the project's checkout.
        data_md5: DVC's hash of the images here; None if it is unknown.

    Returns:
        One sentence per note.
    """
    notes = []
    commit = (metadata.git_commit or "").removesuffix(DIRTY_SUFFIX)
    if not commit:
        notes.append("The commit that trained it is unknown: the training cannot be reproduced exactly.")
    elif run_git(checkout, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        notes.append(f"This checkout does not hold the commit that trained it ({commit}); `git fetch` may bring it.")
    if (metadata.git_commit or "").endswith(DIRTY_SUFFIX):
        notes.append(f"The code differed from commit {commit}: the training cannot be reproduced exactly.")
    if None not in (metadata.data_md5, data_md5) and metadata.data_md5 != data_md5:
        notes.append(
            f"The images are the same, but DVC's hash of their folder was {metadata.data_md5} there and is {data_md5} "
            "here: files beside the images differ."
        )
    if facts["device"]["kind"] != "gpu":
        notes.append("It was trained on a CPU: with promotion.require_gpu it can become challenger, not champion.")
    return notes


def _data_problems(metadata: ModelMetadata, data: SplitData) -> list[str]:
    compared = {
        "data_digest": (metadata.data_digest, data.data_digest, "fetch and validate the images that it was trained on"),
        "split_protocol": (metadata.split_protocol, data.protocol, "set resplit.protocol, and run `cxr resplit`"),
        "split_digest": (metadata.split_digest, data.digest, "run `cxr resplit` with the values of that machine"),
        "dataset.kind": (metadata.dataset.get("kind"), data.dataset.kind, "models of phantoms and patients never mix"),
    }
    return [
        f"expected {name}={here}, as here, received {name}={there} in {METADATA_FILE}; {remedy}"
        for name, (there, here, remedy) in compared.items()
        if there != here
    ]


def _recipe_problems(metadata: ModelMetadata, expected: Recipe) -> list[str]:
    try:
        recipe = Recipe.from_dict(metadata.recipe)
    except (ParameterError, TypeError) as error:
        return [f"expected a recipe in {METADATA_FILE}, received recipe={metadata.recipe} ({error})"]
    problems = []
    if metadata.input_shape != recipe.input_shape:
        problems.append(
            f"expected input_shape={recipe.input_shape}, as the recipe in {METADATA_FILE} gives it, "
            f"received input_shape={metadata.input_shape}"
        )
    problems += [
        f"expected {name}={getattr(expected, name)!r} in the recipe, as in params.yaml, "
        f"received {name}={getattr(recipe, name)!r}; set recipes.{expected.name}.{name}"
        for name in Recipe.__dataclass_fields__
        if getattr(recipe, name) != getattr(expected, name)
    ]
    return problems


def _parameter_problems(
    metadata: ModelMetadata, parameters: Mapping[str, Any], expected: ExpectedTraining
) -> list[str]:
    problems = [
        f"expected a parameter of `cxr train`, received {name}={value!r} in {TRAINING_FILE}; it was trained with "
        "another version of the program"
        for name, value in parameters.items()
        if name not in expected.parameters
    ]
    without_effect = WITHOUT_EFFECT_ON_PATIENTS if expected.data.dataset.kind == "patients" else frozenset()
    for name, value in expected.parameters.items():
        received = parameters.get(name, expected.defaults.get(name))
        if received != value and name not in without_effect:
            problems.append(
                f"expected {name}={value!r}, as in params.yaml, received {name}={received!r} in {TRAINING_FILE}; "
                f"set {name} of {expected.entry} in params.yaml, name another entry with --model, or train again"
            )
    for name in ("model", "system", "seed"):
        if name in parameters and parameters[name] != getattr(metadata, name):
            problems.append(
                f"expected the same {name} in both files, received {name}={getattr(metadata, name)!r} in "
                f"{METADATA_FILE} and {parameters[name]!r} in {TRAINING_FILE}"
            )
    return problems


def _device_problems(metadata: ModelMetadata, facts: Mapping[str, Any]) -> list[str]:
    problems = [
        f"expected the same {name} in both files, received {name}={value!r} in {METADATA_FILE} and "
        f"{facts.get(name)!r} in {TRAINING_FILE}"
        for name, value in metadata.training.items()
        if facts.get(name) != value
    ]
    device: Mapping[str, Any] = facts["device"]
    kind = device.get("kind")
    if kind not in ("cpu", "gpu"):
        problems.append(f"expected device.kind to be cpu or gpu, received {kind=}")
    required = ("name", "backend", "framework", *(("driver",) if kind == "gpu" else ()))
    problems += [
        f"expected device.{name} as evidence of the training, received {name}={device.get(name)!r}"
        for name in required
        if not device.get(name)
    ]
    if kind == "cpu" and device.get("driver"):
        problems.append(f"expected no driver of a GPU with kind='cpu', received driver={device['driver']!r}")
    backend, framework = str(device.get("backend")), str(device.get("framework"))
    if framework.split(" ")[0] != backend:
        problems.append(f"expected the framework of backend={backend!r}, received framework={framework!r}")
    return problems


def _history_problems(
    history: pd.DataFrame, facts: Mapping[str, Any], expected_parameters: Mapping[str, Any]
) -> list[str]:
    # The epoch was chosen by the model's own monitor. If another one is expected, that is a problem of its own.
    monitor = facts["parameters"].get("monitor", expected_parameters["monitor"])
    column = f"val_{monitor}"
    missing = [name for name in dict.fromkeys(("epoch", "seconds", "val_loss", "val_auroc", column))
               if name not in history]  # fmt: skip
    if missing or history.empty:
        return [f"expected {HISTORY_FILE} with a row per epoch, received {len(history)} rows without {missing}"]
    problems = []
    epochs, best_epoch, seconds = (facts.get(name) for name in ("epochs_run", "best_epoch", "seconds"))
    if list(history["epoch"]) != list(range(1, len(history) + 1)) or len(history) != epochs:
        problems.append(
            f"expected the epochs 1 to epochs_run={epochs} in {HISTORY_FILE}, received {len(history)} rows, "
            f"the last with epoch={history['epoch'].iloc[-1]:g}"
        )
    values = history[column].to_numpy(dtype=np.float64) * (1 if higher_is_better(monitor) else -1)
    best = None if np.isnan(values).all() else int(np.nanargmax(values)) + 1
    if best is None or best != best_epoch:
        problems.append(
            f"expected best_epoch={best}, which has the best {column} in {HISTORY_FILE}, received {best_epoch=}"
        )
    # Computing the activations of frozen layers takes time beside the epochs.
    least = history["seconds"].sum() - 0.1
    if not isinstance(seconds, int | float) or not math.isfinite(seconds) or not 0 < seconds >= least:
        problems.append(
            f"expected seconds of at least {least:.1f}, the sum of {HISTORY_FILE}, received {seconds=} in "
            f"{TRAINING_FILE}"
        )
    return problems


def _network_problems(network: Any, metadata: ModelMetadata, parameters: Mapping[str, Any]) -> list[str]:
    """Compare a network with its metadata, and with its architecture built anew."""
    import keras

    from cxr.models.networks import build_network

    problems = []
    shape, count = tuple(network.input_shape[1:]), network.count_params()
    if (shape, count) != (metadata.input_shape, metadata.parameters):
        problems.append(
            f"expected input_shape={metadata.input_shape} and parameters={metadata.parameters}, as {METADATA_FILE} "
            f"says, received {NETWORK_FILE} with {shape} and {count}"
        )
    try:
        built = build_network(
            parameters["architecture"], shape, dropout=parameters["dropout"],
            batch_normalisation=parameters["batch_normalisation"],
        )  # fmt: skip
    except ParameterError as error:
        return [*problems, *error.problems]
    if _outline(network) != _outline(built):
        problems.append(
            f"expected the layers of architecture={parameters['architecture']}, received {NETWORK_FILE} with other "
            f"layers or sizes ({len(network.layers)}: {', '.join(layer.name for layer in network.layers[:4])} ...)"
        )
    broken = [weight.path for weight in network.weights
              if not np.isfinite(keras.ops.convert_to_numpy(weight)).all()]  # fmt: skip
    if broken:
        problems.append(f"expected finite weights, received {NETWORK_FILE} with others in {', '.join(broken[:5])}")
    return problems


def _quality_problems(network: Any, origin: ModelOrigin, data: SplitData, prepared: PreparedImages) -> list[str]:
    """Predict the validation images: a network that is not as good as its history says is another one's."""
    from cxr.evaluation.metrics import auroc, log_loss
    from cxr.evaluation.prediction import predict_rows
    from cxr.inference.predictor import Predictor

    # The validation of a training shows each image once to the network, also if predictions are to be mirrored.
    predictor = Predictor(network, replace(origin.metadata, mirrored=False))
    paths, labels = data.images_of("validation")
    probability = predict_rows(predictor, prepared.images, prepared.rows(paths), batch_size=BATCH_SIZE)
    row = origin.best_row
    measured = {"val_loss": float(log_loss(labels, probability)), "val_auroc": float(auroc(labels, probability))}
    tolerance = {"val_loss": LOSS_TOLERANCE * row["val_loss"], "val_auroc": AUROC_TOLERANCE}
    return [
        f"expected a network with {name}={row[name]:.4f} on the validation images, as {HISTORY_FILE} says of its best "
        f"epoch, received {NETWORK_FILE} with {name}={value:.4f}; the files of two models may have been mixed up"
        for name, value in measured.items()
        if not abs(value - row[name]) <= tolerance[name]
    ]


def _outline(network: Any) -> Sequence[tuple[str, list[tuple[int, ...]]]]:
    """Kind of each layer, and the shapes of its weights."""
    return [(type(layer).__name__, [tuple(weight.shape) for weight in layer.weights]) for layer in network.layers]
