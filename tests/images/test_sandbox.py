"""The sandbox: it decodes the same images, and no file does any harm."""

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
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr.errors import ImageError
from cxr.images.decoding import decode_image
from cxr.images.dicom.source_image import SourceImage, describe_source_image
from cxr.images.reading_options import STRICT, ReadingOptions
from cxr.images.sandbox import MEMORY_BYTES, SandboxedDecoder
from cxr.images.sandbox_process import OPEN_FILES
from support import bad_images
from support.dicom_files import COMPRESSED, SECRET, dicom_file, draw_12_bits, pydicom_file
from support.dicom_reports import radiograph

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

RADIOGRAPH = bad_images.jpeg(bad_images.draw_image())


def start_decoder(
    *,
    processes: int = 1,
    seconds: float = 60.0,
    memory_bytes: int = MEMORY_BYTES,
    max_bytes: int = 64 << 20,
    options: ReadingOptions = STRICT,
) -> SandboxedDecoder:
    return SandboxedDecoder(
        processes=processes, seconds=seconds, memory_bytes=memory_bytes, max_bytes=max_bytes, options=options
    )


@pytest.fixture(scope="module")
def shared() -> Iterator[SandboxedDecoder]:
    """One process, for tests that do not end it."""
    with start_decoder(options=replace(STRICT, max_pixels=1_000_000), max_bytes=2_000_000) as decoder:
        decoder.decode(RADIOGRAPH)
        yield decoder


@pytest.fixture
def disposable(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxedDecoder]:
    """One process, for tests that end it."""
    monkeypatch.setenv("CXR_TEST_PASSWORD", SECRET)
    earlier = decoding_processes()
    with start_decoder() as decoder:
        decoder.decode(RADIOGRAPH)  # before that, /proc may not show the command line of the new process yet
        assert len(decoding_processes() - earlier) == 1
        yield decoder
    assert decoding_processes() == earlier


def decoding_processes() -> set[int]:
    """Return the ids of the decoding processes that this process started."""
    process_ids = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"cxr.images.sandbox_process" in (folder / "cmdline").read_bytes():
                process_ids.add(int(folder.name))
    return process_ids


def process_id(decoder: SandboxedDecoder) -> int:
    """Return the process id of a decoder's only process, which is idle."""
    return int(decoder._idle.queue[0].process_id)


def error_of(decoder: SandboxedDecoder, content: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decoder.decode(content)
    return caught.value


def test_images_are_the_same_as_in_this_process(shared: SandboxedDecoder) -> None:
    coloured = np.dstack([bad_images.draw_image(seed) for seed in range(3)])
    stored = draw_12_bits()
    for content in (
        RADIOGRAPH,
        bad_images.png(bad_images.draw_image(3)),
        bad_images.jpeg(coloured),
        dicom_file(stored, BitsStored=12, WindowCenter=2000, WindowWidth=2000),
    ):
        expected, image = decode_image(content), shared.decode(content)
        np.testing.assert_array_equal(image.grey, expected.grey)
        assert image.coloured_share == expected.coloured_share
    assert shared.decode(bad_images.jpeg(coloured)).coloured_share > 0.3


@pytest.mark.parametrize("kind", ["empty", "truncated", "overwritten", "text", "animated_gif", "cmyk", "bomb"])
def test_problems_come_back_with_their_details(shared: SandboxedDecoder, kind: str, tmp_path: Path) -> None:
    problem, write = bad_images.BAD[kind]
    write(tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    with pytest.raises(ImageError) as caught:
        decode_image(content, replace(STRICT, max_pixels=1_000_000))
    error = error_of(shared, content)
    assert (error.problem, error.detail) == (problem, caught.value.detail)


def test_compressed_dicom_is_decoded_without_opening_a_file(shared: SandboxedDecoder) -> None:
    for name in COMPRESSED:
        content = pydicom_file(name)
        np.testing.assert_array_equal(shared.decode(content).grey, decode_image(content).grey)


def test_a_refused_dicom_file_says_nothing_of_its_patient(shared: SandboxedDecoder) -> None:
    error = error_of(shared, dicom_file(draw_12_bits(), Modality=SECRET.upper()))
    assert error.problem == "modality"
    assert SECRET.lower() not in str(error).lower()


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_source_is_described_without_opening_a_file(shared: SandboxedDecoder) -> None:
    names = {
        "ISO_IR 192": "山田^太郎", "ISO_IR 100": "Müller^Jürgen", "GB18030": "王^小东", "ISO_IR 13": "ﾔﾏﾀﾞ^ﾀﾛｳ",
        "\\ISO 2022 IR 87": "Yamada=山田^太郎", "\\ISO 2022 IR 149": "Hong=洪^吉洞",
    }  # fmt: skip
    for character_set, name in names.items():
        content = radiograph(draw_12_bits(), SpecificCharacterSet=character_set.split("\\"), PatientName=name)
        described = shared.describe(content)
        assert described == describe_source_image(content, STRICT) and described.patient_name == name
        assert described.patient_birth_date == "19610203" and described.study_time == "070809"
    for content, problem in (
        (b"text", "not_an_image"),
        (radiograph(draw_12_bits(), StudyInstanceUID=None), "unidentified"),
    ):
        with pytest.raises(ImageError) as caught:
            shared.describe(content)
        assert caught.value.problem == problem
    assert shared.decode(RADIOGRAPH).grey.shape == (160, 200)


def test_a_description_of_a_process_that_was_taken_over_is_checked() -> None:
    values = describe_source_image(radiograph(draw_12_bits()), STRICT).to_values()
    assert SourceImage.from_values(values).to_values() == values
    changes: list[dict[str, object]] = [
        {"study_instance_uid": "1.2\n"}, {"sop_instance_uid": None}, {"rows": 0}, {"rows": True}, {"columns": 70000},
        {"patient_name": "a\\b"}, {"patient_id": "7" * 65}, {"patient_sex": "X"}, {"study_date": 20240101},
        {"more": ""},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(ValueError, match="expected"):
            SourceImage.from_values({**values, **change})


def test_many_bytes_are_refused_before_they_are_sent(shared: SandboxedDecoder) -> None:
    process = process_id(shared)
    os.kill(process, signal.SIGSTOP)
    try:
        assert error_of(shared, bytes(2_000_001)).problem == "too_large"
    finally:
        os.kill(process, signal.SIGCONT)
    assert shared.decode(RADIOGRAPH).grey.shape == (160, 200)


def test_a_process_has_no_environment_no_files_and_one_thread(disposable: SandboxedDecoder) -> None:
    folder = Path(f"/proc/{process_id(disposable)}")
    names = {entry.partition(b"=")[0] for entry in (folder / "environ").read_bytes().split(b"\0") if entry}
    assert names <= {b"LD_LIBRARY_PATH", b"OPENBLAS_NUM_THREADS", b"OMP_NUM_THREADS"}
    assert len(list((folder / "fd").iterdir())) == OPEN_FILES
    assert [task.name for task in (folder / "task").iterdir()] == [folder.name]
    status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


def test_a_process_that_does_not_respond_is_replaced() -> None:
    with start_decoder(seconds=3.0) as decoder:
        assert decoder.decode(RADIOGRAPH).grey.shape == (160, 200)
        process = process_id(decoder)
        os.kill(process, signal.SIGSTOP)
        started = time.monotonic()
        assert error_of(decoder, bytes(1_000_000)).problem == "too_slow"
        assert 3 <= time.monotonic() - started < 20
        next_image = bad_images.jpeg(bad_images.draw_image(7))
        np.testing.assert_array_equal(decoder.decode(next_image).grey, decode_image(next_image).grey)
        assert process_id(decoder) != process


def test_a_killed_process_does_not_lose_the_image(disposable: SandboxedDecoder) -> None:
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    os.kill(process_id(disposable), signal.SIGKILL)
    np.testing.assert_array_equal(disposable.decode(RADIOGRAPH).grey, decode_image(RADIOGRAPH).grey)
    process = process_id(disposable)
    os.kill(process, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(disposable.decode, RADIOGRAPH)
        time.sleep(0.2)
        os.kill(process, signal.SIGKILL)
        np.testing.assert_array_equal(future.result().grey, decode_image(RADIOGRAPH).grey)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


def test_a_file_on_which_every_process_ends_is_refused(disposable: SandboxedDecoder) -> None:
    process = process_id(disposable)
    unrelated, finished = decoding_processes() - {process}, threading.Event()

    def kill_all() -> None:
        while not finished.is_set():
            for new_process in decoding_processes() - unrelated:
                with contextlib.suppress(ProcessLookupError):  # the decoder may have ended it just before
                    os.kill(new_process, signal.SIGKILL)

    os.kill(process, signal.SIGSTOP)
    killing = threading.Thread(target=kill_all)
    killing.start()
    try:
        assert error_of(disposable, RADIOGRAPH).problem == "corrupt"
    finally:
        finished.set()
        killing.join()
    assert disposable.decode(RADIOGRAPH).grey.shape == (160, 200)


def test_memory_is_bounded() -> None:
    large = np.zeros((7000, 7000), dtype=np.uint8)
    progressive = bad_images.jpeg(large[:5000, :5000], cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    with start_decoder(memory_bytes=32 << 20) as decoder:
        for content in (bad_images.png(large), bad_images.jpeg(large), progressive):
            assert error_of(decoder, content).problem == "too_large"
        assert decoder.decode(RADIOGRAPH).grey.shape == (160, 200)


def test_threads_share_processes_and_each_gets_its_own_image() -> None:
    contents = [bad_images.jpeg(bad_images.draw_image(seed)) for seed in range(12)]
    earlier = decoding_processes()
    with start_decoder(processes=2) as decoder, ThreadPoolExecutor(4) as pool:
        images = list(pool.map(decoder.decode, contents))
        assert len(decoding_processes() - earlier) == 2
    for content, image in zip(contents, images, strict=True):
        np.testing.assert_array_equal(image.grey, decode_image(content).grey)
    decoder.close()
    assert decoding_processes() == earlier
    with pytest.raises(ValueError, match="closed"):
        decoder.decode(RADIOGRAPH)


def test_a_process_ends_with_the_one_that_started_it() -> None:
    code = (
        "import os, sys; from cxr.images.reading_options import STRICT;"
        "from cxr.images.sandbox import SandboxedDecoder; decoder ="
        " SandboxedDecoder(processes=1, seconds=60, max_bytes=1 << 20, options=STRICT);"
        "print(decoder._idle.queue[0].process_id, flush=True); os._exit(0)"
    )
    process = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and Path(f"/proc/{process}/cmdline").exists():
        if not Path(f"/proc/{process}/cmdline").read_bytes():
            break  # it has ended, but was not reaped yet
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{process}").exists()


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


def test_a_process_without_rights_can_only_compute(tmp_path: Path) -> None:
    code = f"""
import os, socket, sys, threading
from cxr.images.sandbox_rights import drop_rights
spare = os.open("spare", os.O_CREAT | os.O_WRONLY)
dropped = drop_rights(100 << 20, spare + 1)
sys.stdout.write(" ".join(sorted(dropped)) + "\\n")
for name, code in {FORBIDDEN!r}.items():
    try:
        exec(code)
    except (OSError, MemoryError, RuntimeError) as error:
        continue
    sys.stdout.write("could " + name + "\\n")
sys.stdout.write(str(len(bytearray(1_000_000))) + "\\n")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.splitlines() == ["calls files memory privileges processes", "1000000"]
    assert (tmp_path / "spare").read_bytes() == b""
    assert [path.name for path in tmp_path.iterdir()] == ["spare"]


def test_options_reach_the_process_and_warnings_come_back() -> None:
    deep = bad_images.png(np.array([[1000, 2000], [3000, 4000]], dtype=np.uint16))
    unnamed = dicom_file(bad_images.draw_image(), Modality="DR")
    with start_decoder(options=ReadingOptions(1_000_000, True, frozenset({"DR"}))) as decoder:
        for content in (deep, unnamed):
            expected, image = decode_image(content, ReadingOptions(1_000_000, True, None)), decoder.decode(content)
            np.testing.assert_array_equal(image.grey, expected.grey)
            assert image.warnings == expected.warnings and len(image.warnings) == 1
    with start_decoder(options=ReadingOptions(1_000_000, False, frozenset())) as decoder:
        assert [error_of(decoder, content).problem for content in (deep, unnamed)] == ["depth_16", "modality"]
