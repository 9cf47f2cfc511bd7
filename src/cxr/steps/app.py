"""App: serve the page on which people upload radiographs and read the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.model_fields import Answering, Fallback


class App(Answering):
    """Serve a page in the browser: upload radiographs, read the answers of the champion, see where it looked."""

    name: ClassVar[str] = "app"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "app")

    fallback: Fallback = "challenger"
    seconds: Annotated[float, Field(gt=0, le=3600, description="Seconds between two looks at the aliases.")] = 5.0
    host: Annotated[str, Field(min_length=1, description="Address to listen on; 127.0.0.1 is this machine alone.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(ge=1, le=65535, description="Port to listen on.")] = 8501
    max_files: Annotated[int, Field(ge=1, le=1000, description="Most films at once.")] = 20
    max_megabytes: Annotated[int, Field(ge=1, le=1000, description="Largest file.")] = 32
    max_megapixels: Annotated[
        float, Field(gt=0, le=1000, description="Largest picture; read from the header before decoding.")
    ] = 50.0
    read_seconds: Annotated[float, Field(gt=0, le=600, description="Longest time that reading a file may take.")] = 10.0
    log_predictions: Annotated[
        Path | None, Field(description="Folder of the prediction log, for `cxr drift`; null keeps none.")
    ] = None
    log_pixels: Annotated[
        bool, Field(description="Keep the pictures in the log as well: only with leave of the patients.")
    ] = False

    def run(self) -> None:
        """Serve until interrupted.

        Raises:
            ParameterError: if the address cannot be had.
        """
        from cxr.app.server import serve
        from cxr.app.settings import Settings
        from cxr.tracking.registry_reader import ask_briefly

        ask_briefly()
        settings = Settings(
            tracking_uri=self.tracking_uri,
            registered_name=self.registered_name,
            alias=self.alias,
            fallback=self.fallback,
            model=_text(self.model),
            evaluation=_text(self.evaluation),
            reference=_text(self.reference),
            seconds=self.seconds,
            max_files=self.max_files,
            max_megabytes=self.max_megabytes,
            max_megapixels=self.max_megapixels,
            read_seconds=self.read_seconds,
            log_predictions=_text(self.log_predictions),
            log_pixels=self.log_pixels,
        )
        serve(settings, self.host, self.port)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
