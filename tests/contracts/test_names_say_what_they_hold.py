"""Names: one class per name, and no variable whose name says nothing about its value."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

EMPTY = {"found", "one", "made", "given", "wanted", "told", "asked", "seen", "kept", "held", "thing", "things", "stuff"}
"""Words that fit any value."""

OTHER_WORDS_FOR_IMAGE = {"film", "films", "picture", "pictures"}

LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.alias)
"""Nodes in which nothing binds a name, and most of all."""

FOLDERS = ("src", "tests", "benchmarks", "pipelines", "docs")


@cache
def names_of(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the public classes in a folder, and where it binds a name that is refused; it is read once for both."""
    classes, refused = [], []
    for path in sorted(folder.rglob("*.py")):
        for node, is_local in _nodes(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes.append(node.name)
            for name in _bound_names(node, is_local):
                if name in EMPTY | OTHER_WORDS_FOR_IMAGE:
                    refused.append(f"{path.relative_to(folder.parent)}:{getattr(node, 'lineno', 0)}: {name}")
    return classes, refused


def test_no_class_name_stands_for_two_things(repository: Path) -> None:
    names = Counter(names_of(repository / "src")[0])
    assert names.total() > 100
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_local_name_is_empty_of_meaning(repository: Path, folder: str) -> None:
    assert names_of(repository / folder)[1] == [], "name the value, for example `versions` in place of `found`"


def _nodes(tree: ast.Module) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes of a file, and whether each is in a function."""
    nodes: list[tuple[ast.AST, bool]] = [(tree, False)]
    while nodes:
        node, is_local = nodes.pop()
        yield node, is_local
        is_local = is_local or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        nodes += [(child, is_local) for child in ast.iter_child_nodes(node) if not isinstance(child, LEAVES)]


def _bound_names(node: ast.AST, is_local: bool) -> Iterator[str]:
    """Names that a statement binds; fields of a class are parameters of users or columns of files, and stay."""
    if isinstance(node, ast.Assign):
        yield from (name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))
    elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        yield from (name.id for name in ast.walk(node.target) if isinstance(name, ast.Name))
    elif isinstance(node, ast.NamedExpr):
        yield node.target.id
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield from (name.id for name in ast.walk(node.optional_vars) if isinstance(name, ast.Name))
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.AnnAssign) and is_local and isinstance(node.target, ast.Name):
        yield node.target.id
