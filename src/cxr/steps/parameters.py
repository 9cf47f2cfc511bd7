"""Values for a step from ``params.yaml`` and flags: a flag beats the file, which beats the default."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cxr.errors import ParameterError
from cxr.steps.base import Step


def read_flags(
    words: Sequence[str], positional: Sequence[str] = (), rest: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Read ``--field value`` and ``--field=value`` pairs, and words that stand alone.

    A value that starts with ``[`` or ``{`` is read as a list or mapping (YAML, hence also JSON), ``null`` as
    None; everything else stays text for the field's type to convert. Words of ``rest`` are text in any case.

    Args:
        words: the command line after the step's name.
        positional: fields that words without ``--NAME`` before them fill, in order.
        rest: field that takes all further such words as a list; behind ``--`` every word is one.

    Returns:
        Field to value, and one sentence per word that could not be read.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    open_fields = list(positional)
    further: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--" and rest is not None:
            further += words[position:]
            break
        alone = not word.startswith("--") and bool(open_fields)
        if not alone and rest is not None and not word.startswith("--"):
            further.append(word)
            continue
        if not alone and (not word.startswith("--") or word == "--"):
            problems.append(f"expected --NAME VALUE, received {word!r}")
            continue
        field, equals, text = (open_fields.pop(0), "=", word) if alone else word[2:].partition("=")
        if not equals:
            if position == len(words) or words[position].startswith("--"):
                problems.append(f"expected a value after --{field}, received none; every flag takes one")
                continue
            text = words[position]
            position += 1
        if field in values:
            problems.append(f"expected --{field} once, received it twice")
            continue
        try:
            values[field] = _value(text)
        except yaml.YAMLError:
            problems.append(f"expected a list or mapping in YAML or JSON, received {field}={text}")
    if further and rest in values:
        problems.append(f"expected --{rest} or words without a name, received both")
    elif further and rest is not None:
        values[rest] = further
    return values, problems


def _value(text: str) -> Any:
    if text == "null":
        return None
    return yaml.safe_load(text) if text[:1] in {"[", "{"} else text


def read_sections(path: Path) -> dict[str, Any]:
    """Read a parameter file.

    Args:
        path: a YAML file with one section per step.

    Returns:
        Section to values.

    Raises:
        ParameterError: if the file is missing or is not a mapping of sections.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError([f"expected a parameter file, received params={path} ({error.strerror})"]) from error
    except yaml.YAMLError as error:
        raise ParameterError([f"expected YAML, received params={path}: {error}"]) from error
    if not isinstance(content, dict):
        raise ParameterError([f"expected sections such as 'train:', received params={path} without any"])
    return content


def gather(
    step: type[Step],
    flags: Mapping[str, Any],
    sections: Mapping[str, Any],
    known: Sequence[str] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Merge the step's sections and its flags.

    Args:
        step: the step's class.
        flags: field to value from the command line.
        sections: the parameter file's content; empty if there is none.
        known: top-level sections of all steps; others are refused. None to let them pass.

    Returns:
        Field to value, and one sentence per section or key that no step knows.
    """
    problems = [
        f"unknown section {name!r}; expected one of: {', '.join(known)}"
        for name in sections
        if known is not None and name not in known
    ]
    values: dict[str, Any] = {}
    for pattern in step.sections:
        fields = dict(flags)
        section, present = _find(pattern, fields, sections)
        if not present:
            continue
        if not isinstance(section, Mapping):
            problems.append(f"expected section {pattern} to hold 'name: value' lines, received {section!r}")
            continue
        for key, value in section.items():
            if key in step.model_fields:
                values[key] = value
            elif key not in step.passed_over:
                problems.append(
                    f"unknown parameter {pattern}.{key}={value!r}; expected one of: {', '.join(step.parameters())}"
                )
    values.update(flags)
    for field, patterns in step.collects.items():
        found = [_find(pattern, flags, sections)[0] for pattern in patterns]
        collected = {key: value for section in found if isinstance(section, Mapping) for key, value in section.items()}
        given = flags.get(field, {})
        values[field] = {**collected, **given} if isinstance(given, Mapping) else given
    return values, problems


def _find(pattern: str, fields: Mapping[str, Any], sections: Mapping[str, Any]) -> tuple[Any, bool]:
    """Follow a dotted section name; ``{field}`` is replaced by that field's value."""
    found: Any = sections
    for part in pattern.split("."):
        match = re.fullmatch(r"\{(\w+)\}", part)
        key = str(fields.get(match[1], "")) if match else part
        if not isinstance(found, Mapping) or key not in found:
            return None, False
        found = found[key]
    return found, found is not None


def top_level(steps: Sequence[type[Step]]) -> tuple[str, ...]:
    """Names of the sections that any of the steps reads.

    Args:
        steps: the step classes.

    Returns:
        Section names, each once, in order of the steps.
    """
    return tuple(dict.fromkeys(pattern.split(".")[0] for step in steps for pattern in step.sections))
