"""The workflows are valid and safe: few rights, pinned actions, and no code of a pull request where one may write."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))


def read(name: str) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true.
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def run(program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run([program, *words], capture_output=True, text=True, env=os.environ | {"PATH": path})


def test_they_follow_the_schema_of_github() -> None:
    answer = run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    assert answer.returncode == 0, answer.stdout


def test_an_audit_finds_no_danger_in_them() -> None:
    answer = run("zizmor", "--offline", "--no-progress", "--config", FOLDER.parent / "zizmor.yml", FOLDER)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_says_its_rights_and_pins_its_actions(path: Path) -> None:
    workflow = read(path.name)
    assert "write" not in workflow["permissions"].values()
    actions = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert all(re.search(r"@(v\d|[0-9a-f]{40}$)", action) for action in actions), actions
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_the_run_of_a_pull_request_may_only_read_and_has_no_secrets() -> None:
    workflow = read("pull-request.yml")
    assert workflow[True] == "pull_request"
    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in workflow["jobs"].values())
    assert not re.search(r"secrets\.|github\.token", (FOLDER / "pull-request.yml").read_text(encoding="utf-8"))


def test_the_comment_is_written_by_code_of_the_default_branch() -> None:
    workflow = read("pull-request-comment.yml")
    assert workflow[True]["workflow_run"]["workflows"] == [read("pull-request.yml")["name"]]
    (job,) = workflow["jobs"].values()
    assert job["permissions"] == {"actions": "read", "contents": "read", "pull-requests": "write"}
    checkout, download, command = job["steps"]
    assert checkout["with"] == {
        "ref": "${{ github.event.repository.default_branch }}",
        "persist-credentials": False,
    }
    assert download["with"]["path"].startswith("${{ runner.temp }}/"), "beside the checkout"
    assert command["run"] == 'python3 .ci/post_comment.py "$RUNNER_TEMP/metrics-diff"'


def test_the_artifact_that_is_written_is_the_one_that_is_read() -> None:
    steps = read("pull-request.yml")["jobs"]["metrics"]["steps"]
    written = next(step["with"] for step in steps if step.get("uses", "").startswith("actions/upload-artifact@"))
    (job,) = read("pull-request-comment.yml")["jobs"].values()
    read_back = next(step["with"] for step in job["steps"] if "download-artifact@" in step.get("uses", ""))
    assert written["name"] == read_back["name"]


def test_continuous_integration_runs_the_same_commands_as_a_person() -> None:
    repository = FOLDER.parents[1]
    commands = [step["run"] for step in read("ci.yml")["jobs"]["test"]["steps"] if "run" in step]
    assert commands == [".ci/run"]
    text = (repository / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^make (\S+)$", text, re.MULTILINE) == ["test", "test-exhaustive", "audit"]


def test_each_test_is_selected_by_exactly_one_of_the_two_test_commands() -> None:
    makefile = (FOLDER.parents[1] / "Makefile").read_text(encoding="utf-8")
    selections = re.findall(r"^(test\S*):.*\n(?:\t.*\n)*?\t.*\$\(PYTEST\)([^;\n]*)", makefile, re.MULTILINE)
    assert selections == [("test", ' -m "not exhaustive"'), ("test-exhaustive", " -m exhaustive")]
