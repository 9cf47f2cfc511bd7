"""What a pipeline puts on a command line: folders one by one, and its description of the task."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from cxr.cli.container import put_together
from cxr.cli.main import carry_out
from cxr.errors import MissingInputError, ParameterError
from cxr.steps.base import Reads, Step, Writes


class Join(Step):
    """Join the texts of several folders."""

    name: ClassVar[str] = "join"
    sections: ClassVar[tuple[str, ...]] = ()

    parts: Annotated[Path, Reads("Texts", each="Text"), Field(description="One folder per text.")] = Path("parts")
    other: Annotated[Path | None, Reads("Text", optional=True), Field(description="Not read.")] = None
    joined: Annotated[Path, Writes("Text"), Field(description="The text.")] = Path("joined")
    fail: bool = False

    def run(self) -> None:
        found = {path.name: (path / "text").read_text() for path in self.parts.iterdir()}
        (self.joined / "text").write_text(" ".join(f"{name}={found[name]}" for name in sorted(found)))
        if self.fail:
            raise MissingInputError("failed on purpose")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name in ("first", "second"):
        # Where Kubeflow puts an output has nothing to do with the model's name.
        found[name] = tmp_path / f"task-{name}" / "trained"
        found[name].mkdir(parents=True)
        (found[name] / "text").write_text(name.upper())
    return found


def described(folder: Path) -> str:
    artifacts = {"joined": {"artifacts": [{"name": "joined", "uri": str(folder / "joined"), "metadata": {}}]}}
    return json.dumps(
        {"inputs": {}, "outputs": {"outputFile": str(folder / "told" / "out.json"), "artifacts": artifacts}}
    )


def words_for(folders: dict[str, Path], joined: Path) -> list[str]:
    return [word for name, path in folders.items() for word in (f"--parts.{name}", str(path))] + [
        "--joined",
        str(joined),
    ]


def test_folders_given_one_by_one_are_read_as_one(folders, tmp_path):
    carry_out(Join, words_for(folders, tmp_path / "joined"))
    assert (tmp_path / "joined" / "text").read_text() == "first=FIRST second=SECOND"
    assert (folders["first"] / "text").exists(), "the links were to be removed, not what they point to"


def test_links_are_gone_afterwards(folders, tmp_path):
    flags = {f"parts.{name}": str(path) for name, path in folders.items()}
    with put_together(Join, flags) as whole:
        place = Path(whole["parts"])
        assert sorted(path.name for path in place.iterdir()) == ["first", "second"]
    assert not place.exists()


def test_all_wrong_folders_are_told_at_once(tmp_path):
    flags = {"parts.there": str(tmp_path), "parts.gone": str(tmp_path / "gone"), "other.a": str(tmp_path), "x.y": "1",
             "parts": "too"}  # fmt: skip
    with pytest.raises(ParameterError) as refused, put_together(Join, flags):
        pass
    text = str(refused.value)
    assert "parts as one folder or as single ones, received both" in text
    assert "other.a" in text
    assert "x.y" in text


def test_a_folder_that_is_missing_is_told_by_name(tmp_path):
    with (
        pytest.raises(ParameterError, match=r"parts\.gone to exist"),
        put_together(Join, {"parts.gone": str(tmp_path / "gone")}),
    ):
        pass


def test_the_pipeline_is_told_of_outputs_that_are_there(folders, tmp_path):
    carry_out(Join, [*words_for(folders, tmp_path / "joined"), "--executor_input", described(tmp_path)])
    told = json.loads((tmp_path / "told" / "out.json").read_text())
    assert told["artifacts"]["joined"]["artifacts"][0]["uri"] == str(tmp_path / "joined")


def test_a_step_that_fails_tells_of_no_outputs(folders, tmp_path):
    words = [*words_for(folders, tmp_path / "joined"), "--fail", "true", "--executor_input", described(tmp_path)]
    with pytest.raises(MissingInputError):
        carry_out(Join, words)
    assert not (tmp_path / "told").exists()
    assert not (tmp_path / "joined").exists()


@pytest.mark.parametrize("description", ["{}", "nonsense", '{"outputs": {"outputFile": 1}}'])
def test_a_wrong_description_is_refused_before_anything_is_done(folders, tmp_path, description):
    with pytest.raises(ParameterError, match="executor_input"):
        carry_out(Join, [*words_for(folders, tmp_path / "joined"), "--executor_input", description])
    assert not (tmp_path / "joined").exists()


def test_a_component_without_its_artifact_fails_with_one_clear_line(tmp_path):
    words = [
        "resplit",
        "--manifest",
        "/nowhere",
        "--splits",
        str(tmp_path / "s"),
        "--executor_input",
        described(tmp_path),
    ]
    ended = subprocess.run([sys.executable, "-m", "cxr.cli.main", *words], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.strip().splitlines() == [
        "cxr resplit: expected manifest (Manifest) to exist, received manifest=/nowhere; "
        "run the step that makes it, or `dvc repro`"
    ]
    assert not (tmp_path / "told").exists()
