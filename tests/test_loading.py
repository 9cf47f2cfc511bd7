"""Large packages load without those that they can do without, which stay at hand for others."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr.loading import load

SOURCES = {
    "large": "import gc\nsearching = gc.isenabled()\ntry:\n    import small\nexcept ImportError:\n    small = None\n",
    "small": "",
    "broken": "import small\n",
}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, source in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in SOURCES:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("searching", [True, False])
def test_garbage_is_not_searched_for_meanwhile_and_never_among_what_was_loaded(searching: bool) -> None:
    before = gc.get_freeze_count()
    was = gc.isenabled()
    try:
        (gc.enable if searching else gc.disable)()
        load("large")
        assert gc.isenabled() is searching
    finally:
        (gc.enable if was else gc.disable)()
    large = importlib.import_module("large")
    assert large.searching is False
    assert gc.get_freeze_count() > before


@pytest.mark.usefixtures("packages")
def test_what_is_not_needed_is_left_out_and_can_be_imported_later() -> None:
    load("large", without=["small"])
    assert importlib.import_module("large").small is None
    assert "small" not in sys.modules
    assert importlib.import_module("small").__name__ == "small"


@pytest.mark.usefixtures("packages")
def test_what_is_loaded_already_is_not_taken_away() -> None:
    small = importlib.import_module("small")
    load("large", without=["small"])
    assert importlib.import_module("large").small is small
    assert sys.modules["small"] is small


@pytest.mark.usefixtures("packages")
def test_a_package_that_cannot_do_without_is_an_error_that_leaves_all_as_it_was() -> None:
    with pytest.raises(ImportError):
        load("broken", without=["small"])
    assert "small" not in sys.modules and gc.isenabled()
