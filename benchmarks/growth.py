"""Runs fetch to evaluate on numbers of small images, and tells how time and memory of each step grow.

Every step is a process of its own, as on the command line. Its time is that of all cores together, so that other work
on the machine changes it little. Its memory is the largest sum that it and the processes that it starts hold for
themselves, looked at every twentieth of a second. Pages of mapped files do not count: the kernel takes them back when
it needs room.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from changed_phantoms import SIDE, draw_changed_phantoms

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
_MODEL = ("--model", "three_block", "--prepared", "prepared", "--trained", "trained", "--tracking_uri", "")
STEPS: Mapping[str, Sequence[str]] = {
    "fetch": ("--source", "source", "--expect", "any"),
    "validate": (),
    "resplit": (),
    "preprocess": ("--recipe", "s2_resize", "--prepared", "prepared"),
    "reference": (),
    "train": (*_MODEL, "--checkpoints", "checkpoints", "--phantom_epochs", "1"),
    "evaluate": (*_MODEL, "--evaluation", "evaluation"),
}
"""Steps and their arguments beside the values of params.yaml."""
SEED = 0
FLAT = 1.2
"""Largest growth of what an image takes that counts as none."""
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Usage:
    """What a process has used, with the processes that it started.

    Attributes:
        core_seconds: time of all cores together.
        wall_seconds: time on the clock.
        megabytes: largest memory of its own, in millions of bytes.
    """

    core_seconds: float
    wall_seconds: float
    megabytes: float


def measure(images: int) -> dict[str, Usage]:
    """Run all steps on images drawn for it, in a temporary folder.

    Args:
        images: how many.

    Returns:
        Usage by step.

    Raises:
        SystemExit: if a step fails; with its messages.
    """
    usages = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source").mkdir()
        draw_changed_phantoms(folder / "source", images, SEED)
        for step, arguments in STEPS.items():
            usages[step] = run_step(step, arguments, folder)
            used = usages[step]
            print(
                f"{images:>9,} {step:<12}{used.core_seconds:>10.1f} core s{used.wall_seconds:>10.1f} s"
                f"{used.megabytes:>8.0f} MB",
                file=sys.stderr,
                flush=True,
            )
    return usages


def run_step(step: str, arguments: Sequence[str], folder: Path) -> Usage:
    """Run a step as a process.

    Args:
        step: its name.
        arguments: of the command line.
        folder: where it runs; a file ``STEP.log`` keeps its messages.

    Returns:
        What it used.

    Raises:
        SystemExit: if it fails; with its messages.
    """
    command = [Path(sys.executable).with_name("cxr"), step, "--params", PARAMS, *arguments]
    log = folder / f"{step}.log"
    with log.open("w+b") as messages:
        return _watch(subprocess.Popen(command, cwd=folder, stdout=messages, stderr=messages), step, messages)


def _watch(process: subprocess.Popen[bytes], step: str, messages: IO[bytes]) -> Usage:
    started, most = time.perf_counter(), 0
    while True:
        most = max(most, _bytes_of_tree(process.pid))
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        time.sleep(_LOOK_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        messages.seek(0)
        raise SystemExit(f"{step} ended with {process.returncode}:\n{messages.read().decode()[-3000:]}")
    return Usage(usage.ru_utime + usage.ru_stime, time.perf_counter() - started, most / 1e6)


def private_bytes(pid: int | str = "self") -> int:
    """Tell what a process holds for itself: memory that the kernel cannot take back; 0 for one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(
        1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon:", "RssShmem:"))
    )


def _bytes_of_tree(pid: int) -> int:
    """What a process and all that it has started hold for themselves."""
    try:
        children = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return private_bytes(pid) + sum(_bytes_of_tree(child) for child in children)


def _children(task: Path) -> list[int]:
    try:
        return [int(pid) for pid in (task / "children").read_text(encoding="utf-8").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def table(measured: Mapping[int, Mapping[str, Usage]]) -> str:
    """Write what the steps used, and how it grows with the images.

    What an image takes is the difference between two sizes, so that the start of a program does not count.

    Args:
        measured: number of images to usage by step, three sizes or more in rising order.

    Returns:
        Markdown.
    """
    sizes = list(measured)
    few, some, many = sizes[-3:]
    heads = [f"{size:,}" for size in sizes]
    lines = [
        f"Core seconds and peak memory for {', '.join(heads[:-1])} and {heads[-1]} images of {SIDE} x {SIDE} pixels:",
        "",
        f"| | {' | '.join(f'{head}: s' for head in heads)} | ms an image, {few:,} to {some:,} | {some:,} to {many:,} "
        f"| growth | {' | '.join(f'{head}: MB' for head in heads)} | growth |",
        f"|---|{'--:|' * (2 * len(sizes) + 4)}",
    ]
    for step in STEPS:
        used = [measured[size][step] for size in sizes]
        first = 1e3 * (used[-2].core_seconds - used[-3].core_seconds) / (some - few)
        second = 1e3 * (used[-1].core_seconds - used[-2].core_seconds) / (many - some)
        cells = [f"{usage.core_seconds:,.1f}" for usage in used]
        cells += [f"{first:.2f}", f"{second:.2f}", _growth(second, first)]
        cells += [f"{usage.megabytes:,.0f}" for usage in used]
        cells.append(_growth(used[-1].megabytes, used[-2].megabytes))
        lines.append(f"| `{step}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _growth(later: float, earlier: float) -> str:
    ratio = later / earlier
    return f"**{ratio:.2f}**" if ratio > FLAT else f"{ratio:.2f}"
