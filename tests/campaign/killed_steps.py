"""Kills steps at random moments, runs them again, and compares with a project that was never killed.

``python -m campaign.killed_steps PROJECT SEED FIRST STRIDE SECONDS`` prints one line of JSON per kill or attempt.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from campaign.outcomes import Attempt
from campaign.small_project import (
    STEPS,
    copy_before,
    find_difference,
    find_half_output,
    forget_store,
    log_end,
    run_step,
)


def kill_steps(project: Path, seed: int, first: int, stride: int, deadline: float) -> Iterator[Attempt]:
    """Kill steps until the time is over.

    Args:
        project: a project that was never killed, as :func:`campaign.small_project.make_project` makes it.
        seed: seed of the campaign.
        first: number of the first attempt.
        stride: distance between the numbers of attempts, where several processes share them.
        deadline: value of ``time.monotonic()`` at which no further attempt begins.

    Yields:
        One attempt per kill, and one per step that ended before its kill.
    """
    seconds = json.loads((project / "seconds.json").read_text())
    number, names = first, list(STEPS)
    while time.monotonic() < deadline:
        name = names[number % len(names)]
        yield from _kill_step(project, name, seed, number, seconds[name])
        number += stride


def _kill_step(project: Path, name: str, seed: int, number: int, seconds: float) -> Iterator[Attempt]:
    """Kill a step once, twice or three times, let it end, and look at what is there."""
    step, generator = STEPS[name], np.random.default_rng([seed, number])
    kind = f"SIGKILL in `cxr {name}`, then the step again"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "project")
        copy_before(project, folder, name)
        if name == "register" and generator.integers(2):
            forget_store(folder)
        outcomes = []
        for _ in range(int(generator.integers(1, 4))):
            killed = run_step(folder, step, float(generator.uniform(0.1, 1.0) * seconds)) is None
            outcomes.append("as if never killed" if killed else "ended before the kill")
            if fault := find_half_output(project, folder, step):
                yield Attempt(kind, number, "", fault)
                return
        status = run_step(folder, step)
        fault = (
            find_difference(project, folder, step)
            if status == 0
            else f"exit status {status} after a kill: {log_end(folder)}"
        )
        yield from (Attempt(kind, number, outcome) for outcome in outcomes[1:])
        yield Attempt(kind, number, outcomes[0], fault)


if __name__ == "__main__":
    PROJECT, SEED, FIRST, STRIDE, SECONDS = Path(sys.argv[1]), *map(int, sys.argv[2:6])
    for entry in kill_steps(PROJECT, SEED, FIRST, STRIDE, time.monotonic() + SECONDS):
        entry.print()
