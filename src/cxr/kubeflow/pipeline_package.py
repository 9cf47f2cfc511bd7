"""A compiled pipeline as a file: making it, cutting it into runs, and its name, digest, tasks and arguments."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cxr.errors import MissingInputError, ParameterError
from cxr.files import scratch_folder, whole_file
from cxr.kubeflow import CONTAINERS_SECTION
from cxr.kubeflow.run_record import RECORD_LIMIT, record_bytes
from cxr.yaml_text import parse_yaml_documents

try:
    from yaml import CSafeDumper as SafeDumper
except ImportError:  # PyYAML without libyaml
    from yaml import SafeDumper  # type: ignore[assignment]

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

    from cxr.kubeflow.pipeline_graph import PipelineGraph

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
TRAINING = re.compile(r"train(?:_regions)? (.+)")
"""Name of a task that trains a model; the group is the model."""
YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Words that some reader of YAML takes for something else than text."""
OLD_RESOURCES = frozenset({"cpuLimit", "cpuRequest", "memoryLimit", "memoryRequest"})
"""Amounts of resources as servers before 2.4 read them; newer ones read ``resourceCpuLimit`` and so on."""
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
        models: models that the pipeline trains; empty if it trains none.
    """

    path: Path
    name: str
    digest: str
    argument_specs: Mapping[str, Mapping[str, Any]]
    models: tuple[str, ...]

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


def compile_pipeline(name: str, params: Path, output: Path, models: Sequence[str] = ()) -> Path:
    """Write a pipeline as a package: its graph, and what the containers need of Kubernetes.

    Args:
        name: name of its script without suffix: ``training`` or ``scoring``.
        params: the parameter file.
        output: the ``.yaml`` file to write; it appears completely or not at all.
        models: models of the parameter file to train; empty takes all of them.

    Returns:
        The file.

    Raises:
        ParameterError: if there is no such script, or a value is wrong.
    """
    return _write_package(_build_pipeline(name, _read_graph(name, params, models)), output)


def compile_runs(name: str, params: Path, output: Path, models: Sequence[str] = ()) -> list[Path]:
    """Write a pipeline as one package, or as several if the record of one run would be too long for Kubeflow.

    Each of several packages trains some of the models and registers them. The registry compares the versions of all
    runs, so the best one becomes champion whichever run trained it. An ensemble joins the models of one run. A run
    with detectors also trains the classifier to compare them with; only one run registers this classifier.

    Args:
        name: name of its script without suffix.
        params: the parameter file.
        output: file of the first package; the others have a number in their name, e.g. ``training-2.yaml``.
        models: models of the parameter file to train; empty takes all of them.

    Returns:
        The files; older files of further packages are removed.

    Raises:
        ParameterError: if there is no such script, or a value is wrong; or if the record is too long even with one
            model in each run, because of the shards.
    """
    graph = _read_graph(name, params, models)
    with scratch_folder() as folder:
        whole = _write_package(_build_pipeline(name, graph), folder / "whole.yaml")
        packages, count = [whole], math.ceil(record_bytes(whole) / RECORD_LIMIT)
        names = [*graph.models, *graph.detectors]
        while len(packages) < len(names) and any(record_bytes(package) > RECORD_LIMIT for package in packages):
            groups = _divide(names, count)
            packages = [
                compile_pipeline(name, params, Path(folder, f"{position}.yaml"), group)
                for position, group in enumerate(groups)
            ]
            count += 1
        if graph.shards > 1 and any(record_bytes(package) > RECORD_LIMIT for package in packages):
            longest = max(map(record_bytes, packages))
            raise ParameterError(
                [
                    f"expected a run whose record takes {RECORD_LIMIT:,} bytes at most, received {longest:,} with "
                    f"{CONTAINERS_SECTION}.shards={graph.shards} and {CONTAINERS_SECTION}.retries.count="
                    f"{graph.settings.retries.count}; use fewer of them"
                ]
            )
        contents = [package.read_bytes() for package in packages]
    files = [output, *(output.with_stem(f"{output.stem}-{number}") for number in range(2, len(contents) + 1))]
    for file, content in zip(files, contents, strict=True):
        with whole_file(file) as partial:
            partial.write_bytes(content)
    for file in output.parent.glob(f"{output.stem}-*{output.suffix}"):
        if file not in files and file.stem.removeprefix(f"{output.stem}-").isdigit():
            file.unlink()
    return files


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
        documents = parse_yaml_documents(content) if path.suffix in {".yaml", ".yml"} else []
        pipeline = documents[0]
        name = str(pipeline["pipelineInfo"]["name"])
        argument_specs = pipeline["root"].get("inputDefinitions", {}).get("parameters", {})
        labels = (TRAINING.fullmatch(str(task["taskInfo"]["name"])) for _, task in _tasks(pipeline))
        models = tuple(match[1] for match in labels if match)
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        raise ParameterError(
            [
                f"expected a compiled pipeline in YAML (.yaml), received package={path}, which is none; make one with "
                "`cxr kubeflow compile`"
            ]
        ) from None
    return PipelinePackage(path, name, hashlib.sha256(content).hexdigest(), argument_specs, models)


def _read_graph(name: str, params: Path, models: Sequence[str]) -> PipelineGraph:
    from cxr.kubeflow.pipeline_graph import PipelineGraph
    from cxr.steps.parameters import read_parameter_file

    if not _script(name).is_file():
        known = ", ".join(sorted(path.stem for path in SCRIPTS.glob("*.py"))) or "none; run this in the repository"
        raise ParameterError([f"expected a pipeline of {SCRIPTS}/, received pipeline={name!r}; there are: {known}"])
    return PipelineGraph(read_parameter_file(params), models)


def _script(name: str) -> Path:
    return SCRIPTS / f"{name}.py"


def _build_pipeline(name: str, graph: PipelineGraph) -> BaseComponent:
    """Connect the tasks of a pipeline."""
    script = _script(name)
    spec = importlib.util.spec_from_file_location(f"pipeline_{name}", script)
    if spec is None or spec.loader is None:
        raise ParameterError([f"expected a Python script, received {script}"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pipeline: BaseComponent = module.pipeline(graph)
    return pipeline


def _write_package(pipeline: BaseComponent, output: Path) -> Path:
    """Write a package without what no server needs, and so that every text is read as text.

    Kubeflow repeats each part of a component in the record of a run. Its server reads YAML by other rules than
    Python's: an unquoted ``1e-05`` is a number there, and the run is refused when it starts.
    """
    from google.protobuf.json_format import MessageToDict

    documents = [MessageToDict(pipeline.pipeline_spec)]
    if pipeline.platform_spec.platforms:
        documents.append(MessageToDict(pipeline.platform_spec))
    _remove_unused(documents[0])
    with whole_file(output) as partial:
        partial.write_text(yaml.dump_all(documents, Dumper=_QuotingDumper, width=1000), encoding="utf-8")
    return output


def _remove_unused(graph: dict[str, Any]) -> None:
    """Remove descriptions, optional inputs that no task passes, and amounts of resources in their old form."""
    components = graph["components"]
    passed: dict[str, set[str]] = {name: set() for name in components}
    for _, task in _tasks(graph):
        passed[task["componentRef"]["name"]] |= set(task.get("inputs", {}).get("parameters", {}))
    for name, component in components.items():
        inputs = component.get("inputDefinitions", {})
        inputs["parameters"] = {
            field: {key: value for key, value in spec.items() if key != "description"}
            for field, spec in inputs.get("parameters", {}).items()
            if field in passed[name] or not spec.get("isOptional")
        }
    for executor in graph["deploymentSpec"]["executors"].values():
        resources = executor["container"].get("resources", {})
        for amount in OLD_RESOURCES & set(resources):
            del resources[amount]


def _divide(models: list[str], count: int) -> list[list[str]]:
    """Divide models into groups of nearly the same size, in their order."""
    bounds = [round(position * len(models) / count) for position in range(count + 1)]
    return [models[start:end] for start, end in itertools.pairwise(bounds)]


def _tasks(graph: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and description of each task of a pipeline and its groups."""
    for component in (graph["root"], *graph["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).items()


class _QuotingDumper(SafeDumper):
    """Writes YAML in which every text that could be read as something else is quoted."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Quote a text unless it is a plain word or path."""
        is_plain = re.fullmatch(r"[A-Za-z/][\w./-]*", text) and text.lower() not in YAML_WORDS
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')

    def ignore_aliases(self, data: Any) -> bool:
        """Write repeated values in full."""
        return True


_QuotingDumper.add_representer(str, _QuotingDumper.represent_text)
