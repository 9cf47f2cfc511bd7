"""The bill of materials lists the packages of a training, is valid, and the same however often it is written."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cxr.lineage.provenance import describe_environment, requirements_digest
from cxr.lineage.sbom import write_sbom

PINS = """\
numpy==2.3.1 ; sys_platform == 'linux' or sys_platform == 'darwin' \\
    --hash=sha256:aaaa
Pillow==12.0.0 \\
    --hash=sha256:bbbb
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:cccc
"""


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    """A folder with a file of pins."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "run.txt").write_text(PINS)
    return tmp_path / "requirements"


def environment(requirements: Path, ending: str = "") -> str:
    return f"run.txt sha256:{requirements_digest(requirements / 'run.txt')}{ending}"


def write(requirements: Path, description: str | None, path: Path) -> dict[str, Any]:
    assert write_sbom(description, [requirements.parent / "nowhere", requirements], path)
    return dict(json.loads(path.read_text()))


def test_the_pinned_packages_of_this_project_make_a_valid_bill(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "sbom.cdx.json"
    bill = write(repository / "requirements", describe_environment(repository / "requirements"), path)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text()) is None
    packages = {entry["purl"] for entry in bill["components"]}
    assert {f"pkg:pypi/{name}@{metadata.version(name)}" for name in ("numpy", "keras", "mlflow")} <= packages
    assert bill["metadata"]["component"]["name"] == "cxr"
    assert {entry["ref"] for entry in bill["dependencies"]} == packages | {"cxr"}


def test_only_pins_of_this_system_are_listed_and_the_second_bill_is_the_first(
    requirements: Path, tmp_path: Path
) -> None:
    description = environment(requirements)
    bill = write(requirements, description, tmp_path / "first.json")
    assert [(entry["name"], entry["version"]) for entry in bill["components"]] == [
        ("Pillow", "12.0.0"), ("numpy", "2.3.1"),
    ]  # fmt: skip
    assert bill["metadata"]["properties"] == [{"name": "cxr:environment", "value": description}]
    write(requirements, description, tmp_path / "second.json")
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    (requirements / "run.txt").write_text(PINS.replace("2.3.1", "2.3.2"))
    other = write(requirements, environment(requirements), tmp_path / "other.json")
    assert other["serialNumber"] != bill["serialNumber"]


def test_packages_that_differed_from_their_pins_are_listed_as_they_were(requirements: Path, tmp_path: Path) -> None:
    description = environment(requirements, ", but 1 packages differ: numpy 2.2.0")
    bill = write(requirements, description, tmp_path / "sbom.json")
    assert {entry["name"]: entry["version"] for entry in bill["components"]} == {"Pillow": "12.0.0", "numpy": "2.2.0"}


def test_no_bill_is_written_for_pins_that_have_changed_since_or_are_unknown(requirements: Path, tmp_path: Path) -> None:
    description, path = environment(requirements), tmp_path / "sbom.json"
    (requirements / "run.txt").write_text(PINS.replace("2.3.1", "2.3.2"))
    assert not write_sbom(description, [requirements], path)
    assert not write_sbom(None, [requirements], path)
    assert not path.exists()
