"""Values for a step from ``params.yaml`` and flags: a flag wins over the file, the file over the default."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cxr.errors import ParameterError
from cxr.steps.base import SetOnlyIn, Step
from cxr.yaml_text import parse_yaml


def read_flags(
    arguments: Sequence[str], positional: Sequence[str] = (), variadic: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Read ``--field value`` and ``--field=value`` pairs, and arguments without a flag.

    A value that starts with ``[`` or ``{`` is read as a list or mapping (YAML, hence also JSON), and ``null`` as
    None; all other values remain text, which the field's type converts. Arguments of ``variadic`` always remain text.

    Args:
        arguments: the command line after the step's name.
        positional: fields that take the arguments without a flag, in order.
        variadic: field that takes all remaining arguments without a flag as a list; after ``--`` every argument is one.

    Returns:
        Field to value, and one sentence per argument that could not be read.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    free_fields = list(positional)
    variadic_values: list[str] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if argument == "--" and variadic is not None:
            variadic_values += arguments[position:]
            break
        takes_field = not argument.startswith("--") and bool(free_fields)
        if not takes_field and variadic is not None and not argument.startswith("--"):
            variadic_values.append(argument)
            continue
        if not takes_field and (not argument.startswith("--") or argument == "--"):
            problems.append(f"expected --NAME VALUE, received {argument!r}")
            continue
        field, equals, text = (free_fields.pop(0), "=", argument) if takes_field else argument[2:].partition("=")
        if not equals:
            if position == len(arguments) or arguments[position].startswith("--"):
                problems.append(f"expected a value after --{field}, received none; every flag takes one")
                continue
            text = arguments[position]
            position += 1
        if field in values:
            problems.append(f"expected --{field} once, received it twice")
            continue
        try:
            values[field] = _read_value(text)
        except yaml.YAMLError:
            problems.append(f"expected a list or mapping in YAML or JSON, received {field}={text}")
    if variadic_values and variadic in values:
        problems.append(f"expected --{variadic} or arguments without a flag, received both")
    elif variadic_values and variadic is not None:
        values[variadic] = variadic_values
    return values, problems


def argument_text(value: object) -> str:
    """Write a value as :func:`read_flags` reads it.

    Args:
        value: a plain value: text, number, list, mapping or None.

    Returns:
        Its text on the command line.
    """
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _read_value(text: str) -> Any:
    if text == "null":
        return None
    return parse_yaml(text) if text[:1] in {"[", "{"} else text


def read_parameter_file(path: Path) -> dict[str, Any]:
    """Read a parameter file.

    Args:
        path: a YAML file with one section per step.

    Returns:
        Section to values.

    Raises:
        ParameterError: if the file is missing or is not a mapping of sections.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError([f"expected a parameter file, received params={path} ({error.strerror})"]) from error
    except yaml.YAMLError as error:
        raise ParameterError([f"expected YAML, received params={path}: {error}"]) from error
    if not isinstance(content, dict):
        raise ParameterError([f"expected sections such as 'train:', received params={path} without any"])
    return content


def merge_parameters(
    step_class: type[Step],
    flags: Mapping[str, Any],
    sections: Mapping[str, Any],
    known: Sequence[str] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Merge the step's sections and its flags.

    Args:
        step_class: the step's class.
        flags: field to value from the command line.
        sections: the parameter file's content; empty if there is none.
        known: top-level sections of all steps; other sections are refused. None accepts all sections.

    Returns:
        Field to value, and one sentence per section or key that no step knows, or that stands in the wrong section.
    """
    problems = [
        f"unknown section {name!r}; expected one of: {', '.join(known)}"
        for name in sections
        if known is not None and name not in known
    ]
    problems += _find_misplaced(step_class, sections)
    values: dict[str, Any] = {}
    for pattern in step_class.sections:
        section = _find_section(pattern, flags, sections)
        if section is None:
            continue
        if not isinstance(section, Mapping):
            problems.append(f"expected section {pattern} to hold 'name: value' lines, received {section!r}")
            continue
        for key, value in section.items():
            if key in step_class.model_fields:
                values[key] = value
            elif key not in step_class.ignored_keys:
                problems.append(
                    f"unknown parameter {pattern}.{key}={value!r}; "
                    f"expected one of: {', '.join(step_class.parameters())}"
                )
    values.update(flags)
    for field, patterns in step_class.collected_sections.items():
        flag = flags.get(field, {})
        collected: dict[str, Any] = {}
        for pattern in patterns:
            section = _find_section(pattern, flags, sections)
            collected |= section if isinstance(section, Mapping) else {}
        values[field] = {**collected, **flag} if isinstance(flag, Mapping) else flag
    return values, problems


def _find_misplaced(step_class: type[Step], sections: Mapping[str, Any]) -> list[str]:
    """Name the parameters of a step that stand in a section where other steps would not see them."""
    return [
        f"expected {field} in the section {' or '.join(marker.sections)}, so that every command obeys it, received "
        f"{name}.{field}={section[field]!r}; move it there"
        for field, info in step_class.model_fields.items()
        for marker in info.metadata
        if isinstance(marker, SetOnlyIn)
        for name, section in sections.items()
        if name not in marker.sections and isinstance(section, Mapping) and field in section
    ]


def _find_section(pattern: str, flags: Mapping[str, Any], sections: Mapping[str, Any]) -> Any:
    """Find the section with a dotted name; ``{field}`` is replaced by that flag's value. None if there is none."""
    section: Any = sections
    for part in pattern.split("."):
        match = re.fullmatch(r"\{(\w+)\}", part)
        key = str(flags.get(match[1], "")) if match else part
        if not isinstance(section, Mapping) or key not in section:
            return None
        section = section[key]
    return section


def section_names(step_classes: Sequence[type[Step]]) -> tuple[str, ...]:
    """Names of the top-level sections that the steps read, each once, in order of the steps."""
    return tuple(dict.fromkeys(pattern.split(".")[0] for step_class in step_classes for pattern in step_class.sections))


def override_parameters(
    sections: Mapping[str, Any], models: Sequence[str], overrides: Mapping[str, Any], *, add: bool = False
) -> dict[str, Any]:
    """Copy the sections of a parameter file and replace some values.

    Args:
        sections: the sections.
        models: entries of the section ``models`` to keep; an empty list keeps all.
        overrides: dotted name to value, e.g. ``{"fetch.phantom_images": 60}``.
        add: whether missing parent sections are created.

    Returns:
        The copy.

    Raises:
        ParameterError: listing every model and name that does not exist.
    """
    copy: dict[str, Any] = json.loads(json.dumps(sections))  # YAML sections that share an anchor become separate
    known = copy.get("models") or {}
    problems = [
        f"expected one of the models {', '.join(known)}; received {name!r}" for name in models if name not in known
    ]
    if models:
        copy["models"] = {name: known[name] for name in models if name in known}
    for name, value in overrides.items():
        *parents, last = name.split(".")
        section: Any = copy
        for parent in parents:
            if add:
                section[parent] = section.get(parent) or {}
            section = section.get(parent) if isinstance(section, dict) else None
        if not isinstance(section, dict) or (not parents and last not in section):
            problems.append(f"expected the name of a value such as fetch.phantom_images, received {name}={value!r}")
        else:
            section[last] = value
    if problems:
        raise ParameterError(problems)
    return copy
