"""Reports reach their destination, whatever happens to it, or become dead letters for a person to decide on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cxr.errors import ParameterError
from cxr.pacs.delivery import DeliveryWorker
from cxr.pacs.destinations import open_destination
from cxr.pacs.image_queue import ImageQueue
from cxr.pacs.metrics import NodeMetrics
from cxr.pacs.settings import DeliveryPolicy, DestinationAddress, NodeSettings, QueueLimits
from cxr.steps.node import Node
from support.dicom_files import SECRET, write_dicom
from support.dicom_node import PACS_TITLE, ReportArchive, radiograph, wait_for
from support.loopback import free_port
from support.model_folders import ModelFolders
from support.tls_files import write_tls_files

POLICY = DeliveryPolicy(attempts=3, first_seconds=0.05, longest_seconds=0.1, give_up_seconds=3600)
LIMITS = QueueLimits(images=100, min_free_bytes=0, keep_seconds=3600)


@dataclass
class Sender:
    """A queue with a delivery worker."""

    queue: ImageQueue
    settings: NodeSettings
    policy: DeliveryPolicy
    folders: ModelFolders

    def __post_init__(self) -> None:
        self.metrics = NodeMetrics(self.queue)
        self.restart()

    def restart(self) -> None:
        self.worker = DeliveryWorker(self.queue, open_destination(self.settings), self.policy, self.metrics)

    def add(self, number: int, kinds: tuple[str, ...] = ("report",)) -> str:
        """Keep reports of an image; a radiograph stands for each."""
        name = self.queue.name_of(f"1.2.{number}", b"")
        self.queue.accept(name, b"an image", LIMITS)
        reports = {
            kind: write_dicom(radiograph(self.folders.images[0], 10 * number + place))
            for place, kind in enumerate(kinds)
        }
        self.queue.keep_reports(name, reports)
        return name

    def work_until(self, condition: Callable[[], bool]) -> None:
        def work() -> bool:
            time.sleep(min(0.05, self.worker.work()))
            return condition()

        wait_for(work, 30)

    def is_empty(self) -> bool:
        return self.queue.counts()["outgoing"] == 0

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def make_sender(tmp_path: Path, folders: ModelFolders) -> Iterator[Callable[..., Sender]]:
    queue = ImageQueue(tmp_path / "node")
    with queue.work():

        def make(destination: str, policy: DeliveryPolicy = POLICY, **fields: object) -> Sender:
            settings = Node(folder=tmp_path / "node", destination=destination, **fields).settings()  # type: ignore[arg-type]
            return Sender(queue, settings, policy, folders)

        yield make


def test_all_reports_are_delivered_once_in_few_associations(
    archive: ReportArchive, make_sender: Callable[..., Sender]
) -> None:
    sender = make_sender(archive.address)
    names = [sender.add(number, ("report", "capture")) for number in range(12)]
    sender.work_until(sender.is_empty)
    assert len(archive.received) == 24 and set(archive.instances().values()) == {1}
    assert all(sender.queue.is_known(name) for name in names)
    assert sender.count("cxr_node_delivered_total", report="report") == 12
    assert sender.count("cxr_node_delivered_total", report="capture") == 12
    assert sender.count("cxr_node_delivery_seconds_count") == 12


def test_a_pacs_that_is_away_gets_everything_afterwards_and_is_asked_less_and_less(
    archive: ReportArchive, make_sender: Callable[..., Sender], caplog: pytest.LogCaptureFixture
) -> None:
    archive.stop()
    sender = make_sender(archive.address, replace(POLICY, first_seconds=0.1, longest_seconds=0.4))
    for number in range(5):
        sender.add(number)
    delays = []
    while len(delays) < 4:
        delay = sender.worker.work()
        assert sender.worker.work() <= delay, "nothing is tried before its time"
        delays.append(delay)
        time.sleep(delay)
    assert delays == [0.1, 0.2, 0.4, 0.4]
    assert sender.count("cxr_node_delivery_failures_total", reason="away") == 4
    assert caplog.text.count("takes no reports: it cannot be reached") == 1, "said once"
    archive.start()
    with caplog.at_level(logging.INFO):
        sender.work_until(sender.is_empty)
    assert len(archive.received) == 5
    assert "takes reports again" in caplog.text
    assert sender.queue.counts()["dead"] == 0


def test_a_report_that_is_refused_becomes_a_dead_letter_and_the_others_are_delivered(
    archive: ReportArchive, make_sender: Callable[..., Sender], caplog: pytest.LogCaptureFixture
) -> None:
    sender = make_sender(archive.address)
    refused, delivered = sender.add(1), sender.add(2)
    archive.status_of = lambda report: 0xA900 if report.PatientID == f"{SECRET}-10" else 0
    sender.work_until(sender.is_empty)
    (letter,) = sender.queue.dead_letters()
    assert (letter.name, letter.state.attempts, letter.state.reason) == (refused, 3, "refused: status 0xA900")
    assert sender.queue.is_known(delivered) and list(archive.patients()) == [f"{SECRET}-20"]
    assert sender.count("cxr_node_dead_total", reason="refused") == 1
    assert sender.count("cxr_node_delivery_failures_total", reason="refused") == 3
    assert SECRET not in caplog.text
    archive.status_of = lambda report: 0
    assert sender.queue.retry_dead_letters() == 1
    sender.work_until(sender.is_empty)
    assert archive.patients()[f"{SECRET}-10"] == 1


def test_a_destination_that_is_out_of_resources_is_only_away(
    archive: ReportArchive, make_sender: Callable[..., Sender]
) -> None:
    sender = make_sender(archive.address, replace(POLICY, longest_seconds=0.5))
    sender.add(1, ("report", "capture"))
    sender.add(2)
    archive.status_of = lambda report: 0xA700 if report.PatientID == f"{SECRET}-11" else 0
    sender.work_until(lambda: len(archive.received) == 2)
    assert sender.count("cxr_node_delivery_failures_total", reason="away") >= 1
    assert archive.patients() == {f"{SECRET}-10": 1, f"{SECRET}-20": 1}, "it holds up no others"
    archive.status_of = lambda report: 0
    sender.work_until(sender.is_empty)
    assert set(archive.patients().values()) == {1}, "what was accepted is not sent again"


def test_reports_are_given_up_after_the_time_limit(archive: ReportArchive, make_sender: Callable[..., Sender]) -> None:
    archive.stop()
    sender = make_sender(archive.address, replace(POLICY, give_up_seconds=0.3))
    sender.add(1)
    sender.work_until(lambda: sender.queue.counts()["dead"] == 1)
    (letter,) = sender.queue.dead_letters()
    assert letter.state.reason == "expired: it cannot be reached"
    archive.start()


def test_a_destination_that_does_not_know_the_node_is_explained(
    archive: ReportArchive, make_sender: Callable[..., Sender], caplog: pytest.LogCaptureFixture
) -> None:
    archive.require_calling_title("ANOTHER")
    sender = make_sender(archive.address)
    sender.add(1)
    sender.worker.work()
    assert "it must know the title and the address of this node" in caplog.text


def test_a_destination_whose_name_is_unknown_is_away(
    make_sender: Callable[..., Sender], caplog: pytest.LogCaptureFixture
) -> None:
    sender = make_sender("dicom://PACS@nowhere.invalid:104")
    sender.add(1)
    sender.worker.work()
    assert "the name of its machine is not known; they wait" in caplog.text


def test_a_class_that_the_destination_does_not_store_is_a_refusal(make_sender: Callable[..., Sender]) -> None:
    archive = ReportArchive(classes=("1.2.840.10008.5.1.4.1.1.88.33",))
    sender = make_sender(archive.address)
    sender.add(1)
    try:
        sender.work_until(sender.is_empty)
    finally:
        archive.stop()
    assert sender.queue.counts()["dead"] == 1


def test_reports_are_delivered_over_mutual_tls(tmp_path: Path, make_sender: Callable[..., Sender]) -> None:
    files = write_tls_files(tmp_path / "tls", "node", "pacs")
    archive = ReportArchive(tls=files["pacs"])
    node = files["node"]
    fields = {"certificate": node.certificate, "key": node.key, "authorities": node.authorities}
    try:
        sender = make_sender(archive.address.replace("dicom:", "dicoms:"), **fields)
        sender.add(1)
        sender.work_until(sender.is_empty)
        assert len(archive.received) == 1
        stranger = write_tls_files(tmp_path / "other", "node")["node"]
        fields = {"certificate": stranger.certificate, "key": stranger.key, "authorities": node.authorities}
        rejected = make_sender(archive.address.replace("dicom:", "dicoms:"), **fields)
        rejected.add(2)
        rejected.worker.work()
        assert len(archive.received) == 1
        assert rejected.queue.counts()["outgoing"] == 1
    finally:
        archive.stop()


class StowServer:
    """Answers STOW-RS with a status and a body."""

    def __init__(self) -> None:
        self.status, self.answer, self.bodies, self.tokens = 200, b"{}", list[bytes](), list[str | None]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if self.headers.get("Transfer-Encoding"):
                    raise AssertionError("expected a body with a length")
                outer.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                outer.tokens.append(self.headers["Authorization"])
                self.send_response(outer.status)
                self.send_header("Content-Type", "application/dicom+json")
                self.send_header("Content-Length", str(len(outer.answer)))
                self.end_headers()
                self.wfile.write(outer.answer)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/dicom-web"


@pytest.fixture
def stow() -> Iterator[StowServer]:
    server = StowServer()
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_reports_are_delivered_by_stow_with_the_token_of_the_environment(
    stow: StowServer, make_sender: Callable[..., Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_DICOMWEB_TOKEN", "a-token")
    sender = make_sender(stow.url)
    sender.add(1)
    sender.work_until(sender.is_empty)
    assert len(stow.bodies) == 1 and f"{SECRET}-10".encode() in stow.bodies[0]
    assert stow.tokens == ["Bearer a-token"]


FAILED = b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [43264]}}]}}'


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (409, FAILED, "refused: HTTP status 409"),
        (400, b"", "refused: HTTP status 400"),
        (202, FAILED, "refused: failure reason 0xA900"),
        (503, b"", "away"),
        (401, b"", "away"),
    ],
)
def test_answers_of_a_dicomweb_server_are_refusals_or_absence(
    stow: StowServer, make_sender: Callable[..., Sender], status: int, answer: bytes, reason: str
) -> None:
    stow.status, stow.answer = status, answer
    sender = make_sender(stow.url, replace(POLICY, attempts=1))
    sender.add(1)
    sender.worker.work()
    letters = sender.queue.dead_letters()
    assert [letter.state.reason for letter in letters] == ([] if reason == "away" else [reason])
    assert sender.count("cxr_node_delivery_failures_total", reason=reason.partition(":")[0]) == 1
    assert len(stow.bodies) == 1, "the library does not repeat it by itself"


def test_a_dicomweb_server_that_is_not_there_is_away(make_sender: Callable[..., Sender]) -> None:
    sender = make_sender(f"http://127.0.0.1:{free_port()}/dicom-web")
    sender.add(1)
    sender.worker.work()
    assert sender.count("cxr_node_delivery_failures_total", reason="away") == 1


@pytest.mark.parametrize(
    ("text", "scheme", "title", "port"),
    [
        (f"dicom://{PACS_TITLE}@10.0.0.7:104", "dicom", PACS_TITLE, 104),
        ("dicoms://MY%20PACS@pacs.example.org:2762", "dicoms", "MY PACS", 2762),
        ("https://pacs.example.org/dicom-web", "https", "", 0),
    ],
)
def test_addresses_of_destinations(text: str, scheme: str, title: str, port: int) -> None:
    address = DestinationAddress.parse(text)
    assert (address.scheme, address.title, address.port) == (scheme, title, port)


@pytest.mark.parametrize(
    "text",
    ["pacs:104", "dicom://10.0.0.7:104", "dicom://PACS@10.0.0.7", "dicom://PACS@h:99999", "dicom://A%5CB@h:1", ""],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="expected destination to be dicom://TITLE@host:port"):
        Node.build({"destination": text})


def test_tls_needs_all_of_its_files() -> None:
    with pytest.raises(ParameterError, match="all three files"):
        Node.build({"certificate": "node.pem"})
    with pytest.raises(ParameterError, match="files for TLS"):
        Node.build({"destination": "dicoms://PACS@h:1"})
