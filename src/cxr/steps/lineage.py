"""Lineage: print where a version comes from."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cxr.steps.version_fields import VersionStep


class ShowLineage(VersionStep):
    """Print where a version comes from: data, commit, parameters, packages, training, evaluation, model card."""

    name: ClassVar[str] = "lineage"
    follows: ClassVar[str] = "predict"

    format: Annotated[
        Literal["text", "json"], Field(description="Output format: lines for people, or JSON for programs.")
    ] = "text"

    def run(self) -> None:
        """Read the lineage and print it."""
        from cxr.tracking.lineage_reader import read_lineage

        version = read_lineage(self.store, self.registered_name, self.version)
        text = version.to_text() if self.format == "text" else json.dumps(version.to_dict(), indent=2)
        self.show(*text.splitlines())
