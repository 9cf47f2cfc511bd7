"""Fields of every step that reads or changes a registered model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Step
from cxr.steps.signature_fields import RequireSignature, open_store

if TYPE_CHECKING:
    from cxr.tracking.store import Store


REGISTRATION_KEYS = frozenset({"include", "signing_key"})
"""Keys of the section ``register`` that only registration uses."""


class RegistryStep(Step):
    """A step that reads or moves the aliases of a registered model."""

    sections: ClassVar[tuple[str, ...]] = ("tracking", "register")
    ignored_keys: ClassVar[frozenset[str]] = REGISTRATION_KEYS | {"experiment", "offline", "require_signature"}

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


class VersionFilesStep(RegistryStep):
    """A step that reads the files of registered versions, only signed ones if that is required."""

    ignored_keys: ClassVar[frozenset[str]] = RegistryStep.ignored_keys - {"require_signature"}

    require_signature: RequireSignature = None

    @property
    def store(self) -> Store:
        """The tracking store, with the keys that a version must be signed by."""
        return open_store(self.tracking_uri, self.require_signature)
