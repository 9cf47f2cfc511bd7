"""Kills steps at random moments, runs them again, and compares with a project that was never killed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from campaign.outcomes import Tally

REPOSITORY = Path(__file__).parents[2]
MODEL = "three_block"
SECONDS = 300.0
"""A step that takes longer is a fault."""


@dataclass(frozen=True)
class KilledStep:
    """A step that is killed.

    Attributes:
        command: its command line without ``cxr``.
        outputs: what it writes; removed before the attempt, and whole or not there after the kill.
        compared: files that have the same bytes whenever they are made.
    """

    command: str
    outputs: tuple[str, ...]
    compared: tuple[str, ...] = ()


_PREPARED, _TRAINED = "artifacts/prepared/s2_resize", f"artifacts/models/{MODEL}"
_EVALUATION = f"artifacts/evaluations/{MODEL}"
STEPS = {
    "fetch": KilledStep("fetch", ("data",), ("data/boxes.json",)),
    "validate": KilledStep(
        "validate --data data --manifest artifacts/manifest --report artifacts/data_report",
        ("artifacts/manifest", "artifacts/data_report"),
        ("artifacts/manifest/summary.json",),
    ),
    "resplit": KilledStep(
        "resplit --manifest artifacts/manifest --splits artifacts/splits",
        ("artifacts/splits",),
        ("artifacts/splits/splits.parquet",),
    ),
    "preprocess": KilledStep(
        f"preprocess --recipe s2_resize --data data --manifest artifacts/manifest --prepared {_PREPARED}",
        (_PREPARED,),
        (f"{_PREPARED}/images.npy",),
    ),
    "reference": KilledStep(
        "reference --data data --splits artifacts/splits --reference artifacts/reference", ("artifacts/reference",)
    ),
    "train": KilledStep(
        f"train --model {MODEL} --manifest artifacts/manifest --splits artifacts/splits --prepared {_PREPARED} "
        f"--trained {_TRAINED} --checkpoints artifacts/checkpoints/{MODEL}",
        (_TRAINED, f"artifacts/checkpoints/{MODEL}"),
    ),
    "evaluate": KilledStep(
        f"evaluate --model {MODEL} --data data --manifest artifacts/manifest --splits artifacts/splits "
        f"--prepared {_PREPARED} --trained {_TRAINED} --evaluation {_EVALUATION}",
        (_EVALUATION,),
        (f"{_EVALUATION}/predictions.parquet",),
    ),
    "register": KilledStep(
        "register --data data --splits artifacts/splits --reference artifacts/reference --models artifacts/models "
        "--evaluations artifacts/evaluations --ensemble missing --registration artifacts/registration",
        ("artifacts/registration",),
    ),
    "predict": KilledStep(
        f"predict --model {_TRAINED} --images data --output rows/rows.csv --part_size 8", ("rows",), ("rows/rows.csv",)
    ),
}
"""In the order in which they run."""


def run_step(folder: Path, step: KilledStep, kill_after: float | None = None) -> int | None:
    """Run a step in a project.

    Args:
        folder: the project.
        step: the step.
        kill_after: seconds until SIGKILL; None for none.

    Returns:
        Its exit status; None if it was killed.
    """
    command = [sys.executable, "-m", "cxr.cli.main", *step.command.split(), "--params", "params.yaml"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(sys.path)}
    log = (folder / "log.txt").open("ab")
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        return process.wait(kill_after if kill_after is not None else SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return None
    finally:
        log.close()


def make_project(folder: Path) -> dict[str, float]:
    """Make a small project and run every step once.

    Args:
        folder: a new folder.

    Returns:
        Seconds that each step took.
    """
    folder.mkdir()
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    params["fetch"] |= {"phantom_images": 60, "phantom_seed": 1}
    params["models"] = {MODEL: params["models"][MODEL] | {"phantom_epochs": 6}}
    params["recipes"] = {"s2_resize": params["recipes"]["s2_resize"]}
    params["evaluate"]["resamples"] = 100
    params["ensemble"]["members"] = [MODEL]
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    seconds = {}
    for name, step in STEPS.items():
        (folder / "rows").mkdir(exist_ok=True)
        started = time.monotonic()
        if run_step(folder, step) != 0:
            raise SystemExit(f"{name} failed without a kill:\n" + (folder / "log.txt").read_text()[-2000:])
        seconds[name] = time.monotonic() - started
    return seconds


def attempt(project: Path, name: str, generator: np.random.Generator, seconds: float) -> tuple[str, str]:
    """Kill a step in a copy of a project, run it again, and look at what is there.

    Args:
        project: a project that was never killed.
        name: name of the step.
        generator: decides when it is killed.
        seconds: how long the step takes.

    Returns:
        What happened, and the fault; empty if there is none.
    """
    step = STEPS[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "project")
        shutil.copytree(project, folder, symlinks=True)
        for output in step.outputs:
            shutil.rmtree(folder / output)
        if name == "predict":
            (folder / "rows").mkdir()
        if name == "register" and generator.integers(2):
            _forget_store(folder)
        kills = int(generator.integers(1, 3))
        killed = 0
        for _ in range(kills):
            killed += run_step(folder, step, float(generator.uniform(0.2, 1.05 * seconds))) is None
            if fault := _half_output(project, folder, step):
                return "killed", f"{name}: {fault}"
        status = run_step(folder, step)
        if status != 0:
            return "killed", f"{name}: exit status {status} after a kill: {(folder / 'log.txt').read_text()[-500:]}"
        return (
            ("survived" if killed else "ended before the kill"),
            next((f"{name}: {fault}" for check in CHECKS if (fault := check(project, folder, step))), ""),
        )


def _forget_store(folder: Path) -> None:
    """Let the step make the store anew."""
    shutil.rmtree(folder / "mlruns")
    for path in folder.glob("mlflow.db*"):
        path.unlink()


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _half_output(project: Path, folder: Path, step: KilledStep) -> str:
    """A killed step leaves each output whole or not there (checkpoints and parts are no outputs)."""
    for output in step.outputs:
        if "checkpoints" in output or output == "rows":
            continue
        if (folder / output).exists() and _names(folder / output) != _names(project / output):
            return f"{output} is half there after a kill"
    return ""


def _outputs_are_whole(project: Path, folder: Path, step: KilledStep) -> str:
    for output in step.outputs:
        if "checkpoints" not in output and _names(folder / output) != _names(project / output):
            return f"{output} holds other files than in a project that was never killed"
    return ""


def _contents_are_the_same(project: Path, folder: Path, step: KilledStep) -> str:
    for path in step.compared:
        if _digest(folder / path) != _digest(project / path):
            return f"{path} has other content than in a project that was never killed"
    return ""


def _no_leftovers(project: Path, folder: Path, step: KilledStep) -> str:
    leftovers = [path.name for path in folder.rglob(".*") if ".partial-" in path.name or ".old-" in path.name]
    return f"left behind: {leftovers[:5]}" if leftovers else ""


def _store_is_whole(project: Path, folder: Path, step: KilledStep) -> str:
    """The database is sound, no run goes on, and the registry holds each content once."""
    with sqlite3.connect(folder / "mlflow.db") as database:
        if (answer := database.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
            return f"mlflow.db: {answer}"
        open_runs = database.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone()[0]
        versions = database.execute("SELECT count(*) FROM model_versions").fetchone()[0]
        aliases = database.execute("SELECT alias, count(*) FROM registered_model_aliases GROUP BY alias").fetchall()
    with sqlite3.connect(project / "mlflow.db") as database:
        expected_runs = database.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone()[0]
        expected_versions = database.execute("SELECT count(*) FROM model_versions").fetchone()[0]
    if "register" in step.command and versions != expected_versions:
        return f"{versions} versions in place of {expected_versions}"
    if open_runs > expected_runs:
        return f"{open_runs} runs are still open in place of {expected_runs}"
    doubled = [alias for alias, count in aliases if count > 1]
    return f"aliases of several versions: {doubled}" if doubled else ""


def _digest(path: Path) -> str:
    if path.suffix == ".parquet":
        return hashlib.sha256(pd.util.hash_pandas_object(pd.read_parquet(path)).to_numpy().tobytes()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


Check = Callable[[Path, Path, KilledStep], str]
CHECKS: tuple[Check, ...] = (_outputs_are_whole, _contents_are_the_same, _no_leftovers, _store_is_whole)


def kill_steps(seed: int, first: int, deadline: float, stride: int = 1) -> dict[str, Any]:
    """Kill steps until the time is over.

    Args:
        seed: seed of the campaign.
        first: number of the first attempt.
        deadline: value of ``time.time()`` at which no further attempt begins.
        stride: distance between the numbers of attempts, where several processes share them.

    Returns:
        Per step the :class:`Tally`.
    """
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch, "project")
        seconds: Mapping[str, float] = make_project(project)
        number, names = first, list(STEPS)
        while time.time() < deadline:
            generator = np.random.default_rng([seed, number])
            name = names[number % len(names)]
            tally = tallies.setdefault(name, Tally(f"SIGKILL in `cxr {name}`, then the step again"))
            outcome, fault = attempt(project, name, generator, seconds[name])
            if fault:
                tally.add_fault(fault, number)
            else:
                tally.add(outcome)
            number += stride
    return tallies


if __name__ == "__main__":
    SEED, FIRST, MINUTES = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    for entry in kill_steps(SEED, FIRST, time.time() + 60 * MINUTES).values():
        sys.stdout.write(entry.row() + "\n" + "".join(f"    {fault}\n" for fault in entry.faults))
