"""Reproduce: check out the commit of a version and say how to get its measures again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from cxr.files import scratch_folder
from cxr.steps.train import Train
from cxr.steps.version_fields import VersionStep


class Reproduce(VersionStep):
    """Check out the commit of a version into a new folder, and print the commands, data and measures to expect."""

    name: ClassVar[str] = "reproduce"
    follows: ClassVar[str] = "lineage"

    folder: Annotated[Path, Field(description="New or empty folder for the commit with the recorded files.")]
    repository: Annotated[Path, Field(description="Checkout to clone; it does not change.")] = Path()
    commit: Annotated[
        str | None,
        Field(pattern=r"^\w[\w./-]*$", description="Commit to check out; null takes the one that trained the version."),
    ] = None

    def run(self) -> None:
        """Read the lineage, check out the commit, restore the recorded files and print the plan."""
        from cxr.lineage.reproduction import (
            clone_at_commit,
            plan_reproduction,
            restore_recorded_files,
            training_commit,
            unrecorded_parameters,
        )
        from cxr.tracking.lineage_reader import fetch_record, read_lineage

        version = read_lineage(self.store, self.registered_name, self.version)
        model = version.tags.get("model", "")
        with scratch_folder() as scratch:
            training_commit_name = training_commit(version, self.commit)
            record = fetch_record(self.store, version, scratch)
            commit = clone_at_commit(self.repository, training_commit_name, self.folder)
            changed_files = None if record is None else restore_recorded_files(record, self.folder)

            def resolve(values: dict[str, Any]) -> dict[str, Any]:
                training = Train.build({**values, "model": model, "trained": record, "prepared": record})
                return training.model_dump(mode="json")

            parameters = {} if record is None else unrecorded_parameters(record, model, resolve)
        plan = plan_reproduction(version, self.folder, commit, changed_files, parameters)
        self.show(*plan.to_text().splitlines())
