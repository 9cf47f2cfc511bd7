"""Names: one class per name, and no variable whose name says nothing about its value."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

EMPTY = {"found", "one", "made", "given", "wanted", "told", "asked", "seen", "kept", "held", "thing", "things", "stuff"}
"""Words that fit any value."""

OTHER_WORDS_FOR_IMAGE = {"film", "films", "picture", "pictures"}

FOLDERS = ("src", "tests", "benchmarks", "pipelines", "docs")


def trees(repository: Path, *folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders:
        for path in sorted((repository / folder).rglob("*.py")):
            yield path.relative_to(repository), ast.parse(path.read_text(encoding="utf-8"))


def test_no_class_name_stands_for_two_things(repository: Path) -> None:
    names = Counter(
        node.name
        for _, tree in trees(repository, "src")
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_local_name_is_empty_of_meaning(repository: Path, folder: str) -> None:
    empty = [
        f"{path}:{getattr(node, 'lineno', 0)}: {name}"
        for path, tree in trees(repository, folder)
        for node in ast.walk(tree)
        for name in _bound_names(node)
        if name in EMPTY | OTHER_WORDS_FOR_IMAGE
    ]
    assert empty == [], "name the value, for example `versions` in place of `found`"


def _bound_names(node: ast.AST) -> Iterator[str]:
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
        declared = (inner for inner in ast.walk(node) if isinstance(inner, ast.AnnAssign))
        yield from (inner.target.id for inner in declared if isinstance(inner.target, ast.Name))
