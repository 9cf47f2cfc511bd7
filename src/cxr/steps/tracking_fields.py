"""Fields of every step that writes to MLflow."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from cxr.errors import ParameterError
from cxr.steps.base import Step


class Tracked(Step):
    """A step whose figures and files also go to MLflow; where they go alters no output."""

    without_effect: ClassVar[tuple[str, ...]] = ("tracking",)

    tracking_uri: Annotated[
        str,
        Field(description="Address of the MLflow store: sqlite:///FILE, http(s)://HOST; empty logs nothing."),
    ] = "sqlite:///mlflow.db"
    experiment: Annotated[
        str,
        Field(min_length=1, description="MLflow experiment; runs on drawn phantoms go to one of their own."),
    ] = "pneumonia"
    offline: Annotated[
        bool,
        Field(description="Leave the store alone; a later step with offline false logs the run from its files."),
    ] = False

    @property
    def store(self) -> str:
        """Address of the store to log to; empty when nothing is logged."""
        return "" if self.offline else self.tracking_uri

    def needed_store(self) -> str:
        """Address of the store, for a step that is about nothing else.

        Returns:
            The address.

        Raises:
            ParameterError: if there is none.
        """
        if self.store:
            return self.store
        raise ParameterError(
            [
                f"{self.name}: expected a store to work on, received offline={str(self.offline).lower()} with "
                f"tracking_uri={self.tracking_uri!r}; set tracking.offline to false and tracking.tracking_uri to its "
                "address"
            ]
        )
