"""What the page was started with, carried from the step to Streamlit's script as text."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Settings:
    """Which model answers, and the limits of what is taken.

    Attributes:
        tracking_uri: address of the MLflow store.
        registered_name: name of the registered model.
        alias: alias whose version answers.
        fallback: alias to take while nobody has ``alias``; None for none.
        model: folder of a model that answers instead of a registered version; None for none.
        evaluation: folder of its evaluation; None finds it beside the models.
        reference: folder of what its training films look like; None finds it beside the models.
        seconds: time between two looks at the aliases.
        max_files: most films at once.
        max_megabytes: largest file.
        max_megapixels: largest picture, read from the header before decoding.
        read_seconds: longest time that reading a file may take.
        log_predictions: folder of the prediction log; None keeps none.
        log_pixels: whether the log also keeps the pictures.
    """

    tracking_uri: str = "sqlite:///mlflow.db"
    registered_name: str = "pneumonia-classifier"
    alias: str = "champion"
    fallback: str | None = "challenger"
    model: str | None = None
    evaluation: str | None = None
    reference: str | None = None
    seconds: float = 5.0
    max_files: int = 20
    max_megabytes: int = 32
    max_megapixels: float = 50.0
    read_seconds: float = 10.0
    log_predictions: str | None = None
    log_pixels: bool = False

    def to_text(self) -> str:
        """Write the settings as one word of a command line.

        Returns:
            JSON.
        """
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Settings:
        """Read what :meth:`to_text` wrote.

        Args:
            text: JSON.

        Returns:
            The settings.
        """
        return cls(**json.loads(text))
