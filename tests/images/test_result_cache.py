"""Results of single images are kept between runs: only new content is worked on, and nothing wrong is ever given."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cxr.data.image_folder import ImageFolder
from cxr.errors import ImageError
from cxr.images.result_cache import KeptResults, ResultCache

MODULE = "cxr.images.recipes"


@pytest.fixture(autouse=True)
def files_settle_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the times of files that were written just now; the tests wait between two changes of one file."""
    monkeypatch.setattr("cxr.data.image_folder._SETTLED_NANOSECONDS", 0)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Ten files of different content."""
    folder = tmp_path / "data"
    folder.mkdir()
    paths = [folder / f"{number}.bin" for number in range(10)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * (100 + number))
    return paths


class NotedFolder(ImageFolder):
    """A folder that notes which files are read."""

    def __init__(self, folder: Path, names_read: list[str]) -> None:
        super().__init__(folder)
        self._names_read = names_read

    def read(self, name: str, *, max_bytes: int | None = None) -> bytes:
        self._names_read.append(name)
        return super().read(name, max_bytes=max_bytes)


class Counted:
    """Reverses files, and counts which ones were read and worked on."""

    def __init__(
        self,
        cache: Path | None,
        *,
        version: str = "1",
        key: str = "",
        max_bytes: int = 10**9,
        others: Sequence[Path] = (),
    ) -> None:
        self.read: list[str] = []
        self.worked_on = 0
        self._cache = ResultCache(cache, max_bytes, lambda module: f"{module} {version}", others)
        self._key = key

    def reverse(self, files: list[Path]) -> list[bytes]:
        """Reverse each file in one run."""
        with self._cache as cache:
            results: KeptResults[bytes] = cache.results(
                MODULE, "reversed", key=self._key, to_bytes=lambda result: result, from_bytes=lambda stored: stored
            )
            images = NotedFolder(files[0].parent, self.read)
            return [results.compute(images, path.name, self._work)[1] for path in files]

    def _work(self, content: bytes) -> bytes:
        self.worked_on += 1
        return content[::-1]


def expected(files: list[Path]) -> list[bytes]:
    return [path.read_bytes()[::-1] for path in files]


def packs(cache: Path) -> list[Path]:
    return sorted(cache.rglob("reversed-*/*.pack"))


def test_only_new_files_are_read_and_worked_on(files: list[Path], tmp_path: Path) -> None:
    first = Counted(tmp_path / "cache")
    assert first.reverse(files[:9]) == expected(files[:9])
    assert (len(first.read), first.worked_on) == (9, 9)
    second = Counted(tmp_path / "cache")
    assert second.reverse(files) == expected(files)
    assert (second.read, second.worked_on) == (["9.bin"], 1)


def test_results_of_other_caches_are_found_and_kept(files: list[Path], tmp_path: Path) -> None:
    for number, part in enumerate((files[:5], files[5:])):
        Counted(tmp_path / f"shard{number}").reverse(part)
    shards = [tmp_path / "shard0", tmp_path / "shard1", tmp_path / "missing"]
    for cache in (None, tmp_path / "cache"):
        collecting = Counted(cache, others=shards)
        assert collecting.reverse(files) == expected(files)
        assert (collecting.read, collecting.worked_on) == ([], 0)
    alone = Counted(tmp_path / "cache")
    assert alone.reverse(files) == expected(files)
    assert (alone.read, alone.worked_on) == ([], 0)


def test_results_of_another_code_are_not_found_in_other_caches(files: list[Path], tmp_path: Path) -> None:
    Counted(tmp_path / "shard", version="0").reverse(files)
    collecting = Counted(None, others=[tmp_path / "shard"])
    assert collecting.reverse(files) == expected(files)
    assert collecting.worked_on == 10


def test_files_that_were_fetched_again_are_read_and_not_worked_on(files: list[Path], tmp_path: Path) -> None:
    Counted(tmp_path / "cache").reverse(files)
    for path in files:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    again = Counted(tmp_path / "cache")
    assert again.reverse(files) == expected(files)
    assert (len(again.read), again.worked_on) == (10, 0)


def test_a_changed_byte_is_noticed_although_size_and_time_of_change_are_as_before(
    files: list[Path], tmp_path: Path
) -> None:
    Counted(tmp_path / "cache").reverse(files)
    before = files[3].stat()
    time.sleep(0.05)
    with files[3].open("r+b") as file:
        file.write(b"x")
    os.utime(files[3], ns=(before.st_atime_ns, before.st_mtime_ns))
    after = files[3].stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    again = Counted(tmp_path / "cache")
    assert again.reverse(files) == expected(files)
    assert (again.read, again.worked_on) == (["3.bin"], 1)


def test_the_times_of_a_file_that_was_written_just_now_are_not_trusted(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxr.data.image_folder._SETTLED_NANOSECONDS", 60 * 10**9)
    for _ in range(2):
        run = Counted(tmp_path / "cache")
        run.reverse(files)
        assert len(run.read) == 10
    assert run.worked_on == 0


@pytest.mark.parametrize("change", [{"version": "2"}, {"key": "other values"}])
def test_results_of_other_code_or_values_are_never_given(
    files: list[Path], tmp_path: Path, change: dict[str, str]
) -> None:
    Counted(tmp_path / "cache").reverse(files)
    changed = Counted(tmp_path / "cache", **change)
    changed.reverse(files)
    assert changed.worked_on == 10


def test_a_damaged_result_is_computed_again(
    files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever byte of a pack is changed, and wherever it is cut off."""
    Counted(tmp_path / "cache").reverse(files)
    (pack,) = packs(tmp_path / "cache")
    whole = pack.read_bytes()
    seed = random.randrange(2**32)
    generator = random.Random(seed)
    for _ in range(60):
        damaged = bytearray(whole)
        position = generator.randrange(len(whole))
        if generator.random() < 0.3:
            del damaged[position:]
        else:
            damaged[position] ^= 1 << generator.randrange(8)
        for other in packs(tmp_path / "cache"):
            other.unlink()
        pack.write_bytes(damaged)
        caplog.clear()
        run = Counted(tmp_path / "cache")
        assert run.reverse(files) == expected(files), f"seed={seed}"
        assert run.worked_on >= 1, f"seed={seed}"
        assert "computed again" in caplog.text, f"seed={seed}"
    healed = Counted(tmp_path / "cache")
    assert healed.reverse(files) == expected(files)
    assert healed.worked_on == 0


def test_an_error_keeps_what_was_computed_before_it(files: list[Path], tmp_path: Path) -> None:
    files[5].unlink()
    with pytest.raises(ImageError):
        Counted(tmp_path / "cache").reverse(files)
    files[5].write_bytes(b"restored")
    again = Counted(tmp_path / "cache")
    assert again.reverse(files) == expected(files)
    assert again.worked_on == 5


def test_results_that_were_not_used_for_the_longest_time_are_removed_first(files: list[Path], tmp_path: Path) -> None:
    Counted(tmp_path / "cache").reverse(files[:5])
    of_first_part = {path: path.stat().st_size for path in (tmp_path / "cache").rglob("*.pack")}
    time.sleep(0.02)
    Counted(tmp_path / "cache").reverse(files[5:])
    time.sleep(0.02)
    Counted(tmp_path / "cache", max_bytes=sum(of_first_part.values())).reverse(files[:5])
    assert set((tmp_path / "cache").rglob("*.pack")) == set(of_first_part)


def test_a_size_of_zero_keeps_nothing(files: list[Path], tmp_path: Path) -> None:
    Counted(tmp_path / "cache", max_bytes=0).reverse(files)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_does_not_stop_the_work(
    files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("no folder")
    run = Counted(tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        assert run.reverse(files) == expected(files)
    assert "not kept for the next run" in caplog.text


def test_a_cache_leaves_room_on_the_disk(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cxr.images.result_packs._FREE_BYTES", 10**18)
    assert Counted(tmp_path / "cache").reverse(files) == expected(files)
    assert not list((tmp_path / "cache").rglob("*.pack"))
    assert "No space left on device" in caplog.text


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write a pack every 300 bytes."""
    monkeypatch.setattr("cxr.images.result_packs._PACK_BYTES", 300)
    yield


@pytest.mark.usefixtures("small_packs")
def test_packs_are_written_during_the_run(files: list[Path], tmp_path: Path) -> None:
    Counted(tmp_path / "cache").reverse(files)
    assert len(packs(tmp_path / "cache")) == 4
    again = Counted(tmp_path / "cache")
    assert again.reverse(files) == expected(files)
    assert again.worked_on == 0


def test_the_digest_is_that_of_the_content(files: list[Path], tmp_path: Path) -> None:
    for _ in range(2):
        with ResultCache(tmp_path / "cache", 10**9, str) as cache:
            sizes = cache.results(MODULE, "sizes", key="", to_bytes=lambda size: b"%d" % size, from_bytes=int)
            digests = [sizes.compute(ImageFolder(path.parent), path.name, len)[0] for path in files]
        assert digests == [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
