"""The comment on a pull request holds tables of words and numbers, and reaches only the pull request that was run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

HEAD = "a" * 40
TABLE = """| Path         | Metric     | base   | head   | Change   |
|--------------|------------|--------|--------|----------|
| summary.json | test_auroc | 0.9123 | 0.9301 | 0.0178   |
"""


class GitHub(ThreadingHTTPServer):
    """The part of GitHub's interface that the script uses."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.comments: list[dict[str, Any]] = []
        self.calls: list[str] = []


class Answers(BaseHTTPRequestHandler):
    """Answers for pull request 7, whose head is HEAD."""

    server: GitHub

    def do_GET(self) -> None:
        page = self.path.endswith(("page=1", "/pulls/7"))
        self.send({"head": {"sha": HEAD}} if "/pulls/" in self.path else self.server.comments if page else [])

    def do_POST(self) -> None:
        comment = self.content() | {"id": len(self.server.comments) + 1, "user": {"login": "github-actions[bot]"}}
        self.server.comments.append(comment)
        self.send(comment)

    def do_PATCH(self) -> None:
        comment = self.server.comments[int(self.path.rpartition("/")[2]) - 1]
        comment |= self.content()
        self.send(comment)

    def content(self) -> dict[str, Any]:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def send(self, value: Any) -> None:
        self.server.calls.append(f"{self.command} {self.path}")
        refused = self.headers["Authorization"] != "Bearer token"
        body = json.dumps(value).encode()
        self.send_response(403 if refused else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    (tmp_path / "number").write_text("7\n")
    (tmp_path / "metrics.md").write_text(TABLE)
    (tmp_path / "params.md").write_text("")
    return tmp_path


def post(github: GitHub, artifact: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "GITHUB_API_URL": f"http://127.0.0.1:{github.server_port}",
        "GITHUB_REPOSITORY": "hospital/cxr",
        "GITHUB_TOKEN": "token",
        "HEAD_SHA": HEAD,
        "RUN_URL": "https://github.example/run/1",
    }
    script = Path(__file__).parents[2] / ".ci" / "post_comment.py"
    command = [sys.executable, "-I", script, artifact]
    return subprocess.run(command, env=os.environ | environment | settings, capture_output=True, text=True)


def test_tables_become_a_comment_and_a_second_run_changes_it(github: GitHub, artifact: Path) -> None:
    assert post(github, artifact).returncode == 0
    assert [comment["body"].count("No change.") for comment in github.comments] == [1]
    assert TABLE in github.comments[0]["body"]
    (artifact / "metrics.md").write_text(TABLE.replace("0.0178", "0.0199"))
    assert post(github, artifact).returncode == 0
    assert len(github.comments) == 1
    assert "0.0199" in github.comments[0]["body"] and "0.0178" not in github.comments[0]["body"]


def test_a_comment_of_a_person_is_never_changed(github: GitHub, artifact: Path) -> None:
    mine = {"id": 1, "user": {"login": "someone"}, "body": "<!-- metrics-diff -->\nmine"}
    github.comments.append(dict(mine))
    assert post(github, artifact).returncode == 0
    assert github.comments[0] == mine
    assert len(github.comments) == 2


@pytest.mark.parametrize(
    "row",
    [
        "| @everyone | look |",
        "| <img src=x> | 1 |",
        "| [a](//b.example) | 1 |",
        "| https://b.example | 1 |",
        "| WWW.b.example | 1 |",
        "| `code` | 1 |",
        "no row of a table",
        "| é | 1 |",
    ],
)
def test_a_row_that_could_be_more_than_words_is_refused(github: GitHub, artifact: Path, row: str) -> None:
    (artifact / "metrics.md").write_text(f"{TABLE}{row}\n", encoding="utf-8")
    answer = post(github, artifact)
    assert answer.returncode == 2
    assert "metrics.md: expected rows of words and numbers" in answer.stderr
    assert github.calls == []


@pytest.mark.parametrize("text", ["", "0", "7; ls", "7/../8", "12345678901", "7\n8"])
def test_a_number_that_is_none_is_refused(github: GitHub, artifact: Path, text: str) -> None:
    (artifact / "number").write_text(text)
    answer = post(github, artifact)
    assert answer.returncode == 2
    assert "expected the number of a pull request" in answer.stderr
    assert github.calls == []


def test_a_missing_a_linked_and_a_huge_file_are_refused(github: GitHub, artifact: Path) -> None:
    (artifact / "params.md").write_text("|x|\n" * 100_000)
    assert post(github, artifact).returncode == 2
    (artifact / "params.md").unlink()
    assert post(github, artifact).returncode == 2
    (artifact / "params.md").symlink_to(artifact / "metrics.md")
    assert post(github, artifact).returncode == 2
    assert github.calls == []


def test_a_long_table_is_cut_and_says_so(github: GitHub, artifact: Path) -> None:
    (artifact / "metrics.md").write_text(TABLE + "| a | b | 1 | 2 | 1 |\n" * 300)
    assert post(github, artifact).returncode == 0
    body = github.comments[0]["body"]
    assert body.count("\n|") == 200
    assert "103 more rows are in the artifact." in body


def test_another_pull_request_than_the_one_that_was_run_gets_no_comment(github: GitHub, artifact: Path) -> None:
    answer = post(github, artifact, HEAD_SHA="b" * 40)
    assert answer.returncode == 0
    assert "nothing posted" in answer.stdout
    assert github.comments == []


def test_a_refusal_of_github_is_an_error(github: GitHub, artifact: Path) -> None:
    answer = post(github, artifact, GITHUB_TOKEN="another")
    assert answer.returncode == 1
    assert "403" in answer.stderr
