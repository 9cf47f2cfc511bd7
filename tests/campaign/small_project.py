"""A small project whose steps are disturbed, and what is compared with one that never was."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

REPOSITORY = Path(__file__).parents[2]
MODEL = "three_block"
LOG = "log.txt"
SECONDS = 300.0
"""A step that takes longer is a fault."""


@dataclass(frozen=True)
class SmallStep:
    """A step of the small project.

    Attributes:
        command: its command line without ``cxr``.
        outputs: what it writes; whole or not there whenever it is killed.
        compared: files that have the same bytes whenever they are made.
    """

    command: str
    outputs: tuple[str, ...]
    compared: tuple[str, ...] = ()


PREPARED, TRAINED = "artifacts/prepared/s2_resize", f"artifacts/models/{MODEL}"
EVALUATION, REFERENCE = f"artifacts/evaluations/{MODEL}", "artifacts/reference"
STEPS = {
    "fetch": SmallStep("fetch", ("data",), ("data/boxes.json",)),
    "validate": SmallStep(
        "validate --data data --manifest artifacts/manifest --report artifacts/data_report",
        ("artifacts/manifest", "artifacts/data_report"),
        ("artifacts/manifest/summary.json",),
    ),
    "resplit": SmallStep(
        "resplit --manifest artifacts/manifest --splits artifacts/splits",
        ("artifacts/splits",),
        ("artifacts/splits/splits.parquet",),
    ),
    "preprocess": SmallStep(
        f"preprocess --recipe s2_resize --data data --manifest artifacts/manifest --prepared {PREPARED}",
        (PREPARED,),
        (f"{PREPARED}/images.npy",),
    ),
    "reference": SmallStep(f"reference --data data --splits artifacts/splits --reference {REFERENCE}", (REFERENCE,)),
    "train": SmallStep(
        f"train --model {MODEL} --manifest artifacts/manifest --splits artifacts/splits --prepared {PREPARED} "
        f"--trained {TRAINED} --checkpoints artifacts/checkpoints/{MODEL}",
        (TRAINED, f"artifacts/checkpoints/{MODEL}"),
    ),
    "evaluate": SmallStep(
        f"evaluate --model {MODEL} --data data --manifest artifacts/manifest --splits artifacts/splits "
        f"--prepared {PREPARED} --trained {TRAINED} --evaluation {EVALUATION}",
        (EVALUATION,),
        (f"{EVALUATION}/predictions.parquet",),
    ),
    "register": SmallStep(
        f"register --data data --splits artifacts/splits --reference {REFERENCE} --models artifacts/models "
        "--evaluations artifacts/evaluations --ensemble missing --registration artifacts/registration",
        ("artifacts/registration",),
    ),
    "predict": SmallStep(
        f"predict --model {TRAINED} --images data --output rows/rows.csv --part_size 8", ("rows",), ("rows/rows.csv",)
    ),
}
"""In the order in which they run."""


def run_step(
    folder: Path, step: SmallStep, kill_after: float | None = None, variables: Mapping[str, str] | None = None
) -> int | None:
    """Run a step in a project; what it writes to the terminal is added to a log beside the project.

    Args:
        folder: the project.
        step: the step.
        kill_after: seconds until SIGKILL; None for none.
        variables: additions to the environment.

    Returns:
        Its exit status; None if it was killed.
    """
    command = [sys.executable, "-m", "cxr.cli.main", *step.command.split(), "--params", "params.yaml"]
    environment = python_environment() | {"TF_CPP_MIN_LOG_LEVEL": "3"} | dict(variables or {})
    with folder.with_name(LOG).open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            return process.wait(SECONDS if kill_after is None else kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return None


def python_environment() -> dict[str, str]:
    """Variables of processes that import what this one imports."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def log_end(folder: Path) -> str:
    """The last lines that the steps of a project wrote."""
    return read_log(folder)[-600:]


def read_log(folder: Path) -> str:
    """What the steps of a project wrote to the terminal."""
    return folder.with_name(LOG).read_text(errors="replace")


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
    (folder / "rows").mkdir()
    for name, step in STEPS.items():
        started = time.monotonic()
        if run_step(folder, step) != 0:
            raise SystemExit(f"{name} failed although nothing disturbed it:\n{log_end(folder)}")
        seconds[name] = time.monotonic() - started
    run_step(folder, STEPS["validate"])  # in a project that has a reference, it compares the images with it
    (folder / "seconds.json").write_text(json.dumps(seconds))
    return seconds


def copy_before(project: Path, folder: Path, name: str) -> None:
    """Copy a project, without what a step writes.

    Args:
        project: a project that was never disturbed.
        folder: the copy.
        name: name of the step.
    """
    shutil.copytree(project, folder, symlinks=True, dirs_exist_ok=True)
    for output in STEPS[name].outputs:
        shutil.rmtree(folder / output, ignore_errors=True)  # checkpoints are removed after the training
    if name == "predict":
        (folder / "rows").mkdir()


def forget_store(folder: Path) -> None:
    """Remove the store of a project, so that a step makes it anew.

    Args:
        folder: the project.
    """
    shutil.rmtree(folder / "mlruns")
    for path in folder.glob("mlflow.db*"):
        path.unlink()


def find_half_output(project: Path, folder: Path, step: SmallStep) -> str:
    """Find an output that is neither whole nor absent (checkpoints and parts of a batch are no outputs).

    Args:
        project: the project that was never disturbed.
        folder: the other.
        step: the step.

    Returns:
        A sentence; empty if there is none.
    """
    for output in step.outputs:
        if "checkpoints" in output or output == "rows":
            continue
        if (folder / output).exists() and _names(folder / output) != _names(project / output):
            return f"{output} is half there"
    return ""


def find_difference(project: Path, folder: Path, step: SmallStep) -> str:
    """Find what distinguishes a project from one that was never disturbed.

    Args:
        project: the project that was never disturbed.
        folder: the other, in which the step has succeeded.
        step: the step.

    Returns:
        A sentence; empty if nothing does.
    """
    return next((fault for check in _CHECKS if (fault := check(project, folder, step))), "")


def _names(folder: Path) -> set[str]:
    """Paths of all files, without the times in the names of Great Expectations' pages."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {re.sub(r"\d{8}T\d{6}\.\d+Z", "TIME", path) for path in paths}


def _outputs_are_whole(project: Path, folder: Path, step: SmallStep) -> str:
    for output in step.outputs:
        if "checkpoints" not in output and _names(folder / output) != _names(project / output):
            return f"{output} holds other files than in a project that was never disturbed"
    return ""


def _contents_are_the_same(project: Path, folder: Path, step: SmallStep) -> str:
    for path in step.compared:
        if _digest(folder / path) != _digest(project / path):
            return f"{path} has other content than in a project that was never disturbed"
    return ""


def _no_leftovers(_project: Path, folder: Path, _step: SmallStep) -> str:
    leftovers = [path.name for path in folder.rglob(".*") if ".partial-" in path.name or ".old-" in path.name]
    return f"left behind: {leftovers[:5]}" if leftovers else ""


def _store_is_whole(project: Path, folder: Path, step: SmallStep) -> str:
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
    if step is STEPS["register"] and versions != expected_versions:
        return f"{versions} versions in place of {expected_versions}"
    if open_runs > expected_runs:
        return f"{open_runs} runs are still open in place of {expected_runs}"
    doubled = [alias for alias, count in aliases if count > 1]
    return f"aliases of several versions: {doubled}" if doubled else ""


def _digest(path: Path) -> str:
    if path.suffix == ".parquet":
        return hashlib.sha256(pd.util.hash_pandas_object(pd.read_parquet(path)).to_numpy().tobytes()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


_CHECKS: tuple[Callable[[Path, Path, SmallStep], str], ...] = (
    _outputs_are_whole,
    _contents_are_the_same,
    _no_leftovers,
    _store_is_whole,
)
