"""The queue on disk: images that wait for an answer, reports that wait for delivery, and dead letters.

::

    key               a random key; names are keyed digests, so that nobody can tell from a name which image it is
    received/NAME     an image that was accepted and has no answer yet
    outgoing/NAME/    its reports, from the answer until the destination has accepted all of them
    answered/NAME     an empty file: the image was answered, and is not answered again
    dead/NAME/        what cannot be answered or delivered; a person decides

Each change is one rename, after what it moves is on the disk: a process that is killed at any moment leaves an image
in one of these places, or in two of which the later one counts.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cxr.errors import DataError, MissingInputError, ParameterError, QueueFullError
from cxr.files import is_disk_full, read_json, write_json
from cxr.pacs.settings import QueueLimits

_PLACES = _RECEIVED, _OUTGOING, _ANSWERED, _DEAD = "received", "outgoing", "answered", "dead"
_PARTIAL = ".partial-"
_KEY_FILE, _LOCK_FILE, _STATE_FILE = "key", "lock", "state.json"
_IMAGE_FILE = "image.dcm"
_KEY_BYTES, _NAME_BYTES = 32, 20


@dataclass(frozen=True)
class DeliveryState:
    """What is known of the reports of an image, or of a dead letter.

    Attributes:
        since: when the image was answered or given up, seconds since 1970.
        attempts: how often the destination has refused a report.
        next_attempt: not to be sent before this time, seconds since 1970.
        reason: why the last attempt failed, without anything about the patient; empty if there was none.
    """

    since: float
    attempts: int = 0
    next_attempt: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class WaitingDelivery:
    """Reports of one image that wait for delivery.

    Attributes:
        name: name of the image in the queue.
        state: what is known of the delivery.
        reports: the files that the destination has not accepted yet, in order.
    """

    name: str
    state: DeliveryState
    reports: tuple[Path, ...]


def short_name(name: str) -> str:
    """The part of a name by which messages speak of an image."""
    return name[:10]


class ImageQueue:
    """The folders of a node. One process at a time works on them; status is read by others, too."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is read or written yet.

        Args:
            folder: folder of the queue.
        """
        self._folder = folder
        self._key = b""

    @contextmanager
    def work(self) -> Iterator[None]:
        """Work on the queue as the only process, after what a killed one left has been put in order.

        Folders that are missing are made; only this user can read them.

        Raises:
            ParameterError: if another process works on it.
            DataError: if its key is damaged.
        """
        for path in (self._folder, *(self._folder / place for place in _PLACES)):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
        lock = FileLock(self._folder / _LOCK_FILE, mode=0o600)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ParameterError(
                [f"expected a folder that no other node uses, received folder={self._folder}; name another one"]
            ) from None
        try:
            self._key = self._read_key()
            self._put_in_order()
            yield
        finally:
            lock.release()

    def expect_folders(self) -> None:
        """Check that a node has worked here.

        Raises:
            MissingInputError: if none has.
        """
        if not all((self._folder / place).is_dir() for place in _PLACES):
            raise MissingInputError(
                f"expected the folder of a node, received folder={self._folder}; give the folder of `cxr node`"
            )

    def name_of(self, instance_uid: str, content: bytes) -> str:
        """Name an image without telling which one it is.

        Args:
            instance_uid: its SOP instance UID.
            content: its data set as it was received.

        Returns:
            40 hex digits; the same for the same image.
        """
        digest = hashlib.blake2b(instance_uid.encode(), key=self._key, digest_size=_NAME_BYTES)
        digest.update(b"\0")
        digest.update(content)
        return digest.hexdigest()

    def is_known(self, name: str) -> bool:
        """Whether an image waits, is answered, or is a dead letter."""
        return any((self._folder / place / name).exists() for place in _PLACES)

    def accept(self, name: str, content: bytes, limits: QueueLimits) -> None:
        """Write an image to the disk, whole or not at all.

        Args:
            name: its name.
            content: the whole DICOM file.
            limits: how much is kept.

        Raises:
            QueueFullError: if too many images wait, or the disk has no room.
        """
        counts = self.counts()
        waiting = sum(counts.values())
        if waiting >= limits.images:
            raise QueueFullError(
                f"expected fewer than {limits.images} images in the queue, received waiting={waiting} "
                f"(dead letters: {counts[_DEAD]}); see `cxr node_status`"
            )
        free = shutil.disk_usage(self._folder).free
        if free - len(content) < limits.min_free_bytes:
            raise QueueFullError(
                f"expected {limits.min_free_bytes / 1e6:,.0f} MB of free disk space beside the image, received "
                f"free={free / 1e6:,.0f} MB; make room"
            )
        partial = self._folder / _RECEIVED / f"{_PARTIAL}{secrets.token_hex(8)}"
        try:
            _write_durably(partial, content)
            partial.rename(self._folder / _RECEIVED / name)
            _sync_folder(self._folder / _RECEIVED)
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise QueueFullError("expected room on the disk for an image, received none; make room") from error
        finally:
            partial.unlink(missing_ok=True)

    def received(self) -> list[str]:
        """Names of the images without an answer, the oldest first."""
        entries = [entry for entry in os.scandir(self._folder / _RECEIVED) if not entry.name.startswith(_PARTIAL)]
        return [entry.name for entry in sorted(entries, key=lambda entry: entry.stat().st_mtime_ns)]

    def read_image(self, name: str) -> bytes:
        """Read the DICOM file of an image without an answer."""
        return (self._folder / _RECEIVED / name).read_bytes()

    def received_at(self, name: str) -> float:
        """When an image without an answer was received, seconds since 1970."""
        return (self._folder / _RECEIVED / name).stat().st_mtime

    def keep_reports(self, name: str, reports: Mapping[str, bytes]) -> None:
        """Replace an image by its reports, which wait for delivery from then on.

        Args:
            name: name of the image.
            reports: kind of a report to its DICOM file, in the order of delivery.
        """
        files = {f"{number}-{kind}.dcm": content for number, (kind, content) in enumerate(reports.items())}
        self._write_folder(_OUTGOING, name, files, DeliveryState(time.time()))
        self._remove_image(name)

    def give_up_image(self, name: str, reason: str) -> None:
        """Make an image a dead letter.

        Args:
            name: name of the image.
            reason: why it has no answer, without anything about the patient.
        """
        link = {_IMAGE_FILE: self._folder / _RECEIVED / name}
        self._write_folder(_DEAD, name, link, DeliveryState(time.time(), reason=reason))
        self._remove_image(name)

    def deliveries(self) -> list[WaitingDelivery]:
        """The reports that wait for delivery, the oldest first."""
        return self._read_folders(_OUTGOING)

    def dead_letters(self) -> list[WaitingDelivery]:
        """What a person must decide on, the oldest first."""
        return self._read_folders(_DEAD)

    def forget_report(self, report: Path) -> None:
        """Remove a report that the destination has accepted."""
        report.unlink(missing_ok=True)

    def finish(self, name: str) -> None:
        """Note that all reports of an image are delivered."""
        path = self._folder / _ANSWERED / name
        path.touch(mode=0o600)
        _sync_folder(path.parent)
        self._remove_folder(_OUTGOING, name)

    def postpone(self, name: str, state: DeliveryState) -> None:
        """Keep reports for another attempt."""
        write_json(self._folder / _OUTGOING / name / _STATE_FILE, asdict(state))

    def give_up_delivery(self, name: str, state: DeliveryState) -> None:
        """Make the reports of an image a dead letter."""
        self.postpone(name, state)
        (self._folder / _OUTGOING / name).rename(self._folder / _DEAD / name)
        _sync_folder(self._folder / _DEAD)

    def retry_dead_letters(self) -> int:
        """Put all dead letters back where they came from.

        Returns:
            How many there were.
        """
        letters = self.dead_letters()
        for letter in letters:
            folder = self._folder / _DEAD / letter.name
            if (image := folder / _IMAGE_FILE).exists():
                image.rename(self._folder / _RECEIVED / letter.name)
                _sync_folder(self._folder / _RECEIVED)
                self._remove_folder(_DEAD, letter.name)
                continue
            write_json(folder / _STATE_FILE, asdict(DeliveryState(time.time())))
            folder.rename(self._folder / _OUTGOING / letter.name)
            _sync_folder(self._folder / _OUTGOING)
        return len(letters)

    def counts(self) -> dict[str, int]:
        """How many images have no answer (``received``), wait for delivery (``outgoing``), and are ``dead`` letters."""
        return {
            place: sum(not path.name.startswith(_PARTIAL) for path in (self._folder / place).iterdir())
            for place in (_RECEIVED, _OUTGOING, _DEAD)
        }

    def forget_old_answers(self, keep_seconds: float) -> None:
        """Remove notes of answers that are older than some seconds."""
        oldest = time.time() - keep_seconds
        for entry in os.scandir(self._folder / _ANSWERED):
            if entry.stat().st_mtime < oldest:
                Path(entry).unlink(missing_ok=True)

    def _read_key(self) -> bytes:
        path = self._folder / _KEY_FILE
        if not path.exists():
            partial = path.with_name(f"{_PARTIAL}{secrets.token_hex(8)}")
            _write_durably(partial, secrets.token_bytes(_KEY_BYTES))
            partial.rename(path)
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise DataError(
                f"expected {_KEY_BYTES} bytes in {path}, received bytes={len(key)}; remove it: images that were "
                "answered may then be answered once more"
            )
        return key

    def _put_in_order(self) -> None:
        """Remove what was not finished, and an image that is in a later place already."""
        for place in (_RECEIVED, _OUTGOING, _DEAD):
            for path in (self._folder / place).glob(f"{_PARTIAL}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for letter in self.dead_letters():
            if not letter.reports:  # its image was put back
                self._remove_folder(_DEAD, letter.name)
        for name in self.received():
            if any((self._folder / place / name).exists() for place in (_OUTGOING, _ANSWERED, _DEAD)):
                self._remove_image(name)
        for delivery in self.deliveries():
            if not delivery.reports or (self._folder / _ANSWERED / delivery.name).exists():
                self.finish(delivery.name)

    def _write_folder(self, place: str, name: str, files: Mapping[str, bytes | Path], state: DeliveryState) -> None:
        """Write a folder that appears whole. A file given as a path is linked."""
        partial = self._folder / place / f"{_PARTIAL}{name}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        try:
            for file, content in files.items():
                if isinstance(content, Path):
                    (partial / file).hardlink_to(content)
                else:
                    _write_durably(partial / file, content)
            write_json(partial / _STATE_FILE, asdict(state))
            _sync_folder(partial)
            partial.rename(self._folder / place / name)
            _sync_folder(self._folder / place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _read_folders(self, place: str) -> list[WaitingDelivery]:
        deliveries = []
        for folder in (self._folder / place).iterdir():
            if folder.name.startswith(_PARTIAL):
                continue
            try:
                state = DeliveryState(**read_json(folder / _STATE_FILE))
            except (DataError, TypeError):
                if not folder.exists():  # it was moved meanwhile
                    continue
                state = DeliveryState(folder.stat().st_mtime)
            deliveries.append(WaitingDelivery(folder.name, state, tuple(sorted(folder.glob("*.dcm")))))
        return sorted(deliveries, key=lambda delivery: delivery.state.since)

    def _remove_image(self, name: str) -> None:
        (self._folder / _RECEIVED / name).unlink(missing_ok=True)
        _sync_folder(self._folder / _RECEIVED)

    def _remove_folder(self, place: str, name: str) -> None:
        """Remove a folder so that a killed process leaves no part of it under its name."""
        partial = self._folder / place / f"{_PARTIAL}{name}"
        shutil.rmtree(partial, ignore_errors=True)
        (self._folder / place / name).rename(partial)
        shutil.rmtree(partial)


def _write_durably(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, and wait until it is on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
