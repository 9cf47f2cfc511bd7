"""Finds the commands that the modules of a package define, so that no list of them has to be kept."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

from cxr.steps.base import Step

_SECTIONS = re.compile(r"^    sections: ClassVar\[tuple\[str, \.\.\.\]\] = \(([^)]*)\)", re.MULTILINE)
_DECLARATION = re.compile(r'^    (name|follows): ClassVar\[str\] = "([^"]+)"$', re.MULTILINE)


def find_commands(folder: Path) -> tuple[str, ...]:
    """Find the modules that define a command.

    The files are read and not imported: importing all of them would slow down each command.

    Args:
        folder: folder of a package; a module whose class declares ``name: ClassVar[str]`` is a command.

    Returns:
        Names of the modules, each after the one that its class declares as ``follows``; a module without any comes
        last.
    """
    predecessors: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*.py")):
        declared = dict(_DECLARATION.findall(path.read_text(encoding="utf-8")))
        if "name" in declared:
            predecessors[path.stem] = {declared["follows"]} if "follows" in declared else set()
    order = [name for name in TopologicalSorter(predecessors).static_order() if name in predecessors]
    followed = set().union(*predecessors.values())
    return tuple(sorted(order, key=lambda name: not predecessors[name] and name not in followed))


def find_sections(folder: Path) -> frozenset[str]:
    """Find the sections of ``params.yaml`` that the modules of a package declare, as :func:`find_commands` reads them.

    Args:
        folder: folder of a package.

    Returns:
        Names of the top-level sections.
    """
    return frozenset(
        pattern.partition(".")[0]
        for path in folder.glob("*.py")
        for declaration in _SECTIONS.findall(path.read_text(encoding="utf-8"))
        for pattern in re.findall(r'"([^"]+)"', declaration)
    )


def load_command(package: str, name: str) -> type[Step]:
    """Import the class of a command.

    Args:
        package: dotted name of the package.
        name: one of the modules that :func:`find_commands` found in it.

    Returns:
        The class.
    """
    module = import_module(f"{package}.{name}")
    return next(
        member
        for member in vars(module).values()
        if isinstance(member, type)
        and issubclass(member, Step)
        and member.__module__ == module.__name__
        and "name" in vars(member)
    )
