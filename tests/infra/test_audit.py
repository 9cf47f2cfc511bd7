"""`make audit` fails on a known vulnerability, lets accepted ones pass, and says when nobody could be asked."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

PINNED = f"""
pydicom==3.0.1 --hash=sha256:{"a" * 64}
pyyaml==6.0.1 --hash=sha256:{"b" * 64}
"""


class Vulnerabilities(BaseHTTPRequestHandler):
    """The interface of OSV: one of two packages has a vulnerability."""

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "6.0.2"}]}]
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]
        known = {"id": "PYSEC-1", "aliases": ["CVE-1"], "summary": "runs code", "affected": affected}
        body = json.dumps({"vulns": [known]} if name == "pyyaml" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Vulnerabilities)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def audit(repository: Path, folder: Path, url: str, accepted: str = "accepted = []", pinned: str = PINNED):
    (folder / "pinned.txt").write_text(pinned)
    (folder / "accepted.toml").write_text(accepted)
    command = [sys.executable, repository / "requirements" / "audit.py", folder / "pinned.txt"]
    command += ["--accepted", folder / "accepted.toml", "--services", "osv", "--osv_url", url]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)


def test_a_known_vulnerability_fails_unless_a_person_accepted_it(repository, tmp_path, service):
    result = audit(repository, tmp_path, service)
    assert result.returncode == 1
    assert "VULNERABLE: pyyaml 6.0.1, PYSEC-1 (mended in 6.0.2): runs code" in result.stdout
    assert "2 of 2 packages audited by osv" in result.stdout
    entry = '[[accepted]]\nid = "CVE-1"\npackage = "{}"\nreason = "never parsed here"\ndate = 2026-01-31\n'
    passed = audit(repository, tmp_path, service, entry.format("pyyaml"))
    assert passed.returncode == 0, passed.stderr
    assert "accepted: pyyaml 6.0.1, PYSEC-1 (mended in 6.0.2): never parsed here (2026-01-31)" in passed.stdout
    other = audit(repository, tmp_path, service, entry.format("pydicom"))
    assert other.returncode == 1
    assert "no longer needed in accepted.toml: pydicom, CVE-1" in other.stdout


def test_where_nobody_can_be_asked_it_says_so_and_passes(repository, tmp_path):
    # Port 9 is refused on loopback, unless somebody really runs "discard".
    result = audit(repository, tmp_path, "http://127.0.0.1:9/v1/query")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("not audited: no service") and "ConnectionError" in result.stdout


def test_what_cannot_be_read_is_no_audit(repository, tmp_path):
    unhashed = audit(repository, tmp_path, "http://127.0.0.1:9", pinned="pyyaml==6.0.1\n")
    assert unhashed.returncode == 2 and "pinned.txt" in unhashed.stderr
    nameless = audit(repository, tmp_path, "http://127.0.0.1:9", '[[accepted]]\nid = "CVE-1"\npackage = "pyyaml"\n')
    assert nameless.returncode == 2 and "reason and date" in nameless.stderr
