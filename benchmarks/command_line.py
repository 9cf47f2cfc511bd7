"""How long a person waits for the command line: `cxr --help`, and `make run` when nothing changed.

Run it where `make run` has run: `python benchmarks/command_line.py`. Ratios are to an empty Python process.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "cxr --help": ["cxr", "--help"],
    "cxr train --help": ["cxr", "train", "--help"],
    "dvc status": ["dvc", "status", "dvc.yaml"],
    "dvc repro, nothing changed": ["dvc", "repro"],
    "make run, nothing changed": ["make", "run"],
}


def seconds(words: list[str]) -> float:
    """Time one run of a command.

    Args:
        words: the command.

    Returns:
        Wall-clock seconds.
    """
    started = time.perf_counter()
    answer = subprocess.run(words, capture_output=True, text=True, check=True)
    if "Running stage" in answer.stdout:
        raise SystemExit("expected an up-to-date project, but a stage ran; run `make run` first")
    return time.perf_counter() - started


def main() -> None:
    """Print the median of five runs of each command, after one that is not counted."""
    medians = {}
    for name, words in COMMANDS.items():
        seconds(words)
        medians[name] = statistics.median(seconds(words) for _ in range(5))
    base = medians["python -c pass"]
    for name, median in medians.items():
        print(f"{name:<28} {median:6.2f} s  {median / base:6.1f} x")


if __name__ == "__main__":
    main()
