"""The command line reports all mistakes together, and a failed step leaves no partial output."""

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
from cxr.cli.help import step_help
from cxr.errors import DataError, MissingInputError, ParameterError
from cxr.kubeflow.actions import ACTIONS, load_action
from cxr.steps import STEPS, load_step
from cxr.steps.base import Input, Output, Step
from cxr.steps.parameters import merge_parameters, read_flags


class Copy(Step):
    """Copy a folder's text, or fail after writing."""

    name: ClassVar[str] = "copy"
    sections: ClassVar[tuple[str, ...]] = ("copy", "kinds.{kind}")

    source: Annotated[Path, Input("Text"), Field(description="From.")] = Path("source")
    target: Annotated[Path, Output("Text"), Field(description="To.")] = Path("target")
    kind: str = "plain"
    times: Annotated[int, Field(ge=1, le=5, description="How often.")] = 1
    fail: bool = False

    def run(self) -> None:
        text = (self.source / "text").read_text()
        (self.target / "text").write_text(text * self.times)
        if self.fail:
            raise DataError("half-way")

    def clean_up(self) -> None:
        assert (self.target / "text").exists(), "cleaned up before the output was in place"
        (self.target.parent / "kept").unlink(missing_ok=True)


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "text").write_text("ab")
    return tmp_path


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "cxr.cli.main", *arguments], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def test_all_wrong_parameters_are_reported_together_with_status_2(tmp_path):
    (tmp_path / "params.yaml").write_text("models: {m: {epochs: 0, dropot: 1}}\ntrian: {}\n")
    result = run(
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
    assert result.returncode == 2
    for part in (
        "epochs=0",
        "models.{model}.dropot=1",
        "'trian'",
        "batch_size='many'",
        "colour='red'",
        "architecture",
    ):
        assert part in result.stderr, part
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml"]


def test_a_step_with_the_parameter_file_of_the_project_imports_no_other_step(repository):
    code = (
        "import sys; from cxr.cli.main import find_command, parse_step\n"
        "step, words = find_command(['resplit', '--params', 'params.yaml'])\n"
        "parse_step(step, words)\n"
        "print(sorted(name for name in sys.modules if name in {'cxr.steps.serve', 'cxr.kubeflow.actions.submit'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=60)
    assert result.stdout == "[]\n", result.stderr


def test_unknown_step_lists_the_steps():
    result = run("trane")
    assert result.returncode == 2
    assert "fetch, validate, validate_shard, resplit" in result.stderr


def test_missing_parameter_file_is_named(tmp_path):
    result = run("resplit", "--params", "nowhere.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert "params=nowhere.yaml" in result.stderr


def test_all_missing_inputs_are_named_with_the_step_that_makes_them(tmp_path):
    result = run("preprocess", cwd=tmp_path)
    assert result.returncode == 2
    assert "data=data" in result.stderr
    assert "manifest=artifacts/manifest" in result.stderr
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("name", STEPS)
def test_help_of_every_step_describes_every_field(name, capsys):
    assert main.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    for field in load_step(name).model_fields:
        assert f"--{field}  (" in text


@pytest.mark.parametrize("name", ACTIONS)
def test_help_of_every_action_describes_every_field(name, capsys):
    assert main.main(["kubeflow", name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: cxr kubeflow {name} ")
    for field in load_action(name).model_fields:
        assert f"--{field}  (" in text


@pytest.mark.parametrize("arguments", [["kubeflow"], ["kubeflow", "--help"]])
def test_the_group_without_an_action_lists_its_actions(arguments, capsys):
    assert main.main(arguments) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in ACTIONS)


def test_unknown_action_lists_the_actions(capsys):
    assert main.main(["kubeflow", "sumbit"]) == 2
    assert "received 'sumbit'; the actions are: components, compile, run, submit" in capsys.readouterr().err


def test_errors_of_an_action_name_it_by_both_words(capsys):
    assert main.main(["kubeflow", "status", "--colour", "red", "--runs", "0"]) == 2
    err = capsys.readouterr().err
    assert "cxr kubeflow status: " in err and "colour='red'" in err and "runs='0'" in err
    assert err.count("kubeflow status: ") == len(err.splitlines()), "once in each line"


def test_help_lists_the_steps_and_says_that_it_is_not_for_diagnosis(capsys):
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
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_a_flag_wins_over_the_file_and_the_file_over_the_default():
    sections = {"copy": {"times": 2}, "kinds": {"loud": {"times": 3}}}
    assert Copy.build(merge_parameters(Copy, {}, {})[0]).times == 1
    assert Copy.build(merge_parameters(Copy, {}, sections)[0]).times == 2
    assert Copy.build(merge_parameters(Copy, {"kind": "loud"}, sections)[0]).times == 3
    assert Copy.build(merge_parameters(Copy, {"kind": "loud", "times": "4"}, sections)[0]).times == 4


class Collect(Copy):
    """Hold the parameters of another step."""

    collected_sections: ClassVar[dict[str, tuple[str, ...]]] = {"copied": ("copy", "kinds.{kind}")}

    copied: dict[str, int] = Field(default_factory=dict)


def test_a_field_collects_sections_and_a_flag_replaces_single_values():
    sections = {"copy": {"times": 2, "a": 1}, "kinds": {"loud": {"b": 3}}}
    values, _ = merge_parameters(Collect, {"kind": "loud"}, sections)
    assert values["copied"] == {"times": 2, "a": 1, "b": 3}
    values, _ = merge_parameters(Collect, {"kind": "loud", "copied": {"b": 4}}, sections)
    assert values["copied"] == {"times": 2, "a": 1, "b": 4}
    assert merge_parameters(Collect, {"copied": "no mapping"}, sections)[0]["copied"] == "no mapping"


def test_log_messages_appear_above_a_progress_bar_and_not_in_its_line():
    code = (
        "import logging, sys; from tqdm import tqdm; from cxr.cli import main; main.main(['--version'])\n"
        "with tqdm(total=2, ncols=40) as bar:\n"
        "    bar.update(); bar.refresh(); logging.getLogger('cxr').info('halfway'); bar.update()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert b"\rhalfway\n" in result.stderr, result.stderr


def test_flags_take_lists_mappings_null_and_equal_signs():
    values, problems = read_flags(["--a", "[1, 2]", '--b={"c": true}', "--d", "null", "--e", "k=v", "--f", "-1"])
    assert values == {"a": [1, 2], "b": {"c": True}, "d": None, "e": "k=v", "f": "-1"}
    assert problems == []


def test_flags_without_value_or_given_twice_and_arguments_without_dashes_are_problems():
    values, problems = read_flags(["--a", "--b", "1", "--b", "2", "loose"])
    assert values == {"b": "1"}
    assert len(problems) == 3


def test_an_argument_without_a_flag_fills_the_positional_field_and_a_second_one_is_a_problem():
    assert read_flags(["3", "--a", "1"], ["version"]) == ({"version": "3", "a": "1"}, [])
    assert read_flags(["--a", "1", "champion"], ["version"]) == ({"a": "1", "version": "champion"}, [])
    values, problems = read_flags(["3", "4"], ["version"])
    assert values == {"version": "3"} and "'4'" in problems[0]
    values, problems = read_flags(["3", "--version", "4"], ["version"])
    assert values == {"version": "3"} and "--version once" in problems[0]


def test_the_variadic_field_takes_all_remaining_arguments_as_text():
    arguments = ["a.png", "--a", "1", "[b].png", "null", "--", "--c.png"]
    assert read_flags(arguments, [], "files") == ({"a": "1", "files": ["a.png", "[b].png", "null", "--c.png"]}, [])
    assert read_flags(["3", "a.png"], ["version"], "files") == ({"version": "3", "files": ["a.png"]}, [])
    assert read_flags(["--files", "[a, b]"], [], "files") == ({"files": ["a", "b"]}, [])
    assert read_flags([], [], "files") == ({}, [])
    assert "received both" in read_flags(["--files", "[a]", "b"], [], "files")[1][0]
    assert "received '--'" in read_flags(["--", "a"], [])[1][0]


def test_positional_fields_appear_in_the_usage_and_reach_the_step(capsys):
    assert main.main(["lineage", "--help"]) == 0
    text = capsys.readouterr().out
    assert "usage: cxr predict [FILES ...] " in step_help(load_step("predict"))
    assert "usage: cxr lineage [VERSION] " in text and "default champion, or VERSION without its name" in text
    assert (
        main.parse_step(load_step("lineage"), ["7"]).version
        == main.parse_step(load_step("lineage"), ["--version", "7"]).version
        == "7"
    )
    assert main.parse_step(load_step("lineage"), []).version == "champion"


def test_output_appears_complete_and_replaces_the_old_one(source):
    Copy().execute()
    Copy(times=2).execute()
    assert (source / "target" / "text").read_text() == "abab"
    assert sorted(path.name for path in source.iterdir()) == ["source", "target"]


def test_files_for_resuming_are_removed_only_after_success(source):
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


def test_leftovers_of_a_killed_run_are_removed_and_those_of_a_running_one_stay(source):
    ended_process = subprocess.Popen([sys.executable, "-c", ""])
    ended_process.wait()
    (source / f".target.partial-{ended_process.pid}").mkdir()
    (source / f".target.partial-{os.getppid()}").mkdir()
    Copy().execute()
    assert not (source / f".target.partial-{ended_process.pid}").exists()
    assert (source / f".target.partial-{os.getppid()}").exists()


def test_output_that_was_being_replaced_when_the_run_was_killed_comes_back(source):
    ended_process = subprocess.Popen([sys.executable, "-c", ""])
    ended_process.wait()
    old = source / f".target.old-{ended_process.pid}"
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


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_step_leaves_no_output_under_its_final_name(tmp_path, signal_number):
    """Kills a real process while it draws phantoms."""
    arguments = [sys.executable, "-m", "cxr.cli.main", "fetch", "--phantom_images", "600"]
    with subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".data.partial-*/*/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(tmp_path.glob(".data.partial-*")), "the step did not start to write"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        child_ids = [int(identity) for identity in children.read_text().split()] if children.exists() else []
        process.send_signal(signal_number)
        process.wait(30)
    assert process.returncode != 0
    deadline = time.monotonic() + 60
    while any(map(alive, child_ids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, child_ids)), "child processes outlived the step"
    assert not (tmp_path / "data").exists()
    if signal_number == signal.SIGTERM:
        assert not list(tmp_path.glob(".data.partial-*"))


def test_steps_can_be_described_as_json():
    """`cxr STEP --help` is generated from this."""
    for name in STEPS:
        assert json.dumps(load_step(name).model_json_schema())
