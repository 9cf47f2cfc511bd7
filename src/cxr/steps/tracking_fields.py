"""Fields of every step that writes to MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from cxr.errors import ParameterError
from cxr.steps.base import Step

if TYPE_CHECKING:
    from cxr.tracking.store import Store


class TrackingStep(Step):
    """A step that also logs its figures and files to MLflow; the choice of the store changes no output."""

    imports_slowly: ClassVar[bool] = True
    sections_without_effect: ClassVar[tuple[str, ...]] = ("tracking",)

    tracking_uri: Annotated[
        str,
        Field(description="Address of the MLflow store: sqlite:///FILE, http(s)://HOST; empty logs nothing."),
    ] = "sqlite:///mlflow.db"
    experiment: Annotated[
        str,
        Field(min_length=1, description="MLflow experiment; runs on phantoms go to a separate one."),
    ] = "pneumonia"
    offline: Annotated[
        bool,
        Field(description="Do not use the store; a later step with offline false logs the run from its files."),
    ] = False

    @property
    def store(self) -> Store | None:
        """The tracking store to log to; None when nothing is logged."""
        from cxr.tracking.store import Store

        return None if self.offline or not self.tracking_uri else Store(self.tracking_uri)

    def check_store(self) -> None:
        """Check before long work that its result can be logged.

        Raises:
            RegistryError: if the store does not answer.
        """
        if self.store is not None:
            self.store.connect()

    def required_store(self) -> Store:
        """The tracking store, for a step that cannot do anything without one.

        Raises:
            ParameterError: if there is none.
        """
        if self.store is None:
            raise ParameterError(
                [
                    f"{self.name}: expected a store to work on, received offline={str(self.offline).lower()} with "
                    f"tracking_uri={self.tracking_uri!r}; set tracking.offline to false and tracking.tracking_uri to "
                    "its address"
                ]
            )
        return self.store
