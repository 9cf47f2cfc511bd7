"""submit, schedule and unschedule against a server that checks each request with KFP's own models."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cxr.cli import main
from support.kubeflow_server import KubeflowServer

ARGUMENTS = ("--arguments", "{data_md5: abc.dir}")


@pytest.fixture
def cxr(capsys):
    """Run an action; returns exit status, standard output and standard error."""

    def run(*arguments):
        status = main.main(["kubeflow", *map(str, arguments)])
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def submit(cxr, package):
    return lambda *arguments: cxr("submit", "--package", package, *ARGUMENTS, *arguments)


@pytest.fixture
def schedule(cxr, package):
    return lambda *arguments: cxr("schedule", "--package", package, *ARGUMENTS, *arguments)


def only(objects):
    assert len(objects) == 1
    return next(iter(objects.values()))


def test_submit_starts_a_run_of_an_explicit_version_and_shows_its_page(server, submit):
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


def test_the_same_content_is_uploaded_once_and_new_content_as_another_version(server, submit, cxr, package, tmp_path):
    assert submit()[0] == submit()[0] == 0
    assert len(server.store.versions) == 1 and len(server.store.runs) == 2
    changed = tmp_path / "changed.yaml"
    changed.write_text(package.read_text().replace("cxr-data", "cxr-data:2"))
    assert cxr("submit", "--package", changed, *ARGUMENTS)[0] == 0
    assert len(server.store.versions) == 2 and len(server.store.pipelines) == 1


def test_a_pipeline_experiment_or_version_that_another_process_creates_meanwhile_is_used(server, submit):
    for on in ("POST /apis/v2beta1/experiments", "POST /apis/v2beta1/pipelines", "upload_version"):
        server.fail(409, on=on, after=True)
    status, out, err = submit()
    assert status == 0, err
    assert "exists already" in out
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


def test_an_archived_experiment_is_refused(server, submit):
    assert submit()[0] == 0
    only(server.store.experiments)["storage_state"] = "ARCHIVED"
    status, _, err = submit()
    assert status == 1 and "which is archived; restore it" in err
    assert len(server.store.runs) == 1


def test_schedule_shows_its_dates_and_sends_the_values_of_its_parameters(server, schedule):
    status, out, err = schedule("--cron", "0 2 * * 1")
    assert status == 0, err
    created = only(server.store.recurring)
    assert created["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * 1"}}
    assert created["display_name"] == "cxr-training"
    assert created["no_catchup"] is True and created["max_concurrency"] == "1" and created["mode"] == "ENABLE"
    version = only(server.store.versions)
    assert created["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert "has five fields: read as 0 0 2 * * 1" in out
    assert "cxr-training: At 02:00, only on Monday (UTC); it replaces 0 older" in out
    dates = out.partition("next: ")[2].partition(" UTC")[0].split(", ")
    assert len(dates) == 3
    for text in dates:
        date = datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        assert date > datetime.now(UTC) and date.weekday() == 0 and date.hour == 2


def test_schedule_replaces_only_schedules_with_its_name(server, schedule):
    assert schedule()[0] == schedule("--schedule_name", "Cxr-Training")[0] == schedule("--schedule_name", "b")[0] == 0
    status, out, _ = schedule("--cron", "0 0 4 * * *", "--enabled", "false", "--max_concurrency", "2")
    assert status == 0
    assert "At 04:00 (UTC), paused; it replaces 1 older" in out
    schedules = {created["display_name"]: created for created in server.store.recurring.values()}
    assert sorted(schedules) == ["Cxr-Training", "b", "cxr-training"], "names that differ in case are different names"
    replaced = schedules["cxr-training"]
    assert (replaced["status"], replaced["max_concurrency"]) == ("DISABLED", "2")
    assert replaced["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"


def test_more_older_schedules_than_fit_a_page_are_all_deleted(server, schedule, cxr):
    assert schedule()[0] == 0
    first = only(server.store.recurring)
    for number in range(250):
        server.store.recurring[str(number)] = {**first, "recurring_run_id": str(number)}
    assert "it replaces 251 older" in schedule()[1]
    assert len(server.store.recurring) == 1
    assert "1 deleted" in cxr("unschedule")[1]


def test_a_started_run_goes_on_when_its_schedule_is_replaced_or_deleted(server, schedule, cxr):
    assert schedule()[0] == 0
    run = server.fire(only(server.store.recurring)["recurring_run_id"], datetime.now(UTC), state="RUNNING")
    assert schedule()[0] == 0
    again = server.fire(only(server.store.recurring)["recurring_run_id"], datetime.now(UTC), state="RUNNING")
    assert cxr("unschedule")[0] == 0
    assert server.store.runs[run["run_id"]]["state"] == "RUNNING"
    assert server.store.runs[again["run_id"]]["state"] == "RUNNING"


def test_a_new_schedule_that_cannot_be_created_leaves_the_old_one(server, schedule):
    assert schedule()[0] == 0
    original = dict(server.store.recurring)
    server.fail(403, on="POST /apis/v2beta1/recurringruns")
    status, _, err = schedule("--cron", "0 0 4 * * *")
    assert status == 1
    assert "no permission for it (403" in err
    assert "older schedules with the name 'cxr-training' are unchanged" in err
    assert server.store.recurring == original


def test_an_old_schedule_that_cannot_be_deleted_is_reported_and_the_same_command_deletes_it(server, schedule):
    assert schedule()[0] == 0
    server.fail(403, on="DELETE")
    status, _, err = schedule("--cron", "0 0 4 * * *")
    assert status == 1
    assert "1 older one(s) would run as well; run the same command again" in err
    assert len(server.store.recurring) == 2
    assert schedule("--cron", "0 0 4 * * *")[0] == 0
    assert only(server.store.recurring)["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"


def test_a_schedule_that_was_created_although_the_server_returned_500_is_not_kept_twice(server, schedule):
    server.fail(500, times=2, on="POST /apis/v2beta1/recurringruns", after=True)
    status, _, err = schedule()
    assert status == 0, err
    assert len(server.store.recurring) == 1


def test_unschedule_shows_how_many_it_deleted(server, schedule, cxr):
    assert schedule()[0] == 0
    assert cxr("unschedule", "--schedule_name", "other") == (0, "other: 0 deleted\n", "")
    status, out, _ = cxr("unschedule")
    assert (status, out) == (0, "cxr-training: 1 deleted\n")
    assert server.store.recurring == {}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--cron", "0 0 2 * * 7"], "cron='0 0 2 * * 7'"),
        (["--time_zone", "Mars"], "time_zone='Mars'"),
        (["--max_concurrency", "11"], "max_concurrency='11'"),
        (["--namespace", "Cxr"], "namespace='Cxr'"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_sent(server, schedule, arguments, part):
    status, _, err = schedule(*arguments)
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
        created = only(server.store.recurring)
        assert created["namespace"] == only(server.store.experiments)["namespace"] == "cxr"
        server.fire(created["recurring_run_id"], datetime.now(UTC))
        status, out, _ = cxr("status")
        assert status == 0 and "succeeded" in out
        status, _, err = cxr("submit", "--package", package, *ARGUMENTS, "--namespace", "null")
        assert status == 2 and "namespace=null" in err


def test_compile_writes_a_package_that_submit_accepts(cxr, repository, tmp_path):
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
