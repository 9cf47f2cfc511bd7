"""Receiving: who may send, what is kept, and what a hostile peer cannot do. The node goes on after each of them."""

from __future__ import annotations

import logging
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from cxr.cli.main import parse_step
from cxr.errors import ParameterError
from cxr.images.dicom.stored import SUPPORTED_SYNTAXES
from cxr.pacs.image_queue import ImageQueue
from cxr.pacs.metrics import NodeMetrics
from cxr.pacs.settings import NodeSettings
from cxr.pacs.storage_provider import StorageProvider
from cxr.pacs.tls import make_context
from cxr.steps.node import Node
from support.dicom_files import SECRET
from support.dicom_node import NODE_TITLE, PACS_TITLE, dcmtk, echo, radiograph, send, wait_for
from support.model_folders import ModelFolders
from support.tls_files import write_tls_files

MEBIBYTE = 1 << 20
SHORT = {"--max_megabytes": "1", "--object_seconds": "1.5", "--idle_seconds": "3", "--associations": "3"}


def make_settings(folder: Path, **flags: str) -> NodeSettings:
    """Settings as the command line makes them."""
    values = {"--folder": str(folder), "--port": "0", "--min_free_megabytes": "1", **SHORT, **flags}
    step = parse_step(Node, [word for pair in values.items() for word in pair])
    assert isinstance(step, Node)
    return step.settings()


@dataclass
class RunningProvider:
    queue: ImageQueue
    provider: StorageProvider
    metrics: NodeMetrics

    @property
    def port(self) -> int:
        return self.provider.port

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def run_provider(settings: NodeSettings) -> Iterator[RunningProvider]:
    queue = ImageQueue(settings.folder)
    with queue.work():
        metrics = NodeMetrics(queue)
        tls = make_context(settings.tls, server=True) if settings.tls is not None else None
        provider = StorageProvider(settings, queue, metrics, tls, lambda: None)
        provider.start()
        try:
            yield RunningProvider(queue, provider, metrics)
        finally:
            provider.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    with run_provider(make_settings(tmp_path_factory.mktemp("reception") / "node")) as running:
        yield running


@contextmanager
def associate(port: int, *contexts: tuple[Any, Any], title: str = PACS_TITLE) -> Iterator[Any]:
    from pynetdicom import AE

    entity = AE(ae_title=title)
    for sop_class, syntax in contexts:
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", port, ae_title=NODE_TITLE)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def is_alive(running: RunningProvider) -> bool:
    return echo(running.port) == 0


def test_echo_is_answered_to_known_titles_only(running: RunningProvider, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert echo(running.port) == 0
        assert echo(running.port, called="ANOTHER") != 0
        assert echo(running.port, calling="ANOTHER") != 0
    assert caplog.text.count("rejected") == 2
    assert running.count("cxr_node_associations_total", outcome="rejected") == 2


def test_an_image_is_on_the_disk_when_its_sender_gets_success_and_kept_once(
    running: RunningProvider, radiographs: list[Path]
) -> None:
    before = len(running.queue.received())
    assert send(running.port, radiographs[0]) == 0
    assert len(running.queue.received()) == before + 1
    assert send(running.port, radiographs[0]) == 0
    assert len(running.queue.received()) == before + 1
    assert running.count("cxr_node_received_total", result="repeated") == 1


def test_every_transfer_syntax_that_is_read_is_accepted_and_no_other(
    running: RunningProvider, folders: ModelFolders
) -> None:
    sop_class = radiograph(folders.images[0], 0).SOPClassUID
    with associate(running.port, *((sop_class, syntax) for syntax in sorted(SUPPORTED_SYNTAXES))) as association:
        accepted = {str(context.transfer_syntax[0]) for context in association.accepted_contexts}
    assert accepted == SUPPORTED_SYNTAXES > {str(JPEG2000Lossless), str(RLELossless)}
    video, tomography = "1.2.840.10008.1.2.4.102", "1.2.840.10008.5.1.4.1.1.2"
    with associate(running.port, (sop_class, video), (tomography, "1.2.840.10008.1.2.1")) as association:
        assert not association.is_established


def test_a_data_set_of_another_class_than_announced_is_not_kept(
    running: RunningProvider, folders: ModelFolders
) -> None:
    image = radiograph(folders.images[0], 100)
    announced = "1.2.840.10008.5.1.4.1.1.1"
    before = running.queue.received()
    with associate(running.port, (announced, image.file_meta.TransferSyntaxUID)) as association:
        context = association.accepted_contexts[0]
        association._get_valid_context = lambda *_, **__: context  # as a peer that does not keep the rules
        assert association.send_c_store(image).Status == 0xA900
    assert running.queue.received() == before


def test_a_full_queue_is_out_of_resources_and_takes_images_again_later(tmp_path: Path, folders: ModelFolders) -> None:
    settings = make_settings(tmp_path / "node", **{"--max_waiting": "2"})
    with run_provider(settings) as running:
        images = [radiograph(folders.images[0], number) for number in range(4)]
        with associate(running.port, (images[0].SOPClassUID, "1.2.840.10008.1.2.1")) as association:
            assert [association.send_c_store(image).Status for image in images[:3]] == [0, 0, 0xA700]
            running.queue.give_up_image(running.queue.received()[0], "unreadable")
            running.queue.keep_reports(running.queue.received()[0], {})
            running.queue.finish(running.queue.deliveries()[0].name)
            assert [association.send_c_store(image).Status for image in images[2:]] == [0, 0xA700]
        assert running.count("cxr_node_received_total", result="queue_full") == 2


def test_a_disk_that_fails_is_an_error_for_the_sender(
    tmp_path: Path, folders: ModelFolders, caplog: pytest.LogCaptureFixture
) -> None:
    with run_provider(make_settings(tmp_path / "node")) as running:
        image = radiograph(folders.images[0], 1)
        (tmp_path / "node" / "received").rmdir()
        with associate(running.port, (image.SOPClassUID, "1.2.840.10008.1.2.1")) as association:
            assert association.send_c_store(image).Status == 0x0110
        (tmp_path / "node" / "received").mkdir()
    assert "not accepted: FileNotFoundError" in caplog.text
    assert SECRET not in caplog.text and str(image.SOPInstanceUID) not in caplog.text


def announce(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def is_closed(connection: socket.socket, seconds: float = 15.0) -> bool:
    """Whether the node closes a connection, perhaps after a last message."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def send_endless_request(connection: socket.socket, _: Any) -> None:
    """A request for an association of 4 GiB: all that is sent would be kept in memory."""
    connection.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + b"\0" * MEBIBYTE)


def send_unknown_pdu(connection: socket.socket, _: Any) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")


def send_half_a_request(connection: socket.socket, _: Any) -> None:
    connection.sendall(struct.pack(">BBL", 1, 0, 200) + b"\0" * 20)


@pytest.mark.parametrize("attack", [send_endless_request, send_unknown_pdu, send_half_a_request])
def test_a_peer_that_does_not_speak_dicom_is_disconnected(
    running: RunningProvider, attack: Callable[[socket.socket, Any], None]
) -> None:
    with announce(running.port) as connection:
        attack(connection, None)
        assert is_closed(connection)
    assert is_alive(running)


def test_an_object_larger_than_the_limit_ends_its_association(running: RunningProvider, folders: ModelFolders) -> None:
    image = radiograph(folders.images[0], 200)
    image.Rows = image.Columns = 2000
    image.PixelData = bytes(2000 * 2000)
    before = running.queue.received()
    with associate(running.port, (image.SOPClassUID, "1.2.840.10008.1.2.1")) as association:
        assert "Status" not in association.send_c_store(image)
        wait_for(lambda: not association.is_established, 10)
    assert running.queue.received() == before
    assert is_alive(running)


def test_a_slow_sender_is_disconnected_however_it_divides_its_object(
    running: RunningProvider, folders: ModelFolders, caplog: pytest.LogCaptureFixture
) -> None:
    """Each part arrives in time; the object does not."""
    image = radiograph(folders.images[0], 201)
    with associate(running.port, (image.SOPClassUID, "1.2.840.10008.1.2.1")) as association:
        connection = association.dul.socket.socket
        context = association.accepted_contexts[0].context_id
        part = struct.pack(">LBB", 2 + 4, context, 0) + b"\0\0\0\0"  # an endless data set, four bytes at a time
        started = time.monotonic()
        with pytest.raises(OSError):  # a broken pipe or a reset
            while time.monotonic() < started + 20:
                connection.sendall(struct.pack(">BBL", 4, 0, len(part)) + part)
                time.sleep(0.2)
        assert time.monotonic() - started < 4
        association.abort()
    assert "did not arrive in time" in caplog.text
    assert is_alive(running)


def test_an_association_without_messages_is_ended(running: RunningProvider) -> None:
    with associate(running.port, ("1.2.840.10008.1.1", "1.2.840.10008.1.2")) as association:
        assert association.is_established
        wait_for(lambda: not association.is_established, 15)
    assert is_alive(running)


def test_too_many_associations_and_connections_are_refused_and_later_ones_accepted(running: RunningProvider) -> None:
    verification = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")
    with ExitStack() as stack:
        associations = [stack.enter_context(associate(running.port, verification)) for _ in range(4)]
        assert [association.is_established for association in associations] == [True, True, True, False]
        silent = [stack.enter_context(announce(running.port)) for _ in range(12)]
        assert sum(is_closed(connection, 0.1) for connection in silent) >= 4, "at once"
    wait_for(lambda: is_alive(running), 20)


def test_broken_elements_and_other_content_are_kept_and_read_elsewhere(running: RunningProvider) -> None:
    """The process of the node reads no element of an image: it takes what it is sent, and the sandbox judges it."""
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE

    before = len(running.queue.received())
    sop_class = "1.2.840.10008.5.1.4.1.1.1.1"
    for number, content in enumerate((b"\xff" * 1000, b"%PDF-1.7", b"\x10\x00\x10\x00PN\xff\xffX")):
        with associate(running.port, (sop_class, "1.2.840.10008.1.2.1")) as association:
            request = C_STORE()
            request.MessageID, request.Priority = 1, 2
            request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, f"1.2.3.{number}"
            request.DataSet = BytesIO(content)
            association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
            wait_for(lambda count=before + number + 1: len(running.queue.received()) == count, 10)
    assert is_alive(running)


def test_mutual_tls_accepts_peers_with_a_certificate_and_no_others(tmp_path: Path, radiographs: list[Path]) -> None:
    files = write_tls_files(tmp_path / "tls", "node", "pacs")
    strangers = write_tls_files(tmp_path / "other", "stranger")["stranger"]
    node, pacs = files["node"], files["pacs"]
    flags = {"--certificate": str(node.certificate), "--key": str(node.key), "--authorities": str(node.authorities)}
    with run_provider(make_settings(tmp_path / "node", **flags)) as running:
        image = radiographs[0]
        assert send(running.port, image, tls=pacs) == 0
        assert len(running.queue.received()) == 1
        assert send(running.port, image, tls=replace(strangers, authorities=pacs.authorities)) != 0
        command = [dcmtk("storescu"), "-aet", PACS_TITLE, "-aec", NODE_TITLE, "+tla", "+cf", str(pacs.authorities)]
        result = subprocess.run([*command, "127.0.0.1", str(running.port), str(image)], capture_output=True)
        assert result.returncode != 0, "without a certificate"
        assert send(running.port, image) != 0, "without TLS"
        silent = announce(running.port)  # a handshake that does not go on holds nobody up
        assert send(running.port, image, tls=pacs) == 0
        silent.close()
        assert len(running.queue.received()) == 1


def test_an_address_in_use_and_files_that_are_no_certificates_are_errors_of_the_user(
    tmp_path: Path, running: RunningProvider
) -> None:
    settings = replace(make_settings(tmp_path / "node"), port=running.port)
    with pytest.raises(ParameterError, match=f"port={running.port}"), run_provider(settings):
        pass
    settings = replace(settings, host="nowhere.invalid")
    with pytest.raises(ParameterError, match="host=nowhere"), run_provider(settings):
        pass
    (tmp_path / "wrong.pem").write_text("no certificate")
    wrong = str(tmp_path / "wrong.pem")
    flags = {"--certificate": wrong, "--key": wrong, "--authorities": wrong}
    with pytest.raises(ParameterError, match="expected PEM files"), run_provider(make_settings(tmp_path, **flags)):
        pass


def test_stopping_ends_the_threads_of_all_associations(tmp_path: Path) -> None:
    with run_provider(make_settings(tmp_path / "node")) as running:
        with associate(running.port, ("1.2.840.10008.1.1", "1.2.840.10008.1.2")) as association:
            assert association.is_established
            running.provider.stop()
            wait_for(lambda: not any("Acceptor" in thread.name for thread in threading.enumerate()), 10)
        running.provider.stop = lambda: None  # type: ignore[method-assign]
