"""A server with Kubeflow Pipelines' API: objects in memory, requests checked against its models, and faults."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from support.kubeflow_models import InvalidBodyError, check_body

API_ROOT = "/apis/v2beta1"
OPERATIONS = ("OPERATION_UNSPECIFIED", "EQUALS")
LIST_FIELDS = {"experiments": "experiments", "pipelines": "pipelines", "runs": "runs", "recurringruns": "recurringRuns"}
"""Last part of a path to the field of the response."""


class RequestRefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


@dataclass
class Fault:
    """A fault in place of a response: ``hang``, ``cut``, ``page`` or a status."""

    kind: str | int
    times: int
    on: str
    after: bool
    """Whether the request is carried out first."""
    message: str


@dataclass
class Store:
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)


class KubeflowServer:
    """The server; use it as a context manager."""

    def __init__(self, *, multi_user: bool = False, token: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.multi_user, self.token = multi_user, token
        self.store = Store()
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.on_look: Callable[[dict[str, Any]], None] = lambda run: None
        """Called with a run before it is returned, so that a test can change its state."""
        self.logs: dict[str, str] = {}
        """Name of a pod to its log, which Kubeflow's page shows."""
        self.has_page = True
        """Whether Kubeflow's page is in front of the API; without it only the API's own address of logs exists."""
        self.lock = threading.RLock()
        self.open = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"kubeflow": self}))
        self._http.daemon_threads = True
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> KubeflowServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        self._http.shutdown()
        self._http.server_close()

    def fail(self, kind: str | int, times: int = 1, on: str = "", *, after: bool = False, message: str = "") -> None:
        """Respond with a fault to the next requests whose "METHOD path" contains ``on``."""
        self.faults.append(Fault(kind, times, on, after, message or f"fault {kind}"))

    def fault(self, request: str) -> Fault | None:
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and fault.on in request:
                    fault.times -= 1
                    return fault
        return None

    def fire(self, recurring_run_id: str, at: datetime, state: str = "SUCCEEDED") -> dict[str, Any]:
        """Add a run as the schedule's controller would."""
        source = self.store.recurring[recurring_run_id]
        run = {key: source[key] for key in ("experiment_id", "pipeline_version_reference", "runtime_config")}
        run |= {"recurring_run_id": recurring_run_id, "scheduled_at": _text(at)}
        run |= {"display_name": f"{source['display_name']} 1", "state": state}
        return self._add(self.store.runs, "run_id", run, created=at + timedelta(seconds=4))

    def backdate(self, recurring_run_id: str, days: int) -> None:
        """Set the date of a schedule's creation to some days ago."""
        self.store.recurring[recurring_run_id]["created_at"] = _text(datetime.now(UTC) - timedelta(days=days))

    def respond(
        self, method: str, path: str, query: dict[str, str], body: Callable[[], bytes], kind: str
    ) -> dict | str:
        """The API's response, or the text of a log; :class:`RequestRefusedError` if it refuses."""
        with self.lock:
            parts = path.removeprefix(f"{API_ROOT}/").split("/")
            if method == "GET" and path == "/k8s/pod/logs" and self.has_page:
                return self._log(query["podname"])
            if method == "GET" and path.startswith("/apis/v1alpha1/runs/") and path.endswith("/log"):
                return self._log(path.split("/")[-2])
            if not path.startswith(f"{API_ROOT}/"):
                raise RequestRefusedError(404, "Not Found")
            if method == "GET":
                return self._get(parts, query)
            if method == "DELETE" and parts[0] == "recurringruns":
                return self._delete(parts[1], query)
            if parts[0] == "pipelines" and parts[-1].startswith("upload"):
                return self._upload(parts[-1], query, body(), kind)
            if method == "POST" and len(parts) == 1:
                return self._create(parts[0], json.loads(body()))
            raise RequestRefusedError(501, "Method Not Allowed")

    def _log(self, pod: str) -> str:
        if pod not in self.logs:
            raise RequestRefusedError(500, f"Could not get main container logs: pod {pod} not found")
        return self.logs[pod]

    def _get(self, parts: list[str], query: dict[str, str]) -> dict:
        store = self.store
        if parts == ["healthz"]:
            return {"multi_user": self.multi_user}
        if len(parts) == 1 and parts[0] in LIST_FIELDS:
            objects = {"recurringruns": store.recurring}.get(parts[0]) or getattr(store, parts[0], {})
            if self.multi_user and parts[0] != "pipelines" and not {"namespace", "experiment_id"} & set(query):
                raise RequestRefusedError(400, "A namespace or an experiment is needed in multi-user mode")
            return self._list(LIST_FIELDS[parts[0]], list(objects.values()), query)
        if parts[0] == "pipelines" and parts[-1] == "versions":
            versions = [version for version in store.versions.values() if version["pipeline_id"] == parts[1]]
            return self._list("pipeline_versions", versions, query)
        if parts[0] == "pipelines" and parts[-2] == "versions":
            version = store.versions.get(parts[-1])
            if version is None or version["pipeline_id"] != parts[1]:
                raise RequestRefusedError(404, f"PipelineVersion {parts[-1]} not found")
            return {**{key: item for key, item in version.items() if key != "package"}, **_spec(version["package"])}
        objects_by_kind = {"runs": store.runs, "recurringruns": store.recurring, "experiments": store.experiments}
        resource = objects_by_kind.get(parts[0], {}).get(parts[-1])
        if resource is None:
            raise RequestRefusedError(404, f"{parts[0]} {parts[-1]} not found")
        if parts[0] == "runs":
            self.on_look(resource)
        return resource

    def _list(self, name: str, objects: list[dict], query: dict[str, str]) -> dict:
        for predicate in json.loads(query.get("filter") or "{}").get("predicates", ()):
            operation = predicate["operation"]
            if (OPERATIONS[operation] if isinstance(operation, int) else operation) != "EQUALS":
                raise RequestRefusedError(400, f"unknown operation {operation!r}")
            value = predicate.get("string_value", predicate.get("stringValue"))
            key = predicate["key"]
            if key not in {"display_name", "name", "recurring_run_id"}:
                raise RequestRefusedError(400, f"Invalid filter key {key!r}")
            # As in KFP's tables, comparisons of names ignore case.
            objects = [item for item in objects if str(item.get(key, "")).lower() == value.lower()]
        for key in ("namespace", "experiment_id"):
            if query.get(key):
                objects = [item for item in objects if item.get(key) == query[key]]
        by, _, direction = query.get("sort_by", "").partition(" ")
        objects = sorted(objects, key=lambda item: item[by or "created_at"], reverse=direction == "desc")
        start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 20)
        response: dict[str, Any] = {name: objects[start : start + size], "total_size": len(objects)}
        if start + size < len(objects):
            response["next_page_token"] = str(start + size)
        return response

    def _create(self, kind: str, body: dict[str, Any]) -> dict:
        models = {
            "experiments": "V2beta1Experiment", "pipelines": "V2beta1Pipeline",
            "runs": "V2beta1Run", "recurringruns": "V2beta1RecurringRun",
        }  # fmt: skip
        check_body(body, models[kind], kind)
        if not body.get("display_name"):
            raise RequestRefusedError(400, "The name is empty")
        if kind == "experiments":
            self._namespace(body)
            self._unique(self.store.experiments, body)
            return self._add(self.store.experiments, "experiment_id", {"storage_state": "AVAILABLE", **body})
        if kind == "pipelines":
            self._unique(self.store.pipelines, body)
            return self._add(self.store.pipelines, "pipeline_id", body)
        self._references(body)
        if kind == "runs":
            return self._add(self.store.runs, "run_id", {"state": "PENDING", **body})
        self._namespace(body)
        if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
            raise RequestRefusedError(400, "The max concurrency of the recurring run is out of range. Support 1-10")
        if len(body["trigger"]["cron_schedule"]["cron"].split()) not in {5, 6}:
            raise RequestRefusedError(400, "Schedule cron is not a supported format")
        status = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[body["mode"]]
        return self._add(self.store.recurring, "recurring_run_id", {**body, "status": status})

    def _references(self, body: dict[str, Any]) -> None:
        reference = body.get("pipeline_version_reference") or {}
        version = self.store.versions.get(reference.get("pipeline_version_id", ""))
        if version is None or version["pipeline_id"] != reference.get("pipeline_id"):
            raise RequestRefusedError(404, "PipelineVersion not found")
        experiment = self.store.experiments.get(body.get("experiment_id", ""))
        if experiment is None:
            raise RequestRefusedError(404, "Experiment not found")
        if experiment["storage_state"] == "ARCHIVED":
            raise RequestRefusedError(400, "The experiment is archived")
        if "namespace" in experiment:
            body["namespace"] = experiment["namespace"]
        pipeline = next(iter(yaml.safe_load_all(version["package"])))  # the second document describes the platform
        takes = pipeline["root"].get("inputDefinitions", {}).get("parameters", {})
        if unknown := set(body.get("runtime_config", {}).get("parameters", {})) - set(takes):
            raise RequestRefusedError(400, f"unknown parameters {unknown}")

    def _upload(self, action: str, query: dict[str, str], body: bytes, kind: str) -> dict:
        message = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
        part = message.get_payload()[0]
        if part.get_param("name", header="content-disposition") != "uploadfile":
            raise RequestRefusedError(400, "Failed to read pipeline from file")
        package = part.get_payload(decode=True)
        if "pipelineInfo" not in next(iter(yaml.safe_load_all(package))):
            raise RequestRefusedError(400, "Failed to read a pipeline spec file")
        if action == "upload":
            pipeline = self._create("pipelines", {"display_name": query["name"], "name": query["name"]})
            query = {**query, "pipelineid": pipeline["pipeline_id"]}
        if query.get("pipelineid") not in self.store.pipelines:
            raise RequestRefusedError(400, "Failed to create a pipeline version")
        version = {"display_name": query["name"], "name": query["name"], "pipeline_id": query["pipelineid"]}
        versions = {
            key: item for key, item in self.store.versions.items() if item["pipeline_id"] == query["pipelineid"]
        }
        self._unique(versions, version)
        version |= {"description": query.get("description", ""), "package": package.decode()}
        added = self._add(self.store.versions, "pipeline_version_id", version)
        return pipeline if action == "upload" else {key: item for key, item in added.items() if key != "package"}

    def _delete(self, identity: str, query: dict[str, str]) -> dict:
        if identity not in self.store.recurring:
            raise RequestRefusedError(404, f"Job {identity} not found")
        del self.store.recurring[identity]
        if query.get("propagation_policy") != "ORPHAN":
            for run in self.store.runs.values():
                if run.get("recurring_run_id") == identity and run["state"] == "RUNNING":
                    run["state"] = "FAILED"  # Kubernetes deletes what the deleted schedule owns
        return {}

    def _namespace(self, body: dict[str, Any]) -> None:
        if self.multi_user != bool(body.get("namespace")):
            raise RequestRefusedError(400, "A namespace belongs to multi-user mode, and only there")

    def _unique(self, objects: dict[str, dict[str, Any]], body: dict[str, Any]) -> None:
        if any(item["display_name"] == body["display_name"] for item in objects.values()):
            raise RequestRefusedError(409, f"Already exist error: the name {body['display_name']} already exists")

    def _add(self, objects: dict[str, dict], key: str, body: dict, created: datetime | None = None) -> dict:
        body = {**body, key: str(uuid.uuid4()), "created_at": _text(created or datetime.now(UTC))}
        objects[body[key]] = body
        return body


class _Handler(BaseHTTPRequestHandler):
    kubeflow: KubeflowServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        fault = self.kubeflow.fault(f"{self.command} {path}")
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if fault and not fault.after:
                return self._fail(fault)
            token = self.kubeflow.token
            if token and self.headers.get("Authorization") != f"Bearer {token}":
                raise RequestRefusedError(401, "Request header error: there is no user identity header.")
            query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
            kind = self.headers.get("Content-Type") or ""
            response = self.kubeflow.respond(self.command, path, query, lambda: content, kind)
            if fault:
                return self._fail(fault)
            if isinstance(response, str):
                self._send(200, response.encode(), "text/plain")
            else:
                self._send(200, json.dumps(response).encode())
        except RequestRefusedError as error:
            self._send(error.status, json.dumps({"code": 3, "message": error.message, "details": []}).encode())
        except (InvalidBodyError, ValueError, KeyError) as error:
            self._send(400, json.dumps({"code": 3, "message": f"{type(error).__name__}: {error}"}).encode())

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def _fail(self, fault: Fault) -> None:
        if fault.kind == "hang":
            self.kubeflow.open.wait(20)
        if fault.kind in {"hang", "cut"}:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault.kind == "page":
            self._send(200, b"<html>Please log in</html>", "text/html")
            return
        status = int(fault.kind)
        if 300 <= status < 400:
            self._send(status, b"", location="/dex/auth")
            return
        self._send(status, json.dumps({"code": 13, "message": fault.message, "details": []}).encode())

    def _send(self, status: int, content: bytes, kind: str = "application/json", location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _spec(package: str) -> dict[str, Any]:
    """A version's field ``pipeline_spec``: with settings for Kubernetes, the pipeline is one of two parts."""
    pipeline, *platforms = yaml.safe_load_all(package)
    spec = {"pipeline_spec": pipeline, "platform_spec": platforms[0]} if platforms else pipeline
    return {"pipeline_spec": spec}


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
