"""`cxr node` between senders and an archive: every image is answered once, and nothing of a patient leaks."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from cxr.dicom_report.concepts import PROBABILITY
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.tracking.store import Store
from support.dicom_files import SECRET, write_dicom
from support.dicom_node import NodeCommand, ReportArchive, echo, radiograph, running_node, send, wait_for
from support.dicom_node import write_radiographs as write
from support.model_folders import ModelFolders
from support.tracking_server import NAME, write_registry

SENDERS = 4
LIMITS = ("--object_seconds", "5", "--max_megabytes", "2")


def move_champion(uri: str, version: str) -> None:
    Store(uri).client.set_registered_model_alias(NAME, "champion", version)


def send_all(port: int, files: list[Path]) -> list[int]:
    """Send files in four associations at once; the exit status of each sender."""
    with ThreadPoolExecutor(SENDERS) as pool:
        return list(pool.map(lambda number: send(port, *files[number::SENDERS]), range(SENDERS)))


def list_status(node: NodeCommand, *arguments: str) -> str:
    command = [sys.executable, "-m", "cxr.cli.main", "node_status", "--folder", str(node.folder), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout + result.stderr


def text_of(report: Dataset) -> dict[str, str]:
    """Meaning of each code and number of a report, by the meaning of its name."""
    values: dict[str, str] = {}
    for item in report.iterall():
        if item.keyword == "ConceptNameCodeSequence":
            name = item.value[0].CodeMeaning
        elif item.keyword == "NumericValue":
            values[name] = str(item.value)
        elif item.keyword in ("TextValue", "ConceptCodeSequence"):
            values.setdefault(name, "")
            values[name] += item.value if isinstance(item.value, str) else item.value[0].CodeMeaning
    return values


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def registered(root: Path) -> tuple[str, ModelFolders]:
    uri, folders = write_registry(root)
    move_champion(uri, "1")
    return uri, folders


@pytest.fixture(scope="module")
def pacs() -> Iterator[ReportArchive]:
    archive = ReportArchive()
    yield archive
    archive.stop()


@pytest.fixture(scope="module")
def node(root: Path, registered: tuple[str, ModelFolders], pacs: ReportArchive) -> Iterator[NodeCommand]:
    arguments = ("--tracking_uri", registered[0], "--seconds", "0.2", "--capture", "true", *LIMITS)
    with running_node(root, pacs.address, *arguments, forked=False) as node:
        yield node


def test_images_of_four_associations_are_each_answered_once_also_if_they_are_sent_twice(
    node: NodeCommand, pacs: ReportArchive, registered: tuple[str, ModelFolders], root: Path
) -> None:
    folders = registered[1]
    files = write(root / "sent", folders.images, 40)
    assert send_all(node.port, files) == [0] * SENDERS
    assert send_all(node.port, files[:10]) == [0] * SENDERS
    wait_for(lambda: len(pacs.received) >= 80)
    time.sleep(0.5)
    assert set(pacs.instances().values()) == {1}
    assert pacs.patients() == {f"{SECRET}-{number}": 2 for number in range(40)}, "a report and a capture"
    assert node.metric("cxr_node_received_total", result="accepted") == 40
    assert node.metric("cxr_node_received_total", result="repeated") == 10
    assert node.metric("cxr_node_answered_total", version="1") == 40
    assert node.metric("cxr_node_delivered_total") == 80


def test_a_report_says_what_the_version_predicts_and_belongs_to_the_study_of_its_image(
    node: NodeCommand, pacs: ReportArchive, registered: tuple[str, ModelFolders]
) -> None:
    folders = registered[1]
    metadata = ModelMetadata.read(folders.evaluations / "three_block")
    image = radiograph(folders.images[3], 3)
    expected = Predictor.load(folders.models / "three_block", metadata).predict([folders.images[3]])[0]
    report, capture = sorted(
        (report for report in pacs.received if report.PatientID == f"{SECRET}-3"), key=lambda report: report.Modality
    )[::-1]
    assert (report.Modality, report.StudyInstanceUID) == ("SR", image.StudyInstanceUID)
    assert (capture.StudyInstanceUID, capture.BurnedInAnnotation) == (image.StudyInstanceUID, "YES")
    values = text_of(report)
    assert float(values[PROBABILITY.meaning]) == pytest.approx(expected.probability, abs=1e-5)
    assert "For research. Not for diagnosis." in " ".join(values.values())


def test_images_without_a_prediction_get_a_report_with_the_reason_or_wait_for_a_person(
    node: NodeCommand, pacs: ReportArchive, registered: tuple[str, ModelFolders], root: Path
) -> None:
    before = len(pacs.received)
    lateral = radiograph(registered[1].images[0], 100, ViewPosition="LL")
    nameless = radiograph(registered[1].images[0], 101)
    del nameless.StudyInstanceUID
    for number, dataset in enumerate((lateral, nameless)):
        (root / f"{number}.dcm").write_bytes(write_dicom(dataset))
        assert send(node.port, root / f"{number}.dcm") == 0
    wait_for(lambda: len(pacs.received) == before + 1 and node.metric("cxr_node_waiting_dead") == 1)
    assert "left lateral" in " ".join(text_of(pacs.received[-1]).values())
    assert node.metric("cxr_node_refused_total", kind="not_frontal") == 1
    assert node.metric("cxr_node_dead_total", reason="unreadable") == 1
    status = list_status(node)
    assert "1 dead letters" in status and "unreadable: unidentified" in status
    list_status(node, "--retry", "true")
    wait_for(lambda: node.metric("cxr_node_dead_total", reason="unreadable") == 2)


def test_another_champion_answers_without_a_restart(
    node: NodeCommand, pacs: ReportArchive, registered: tuple[str, ModelFolders], root: Path
) -> None:
    uri, folders = registered
    move_champion(uri, "2")
    wait_for(lambda: "version 2 of pneumonia-classifier answers" in node.text)
    (file,) = write(root / "after", folders.images, 1, first=200)
    assert send(node.port, file) == 0
    wait_for(lambda: pacs.patients()[f"{SECRET}-200"] == 2)
    versions = [report.SoftwareVersions for report in pacs.received if report.PatientID == f"{SECRET}-200"]
    assert all("version 2" in str(version) for version in versions)
    assert node.metric("cxr_node_answered_total", version="2") == 1


def test_nothing_outside_of_the_waiting_images_names_a_patient_or_a_uid(
    node: NodeCommand, pacs: ReportArchive, root: Path, registered: tuple[str, ModelFolders]
) -> None:
    """One image waits as a dead letter: its file is the only one with data of a patient."""
    assert node.metric("cxr_node_waiting_dead") == 1
    assert echo(node.port, calling="ANOTHER") != 0
    large = radiograph(registered[1].images[0], 102, Rows=2100, Columns=2100, PixelData=bytes(2100 * 2100))
    (root / "large.dcm").write_bytes(write_dicom(large))
    assert send(node.port, root / "large.dcm") != 0
    wait_for(lambda: node.metric("cxr_node_waiting_outgoing") == 0)
    written = [path for path in root.rglob("*") if not {"sent", "after", "run"} & set(path.relative_to(root).parts)]
    sent = {root / "0.dcm", root / "1.dcm", root / "large.dcm"}
    texts = {str(path): path.read_bytes() for path in written if path.is_file() and path not in sent}
    names = "\n".join(str(path.relative_to(root)) for path in written)
    texts |= {"names of files": names.encode(), "metrics": node.get("/metrics")[1].encode()}
    texts |= {"status": list_status(node).encode(), "health": node.get("/health")[1].encode()}
    images = [radiograph(registered[1].images[0], number) for number in range(3)]
    secrets = [SECRET.encode(), *(str(image[keyword].value).encode() for image in images for keyword in UIDS)]
    leaking = {name for name, text in texts.items() if any(secret in text for secret in secrets)}
    assert {Path(name).name for name in leaking} == {"image.dcm"}, leaking
    assert "mlflow.db" in names and node.log.name in names, "the search covers store and log"


UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


def test_sigterm_ends_the_node_at_once(node: NodeCommand) -> None:
    assert node.get("/health") == (200, "ok\n")
    started = time.monotonic()
    assert node.stop() == 143
    assert time.monotonic() - started < 15
    assert "Traceback" not in node.text


def send_until_accepted(node: NodeCommand, file: Path) -> None:
    """Send again until it is accepted, as a PACS does."""
    wait_for(lambda: send(node.port, file) == 0, 120)


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.exhaustive)])
def test_a_node_that_is_killed_under_load_loses_nothing_and_answers_nothing_twice(
    tmp_path: Path, folders: ModelFolders, archive: ReportArchive, kills: int
) -> None:
    seed = random.randrange(1 << 30)
    moments = random.Random(seed)
    files = write(tmp_path / "sent", folders.images, 40 * kills)
    model = str(folders.models / "three_block")
    with running_node(tmp_path, archive.address, "--model", model) as node, ThreadPoolExecutor(SENDERS) as pool:
        for kill in range(kills):
            sending = [pool.submit(send_until_accepted, node, file) for file in files[40 * kill : 40 * kill + 40]]
            goal = 40 * kill + moments.randrange(1, 30)
            wait_for(lambda goal=goal: len(archive.received) >= goal)
            node.kill()
            node.start()
            for future in sending:
                future.result()
        wait_for(lambda: len(archive.instances()) == len(files), 120)
        wait_for(lambda: node.metric("cxr_node_waiting_outgoing") == 0)
    reports = {}
    for report in archive.received:
        earlier = reports.setdefault(report.SOPInstanceUID, report)
        assert report == earlier, f"what comes twice is the same report; seed={seed}"
    assert len(archive.patients()) == len(reports) == len(files), f"seed={seed}"
    assert len(archive.received) <= len(files) + kills, "only the report that was under way comes twice"


@pytest.mark.exhaustive
def test_the_memory_of_the_node_is_flat_under_500_images_while_the_pacs_is_away_for_a_while(
    tmp_path: Path, folders: ModelFolders, archive: ReportArchive
) -> None:
    files = write(tmp_path / "sent", folders.images, 500)
    model = str(folders.models / "three_block")
    with running_node(tmp_path, archive.address, "--model", model) as node:
        assert send_all(node.port, files[:100]) == [0] * SENDERS
        wait_for(lambda: len(archive.received) == 100, 120)
        first = node.memory()
        archive.stop()
        threading.Timer(5.0, archive.start).start()
        assert send_all(node.port, files[100:]) == [0] * SENDERS
        wait_for(lambda: len(archive.received) == 500, 200)
        assert node.memory() - first < 60
    assert set(archive.instances().values()) == {1} and len(archive.patients()) == 500
