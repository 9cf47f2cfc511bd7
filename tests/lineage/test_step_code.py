"""The lists of code that DVC compares: a stage runs again exactly when its list has changed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from cxr.cli.main import main
from cxr.lineage.step_code import step_code, write_step_code
from cxr.steps import STEPS


def listed(source: Path) -> dict[str, str]:
    """The list of each of a few steps."""
    folder = source.parent / "code"
    folder.mkdir(exist_ok=True)
    write_step_code(["validate", "resplit", "train", "ensemble", "register"], source, folder)
    return {path.stem: path.read_text() for path in folder.iterdir()}


@pytest.fixture
def source(repository: Path, tmp_path: Path) -> Path:
    """A copy of the package."""
    copy = tmp_path / "src"
    shutil.copytree(repository / "src" / "cxr", copy / "cxr", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_every_step_has_a_list_that_md5sum_can_check(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    assert main(["code", "--source", str(source / "cxr"), "--code", str(folder)]) == 0
    lists = {path.stem: path.read_text() for path in folder.iterdir()}
    assert set(lists) == set(STEPS)
    checked = subprocess.run(["md5sum", "--check", "--strict", "-"], input=lists["train"], cwd=tmp_path, text=True)
    assert checked.returncode == 0
    splitting = source / "cxr" / "data" / "splitting.py"
    assert f"{hashlib.md5(splitting.read_bytes()).hexdigest()}  src/cxr/data/splitting.py\n" in lists["resplit"]


def test_a_change_of_code_changes_the_lists_of_the_steps_that_import_it_alone(source: Path) -> None:
    before = listed(source)
    with (source / "cxr" / "data" / "splitting.py").open("a") as file:
        file.write("# changed\n")
    after = listed(source)
    changed = {step for step in before if before[step] != after[step]}
    assert "resplit" in changed and not {"validate", "train"} & changed


def test_a_template_of_a_page_counts_as_code_of_the_step_that_writes_the_page(source: Path) -> None:
    before = listed(source)
    with (source / "cxr" / "promotion" / "templates" / "decision.html").open("a") as file:
        file.write("<!-- changed -->")
    after = listed(source)
    assert before["register"] != after["register"] and before["train"] == after["train"]


def test_training_does_not_depend_on_what_only_records_it_and_registration_does(repository: Path) -> None:
    train = "\n".join(step_code("train", repository / "src"))
    assert "src/cxr/images/recipes.py" in train, "editing a recipe must train again"
    assert "tracking" not in train and "errors.py" not in train
    for step in ("register", "register_regions"):
        assert "src/cxr/tracking/registry.py" in step_code(step, repository / "src"), step


def test_training_depends_on_what_networks_import_and_not_on_all_networks(source: Path) -> None:
    """Each stage names the file of its own network, so that a change of one network does not train the others."""
    shared = source / "cxr" / "models" / "blocks_of_two_networks.py"
    shared.write_text("")
    network = source / "cxr" / "models" / "three_block.py"
    network.write_text(network.read_text() + "\nfrom cxr.models import blocks_of_two_networks\n")
    code = step_code("train", source)
    assert "src/cxr/models/blocks_of_two_networks.py" in code
    assert not {"src/cxr/models/three_block.py", "src/cxr/models/shallow.py"} & set(code)


def test_a_stage_depends_on_the_work_that_its_step_shares_with_others(repository: Path) -> None:
    """Both training steps write their model with a function of the step that they extend."""
    for step in ("train", "train_regions"):
        code = step_code(step, repository / "src")
        assert {"src/cxr/steps/training_fields.py", "src/cxr/training/trained_model.py"} <= set(code), step


def test_another_folder_is_a_mistake_of_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "src").mkdir()
    assert main(["code", "--source", str(tmp_path / "src"), "--code", str(tmp_path / "code")]) == 2
    assert "expected the folder of the package, received source=" in capsys.readouterr().err
    assert not (tmp_path / "code").exists()
