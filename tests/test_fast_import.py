"""Large packages are imported without garbage collection, and the collector is left as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = {"large": "import gc\nwas_collecting = gc.isenabled()\n", "broken": "import absent_package\n"}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for name, source in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(source)
    return tmp_path


def run_statements(folder: Path, code: str) -> None:
    """Run statements in a fresh process that finds the packages of a folder."""
    code = (
        f"import gc, sys\nsys.path.insert(0, {str(folder)!r})\n"
        f"from cxr.fast_import import import_without_garbage_collection\n{code}"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("state", ["enable", "disable"])
def test_garbage_is_not_collected_during_the_import_nor_searched_in_what_it_made(packages: Path, state: str) -> None:
    run_statements(
        packages,
        f"gc.{state}(); was_enabled = gc.isenabled(); import_without_garbage_collection('large'); import large\n"
        "assert (gc.isenabled(), large.was_collecting) == (was_enabled, False) and gc.get_freeze_count() > 0",
    )


def test_an_imported_package_is_not_imported_again(packages: Path) -> None:
    run_statements(
        packages,
        "import large; before = sys.modules['large']; import_without_garbage_collection('large')\n"
        "assert sys.modules['large'] is before and gc.get_freeze_count() == 0",
    )


def test_an_import_that_fails_leaves_the_collector_as_it_was(packages: Path) -> None:
    run_statements(
        packages,
        "try:\n    import_without_garbage_collection('broken')\nexcept ImportError:\n    pass\nelse:\n    sys.exit(1)\n"
        "assert 'broken' not in sys.modules and gc.isenabled()",
    )


def test_hidden_packages_are_absent_for_one_thread_in_the_block_alone(packages: Path) -> None:
    run_statements(
        packages,
        """
from concurrent.futures import ThreadPoolExecutor
from cxr.fast_import import packages_hidden
with packages_hidden('large'), ThreadPoolExecutor(1) as pool:
    try:
        import large
        sys.exit(1)
    except ImportError as error:
        assert error.name == 'large'
    pool.submit(__import__, 'large').result()
    import large  # another thread has imported it
del sys.modules['large']
import large
""",
    )
