"""A model whose networks run in ONNX Runtime: the same answers, without Keras in the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from cxr.errors import DataError
from cxr.evaluation.calibration import apply_temperature
from cxr.export.onnx_file import OnnxNetwork
from cxr.export.probability_network import input_names
from cxr.images.recipes import Recipe
from cxr.inference.image_input import ImageInput
from cxr.inference.predictor import BATCH_SIZE, Predictor
from cxr.models.metadata import ModelMetadata

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OnnxPredictor(Predictor):
    """A classifier or an ensemble as one ONNX file, with its metadata.

    It has no Keras network: what needs gradients or single networks, such as explanations, takes the model itself.

    Attributes:
        metadata: the model's metadata.
    """

    def __init__(self, network: OnnxNetwork, metadata: ModelMetadata) -> None:
        """Join a file and the metadata of its model.

        Args:
            network: the file, as :func:`cxr.export.agreement.write_checked_file` writes it.
            metadata: calibrated metadata of the model.
        """
        self.metadata = metadata
        self._onnx = network
        cards = [member.card for member in metadata.weighted_members] or [metadata]
        self._recipes = tuple(dict.fromkeys(Recipe.from_dict(card.recipe) for card in cards))

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Recipes of all networks in the file, each once."""
        return self._recipes

    def predict_raw(
        self, prepared: Mapping[Recipe, NDArray[np.uint8]], batch_size: int = BATCH_SIZE
    ) -> NDArray[np.float64]:
        """Compute the probabilities before calibration, from the calibrated ones that the file gives.

        Calibrating them again gives what the file gave.

        Args:
            prepared: each of :attr:`recipes` to the images that it gave, ``(n, size, size, planes)`` uint8.
            batch_size: images per network call.

        Returns:
            ``(n,)`` float64 in [0, 1]. Close to 0 and 1 they are as coarse as 32-bit probabilities.
        """
        names = dict(zip(self._recipes, input_names(self._recipes), strict=True))
        count = len(prepared[self._recipes[0]])
        calibrated = np.empty(count)
        for start in range(0, count, batch_size):
            span = slice(start, start + batch_size)
            calibrated[span] = self._onnx.probabilities(
                {name: np.ascontiguousarray(prepared[recipe][span]) for recipe, name in names.items()}
            )
        temperature, _ = self.operating_point()
        return np.asarray(apply_temperature(calibrated, 1 / temperature), dtype=np.float64)

    def prepare(self, inputs: Sequence[ImageInput]) -> NoReturn:
        """Raise DataError: the networks of the file may take different images."""
        self._refuse("prepare")

    def probabilities(self, images: NDArray[np.uint8], batch_size: int = BATCH_SIZE) -> NoReturn:
        """Raise DataError: the file is not one network."""
        self._refuse("probabilities")

    @property
    def network_and_head(self) -> NoReturn:
        """Raise DataError: the file has no layers."""
        self._refuse("network_and_head")

    @property
    def logit_head(self) -> NoReturn:
        """Raise DataError: the file has no layers."""
        self._refuse("logit_head")

    def _refuse(self, name: str) -> NoReturn:
        raise DataError(
            f"expected a Keras network for {name}, received {self.metadata.model} in ONNX Runtime, which has none; "
            "load the model itself with runtime=keras"
        )
