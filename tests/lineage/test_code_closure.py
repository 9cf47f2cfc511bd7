"""The import closure names every file that a module's behaviour depends on, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr.lineage.code_closure import import_closure

FILES = {
    "__init__.py": '"""The package."""\n',
    "steps/__init__.py": '"""Steps."""\n',
    "steps/train.py": (
        "from typing import TYPE_CHECKING\n"
        "from cxr.errors import Problem\n"
        "if TYPE_CHECKING:\n    from cxr.plots.style import Style\n"
        "def run():\n    from cxr.training import loop\n    import cxr.metrics\n"
    ),
    "errors.py": "from cxr.records import log\n",
    "records.py": "",
    "metrics.py": "import numpy\n",
    "plots/__init__.py": "",
    "plots/style.py": "",
    "training/__init__.py": '"""Training."""\n',
    "training/loop.py": "from cxr.training.batches import draw\n",
    "training/batches.py": "",
    "models/__init__.py": "SIZE = 1\n",
    "models/flat.py": "",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "cxr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_imports_in_functions_count_and_imports_for_type_checkers_do_not(source: Path) -> None:
    closure = import_closure("cxr.steps.train", source)
    assert closure == {
        "steps/train.py", "errors.py", "records.py", "metrics.py", "training/loop.py", "training/batches.py",
    }  # fmt: skip


def test_what_is_excluded_is_not_followed_either(source: Path) -> None:
    closure = import_closure("cxr.steps.train", source, ["errors.py", "training/*.py"])
    assert closure == {"steps/train.py", "metrics.py"}


def test_an_init_file_counts_only_if_it_holds_more_than_a_docstring(source: Path) -> None:
    (source / "cxr" / "metrics.py").write_text("from cxr.models import SIZE\n")
    assert "models/__init__.py" in import_closure("cxr.metrics", source)
    (source / "cxr" / "metrics.py").write_text("from cxr.training import loop\n")
    assert "training/__init__.py" not in import_closure("cxr.metrics", source)
