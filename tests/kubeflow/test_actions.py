"""submit, schedule and unschedule against a server that checks each request with KFP's own models."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cxr.cli import main
from support.kubeflow_server import KubeflowServer

ARGUMENTS = ("--arguments", "{data_md5: abc.dir}")


@pytest.fixture
def cxr(capsys):
    """Run an action; gives exit status, standard output and standard error."""

    def run(*words):
        status = main.main(["kubeflow", *map(str, words)])
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def submit(cxr, package):
    return lambda *words: cxr("submit", "--package", package, *ARGUMENTS, *words)


@pytest.fixture
def schedule(cxr, package):
    return lambda *words: cxr("schedule", "--package", package, *ARGUMENTS, *words)


def only(kept):
    assert len(kept) == 1
    return next(iter(kept.values()))


def test_submit_starts_a_run_of_an_explicit_version_and_gives_its_page(server, submit):
    status, out, err = submit("--experiment", "trial", "--pipeline_root", "s3://cxr-kubeflow/runs")
    assert status == 0, err
    run, version = only(server.store.runs), only(server.store.versions)
    assert run["run_id"] in out and f"{server.url}/#/runs/details/{run['run_id']}" in out
    assert run["pipeline_version_reference"] == {
        "pipeline_id": version["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert run["runtime_config"] == {"parameters": {"data_md5": "abc.dir"}, "pipeline_root": "s3://cxr-kubeflow/runs"}
    assert run["service_account"] == "cxr-pipeline"
    assert only(server.store.experiments)["display_name"] == "trial"
    assert only(server.store.pipelines)["display_name"] == "cxr-training"
    assert version["name"].startswith("sha256-") and version["name"] in out
    assert "git commit" in version["description"]


def test_the_same_content_is_uploaded_once_and_other_content_as_another_version(server, submit, cxr, package, tmp_path):
    assert submit()[0] == submit()[0] == 0
    assert len(server.store.versions) == 1 and len(server.store.runs) == 2
    other = tmp_path / "other.yaml"
    other.write_text(package.read_text().replace("cxr-data", "cxr-data:2"))
    assert cxr("submit", "--package", other, *ARGUMENTS)[0] == 0
    assert len(server.store.versions) == 2 and len(server.store.pipelines) == 1


def test_a_pipeline_experiment_or_version_that_another_process_made_meanwhile_is_taken(server, submit):
    for on in ("POST /apis/v2beta1/experiments", "POST /apis/v2beta1/pipelines", "upload_version"):
        server.fail(409, on=on, after=True)
    status, out, err = submit()
    assert status == 0, err
    assert "was there already" in out
    assert len(server.store.versions) == len(server.store.pipelines) == len(server.store.experiments) == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("{}", "expected the argument data_md5 of cxr-training (text), received none"),
        ("{data_md5: a, colour: red}", "among: data_md5, images; received colour='red'"),
        ("{data_md5: a, images: many}", "images of cxr-training to be a whole number, received images='many'"),
        ("{data_md5: a, images: true}", "images of cxr-training to be a whole number, received images=True"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(server, cxr, package, arguments, part):
    status, _, err = cxr("submit", "--package", package, "--arguments", arguments)
    assert status == 2
    assert part in err
    assert server.requests == []


@pytest.mark.parametrize(("name", "content"), [("a.yaml", "a: 1"), ("a.yaml", "{"), ("a.zip", ""), ("a.yaml", None)])
def test_a_file_that_is_no_package_is_refused(server, cxr, tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_text(content)
    status, _, err = cxr("submit", "--package", tmp_path / name)
    assert status == 2
    assert f"package={tmp_path / name}" in err and "cxr kubeflow compile" in err
    assert server.requests == []


def test_an_archived_experiment_is_told(server, submit):
    assert submit()[0] == 0
    only(server.store.experiments)["storage_state"] = "ARCHIVED"
    status, _, err = submit()
    assert status == 1 and "which is archived; restore it" in err
    assert len(server.store.runs) == 1


def play(*scenes):
    """Let a run get on with each look: states of its tasks, and of the run at last."""
    left = list(scenes)

    def look(run):
        tasks = left.pop(0) if left else {}
        state = tasks.pop("run", "RUNNING")
        run["state"] = state
        details = run.setdefault("run_details", {"task_details": []})["task_details"]
        for name, value in tasks.items():
            task = next((one for one in details if one["task_id"] == name), None)
            if task is None:
                task = {"task_id": name, "display_name": name, "start_time": "2026-11-23T02:00:00Z"}
                details.append(task)
            task["state"] = value
            if value in {"SUCCEEDED", "FAILED"}:
                task["end_time"] = "2026-11-23T02:01:30Z"
            if value == "FAILED" and name != "root":
                task["parent_task_id"] = "each" if name != "each" else "root"
                task["error"] = {"code": 1, "message": f"{name} broke"}

    return look


def test_wait_follows_the_run_and_tells_each_change_once(server, submit, caplog):
    server.on_look = play(
        {"root": "RUNNING", "validate-driver": "SUCCEEDED", "validate": "RUNNING"},
        {"validate": "SUCCEEDED", "train": "RUNNING"},
        {"train": "RUNNING"},
        {"train": "SUCCEEDED", "root": "SUCCEEDED", "run": "SUCCEEDED"},
    )
    server.fail(503, times=8, on="GET /apis/v2beta1/runs/")
    status, out, err = submit("--wait", "true", "--seconds", "0.01")
    assert status == 0, err
    assert "and so does this command" in caplog.text, "the server was away for two looks, and is asked on"
    assert [line.strip() for line in out.splitlines() if line.startswith("  ")] == [
        "validate: running", "validate: succeeded after 90 s", "train: running", "train: succeeded after 90 s",
    ]  # fmt: skip
    assert f"run {only(server.store.runs)['run_id']} succeeded" in out


def test_wait_fails_with_the_run_and_names_the_task_that_did(server, submit):
    server.on_look = play(
        {"root": "RUNNING", "each": "RUNNING", "validate": "RUNNING"},
        {"validate": "FAILED", "each": "FAILED", "root": "FAILED", "run": "FAILED"},
    )
    status, out, err = submit("--wait", "true", "--seconds", "0.01")
    assert status == 1
    assert "validate: failed after 90 s" in out
    assert "received state=FAILED: validate\n" in err
    assert "validate: validate broke" in err and "each broke" not in err, "what holds it failed with it"


def test_schedule_says_when_and_asks_for_what_the_parameters_say(server, schedule):
    status, out, err = schedule("--cron", "0 2 * * 1")
    assert status == 0, err
    made = only(server.store.recurring)
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * 1"}}
    assert made["display_name"] == "cxr-training"
    assert made["no_catchup"] is True and made["max_concurrency"] == "1" and made["mode"] == "ENABLE"
    version = only(server.store.versions)
    assert made["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert "has five fields: read as 0 0 2 * * 1" in out
    assert "cxr-training: every Monday 02:00 UTC, in place of 0 older" in out
    dates = out.partition("next: ")[2].partition(" UTC")[0].split(", ")
    assert len(dates) == 3
    for text in dates:
        date = datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        assert date > datetime.now(UTC) and date.weekday() == 0 and date.hour == 2


def test_schedule_replaces_what_has_its_name_and_leaves_the_others(server, schedule):
    assert schedule()[0] == schedule("--schedule_name", "Cxr-Training")[0] == schedule("--schedule_name", "b")[0] == 0
    status, out, _ = schedule("--cron", "0 0 4 * * *", "--enabled", "false", "--max_concurrency", "2")
    assert status == 0
    assert "every day 04:00 UTC (paused), in place of 1 older" in out
    found = {one["display_name"]: one for one in server.store.recurring.values()}
    assert sorted(found) == ["Cxr-Training", "b", "cxr-training"], "names with other capitals are other names"
    mine = found["cxr-training"]
    assert (mine["status"], mine["max_concurrency"]) == ("DISABLED", "2")
    assert mine["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"


def test_more_older_schedules_than_fit_a_page_are_all_deleted(server, schedule, cxr):
    assert schedule()[0] == 0
    first = only(server.store.recurring)
    for number in range(250):
        server.store.recurring[str(number)] = {**first, "recurring_run_id": str(number)}
    assert "in place of 251 older" in schedule()[1]
    assert len(server.store.recurring) == 1
    assert "1 deleted" in cxr("unschedule")[1]


def test_a_run_that_goes_on_survives_a_new_schedule_and_the_end_of_it(server, schedule, cxr):
    assert schedule()[0] == 0
    run = server.fire(only(server.store.recurring)["recurring_run_id"], datetime.now(UTC), state="RUNNING")
    assert schedule()[0] == 0
    again = server.fire(only(server.store.recurring)["recurring_run_id"], datetime.now(UTC), state="RUNNING")
    assert cxr("unschedule")[0] == 0
    assert server.store.runs[run["run_id"]]["state"] == "RUNNING"
    assert server.store.runs[again["run_id"]]["state"] == "RUNNING"


def test_a_new_schedule_that_cannot_be_made_leaves_the_old_one(server, schedule):
    assert schedule()[0] == 0
    before = dict(server.store.recurring)
    server.fail(403, on="POST /apis/v2beta1/recurringruns")
    status, _, err = schedule("--cron", "0 0 4 * * *")
    assert status == 1
    assert "no leave for it (403" in err
    assert "what was scheduled before as 'cxr-training' is as it was" in err
    assert server.store.recurring == before


def test_an_old_schedule_that_cannot_be_deleted_is_told_and_the_same_command_heals_it(server, schedule):
    assert schedule()[0] == 0
    server.fail(403, on="DELETE")
    status, _, err = schedule("--cron", "0 0 4 * * *")
    assert status == 1
    assert "1 older one(s) beside it would run as well; run the same command again" in err
    assert len(server.store.recurring) == 2
    assert schedule("--cron", "0 0 4 * * *")[0] == 0
    assert only(server.store.recurring)["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"


def test_a_schedule_that_was_made_although_the_server_said_500_is_not_left_twice(server, schedule):
    server.fail(500, times=2, on="POST /apis/v2beta1/recurringruns", after=True)
    status, _, err = schedule()
    assert status == 0, err
    assert len(server.store.recurring) == 1


def test_unschedule_says_how_many(server, schedule, cxr):
    assert schedule()[0] == 0
    assert cxr("unschedule", "--schedule_name", "other") == (0, "other: 0 deleted\n", "")
    status, out, _ = cxr("unschedule")
    assert (status, out) == (0, "cxr-training: 1 deleted\n")
    assert server.store.recurring == {}


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--cron", "0 0 2 * * 7"], "cron='0 0 2 * * 7'"),
        (["--time_zone", "Mars"], "time_zone='Mars'"),
        (["--max_concurrency", "11"], "max_concurrency='11'"),
        (["--namespace", "Cxr"], "namespace='Cxr'"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_sent(server, schedule, words, part):
    status, _, err = schedule(*words)
    assert status == 2 and part in err
    assert server.requests == []


def test_with_several_users_everything_is_in_the_namespace(monkeypatch, cxr, package, tmp_path):
    monkeypatch.chdir(tmp_path)
    with KubeflowServer(multi_user=True) as server:
        monkeypatch.setenv("KFP_HOST", server.url)
        for _ in range(2):
            status, _, err = cxr("schedule", "--package", package, *ARGUMENTS)
            assert status == 0, err
        assert cxr("submit", "--package", package, *ARGUMENTS)[0] == 0
        made = only(server.store.recurring)
        assert made["namespace"] == only(server.store.experiments)["namespace"] == "cxr"
        server.fire(made["recurring_run_id"], datetime.now(UTC))
        status, out, _ = cxr("status")
        assert status == 0 and "succeeded" in out
        status, _, err = cxr("submit", "--package", package, *ARGUMENTS, "--namespace", "null")
        assert status == 2 and "namespace=null" in err


def test_compile_writes_what_submit_takes(cxr, repository, tmp_path):
    pytest.importorskip("cxr.kubeflow.compiler", reason="the compilation is another part")
    out = tmp_path / "deep" / "scoring.yaml"
    status, text, err = cxr(
        "compile", "--params", repository / "params.yaml", "--pipeline", "scoring", "--package", out
    )
    assert status == 0, err
    assert out.exists() and "cxr-scoring, version sha256-" in text


def test_compile_needs_the_parameter_file(cxr, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = cxr("compile")
    assert status == 2 and "params=params.yaml" in err
