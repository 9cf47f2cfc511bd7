"""The parts of the Kubernetes API that a training on several nodes uses, over TLS: TrainJobs, their pods and logs."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from support.tls_files import write_tls_files

SCHEMA = yaml.safe_load((Path(__file__).parents[1] / "train_job" / "train_job.schema.yaml").read_text(encoding="utf-8"))
JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/cxr/trainjobs"
PODS = "/api/v1/namespaces/cxr/pods"


class KubernetesServer:
    """The server; use it as a context manager. A test plays the Trainer in ``on_look``."""

    def __init__(self, folder: Path) -> None:
        """Write the files of a service account into a new folder, and its namespace ``cxr``."""
        self.account = folder
        files = write_tls_files(folder, "server")["server"]
        (folder / "authorities.pem").rename(folder / "ca.crt")
        (folder / "token").write_text("right\n")
        (folder / "namespace").write_text("cxr")
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.logs: dict[str, str] = {}
        self.requests: list[str] = []
        self.faults: list[int] = []
        """Statuses of the next answers in place of the right ones."""
        self.on_look: Callable[[dict[str, Any]], None] = lambda job: None
        """Called with a job before it is returned."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(files.certificate, files.key)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"kubernetes": self}))
        self._http.daemon_threads = True
        self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.environment = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self._http.server_address[1]),
        }

    def __enter__(self) -> KubernetesServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def add_pod(self, job: str, number: int, phase: str, log: str = "") -> None:
        """Add the pod of a process, or replace it."""
        name = f"{job}-node-0-{number}-x7k2p"
        labels = {"jobset.sigs.k8s.io/jobset-name": job, "batch.kubernetes.io/job-completion-index": str(number)}
        self.pods = [pod for pod in self.pods if pod["metadata"]["name"] != name]
        self.pods.append({"metadata": {"name": name, "labels": labels}, "status": {"phase": phase}})
        self.logs[name] = log

    def respond(self, method: str, path: str, query: str, body: bytes) -> tuple[int, Any]:
        """Status and content of an answer."""
        job = re.fullmatch(rf"{JOBS}/([a-z0-9-]+)", path)
        pod = re.fullmatch(rf"{PODS}/([a-z0-9-]+)/log", path)
        if method == "POST" and path == JOBS:
            content = json.loads(body)
            jsonschema.validate(content, SCHEMA)
            if content["metadata"]["name"] in self.jobs:
                return 409, "it exists already"
            self.jobs[content["metadata"]["name"]] = content
            return 201, content
        if method == "GET" and job and job[1] in self.jobs:
            self.on_look(self.jobs[job[1]])
            # Kubernetes removes the job some time after the request to delete it.
            stored = self.jobs.get(job[1])
            if stored and "deletionTimestamp" in stored["metadata"]:
                del self.jobs[job[1]]
            return (200, stored) if stored else (404, "not found")
        if method == "DELETE" and job and job[1] in self.jobs:
            assert json.loads(body) == {"propagationPolicy": "Foreground"}
            self.jobs[job[1]]["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
            return 200, self.jobs[job[1]]
        if method == "GET" and path == PODS:
            label, _, value = query.removeprefix("labelSelector=").partition("%3D")
            return 200, {"items": [pod for pod in self.pods if pod["metadata"]["labels"].get(label) == value]}
        if method == "GET" and pod and pod[1] in self.logs and query == "container=node":
            return 200, self.logs[pod[1]]
        return 404, "not found"


def end_job(job: dict[str, Any], kind: str, message: str = "") -> None:
    """Give a job the condition ``Complete`` or ``Failed``, as the Trainer does."""
    conditions = [
        {"type": "Suspended", "status": "False", "reason": "Resumed", "message": "TrainJob is resumed"},
        {"type": kind, "status": "True", "reason": f"Jobs{kind}", "message": message},
    ]
    job["status"] = {"conditions": conditions}


class _Handler(BaseHTTPRequestHandler):
    kubernetes: KubernetesServer

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.kubernetes.requests.append(f"{self.command} {path}")
        if self.headers["Authorization"] != "Bearer right":
            status, content = 401, "Unauthorized"
        elif self.kubernetes.faults:
            status, content = self.kubernetes.faults.pop(0), "fault"
        else:
            try:
                status, content = self.kubernetes.respond(self.command, path, query, body)
            except jsonschema.ValidationError as error:
                status, content = 422, error.message
        if status >= 400:
            content = {"kind": "Status", "message": content}
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Write nothing."""
