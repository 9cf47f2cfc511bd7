"""Names: one class per name, and no variable whose name says nothing about its value."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

EMPTY = {"found", "one", "made", "given", "wanted", "told", "asked", "seen", "kept", "held", "thing", "things", "stuff"}
"""Words that fit any value."""

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
        f"{path}:{node.lineno}: {name}"
        for path, tree in trees(repository, folder)
        for node in ast.walk(tree)
        for name in _bound(node)
        if name in EMPTY
    ]
    assert empty == [], "name the value, for example `versions` in place of `found`"


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
