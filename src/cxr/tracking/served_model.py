"""The registered model as MLflow runs it: image files in, probability, label and threshold out.

MLflow keeps a copy of this file with each version and executes it to load the model, so nothing is pickled;
the package travels beside it. No other module imports this one.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from cxr.errors import ImageError
from cxr.images.dicom import is_dicom

IMAGE_COLUMN = "image"
MODEL_ARTIFACT = "model"
MAGIC = (b"\xff\xd8\xff", b"\x89PNG")
"""How JPEG and PNG files begin."""


class ServedModel(PythonModel):  # type: ignore[misc]  # MLflow has no types
    """Answers for image files with the calibration and threshold of the evaluation."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load network and card.

        Args:
            context: MLflow's; its artifact ``model`` is the folder with ``model.keras`` and ``card.json``;
                ``paths`` in its model configuration says whether text may name files on this machine.
        """
        from cxr.prediction import Predictor

        self._predictor = Predictor.load(Path(context.artifacts[MODEL_ARTIFACT]))
        self._paths = bool((context.model_config or {}).get("paths", True))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Answer for each image.

        Args:
            context: MLflow's.
            model_input: the column ``image``, or one column of any name, as MLflow makes it of a list: raw
                files as bytes, files as base64 text, or paths.
            params: not used.

        Returns:
            A DataFrame, one row per image in order: ``probability`` (calibrated, 0 to 1), ``label``
            (``"NORMAL"`` or ``"PNEUMONIA"``), ``threshold``.

        Raises:
            ImageError: if an image cannot be used.
        """
        column = IMAGE_COLUMN if IMAGE_COLUMN in model_input.columns else model_input.columns[0]
        answers = self._predictor.predict([self._item(value) for value in model_input[column]])
        rows = [(one.probability, one.label, one.threshold) for one in answers]
        return pd.DataFrame(rows, columns=["probability", "label", "threshold"])

    def _item(self, value: Any) -> bytes | Path:
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
    """Decode base64 text or a data address; None if the text isn't an image in base64 (a path, then)."""
    payload = text.partition(",")[2] if text.startswith("data:") else text
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if data.startswith(MAGIC) or is_dicom(data) else None


set_model(ServedModel())
