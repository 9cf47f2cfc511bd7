"""A real Orthanc with its DICOMweb plugin on loopback, and a gate in front of it that disturbs single responses."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.loopback import START_SECONDS, free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
HAS_DICOMWEB = shutil.which("Orthanc") is not None and PLUGIN.exists()
USER, PASSWORD = "reader", "secret-of-the-archive"
_LOGIN = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()


class Orthanc:
    """One archive; every request needs :data:`USER` and :data:`PASSWORD`."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.port = free_port()
        self._log = (folder / "orthanc.log").open("wb")
        settings = {
            "Name": "test", "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.port, "DicomServerEnabled": False, "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD},
            "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, **options,
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self._process = subprocess.Popen(
            ["Orthanc", str(folder / "orthanc.json")], stdout=self._log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.request("/system")
                return
            except (urllib.error.URLError, ConnectionError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Orthanc does not start, see {folder}/orthanc.log") from None
                time.sleep(0.2)

    def request(self, path: str, data: bytes | None = None) -> Any:
        """Send a request to Orthanc's own interface and return its JSON."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Authorization": _LOGIN})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def store(self, contents: Sequence[bytes]) -> list[str]:
        """Store DICOM files and return Orthanc's own numbers of them."""
        return [str(self.request("/instances", content)["ID"]) for content in contents]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._log.close()


class Gate:
    """Passes requests on, and disturbs those whose path contains a word.

    Attributes:
        address: root of DICOMweb behind the gate.
        disturbances: word of a path to what happens to its next requests: a status, or ``"cut"`` for half a response.
        token: bearer token that every request needs in place of the login of the archive; None passes logins on.
        images: number of images that were asked for.
    """

    def __init__(self, port: int) -> None:
        self.disturbances: dict[str, list[int | str]] = {}
        self.token: str | None = None
        self.images = 0
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                gate.images += "/instances/" in self.path
                word = next((word for word, left in gate.disturbances.items() if word in self.path and left), None)
                disturbance = gate.disturbances[word].pop(0) if word is not None else None
                headers = {name: self.headers[name] for name in ("Accept", "Authorization") if name in self.headers}
                if gate.token is not None:
                    disturbance = disturbance if headers.get("Authorization") == f"Bearer {gate.token}" else 401
                    headers["Authorization"] = _LOGIN
                if isinstance(disturbance, int):
                    self.send_response(disturbance)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                request = urllib.request.Request(f"http://127.0.0.1:{port}{self.path}", headers=headers)
                try:
                    with urllib.request.urlopen(request, timeout=60) as response:
                        status, kind, body = response.status, response.headers["Content-Type"], response.read()
                except urllib.error.HTTPError as error:
                    status, kind, body = error.code, "text/plain", b""
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if disturbance == "cut" else body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/dicom-web"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def running_orthanc(folder: Path) -> Iterator[tuple[Orthanc, Gate]]:
    """Start an archive and its gate."""
    orthanc = Orthanc(folder)
    gate = Gate(orthanc.port)
    try:
        yield orthanc, gate
    finally:
        gate.close()
        orthanc.stop()
