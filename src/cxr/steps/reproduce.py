"""Reproduce: check out the commit of a version and say how its figures come about again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import Field

from cxr.errors import ParameterError
from cxr.steps.train import Train
from cxr.steps.version_fields import Versioned


class Reproduce(Versioned):
    """Check out the commit of a version into a new folder and print commands, data and figures that make it again."""

    name: ClassVar[str] = "reproduce"

    folder: Annotated[Path, Field(description="New or empty folder for the commit with the recorded files.")]
    repository: Annotated[Path, Field(description="Checkout that is cloned; it stays as it is.")] = Path()
    commit: Annotated[
        str | None,
        Field(pattern=r"^\w[\w./-]*$", description="Commit to check out; null takes the one that trained the version."),
    ] = None

    def run(self) -> None:
        """Follow the version back, check out, lay the recorded files over it, print the plan."""
        from cxr.lineage.reproduction import check_out, commit_of, lay_out, plan
        from cxr.tracking.lineage_reader import fetch_record, lineage

        found = lineage(self.tracking_uri, self.registered_name, self.version)
        with tempfile.TemporaryDirectory() as scratch:
            wanted = commit_of(found, self.commit)
            record = fetch_record(self.tracking_uri, found, Path(scratch))
            commit = check_out(self.repository, wanted, self.folder)
            changed = None if record is None else lay_out(record, self.folder)
            given = {} if record is None else _given(record, found.tags.get("model", ""))
        self.show(*plan(found, self.folder, commit, changed, given).to_text().splitlines())


def _given(record: Path, model: str) -> dict[str, Any]:
    """Values of a training that the recorded parameter file does not give: flags of a training by hand."""
    training, parameters = record / "training.json", record / "params.yaml"
    if not training.is_file() or not parameters.is_file():
        return {}
    used: Mapping[str, Any] = json.loads(training.read_text(encoding="utf-8")).get("parameters") or {}
    sections = yaml.safe_load(parameters.read_text(encoding="utf-8"))
    entry: Mapping[str, Any] = next(
        (sections[part][model] for part in ("models", "transfer") if model in (sections.get(part) or {})), {}
    )
    try:
        stated = Train.build(
            {**(sections.get("train") or {}), **entry, "model": model, "trained": record, "prepared": record}
        ).model_dump(mode="json")
    except ParameterError:  # of a commit whose parameters had other names
        return {}
    return {name: value for name, value in used.items() if name in stated and stated[name] != value}
