"""Compare the metrics of two commits on few drawn phantoms: `make metrics-diff BASE=main`.

Both commits run in a clone, with their own code and `params.yaml` and the packages of this environment, on the same
phantoms. A stage whose code, values and inputs are the same in both runs once, so its metrics are equal. The committed
`dvc.lock` cannot be compared with: it names figures that only the machine of the run still has.

Written: `metrics.md` and `params.md` (tables of what differs; empty: nothing does) and `plots/index.html` (curves and
figures of both). Exit status 1: a run failed. 2: a commit or the folder is wrong. An older comparison then stays.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
REDUCED = {
    "fetch.source": "phantom",
    "fetch.phantom_images": 300,
    "evaluate.resamples": 200,
}
"""Values that make a run short; both commits get them."""
LAST_STAGE = "ensemble"
METRICS_FILE, PARAMS_FILE = "metrics.md", "params.md"


class RunError(Exception):
    """A program of the run failed."""


def main(words: list[str] | None = None) -> int:
    """Compare, write the tables, and print them.

    Args:
        words: the command line; None takes the program's own.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="commit or branch to compare with")
    parser.add_argument("--head", default="HEAD", help="commit to judge; changes that are not committed do not count")
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "metrics-diff", help="folder to write")
    options = parser.parse_args(words)
    try:
        head = commit(options.repository, options.head)
        base = ancestor(options.repository, commit(options.repository, options.base), head)
        if options.output.exists() and not (options.output / METRICS_FILE).is_file():
            raise ValueError(
                f"expected no folder, or an older comparison, received output={options.output}: choose another"
            )
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        compare(options.repository, base, head, options.output)
    except RunError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for title, name in (("Metrics", METRICS_FILE), ("Values in params.yaml", PARAMS_FILE)):
        sys.stdout.write(f"{title}:\n\n{(options.output / name).read_text(encoding='utf-8') or 'No change.'}\n")
    return 0


def commit(repository: Path, name: str) -> str:
    """Return the full hash of a commit.

    Args:
        repository: folder of the git repository.
        name: commit, branch or tag.

    Returns:
        40 hexadecimal digits.

    Raises:
        ValueError: the repository has no such commit.
    """
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    answer = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    if answer.returncode:
        raise ValueError(
            f"expected a commit, branch or tag of this repository, received {name!r}: fetch it, or name another"
        )
    return answer.stdout.strip()


def ancestor(repository: Path, base: str, head: str) -> str:
    """Return the newest common ancestor: later changes of the base are no changes of the head.

    Args:
        repository: folder of the git repository.
        base: hash of a commit.
        head: hash of a commit.

    Returns:
        The hash.

    Raises:
        ValueError: the two have no common history here.
    """
    answer = subprocess.run(["git", "merge-base", base, head], cwd=repository, capture_output=True, text=True)
    if answer.returncode:
        raise ValueError(f"expected commits with a common history, received base={base}, head={head}: fetch all of it")
    return answer.stdout.strip()


def compare(repository: Path, base: str, head: str, output: Path) -> None:
    """Run both commits in a clone and write the comparison.

    Args:
        repository: folder of the git repository.
        base: hash of the commit to compare with.
        head: hash of the commit to judge.
        output: folder to write; an older one is replaced.

    Raises:
        RunError: a run or a comparison failed.
    """
    with tempfile.TemporaryDirectory(prefix="metrics-diff-") as name:
        clone = Path(name) / "clone"
        written = Path(name) / "output"
        written.mkdir()
        _call(
            ["git", "clone", "--quiet", "--shared", "--no-checkout", str(repository.resolve()), str(clone)], repository
        )
        run_pipeline(clone, base, "base")
        run_pipeline(clone, head, "head")
        check_metrics(json.loads(_call(["dvc", "metrics", "show", "--all-tags", "--json"], clone)))
        for kind, file in (("metrics", METRICS_FILE), ("params", PARAMS_FILE)):
            table = _call(["dvc", kind, "diff", "--md", "base", "head"], clone).strip()
            # Without a difference DVC writes the head of the table.
            (written / file).write_text(f"{table}\n" if table.count("\n") > 1 else "", encoding="utf-8")
        _call(["dvc", "plots", "diff", "base", "head", "--out", str(written / "plots")], clone)
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(written, output)


def run_pipeline(clone: Path, commit_hash: str, tag: str) -> None:
    """Run the reduced pipeline of a commit, and commit what it measured in the clone.

    Args:
        clone: clone that may be changed.
        commit_hash: commit to run.
        tag: name of the new commit in the clone.

    Raises:
        RunError: a program of the run failed.
    """
    _call(["git", "checkout", "--quiet", "--force", "--detach", commit_hash], clone)
    parameters = clone / "params.yaml"
    values = yaml.safe_load(parameters.read_text(encoding="utf-8"))
    parameters.write_text(yaml.safe_dump(reduced(values), sort_keys=False), encoding="utf-8")
    _call(["cxr", "fetch", "--params", "params.yaml"], clone)
    _call(["dvc", "repro", LAST_STAGE], clone)
    author = ["-c", "user.name=metrics-diff", "-c", "user.email=metrics-diff@localhost"]
    _call(["git", "add", "--all"], clone)
    _call(["git", *author, "commit", "--quiet", "--message", f"Reduced run of {commit_hash}"], clone)
    _call(["git", "tag", tag], clone)


def check_metrics(metrics: dict[str, Any]) -> None:
    """Check that the figures of both runs can be read: DVC would compare the others, and say nothing changed.

    Args:
        metrics: answer of `dvc metrics show --all-tags --json`.

    Raises:
        RunError: a file cannot be read.
    """
    for tag in ("base", "head"):
        for path, answer in metrics[tag]["data"].items():
            if "error" in answer:
                raise RunError(
                    f"expected figures of {tag} in {path}, received: {answer['error'].get('msg', 'an error')}"
                )


def reduced(values: dict[str, Any]) -> dict[str, Any]:
    """Return parameters of a short run. A value that the commit does not know stays away.

    Args:
        values: content of params.yaml; it is changed.

    Returns:
        The parameters.
    """
    for place, value in REDUCED.items():
        section, key = place.split(".")
        if key in values.get(section, {}):
            values[section][key] = value
    return values


def _call(command: list[str], folder: Path) -> str:
    """Run a program on the code of a folder, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "DVC_NO_ANALYTICS": "1"}
    answer = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    if answer.returncode:
        raise RunError(f"{answer.stdout}expected exit status 0, received {answer.returncode} from: {' '.join(command)}")
    return answer.stdout


if __name__ == "__main__":
    sys.exit(main())
