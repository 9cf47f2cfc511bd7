"""A step in a container of a pipeline: what such a command line has that one typed by a person doesn't."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cxr.errors import ParameterError
from cxr.steps.base import Reads, Step

EXECUTOR_INPUT = "executor_input"
"""Flag with the pipeline's own description of a task, in JSON; a person needs none."""


@contextmanager
def put_together(found: type[Step], flags: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Make one folder of those that were given one by one: ``--models.three_block FOLDER``.

    A pipeline cannot hand a list of folders to a container.

    Args:
        found: the step's class.
        flags: field to value, and ``field.name`` to the folder of one model.

    Yields:
        The flags with one folder of links per field; the links are removed at the end, not what they point to.

    Raises:
        ParameterError: if a field takes no single folders, or is given in both ways.
    """
    single = {flag: Path(str(value)) for flag, value in flags.items() if "." in flag}
    whole = {flag: value for flag, value in flags.items() if "." not in flag}
    takes = {field for field, role in found.artifacts().items() if isinstance(role, Reads) and role.each}
    problems = []
    for flag, folder in single.items():
        field, _, name = flag.partition(".")
        if field not in takes or "/" in name:
            known = ", ".join(found.model_fields)
            problems.append(f"unknown parameter {flag}={str(folder)!r}; expected one of: {known}")
        elif field in whole:
            problems.append(f"expected {field} as one folder or as single ones, received both")
        elif not folder.exists():
            problems.append(f"expected the folder {flag} to exist, received {flag}={folder}")
    if problems:
        raise ParameterError(problems)
    with tempfile.TemporaryDirectory() as root:
        for flag, folder in single.items():
            field, _, name = flag.partition(".")
            place = Path(root, field)
            place.mkdir(exist_ok=True)
            (place / name).symlink_to(folder.absolute())
            whole[field] = str(place)
        yield whole


@dataclass(frozen=True)
class Task:
    """What a pipeline says of the task that a command is.

    Attributes:
        file: where the pipeline looks for what the task has written.
        artifacts: the outputs as the pipeline describes them.
    """

    file: Path
    artifacts: Mapping[str, Any]

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
        if not isinstance(outputs, Mapping) or not isinstance(outputs.get("outputFile"), str):
            raise ParameterError(
                [
                    "expected the pipeline's description of the task with outputs.outputFile, received "
                    f"{EXECUTOR_INPUT}={description!r}; leave the flag out where no pipeline runs"
                ]
            )
        return cls(Path(outputs["outputFile"]), outputs.get("artifacts") or {})

    def tell_outputs(self) -> None:
        """Tell the pipeline that the outputs are there.

        A cluster finds them by itself. A run on one machine (``kfp.local``) takes what stands in the file.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps({"artifacts": self.artifacts}))
