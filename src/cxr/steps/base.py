"""A step of the pipeline, written once: the command line, the DVC stage and the container are derived from it.

A step is a frozen pydantic class. Its artifacts are path fields marked :class:`Input`, :class:`Output` or
:class:`WorkingFolder`; every other field is a parameter with bounds and a description.
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
from cxr.files import explain_file_errors, whole_folders

log = logging.getLogger(__name__)

DATA_IMAGE = "cxr-data"
"""Container image of the steps that need no training library."""
TRAIN_IMAGE = "cxr-train"
"""Container image with TensorFlow, Keras and MLflow."""
TRAIN_GPU_IMAGE = "cxr-train-gpu"
"""The same with CUDA."""


@dataclass(frozen=True)
class Input:
    """Marks a path that must exist before the step starts.

    Attributes:
        kind: type of the artifact, e.g. ``"Dataset"``.
        optional: whether the step also works without it.
        item_kind: for a folder with one folder per model, the type of these folders. They can be passed one by one,
            as ``--models.NAME FOLDER``.
        item_section: section of ``params.yaml`` whose entries name these folders.
    """

    kind: str
    optional: bool = False
    item_kind: str | None = None
    item_section: str = "models"


@dataclass(frozen=True)
class Output:
    """Marks a folder that appears under its final name only after the step has succeeded; None writes nothing.

    Attributes:
        kind: type of the artifact, e.g. ``"Model"``.
    """

    kind: str


@dataclass(frozen=True)
class WorkingFolder:
    """Marks a folder that survives a killed run (checkpoints, partial downloads) and is never an output.

    Attributes:
        kind: type of the artifact, e.g. ``"Checkpoints"``.
    """

    kind: str


@dataclass(frozen=True)
class Positional:
    """Marks a parameter that may stand on the command line without its name: ``cxr lineage 3``.

    Attributes:
        variadic: whether it is a list that takes all remaining arguments: ``cxr predict a.jpeg b.jpeg``.
    """

    variadic: bool = False


@dataclass(frozen=True)
class SetOnlyIn:
    """Marks a parameter that the parameter file sets for all commands at once: in another section, some would miss it.

    Attributes:
        sections: the sections that may set it.
    """

    sections: tuple[str, ...]


@dataclass(frozen=True)
class FinalStatus:
    """Marks a parameter that Kubeflow fills, in the task of an exit handler, with the status of the tasks before it.

    The value is JSON: ``{"state": "FAILED", "pipelineTaskName": ..., "error": {...}}`` (``PipelineTaskFinalStatus``).
    """


Artifact = Input | Output | WorkingFolder


class Step(BaseModel):
    """Base of all steps: subclasses declare fields and implement :meth:`run`.

    Attributes:
        name: name of the step on the command line, in DVC and in Kubeflow.
        follows: name of the step that ``cxr --help`` lists before this one.
        sections: sections of ``params.yaml`` that this step reads; the later ones win. A section may name a
            field in braces: ``"models.{model}"`` is the entry of ``models`` that the field ``model`` chooses.
        sections_without_effect: sections that never change an output (for example where runs are logged). A DVC
            stage does not depend on them.
        ignored_keys: keys of its sections that only other steps use.
        collected_sections: maps a field to the sections whose values it holds unchanged, the later ones winning. They
            are the parameters of another step.
        container_image: image of the step's Kubeflow component; None if the step is no component.
        gpu_image: image to use where a GPU is configured; None if the step never uses one. Only steps with a GPU image
            get more shared memory.
        retryable: whether Kubeflow may start the step again after a failure. A step that fails because it rejects its
            input would reject it again.
        cacheable: whether Kubeflow may reuse the outputs of an earlier run with the same inputs. A step that reads
            or changes something outside (the registry, images on a volume) is not cacheable.
        reads_object_store: whether the container gets the secret of the object store.
        reads_images: whether the step reads raw images. Where its data folder holds their index, it reads them in the
            object store.
        imports_slowly: whether the step imports MLflow, and mostly Keras. `make run` runs it as a fork of a process
            that has them.
    """

    # Pydantic builds the validators when the first step is made. `cxr --help` makes none and stays fast.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)

    name: ClassVar[str]
    follows: ClassVar[str] = ""
    sections: ClassVar[tuple[str, ...]]
    sections_without_effect: ClassVar[tuple[str, ...]] = ()
    ignored_keys: ClassVar[frozenset[str]] = frozenset()
    collected_sections: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    container_image: ClassVar[str | None] = None
    gpu_image: ClassVar[str | None] = None
    retryable: ClassVar[bool] = True
    cacheable: ClassVar[bool] = True
    reads_object_store: ClassVar[bool] = False
    reads_images: ClassVar[bool] = False
    imports_slowly: ClassVar[bool] = False

    @abstractmethod
    def run(self) -> None:
        """Read the inputs, call the library, write the outputs."""

    def clean_up(self) -> None:  # most steps keep nothing
        """Remove what was kept for resuming a killed run; called after the outputs are in place."""

    def show(self, *lines: str) -> None:
        """Print lines to standard output; the log goes to standard error.

        Args:
            lines: lines without line ends.
        """
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()

    @classmethod
    def artifacts(cls) -> dict[str, Artifact]:
        """Paths of the step.

        Returns:
            Field name to its marker, in order of declaration.
        """
        return {
            name: marker
            for name, field in cls.model_fields.items()
            for marker in field.metadata
            if isinstance(marker, Input | Output | WorkingFolder)
        }

    @classmethod
    def parameters(cls) -> tuple[str, ...]:
        """Names of the fields that are not artifacts, in order of declaration."""
        return tuple(field for field in cls.model_fields if field not in cls.artifacts())

    @classmethod
    def positional_parameters(cls) -> tuple[str, ...]:
        """Names of the parameters that take one argument without a flag, in the order of these arguments."""
        return tuple(name for name, marker in cls._positional_markers().items() if not marker.variadic)

    @classmethod
    def variadic_parameter(cls) -> str | None:
        """Name of the parameter that takes all remaining arguments without a flag; None if there is none."""
        return next((name for name, marker in cls._positional_markers().items() if marker.variadic), None)

    @classmethod
    def _positional_markers(cls) -> dict[str, Positional]:
        fields = cls.model_fields.items()
        return {name: marker for name, field in fields for marker in field.metadata if isinstance(marker, Positional)}

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Make the step from raw values and report all wrong values at once.

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
            raise ParameterError([_describe_problem(cls, problem) for problem in error.errors()]) from None

    def execute(self) -> None:
        """Run the step; its outputs appear completely or not at all.

        Each :class:`Output` folder is written under a hidden name beside its final one and renamed after :meth:`run`
        has returned. An older output is replaced only then. Leftovers of killed runs are removed.

        Raises:
            MissingInputError: if an input does not exist; all missing ones are listed.
            DiskFullError: if a disk has no room for the outputs.
            AccessError: if this user may not read an input or write an output.
        """
        self.check_inputs()
        outputs = {
            field: Path(getattr(self, field))
            for field, artifact in self.artifacts().items()
            if isinstance(artifact, Output) and getattr(self, field) is not None
        }
        started = time.perf_counter()
        written = [
            getattr(self, field)
            for field, artifact in self.artifacts().items()
            if isinstance(artifact, Output | WorkingFolder) and getattr(self, field) is not None
        ]
        with explain_file_errors(written), whole_folders(outputs) as staging:
            self.model_copy(update=dict(staging)).run()
        self.clean_up()
        # ru_maxrss is in KiB on Linux and in bytes on macOS.
        peak = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1 / 1024) / 2**20
        )
        log.info("%s done: %.1f s, peak memory %.0f MiB", self.name, time.perf_counter() - started, peak)

    def check_inputs(self) -> None:
        """Check that all inputs exist.

        Raises:
            MissingInputError: listing those that do not.
        """
        missing = [
            f"expected {field} ({artifact.kind}) to exist, received {field}={getattr(self, field)}; "
            "run the step that makes it, or `dvc repro`"
            for field, artifact in self.artifacts().items()
            if isinstance(artifact, Input) and not artifact.optional and not getattr(self, field).exists()
        ]
        if missing:
            raise MissingInputError("\n".join(missing))


def _describe_problem(step_class: type[Step], problem: Any) -> str:
    """Turn one pydantic problem into a sentence: what was expected, ``name=value`` received, what to do."""
    field = ".".join(str(part) for part in problem["loc"]) or step_class.name
    received = f"{field}={problem['input']!r}"
    if problem["type"] == "extra_forbidden":
        known = ", ".join(step_class.model_fields)
        return f"{step_class.name}: unknown parameter {received}; expected one of: {known}"
    if problem["type"] == "missing":
        return f"{step_class.name}: missing parameter {field}; give --{field} VALUE"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not problem["loc"]:  # the problem is about several fields; the message names them
        return f"{step_class.name}: {message}"
    return f"{step_class.name}: expected {field} to be {message}, received {received}"
