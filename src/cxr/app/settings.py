"""Settings of the page, which travel as text from the step to Streamlit's script."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from cxr.serving.model_choice import ModelChoice


@dataclass(frozen=True)
class AppSettings:
    """Which model predicts, which detector draws boxes, and the limits of files.

    Attributes:
        tracking_uri: address of the MLflow store.
        choice: the classifier that predicts and the detector that draws boxes.
        require_signature: file of public keys that a version must be signed by; None asks for no signature.
        seconds: time between two looks at the aliases.
        max_files: largest number of images at once.
        max_megabytes: largest file.
        max_megapixels: largest image, read from the header before decoding.
        other_modalities: DICOM modalities that count as radiography beside those of the standard.
        scale_16_bit: whether PNG of 16 bits is accepted and scaled.
        read_seconds: longest time that reading a file may take.
        log_predictions: folder of the prediction log; None keeps none.
        log_pixels: whether the log also keeps the images.
    """

    tracking_uri: str
    choice: ModelChoice
    require_signature: Path | None
    seconds: float
    max_files: int
    max_megabytes: int
    max_megapixels: float
    other_modalities: list[str]
    scale_16_bit: bool
    read_seconds: float
    log_predictions: Path | None
    log_pixels: bool

    def to_text(self) -> str:
        """Write the settings as JSON, for one argument of a command line."""
        return TypeAdapter(AppSettings).dump_json(self).decode()

    @classmethod
    def from_text(cls, text: str) -> AppSettings:
        """Read what :meth:`to_text` wrote."""
        return TypeAdapter(AppSettings).validate_json(text)
