"""The command line: ``cxr STEP [--params params.yaml] [--name value ...]``, derived from the step classes.

A step's name is one word, or two: ``cxr kubeflow ACTION`` is an action of a group.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from cxr import __version__
from cxr.cli.container import EXECUTOR_INPUT, ContainerTask, linked_folders
from cxr.cli.fork_request import SOCKET_VARIABLE, run_in_fork
from cxr.cli.help import GROUP, HELP_FLAGS, group_help, program_help, step_help
from cxr.cli.optional_dependencies import explain_missing_package
from cxr.cli.proxies import exempt_loopback
from cxr.errors import CxrError, ParameterError
from cxr.kubeflow import CONTAINERS_SECTION
from cxr.kubeflow.actions import ACTIONS, ACTIONS_FOLDER, load_action
from cxr.steps import STEPS, STEPS_FOLDER, load_step
from cxr.steps.base import Step
from cxr.steps.parameters import merge_parameters, read_flags, read_parameter_file, section_names
from cxr.steps.registry import find_sections

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells use it."""
FULL_SEARCH_EVERY = 100
"""How many searches for young garbage come before one among all objects. Python's own value is 10. A step that imports
for seconds then spends 0.2 s on four full searches, which find nothing; its peak memory is the same."""


def run_program() -> NoReturn:
    """Run the command line of the process, in a fork where one is offered, and end the process without freeing memory.

    Python would free a million objects that imports have made: 0.4 s after a step with Keras and MLflow. All else
    happens as at every end, and as in the processes of `multiprocessing`: Python waits for threads, functions of
    `atexit` run, and the output is flushed. An exception ends the process as usual, and so does output that cannot be
    written, because Python has a message and an exit status for it.
    """
    address = os.environ.get(SOCKET_VARIABLE)
    if address and sys.argv[1:2] and sys.argv[1] in STEPS and load_step(sys.argv[1]).imports_slowly:
        forked = run_in_fork(Path(address), sys.argv[1:])
        if forked is not None:
            os._exit(forked)
    gc.set_threshold(*gc.get_threshold()[:2], FULL_SEARCH_EVERY)
    status = main()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):
        sys.exit(status)
    os._exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step from the command line.

    Args:
        arguments: the arguments; those of the process if None.

    Returns:
        Exit status: 0 success, 1 the data or the run failed, 2 a parameter or path is wrong, 130 interrupted. A step
        that looks for drift also returns 3 for drift and 4 for too few images to decide.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    exempt_loopback(os.environ)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_ProgressBarHandler(sys.stderr)])
    logging.getLogger("cxr").setLevel(logging.INFO)
    text = _general_output(arguments)
    if text is not None:
        sys.stdout.write(text)
        return 0
    try:
        step_class, step_arguments = find_command(arguments)
    except ParameterError as error:
        sys.stderr.write(f"cxr: {error}\n")
        return error.exit_status
    if HELP_FLAGS & set(step_arguments):
        sys.stdout.write(step_help(step_class))
        return 0
    signal.signal(signal.SIGTERM, _exit_on_signal)
    name = step_class.name
    try:
        run_command(step_class, step_arguments)
    except CxrError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"cxr {name}: {line.removeprefix(f'{name}: ')}\n")  # problems of parameters begin with it
        return error.exit_status
    except ModuleNotFoundError as error:
        explanation = explain_missing_package(error)
        if explanation is None:
            raise
        sys.stderr.write(f"cxr {name}: {explanation}\n")
        return explanation.exit_status
    except KeyboardInterrupt:
        sys.stderr.write(f"cxr {name}: interrupted; partial outputs were removed\n")
        return INTERRUPTED
    return 0


def run_command(step_class: type[Step], arguments: Sequence[str]) -> None:
    """Run a step from its command line, typed by a person or written by a pipeline.

    Args:
        step_class: the step's class.
        arguments: the arguments after the step's name.
    """
    flags, problems = _read_flags_of(step_class, arguments)
    task = ContainerTask.read(flags.pop(EXECUTOR_INPUT)) if EXECUTOR_INPUT in flags else None
    shards = {} if task is None else task.folders_of_shards(step_class, flags)
    with linked_folders(step_class, flags, shards) as complete_flags:
        build_step(step_class, complete_flags, problems).execute()
    if task is not None:
        task.report_outputs()


def find_command(arguments: Sequence[str]) -> tuple[type[Step], list[str]]:
    """Find the step that a command line names, by one word or by two.

    Args:
        arguments: the arguments of the process; the first one is a step or the group.

    Returns:
        The step's class, and the arguments after its name.

    Raises:
        ParameterError: listing the steps or actions, if the name is unknown.
    """
    name, *remaining_arguments = arguments
    if name in STEPS:
        return load_step(name), remaining_arguments
    if name != GROUP:
        names = ", ".join([*STEPS, GROUP])
        raise ParameterError([f"expected a step, received {name!r}; the steps are: {names}"])
    if not remaining_arguments or remaining_arguments[0] not in ACTIONS:
        received = repr(remaining_arguments[0]) if remaining_arguments else "none"
        raise ParameterError(
            [f"expected an action of {GROUP}, received {received}; the actions are: {', '.join(ACTIONS)}"]
        )
    return load_action(remaining_arguments[0]), remaining_arguments[1:]


def all_commands() -> list[type[Step]]:
    """The classes of all steps and of all actions of the group."""
    return [*map(load_step, STEPS), *map(load_action, ACTIONS)]


def declared_sections() -> frozenset[str]:
    """The sections of a parameter file that some command reads, without importing the commands."""
    return find_sections(STEPS_FOLDER) | find_sections(ACTIONS_FOLDER) | {CONTAINERS_SECTION}


def parse_step(step_class: type[Step], arguments: Sequence[str]) -> Step:
    """Make a step from its command line.

    Args:
        step_class: the step's class.
        arguments: the arguments after the step's name.

    Returns:
        The step, ready to execute.

    Raises:
        ParameterError: listing every unknown, missing and wrong value of file and flags together.
    """
    return build_step(step_class, *_read_flags_of(step_class, arguments))


def build_step(step_class: type[Step], flags: dict[str, Any], problems: list[str]) -> Step:
    """Make a step from flags and the parameter file that they name.

    Args:
        step_class: the step's class.
        flags: field to value; ``params`` is the parameter file.
        problems: problems with the command line that were found before.

    Returns:
        The step, ready to execute.

    Raises:
        ParameterError: listing every unknown, missing and wrong value of file and flags together.
    """
    flags, problems = dict(flags), list(problems)
    sections: dict[str, Any] = {}
    if "params" in flags:
        # Some actions pass the file on, so it is one of their fields; for a step it is only a flag.
        params = flags["params"] if "params" in step_class.model_fields else flags.pop("params")
        try:
            sections = read_parameter_file(Path(params))
        except ParameterError as error:
            problems.extend(error.problems)
    values, unknown = merge_parameters(step_class, flags, sections, _known_sections(sections))
    problems.extend(unknown)
    try:
        step = step_class.build(values)
    except ParameterError as error:
        raise ParameterError([*problems, *error.problems]) from None
    if problems:
        raise ParameterError(problems)
    return step


def _known_sections(sections: Collection[str]) -> tuple[str, ...]:
    """The sections that some command reads; all commands are imported for the list only if one is unknown."""
    if declared_sections().issuperset(sections):
        return tuple(sections)
    return (*section_names(all_commands()), CONTAINERS_SECTION)


def _general_output(arguments: Sequence[str]) -> str | None:
    """The version or a general help text, if the arguments ask for it."""
    if list(arguments) in (["--version"], ["-V"]):
        return f"cxr {__version__}\n"
    if not arguments or arguments[0] in {*HELP_FLAGS, "help"}:
        return program_help()
    if arguments[0] == GROUP and (len(arguments) == 1 or arguments[1] in {*HELP_FLAGS, "help"}):
        return group_help()
    return None


def _read_flags_of(step_class: type[Step], arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    return read_flags(arguments, step_class.positional_parameters(), step_class.variadic_parameter())


class _ProgressBarHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic only in the stubs
    """Writes log messages above the progress bars of a terminal, not into them."""

    def emit(self, record: logging.LogRecord) -> None:
        if "tqdm" not in sys.modules:
            super().emit(record)
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def _exit_on_signal(signum: int, _frame: Any) -> None:
    """Exit on SIGTERM by an exception, so that half-written outputs are removed."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    run_program()
