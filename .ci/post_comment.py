"""Show the metrics of a pull request as a comment: `python3 .ci/post_comment.py FOLDER`.

The folder is an artifact that code of the pull request wrote, so it is text from a stranger. Only tables of plain words
and numbers are posted, and only to the pull request whose head was run. The text around them is written here. A second
run changes the comment of the first one. Needs only Python itself.

Environment: GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_TOKEN, HEAD_SHA (commit that was run), RUN_URL (page with the
artifact). Exit status 1: GitHub refused. 2: the artifact is not in order; nothing was posted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MARK = "<!-- metrics-diff -->"
AUTHOR = "github-actions[bot]"
MAX_BYTES = 200_000
MAX_ROWS = 200
NUMBER = re.compile(r"[1-9][0-9]{0,9}\n?")
ROW = re.compile(r"\|[\w ./:|+\-=,;'\"(){}\[\]%]*\|", re.ASCII)
ACTIVE = ("](", "://", "www.")
"""What GitHub would turn into a link; mentions and HTML need characters that a row cannot have."""
TEXT = """{mark}
### Metrics on drawn phantoms

{metrics}

### Values in `params.yaml`

{params}

Base and head ran on the same few phantoms, with few epochs. The figures say whether the change moves results; they say
nothing about patients. [The run]({run_url}) keeps the curves and figures of both for 14 days. Head: {head}.
"""


class ArtifactError(ValueError):
    """The artifact holds something else than the tables."""


def main(words: list[str] | None = None) -> int:
    """Check the artifact, and post the comment.

    Args:
        words: the command line; None takes the program's own.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the artifact")
    folder = parser.parse_args(words).folder
    head, run_url = os.environ["HEAD_SHA"], os.environ["RUN_URL"]
    try:
        number = read_number(folder / "number")
        tables = {name: read_table(folder / f"{name}.md") for name in ("metrics", "params")}
    except ArtifactError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    text = TEXT.format(mark=MARK, run_url=run_url, head=head, **tables)
    try:
        pull_request = _call("GET", f"pulls/{number}")
        if pull_request["head"]["sha"] != head:
            sys.stdout.write(f"nothing posted: {head} is not the head of pull request {number} (any more)\n")
            return 0
        comment = find_comment(number)
        if comment is None:
            _call("POST", f"issues/{number}/comments", {"body": text})
        else:
            _call("PATCH", f"issues/comments/{comment}", {"body": text})
    except urllib.error.URLError as error:
        sys.stderr.write(f"expected GitHub to take the comment, received: {error}\n")
        return 1
    return 0


def read_number(path: Path) -> int:
    """Read the number of the pull request.

    Args:
        path: file with the number.

    Returns:
        The number.

    Raises:
        ArtifactError: the file holds something else.
    """
    text = _read(path)
    if not NUMBER.fullmatch(text):
        raise ArtifactError(f"{path.name}: expected the number of a pull request, received {text[:80]!r}")
    return int(text)


def read_table(path: Path) -> str:
    """Read a table, and check that each row holds only plain words and numbers.

    Args:
        path: file with a table in Markdown; empty: nothing differs.

    Returns:
        The table, with at most MAX_ROWS rows, or a sentence in its place.

    Raises:
        ArtifactError: a line is no row of a table, or could become a link, a mention or HTML.
    """
    rows = _read(path).splitlines()
    for row in rows:
        if not ROW.fullmatch(row) or any(sign in row.lower() for sign in ACTIVE):
            raise ArtifactError(
                f"{path.name}: expected rows of words and numbers, received {row[:80]!r}: nothing is posted"
            )
    if not rows:
        return "No change."
    left_out = len(rows) - MAX_ROWS
    return "\n".join(rows[:MAX_ROWS]) + (f"\n\n{left_out} more rows are in the artifact." if left_out > 0 else "")


def find_comment(number: int) -> int | None:
    """Return the comment that an earlier run posted.

    Args:
        number: number of the pull request.

    Returns:
        Its identity, or None. A person's comment with the same mark is never taken.
    """
    page = 1
    while comments := _call("GET", f"issues/{number}/comments?per_page=100&page={page}"):
        for comment in comments:
            if comment["user"]["login"] == AUTHOR and comment["body"].startswith(MARK):
                return int(comment["id"])
        page += 1
    return None


def _read(path: Path) -> str:
    """Return the text of a small file."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ArtifactError(
            f"expected a file of at most {MAX_BYTES} bytes, received {path.name}: run the comparison again"
        )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ArtifactError(f"{path.name}: expected text in UTF-8, received other bytes") from None


def _call(method: str, path: str, content: Any = None) -> Any:
    """Call GitHub's interface for this repository."""
    address = f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}/{path}"
    request = urllib.request.Request(address, method=method, data=content and json.dumps(content).encode())
    request.add_header("Authorization", f"Bearer {os.environ['GITHUB_TOKEN']}")
    request.add_header("Accept", "application/vnd.github+json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main())
