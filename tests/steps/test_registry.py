"""The registry finds the commands of a package by reading its files."""

from __future__ import annotations

import sys
from pathlib import Path

from cxr import steps
from cxr.steps import STEPS, load_step
from cxr.steps.registry import find_commands, load_command

STEP = '''
from typing import ClassVar
from cxr.steps.base import Step

class {class_name}(Step):
    """Do nothing."""

    name: ClassVar[str] = "{name}"
{follows}    sections: ClassVar[tuple[str, ...]] = ()

    def run(self) -> None:
        pass
'''


def write_step(folder: Path, name: str, follows: str = "") -> None:
    declaration = f'    follows: ClassVar[str] = "{follows}"\n' if follows else ""
    (folder / f"{name}.py").write_text(STEP.format(class_name=name.title(), name=name, follows=declaration))


def test_a_file_with_a_step_is_found_without_an_import_and_listed_after_the_one_it_follows(tmp_path, monkeypatch):
    folder = tmp_path / "registry_trial"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "shared_fields.py").write_text("raise ImportError('not a step')\n")
    write_step(folder, "alpha", follows="beta")
    write_step(folder, "beta")
    write_step(folder, "another")
    assert find_commands(folder) == ("beta", "alpha", "another")
    assert "registry_trial" not in sys.modules
    monkeypatch.syspath_prepend(tmp_path)
    step_class = load_command("registry_trial", "alpha")
    assert (step_class.__name__, step_class.name, step_class.follows) == ("Alpha", "alpha", "beta")


def test_every_step_is_found_under_its_name_and_listed_after_the_one_it_follows():
    defined = {
        path.stem
        for path in Path(steps.__file__).parent.glob("*.py")
        if path.stem not in {"__init__", "base", "parameters", "registry"} and not path.stem.endswith("_fields")
    }
    assert set(STEPS) == defined
    for position, name in enumerate(STEPS):
        step_class = load_step(name)
        assert step_class.name == name
        assert step_class.follows in (STEPS[:position] or ("",)), name
