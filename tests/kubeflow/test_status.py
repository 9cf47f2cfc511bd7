"""status: schedules and their runs, and an error when a schedule did not start a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cxr.cli import main
from cxr.kubeflow.cron import parse_cron

ARGUMENTS = ("--arguments", "{data_md5: abc.dir}")
NOW = datetime.now(UTC)


def hours_ago(hours):
    """A daily cron expression that was last due so many hours ago, and that date."""
    due = (NOW - timedelta(hours=hours)).replace(second=0, microsecond=0)
    return f"0 {due.minute} {due.hour} * * *", due


@pytest.fixture
def status(capsys):
    def run(*arguments):
        capsys.readouterr()
        exit_status = main.main(["kubeflow", "status", *map(str, arguments)])
        return (exit_status, *capsys.readouterr())

    return run


@pytest.fixture
def schedule(server, package):
    """Create a schedule and set its date of creation to some days ago; returns its id."""

    def run(cron, *arguments, days=3):
        existing = set(server.store.recurring)
        status = main.main(["kubeflow", "schedule", "--package", str(package), *ARGUMENTS, "--cron", cron, *arguments])
        assert status == 0
        (identity,) = set(server.store.recurring) - existing
        server.backdate(identity, days)
        return identity

    return run


def test_nothing_scheduled_and_no_runs(server, status):
    exit_status, out, _ = status()
    assert exit_status == 0
    assert "cxr-training: not scheduled; schedule it with `cxr kubeflow schedule`" in out and "no runs yet" in out
    assert server.store.experiments == {}, "status creates nothing"


def test_a_schedule_that_started_its_run_is_shown(server, status, schedule):
    cron, due = hours_ago(2)
    run = server.fire(schedule(cron), due)
    exit_status, out, err = status()
    assert exit_status == 0, err
    assert f"cxr-training: {parse_cron(cron).describe('UTC')}, enabled" in out
    assert f"last run: {due + timedelta(seconds=4):%Y-%m-%d %H:%M:%S} UTC, succeeded" in out
    assert f"next run: {due + timedelta(days=1):%a %Y-%m-%d %H:%M:%S} UTC" in out
    assert f"succeeded   {run['run_id']}  cxr-training 1" in out


def test_a_schedule_that_did_not_start_its_run_fails(server, status, schedule):
    cron, due = hours_ago(2)
    server.fire(schedule(cron), due - timedelta(days=1))
    exit_status, out, err = status()
    assert exit_status == 1
    assert "succeeded" in out, "earlier runs are shown all the same"
    assert f"expected a run at {due:%a %Y-%m-%d %H:%M:%S} UTC, received none" in err
    assert "ml-pipeline-scheduledworkflow" in err
    assert status("--tolerance", "180")[0] == 0, "a run may be late by the tolerance"


def test_a_schedule_that_never_started_a_run_fails(server, status, schedule):
    cron, _ = hours_ago(2)
    schedule(cron)
    exit_status, out, err = status()
    assert exit_status == 1 and "last run: never" in out and "received none" in err


def test_a_date_before_the_schedule_was_created_is_not_missed(server, status, schedule):
    cron, _ = hours_ago(2)
    schedule(cron, days=0)
    assert status()[0] == 0


def test_a_paused_schedule_misses_nothing(server, status, schedule):
    cron, _ = hours_ago(2)
    schedule(cron, "--enabled", "false")
    exit_status, out, _ = status()
    assert exit_status == 0
    assert "paused" in out and "next run: -" in out


def test_an_unfinished_run_is_named_as_the_reason(server, status, schedule):
    cron, due = hours_ago(2)
    run = server.fire(schedule(cron), due - timedelta(days=1), state="RUNNING")
    exit_status, _, err = status()
    assert exit_status == 1
    assert f"{run['run_id']} is still running, and max_concurrency=1" in err


def test_runs_of_other_schedules_do_not_count(server, status, schedule):
    cron, due = hours_ago(2)
    schedule(cron)
    server.fire(schedule(cron, "--schedule_name", "other"), due)
    assert status()[0] == 1
    assert status("--schedule_name", "other")[0] == 0


def test_two_schedules_with_one_name_are_reported(server, status, schedule):
    first = schedule("0 0 2 1 1 *", days=0)
    server.store.recurring["twin"] = {**server.store.recurring[first], "recurring_run_id": "twin"}
    exit_status, _, err = status()
    assert exit_status == 1
    assert "expected one schedule=cxr-training, received 2" in err


def test_a_schedule_with_a_periodic_trigger_is_shown(server, status, schedule):
    identity = schedule("0 0 2 * * *", days=0)
    server.store.recurring[identity]["trigger"] = {"periodic_schedule": {"interval_second": "3600"}}
    exit_status, out, _ = status()
    assert exit_status == 0 and "no cron, but a period, enabled" in out


def test_the_requested_number_of_runs_is_shown_the_newest_first(server, status, schedule):
    identity = schedule("0 0 2 1 1 *", days=0)
    runs = [server.fire(identity, NOW - timedelta(days=days), state="FAILED") for days in range(6)]
    _, out, _ = status("--runs", "2")
    shown = out.partition("last runs")[2]
    assert shown.index(runs[0]["run_id"]) < shown.index(runs[1]["run_id"])
    assert runs[2]["run_id"] not in shown
