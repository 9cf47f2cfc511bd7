"""Fields of every step that is about one version of the registered model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cxr.steps.base import Positional
from cxr.steps.registry_fields import RegistryStep


class VersionStep(RegistryStep):
    """A step about one version; it reads the registry and changes nothing there."""

    version: Annotated[
        str, Positional(), Field(pattern=r"^[A-Za-z0-9_-]+$", description="Number or alias of the version.")
    ] = "champion"
