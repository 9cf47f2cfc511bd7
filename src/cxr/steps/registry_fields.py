"""Fields of every step that reads or changes a registered model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Step

if TYPE_CHECKING:
    from cxr.tracking.store import Store


class RegistryStep(Step):
    """A step that reads or moves the aliases of a registered model."""

    sections: ClassVar[tuple[str, ...]] = ("tracking", "register")
    ignored_keys: ClassVar[frozenset[str]] = frozenset({"experiment", "include", "offline"})

    tracking_uri: Annotated[
        str, Field(min_length=1, description="Address of the MLflow store: sqlite:///FILE or http(s)://HOST.")
    ] = "sqlite:///mlflow.db"
    registered_name: Annotated[str, Field(min_length=1, description="Name of the registered model.")] = (
        "pneumonia-classifier"
    )

    @property
    def store(self) -> Store:
        """The tracking store."""
        from cxr.tracking.store import Store

        return Store(self.tracking_uri)
