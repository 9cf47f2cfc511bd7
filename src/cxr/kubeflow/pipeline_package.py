"""A compiled pipeline as a file: its name, its content's digest, and the arguments that it takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cxr.errors import MissingInputError, ParameterError

KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "STRING": ((str,), "text"),
    "NUMBER_INTEGER": ((int,), "a whole number"),
    "NUMBER_DOUBLE": ((int, float), "a number"),
    "BOOLEAN": ((bool,), "true or false"),
    "LIST": ((list,), "a list"),
    "STRUCT": ((dict,), "a mapping"),
}
"""Parameter type of Kubeflow to the types of its values, and the words for them."""
NUMBERS = ((int,), (int, float))
"""Types of numbers: to Python, true and false are numbers, too."""


@dataclass(frozen=True)
class Package:
    """A pipeline package.

    Attributes:
        path: the file.
        name: name of the pipeline, e.g. ``"cxr-training"``.
        digest: sha256 of the content: the same digest is the same pipeline.
        takes: name of an argument to Kubeflow's description of it.
    """

    path: Path
    name: str
    digest: str
    takes: Mapping[str, Mapping[str, Any]]

    @property
    def version(self) -> str:
        """Name of the version that this content is uploaded as."""
        return f"sha256-{self.digest[:16]}"

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Refuse arguments that the pipeline does not take.

        Args:
            arguments: name to value.

        Raises:
            ParameterError: listing unknown, missing and wrong ones.
        """
        known = ", ".join(self.takes) or "none at all"
        problems = [
            f"expected arguments of {self.name} to be among: {known}; received {name}={value!r}"
            for name, value in arguments.items()
            if name not in self.takes
        ]
        for name, description in self.takes.items():
            types, words = KINDS.get(str(description.get("parameterType")), ((object,), "a value"))
            value = arguments.get(name)
            optional = description.get("isOptional") or "defaultValue" in description
            if name not in arguments:
                if not optional:
                    problems.append(f"expected the argument {name} of {self.name} ({words}), received none")
            elif not isinstance(value, types) or (isinstance(value, bool) and types in NUMBERS):
                problems.append(f"expected the argument {name} of {self.name} to be {words}, received {name}={value!r}")
        if problems:
            raise ParameterError([f"{problem}; give --arguments '{{NAME: VALUE}}'" for problem in problems])


def read_package(path: Path) -> Package:
    """Read a pipeline package.

    Args:
        path: a YAML file that ``cxr kubeflow compile`` wrote.

    Returns:
        The package.

    Raises:
        MissingInputError: if there is no such file.
        ParameterError: if it is no pipeline package in YAML.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingInputError(
            f"expected a compiled pipeline, received package={path} ({error.strerror}); run `cxr kubeflow compile`"
        ) from error
    what = f"expected a compiled pipeline in YAML (.yaml), received package={path}"
    try:
        documents = list(yaml.safe_load_all(content)) if path.suffix in {".yaml", ".yml"} else []
        pipeline = documents[0]
        name = str(pipeline["pipelineInfo"]["name"])
        takes = pipeline["root"].get("inputDefinitions", {}).get("parameters", {})
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        raise ParameterError([f"{what}, which is none; make one with `cxr kubeflow compile`"]) from None
    return Package(path, name, hashlib.sha256(content).hexdigest(), takes)
