"""Lineage: say where a version comes from."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cxr.steps.version_fields import Versioned


class LineageOf(Versioned):
    """Print where a version comes from: data, commit, parameters, packages, training, evaluation, model card."""

    name: ClassVar[str] = "lineage"

    format: Annotated[
        Literal["text", "json"], Field(description="What is printed: lines for people, or JSON for programs.")
    ] = "text"

    def run(self) -> None:
        """Follow the version back and print what is found."""
        from cxr.tracking.lineage_reader import lineage

        found = lineage(self.tracking_uri, self.registered_name, self.version)
        text = found.to_text() if self.format == "text" else json.dumps(found.to_dict(), indent=2)
        self.show(*text.splitlines())
