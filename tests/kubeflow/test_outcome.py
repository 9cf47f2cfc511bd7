"""The outcome of a run on a cluster: from what Kubeflow passes and from its API, logged, and recorded in MLflow."""

from __future__ import annotations

import json

import pytest

from cxr.cli import main
from cxr.errors import ParameterError
from cxr.lineage.pipeline_run import PipelineRun
from cxr.steps.outcome import Outcome
from cxr.tracking.store import Store
from support.kubeflow_runs import START, RunDetails


@pytest.fixture
def run_id(server, training_package):
    """A run of the training pipeline on the server."""
    command = ["kubeflow", "submit", "--package", training_package, "--experiment", "lungs"]
    assert main.main([str(part) for part in command]) == 0
    (identity,) = server.store.runs
    server.store.runs[identity].update(state="RUNNING", display_name="weekly 12")
    server.token = ""  # as for pods of an installation without several users
    return identity


@pytest.fixture
def show(server, run_id):
    """Let the server return these nodes, and perhaps a state, for the run."""

    def change(details, **fields):
        server.store.runs[run_id] |= {"run_details": {"task_details": details.to_json()}, **fields}

    return change


def status(state, message=""):
    """What Kubeflow passes to the task of an exit handler."""
    final_status = {
        "state": state,
        "pipelineJobResourceName": "namespace/kubeflow/runs/x7k2p",
        "pipelineTaskName": "exit-handler-1",
        "error": {"code": 9, "message": message} if message else {},
    }
    return json.dumps(final_status)


def read(server, run_id, final_status=None):
    return PipelineRun.read(run_id, api=server.url, final_status=final_status)


def complete(details, *, first_failure=""):
    """All steps with their containers; the exit handler's own task is running."""
    for key in ("fetch", "validate", "train", "train-2"):
        details.task(key, "FAILED" if key == first_failure else "SUCCEEDED")
        if key == first_failure:
            break
    details.task("outcome", "RUNNING", inside="root(0).exit-handler-1.onExit")
    return details


@pytest.fixture
def logged(uri):
    """The only entry in MLflow: status, tag `failed` and text."""

    def entry(experiment="lungs"):
        connected = Store(uri).client
        where = connected.get_experiment_by_name(f"{experiment}: pipeline runs").experiment_id
        (run,) = connected.search_runs([where])
        return run.info.status, run.data.tags["failed"], run.data.tags["mlflow.note.content"], run.info.run_name

    return entry


def execute(uri, **values):
    Outcome.build({"tracking_uri": uri, "experiment": "lungs", **values}).execute()


def test_the_failed_task_is_named_and_neither_its_parents_nor_its_container(server, run_id, show):
    show(complete(RunDetails(), first_failure="validate"))
    run = read(server, run_id, status("FAILED", "exit status 1"))
    assert (run.outcome, run.failed) == ("failed", ("validate",))
    assert "failed at validate (exit status 1)" in run.sentence()


def test_a_failed_training_has_the_name_of_its_model(server, run_id, show):
    show(complete(RunDetails(), first_failure="train-2"))
    assert read(server, run_id).failed == ("train shallow",)


def test_a_run_that_failed_is_not_a_success_when_its_record_stopped_before(server, run_id, show):
    details = RunDetails()
    details.task("fetch", "SUCCEEDED")
    details.task("train", "RUNNING")
    show(details)
    run = read(server, run_id, status("FAILED"))
    assert (run.outcome, run.failed) == ("failed", ())
    assert "failed; Kubeflow does not say where" in run.sentence()
    show(details, state="FAILED")
    assert read(server, run_id).outcome == "failed", "the state of the run says it without a final status"


def test_a_record_that_shows_only_successes_is_not_a_success_of_a_failed_run(server, run_id, show):
    show(complete(RunDetails()))
    assert read(server, run_id, status("FAILED")).outcome == "failed"


@pytest.mark.parametrize("final_status", [None, status("RUNNING"), status(""), "no json", "[]"])
def test_a_record_that_stopped_before_the_end_leaves_the_outcome_unknown(server, run_id, show, final_status):
    details = RunDetails()
    details.task("fetch", "SUCCEEDED")
    details.task("train", "RUNNING")
    show(details)
    run = read(server, run_id, final_status)
    assert run.outcome == "unknown" and "Kubeflow does not say how" in run.sentence()


@pytest.mark.parametrize("final_status", [None, status("RUNNING")])
def test_a_complete_record_of_successes_is_a_success(server, run_id, show, final_status):
    show(complete(RunDetails()))
    assert read(server, run_id, final_status).outcome == "succeeded"


@pytest.mark.parametrize("state", ["SUCCEEDED", "COMPLETE", "Succeeded"])
def test_the_status_that_kubeflow_passes_is_enough_for_a_success(state):
    assert PipelineRun.read("r", api=None, final_status=status(state)).outcome == "succeeded"


def test_a_failed_task_in_the_record_wins_over_a_final_status_of_success(server, run_id, show):
    show(complete(RunDetails(), first_failure="train"))
    assert read(server, run_id, status("COMPLETE")).failed == ("train plain_cnn",)


def test_tasks_are_named_by_their_keys_when_the_pipeline_cannot_be_read(server, run_id, show):
    show(complete(RunDetails(), first_failure="train-2"))
    server.fail(403, times=9, on="/versions/")
    assert read(server, run_id).failed == ("train-2",)


def test_a_scheduled_run_is_read_in_the_same_way(server, training_package):
    command = ["kubeflow", "schedule", "--package", training_package, "--cron", "0 0 2 * * 1"]
    assert main.main([str(part) for part in command]) == 0
    (schedule,) = server.store.recurring
    server.token = ""
    scheduled = server.fire(schedule, START, state="RUNNING")
    details = complete(RunDetails(), first_failure="train")
    server.store.runs[scheduled["run_id"]]["run_details"] = {"task_details": details.to_json()}
    assert read(server, scheduled["run_id"]).failed == ("train plain_cnn",)


def test_a_failed_run_is_recorded_in_mlflow_once(server, run_id, show, uri, logged):
    show(complete(RunDetails(), first_failure="validate"))
    for _ in range(2):
        execute(uri, run_id=run_id, api=server.url, final_status=status("FAILED", "exit status 1"))
    entry = logged()
    assert (entry[0], entry[1], entry[3]) == ("FAILED", "validate", "weekly 12")
    assert "exit status 1" in entry[2]


def test_a_successful_run_is_recorded_as_finished(server, run_id, show, uri, monkeypatch, logged):
    show(complete(RunDetails()))
    monkeypatch.setenv("CXR_PIPELINE_RUN", run_id)
    execute(uri, api=server.url)
    assert logged()[:2] == ("FINISHED", "none")


def test_a_failed_run_without_a_failed_task_is_recorded_as_failed(server, run_id, show, uri, logged):
    details = RunDetails()
    details.task("train", "RUNNING")
    show(details)
    execute(uri, run_id=run_id, api=server.url, final_status=status("FAILED"))
    assert logged()[:2] == ("FAILED", "Kubeflow does not say where")


def test_an_unknown_outcome_is_recorded_neither_as_a_success_nor_as_a_failure(server, run_id, show, uri, logged):
    details = RunDetails()
    details.task("train", "RUNNING")
    show(details)
    execute(uri, run_id=run_id, api=server.url, final_status=status("RUNNING"))
    assert logged()[:2] == ("KILLED", "unknown")


def test_an_api_that_does_not_respond_is_logged_and_fails_nothing(uri, caplog, logged):
    caplog.set_level("INFO", "cxr")
    values = {"tracking_uri": uri, "api": "http://127.0.0.1:9", "run_id": "r", "experiment": "lungs"}
    Outcome.build(values).execute()
    assert "gave no information about it" in caplog.text
    assert logged()[:2] == ("KILLED", "unknown")
    Outcome.build({**values, "final_status": status("FAILED")}).execute()
    assert logged()[:2] == ("FAILED", "Kubeflow does not say where")


def test_the_status_arrives_through_the_command_line(uri, logged):
    flags = {
        "tracking_uri": uri,
        "experiment": "lungs",
        "run_id": "r",
        "final_status": status("FAILED", "out of memory"),
    }
    assert main.main(["outcome", *(part for name, value in flags.items() for part in (f"--{name}", value))]) == 0
    assert logged()[0] == "FAILED" and "(out of memory)" in logged()[2]


def test_the_token_of_the_pod_is_sent(server, run_id, tmp_path):
    server.token = "right"
    (tmp_path / "token").write_text("right\n")
    run = PipelineRun.read(run_id, api=server.url, token=tmp_path / "token")
    assert (run.name, run.problem) == ("weekly 12", "")
    assert "401" in PipelineRun.read(run_id, api=server.url, token=tmp_path / "none").problem


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(ParameterError, match="api='ml-pipeline:8888'"):
        PipelineRun.read("r", api="ml-pipeline:8888")
