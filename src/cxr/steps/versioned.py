"""Fields of every step that is about one version of the registered model."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Positional
from cxr.steps.register import Register
from cxr.steps.tracked import Tracked


class Versioned(Tracked):
    """A step about one version; it reads the registry and changes nothing there."""

    sections: ClassVar[tuple[str, ...]] = ("tracking", "register")
    passed_over: ClassVar[frozenset[str]] = frozenset(Register.parameters()) - {
        "registered_name",
        "tracking_uri",
        "experiment",
    }

    version: Annotated[
        str, Positional(), Field(pattern=r"^[A-Za-z0-9_-]+$", description="Number or alias of the version.")
    ] = "champion"
    registered_name: str = Field("pneumonia-classifier", min_length=1, description="Name of the registered model.")
