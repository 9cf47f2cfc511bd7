"""What a pipeline adds to a command line: folders one by one, and a description of the task."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from cxr.cli.container import linked_folders
from cxr.cli.main import run_command
from cxr.errors import MissingInputError, ParameterError
from cxr.steps.base import Input, Output, Step


class Join(Step):
    """Join the texts of several folders."""

    name: ClassVar[str] = "join"
    sections: ClassVar[tuple[str, ...]] = ()

    parts: Annotated[Path, Input("Texts", item_kind="Text"), Field(description="One folder per text.")] = Path("parts")
    unread: Annotated[Path | None, Input("Text", optional=True), Field(description="Not read.")] = None
    joined: Annotated[Path, Output("Text"), Field(description="The text.")] = Path("joined")
    fail: bool = False

    def run(self) -> None:
        texts = {path.name: (path / "text").read_text() for path in self.parts.iterdir()}
        (self.joined / "text").write_text(" ".join(f"{name}={texts[name]}" for name in sorted(texts)))
        if self.fail:
            raise MissingInputError("failed on purpose")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    paths = {}
    for name in ("first", "second"):
        # Kubeflow's path of an output does not contain the model's name.
        paths[name] = tmp_path / f"task-{name}" / "trained"
        paths[name].mkdir(parents=True)
        (paths[name] / "text").write_text(name.upper())
    return paths


def task_description(folder: Path) -> str:
    artifacts = {"joined": {"artifacts": [{"name": "joined", "uri": str(folder / "joined"), "metadata": {}}]}}
    return json.dumps(
        {"inputs": {}, "outputs": {"outputFile": str(folder / "report" / "out.json"), "artifacts": artifacts}}
    )


def arguments_for(folders: dict[str, Path], joined: Path) -> list[str]:
    return [word for name, path in folders.items() for word in (f"--parts.{name}", str(path))] + [
        "--joined",
        str(joined),
    ]


def test_folders_passed_one_by_one_are_read_as_one_folder(folders, tmp_path):
    run_command(Join, arguments_for(folders, tmp_path / "joined"))
    assert (tmp_path / "joined" / "text").read_text() == "first=FIRST second=SECOND"
    assert (folders["first"] / "text").exists(), "only the links should be removed, not the folders"


def test_links_are_removed_afterwards(folders, tmp_path):
    flags = {f"parts.{name}": str(path) for name, path in folders.items()}
    with linked_folders(Join, flags) as complete_flags:
        links = Path(complete_flags["parts"])
        assert sorted(path.name for path in links.iterdir()) == ["first", "second"]
    assert not links.exists()


def test_all_wrong_folders_are_reported_together(tmp_path):
    flags = {"parts.there": str(tmp_path), "parts.gone": str(tmp_path / "gone"), "unread.a": str(tmp_path), "x.y": "1",
             "parts": "too"}  # fmt: skip
    with pytest.raises(ParameterError) as caught, linked_folders(Join, flags):
        pass
    text = str(caught.value)
    assert "parts as one folder or as single ones, received both" in text
    assert "unread.a" in text
    assert "x.y" in text


def test_a_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(ParameterError, match=r"parts\.gone to exist"),
        linked_folders(Join, {"parts.gone": str(tmp_path / "gone")}),
    ):
        pass


def test_finished_outputs_are_reported_to_the_pipeline(folders, tmp_path):
    run_command(Join, [*arguments_for(folders, tmp_path / "joined"), "--executor_input", task_description(tmp_path)])
    report = json.loads((tmp_path / "report" / "out.json").read_text())
    assert report["artifacts"]["joined"]["artifacts"][0]["uri"] == str(tmp_path / "joined")


def test_a_failed_step_reports_no_outputs(folders, tmp_path):
    arguments = [
        *arguments_for(folders, tmp_path / "joined"),
        "--fail",
        "true",
        "--executor_input",
        task_description(tmp_path),
    ]
    with pytest.raises(MissingInputError):
        run_command(Join, arguments)
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "joined").exists()


@pytest.mark.parametrize("description", ["{}", "nonsense", '{"outputs": {"outputFile": 1}}'])
def test_a_wrong_task_description_is_refused_before_the_step_runs(folders, tmp_path, description):
    with pytest.raises(ParameterError, match="executor_input"):
        run_command(Join, [*arguments_for(folders, tmp_path / "joined"), "--executor_input", description])
    assert not (tmp_path / "joined").exists()


def test_a_component_without_its_artifact_fails_with_one_clear_line(tmp_path):
    arguments = [
        "resplit",
        "--manifest",
        "/nowhere",
        "--splits",
        str(tmp_path / "s"),
        "--executor_input",
        task_description(tmp_path),
    ]
    result = subprocess.run(
        [sys.executable, "-m", "cxr.cli.main", *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode != 0
    assert result.stderr.strip().splitlines() == [
        "cxr resplit: expected manifest (Manifest) to exist, received manifest=/nowhere; "
        "run the step that makes it, or `dvc repro`"
    ]
    assert not (tmp_path / "report").exists()
