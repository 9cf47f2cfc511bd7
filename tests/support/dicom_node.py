"""`cxr node`, an archive that takes its reports, and radiographs to send."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.presentation import build_context

from cxr.images.decoding import decode_grey
from cxr.pacs.settings import TlsFiles
from cxr.pacs.tls import make_context
from support.dicom_files import SECRET, dicom_dataset, write_dicom
from support.forked_processes import COMMAND, ForkedProcess
from support.loopback import free_port

NODE_TITLE, PACS_TITLE = "CXR", "PACS"
_STARTED = "receives images on"


def radiograph(image: Path, number: int, **tags: Any) -> Dataset:
    """An image file as a radiograph of a patient of its own, whose data must stay inside."""
    dataset = dicom_dataset(np.ascontiguousarray(decode_grey(image.read_bytes())))
    dataset.PatientName = f"{SECRET}^Person{number}"
    dataset.PatientID = f"{SECRET}-{number}"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20260102", "101112", f"{SECRET}{number}"
    dataset.ReferringPhysicianName, dataset.StudyID = f"{SECRET}^Doctor", f"{SECRET}{number}"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(dataset, keyword, generate_uid(entropy_srcs=[keyword, str(number)]))
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    return dataset


def write_radiographs(folder: Path, images: Sequence[Path], count: int, first: int = 0) -> list[Path]:
    """Write radiographs of different patients as DICOM files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(first, first + count):
        path = folder / f"{number}.dcm"
        path.write_bytes(write_dicom(radiograph(images[number % len(images)], number)))
        paths.append(path)
    return paths


def dcmtk(program: str) -> str:
    """Path of a program of DCMTK; pynetdicom installs others of the same name beside Python."""
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != Path(sys.executable).parent]
    path = shutil.which(program, path=os.pathsep.join(folders))
    if path is None:
        pytest.skip("DCMTK is not installed")
    return path


def send(
    port: int,
    *files: Path | str,
    called: str = NODE_TITLE,
    calling: str = PACS_TITLE,
    tls: TlsFiles | None = None,
) -> int:
    """Send files with DCMTK in one association; returns the exit status of storescu."""
    security = [] if tls is None else ["+tls", tls.key, tls.certificate, "+cf", tls.authorities]
    command = [dcmtk("storescu"), "-aet", calling, "-aec", called, *security, "+sd", "127.0.0.1", port]
    return subprocess.run(list(map(str, [*command, *files])), capture_output=True, timeout=120).returncode


def echo(port: int, called: str = NODE_TITLE, calling: str = PACS_TITLE) -> int:
    """Ask by C-ECHO with DCMTK; returns the exit status of echoscu."""
    command = [dcmtk("echoscu"), "-aet", calling, "-aec", called, "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, timeout=60).returncode


def wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


class ReportArchive:
    """A PACS that stores what it is sent, and that can be away or refuse everything."""

    def __init__(self, *, classes: Sequence[str] = (), tls: TlsFiles | None = None) -> None:
        self.received: list[Dataset] = []
        self.status_of: Callable[[Dataset], int] = lambda report: 0x0000
        self.port = 0
        self._classes, self._tls = classes, tls
        self._server: Any = None
        self._lock = threading.Lock()
        self.start()

    def start(self) -> None:
        from pynetdicom import AE, AllStoragePresentationContexts, evt

        entity = AE(ae_title=PACS_TITLE)
        own_contexts = [build_context(sop_class) for sop_class in self._classes]
        entity.supported_contexts = own_contexts or AllStoragePresentationContexts
        context = make_context(self._tls, server=True) if self._tls is not None else None
        handlers = [(evt.EVT_C_STORE, self._store)]
        self._server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=handlers, ssl_context=context
        )
        self.port = self._server.server_address[1]

    def require_calling_title(self, title: str) -> None:
        self._server.ae.require_calling_aet = [title]

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _store(self, event: Any) -> int:
        report = event.dataset
        status = self.status_of(report)
        if status == 0x0000:
            with self._lock:
                self.received.append(report)
        return status

    @property
    def address(self) -> str:
        return f"dicom://{PACS_TITLE}@127.0.0.1:{self.port}"

    def patients(self) -> Counter[str]:
        """How many reports there are of each patient."""
        with self._lock:
            return Counter(str(report.PatientID) for report in self.received)

    def instances(self) -> Counter[str]:
        """How often each report has come."""
        with self._lock:
            return Counter(str(report.SOPInstanceUID) for report in self.received)


class NodeCommand:
    """`cxr node` on free ports, with short times between attempts to deliver; forked, it has its packages already."""

    def __init__(self, folder: Path, destination: str, *arguments: str, forked: bool) -> None:
        self.folder, self.log = folder / "node", folder / "log"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.port, self.status_port = free_port(), free_port()
        self._forked = forked
        self._arguments = [
            *("node", "--folder", str(self.folder), "--destination", destination),
            *("--port", str(self.port), "--status_port", str(self.status_port), "--min_free_megabytes", "1"),
            *("--retry_seconds", "0.2", "--longest_retry_seconds", "1", *arguments),
        ]
        self.start()

    def start(self) -> None:
        starts = self.text.count(_STARTED)
        self.process = self._new_process()
        deadline = time.monotonic() + 240
        while self.text.count(_STARTED) == starts:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    def _new_process(self) -> subprocess.Popen[bytes] | ForkedProcess:
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        if self._forked:
            return ForkedProcess(COMMAND, *self._arguments, environment=environment, log=self.log)
        command = [sys.executable, "-m", "cxr.cli.main", *self._arguments]
        with self.log.open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=output, env=environment)

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}{path}", timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """A value of /metrics, added up over the labels that are not named."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name:
                line_labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                total += float(match[3]) if labels.items() <= line_labels.items() else 0.0
        return total

    def memory(self) -> float:
        """Resident memory, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def running_node(folder: Path, destination: str, *arguments: str, forked: bool = True) -> Iterator[NodeCommand]:
    """Run a node, with its queue, its log and its temporary files in one folder."""
    node = NodeCommand(folder, destination, *arguments, forked=forked)
    try:
        yield node
    finally:
        node.kill()
