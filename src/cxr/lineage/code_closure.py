"""Which source files a step's result depends on: the import closure of the step's module."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

PACKAGE = "cxr"


def import_closure(module: str, source: Path, excluded: Iterable[str] = ()) -> set[str]:
    """Find all files of the package that a module imports, directly or through other modules.

    Imports inside functions count, because that is where large packages are imported. Imports for type checkers do
    not count, and neither do ``__init__.py`` files that hold only a docstring.

    Args:
        module: full name of the module, for example ``"cxr.steps.train"``.
        source: folder that holds the package.
        excluded: patterns of paths below the package (``"errors.py"``, ``"tracking/*.py"``); files that match are
            neither listed nor followed.

    Returns:
        Paths below the package, for example ``"training/loop.py"``.
    """
    patterns = tuple(excluded)
    files: set[str] = set()
    waiting = [module]
    while waiting:
        path = _file_of(waiting.pop(), source)
        if path is None:
            continue
        name = path.relative_to(source / PACKAGE).as_posix()
        if name in files or any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        content = _content_of(path.read_text(encoding="utf-8"))
        if path.name != "__init__.py" or content.has_code:
            files.add(name)
        for imported, attribute in content.imports:
            submodule = f"{imported}.{attribute}"
            waiting.append(submodule if attribute and _file_of(submodule, source) else imported)
    return files


def _file_of(module: str, source: Path) -> Path | None:
    path = source.joinpath(*module.split("."))
    if path.is_dir():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None


@dataclass(frozen=True)
class _Content:
    """What matters of a module's text.

    Attributes:
        has_code: whether it holds more than a docstring.
        imports: modules of the package, each with the name that is imported from it; ``""`` for the module itself.
    """

    has_code: bool
    imports: tuple[tuple[str, str], ...]


@cache  # the closures of all steps share most modules
def _content_of(text: str) -> _Content:
    tree = ast.parse(text)
    has_code = any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in tree.body)
    return _Content(has_code, tuple(_imports(tree)))


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        waiting += (child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))
