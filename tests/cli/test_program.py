"""How `cxr` runs and ends as a process: as others of Python, with fewer full searches for garbage, and without freeing
memory at the end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cxr.cli.main import FULL_SEARCH_EVERY

USUAL, PROGRAM = "sys.exit(main.main())", "main.run_program()"
START = "import atexit, logging, os, signal, sys, tempfile, threading, time\nfrom cxr.cli import main\n"
ENDS = {
    "output, threads and functions of atexit": """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(1)
def finish():
    threading.main_thread().join(0.2)
    print("finished")
def step():
    print("result")
    pool.submit(print, "submitted").result()
    atexit.register(print, "at exit")
    threading.Thread(target=finish).start()
    threading.Thread(target=time.sleep, args=[600], daemon=True).start()
    return 3
""",
    "an error in a function of atexit": """
def step():
    atexit.register(print, "at exit")
    atexit.register(int, "x")
    return 4
""",
    "a temporary folder": """
def step():
    global folder
    atexit.register(lambda: print(os.path.exists(folder.name)))  # runs after what is registered later
    folder = tempfile.TemporaryDirectory()
    print(os.path.exists(folder.name))
    return 0
""",
    "logs that are kept until the end": """
from logging.handlers import MemoryHandler
def step():
    log = logging.getLogger("kept")
    log.addHandler(MemoryHandler(100, flushLevel=99, target=logging.StreamHandler(sys.stdout)))
    log.warning("message")
    return 0
""",
    "an exit with a text": "def step():\n    print('result')\n    sys.exit('text')\n",
    "an exception": "def step():\n    print('result')\n    raise ValueError('text')\n",
    "a signal": """
def step():
    signal.signal(signal.SIGTERM, main._exit_on_signal)
    print("result")
    os.kill(os.getpid(), signal.SIGTERM)
""",
    "a signal that Python does not handle": "def step():\n    os.kill(os.getpid(), signal.SIGTERM)\n",
    "an interruption": "def step():\n    raise KeyboardInterrupt\n",
    "a closed output": "def step():\n    sys.stdout.close()\n    return 5\n",
    "no output": "def step():\n    sys.stdout = sys.stderr = None\n    return 6\n",
    "a reader who has left": """
def step():
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.close(reading)
    print("result")
    return 0
""",
}  # fmt: skip


def run(step: str, end: str) -> subprocess.CompletedProcess[str]:
    code = f"{START}{step}main.main = step\n{end}\n"
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ENDS)
def test_status_and_output_are_those_of_the_usual_end(name: str) -> None:
    usual, program = (run(ENDS[name], end) for end in (USUAL, PROGRAM))
    assert (program.returncode, program.stdout) == (usual.returncode, usual.stdout)
    assert program.stderr.splitlines()[-1:] == usual.stderr.splitlines()[-1:]


def test_memory_is_not_freed_at_the_end() -> None:
    step = """
class Object:
    def __del__(self):
        os.write(1, b"freed")
made = Object()
def step():
    return 0
"""
    assert (run(step, USUAL).stdout, run(step, PROGRAM).stdout) == ("freed", "")


def test_all_objects_are_searched_for_garbage_less_often() -> None:
    step = "def step():\n    import gc\n    print(*gc.get_threshold())\n    return 0\n"
    usual, program = (run(step, end).stdout.split() for end in (USUAL, PROGRAM))
    assert program == [*usual[:2], str(FULL_SEARCH_EVERY)]
    assert int(usual[2]) < FULL_SEARCH_EVERY
