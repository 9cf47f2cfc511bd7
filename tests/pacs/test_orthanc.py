"""Orthanc as the PACS: it forwards what it stores to the node, and shows the answers in the study of the image."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cxr.pacs.delivery import DeliveryWorker
from cxr.pacs.destinations import open_destination
from cxr.pacs.image_queue import ImageQueue
from cxr.pacs.metrics import NodeMetrics
from cxr.pacs.settings import QueueLimits
from cxr.steps.node import Node
from support.dicom_files import write_dicom
from support.dicom_node import NODE_TITLE, PACS_TITLE, NodeCommand, radiograph, running_node, wait_for
from support.loopback import free_port
from support.model_folders import ModelFolders
from support.orthanc import HAS_DICOMWEB, PASSWORD, USER, Orthanc

pytestmark = pytest.mark.skipif(not HAS_DICOMWEB, reason="Orthanc and its DICOMweb plugin are not installed")
FORWARD = Path(__file__).parents[2] / "infra" / "hospital" / "forward.lua"
UNKNOWN = "1.2.840.10008.5.1.4.1.1.7"


@dataclass
class Hospital:
    """An Orthanc that forwards to a node, and the node."""

    orthanc: Orthanc
    node: NodeCommand

    def kinds(self) -> dict[str, list[str]]:
        """Patient to the modalities of all instances of their study."""
        studies = self.orthanc.request("/studies")
        return {self._patient(study): sorted(self._modalities(study)) for study in studies}

    def _patient(self, study: str) -> str:
        return str(self.orthanc.request(f"/studies/{study}/patient")["MainDicomTags"]["PatientID"])

    def _modalities(self, study: str) -> Iterator[str]:
        for series in self.orthanc.request(f"/studies/{study}/series"):
            yield from [series["MainDicomTags"]["Modality"]] * len(series["Instances"])


@pytest.fixture(scope="module")
def hospital(folders: ModelFolders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    root = tmp_path_factory.mktemp("hospital")
    pacs_port = free_port()
    with ExitStack() as stack:
        destination = f"dicom://{PACS_TITLE}@127.0.0.1:{pacs_port}"
        model = str(folders.models / "three_block")
        node = stack.enter_context(running_node(root, destination, "--model", model, "--capture", "true"))
        orthanc = Orthanc(
            root, DicomServerEnabled=True, DicomAet=PACS_TITLE, DicomPort=pacs_port, LuaScripts=[str(FORWARD)],
            DicomModalities={"cxr": [NODE_TITLE, "127.0.0.1", node.port]},
        )  # fmt: skip
        stack.callback(orthanc.stop)
        yield Hospital(orthanc, node)


def test_what_orthanc_stores_is_answered_in_the_study_of_the_image(hospital: Hospital, folders: ModelFolders) -> None:
    files = [write_dicom(radiograph(folders.images[number], number)) for number in range(4)]
    hospital.orthanc.store(files)
    wait_for(lambda: list(hospital.kinds().values()) == [["DX", "OT", "SR"]] * 4)
    hospital.orthanc.store(files)
    time.sleep(1)
    assert list(hospital.kinds().values()) == [["DX", "OT", "SR"]] * 4
    assert hospital.node.metric("cxr_node_dead_total") == 0


def test_reports_reach_orthanc_by_stow(
    hospital: Hospital, folders: ModelFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{hospital.orthanc.port}/dicom-web"
    settings = Node(folder=tmp_path / "node", destination=url, longest_retry_seconds=0.01).settings()
    queue = ImageQueue(settings.folder)

    def deliver(number: int, **tags: Any) -> None:
        """Deliver a document; a radiograph would be forwarded to the node."""
        dataset = radiograph(folders.images[0], number, Modality="OT", SOPClassUID=UNKNOWN, **tags)
        name = queue.name_of(str(number), b"")
        queue.accept(name, b"an image", QueueLimits(images=10, min_free_bytes=0, keep_seconds=60))
        queue.keep_reports(name, {"report": write_dicom(dataset)})
        worker = DeliveryWorker(queue, open_destination(settings), settings.delivery, NodeMetrics(queue))
        worker.work()

    with queue.work():
        deliver(50)
        assert queue.counts()["outgoing"] == 1, "without credentials it waits"
        monkeypatch.setenv("CXR_DICOMWEB_USER", USER)
        monkeypatch.setenv("CXR_DICOMWEB_PASSWORD", PASSWORD)
        time.sleep(settings.delivery.longest_seconds)  # by then it may be tried again
        deliver(51)
        assert queue.counts()["outgoing"] == 0
    assert {patient.rpartition("-")[2] for patient in hospital.kinds()} >= {"50", "51"}
