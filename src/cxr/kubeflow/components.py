"""Components: a step as a container that Kubeflow starts, derived from the step's class."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from cxr.steps import step
from cxr.steps.base import Keeps, Reads, Step, Writes

if TYPE_CHECKING:
    from kfp.dsl import base_component

DATA_IMAGE, TRAIN_IMAGE = "cxr-data", "cxr-train"
IMAGES: dict[str, str] = {
    "fetch": DATA_IMAGE,
    "validate": DATA_IMAGE,
    "resplit": DATA_IMAGE,
    "preprocess": DATA_IMAGE,
    "reference": DATA_IMAGE,
    "train": TRAIN_IMAGE,
    "evaluate": TRAIN_IMAGE,
    "ensemble": TRAIN_IMAGE,
    "register": TRAIN_IMAGE,
    "predict": TRAIN_IMAGE,
    "outcome": TRAIN_IMAGE,
}
"""Steps that are components, with the image that each one runs in."""
USER = 10001
"""User of the images."""
ABSENT = "null"
"""Text of a parameter without a value: optional inputs of container components differ between versions of Kubeflow."""
WORKING = "/tmp"
"""Where a container may write what is no output."""


def component(name: str, models: Sequence[str]) -> base_component.BaseComponent:
    """Make the component of a step.

    Parameters become inputs with the step's own defaults, paths become artifacts (folders), working folders and
    folders that need not be given become text inputs. A step that reads a folder with one folder per model gets one
    input per model.

    Args:
        name: the step, a key of :data:`IMAGES`.
        models: names of the models, for steps that read them all.

    Returns:
        A container component; calling it inside a pipeline adds a task.
    """
    from kfp import dsl

    found = step(name)
    parameters, words = _interface(found, models)

    def spec(*given: Any) -> dsl.ContainerSpec:
        values = dict(zip((one.name for one in parameters), given, strict=True))
        args: list[Any] = []
        for flag, source in words:
            value = values[source]
            args += [f"--{flag}", value.path if hasattr(value, "path") else value]
        args += ["--executor_input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
        return dsl.ContainerSpec(image=IMAGES[name], command=["cxr", name], args=args)

    spec.__name__ = name
    spec.__doc__ = _description(found, models)
    spec.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    made: base_component.BaseComponent = dsl.container_component(spec)
    return made


def write(folder: Path, models: Sequence[str]) -> list[Path]:
    """Write ``<step>/component.yaml`` of every component.

    Args:
        folder: the folder ``components``.
        models: names of the models, for steps that read them all.

    Returns:
        The files.
    """
    from kfp.compiler import Compiler

    files = []
    for name in IMAGES:
        path = folder / name / "component.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        Compiler().compile(component(name, models), str(path))
        files.append(path)
    return files


def argument(found: type[Step], field: str, value: object) -> Any:
    """Bring a value of ``params.yaml`` into the type of the component's input.

    Args:
        found: the step's class.
        field: one of its parameters.
        value: the value.

    Returns:
        A value that Kubeflow takes; the step reads the same from it.
    """
    if not _nullable(found.model_fields[field].annotation):
        kind = _input_type(found, field)
        return kind(value) if kind in {float, list, str} else value
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value)


def pieces(field: str, name: str) -> str:
    """Name the input that is one model's folder of a field that reads the folders of all models.

    Args:
        field: the field, e.g. ``"models"``.
        name: the model.

    Returns:
        For example ``"models_three_block"``.
    """
    return f"{field}_{name}"


def _interface(found: type[Step], models: Sequence[str]) -> tuple[list[inspect.Parameter], list[tuple[str, str]]]:
    """Inputs and outputs of a component, and which flag each one fills."""
    from kfp import dsl

    inputs: list[inspect.Parameter] = []
    words: list[tuple[str, str]] = []

    def add(flag: str, name: str, annotation: object, default: object = inspect.Parameter.empty) -> None:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        inputs.append(inspect.Parameter(name, kind, annotation=annotation, default=default))
        words.append((flag, name))

    for field, role in found.artifacts().items():
        if isinstance(role, Reads) and role.each:
            for name in models:
                add(f"{field}.{name}", pieces(field, name), dsl.Input[_artifact(role.each)])
        elif isinstance(role, Reads) and not _on_a_volume(found, field):
            add(field, field, dsl.Input[_artifact(role.kind)])
        elif isinstance(role, Writes):
            add(field, field, dsl.Output[_artifact(role.kind)])
    for field, role in found.artifacts().items():
        if isinstance(role, Keeps):
            add(field, field, str, f"{WORKING}/{field}")
        elif _on_a_volume(found, field):
            add(field, field, str, ABSENT)
    for field in found.parameters():
        info = found.model_fields[field]
        if info.is_required():
            add(field, field, _input_type(found, field))
        else:
            default = argument(found, field, _plain(info.get_default(call_default_factory=True)))
            add(field, field, _input_type(found, field), default)
    inputs.sort(key=lambda one: one.default is not inspect.Parameter.empty)
    return inputs, words


def _description(found: type[Step], models: Sequence[str]) -> str:
    """Docstring from which Kubeflow takes the texts of its page."""
    lines = [(found.__doc__ or "").strip().splitlines()[0], "", "Args:"]
    for field, info in found.model_fields.items():
        role = found.artifacts().get(field)
        each = isinstance(role, Reads) and role.each
        names = [pieces(field, name) for name in models] if each else [field]
        lines += [f"    {name}: {info.description}" for name in names]
    return "\n".join(lines)


def _artifact(kind: str) -> Any:
    """Kubeflow's type of an artifact: its page shows models and data sets as such."""
    from kfp import dsl

    return {"Dataset": dsl.Dataset, "Prepared": dsl.Dataset, "Model": dsl.Model, "Ensemble": dsl.Model}.get(
        kind, dsl.Artifact
    )


def _on_a_volume(found: type[Step], field: str) -> bool:
    """Whether a folder that need not be given is named by its path in the container, and no task's output."""
    role = found.artifacts()[field]
    return isinstance(role, Reads) and role.optional and _nullable(found.model_fields[field].annotation)


def _input_type(found: type[Step], field: str) -> Any:
    """Type of the input that a parameter becomes."""
    annotation = found.model_fields[field].annotation
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
    raise TypeError(f"expected a parameter that Kubeflow has a type for, received {found.name}.{field}: {annotation}")


def _nullable(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_origin(annotation) in {Union, types.UnionType, typing.Optional} and type(None) in get_args(annotation)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
