"""The texts of ``cxr --help``, ``cxr kubeflow --help`` and ``cxr STEP --help``."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from cxr.kubeflow.actions import ACTIONS, load_action
from cxr.steps import STEPS, load_step
from cxr.steps.base import Input, Output, Step, WorkingFolder

HELP_FLAGS = frozenset({"-h", "--help"})
GROUP = "kubeflow"
"""First word of the commands that have two words."""
GROUP_SUMMARY = "Compile the pipelines for Kubeflow; submit, schedule and watch them on a cluster."


def program_help() -> str:
    """Describe the program: its steps and how to call one.

    Returns:
        Text of ``cxr --help``.
    """
    lines = [
        "usage: cxr STEP [--params params.yaml] [--NAME VALUE ...]",
        "",
        "Train, judge and ship pneumonia classifiers for chest radiographs.",
        "For research. Not for diagnosis.",
        "",
        "steps, in the order in which data flows:",
        *_command_lines(STEPS, load_step),
        f"  {GROUP:<{max(map(len, STEPS))}}  {GROUP_SUMMARY}",
        "",
        "`cxr STEP --help` lists the parameters of a step. A flag wins over params.yaml, which wins over the default.",
        "`dvc repro` runs all steps whose inputs changed; `make run` fetches the data first.",
    ]
    return "\n".join(lines) + "\n"


def group_help() -> str:
    """Describe the group: its actions and how to call one.

    Returns:
        Text of ``cxr kubeflow --help``.
    """
    lines = [
        f"usage: cxr {GROUP} ACTION [--params params.yaml] [--NAME VALUE ...]",
        "",
        GROUP_SUMMARY,
        "",
        "actions:",
        *_command_lines(ACTIONS, load_action),
        "",
        f"`cxr {GROUP} ACTION --help` lists the parameters of an action.",
    ]
    return "\n".join(lines) + "\n"


def step_help(step_class: type[Step]) -> str:
    """Describe one step: its artifacts and parameters with types, bounds and defaults.

    Args:
        step_class: the step's class.

    Returns:
        Text of ``cxr STEP --help``.
    """
    variadic = step_class.variadic_parameter()
    without_flag = [*step_class.positional_parameters(), *([variadic] if variadic else [])]
    usage = "".join(f" [{field.upper()}{' ...' if field == variadic else ''}]" for field in without_flag)
    lines = [
        f"usage: cxr {step_class.name}{usage} [--params params.yaml] [--NAME VALUE ...]",
        "",
        _summary(step_class),
        "",
    ]
    verbs = {Input: "reads", Output: "writes", WorkingFolder: "keeps"}
    artifacts, parameters = step_class.artifacts(), step_class.parameters()
    properties = step_class.model_json_schema()["properties"]
    for title, fields in (("artifacts", tuple(artifacts)), ("parameters", parameters)):
        if not fields:
            continue
        has_sections = title == "parameters" and step_class.sections
        sections = f" (sections of params.yaml: {', '.join(step_class.sections)})" if has_sections else ""
        lines.append(f"{title}{sections}:")
        for field in fields:
            artifact, info = artifacts.get(field), step_class.model_fields[field]
            kind = f"{verbs[type(artifact)]} {artifact.kind}" if artifact else _type_text(properties[field])
            default = _value_text(info.get_default(call_default_factory=True))
            default_text = "required" if info.is_required() else f"default {default}"
            positional = f", or {field.upper()} without its name" if field in without_flag else ""
            lines.append(f"  --{field}  ({kind}; {default_text}{positional})")
            description = properties[field].get("description", "")
            lines.extend(textwrap.wrap(description, 96, initial_indent="      ", subsequent_indent="      "))
        lines.append("")
    return "\n".join(lines)


def _command_lines(names: Sequence[str], load: Callable[[str], type[Step]]) -> list[str]:
    width = max(map(len, names))
    return [f"  {name:<{width}}  {_summary(load(name))}" for name in names]


def _summary(step_class: type[Step]) -> str:
    return (step_class.__doc__ or "").strip().splitlines()[0]


def _type_text(schema: dict[str, Any]) -> str:
    """Type and bounds of a parameter."""
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " or ".join(_type_text(option) for option in schema["anyOf"])
    if "$ref" in schema:
        return "mapping"
    names = {
        "string": "text",
        "number": "number",
        "integer": "whole number",
        "boolean": "true | false",
        "array": "list",
        "object": "mapping",
    }
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    return " ".join([names.get(schema.get("type", ""), "null"), *([", ".join(bounds)] if bounds else [])])


def _value_text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
