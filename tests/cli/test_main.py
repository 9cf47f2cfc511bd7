"""The command line reports every mistake at once, and a failed step leaves nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from cxr.cli import main
from cxr.errors import DataError, MissingInputError, ParameterError
from cxr.kubeflow.actions import ACTIONS, action
from cxr.steps import STEPS, step
from cxr.steps.base import Reads, Step, Writes
from cxr.steps.parameters import gather, read_flags


class Copy(Step):
    """Copy a folder's text, or fail half-way."""

    name: ClassVar[str] = "copy"
    sections: ClassVar[tuple[str, ...]] = ("copy", "kinds.{kind}")

    source: Annotated[Path, Reads("Text"), Field(description="From.")] = Path("source")
    target: Annotated[Path, Writes("Text"), Field(description="To.")] = Path("target")
    kind: str = "plain"
    times: Annotated[int, Field(ge=1, le=5, description="How often.")] = 1
    fail: bool = False

    def run(self) -> None:
        text = (self.source / "text").read_text()
        (self.target / "text").write_text(text * self.times)
        if self.fail:
            raise DataError("half-way")

    def tidy(self) -> None:
        assert (self.target / "text").exists(), "tidied before the output was in place"
        (self.target.parent / "kept").unlink(missing_ok=True)


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "text").write_text("ab")
    return tmp_path


def run(*words, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "cxr.cli.main", *words], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def test_all_wrong_parameters_are_reported_together_with_status_2(tmp_path):
    (tmp_path / "params.yaml").write_text("models: {m: {epochs: 0, dropot: 1}}\ntrian: {}\n")
    answer = run(
        "train",
        "--params",
        "params.yaml",
        "--model",
        "m",
        "--batch_size",
        "many",
        "--colour",
        "red",
        cwd=tmp_path,
    )
    assert answer.returncode == 2
    for part in (
        "epochs=0",
        "models.{model}.dropot=1",
        "'trian'",
        "batch_size='many'",
        "colour='red'",
        "architecture",
    ):
        assert part in answer.stderr, part
    assert "Traceback" not in answer.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml"]


def test_unknown_step_lists_the_steps():
    answer = run("trane")
    assert answer.returncode == 2
    assert "fetch, validate, resplit" in answer.stderr


def test_missing_parameter_file_is_named(tmp_path):
    answer = run("resplit", "--params", "nowhere.yaml", cwd=tmp_path)
    assert answer.returncode == 2
    assert "params=nowhere.yaml" in answer.stderr


def test_missing_inputs_are_all_named_with_what_makes_them(tmp_path):
    answer = run("preprocess", cwd=tmp_path)
    assert answer.returncode == 2
    assert "data=data" in answer.stderr
    assert "manifest=artifacts/manifest" in answer.stderr
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("name", STEPS)
def test_help_of_every_step_describes_every_field(name, capsys):
    assert main.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    for field in step(name).model_fields:
        assert f"--{field}  (" in text


@pytest.mark.parametrize("name", ACTIONS)
def test_help_of_every_action_describes_every_field(name, capsys):
    assert main.main(["kubeflow", name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: cxr kubeflow {name} ")
    for field in action(name).model_fields:
        assert f"--{field}  (" in text


@pytest.mark.parametrize("words", [["kubeflow"], ["kubeflow", "--help"]])
def test_the_group_alone_lists_its_actions(words, capsys):
    assert main.main(words) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in ACTIONS)


def test_unknown_action_lists_the_actions(capsys):
    assert main.main(["kubeflow", "sumbit"]) == 2
    assert "received 'sumbit'; the actions are: components, compile, run, submit" in capsys.readouterr().err


def test_errors_of_an_action_name_it_by_both_words(capsys):
    assert main.main(["kubeflow", "status", "--colour", "red", "--runs", "0"]) == 2
    err = capsys.readouterr().err
    assert "cxr kubeflow status: " in err and "colour='red'" in err and "runs='0'" in err


def test_overview_lists_the_steps_and_says_what_it_is_not_for(capsys):
    assert main.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in (*STEPS, "kubeflow"))
    assert "Not for diagnosis" in text


def test_help_imports_no_heavy_package():
    code = (
        "import sys; from cxr.cli import main; main.main(['--help']);"
        "heavy = {'tensorflow', 'keras', 'mlflow', 'kfp', 'great_expectations', 'cv2', 'pandas', 'boto3',"
        "'kfp_server_api', 'urllib3'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr


def test_flag_beats_file_beats_default():
    sections = {"copy": {"times": 2}, "kinds": {"loud": {"times": 3}}}
    assert Copy.build(gather(Copy, {}, {})[0]).times == 1
    assert Copy.build(gather(Copy, {}, sections)[0]).times == 2
    assert Copy.build(gather(Copy, {"kind": "loud"}, sections)[0]).times == 3
    assert Copy.build(gather(Copy, {"kind": "loud", "times": "4"}, sections)[0]).times == 4


class Gather(Copy):
    """Hold the values of another step."""

    collects: ClassVar[dict[str, tuple[str, ...]]] = {"others": ("copy", "kinds.{kind}")}

    others: dict[str, int] = Field(default_factory=dict)


def test_a_field_collects_the_values_of_other_sections_and_a_flag_beats_single_ones():
    sections = {"copy": {"times": 2, "a": 1}, "kinds": {"loud": {"b": 3}}}
    values, _ = gather(Gather, {"kind": "loud"}, sections)
    assert values["others"] == {"times": 2, "a": 1, "b": 3}
    values, _ = gather(Gather, {"kind": "loud", "others": {"b": 4}}, sections)
    assert values["others"] == {"times": 2, "a": 1, "b": 4}
    assert gather(Gather, {"others": "no mapping"}, sections)[0]["others"] == "no mapping"


def test_messages_stand_above_a_progress_bar_and_not_in_its_line():
    code = (
        "import logging, sys; from tqdm import tqdm; from cxr.cli import main; main.main(['--version'])\n"
        "with tqdm(total=2, ncols=40) as bar:\n"
        "    bar.update(); bar.refresh(); logging.getLogger('cxr').info('halfway'); bar.update()"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert b"\rhalfway\n" in answer.stderr, answer.stderr


def test_flags_take_lists_mappings_null_and_equal_signs():
    values, problems = read_flags(["--a", "[1, 2]", '--b={"c": true}', "--d", "null", "--e", "k=v", "--f", "-1"])
    assert values == {"a": [1, 2], "b": {"c": True}, "d": None, "e": "k=v", "f": "-1"}
    assert problems == []


def test_flags_without_value_twice_or_without_dashes_are_problems():
    values, problems = read_flags(["--a", "--b", "1", "--b", "2", "loose"])
    assert values == {"b": "1"}
    assert len(problems) == 3


def test_a_word_alone_fills_the_positional_field_and_a_second_one_is_a_problem():
    assert read_flags(["3", "--a", "1"], ["version"]) == ({"version": "3", "a": "1"}, [])
    assert read_flags(["--a", "1", "champion"], ["version"]) == ({"a": "1", "version": "champion"}, [])
    values, problems = read_flags(["3", "4"], ["version"])
    assert values == {"version": "3"} and "'4'" in problems[0]
    values, problems = read_flags(["3", "--version", "4"], ["version"])
    assert values == {"version": "3"} and "--version once" in problems[0]


def test_a_field_takes_all_further_words_as_they_are():
    words = ["a.png", "--a", "1", "[b].png", "null", "--", "--c.png"]
    assert read_flags(words, [], "files") == ({"a": "1", "files": ["a.png", "[b].png", "null", "--c.png"]}, [])
    assert read_flags(["3", "a.png"], ["version"], "files") == ({"version": "3", "files": ["a.png"]}, [])
    assert read_flags(["--files", "[a, b]"], [], "files") == ({"files": ["a", "b"]}, [])
    assert read_flags([], [], "files") == ({}, [])
    assert "received both" in read_flags(["--files", "[a]", "b"], [], "files")[1][0]
    assert "received '--'" in read_flags(["--", "a"], [])[1][0]


def test_positional_fields_stand_in_the_usage_and_reach_the_step(capsys):
    assert main.main(["lineage", "--help"]) == 0
    text = capsys.readouterr().out
    assert "usage: cxr predict [FILES ...] " in main.reference(step("predict"))
    assert "usage: cxr lineage [VERSION] " in text and "default champion, or VERSION without its name" in text
    assert main.parse(step("lineage"), ["7"]).version == main.parse(step("lineage"), ["--version", "7"]).version == "7"
    assert main.parse(step("lineage"), []).version == "champion"


def test_output_appears_whole_and_replaces_the_old_one(source):
    Copy().execute()
    Copy(times=2).execute()
    assert (source / "target" / "text").read_text() == "abab"
    assert sorted(path.name for path in source.iterdir()) == ["source", "target"]


def test_what_is_kept_for_going_on_is_removed_only_after_success(source):
    (source / "kept").touch()
    with pytest.raises(DataError):
        Copy(fail=True).execute()
    assert (source / "kept").exists()
    Copy().execute()
    assert not (source / "kept").exists()


def test_failed_step_leaves_the_old_output_and_no_leftovers(source):
    Copy().execute()
    with pytest.raises(DataError):
        Copy(times=3, fail=True).execute()
    assert (source / "target" / "text").read_text() == "ab"
    assert sorted(path.name for path in source.iterdir()) == ["source", "target"]


def test_leftovers_of_a_killed_run_are_swept_and_those_of_a_living_one_stay(source):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (source / f".target.partial-{dead.pid}").mkdir()
    (source / f".target.partial-{os.getppid()}").mkdir()
    Copy().execute()
    assert not (source / f".target.partial-{dead.pid}").exists()
    assert (source / f".target.partial-{os.getppid()}").exists()


def test_output_that_was_being_replaced_when_the_run_was_killed_comes_back(source):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    old = source / f".target.old-{dead.pid}"
    old.mkdir()
    (old / "text").write_text("precious")
    with pytest.raises(DataError):
        Copy(fail=True).execute()
    assert (source / "target" / "text").read_text() == "precious"


def test_missing_input_names_field_and_path(source):
    with pytest.raises(MissingInputError, match="source=nowhere"):
        Copy(source=Path("nowhere")).execute()


def test_every_wrong_value_is_one_sentence():
    with pytest.raises(ParameterError) as caught:
        Copy.build({"times": 9, "fail": "perhaps", "other": 1})
    assert len(caught.value.problems) == 3


def alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_step_leaves_no_output_under_its_final_name(tmp_path, how):
    """A real process is killed while it draws phantoms."""
    words = [sys.executable, "-m", "cxr.cli.main", "fetch", "--phantom_images", "600"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".data.partial-*/*/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(tmp_path.glob(".data.partial-*")), "the step had not started to write"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        drawing = [int(one) for one in children.read_text().split()] if children.exists() else []
        process.send_signal(how)
        process.wait(30)
    assert process.returncode != 0
    deadline = time.monotonic() + 60
    while any(map(alive, drawing)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, drawing)), "processes that draw outlived the step"
    assert not (tmp_path / "data").exists()
    if how == signal.SIGTERM:
        assert not list(tmp_path.glob(".data.partial-*"))


def test_steps_can_be_described_as_json():
    """The container components are to be generated from this."""
    for name in STEPS:
        assert json.dumps(step(name).model_json_schema())
