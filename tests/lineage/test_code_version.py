"""The version of code changes with every file and library that a result depends on."""

from __future__ import annotations

import ast
import shutil
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import cxr
from cxr.lineage import code_version as code_version_module
from cxr.lineage.code_closure import import_closure
from cxr.lineage.code_version import LIBRARIES, code_version
from cxr.lineage.step_code import WITHOUT_EFFECT

KEPT_BY = (
    "cxr.images.decoding",
    "cxr.data.manifest.builder",
    "cxr.images.preparation",
    "cxr.inference.reference.poses",
)
"""Modules whose results are kept between runs."""
TABLES = {"pyarrow", "tqdm", "pydantic"}
"""Packages that these modules import for other work than on pixels."""


@pytest.fixture
def copied_package(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, of which the version is computed."""
    copy = tmp_path / "src" / "cxr"
    shutil.copytree(repository / "src" / "cxr", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cxr, "__file__", str(copy / "__init__.py"))
    return copy


def test_a_change_of_a_decoder_changes_the_version_of_all_that_decode(copied_package: Path) -> None:
    before = [code_version(module) for module in KEPT_BY]
    assert before == [code_version(module) for module in KEPT_BY]
    decoder = copied_package / "images" / "strict_decoding.py"
    decoder.write_text(decoder.read_text() + "# changed\n")
    assert all(new != old for new, old in zip((code_version(module) for module in KEPT_BY), before, strict=True))


def test_a_change_of_what_is_not_imported_changes_no_version(copied_package: Path) -> None:
    before = code_version("cxr.images.preparation")
    for name in ("training/loop.py", "errors.py", "images/result_cache.py"):
        (copied_package / name).write_text((copied_package / name).read_text() + "# changed\n")
    assert code_version("cxr.images.preparation") == before


def test_another_version_of_a_library_changes_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_version("cxr.images.recipes")
    monkeypatch.setattr(code_version_module, "version", lambda library: "99" if library == "simplejpeg" else "1")
    other = code_version("cxr.images.recipes")
    monkeypatch.setattr(code_version_module, "version", lambda library: "1")
    assert len({before, other, code_version("cxr.images.recipes")}) == 3


@pytest.mark.parametrize("module", KEPT_BY)
def test_the_versions_of_all_imported_libraries_count(module: str, repository: Path) -> None:
    source = repository / "src"
    imported: set[str] = set()
    for name in import_closure(module, source, WITHOUT_EFFECT):
        for node in ast.walk(ast.parse((source / "cxr" / name).read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    packages = packages_distributions()
    distributions = {
        distribution.lower() for name in imported - sys.stdlib_module_names - {"cxr"} for distribution in packages[name]
    }
    assert distributions
    assert distributions - TABLES <= set(LIBRARIES)
