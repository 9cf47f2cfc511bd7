"""Steps that run as forks: they end, fail and die as processes of their own would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cxr.cli.fork_server import may_fork
from support.forked_processes import write_command

SLEEP = """
import os, signal, sys, time
def stop(number, _):
    print("stopped", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
print(os.getpid(), os.getcwd(), sys.argv[1], os.environ["ONLY_HERE"], flush=True)
time.sleep(200)
"""
"""Says who and where it is, and waits."""


@pytest.fixture
def start(tmp_path: Path) -> Callable[[], tuple[subprocess.Popen[str], list[str]]]:
    """Start a program that is a fork, and read its first line."""
    write_command(tmp_path / "program", SLEEP)

    def start() -> tuple[subprocess.Popen[str], list[str]]:
        process = subprocess.Popen(
            [tmp_path / "program", "argument"], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"ONLY_HERE": "yes"},
        )  # fmt: skip
        assert process.stdout is not None
        return process, process.stdout.readline().split()

    return start


def is_alive(process: int, seconds: float = 20) -> bool:
    """Whether a process is still there after some seconds, unless it ends before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.02)
    return True


def test_a_fork_has_folder_arguments_and_environment_of_the_one_that_asked(start, tmp_path) -> None:
    process, (fork, folder, argument, variable) = start()
    assert int(fork) != process.pid
    assert (folder, argument, variable) == (str(tmp_path), "argument", "yes")
    process.kill()
    process.wait()


def test_a_request_to_end_reaches_the_fork_and_its_exit_status_comes_back(start) -> None:
    process, _ = start()
    process.terminate()
    assert process.communicate(timeout=60)[0] == "stopped\n"
    assert process.returncode == 7


def test_a_fork_does_not_outlive_the_process_that_asked(start) -> None:
    """DVC runs a killed stage again, and two trainings must not write the same checkpoints."""
    process, (fork, *_) = start()
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert not is_alive(int(fork))


def test_a_process_whose_fork_is_killed_ends_by_the_same_signal(start) -> None:
    process, (fork, *_) = start()
    os.kill(int(fork), signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL


def run_below(script: str, tmp_path: Path, **variables: str) -> subprocess.Popen[str]:
    """Run a script of the shell as `make run` runs DVC."""
    (tmp_path / "cxr").write_text(f'#!/bin/sh\nexec {sys.executable} -m cxr.cli.main "$@"\n')
    (tmp_path / "cxr").chmod(0o755)
    return subprocess.Popen(
        [sys.executable, "-m", "cxr.cli.fork_server", "sh", "-c", script], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"} | variables,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore Ctrl-C
    )  # fmt: skip


def forks_of(process: int) -> list[Path]:
    """Folders in /proc of the processes that are forks of a process, or forks of these: they have its command."""
    command = Path(f"/proc/{process}/cmdline").read_bytes()
    forks = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another process has ended meanwhile
            if (folder / "cmdline").read_bytes() == command and folder.name != str(process):
                forks.append(folder)
    return forks


@pytest.mark.skipif(not may_fork(), reason="here no step is a fork")
def test_a_step_below_the_command_is_a_fork_that_has_keras_and_a_mistake_has_its_status(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "params.yaml")
    process = run_below('echo "$CXR_FORKS"; cxr train --params params.yaml; echo $?; exit 9', tmp_path)
    with (tmp_path / "params.yaml").open("w") as parameters:  # waits until the step reads them
        step = forks_of(process.pid)
        assert len(step) == 2, "one that runs the step, and one that waits for its end"
        assert all("libtensorflow" in (folder / "maps").read_text() for folder in step)
        parameters.write("train: {batch_size: many}\n")
    output, errors = process.communicate(timeout=60)
    socket, status = output.split()
    assert (status, process.returncode) == ("2", 9), errors
    assert "batch_size" in errors and "'many'" in errors
    assert not Path(socket).parent.exists()


@pytest.mark.skipif(not may_fork(), reason="here no step is a fork")
def test_ctrl_c_interrupts_the_step_and_the_command_goes_on(tmp_path: Path) -> None:
    """A terminal sends it to all processes; DVC ignores it and looks at the status of the step, as this script does."""
    os.mkfifo(tmp_path / "params.yaml")
    process = run_below("trap : INT; cxr train --params params.yaml; echo $?", tmp_path)
    with (tmp_path / "params.yaml").open("w"):
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (output, process.returncode) == ("130\n", 0)
    assert errors == "cxr train: interrupted; partial outputs were removed\n"


@pytest.mark.exhaustive  # above, a killed fork ends; below, a killed command without a step
@pytest.mark.skipif(not may_fork(), reason="here no step is a fork")
def test_a_command_that_is_killed_is_over_though_its_step_still_runs(tmp_path: Path) -> None:
    """As without forks: a killed DVC leaves its step, and who started DVC goes on."""
    os.mkfifo(tmp_path / "params.yaml")
    (tmp_path / "dvc.py").write_text("""
import os, subprocess
step = subprocess.Popen(["cxr", "train", "--params", "params.yaml"])
print(os.getpid(), step.pid, flush=True)
step.wait()
""")
    process = run_below(f"exec {sys.executable} dvc.py", tmp_path)
    assert process.stdout is not None
    dvc, step = map(int, process.stdout.readline().split())
    with (tmp_path / "params.yaml").open("w"):
        os.kill(dvc, signal.SIGKILL)
        assert process.wait(20) == 128 + signal.SIGKILL
        os.kill(step, signal.SIGKILL)


def test_a_command_without_such_a_step_imports_nothing(tmp_path: Path) -> None:
    process = run_below("grep -c libtensorflow /proc/$PPID/maps; kill -TERM $$", tmp_path)
    assert process.communicate(timeout=60)[0] == "0\n"
    assert process.returncode == 128 + signal.SIGTERM


def test_with_another_backend_the_command_runs_alone(tmp_path: Path) -> None:
    process = run_below('echo "forks: $CXR_FORKS"; kill -TERM $$', tmp_path, KERAS_BACKEND="jax")
    assert process.communicate(timeout=60)[0] == "forks: \n"
    assert process.returncode == -signal.SIGTERM


def test_a_step_runs_by_itself_where_nobody_forks(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "cxr.cli.main", "train", "--params", "missing.yaml"]
    environment = os.environ | {"CXR_FORKS": str(tmp_path / "gone")}
    answer = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 2 and "missing.yaml" in answer.stderr
