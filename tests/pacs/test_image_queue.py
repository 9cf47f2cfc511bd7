"""The queue on disk: whole or not there, in one place, without a name that says whose image it is."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from cxr.errors import MissingInputError, ParameterError, QueueFullError
from cxr.pacs import image_queue
from cxr.pacs.image_queue import DeliveryState, ImageQueue
from cxr.pacs.queue_listing import list_queue
from cxr.pacs.settings import QueueLimits

LIMITS = QueueLimits(images=3, min_free_bytes=0, keep_seconds=3600)
UID = "1.2.840.4711"
REPORTS = {"report": b"a report", "capture": b"a capture"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "node"


@pytest.fixture
def queue(folder: Path) -> Iterator[ImageQueue]:
    queue = ImageQueue(folder)
    with queue.work():
        yield queue


def accept(queue: ImageQueue, uid: str = UID, content: bytes = b"an image") -> str:
    name = queue.name_of(uid, content)
    queue.accept(name, content, LIMITS)
    return name


def test_an_image_becomes_reports_that_are_delivered_and_then_only_its_name_is_known(queue: ImageQueue) -> None:
    name = accept(queue)
    assert queue.received() == [name]
    assert queue.read_image(name) == b"an image"
    queue.keep_reports(name, REPORTS)
    assert queue.received() == []
    (delivery,) = queue.deliveries()
    assert delivery.name == name
    assert [report.read_bytes() for report in delivery.reports] == list(REPORTS.values()), "in their order"
    queue.finish(name)
    assert queue.deliveries() == []
    assert queue.is_known(name)
    assert queue.counts() == {"received": 0, "outgoing": 0, "dead": 0}


def test_names_tell_nothing_and_differ_between_nodes(queue: ImageQueue, tmp_path: Path) -> None:
    other = ImageQueue(tmp_path / "other")
    with other.work():
        assert queue.name_of(UID, b"x") == queue.name_of(UID, b"x")
        names = {
            queue.name_of(UID, b"x"),
            queue.name_of(UID, b"y"),
            queue.name_of("1.2", b"x"),
            other.name_of(UID, b"x"),
        }
    assert len(names) == 4
    with pytest.raises(ParameterError), ImageQueue(queue._folder).work():
        pass


def test_only_the_user_of_the_node_reads_its_files(queue: ImageQueue, folder: Path) -> None:
    name = accept(queue)
    accept(queue, "1.2.3")
    queue.keep_reports(name, REPORTS)
    for path in [folder, *folder.rglob("*")]:
        if path.name != "state.json":
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_full_queue_and_a_full_disk_take_no_image_and_keep_nothing_half(
    queue: ImageQueue, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        accept(queue, f"1.2.{number}")
    with pytest.raises(QueueFullError, match=r"fewer than 3 images .* received waiting=3"):
        accept(queue, "1.2.3")
    queue.keep_reports(queue.received()[0], REPORTS)
    with pytest.raises(QueueFullError):
        accept(queue, "1.2.3")
    queue.finish(queue.deliveries()[0].name)
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as patch:
        patch.setattr(image_queue.shutil, "disk_usage", lambda path: usage(7))
        with pytest.raises(QueueFullError, match="free"):
            queue.accept("0" * 40, b"12345678", LIMITS)

    def fill(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(image_queue.os, "fsync", fill)
        with pytest.raises(QueueFullError, match="room"):
            accept(queue, "1.2.3")
    assert len(list((folder / "received").iterdir())) == 2
    accept(queue, "1.2.3")


KILLED_PROCESSES = """
import json, os, shutil, sys
from pathlib import Path
from cxr.pacs.image_queue import ImageQueue
from cxr.pacs.settings import QueueLimits

folder, UID, reports = Path(sys.argv[1]), sys.argv[2], {"report": b"a report", "capture": b"a capture"}
changes = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}

def receive_and_answer(last_change):
    left = [last_change]
    def count(event, arguments):
        if event in changes and str(arguments[0]).startswith(str(folder)):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
    queue = ImageQueue(folder)
    with queue.work():
        sys.addaudithook(count)
        name = queue.name_of(UID, b"an image")
        queue.accept(name, b"an image", QueueLimits(images=3, min_free_bytes=0, keep_seconds=3600))
        queue.keep_reports(name, reports)
        for report in queue.deliveries()[0].reports:
            queue.forget_report(report)
        queue.finish(name)
    os._exit(0)

for last_change in range(1000):
    shutil.rmtree(folder, ignore_errors=True)
    child = os.fork()
    if not child:
        receive_and_answer(last_change)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    queue = ImageQueue(folder)
    with queue.work():
        places = ["received"] * len(queue.received())
        assert all(queue.read_image(name) == b"an image" for name in queue.received())
        for delivery in queue.deliveries():
            places.append("outgoing")
            contents = [report.read_bytes() for report in delivery.reports]
            assert contents in ([*reports.values()], [*reports.values()][1:]), contents
        places += ["answered"] * len(os.listdir(folder / "answered"))
        assert not [path for path in folder.rglob("*") if "partial" in path.name]
    print(json.dumps(places))
    if status == 0:
        break
"""
"""Kills a process after 0, 1, 2 ... changes of the disk, and says where the image is when the next one has begun."""


def test_a_process_that_is_killed_at_any_change_of_the_disk_loses_no_image_and_answers_none_twice(folder: Path) -> None:
    result = subprocess.run([sys.executable, "-c", KILLED_PROCESSES, folder, UID], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    places = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(len(place) <= 1 for place in places), "it is in one place"
    sequence = [name for name, _ in groupby(place[0] if place else "" for place in places)]
    assert sequence == ["", "received", "outgoing", "answered"]
    assert len(places) > 15


def test_a_dead_letter_goes_back_where_it_came_from(queue: ImageQueue, folder: Path) -> None:
    image, answered = accept(queue), accept(queue, "1.2.3")
    queue.give_up_image(image, "unreadable: corrupt")
    queue.keep_reports(answered, REPORTS)
    queue.give_up_delivery(answered, DeliveryState(time.time() - 7200, 5, 0.0, "refused: status 0xA900"))
    assert queue.counts() == {"received": 0, "outgoing": 0, "dead": 2}
    lines = list_queue(queue, time.time())
    assert lines[2] == "2 dead letters"
    assert "2 h  refused: status 0xA900" in lines[3] and "0 s  unreadable: corrupt" in lines[4]
    assert UID not in "".join(lines)
    assert queue.retry_dead_letters() == 2
    assert queue.received() == [image]
    (delivery,) = queue.deliveries()
    assert (delivery.name, delivery.state.attempts, delivery.state.reason) == (answered, 0, "")
    assert not list((folder / "dead").iterdir())


def test_a_killed_retry_keeps_the_image(folder: Path) -> None:
    queue = ImageQueue(folder)
    with queue.work():
        name = accept(queue)
        queue.give_up_image(name, "unreadable: corrupt")
        (folder / "dead" / name / "image.dcm").rename(folder / "received" / name)
    with queue.work():
        assert queue.received() == [name] and queue.dead_letters() == []


def test_answers_are_known_for_the_time_of_the_limit(queue: ImageQueue, folder: Path) -> None:
    old, new = accept(queue), accept(queue, "1.2.3")
    for name in (old, new):
        queue.keep_reports(name, REPORTS)
        queue.finish(name)
    os.utime(folder / "answered" / old, (0, time.time() - 3700))
    queue.forget_old_answers(LIMITS.keep_seconds)
    assert not queue.is_known(old) and queue.is_known(new)


def test_another_folder_is_none_of_a_node(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=f"received folder={tmp_path}"):
        ImageQueue(tmp_path).expect_folders()
    assert not list(tmp_path.iterdir())
