"""From an image's bytes to an answer: one path that evaluation, registry and application share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Union

import numpy as np

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.errors import DataError, ImageError, MissingInputError
from cxr.files import NETWORK_FILE
from cxr.models.metadata import MEMBERS, ModelCard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxr.images.decoding import Picture
    from cxr.images.recipes import Recipe

BATCH_SIZE = 64
Item = Union[bytes, str, Path, "Picture"]
_RAW = (bytes, bytearray, memoryview)


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        probability: calibrated probability of pneumonia, 0 to 1.
        label: ``"PNEUMONIA"`` when the probability is at or above the threshold, else ``"NORMAL"``.
        threshold: operating point on the calibrated probability, 0 to 1.
        raw_probability: the network's own output, 0 to 1, before calibration; of an ensemble what it pools.
    """

    probability: float
    label: str
    threshold: float
    raw_probability: float


class Predictor:
    """A network with its card: recipe, calibration and threshold are applied as in evaluation.

    Attributes:
        card: the model's card.
        recipe: the image recipe named by the card.
    """

    def __init__(self, model: Any, card: ModelCard) -> None:
        """Join a network and its card.

        Args:
            model: Keras model, input ``(batch, height, width, channels)`` float32 in [0, 1], output
                ``(batch, 1)`` sigmoid or ``(batch, 2)`` softmax.
            card: the card; one without calibration gives raw probabilities only.
        """
        from cxr.images.recipes import Recipe

        self.card = card
        self.recipe = Recipe.from_dict(card.recipe)
        self._network, self._head = _split_head(model)

    @classmethod
    def load(cls, folder: Path, card: ModelCard | None = None) -> Predictor:
        """Load a network, or an ensemble, without running code that the file might carry (Keras safe mode).

        Args:
            folder: folder with ``model.keras`` and ``card.json``; of an ensemble with ``card.json`` and
                ``members/``.
            card: card to use instead of the folder's, e.g. the calibrated one of the evaluation.

        Returns:
            The predictor; a :class:`PooledPredictor` if the card names members.

        Raises:
            MissingInputError: if a file is missing.
        """
        path = folder / NETWORK_FILE
        if not path.is_file() and not (folder / MEMBERS).is_dir():
            raise MissingInputError(f"expected a network, received {path} (no such file); run `cxr train`")
        own = card if card is not None else ModelCard.read(folder)
        if own.members:
            return PooledPredictor([cls.load(folder / MEMBERS / one.model, one.card) for one in own.pooled], own)
        import keras

        return cls(keras.saving.load_model(path, compile=False, safe_mode=True), own)

    def probabilities(self, images: NDArray[np.uint8], batch_size: int = BATCH_SIZE) -> NDArray[np.float64]:
        """The network's raw probabilities of pneumonia.

        The last layer is computed here in float64: a float32 probability has lost its digits near 1, and
        calibration would turn rounding that depends on the batch into differences of 1e-5.

        Args:
            images: prepared images ``(n, size, size, planes)``, uint8, as the recipe gives them.
            batch_size: images per network call; memory grows with it, answers do not depend on it.

        Returns:
            ``(n,)`` float64 in [0, 1], NaN nowhere.
        """
        from cxr.images.recipes import as_input

        out = np.empty(len(images), dtype=np.float64)
        for start in range(0, len(images), batch_size):
            batch = as_input(np.asarray(images[start : start + batch_size]), self.recipe)
            count = len(batch)
            # Sizes are powers of two, or the full batch: each size is compiled once, and one image is cheap.
            size = min(batch_size, 1 << (count - 1).bit_length())
            if count < size:
                batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, axis=0)])
            answer = np.asarray(self._network.predict_on_batch(batch), dtype=np.float64)[:count]
            out[start : start + count] = answer[:, -1] if self._head is None else _probability(answer, *self._head)
        return out

    def calibrated(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Apply the card's temperature.

        Args:
            raw: raw probabilities, any shape, 0 to 1.

        Returns:
            Calibrated probabilities, same shape, float64.

        Raises:
            MissingInputError: if the card isn't calibrated.
        """
        from cxr.evaluation.calibration import apply_temperature

        temperature, _ = self._operating_point()
        return np.asarray(apply_temperature(raw, temperature), dtype=np.float64)

    def prepare(self, items: Sequence[Item]) -> NDArray[np.uint8]:
        """Decode images and apply the recipe.

        Args:
            items: raw image files as bytes, paths of image files, or decoded pictures.

        Returns:
            ``(n, size, size, planes)`` uint8.

        Raises:
            ImageError: if an image cannot be used; its detail names the image.
        """
        return _prepare((self.recipe,), items)[self.recipe]

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Recipes that an image is prepared by before this predictor can answer for it, each once."""
        return (self.recipe,)

    @property
    def logit_head(self) -> tuple[Any, NDArray[np.float64]]:
        """The network up to its last layer's input, and how the log odds of pneumonia grow with that input.

        Returns:
            Keras model to ``(batch, features)``, and the weights ``(features,)``; of a softmax of two their difference.

        Raises:
            DataError: if the network ends in something else than a sigmoid or a softmax of two.
        """
        if self._head is None:
            raise DataError(
                "expected a network that ends in a dense sigmoid or softmax of two, "
                f"received model={self.card.model} with layer={self._network.layers[-1].name}"
            )
        weights, _ = self._head
        return self._network, weights[:, -1] if weights.shape[1] == 1 else weights[:, 1] - weights[:, 0]

    def raw_of(self, prepared: Mapping[Recipe, NDArray[np.uint8]], batch_size: int = BATCH_SIZE) -> NDArray[np.float64]:
        """Raw probabilities of pneumonia for prepared images.

        Args:
            prepared: each of :attr:`recipes` to the images that it gave, ``(n, size, size, planes)`` uint8.
            batch_size: images per network call.

        Returns:
            ``(n,)`` float64 in [0, 1]; of an ensemble pooled, before its own temperature.
        """
        return self.probabilities(prepared[self.recipe], batch_size)

    def answers(self, raw: NDArray[np.float64]) -> list[Prediction]:
        """Calibrate raw probabilities and hold them against the threshold.

        Args:
            raw: raw probabilities, ``(n,)``, 0 to 1.

        Returns:
            One prediction per probability, in order.

        Raises:
            MissingInputError: if the card isn't calibrated.
        """
        _, threshold = self._operating_point()
        return [
            Prediction(float(probability), PNEUMONIA if probability >= threshold else NORMAL, threshold, float(one))
            for one, probability in zip(raw, self.calibrated(raw), strict=True)
        ]

    def predict(self, items: Sequence[Item]) -> list[Prediction]:
        """Answer for image files, as they are on disk or were uploaded, whatever they show.

        Args:
            items: raw image files as bytes, paths of image files, or decoded pictures.

        Returns:
            One prediction per item, in order.

        Raises:
            ImageError: if an image cannot be used; its detail names the image.
            MissingInputError: if the card isn't calibrated.
        """
        self._operating_point()
        answers: list[Prediction] = []
        for start in range(0, len(items), BATCH_SIZE):
            answers += self.answers(self.raw_of(_prepare(self.recipes, items[start : start + BATCH_SIZE])))
        return answers

    def _operating_point(self) -> tuple[float, float]:
        if self.card.temperature is None or self.card.threshold is None:
            raise MissingInputError(
                f"expected a calibrated card, received temperature={self.card.temperature}, "
                f"threshold={self.card.threshold} for model={self.card.model}; "
                "run `cxr evaluate` and use its card"
            )
        return self.card.temperature, self.card.threshold


class PooledPredictor(Predictor):
    """An ensemble: each member looks at the image in its own way, and their log odds are added up by weight.

    Attributes:
        card: the ensemble's card.
        members: its members with a weight, as the card lists them.
    """

    def __init__(self, members: Sequence[Predictor], card: ModelCard) -> None:
        """Join the members of an ensemble.

        Args:
            members: calibrated predictors, as ``card.pooled`` lists them.
            card: the ensemble's card.
        """
        self.card = card
        self.members = tuple(members)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Recipes of all members, each once."""
        return tuple(dict.fromkeys(recipe for member in self.members for recipe in member.recipes))

    def raw_of(self, prepared: Mapping[Recipe, NDArray[np.uint8]], batch_size: int = BATCH_SIZE) -> NDArray[np.float64]:
        """Pooled probabilities of pneumonia for prepared images, before the ensemble's own temperature.

        Args:
            prepared: each of :attr:`recipes` to the images that it gave, ``(n, size, size, planes)`` uint8.
            batch_size: images per network call.

        Returns:
            ``(n,)`` float64 in [0, 1].
        """
        from cxr.evaluation.calibration import pool

        answers = [member.calibrated(member.raw_of(prepared, batch_size)) for member in self.members]
        return pool(answers, [member.weight for member in self.card.pooled])

    def prepare(self, items: Sequence[Item]) -> NoReturn:
        """Refuse: members differ in their recipes.

        Args:
            items: raw image files.

        Raises:
            DataError: always.
        """
        self._refuse("prepare")

    def probabilities(self, images: NDArray[np.uint8], batch_size: int = BATCH_SIZE) -> NoReturn:
        """Refuse: members differ in the images that they take.

        Args:
            images: prepared images.
            batch_size: images per network call.

        Raises:
            DataError: always.
        """
        self._refuse("probabilities")

    @property
    def logit_head(self) -> NoReturn:
        """Refuse: each member has its own.

        Raises:
            DataError: always.
        """
        self._refuse("logit_head")

    def _refuse(self, asked: str) -> NoReturn:
        raise DataError(
            f"expected a single network for {asked}, received the ensemble {self.card.model} of "
            f"{', '.join(one.model for one in self.card.pooled)}; use predict, or one of its members"
        )


def picture_of(item: Item, number: int = 0) -> Picture:
    """Decode one image, and name it in the error if that cannot be done.

    Args:
        item: a raw image file as bytes, the path of one, or a decoded picture, which is given back.
        number: its place among others, for the error.

    Returns:
        The picture.

    Raises:
        ImageError: if it cannot be used; the detail names the image.
    """
    from cxr.images.decoding import Picture, decode_picture

    if isinstance(item, Picture):
        return item
    try:
        return decode_picture(bytes(item) if isinstance(item, _RAW) else Path(item).read_bytes())
    except OSError as error:
        raise ImageError("unreadable", f"{item!r}: {error.strerror or error}") from error
    except ImageError as error:
        name = f"image {number} ({len(item)} bytes)" if isinstance(item, _RAW) else str(item)
        raise ImageError(error.problem, f"{name}: {error.detail}") from error


def _prepare(recipes: Sequence[Recipe], items: Sequence[Item]) -> dict[Recipe, NDArray[np.uint8]]:
    """Decode each image once and apply each recipe to it: recipe to ``(n, size, size, planes)`` uint8."""
    from cxr.images.recipes import apply

    prepared: dict[Recipe, list[NDArray[np.uint8]]] = {recipe: [] for recipe in recipes}
    for number, item in enumerate(items):
        grey = picture_of(item, number).grey
        for recipe, images in prepared.items():
            images.append(apply(recipe, grey))
    return {recipe: np.stack(images) for recipe, images in prepared.items()}


Head = tuple["NDArray[np.float64]", "NDArray[np.float64]"]


def _split_head(model: Any) -> tuple[Any, Head | None]:
    """Part a network from its last dense layer; the network itself is left as it is.

    Returns:
        The network up to the layer's input, and the layer's weights ``(features, units)`` and bias
        ``(units,)``; or the whole network and None if it doesn't end in a sigmoid or a softmax of two.
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


def _probability(
    features: NDArray[np.float64], weights: NDArray[np.float64], bias: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logistic function of ``(n, 1)`` logits, or of the difference of ``(n, 2)`` softmax logits."""
    logits = features @ weights + bias
    z = logits[:, -1] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
    out: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -z))
    return out
