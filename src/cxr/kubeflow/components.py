"""Components: a step as a container that Kubeflow starts, derived from the step's class."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from cxr.steps import STEPS, load_step
from cxr.steps.base import FinalStatus, Input, Output, Step, WorkingFolder
from cxr.steps.parameters import argument_text

if TYPE_CHECKING:
    from kfp.dsl import base_component

CONTAINER_USER = 10001
"""Id of the user that the images run as."""
NO_VALUE = "null"
"""Text of a parameter without a value. Optional inputs of container components differ between versions of Kubeflow."""
WORKING_FOLDER = "/tmp"
"""Folder of a container for files that are no output."""


@functools.cache
def component_images() -> dict[str, str]:
    """Find the steps that are components.

    Returns:
        Step name to the image that it runs in.
    """
    images = {name: load_step(name).container_image for name in STEPS}
    return {name: image for name, image in images.items() if image is not None}


def build_component(
    name: str,
    models: Sequence[str],
    constants: Mapping[str, Any] | None = None,
    run_inputs: Collection[str] = (),
    folders: Collection[str] = (),
    collected: Collection[str] = (),
) -> base_component.BaseComponent:
    """Make the component of a step: for everybody, or for one task of a pipeline.

    Paths become artifacts (folders). A step that reads a folder with one folder per model gets one input per model.
    Working folders are on the disk of the container.

    Kubeflow's driver fills the placeholders of a command with the values that the *task* passes and does not know a
    component's defaults. A component for everybody therefore leaves a flag out if its value is not passed: the step
    itself has the same default. In a component for one task, constants are text of the command: Kubeflow repeats
    each input of a task in many places of the record of the run (:mod:`cxr.kubeflow.run_record`).

    Args:
        name: the step, a key of :func:`component_images`.
        models: names of the models, for steps that read all of them.
        constants: values of parameters for one task; None makes a component for everybody, with an input for each
            parameter.
        run_inputs: parameters whose value the run gives to this task; they are inputs without a default.
        folders: optional folders that come from another task; without this they are paths in the container.
        collected: folders of which each shard wrote one. They are lists, which no placeholder of a command can hold;
            the container reads them from the description of its task (:mod:`cxr.cli.container`).

    Returns:
        A container component; calling it inside a pipeline adds a task.
    """
    from kfp import dsl

    step_class = load_step(name)
    paths = _container_paths(step_class, folders)
    inputs, command_line = _interface(step_class, models, constants, run_inputs, paths, collected)

    def container_spec(*values: Any) -> dsl.ContainerSpec:
        placeholders = dict(zip((parameter.name for parameter in inputs), values, strict=True))
        arguments: list[Any] = []
        for flag, value in command_line:
            placeholder = placeholders[value.name] if isinstance(value, inspect.Parameter) else value
            pair = [f"--{flag}", placeholder.path if hasattr(placeholder, "path") else placeholder]
            if isinstance(value, inspect.Parameter) and value.default is not inspect.Parameter.empty:
                otherwise = [f"--{flag}", value.default] if flag in paths else None
                arguments.append(dsl.IfPresentPlaceholder(value.name, then=pair, else_=otherwise))
            else:
                arguments += pair
        arguments += ["--executor_input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
        return dsl.ContainerSpec(image=component_images()[name], command=["cxr", name], args=arguments)

    container_spec.__name__ = name
    container_spec.__doc__ = _description(step_class, models) if constants is None else None
    container_spec.__signature__ = inspect.Signature(inputs)  # type: ignore[attr-defined]
    component: base_component.BaseComponent = dsl.container_component(container_spec)
    return component


def write_components(folder: Path, models: Mapping[str, Sequence[str]]) -> list[Path]:
    """Write ``<step>/component.yaml`` of every component.

    Args:
        folder: the folder ``components``.
        models: section of the parameter file to the names of its models, for steps that read all of them.

    Returns:
        The files.
    """
    from kfp.compiler import Compiler

    files = []
    for name in component_images():
        path = folder / name / "component.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        Compiler().compile(build_component(name, _models_read(load_step(name), models)), str(path))
        files.append(path)
    return files


def changed_values(step_class: type[Step], values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the values that equal the step's own defaults.

    Args:
        step_class: the step's class.
        values: parameter to value, as ``params.yaml`` has it.

    Returns:
        The other values.
    """
    fields = step_class.model_fields
    return {
        field: value
        for field, value in values.items()
        if fields[field].is_required()
        or _component_argument(step_class, field, value) != _component_default(step_class, field)
    }


def model_input_name(field: str, model: str) -> str:
    """Name the input for one model's folder, for a field that reads the folders of all models.

    Args:
        field: the field, e.g. ``"models"``.
        model: name of the model.

    Returns:
        For example ``"models_three_block"``.
    """
    return f"{field}_{model}"


def _models_read(step_class: type[Step], models: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Names of the models that a step reads all of; empty for other steps."""
    sections = {
        artifact.item_section
        for artifact in step_class.artifacts().values()
        if isinstance(artifact, Input) and artifact.item_kind
    }
    return [name for section in sorted(sections) for name in models[section]]


def _interface(
    step_class: type[Step],
    models: Sequence[str],
    constants: Mapping[str, Any] | None,
    run_inputs: Collection[str],
    paths: Mapping[str, str],
    collected: Collection[str],
) -> tuple[list[inspect.Parameter], list[tuple[str, inspect.Parameter | str]]]:
    """Inputs and outputs of a component; and pairs of a flag and the input or the text that follows it."""
    from kfp import dsl

    inputs: list[inspect.Parameter] = []
    command_line: list[tuple[str, inspect.Parameter | str]] = []

    def add(flag: str | None, name: str, annotation: object, default: object = inspect.Parameter.empty) -> None:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        inputs.append(inspect.Parameter(name, kind, annotation=annotation, default=default))
        if flag is not None:
            command_line.append((flag, inputs[-1]))

    for field, artifact in step_class.artifacts().items():
        if isinstance(artifact, Input) and artifact.item_kind:
            for model in models:
                add(f"{field}.{model}", model_input_name(field, model), dsl.Input[_artifact_type(artifact.item_kind)])
        elif isinstance(artifact, Input) and field in collected:
            add(None, field, dsl.Input[list[_artifact_type(artifact.kind)]])  # type: ignore[misc]
        elif isinstance(artifact, Input) and field not in paths:
            add(field, field, dsl.Input[_artifact_type(artifact.kind)])
        elif isinstance(artifact, Output):
            add(field, field, dsl.Output[_artifact_type(artifact.kind)])
    texts = {**paths, **{field: argument_text(value) for field, value in (constants or {}).items()}}
    for field, info in step_class.model_fields.items():
        if field in step_class.artifacts() and field not in paths:
            continue
        if any(isinstance(marker, FinalStatus) for marker in info.metadata):
            add(field, field, dsl.PipelineTaskFinalStatus)
        elif field in run_inputs or (constants is None and info.is_required()):
            add(field, field, _input_type(step_class, field))
        elif constants is None:
            default = paths[field] if field in paths else _component_default(step_class, field)
            add(field, field, _input_type(step_class, field), default)
        elif field in texts:
            command_line.append((field, texts[field]))
    inputs.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    return inputs, command_line


def _container_paths(step_class: type[Step], folders: Collection[str]) -> dict[str, str]:
    """Paths that are no artifacts: working folders, and optional folders that come from no other task."""
    return {
        field: f"{WORKING_FOLDER}/{field}" if isinstance(artifact, WorkingFolder) else NO_VALUE
        for field, artifact in step_class.artifacts().items()
        if isinstance(artifact, WorkingFolder) or (field not in folders and _is_path_input(step_class, field))
    }


def _component_argument(step_class: type[Step], field: str, value: object) -> Any:
    """A value of ``params.yaml`` in the type of the component's input."""
    if not _nullable(step_class.model_fields[field].annotation):
        kind = _input_type(step_class, field)
        return kind(value) if kind in {float, list, str} else value
    return NO_VALUE if value is None else argument_text(value)


def _component_default(step_class: type[Step], field: str) -> Any:
    """The step's default for a parameter, in the type of the component's input."""
    default = step_class.model_fields[field].get_default(call_default_factory=True)
    return _component_argument(step_class, field, _yaml_value(default))


def _description(step_class: type[Step], models: Sequence[str]) -> str:
    """Docstring from which Kubeflow takes the texts of its page."""
    lines = [(step_class.__doc__ or "").strip().splitlines()[0], "", "Args:"]
    for field, info in step_class.model_fields.items():
        artifact = step_class.artifacts().get(field)
        one_per_model = isinstance(artifact, Input) and artifact.item_kind
        names = [model_input_name(field, model) for model in models] if one_per_model else [field]
        lines += [f"    {name}: {info.description}" for name in names]
    return "\n".join(lines)


def _artifact_type(kind: str) -> Any:
    """Kubeflow's type of an artifact; its page shows models and data sets as such."""
    from kfp import dsl

    return {"Dataset": dsl.Dataset, "Prepared": dsl.Dataset, "Model": dsl.Model, "Ensemble": dsl.Model}.get(
        kind, dsl.Artifact
    )


def _is_path_input(step_class: type[Step], field: str) -> bool:
    """Whether a folder may be null; a component for everybody takes it as a path in the container."""
    artifact = step_class.artifacts()[field]
    return isinstance(artifact, Input) and artifact.optional and _nullable(step_class.model_fields[field].annotation)


def _input_type(step_class: type[Step], field: str) -> Any:
    """Type of the input that a parameter becomes."""
    annotation = step_class.model_fields[field].annotation
    if _nullable(annotation):
        return str
    origin = get_origin(annotation) or annotation
    if origin is Literal or origin is Path:
        return str
    if origin in {tuple, list}:
        return list
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict
    if origin in {bool, int, float, str}:
        return origin
    raise TypeError(
        f"expected a parameter of a type that Kubeflow knows, received {step_class.name}.{field}: {annotation}"
    )


def _nullable(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_origin(annotation) in {Union, types.UnionType, typing.Optional} and type(None) in get_args(annotation)


def _yaml_value(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
