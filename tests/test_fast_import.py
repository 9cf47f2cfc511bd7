"""Large packages load without those that they can do without, which stay at hand for others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = {
    "large": "import gc\nsearching = gc.isenabled()\ntry:\n    import small\nexcept ImportError:\n    small = None\n",
    "small": "",
    "broken": "import small\n",
}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for name, source in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(source)
    return tmp_path


def holds(folder: Path, code: str) -> None:
    """Run statements in a process of one thread, as a step is."""
    code = f"import gc, sys, threading\nsys.path.insert(0, {str(folder)!r})\nfrom cxr.fast_import import load\n{code}"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("state", ["enable", "disable"])
def test_garbage_is_not_searched_for_meanwhile_and_never_among_what_was_loaded(packages: Path, state: str) -> None:
    holds(
        packages,
        f"gc.{state}(); was = gc.isenabled(); load('large'); import large\n"
        "assert (gc.isenabled(), large.searching) == (was, False) and gc.get_freeze_count() > 0",
    )


def test_what_is_not_needed_is_left_out_and_can_be_imported_later(packages: Path) -> None:
    holds(
        packages,
        "load('large', without=['small']); import large\n"
        "assert large.small is None and 'small' not in sys.modules\n"
        "import small",
    )


def test_what_is_loaded_already_is_not_taken_away(packages: Path) -> None:
    holds(
        packages,
        "import small; load('large', without=['small']); import large\n"
        "assert large.small is small is sys.modules['small']",
    )


def test_other_threads_find_everything_meanwhile(packages: Path) -> None:
    holds(
        packages,
        "over = threading.Event(); other = threading.Thread(target=over.wait); other.start()\n"
        "load('large', without=['small']); over.set(); other.join(); import large\n"
        "assert large.small is not None",
    )


def test_a_package_that_cannot_do_without_is_an_error_that_leaves_all_as_it_was(packages: Path) -> None:
    holds(
        packages,
        "try:\n    load('broken', without=['small'])\nexcept ImportError:\n    pass\nelse:\n    sys.exit(1)\n"
        "assert 'small' not in sys.modules and gc.isenabled()",
    )
