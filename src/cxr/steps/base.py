"""A step of the pipeline, written once: the command line, the DVC stage and the container are derived from it.

A step is a frozen pydantic class. Its artifacts are path fields marked :class:`Reads`, :class:`Writes` or
:class:`Keeps`; every other field is a parameter with bounds and a description.
"""

from __future__ import annotations

import logging
import resource
import sys
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from cxr.errors import MissingInputError, ParameterError
from cxr.files import whole_folders

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reads:
    """Marks a path that must exist before the step starts.

    Attributes:
        kind: type of the artifact, e.g. ``"Dataset"``.
        optional: whether the step also works without it.
        each: type of the folders inside, for a folder with one folder per model; they can be given one by one, as
            ``--models.NAME FOLDER``.
    """

    kind: str
    optional: bool = False
    each: str | None = None


@dataclass(frozen=True)
class Writes:
    """Marks a folder that appears under its final name only when the step has succeeded; None where it isn't wanted.

    Attributes:
        kind: type of the artifact, e.g. ``"Model"``.
    """

    kind: str


@dataclass(frozen=True)
class Keeps:
    """Marks a working folder that survives a killed run (checkpoints, partial downloads); never an output.

    Attributes:
        kind: type of the artifact, e.g. ``"Checkpoints"``.
    """

    kind: str


@dataclass(frozen=True)
class Positional:
    """Marks a parameter that may stand on the command line without its name: ``cxr lineage 3``.

    Attributes:
        rest: whether it is a list that takes all further words: ``cxr predict a.jpeg b.jpeg``.
    """

    rest: bool = False


Role = Reads | Writes | Keeps


class Step(BaseModel):
    """Base of all steps: subclasses declare fields and implement :meth:`run`.

    Attributes:
        name: word that the command line, the DVC stage and the component use.
        sections: sections of ``params.yaml`` that this step reads, later ones winning. A section may name a
            field in braces: ``"models.{model}"`` is the entry of ``models`` that the field ``model`` chooses.
        without_effect: sections that never alter an output (where runs are logged): a DVC stage does not
            depend on them.
        passed_over: keys of its sections that only other steps use.
        collects: field to sections that it holds as they stand, later ones winning: the values of another step.
    """

    # Built when a step is made, so that `cxr --help`, which makes none, answers quickly.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)

    name: ClassVar[str]
    sections: ClassVar[tuple[str, ...]]
    without_effect: ClassVar[tuple[str, ...]] = ()
    passed_over: ClassVar[frozenset[str]] = frozenset()
    collects: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @abstractmethod
    def run(self) -> None:
        """Read the inputs, call the library, write the outputs."""

    def tidy(self) -> None:  # most steps keep nothing
        """Remove what was kept for going on after a kill; called once the outputs are in place."""

    @classmethod
    def artifacts(cls) -> dict[str, Role]:
        """Paths of the step.

        Returns:
            Field name to its role, in order of declaration.
        """
        found: dict[str, Role] = {}
        for field_name, field in cls.model_fields.items():
            for mark in field.metadata:
                if isinstance(mark, Reads | Writes | Keeps):
                    found[field_name] = mark
        return found

    @classmethod
    def parameters(cls) -> tuple[str, ...]:
        """Names of the fields that are not artifacts.

        Returns:
            Parameter names, in order of declaration.
        """
        return tuple(field for field in cls.model_fields if field not in cls.artifacts())

    @classmethod
    def positional(cls) -> tuple[str, ...]:
        """Names of the parameters that may stand without their names.

        Returns:
            Parameter names, in order of declaration, which is that of the words.
        """
        return tuple(name for name, mark in cls._nameless().items() if not mark.rest)

    @classmethod
    def rest(cls) -> str | None:
        """Name of the parameter that takes all further words without names.

        Returns:
            The parameter's name; None if there is no such parameter.
        """
        return next((name for name, mark in cls._nameless().items() if mark.rest), None)

    @classmethod
    def _nameless(cls) -> dict[str, Positional]:
        fields = cls.model_fields.items()
        return {name: mark for name, field in fields for mark in field.metadata if isinstance(mark, Positional)}

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Make the step from raw values, reporting every wrong one at once.

        Args:
            values: field name to value; text is converted to the field's type.

        Returns:
            The step, ready for :meth:`execute`.

        Raises:
            ParameterError: listing all unknown, missing and wrong values.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ParameterError([_sentence(cls, problem) for problem in error.errors()]) from None

    def execute(self) -> None:
        """Run the step so that outputs appear whole or not at all.

        Every ``Writes`` folder is made under a hidden name beside its final one and renamed when :meth:`run`
        has returned; an older version is replaced only then. What a killed run left behind is swept away.

        Raises:
            MissingInputError: if an input is not there (all missing ones are listed).
        """
        missing = [
            f"expected {field} ({role.kind}) to exist, received {field}={getattr(self, field)}; "
            "run the step that makes it, or `dvc repro`"
            for field, role in self.artifacts().items()
            if isinstance(role, Reads) and not role.optional and not getattr(self, field).exists()
        ]
        if missing:
            raise MissingInputError("\n".join(missing))
        outputs = {
            field: Path(getattr(self, field))
            for field, role in self.artifacts().items()
            if isinstance(role, Writes) and getattr(self, field) is not None
        }
        started = time.perf_counter()
        with whole_folders(outputs) as staging:
            self.model_copy(update=dict(staging)).run()
        self.tidy()
        # Linux counts in KiB, macOS in bytes.
        peak = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1 / 1024) / 2**20
        )
        log.info("%s done: %.1f s, peak memory %.0f MiB", self.name, time.perf_counter() - started, peak)


def _sentence(step: type[Step], problem: Any) -> str:
    """Turn one pydantic problem into a sentence: expected, ``name=value`` received, what to do."""
    field = ".".join(str(part) for part in problem["loc"]) or step.name
    received = f"{field}={problem['input']!r}"
    if problem["type"] == "extra_forbidden":
        known = ", ".join(step.model_fields)
        return f"{step.name}: unknown parameter {received}; expected one of: {known}"
    if problem["type"] == "missing":
        return f"{step.name}: missing parameter {field}; give --{field} VALUE"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not problem["loc"]:  # of several values together: the sentence names them
        return f"{step.name}: {message}"
    return f"{step.name}: expected {field} to be {message}, received {received}"
