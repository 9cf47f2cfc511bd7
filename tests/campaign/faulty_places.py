"""Lets disks, the store, files of earlier steps and an object store fail under a step, mends them, and runs it again.

``python -m campaign.faulty_places PROJECT SEED ROUNDS`` prints one line of JSON per fault. It mounts small disks,
so that it runs in a namespace of its own: ``unshare --user --map-root-user --mount``.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import numpy as np

from campaign.outcomes import Attempt
from campaign.small_project import (
    EVALUATION,
    PREPARED,
    REFERENCE,
    STEPS,
    TRAINED,
    SmallStep,
    copy_before,
    find_difference,
    find_half_output,
    forget_store,
    log_end,
    read_log,
    run_step,
)
from support.s3_server import BROKEN, DAMAGED, OVERLOADED, S3Server

ANY_SIZE = "size=4g"
"""Of a disk with room for everything."""
Damage = Callable[[Path, np.random.Generator], None]


def disturb(project: Path, seed: int, rounds: int) -> Iterator[Attempt]:
    """Try every fault.

    Args:
        project: a project that was never disturbed.
        seed: seed of the campaign.
        rounds: how often each fault is tried, each time at another place.

    Yields:
        One attempt per fault and round.
    """
    for number in range(rounds):
        generator = np.random.default_rng([seed, number])
        for name in STEPS:
            yield _fill_disk(project, name, generator, number)
        for kind, damage in STORE_FAULTS.items():
            yield _spoil_store(project, kind, damage, generator, number)
        yield _protect_store(project, number)
        yield _occupy_store(project, number)
        for name, folder in READ_FOLDERS:
            yield _spoil_file(project, name, folder, generator, number)
        yield _disturb_transfers(project, generator, number)


def _fill_disk(project: Path, name: str, generator: np.random.Generator, number: int) -> Attempt:
    """Run a step on a disk with less room than it needs, then with more."""
    step = STEPS[name]
    with _small_disk() as folder:
        copy_before(project, folder, name)
        (folder / "tmp").mkdir()
        needed = sum(path.stat().st_size for output in step.outputs for path in (project / output).rglob("*"))
        room = int(np.exp(generator.uniform(np.log(4096), np.log(needed))))
        _resize(folder, f"size={shutil.disk_usage(folder).used + room}")
        status = run_step(folder, step, variables={"TMPDIR": str(folder / "tmp")})
        fault = find_half_output(project, folder, step)
        if status != 0:
            fault = fault or _bad_refusal(folder, status, ("room", "space", "disk"))
        outcome = "done in little room" if status == 0 else "refused in a sentence"
        _resize(folder, ANY_SIZE)
        return Attempt(
            f"`cxr {name}` on a disk that becomes full, then with room",
            number,
            outcome,
            fault or _fault_afterwards(project, folder, step),
        )


def _spoil_store(project: Path, kind: str, damage: Damage, generator: np.random.Generator, number: int) -> Attempt:
    """Register in a damaged store, then in the sound one."""
    step = STEPS["register"]
    with _copy(project, "register") as folder:
        store, files = folder / "mlflow.db", folder / "mlruns"
        sound, sound_files = folder.with_name("sound.db"), folder.with_name("mlruns")
        shutil.copyfile(store, sound)
        shutil.copytree(files, sound_files)
        damage(folder, generator)
        before = store.read_bytes()
        status = run_step(folder, step)
        fault, outcome = "", "refused in a sentence"
        if status == 0:
            outcome = "not noticed, or no harm"
        elif fault := _bad_refusal(folder, status, ("restore", "store")):
            pass
        elif before and store.read_bytes() != before and "emptied" in kind:
            fault = "the refused store was changed"
        for path in folder.glob("mlflow.db*"):
            path.unlink()
        shutil.rmtree(files, ignore_errors=True)
        shutil.rmtree(folder / "artifacts" / "registration", ignore_errors=True)
        shutil.copyfile(sound, store)
        shutil.copytree(sound_files, files)
        return Attempt(
            f"store {kind}, then restored", number, outcome, fault or _fault_afterwards(project, folder, step)
        )


def _protect_store(project: Path, number: int) -> Attempt:
    """Register in a store that cannot be written, then in the same one."""
    step = STEPS["register"]
    with _copy(project, "register") as folder:
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        try:
            status = run_step(folder, step)
        finally:
            subprocess.run(["umount", folder], check=True)
        fault = "the step succeeded" if status == 0 else _bad_refusal(folder, status, ("write", "written", "read-only"))
        kind = "project on a disk that cannot be written, then can be"
        return Attempt(kind, number, "refused in a sentence", fault or _fault_afterwards(project, folder, step))


def _occupy_store(project: Path, number: int) -> Attempt:
    """Register while another process writes to the store for some seconds."""
    step = STEPS["register"]
    with _copy(project, "register") as folder:
        connection = sqlite3.connect(folder / "mlflow.db", check_same_thread=False)
        connection.execute("BEGIN EXCLUSIVE")
        release = Thread(target=lambda: (time.sleep(15.0), connection.rollback()))
        release.start()
        status = run_step(folder, step)
        release.join()
        connection.close()
        fault = "" if status == 0 else _bad_refusal(folder, status, ("again", "locked"))
        outcome = "waited for the other" if status == 0 else "refused in a sentence"
        kind = "store occupied by another process for 15 s"
        return Attempt(kind, number, outcome, fault or _fault_afterwards(project, folder, step))


def _spoil_file(project: Path, name: str, read: str, generator: np.random.Generator, number: int) -> Attempt:
    """Change one byte of a file that a step reads, then change it back."""
    step = STEPS[name]
    with _copy(project, name) as folder:
        if name == "register":  # it reads no file of a version that it has registered before
            forget_store(folder)
        paths = sorted(path for path in (folder / read).rglob("*") if path.is_file() and path.stat().st_size)
        path = paths[int(generator.integers(len(paths)))]
        content = bytearray(path.read_bytes())
        content[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
        modified = path.stat()
        path.write_bytes(content)
        os.utime(path, ns=(modified.st_atime_ns, modified.st_mtime_ns))  # rot changes no time
        status = run_step(folder, step)
        if status == 0:
            outcome, fault = "no harm", _find_spread(project, folder, step, path)
        else:
            outcome, fault = "refused in a sentence", _bad_refusal(folder, status, (path.name, path.parent.name))
        shutil.copyfile(project / path.relative_to(folder), path)
        for output in step.outputs:
            shutil.rmtree(folder / output, ignore_errors=True)
        (folder / "rows").mkdir(exist_ok=True)
        kind = f"one byte changed in {read.split('/')[1]}, read by `cxr {name}`, then changed back"
        return Attempt(kind, number, outcome, fault or _fault_afterwards(project, folder, step))


def _find_spread(project: Path, folder: Path, step: SmallStep, changed: Path) -> str:
    """What a changed file has changed further: the step's result, or a copy of the file in the store."""
    if fault := find_difference(project, folder, step):
        return f"{changed.name} was changed, and the result is another: {fault}"
    content = changed.read_bytes()
    copies = [path for path in (folder / "mlruns").rglob(changed.name) if path.read_bytes() == content]
    return f"the changed {changed.name} was registered" if copies else ""


def _disturb_transfers(project: Path, generator: np.random.Generator, number: int) -> Attempt:
    """Predict images of an object store that refuses, cuts and damages its responses now and then."""
    variables = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_EC2_METADATA_DISABLED": "true"}
    server = S3Server()
    try:
        images = sorted((project / "data").rglob("*.jpeg"))
        for path in images:
            key = f"set/{path.relative_to(project / 'data').as_posix()}"
            server.put(key, path.read_bytes())
            kinds = generator.choice([DAMAGED, OVERLOADED, BROKEN, "none"], size=2, p=(0.2, 0.2, 0.1, 0.5))
            server.disturbances[key] = [str(disturbance) for disturbance in kinds]
        step = SmallStep(
            f"predict --model {TRAINED} --images s3://{server.bucket}/set --output rows/rows.csv "
            f"--endpoint_url {server.url}",
            ("rows",),
        )
        with _copy(project, "predict") as folder:
            status = run_step(folder, step, variables=variables)
            fault = f"exit status {status}: {log_end(folder)}" if status else ""
            expected = (project / "rows/rows.csv").read_text().splitlines()
            received = (folder / "rows/rows.csv").read_text().splitlines() if not status else []
            if not fault and len(received) != len(expected):
                fault = f"{len(received)} rows in place of {len(expected)}"
            if not fault and (failed := [row for row in received if "transfer" in row]):
                fault = f"rows without an answer: {failed[:3]}"
            kind = "object store that refuses, cuts and damages responses"
            return Attempt(kind, number, "every image has its answer", fault)
    finally:
        server.close()


def _fault_afterwards(project: Path, folder: Path, step: SmallStep) -> str:
    """What is wrong when the step runs again in the mended place."""
    status = run_step(folder, step)
    if status != 0:
        return f"exit status {status} in the mended place: {log_end(folder)}"
    return find_difference(project, folder, step)


def _bad_refusal(folder: Path, status: int | None, words: tuple[str, ...]) -> str:
    """What is wrong with the message of a refused step: a traceback, another status, or none of the words."""
    log = read_log(folder)
    if status not in {1, 2}:
        return f"exit status {status}: {log_end(folder)}"
    if "Traceback" in log:
        return f"a traceback: {log_end(folder)}"
    last = log.strip().rpartition("\n")[2]
    return "" if any(word in last for word in words) else f"the message does not say what happened: {last}"


def _empty(folder: Path, _generator: np.random.Generator) -> None:
    (folder / "mlflow.db").write_bytes(b"")


def _cut(folder: Path, generator: np.random.Generator) -> None:
    os.truncate(folder / "mlflow.db", int(generator.integers(1, (folder / "mlflow.db").stat().st_size)))


def _overwrite(folder: Path, generator: np.random.Generator) -> None:
    """Fill a few blocks of a disk with something else."""
    with (folder / "mlflow.db").open("r+b") as file:
        for _ in range(8):
            file.seek(4096 * int(generator.integers((folder / "mlflow.db").stat().st_size // 4096)))
            file.write(generator.bytes(4096))


def _replace(folder: Path, _generator: np.random.Generator) -> None:
    """Put a database of another program in its place."""
    (folder / "mlflow.db").unlink()
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("CREATE TABLE patients (name TEXT)")
        database.execute("INSERT INTO patients VALUES ('nobody')")


def _lose_files(folder: Path, _generator: np.random.Generator) -> None:
    shutil.rmtree(folder / "mlruns")


STORE_FAULTS: dict[str, Damage] = {
    "emptied": _empty,
    "cut off": _cut,
    "with blocks of other content": _overwrite,
    "replaced by another database": _replace,
    "without its files": _lose_files,
}
READ_FOLDERS = (
    ("train", PREPARED),
    ("evaluate", TRAINED),
    ("predict", TRAINED),
    ("register", TRAINED),
    ("register", EVALUATION),
    ("register", REFERENCE),
)
"""A step, and the folder of an earlier step in which a byte is changed."""


@contextmanager
def _copy(project: Path, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "project")
        copy_before(project, folder, name)
        yield folder


@contextmanager
def _small_disk() -> Iterator[Path]:
    """A folder on a disk of its own, in memory."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "project")
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", ANY_SIZE, "tmpfs", folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def _resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{size}", disk], check=True)


if __name__ == "__main__":
    PROJECT, SEED, ROUNDS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for entry in disturb(PROJECT, SEED, ROUNDS):
        entry.print()
