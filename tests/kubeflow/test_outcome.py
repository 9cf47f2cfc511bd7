"""The outcome of a run on a cluster: read from Kubeflow's API, logged, and recorded in MLflow."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cxr.errors import ParameterError
from cxr.lineage.pipeline_run import PipelineRun
from cxr.steps.outcome import Outcome
from cxr.tracking.store import Store

RUN = "5d1c2b9a-0000-4000-8000-0123456789ab"
TASKS = [
    {"task_id": "0", "display_name": "root", "state": "FAILED", "child_tasks": [{"pod_name": "a"}]},
    {"task_id": "1", "display_name": "fetch", "state": "SUCCEEDED"},
    {"task_id": "2", "display_name": "validate", "state": "FAILED", "error": {"message": "exit status 1"}},
    {"task_id": "3", "display_name": "resplit", "state": "SKIPPED"},
]


@pytest.fixture
def api():
    """A server with the one response of Kubeflow's API that these tests need."""
    run = {"run_id": RUN, "display_name": "weekly 12", "run_details": {"task_details": TASKS}}
    requests = []

    class RunHandler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append((self.path, self.headers.get("Authorization")))
            exists = self.path == f"/apis/v2beta1/runs/{RUN}"
            body = json.dumps(run if exists else {"error": "not found"}).encode()
            self.send_response(200 if exists else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), RunHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.run, server.requests = run, requests
    yield server
    server.shutdown()
    server.server_close()


def address(server):
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_the_failed_task_is_named_and_not_its_parent(api, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    run = PipelineRun.read(address(api), RUN, tmp_path / "token")
    assert dict(run.failed) == {"validate": "exit status 1"}
    assert "validate: exit status 1" in run.sentence()
    assert api.requests == [(f"/apis/v2beta1/runs/{RUN}", "Bearer secret")]


def test_a_failed_run_is_recorded_in_mlflow_once(api, uri):
    step = Outcome.build({"tracking_uri": uri, "experiment": "lungs", "api": address(api), "run_id": RUN})
    step.execute()
    step.execute()
    connected = Store(uri).client
    where = connected.get_experiment_by_name("lungs: pipeline runs").experiment_id
    (entry,) = connected.search_runs([where])
    assert (entry.info.run_name, entry.info.status) == ("weekly 12", "FAILED")
    assert entry.data.tags["failed"] == "validate"
    assert "exit status 1" in entry.data.tags["mlflow.note.content"]


def test_a_successful_run_is_recorded_as_finished(api, uri, monkeypatch):
    del api.run["run_details"]["task_details"][2]
    api.run["run_details"]["task_details"][0]["state"] = "RUNNING"
    monkeypatch.setenv("CXR_PIPELINE_RUN", RUN)
    Outcome.build({"tracking_uri": uri, "experiment": "lungs", "api": address(api)}).execute()
    connected = Store(uri).client
    where = connected.get_experiment_by_name("lungs: pipeline runs").experiment_id
    (entry,) = connected.search_runs([where])
    assert (entry.info.status, entry.data.tags["failed"]) == ("FINISHED", "none")


def test_an_api_that_does_not_respond_is_logged_and_fails_nothing(uri, caplog):
    caplog.set_level("INFO", "cxr")
    values = {"tracking_uri": uri, "api": "http://127.0.0.1:9", "run_id": RUN, "experiment": "lungs"}
    Outcome.build(values).execute()
    assert "gave no information about the run" in caplog.text
    connected = Store(uri).client
    where = connected.get_experiment_by_name("lungs: pipeline runs").experiment_id
    (entry,) = connected.search_runs([where])
    assert entry.data.tags["failed"] == "unknown"


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(ParameterError, match="api='ml-pipeline:8888'"):
        PipelineRun.read("ml-pipeline:8888", RUN)
