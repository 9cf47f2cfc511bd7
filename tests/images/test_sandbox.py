"""Reading in processes that can do nothing else: the same pictures, and no harm from any file."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cxr.errors import ImageError
from cxr.images.decoding import decode_picture
from cxr.images.sandbox import LimitedReader
from support import bad_images
from support.dicom_files import COMPRESSED, SECRET, dicom_file, ready_file, twelve_bits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

FILM = bad_images.jpeg(bad_images.picture())


@pytest.fixture(scope="module")
def shared() -> Iterator[LimitedReader]:
    """One process, for tests that leave it as it was."""
    with LimitedReader(seconds=60, max_pixels=1_000_000, max_bytes=2_000_000) as reader:
        reader.read(FILM)
        yield reader


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Iterator[LimitedReader]:
    """One process, in a reader whose processes are to end."""
    monkeypatch.setenv("CXR_TEST_PASSWORD", SECRET)
    before = children()
    with LimitedReader(seconds=60) as reader:
        assert len(children() - before) == 1
        reader.read(FILM)
        yield reader
    assert children() == before


def children() -> set[int]:
    """Process ids of decoding processes of this process."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"cxr.images.sandbox_process" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


def own_child(reader: LimitedReader) -> int:
    """The process id of a reader's one process, which is idle."""
    return int(reader._idle.queue[0]._child.pid)


def error_of(reader: LimitedReader, content: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        reader.read(content)
    return caught.value


def test_pictures_are_the_same_as_in_the_own_process(shared: LimitedReader) -> None:
    coloured = np.dstack([bad_images.picture(seed) for seed in range(3)])
    stored = twelve_bits()
    for content in (
        FILM,
        bad_images.png(bad_images.picture(3)),
        bad_images.jpeg(coloured),
        dicom_file(stored, BitsStored=12, WindowCenter=2000, WindowWidth=2000),
    ):
        expected, picture = decode_picture(content), shared.read(content)
        np.testing.assert_array_equal(picture.grey, expected.grey)
        assert picture.coloured == expected.coloured
    assert shared.read(bad_images.jpeg(coloured)).coloured > 0.3


@pytest.mark.parametrize("kind", ["empty", "truncated", "overwritten", "text", "animated_gif", "cmyk", "bomb"])
def test_problems_come_back_with_their_details(shared: LimitedReader, kind: str, tmp_path: Path) -> None:
    problem, write = bad_images.BAD[kind]
    write(tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    with pytest.raises(ImageError) as caught:
        decode_picture(content, max_pixels=1_000_000)
    error = error_of(shared, content)
    assert (error.problem, error.detail) == (problem, caught.value.detail)


def test_compressed_dicom_is_decoded_without_opening_a_file(shared: LimitedReader) -> None:
    for name in COMPRESSED:
        content = ready_file(name)
        np.testing.assert_array_equal(shared.read(content).grey, decode_picture(content).grey)


def test_a_refused_dicom_file_says_nothing_of_its_patient(shared: LimitedReader) -> None:
    error = error_of(shared, dicom_file(twelve_bits(), Modality=SECRET.upper()))
    assert error.problem == "modality"
    assert SECRET.lower() not in str(error).lower()


def test_many_bytes_are_refused_before_they_are_sent(shared: LimitedReader) -> None:
    child = own_child(shared)
    os.kill(child, signal.SIGSTOP)
    try:
        assert error_of(shared, bytes(2_000_001)).problem == "too_large"
    finally:
        os.kill(child, signal.SIGCONT)
    assert shared.read(FILM).grey.shape == (160, 200)


def test_a_process_has_no_environment_no_files_and_one_thread(mortal: LimitedReader) -> None:
    folder = Path(f"/proc/{own_child(mortal)}")
    names = {entry.partition(b"=")[0] for entry in (folder / "environ").read_bytes().split(b"\0") if entry}
    assert names <= {b"LD_LIBRARY_PATH", b"OPENBLAS_NUM_THREADS", b"OMP_NUM_THREADS"}
    assert len(list((folder / "fd").iterdir())) == 4
    assert [task.name for task in (folder / "task").iterdir()] == [folder.name]
    status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


def test_a_process_that_does_not_answer_is_replaced() -> None:
    with LimitedReader(seconds=3) as reader:
        assert reader.read(FILM).grey.shape == (160, 200)
        child = own_child(reader)
        os.kill(child, signal.SIGSTOP)
        started = time.monotonic()
        assert error_of(reader, bytes(1_000_000)).problem == "too_slow"
        assert 3 <= time.monotonic() - started < 20
        other = bad_images.jpeg(bad_images.picture(7))
        np.testing.assert_array_equal(reader.read(other).grey, decode_picture(other).grey)
        assert own_child(reader) != child


def test_a_killed_process_costs_no_answer(mortal: LimitedReader) -> None:
    opened = len(list(Path("/proc/self/fd").iterdir()))
    os.kill(own_child(mortal), signal.SIGKILL)
    np.testing.assert_array_equal(mortal.read(FILM).grey, decode_picture(FILM).grey)
    child = own_child(mortal)
    os.kill(child, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(mortal.read, FILM)
        time.sleep(0.2)
        os.kill(child, signal.SIGKILL)
        np.testing.assert_array_equal(waiting.result().grey, decode_picture(FILM).grey)
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_a_file_on_which_processes_end_again_and_again_is_refused(mortal: LimitedReader) -> None:
    child = own_child(mortal)
    others, over = children() - {child}, threading.Event()

    def kill_all() -> None:
        while not over.is_set():
            for one in children() - others:
                with contextlib.suppress(ProcessLookupError):  # the reader may have ended it just before
                    os.kill(one, signal.SIGKILL)

    os.kill(child, signal.SIGSTOP)
    killing = threading.Thread(target=kill_all)
    killing.start()
    try:
        assert error_of(mortal, FILM).problem == "corrupt"
    finally:
        over.set()
        killing.join()
    assert mortal.read(FILM).grey.shape == (160, 200)


def test_memory_is_bounded() -> None:
    large = bad_images.png(np.zeros((7000, 7000), dtype=np.uint8))
    with LimitedReader(seconds=60, memory_bytes=32 << 20) as reader:
        assert error_of(reader, large).problem == "too_large"
        assert reader.read(FILM).grey.shape == (160, 200)


def test_threads_share_processes_and_each_gets_its_own_picture() -> None:
    contents = [bad_images.jpeg(bad_images.picture(seed)) for seed in range(12)]
    before = children()
    with LimitedReader(processes=2, seconds=60) as reader, ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(reader.read, contents))
        assert len(children() - before) == 2
    for content, picture in zip(contents, pictures, strict=True):
        np.testing.assert_array_equal(picture.grey, decode_picture(content).grey)
    reader.close()
    assert children() == before
    with pytest.raises(ValueError, match="closed"):
        reader.read(FILM)


def test_a_process_ends_with_the_one_that_started_it() -> None:
    code = (
        "import os, sys; from cxr.images.sandbox import LimitedReader; reader = LimitedReader();"
        "print(reader._idle.queue[0]._child.pid, flush=True); os._exit(0)"
    )
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and Path(f"/proc/{child}/cmdline").exists():
        if not Path(f"/proc/{child}/cmdline").read_bytes():
            break  # ended, and not yet taken note of
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}").exists()


FORBIDDEN = {
    "read a file": "open('/etc/hostname')",
    "write a file": "open('written', 'w').write('x')",
    "append to an open file": "os.write(spare, b'x')",
    "reuse a number": "os.close(spare); open('/etc/hostname')",
    "connect": "socket.socket()",
    "fork": "os.fork()",
    "run a program": "os.execv('/bin/true', ['true'])",
    "start a thread": "threading.Thread(target=print).start()",
    "kill": "os.kill(os.getppid(), 0)",
    "remove": "os.unlink('spare')",
    "take memory": "bytearray(200_000_000)",
}


def test_a_confined_process_can_do_nothing_but_compute(tmp_path: Path) -> None:
    code = f"""
import os, socket, sys, threading
from cxr.images.sandbox_rights import confine
spare = os.open("spare", os.O_CREAT | os.O_WRONLY)
done = confine(100 << 20, spare + 1)
sys.stdout.write(" ".join(sorted(done)) + "\\n")
for name, code in {FORBIDDEN!r}.items():
    try:
        exec(code)
    except (OSError, MemoryError, RuntimeError) as error:
        continue
    sys.stdout.write("could " + name + "\\n")
sys.stdout.write(str(len(bytearray(1_000_000))) + "\\n")
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert answer.stdout.splitlines() == ["calls files memory privileges processes", "1000000"]
    assert (tmp_path / "spare").read_bytes() == b""
    assert [path.name for path in tmp_path.iterdir()] == ["spare"]
