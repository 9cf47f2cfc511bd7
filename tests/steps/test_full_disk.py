"""A full disk or a read-only one: one sentence with the place, and no half output; on a real, small disk."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from support import bad_images

PROGRAM = [sys.executable, "-m", "cxr.cli.main"]
MOUNT = 'mount -t tmpfs -o size="$1" tmpfs disk && shift && { "$@"; status=$?; ls -A disk >left; exit $status; }'
IN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh"]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    monkeypatch.chdir(tmp_path)


def run_on_disk(size: str, arguments: Sequence[object]) -> tuple[int, str, list[str]]:
    """Run a step that can write to ``disk``: its exit status, its messages, and what it leaves there."""
    probe = subprocess.run([*IN_NAMESPACE, "1m", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("this machine does not let the test mount a disk")
    process = subprocess.run([*IN_NAMESPACE, size, *PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    return process.returncode, process.stderr, Path("left").read_text().split()


def run_with_limit(kilobytes: int, arguments: Sequence[object]) -> tuple[int, str]:
    """Run a step of which no file can become larger."""
    limited = ["bash", "-c", 'ulimit -f "$0" && exec "$@"', str(kilobytes), *PROGRAM, *map(str, arguments)]
    process = subprocess.run(limited, capture_output=True, text=True)
    return process.returncode, process.stderr


def write_images(folder: Path, count: int) -> None:
    for number in range(count):
        label = ("NORMAL", "PNEUMONIA")[number % 2]
        (folder / label).mkdir(parents=True, exist_ok=True)
        bad_images.sound(folder / label / f"{number}.jpeg", number)


def test_fetch_tells_the_room_that_it_needs_before_it_copies() -> None:
    write_images(Path("set"), 4)
    for number, path in enumerate(Path("set").rglob("*.jpeg")):
        path.write_bytes(np.random.default_rng(number).bytes(200_000))
    status, message, left = run_on_disk("400k", ["fetch", "--source", "set", "--data", "disk/data"])
    assert (status, left) == (1, [])
    assert "cxr fetch: expected 0.8 MB of free disk space for the images of set, received free=0.4 MB" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("source", [["set"], ["phantom", "--phantom_images", "100"]])
def test_a_disk_that_becomes_full_while_images_are_written_is_named(source: list[str]) -> None:
    write_images(Path("set"), 100)
    for path in Path("set").rglob("*.jpeg"):
        path.write_bytes(b"x")  # a file of one byte takes a whole block: more than the sum of the sizes
    status, message, left = run_on_disk("200k", ["fetch", "--source", *source, "--data", "disk/data"])
    assert (status, left) == (1, [])
    assert "cxr fetch: expected room on the disk to write" in message and "disk/data or artifacts/downloads" in message
    assert "No space left on device" in message and "make room" in message
    assert "Traceback" not in message


def write_manifest(data: Path) -> None:
    """Accept all images of a folder."""
    contents = {path.relative_to(data).as_posix(): path.read_bytes() for path in sorted(data.rglob("*.jpeg"))}
    digests = [hashlib.sha256(content).hexdigest() for content in contents.values()]
    height, width = bad_images.draw_image().shape
    table = pd.DataFrame({"path": list(contents), "sha256": digests, "width": width, "height": height})
    Path("manifest").mkdir()
    table.assign(status="accepted").to_parquet("manifest/manifest.parquet")


def test_preprocess_tells_the_room_that_it_needs() -> None:
    write_images(Path("data"), 40)
    write_manifest(Path("data"))
    arguments = ["preprocess", "--manifest", "manifest", "--recipe", "s1_resize", "--size", "256", "--prepared"]
    status, message, left = run_on_disk("500k", [*arguments, "disk/prepared"])
    assert (status, left) == (1, [])
    assert "MB of free disk space for 40 images prepared with s1_resize, received free=0.5 MB" in message
    status, message = run_with_limit(500, [*arguments, "prepared"])
    assert status == 1
    written = "artifacts/cache or artifacts/image_cache or prepared"
    assert f"expected room on the disk to write {written}, received File too large" in message
    assert "Traceback" not in message
    assert not list(Path().glob("*prepared*")) and not list(Path().glob(".prepared*"))


def test_an_output_on_a_disk_that_is_mounted_for_reading_only_is_named() -> None:
    write_images(Path("set"), 2)
    status, message, left = run_on_disk("1m,ro", ["fetch", "--source", "set", "--data", "disk/data"])
    assert (status, left) == (2, [])
    assert message.startswith("cxr fetch: expected permission to read or write ")
    assert "/disk/.data.partial-" in message and "received Read-only file system; change" in message
    assert "Traceback" not in message
