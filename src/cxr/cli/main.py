"""The command line: ``cxr STEP [--params params.yaml] [--name value ...]``, derived from the step classes.

A step's name is one word, or two: ``cxr kubeflow ACTION`` is an action of a group.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxr import __version__
from cxr.cli.container import EXECUTOR_INPUT, Task, put_together
from cxr.cli.optional_dependencies import absent
from cxr.errors import CxrError, ParameterError
from cxr.kubeflow import CONTAINERS
from cxr.kubeflow.actions import ACTIONS, action
from cxr.steps import STEPS, step
from cxr.steps.base import Keeps, Reads, Step, Writes
from cxr.steps.parameters import gather, read_flags, read_sections, top_level

INTERRUPTED = 130
GROUP = "kubeflow"
"""First word of the commands of two words."""
GROUP_LINE = "Compile the pipelines for Kubeflow; submit, schedule and watch them on a cluster."
HELP = frozenset({"-h", "--help"})


def main(words: Sequence[str] | None = None) -> int:
    """Run one step from the command line.

    Args:
        words: the arguments; those of the process if None.

    Returns:
        Exit status: 0 done, 1 the data or the run failed, 2 a parameter or path is wrong, 130 interrupted; of a step
        that looks for drift also 3 drift, 4 too few films to tell.
    """
    words = list(sys.argv[1:] if words is None else words)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_AboveBars(sys.stderr)])
    logging.getLogger("cxr").setLevel(logging.INFO)
    if words in (["--version"], ["-V"]):
        sys.stdout.write(f"cxr {__version__}\n")
        return 0
    if not words or words[0] in {*HELP, "help"}:
        sys.stdout.write(overview())
        return 0
    if words[0] == GROUP and (len(words) == 1 or words[1] in {*HELP, "help"}):
        sys.stdout.write(group_overview())
        return 0
    try:
        found, rest = command(words)
    except ParameterError as error:
        sys.stderr.write(f"cxr: {error}\n")
        return error.exit_status
    name = found.name
    if HELP & set(rest):
        sys.stdout.write(reference(found))
        return 0
    signal.signal(signal.SIGTERM, _leave)
    try:
        carry_out(found, rest)
    except CxrError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"cxr {name}: {line}\n")
        return error.exit_status
    except ModuleNotFoundError as error:
        missing = absent(error)
        if missing is None:
            raise
        sys.stderr.write(f"cxr {name}: {missing}\n")
        return missing.exit_status
    except KeyboardInterrupt:
        sys.stderr.write(f"cxr {name}: interrupted; nothing half-written was kept\n")
        return INTERRUPTED
    return 0


def carry_out(found: type[Step], words: Sequence[str]) -> None:
    """Run a step from its command line, typed by a person or written by a pipeline.

    Args:
        found: the step's class.
        words: the arguments after the step's name.
    """
    flags, problems = read_flags(words, found.positional(), found.rest())
    task = Task.read(flags.pop(EXECUTOR_INPUT)) if EXECUTOR_INPUT in flags else None
    with put_together(found, flags) as whole:
        build(found, whole, problems).execute()
    if task is not None:
        task.tell_outputs()


def command(words: Sequence[str]) -> tuple[type[Step], list[str]]:
    """Find the step that a command line names, by one word or by two.

    Args:
        words: the arguments of the process, the first of them a step or the group.

    Returns:
        The step's class, and the words behind its name.

    Raises:
        ParameterError: listing the choices.
    """
    name, *rest = words
    if name in STEPS:
        return step(name), rest
    if name != GROUP:
        choices = ", ".join([*STEPS, GROUP])
        raise ParameterError([f"expected a step, received {name!r}; the steps are: {choices}"])
    if not rest or rest[0] not in ACTIONS:
        received = repr(rest[0]) if rest else "none"
        raise ParameterError(
            [f"expected an action of {GROUP}, received {received}; the actions are: {', '.join(ACTIONS)}"]
        )
    return action(rest[0]), rest[1:]


def classes() -> list[type[Step]]:
    """Collect everything that has a command.

    Returns:
        The classes of all steps, and of all actions of the group.
    """
    return [*map(step, STEPS), *map(action, ACTIONS)]


def parse(found: type[Step], words: Sequence[str]) -> Step:
    """Make a step from its command line.

    Args:
        found: the step's class.
        words: the arguments after the step's name.

    Returns:
        The step, ready to execute.

    Raises:
        ParameterError: listing every unknown, missing and wrong value of file and flags together.
    """
    return build(found, *read_flags(words, found.positional(), found.rest()))


def build(found: type[Step], flags: dict[str, Any], problems: list[str]) -> Step:
    """Make a step from flags and the parameter file that they name.

    Args:
        found: the step's class.
        flags: field to value; ``params`` is the file.
        problems: what was wrong with the command line.

    Returns:
        The step, ready to execute.

    Raises:
        ParameterError: listing every unknown, missing and wrong value of file and flags together.
    """
    flags, problems = dict(flags), list(problems)
    sections: dict[str, Any] = {}
    if "params" in flags:
        try:
            # A step that hands the file on has a field of this name.
            sections = read_sections(Path(flags["params"] if "params" in found.model_fields else flags.pop("params")))
        except ParameterError as error:
            problems.extend(error.problems)
    values, unknown = gather(found, flags, sections, (*top_level(classes()), CONTAINERS))
    problems.extend(unknown)
    try:
        built = found.build(values)
    except ParameterError as error:
        raise ParameterError([*problems, *error.problems]) from None
    if problems:
        raise ParameterError(problems)
    return built


def overview() -> str:
    """Describe the program: its steps and how to call one.

    Returns:
        Text of ``cxr --help``.
    """
    width = max(map(len, STEPS))
    lines = [
        "usage: cxr STEP [--params params.yaml] [--NAME VALUE ...]",
        "",
        "Train, judge and ship pneumonia classifiers for chest radiographs.",
        "For research. Not for diagnosis.",
        "",
        "steps, in the order in which data flows:",
        *(f"  {name:<{width}}  {_first_line(step(name))}" for name in STEPS),
        f"  {GROUP:<{width}}  {GROUP_LINE}",
        "",
        "`cxr STEP --help` lists the parameters of a step. A flag beats params.yaml, which beats the default.",
        "`dvc repro` runs all steps that something changed for; `make run` also fetches the data first.",
    ]
    return "\n".join(lines) + "\n"


def group_overview() -> str:
    """Describe the group: its actions and how to call one.

    Returns:
        Text of ``cxr kubeflow --help``.
    """
    width = max(map(len, ACTIONS))
    lines = [
        f"usage: cxr {GROUP} ACTION [--params params.yaml] [--NAME VALUE ...]",
        "",
        GROUP_LINE,
        "",
        "actions:",
        *(f"  {name:<{width}}  {_first_line(action(name))}" for name in ACTIONS),
        "",
        f"`cxr {GROUP} ACTION --help` lists the parameters of an action.",
    ]
    return "\n".join(lines) + "\n"


def reference(found: type[Step]) -> str:
    """Describe one step: its artifacts and parameters with types, bounds and defaults.

    Args:
        found: the step's class.

    Returns:
        Text of ``cxr STEP --help``.
    """
    nameless = [*found.positional(), *([found.rest()] if found.rest() else [])]
    alone = "".join(f" [{str(field).upper()}{' ...' if field == found.rest() else ''}]" for field in nameless)
    lines = [f"usage: cxr {found.name}{alone} [--params params.yaml] [--NAME VALUE ...]", "", _first_line(found), ""]
    roles = {Reads: "reads", Writes: "writes", Keeps: "keeps"}
    properties = found.model_json_schema()["properties"]
    for title, fields in (("artifacts", tuple(found.artifacts())), ("parameters", found.parameters())):
        if not fields:
            continue
        named = title == "parameters" and found.sections
        sections = f" (sections of params.yaml: {', '.join(found.sections)})" if named else ""
        lines.append(f"{title}{sections}:")
        for field in fields:
            role = found.artifacts().get(field)
            kind = f"{roles[type(role)]} {role.kind}" if role else _kind(properties[field])
            default = found.model_fields[field].get_default(call_default_factory=True)
            shown = "required" if found.model_fields[field].is_required() else f"default {_plain(default)}"
            either = f", or {field.upper()} without its name" if field in nameless else ""
            lines.append(f"  --{field}  ({kind}; {shown}{either})")
            description = properties[field].get("description", "")
            lines.extend(textwrap.wrap(description, 96, initial_indent="      ", subsequent_indent="      "))
        lines.append("")
    return "\n".join(lines)


def _first_line(found: type[Step]) -> str:
    return (found.__doc__ or "").strip().splitlines()[0]


def _kind(schema: dict[str, Any]) -> str:
    """Type and bounds of a parameter, in words."""
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "$ref" in schema:
        return "mapping"
    words = {"string": "text", "number": "number", "integer": "whole number", "boolean": "true | false"}
    kind = words.get(schema.get("type", ""), {"array": "list", "object": "mapping"}.get(schema.get("type", ""), "null"))
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]}" for key, sign in limits.items() if key in schema]
    return " ".join([kind, *([", ".join(bounds)] if bounds else [])])


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


class _AboveBars(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Writes messages above the progress bars of a terminal, not into them."""

    def emit(self, record: logging.LogRecord) -> None:
        if "tqdm" not in sys.modules:
            super().emit(record)
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def _leave(signum: int, _frame: Any) -> None:
    """End on SIGTERM as after an interrupt, so that half-written outputs are removed."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
