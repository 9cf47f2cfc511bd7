"""`submit --wait` and `status` about runs as a real server shows them, with the nodes of Argo."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cxr.cli import main
from cxr.kubeflow.run_progress import error_lines
from support.kubeflow_runs import INSIDE, START, RunDetails, pod_name
from support.kubeflow_server import KubeflowServer

REJECTION = """\
24 of 25 files accepted
cxr validate: the data were rejected by 1 critical check:
cxr validate: - labels_of_picture: No image has both labels: expected at most 1 label, received 1 image
I1127 10:02:11.104821       1 launcher_v2.go:782] ExecutorOutput: {}
I1127 10:02:11.204821       1 object_store.go:73] uploading report
F1127 10:02:11.304821       1 main.go:56] failed to execute component: exit status 1
time="2026-11-27T10:02:11.4Z" level=info msg="sub-process exited" error="<nil>"
"""
DRIVER_FAILURE = """\
I1127 10:02:10.104821       1 main.go:108] Setting log level to: '1'
F1127 10:02:11.304821       1 main.go:79] KFP driver: driver.Container failed: failed to resolve container args: \
parameter "downloads" not found in executor input
"""
IMAGE = f"{INSIDE}.validate(0).executor(0)"


@pytest.fixture
def submit(capsys, training_package):
    def run(*arguments):
        command = ["kubeflow", "submit", "--package", training_package, "--wait", "true", "--seconds", "0.01"]
        status = main.main([str(part) for part in (*command, *arguments)])
        return (status, *capsys.readouterr())

    return run


def play(server, *scenes):
    """Change the run with each request for it; a scene is a function of the nodes, and the last one ends the run."""
    details, remaining_scenes = RunDetails(), list(scenes)

    def look(run):
        state = (remaining_scenes.pop(0) if remaining_scenes else lambda nodes: None)(details)
        run["state"] = state or run.get("state", "RUNNING")
        run["run_details"] = {"task_details": details.to_json()}

    server.on_look = look


def only_run(server):
    (run,) = server.store.runs.values()
    return run["run_id"]


def task_lines(out):
    return [line.strip() for line in out.splitlines() if line.startswith("  ")]


def succeed(nodes):
    nodes.end("SUCCEEDED")
    return "SUCCEEDED"


def fail(nodes):
    nodes.end("FAILED")
    return "FAILED"


def test_a_run_in_which_nothing_changes_tells_once_what_it_may_wait_for(server, submit, monkeypatch):
    monkeypatch.setattr("cxr.kubeflow.run_progress.QUIET_PATIENCE", 0.0)
    waits = [lambda nodes: None] * 5
    play(server, lambda nodes: nodes.task("validate", "RUNNING", seconds=0), *waits, succeed)
    status, out, err = submit()
    assert status == 0, err
    (line,) = [line for line in task_lines(out) if line.startswith("no change")]
    assert "waits for a node, a volume or an image: kubectl -n kubeflow get pods,pvc" in line


def test_each_task_has_one_line_for_each_change_under_its_display_name(server, submit, caplog):
    play(
        server,
        lambda nodes: nodes.cached("fetch"),
        lambda nodes: nodes.driver("validate", "RUNNING"),
        lambda nodes: nodes.task("validate", "RUNNING", seconds=0),
        lambda nodes: None,
        lambda nodes: nodes.task("validate", "SUCCEEDED", seconds=90),
        lambda nodes: nodes.volume("createpvc", "SUCCEEDED"),
        lambda nodes: nodes.task("train", "RUNNING", seconds=0),
        lambda nodes: nodes.task("train", "RUNNING", tries=("FAILED", "RUNNING"), seconds=0),
        lambda nodes: nodes.task("train", "SUCCEEDED", tries=("FAILED", "SUCCEEDED"), seconds=600),
        lambda nodes: nodes.task("train-2", "SUCCEEDED", seconds=300),
        succeed,
    )
    server.fail(503, times=8, on="GET /apis/v2beta1/runs/")
    server.fail(503, times=4, on="/versions/")
    status, out, err = submit()
    assert status == 0, err
    assert "and so does this command" in caplog.text, "the server was unavailable for some requests"
    assert task_lines(out) == [
        "fetch: taken from the cache",
        "validate: pending",
        "validate: running",
        "validate: succeeded after 92 s",
        "train plain_cnn: running",
        "train plain_cnn: trying again (try 2 of 4)",
        "train plain_cnn: succeeded in try 2 after 602 s",
        "train shallow: succeeded after 302 s",
        "outcome: succeeded after 7 s",
    ]
    assert f"run {only_run(server)} succeeded" in out


def test_a_failed_step_is_told_once_with_the_error_of_its_log_and_the_command_for_it(server, submit):
    def reject(nodes):
        nodes.task("validate", "FAILED")
        for key in ("train", "train-2"):
            nodes.omitted(key)

    pod = pod_name("system-container-impl", IMAGE)
    server.logs[pod] = REJECTION
    play(server, lambda nodes: nodes.cached("fetch"), reject, fail)
    status, out, err = submit()
    assert status == 1
    assert "validate: failed after 62 s" in task_lines(out) and "train plain_cnn: skipped" in task_lines(out)
    assert [line.removeprefix("cxr kubeflow submit: ") for line in err.splitlines()[-5:]] == [
        f"expected run={only_run(server)} to succeed, received state=FAILED: validate failed",
        "cxr validate: the data were rejected by 1 critical check:",
        "cxr validate: - labels_of_picture: No image has both labels: expected at most 1 label, received 1 image",
        f"log: kubectl -n kubeflow logs {pod} -c main",
        "submit again when it is repaired: steps that succeeded are taken from the cache",
    ]
    for inner_name in ("executor", "root", "exit-handler", "(0)", "x7k2p "):
        assert inner_name not in err.replace(pod, ""), "names of Kubeflow's inner nodes help nobody"


def test_the_log_comes_from_the_api_when_no_page_is_in_front_of_it(server, submit):
    server.has_page = False
    server.logs[pod_name("system-container-impl", IMAGE)] = REJECTION
    play(server, lambda nodes: nodes.task("validate", "FAILED"), fail)
    assert "cxr validate: the data were rejected by 1 critical check:" in submit()[2]


def test_without_a_log_the_command_for_it_is_there_all_the_same(server, submit):
    play(server, lambda nodes: nodes.task("validate", "FAILED"), fail)
    status, _, err = submit()
    assert status == 1
    assert "validate failed" in err
    assert f"log: kubectl -n kubeflow logs {pod_name('system-container-impl', IMAGE)} -c main" in err


def test_the_last_try_of_a_training_is_the_one_whose_log_is_named(server, submit):
    play(server, lambda nodes: nodes.task("train", "FAILED", tries=("FAILED",) * 4), fail)
    _, out, err = submit()
    assert "train plain_cnn: failed in try 4 after 62 s" in task_lines(out)
    last_pod = pod_name("retry-system-container-impl", f"{INSIDE}.train(0).executor(3)")
    assert "train plain_cnn failed\n" in err and last_pod in err


def test_a_failed_driver_is_told_with_its_own_pod(server, submit):
    pod = pod_name("system-container-driver", f"{INSIDE}.fetch-driver(0)")
    server.logs[pod] = DRIVER_FAILURE

    def break_driver(nodes):
        nodes.driver("fetch", "FAILED")
        nodes.omitted("validate")

    play(server, break_driver, fail)
    status, _, err = submit()
    assert status == 1
    assert "fetch failed before it started: Kubeflow could not prepare it" in err
    assert 'KFP driver: driver.Container failed: failed to resolve container args: parameter "downloads" not' in err
    assert f"kubectl -n kubeflow logs {pod} -c main" in err


def test_the_failed_driver_of_a_group_is_told(server, submit):
    def break_group(nodes):
        nodes.driver("exit-handler-1", "FAILED", inside="root(0)")
        return "FAILED"

    play(server, break_group)
    _, _, err = submit()
    assert "steps failed before it started" in err
    assert pod_name("system-dag-driver", "root(0).exit-handler-1-driver(0)") in err


def test_the_first_of_two_failures_is_the_cause(server, submit):
    play(
        server,
        lambda nodes: nodes.task("train-2", "FAILED", tries=("FAILED",) * 4, seconds=10),
        lambda nodes: nodes.task("train", "FAILED", tries=("FAILED",) * 4, seconds=10),
        fail,
    )
    err = submit()[2]
    assert "train shallow failed\n" in err and "train plain_cnn failed" not in err


def test_a_volume_is_shown_only_when_it_fails_or_takes_long(server, submit):
    play(
        server,
        lambda nodes: nodes.volume("createpvc", "RUNNING"),  # since 2026-11-23: for more than a minute
        lambda nodes: nodes.volume("createpvc", "FAILED"),
        fail,
    )
    _, out, err = submit()
    assert datetime.now(UTC) > START
    assert "createpvc: running" in task_lines(out)
    assert "createpvc failed before it started" in err
    assert pod_name("system-container-driver", f"{INSIDE}.createpvc(0)") in err


def test_a_failed_run_whose_record_stopped_early_is_not_told_as_a_success_or_as_nothing(server, submit):
    def stop_at_training(nodes):
        nodes.task("validate", "SUCCEEDED")
        nodes.task("train", "RUNNING")

    play(server, stop_at_training, lambda nodes: "FAILED")
    status, _, err = submit()
    assert status == 1
    run_id = only_run(server)
    assert "received state=FAILED: failed; Kubeflow does not say where" in err
    assert f"kubectl -n kubeflow get pods -l pipeline/runid={run_id} --field-selector status.phase=Failed" in err
    assert f"logs -l pipeline/runid={run_id} -c main --prefix --tail=-1 | grep -E '] (cxr |F[0-9]{{4}} )'" in err
    assert "Argo's limit of 1 MB" in err


def test_tasks_are_recognised_by_name_when_the_server_does_not_show_the_pipeline(server, submit):
    play(server, lambda nodes: nodes.cached("fetch"), lambda nodes: nodes.task("train-2", "FAILED"), fail)
    server.fail(404, times=9, on="/versions/")
    status, out, err = submit()
    assert status == 1
    assert task_lines(out) == [
        "fetch: succeeded after 2 s",
        "train-2: failed after 62 s",
        "outcome: succeeded after 7 s",
    ]
    assert "train-2 failed\n" in err and "grep -E" in err


def test_with_several_users_the_pods_are_in_the_namespace(monkeypatch, submit, tmp_path):
    monkeypatch.chdir(tmp_path)
    with KubeflowServer(multi_user=True) as server:
        monkeypatch.setenv("KFP_HOST", server.url)
        play(server, lambda nodes: nodes.task("validate", "FAILED"), fail)
        assert "log: kubectl -n cxr logs cxr-training-" in submit()[2]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (REJECTION, REJECTION.splitlines()[1:3]),
        (DRIVER_FAILURE, [DRIVER_FAILURE.splitlines()[1].partition("] ")[2]]),
        (
            "Traceback (most recent call last):\n  File ...\nMemoryError: no memory\n"
            "F1127 10:02:11.304821       1 main.go:56] failed to execute component: exit status 1\n",
            ["MemoryError: no memory"],
        ),
        ("epoch 3 of 10\n", []),
        ("", []),
    ],
)
def test_the_error_is_found_above_the_lines_of_kubeflow(text, lines):
    assert error_lines(text) == lines


def test_status_says_where_failed_runs_failed(server, submit, capsys):
    play(server, lambda nodes: nodes.task("validate", "FAILED"), fail)
    submit()
    assert main.main(["kubeflow", "status"]) == 0
    out = capsys.readouterr().out
    assert "validate failed" in out
    assert f"log: kubectl -n kubeflow logs {pod_name('system-container-impl', IMAGE)} -c main" in out


def test_status_says_so_when_the_record_of_a_failed_run_names_no_task(server, submit, capsys):
    play(server, lambda nodes: nodes.task("train", "RUNNING"), lambda nodes: "FAILED")
    submit()
    assert main.main(["kubeflow", "status"]) == 0
    out = capsys.readouterr().out
    assert "failed; Kubeflow does not say where" in out and "pods that failed: kubectl" in out
