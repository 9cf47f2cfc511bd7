"""Step: serve the page on which people upload radiographs and read the predictions."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from cxr.steps.model_fields import Fallback, RegionsStep
from cxr.steps.reading_fields import ReadingStep

if TYPE_CHECKING:
    from cxr.app.settings import AppSettings


class App(RegionsStep, ReadingStep):
    """Serve a page in the browser: upload radiographs, read the predictions of the champion, see what counted."""

    name: ClassVar[str] = "app"
    follows: ClassVar[str] = "webhook"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "reading", "app")

    fallback: Fallback = "challenger"
    seconds: Annotated[float, Field(gt=0, le=3600, description="Seconds between two looks at the aliases.")] = 5.0
    host: Annotated[str, Field(min_length=1, description="Address to listen on; 127.0.0.1: only this machine.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(ge=1, le=65535, description="Port to listen on.")] = 8501
    max_files: Annotated[int, Field(ge=1, le=1000, description="Largest number of images at once.")] = 20
    max_megabytes: Annotated[int, Field(ge=1, le=1000, description="Largest file.")] = 32
    max_megapixels: Annotated[
        float, Field(gt=0, le=1000, description="Largest image; read from the header before decoding.")
    ] = 50.0
    read_seconds: Annotated[float, Field(gt=0, le=600, description="Longest time that reading a file may take.")] = 10.0
    log_predictions: Annotated[
        Path | None, Field(description="Folder of the prediction log, for `cxr drift`; null keeps none.")
    ] = None
    log_pixels: Annotated[
        bool, Field(description="Also keep the images in the log: only with the consent of the patients.")
    ] = False

    def settings(self) -> AppSettings:
        """Collect the settings of the page.

        Returns:
            The fields of this step that the page needs.
        """
        from cxr.app.settings import AppSettings

        return AppSettings(**{field.name: getattr(self, field.name) for field in fields(AppSettings)})

    def run(self) -> None:
        """Serve until interrupted.

        Raises:
            ParameterError: if the address is in use or not allowed.
        """
        from cxr.app.server import serve
        from cxr.tracking.health import use_short_timeouts
        from cxr.tracking.signatures import TrustedKeys

        TrustedKeys.read(self.require_signature)  # a wrong file is an error here, and not only on the page
        use_short_timeouts()
        serve(self.settings(), self.host, self.port)
