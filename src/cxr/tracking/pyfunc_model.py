"""The registered model as MLflow runs it: image files in; probability, label and threshold out, or boxes.

MLflow keeps a copy of this file with each version and executes it to load the model, so nothing is pickled. The
version carries the package beside it. No other module imports this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from cxr.errors import ImageError
from cxr.images.base64_text import decode_base64
from cxr.images.dicom.reader import is_dicom

if TYPE_CHECKING:
    from cxr.images.strict_decoding import DecodedImage
    from cxr.regions.predictor import RegionPredictor

IMAGE_COLUMN = "image"
MODEL_ARTIFACT = "model"
FILE_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG")
"""First bytes of JPEG and PNG files."""


class PyfuncModel(PythonModel):  # type: ignore[misc]  # MLflow has no types
    """Predicts for image files with the calibration and threshold of the evaluation; a detector draws boxes."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load network and metadata.

        Args:
            context: MLflow's; its artifact ``model`` is the folder with ``model.keras`` and ``card.json``;
                ``paths`` in its model configuration says whether text may name files on this machine.
        """
        from cxr.models.metadata import ModelMetadata

        folder = Path(context.artifacts[MODEL_ARTIFACT])
        self._paths = bool((context.model_config or {}).get("paths", True))
        self._detector: RegionPredictor | None = None
        if ModelMetadata.read(folder).detector is not None:
            from cxr.regions.predictor import RegionPredictor

            self._detector = RegionPredictor.load(folder)
            return
        from cxr.inference.predictor import Predictor
        from cxr.inference.reference.reference import Reference

        self._predictor, self._reference = Predictor.load(folder), Reference.load(folder)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Predict for each image, or draw the boxes of its opacities.

        Args:
            context: MLflow's.
            model_input: the column ``image``, or one column of any name, as MLflow makes it of a list: raw
                files as bytes, files as base64 text, or paths.
            params: not used.

        Returns:
            A DataFrame, one row per image in order: ``probability`` (calibrated, 0 to 1), ``label``
            (``"NORMAL"`` or ``"PNEUMONIA"``; of a model with prediction sets also ``"UNCERTAIN"``), ``threshold``, and
            ``refusal``: why the image is no chest radiograph and its probability means nothing; empty for a chest
            radiograph. Of a detector one row per box that counts, by
            image and falling score: ``path`` (of an image that came as data its position, from 0), ``x``, ``y``,
            ``width`` and ``height`` in pixels of the original, and ``score`` (0 to 1).

        Raises:
            ImageError: if an image cannot be used.
        """
        from cxr.inference.image_input import decode_input
        from cxr.inference.predictor import BATCH_SIZE

        column = IMAGE_COLUMN if IMAGE_COLUMN in model_input.columns else model_input.columns[0]
        if self._detector is not None:
            return self._draw_boxes(self._detector, model_input[column].tolist())
        rows = []
        for start in range(0, len(model_input), BATCH_SIZE):
            values = model_input[column].iloc[start : start + BATCH_SIZE]
            images = [decode_input(self._read(value), number) for number, value in enumerate(values, start)]
            predictions = self._predictor.predict(images)
            rows += [
                (prediction.probability, prediction.label, prediction.threshold, self._refusal(image))
                for prediction, image in zip(predictions, images, strict=True)
            ]
        return pd.DataFrame(rows, columns=["probability", "label", "threshold", "refusal"])

    def _draw_boxes(self, detector: RegionPredictor, values: Sequence[Any]) -> pd.DataFrame:
        from cxr.inference.image_input import decode_input
        from cxr.inference.predictor import BATCH_SIZE

        paths, tables = [], [detector.predict({})]
        for start in range(0, len(values), BATCH_SIZE):
            images = {}
            for number, value in enumerate(values[start : start + BATCH_SIZE], start):
                source = self._read(value)
                paths.append(str(source) if isinstance(source, Path) else str(number))
                images[str(number)] = decode_input(source, number).grey
            tables.append(detector.predict(images))
        boxes = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
        return boxes.assign(path=[paths[int(number)] for number in boxes["path"]])

    def _refusal(self, image: DecodedImage) -> str:
        from cxr.inference.reference.refusals import find_refusal

        if self._reference is None:
            return ""
        refusal = find_refusal(self._reference, image, self._reference.features(image))
        return str(refusal) if refusal else ""

    def _read(self, value: Any) -> bytes | Path:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if isinstance(value, str):
            data = _from_base64(value)
            if data is not None:
                return data
        if self._paths and isinstance(value, str | Path):
            return Path(value)
        expected = "bytes, base64 text or a path" if self._paths else "bytes or base64 text of an image file"
        raise ImageError("unreadable", f"expected {expected}, received image={str(value)[:40]!r}")


def _from_base64(text: str) -> bytes | None:
    """Decode text in base64; None if it holds no image, and so is a path."""
    try:
        data = decode_base64(text)
    except ImageError:
        return None
    return data if data.startswith(FILE_SIGNATURES) or is_dicom(data) else None


set_model(PyfuncModel())
