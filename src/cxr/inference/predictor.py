"""From the bytes of an image to a calibrated prediction: evaluation, registry, page and service share this code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.errors import DataError, MissingInputError
from cxr.files import METADATA_FILE, NETWORK_FILE
from cxr.inference.image_input import ImageInput, prepare_inputs
from cxr.models.metadata import MEMBERS_FOLDER, ModelMetadata
from cxr.models.prediction_sets import label_of
from cxr.models.stored_files import load_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxr.images.recipes import Recipe

BATCH_SIZE = 64
_Head = tuple["NDArray[np.float64]", "NDArray[np.float64]"]
"""Weights ``(features, units)`` and bias ``(units,)`` of a network's last layer."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        probability: calibrated probability of pneumonia, 0 to 1.
        label: ``"PNEUMONIA"`` when the probability is at or above the threshold, else ``"NORMAL"``. Of a model with
            prediction sets the class that fits alone, else ``"UNCERTAIN"``.
        threshold: operating point on the calibrated probability, 0 to 1.
        raw_probability: output of the network before calibration, 0 to 1; of an ensemble the pooled probability
            before the ensemble's own calibration.
        classes: the classes that fit the image: both, one or none; None if the model has no prediction sets.
    """

    probability: float
    label: str
    threshold: float
    raw_probability: float
    classes: tuple[str, ...] | None = None


class Predictor:
    """A network with its metadata: recipe, calibration and threshold are applied as in evaluation.

    Attributes:
        metadata: the model's metadata.
        recipe: the image recipe named by the metadata.
    """

    def __init__(self, model: Any, metadata: ModelMetadata) -> None:
        """Join a network and its metadata.

        Args:
            model: Keras model, input ``(batch, height, width, channels)`` float32 in [0, 1], output
                ``(batch, 1)`` sigmoid or ``(batch, 2)`` softmax.
            metadata: without calibration, the predictor gives raw probabilities only.
        """
        from cxr.images.recipes import Recipe

        self.metadata = metadata
        self.recipe = Recipe.from_dict(metadata.recipe)
        self._network, self._head = _split_head(model)

    @classmethod
    def load(cls, folder: Path, metadata: ModelMetadata | None = None) -> Predictor:
        """Load a network or an ensemble. Code that the file might carry is not executed (Keras safe mode).

        Args:
            folder: folder with ``model.keras`` and ``card.json``; of an ensemble with ``card.json`` and
                ``members/``.
            metadata: metadata to use instead of the folder's, e.g. with the calibration of an evaluation.

        Returns:
            The predictor; an :class:`EnsemblePredictor` if the metadata names members.

        Raises:
            MissingInputError: if a file is missing.
            DataError: if it is the folder of a detector, or a file is damaged.
        """
        path, members = folder / NETWORK_FILE, folder / MEMBERS_FOLDER
        if not path.is_file() and not members.is_dir():
            raise MissingInputError(f"expected a network, received {path} (no such file); run `cxr train`")
        if metadata is None:
            metadata = ModelMetadata.read(folder)
        expect_classifier(metadata, folder)
        if metadata.members:
            loaded = [cls.load(members / member.model, member.card) for member in metadata.weighted_members]
            return EnsemblePredictor(loaded, metadata)
        return cls(load_network(path), metadata)

    def probabilities(self, images: NDArray[np.uint8], batch_size: int = BATCH_SIZE) -> NDArray[np.float64]:
        """Compute the network's raw probabilities of pneumonia.

        If the metadata says ``mirrored``, the network also sees each image mirrored left to right, and the log odds of
        both answers are averaged, as an ensemble does with those of its members.

        Args:
            images: prepared images ``(n, size, size, planes)``, uint8, as the recipe gives them.
            batch_size: images per network call; memory grows with it, probabilities do not depend on it.

        Returns:
            ``(n,)`` float64 in [0, 1], never NaN.
        """
        plain = self._plain_probabilities(images, batch_size)
        if not self.metadata.mirrored:
            return plain
        from cxr.evaluation.calibration import pool_probabilities

        return pool_probabilities([plain, self._plain_probabilities(mirror(images), batch_size)], [0.5, 0.5])

    def _plain_probabilities(self, images: NDArray[np.uint8], batch_size: int) -> NDArray[np.float64]:
        """Compute the probabilities of the images as they are.

        The last layer is computed here in float64: a float32 probability loses its digits near 1, and calibration
        would turn rounding errors that depend on the batch into differences of 1e-5.
        """
        from cxr.images.recipes import network_batches

        probabilities = np.empty(len(images), dtype=np.float64)
        start = 0
        for batch, count in network_batches(images, self.recipe, batch_size):
            output = np.asarray(self._network.predict_on_batch(batch), dtype=np.float64)[:count]
            probabilities[start : start + count] = (
                output[:, -1] if self._head is None else _apply_head(output, *self._head)
            )
            start += count
        return probabilities

    def calibrated(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Apply the temperature of the metadata.

        Args:
            raw: raw probabilities, any shape, 0 to 1.

        Returns:
            Calibrated probabilities, same shape, float64.

        Raises:
            MissingInputError: if the model isn't calibrated.
        """
        from cxr.evaluation.calibration import apply_temperature

        temperature, _ = self.operating_point()
        return np.asarray(apply_temperature(raw, temperature), dtype=np.float64)

    def prepare(self, inputs: Sequence[ImageInput]) -> NDArray[np.uint8]:
        """Decode images and apply the recipe.

        Args:
            inputs: image files as bytes, paths of image files, or decoded images.

        Returns:
            ``(n, size, size, planes)`` uint8.

        Raises:
            ImageError: if an image cannot be used; its detail names the image.
        """
        return prepare_inputs((self.recipe,), inputs)[self.recipe]

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Recipes by which an image is prepared for this predictor, each once."""
        return (self.recipe,)

    @property
    def network_and_head(self) -> tuple[Any, _Head | None]:
        """The network without its last layer, and that layer's weights ``(features, units)`` and bias ``(units,)``.

        The whole network and None if it doesn't end in a dense sigmoid or softmax of two.
        """
        return self._network, self._head

    @property
    def logit_head(self) -> tuple[Any, NDArray[np.float64]]:
        """The network without its last layer, and the gradient of the log odds of pneumonia by that layer's input.

        Returns:
            Keras model to ``(batch, features)``, and the weights ``(features,)``; of a softmax of two their difference.

        Raises:
            DataError: if the network doesn't end in a sigmoid or a softmax of two.
        """
        if self._head is None:
            raise DataError(
                "expected a network that ends in a dense sigmoid or softmax of two, "
                f"received model={self.metadata.model} with layer={self._network.layers[-1].name}"
            )
        weights, _ = self._head
        return self._network, weights[:, -1] if weights.shape[1] == 1 else weights[:, 1] - weights[:, 0]

    def predict_raw(
        self, prepared: Mapping[Recipe, NDArray[np.uint8]], batch_size: int = BATCH_SIZE
    ) -> NDArray[np.float64]:
        """Compute raw probabilities of pneumonia for images prepared by all recipes.

        Args:
            prepared: each of :attr:`recipes` to the images that it gave, ``(n, size, size, planes)`` uint8.
            batch_size: images per network call.

        Returns:
            ``(n,)`` float64 in [0, 1]; of an ensemble pooled, before its own temperature.
        """
        return self.probabilities(prepared[self.recipe], batch_size)

    def calibrated_predictions(self, raw: NDArray[np.float64]) -> list[Prediction]:
        """Calibrate raw probabilities and label them, by the threshold or by the model's prediction sets.

        Args:
            raw: raw probabilities, ``(n,)``, 0 to 1.

        Returns:
            One prediction per probability, in order.

        Raises:
            MissingInputError: if the model isn't calibrated.
        """
        _, threshold = self.operating_point()
        sets = self.metadata.prediction_sets
        predictions = []
        for value, probability in zip(raw, self.calibrated(raw), strict=True):
            if sets is None:
                classes, label = None, PNEUMONIA if probability >= threshold else NORMAL
            else:
                classes = sets.classes(probability)
                label = label_of(classes)
            predictions.append(Prediction(float(probability), label, threshold, float(value), classes))
        return predictions

    def predict(self, inputs: Sequence[ImageInput]) -> list[Prediction]:
        """Predict for image files, whatever they show; no image is refused.

        Args:
            inputs: image files as bytes, paths of image files, or decoded images.

        Returns:
            One prediction per input, in order.

        Raises:
            ImageError: if an image cannot be used; its detail names the image.
            MissingInputError: if the model isn't calibrated.
        """
        self.operating_point()
        predictions: list[Prediction] = []
        for start in range(0, len(inputs), BATCH_SIZE):
            prepared = prepare_inputs(self.recipes, inputs[start : start + BATCH_SIZE])
            predictions += self.calibrated_predictions(self.predict_raw(prepared))
        return predictions

    def operating_point(self) -> tuple[float, float]:
        """Temperature and threshold.

        Raises:
            MissingInputError: if the model isn't calibrated.
        """
        temperature, threshold = self.metadata.temperature, self.metadata.threshold
        if temperature is None or threshold is None:
            raise MissingInputError(
                f"expected a calibrated model, received temperature={temperature}, threshold={threshold} "
                f"for model={self.metadata.model}; run `cxr evaluate` and use the {METADATA_FILE} that it writes"
            )
        return temperature, threshold


class EnsemblePredictor(Predictor):
    """An ensemble: each member has its own recipe, and their log odds are added with the members' weights.

    Attributes:
        metadata: the ensemble's metadata.
        members: the members with a weight above 0, in the order of the metadata.
    """

    def __init__(self, members: Sequence[Predictor], metadata: ModelMetadata) -> None:
        """Join the members of an ensemble.

        Args:
            members: calibrated predictors, in the order of ``metadata.weighted_members``.
            metadata: the ensemble's metadata.
        """
        self.metadata = metadata
        self.members = tuple(members)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Recipes of all members, each once."""
        return tuple(dict.fromkeys(recipe for member in self.members for recipe in member.recipes))

    def predict_raw(
        self, prepared: Mapping[Recipe, NDArray[np.uint8]], batch_size: int = BATCH_SIZE
    ) -> NDArray[np.float64]:
        """Compute pooled probabilities of pneumonia, before the ensemble's own temperature.

        Args:
            prepared: each of :attr:`recipes` to the images that it gave, ``(n, size, size, planes)`` uint8.
            batch_size: images per network call.

        Returns:
            ``(n,)`` float64 in [0, 1].
        """
        from cxr.evaluation.calibration import pool_probabilities

        calibrated = [member.calibrated(member.predict_raw(prepared, batch_size)) for member in self.members]
        return pool_probabilities(calibrated, [member.weight for member in self.metadata.weighted_members])

    def prepare(self, inputs: Sequence[ImageInput]) -> NoReturn:
        """Raise DataError: the members have different recipes."""
        self._refuse("prepare")

    def probabilities(self, images: NDArray[np.uint8], batch_size: int = BATCH_SIZE) -> NoReturn:
        """Raise DataError: the members take different images."""
        self._refuse("probabilities")

    @property
    def logit_head(self) -> NoReturn:
        """Raise DataError: each member has its own."""
        self._refuse("logit_head")

    def _refuse(self, name: str) -> NoReturn:
        names = ", ".join(member.model for member in self.metadata.weighted_members)
        raise DataError(
            f"expected a single network for {name}, received the ensemble {self.metadata.model} of {names}; "
            "use predict, or one of its members"
        )


def expect_classifier(metadata: ModelMetadata, folder: Path) -> None:
    """Refuse a detector.

    Args:
        metadata: metadata of a model.
        folder: the model's folder, for the message.

    Raises:
        DataError: if the model is a detector.
    """
    if metadata.detector is not None:
        raise DataError(
            f"expected a classifier, received model={metadata.model} in {folder}, a detector, which draws boxes; "
            "give the folder of a classifier"
        )


def mirror(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirror prepared images left to right.

    Args:
        images: ``(n, height, width, planes)``.

    Returns:
        A view of the same shape.
    """
    return images[:, :, ::-1]


def _split_head(model: Any) -> tuple[Any, _Head | None]:
    """Split a network before its last dense layer; the network itself is not changed.

    Returns:
        The network up to the layer's input, and the layer's weights and bias; or the whole network and None if it
        doesn't end in a sigmoid or a softmax of two.
    """
    import keras

    last = model.layers[-1]
    if not isinstance(last, keras.layers.Dense):
        return model, None
    if (keras.activations.serialize(last.activation), last.units) not in {("sigmoid", 1), ("softmax", 2)}:
        return model, None
    weights = keras.ops.convert_to_numpy(last.kernel).astype(np.float64)
    bias = keras.ops.convert_to_numpy(last.bias).astype(np.float64) if last.use_bias else np.zeros(last.units)
    return keras.Model(model.inputs, last.input), (weights, bias)


def _apply_head(
    features: NDArray[np.float64], weights: NDArray[np.float64], bias: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logistic function of ``(n, 1)`` logits, or of the difference of ``(n, 2)`` softmax logits."""
    logits = features @ weights + bias
    log_odds = logits[:, -1] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
    with np.errstate(invalid="ignore"):  # NaN stays NaN, and the caller refuses it
        probabilities: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -log_odds))
    return probabilities
