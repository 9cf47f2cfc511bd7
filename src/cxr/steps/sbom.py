"""Sbom: print the bill of materials of a version."""

from __future__ import annotations

from typing import ClassVar

from cxr.steps.registry_fields import VersionFilesStep
from cxr.steps.version_fields import VersionStep


class ShowSbom(VersionFilesStep, VersionStep):
    """Print the bill of materials of a version, CycloneDX in JSON: the packages that it was trained with."""

    name: ClassVar[str] = "sbom"
    follows: ClassVar[str] = "sign"

    def run(self) -> None:
        """Read it and print it."""
        from cxr.tracking.version_evidence import read_sbom

        self.show(*read_sbom(self.store, self.registered_name, self.version).splitlines())
