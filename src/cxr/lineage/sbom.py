"""The software bill of materials of a version: the pinned packages that it was trained with, as CycloneDX."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

import cxr
from cxr.lineage.provenance import read_pins, requirements_digest

SBOM_FILE = "sbom.cdx.json"
"""File in the root of a version's files."""
_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # RFC 9562's for addresses


def write_sbom(environment: str | None, folders: Sequence[Path], path: Path) -> bool:
    """Write the bill of materials of a training. The same environment gives the same file, byte by byte.

    Args:
        environment: what :func:`cxr.lineage.provenance.describe_environment` said at the training; None if it is
            unknown.
        folders: folders with requirement files; one of them should still be the one that ``environment`` names.
        path: file to write.

    Returns:
        Whether it was written. It is not if the environment is unknown, or if its requirement file has changed since.
    """
    requirements = _find_requirements(environment or "", folders)
    if requirements is None or environment is None:
        return False
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    versions = _pinned_here(requirements) | _different_versions(environment)
    program = Component(
        name=cxr.__name__, version=cxr.__version__, type=ComponentType.APPLICATION, bom_ref=cxr.__name__
    )
    packages = []
    for name, version in versions.items():
        address = PackageURL("pypi", None, name, version)
        reference = address.to_string()
        packages.append(Component(name=name, version=version, purl=address, bom_ref=reference))
    content = "\n".join([environment, *(str(package.bom_ref) for package in packages)])
    bom = Bom(components=packages, serial_number=uuid.uuid5(_NAMESPACE, content))
    bom.metadata.timestamp = None  # type: ignore[assignment]  # the schema needs none, and a time would differ each time
    bom.metadata.component = program
    bom.metadata.properties.add(Property(name="cxr:environment", value=environment))
    bom.register_dependency(program, packages)
    path.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n", encoding="utf-8")
    return True


def _find_requirements(environment: str, folders: Sequence[Path]) -> Path | None:
    """The requirement file that a description of an environment names, if it has not changed since."""
    match = re.match(r"(\S+) sha256:([0-9a-f]{64})", environment)
    if match is None:
        return None
    candidates = (folder / match[1] for folder in folders)
    return next((path for path in candidates if requirements_digest(path) == match[2]), None)


def _pinned_here(requirements: Path) -> dict[str, str]:
    """Package to version, of the pins that hold on this operating system and version of Python."""
    lines = (line.partition("\\")[0] for line in read_pins(requirements) or [] if not line.startswith("--hash"))
    pins = [pin for pin in map(Requirement, lines) if pin.marker is None or pin.marker.evaluate()]
    return {pin.name: next(iter(pin.specifier)).version for pin in pins}


def _different_versions(environment: str) -> dict[str, str]:
    """Packages of which another version than the pinned one was installed, as far as the description names them."""
    _, _, packages = environment.partition(" differ: ")
    return dict(package.split(" ", 1) for package in packages.split(", ")) if packages else {}
