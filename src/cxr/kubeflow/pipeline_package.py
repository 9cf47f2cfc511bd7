"""A compiled pipeline as a file: making it, and its name, digest and arguments."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cxr.errors import MissingInputError, ParameterError
from cxr.files import whole_file

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

SCRIPTS = Path("pipelines")
"""Folder of the pipeline scripts, in the root of the repository."""
ARGUMENT_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "STRING": ((str,), "text"),
    "NUMBER_INTEGER": ((int,), "a whole number"),
    "NUMBER_DOUBLE": ((int, float), "a number"),
    "BOOLEAN": ((bool,), "true or false"),
    "LIST": ((list,), "a list"),
    "STRUCT": ((dict,), "a mapping"),
}
"""Parameter type of Kubeflow to the Python types of its values, and their description."""
NUMBER_TYPES = ((int,), (int, float))
"""Types of numbers: for Python, true and false are numbers, too."""


@dataclass(frozen=True)
class PipelinePackage:
    """A pipeline package.

    Attributes:
        path: the file.
        name: name of the pipeline, e.g. ``"cxr-training"``.
        digest: sha256 of the content: the same digest is the same pipeline.
        argument_specs: name of an argument to Kubeflow's description of it.
    """

    path: Path
    name: str
    digest: str
    argument_specs: Mapping[str, Mapping[str, Any]]

    @property
    def version(self) -> str:
        """Name of the version as which this content is uploaded."""
        return f"sha256-{self.digest[:16]}"

    def check_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Refuse arguments that the pipeline does not take.

        Args:
            arguments: name to value.

        Raises:
            ParameterError: listing unknown, missing and wrong ones.
        """
        known = ", ".join(self.argument_specs) or "none at all"
        problems = [
            f"expected arguments of {self.name} to be among: {known}; received {name}={value!r}"
            for name, value in arguments.items()
            if name not in self.argument_specs
        ]
        for name, spec in self.argument_specs.items():
            types, type_text = ARGUMENT_TYPES.get(str(spec.get("parameterType")), ((object,), "a value"))
            value = arguments.get(name)
            optional = spec.get("isOptional") or "defaultValue" in spec
            if name not in arguments:
                if not optional:
                    problems.append(f"expected the argument {name} of {self.name} ({type_text}), received none")
            elif not isinstance(value, types) or (isinstance(value, bool) and types in NUMBER_TYPES):
                problems.append(
                    f"expected the argument {name} of {self.name} to be {type_text}, received {name}={value!r}"
                )
        if problems:
            raise ParameterError([f"{problem}; give --arguments '{{NAME: VALUE}}'" for problem in problems])


def compile_pipeline(name: str, params: Path, output: Path) -> Path:
    """Write a pipeline as a package: its graph, and what the containers need of Kubernetes.

    Args:
        name: name of its script without suffix: ``training`` or ``scoring``.
        params: the parameter file.
        output: the ``.yaml`` file to write; it appears completely or not at all.

    Returns:
        The file.

    Raises:
        ParameterError: if there is no such script, or a value is wrong.
    """
    pipeline = _build_pipeline(name, params)
    from kfp.compiler import Compiler

    with whole_file(output) as partial:
        Compiler().compile(pipeline, str(partial))
    return output


def read_package(path: Path) -> PipelinePackage:
    """Read a pipeline package.

    Args:
        path: a YAML file that ``cxr kubeflow compile`` wrote.

    Returns:
        The package.

    Raises:
        MissingInputError: if there is no such file.
        ParameterError: if it is not a pipeline package in YAML.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingInputError(
            f"expected a compiled pipeline, received package={path} ({error.strerror}); run `cxr kubeflow compile`"
        ) from error
    try:
        documents = list(yaml.safe_load_all(content)) if path.suffix in {".yaml", ".yml"} else []
        pipeline = documents[0]
        name = str(pipeline["pipelineInfo"]["name"])
        argument_specs = pipeline["root"].get("inputDefinitions", {}).get("parameters", {})
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        raise ParameterError(
            [
                f"expected a compiled pipeline in YAML (.yaml), received package={path}, which is none; make one with "
                "`cxr kubeflow compile`"
            ]
        ) from None
    return PipelinePackage(path, name, hashlib.sha256(content).hexdigest(), argument_specs)


def _build_pipeline(name: str, params: Path) -> BaseComponent:
    """Connect the tasks of a pipeline with the values of a parameter file."""
    from cxr.kubeflow.pipeline_graph import PipelineGraph
    from cxr.steps.parameters import read_parameter_file

    script = SCRIPTS / f"{name}.py"
    if not script.is_file():
        known = ", ".join(sorted(path.stem for path in SCRIPTS.glob("*.py"))) or "none; run this in the repository"
        raise ParameterError([f"expected a pipeline of {SCRIPTS}/, received pipeline={name!r}; there are: {known}"])
    graph = PipelineGraph(read_parameter_file(params))
    spec = importlib.util.spec_from_file_location(f"pipeline_{name}", script)
    if spec is None or spec.loader is None:
        raise ParameterError([f"expected a Python script, received {script}"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pipeline: BaseComponent = module.pipeline(graph)
    return pipeline
