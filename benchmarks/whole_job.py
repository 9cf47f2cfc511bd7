"""Time and peak memory of each stage of the whole job, in a fresh copy of the project.

`python benchmarks/whole_job.py` takes the phantoms; `--data ../shared/data/kermany224.tar` takes radiographs. Values of
params.yaml can be replaced: `--set models.residual_separable.epochs=1`. Nothing of the project itself is touched.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def run(words: list[str], folder: Path) -> tuple[float, float]:
    """Run a command as its own process.

    Args:
        words: the command.
        folder: where it runs.

    Returns:
        Wall-clock seconds, and the largest resident memory of any of its processes in MiB.
    """
    started = time.perf_counter()
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{shlex.join(words)} ended with {process.returncode}:\n{errors.decode()[-2000:]}")
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return time.perf_counter() - started, usage.ru_maxrss / scale


def main() -> None:
    """Clone the committed project, run fetch and every stage, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    source = str(Path(options.data).resolve()) if Path(options.data).exists() else options.data
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cxr"
        subprocess.run(["git", "clone", "-q", str(PROJECT), str(folder)], check=True)
        for change in options.set:
            key, _, value = change.partition("=")
            script = (
                "import sys, yaml; p = yaml.safe_load(open('params.yaml')); *path, last = sys.argv[1].split('.');"
                "s = p\nfor part in path: s = s[part]\ns[last] = yaml.safe_load(sys.argv[2]);"
                "yaml.safe_dump(p, open('params.yaml', 'w'))"
            )
            subprocess.run([sys.executable, "-c", script, key, value], cwd=folder, check=True)
        total, table = 0.0, []
        table.append(("fetch", *run(["cxr", "fetch", "--params", "params.yaml", "--source", source], folder)))
        listed = subprocess.run(["dvc", "stage", "list", "--name-only"], cwd=folder, capture_output=True, check=True)
        for stage in listed.stdout.decode().split():
            table.append((stage, *run(["dvc", "repro", "--single-item", stage], folder)))
    print(f"{'stage':<32} {'seconds':>8} {'peak MiB':>9}")
    for stage, seconds, memory in table:
        total += seconds
        print(f"{stage:<32} {seconds:8.1f} {memory:9.0f}")
    print(f"{'all':<32} {total:8.1f} {max(row[2] for row in table):9.0f}")


if __name__ == "__main__":
    main()
