"""A step in a container of a pipeline: the parts of the command line that only a pipeline writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from cxr.errors import ParameterError
from cxr.files import scratch_folder
from cxr.steps.base import Input, Step

EXECUTOR_INPUT = "executor_input"
"""Flag with the pipeline's own description of a task, in JSON; a person does not need it."""


STORE_MOUNTS = {"s3://": "/s3/", "gs://": "/gcs/", "minio://": "/minio/"}
"""Beginning of an address to the folder of a container into which Kubeflow's launcher copies what lies there."""


@contextmanager
def linked_folders(
    step_class: type[Step], flags: Mapping[str, Any], shards: Mapping[str, Path] = MappingProxyType({})
) -> Iterator[dict[str, Any]]:
    """Combine folders that were passed one by one (``--models.three_block FOLDER``) into one folder of links.

    A pipeline cannot pass a list of folders to a container.

    Args:
        step_class: the step's class.
        flags: field to value, and ``field.name`` to the folder of one model.
        shards: ``field.number`` to the folder of one shard.

    Yields:
        The flags with one folder of links per field. The links are removed at the end, the folders are not.

    Raises:
        ParameterError: if a field does not accept single folders, or is given in both ways.
    """
    single_folders = {flag: Path(str(value)) for flag, value in flags.items() if "." in flag}
    complete_flags = {flag: value for flag, value in flags.items() if "." not in flag}
    accepting = {
        field
        for field, artifact in step_class.artifacts().items()
        if isinstance(artifact, Input) and artifact.item_kind
    }
    problems = []
    for flag, folder in single_folders.items():
        field, _, name = flag.partition(".")
        if field not in accepting or "/" in name:
            known = ", ".join(step_class.model_fields)
            problems.append(f"unknown parameter {flag}={str(folder)!r}; expected one of: {known}")
        elif field in complete_flags:
            problems.append(f"expected {field} as one folder or as single ones, received both")
        elif not folder.exists():
            problems.append(f"expected the folder {flag} to exist, received {flag}={folder}")
    if problems:
        raise ParameterError(problems)
    with scratch_folder() as root:
        for flag, folder in (single_folders | dict(shards)).items():
            field, _, name = flag.partition(".")
            links = root / field
            links.mkdir(exist_ok=True)
            (links / name).symlink_to(folder.absolute())
            complete_flags[field] = str(links)
        yield complete_flags


@dataclass(frozen=True)
class ContainerTask:
    """A pipeline's description of the task that a command runs.

    Attributes:
        output_file: file in which the pipeline looks for the task's outputs.
        artifacts: the outputs in the pipeline's own description.
        inputs: name of an input to the addresses of its folders: of one, or of those of all shards.
    """

    output_file: Path
    artifacts: Mapping[str, Any]
    inputs: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, description: object) -> Self:
        """Read the description.

        Args:
            description: kfp's ``ExecutorInput``, as a mapping.

        Returns:
            The task.

        Raises:
            ParameterError: if it is something else.
        """
        outputs = description.get("outputs") if isinstance(description, Mapping) else None
        if (
            not isinstance(description, Mapping)
            or not isinstance(outputs, Mapping)
            or not isinstance(outputs.get("outputFile"), str)
        ):
            raise ParameterError(
                [
                    "expected the pipeline's description of the task with outputs.outputFile, received "
                    f"{EXECUTOR_INPUT}={description!r}; omit the flag if no pipeline runs this command"
                ]
            )
        inputs = (description.get("inputs") or {}).get("artifacts") or {}
        addresses = {
            name: [str(artifact["uri"]) for artifact in folders.get("artifacts", ())]
            for name, folders in inputs.items()
        }
        return cls(Path(outputs["outputFile"]), outputs.get("artifacts") or {}, addresses)

    def folders_of_shards(self, step_class: type[Step], flags: Mapping[str, Any]) -> dict[str, Path]:
        """Find the folders that the command does not name, because each shard wrote one.

        Args:
            step_class: the step's class.
            flags: the flags of the command.

        Returns:
            ``field.number`` to the folder of each shard, with numbers from 1, as for :func:`linked_folders`.
        """
        return {
            f"{field}.{number}": _local_path(address)
            for field, artifact in step_class.artifacts().items()
            if isinstance(artifact, Input) and field not in flags
            for number, address in enumerate(self.inputs.get(field, ()), 1)
        }

    def report_outputs(self) -> None:
        """Report to the pipeline that the outputs are complete.

        A cluster finds them without this. A run on one machine (``kfp.local``) reads them from the file.
        """
        self.output_file.parent.mkdir(parents=True, exist_ok=True)
        self.output_file.write_text(json.dumps({"artifacts": self.artifacts}))


def _local_path(address: str) -> Path:
    """Path at which a folder is in the container. A run on one machine (``kfp.local``) gives paths as addresses."""
    for store, folder in STORE_MOUNTS.items():
        if address.startswith(store):
            return Path(folder + address.removeprefix(store))
    return Path(address)
