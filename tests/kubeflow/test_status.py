"""status: what is scheduled, what became of it, and a warning when a schedule did not fire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cxr.cli import main
from cxr.kubeflow.cron import parse_cron

ARGUMENTS = ("--arguments", "{data_md5: abc.dir}")
NOW = datetime.now(UTC)


def hours_ago(hours):
    """A cron expression that was last due that many hours ago, to the minute, and is due once a day."""
    due = (NOW - timedelta(hours=hours)).replace(second=0, microsecond=0)
    return f"0 {due.minute} {due.hour} * * *", due


@pytest.fixture
def status(capsys):
    def run(*words):
        capsys.readouterr()
        found = main.main(["kubeflow", "status", *map(str, words)])
        return (found, *capsys.readouterr())

    return run


@pytest.fixture
def schedule(server, package):
    """Make a schedule that was made days ago; gives its id."""

    def run(cron, *words, days=3):
        before = set(server.store.recurring)
        status = main.main(["kubeflow", "schedule", "--package", str(package), *ARGUMENTS, "--cron", cron, *words])
        assert status == 0
        (made,) = set(server.store.recurring) - before
        server.backdate(made, days)
        return made

    return run


def test_nothing_scheduled_and_no_runs(server, status):
    found, out, _ = status()
    assert found == 0
    assert "cxr-training: not scheduled; `cxr kubeflow schedule` does it" in out and "no runs yet" in out
    assert server.store.experiments == {}, "looking makes nothing"


def test_a_schedule_that_fired(server, status, schedule):
    cron, due = hours_ago(2)
    run = server.fire(schedule(cron), due)
    found, out, err = status()
    assert found == 0, err
    assert f"cxr-training: {parse_cron(cron).words('UTC')}, enabled" in out
    assert f"last run: {due + timedelta(seconds=4):%Y-%m-%d %H:%M:%S} UTC, succeeded" in out
    assert f"next run: {due + timedelta(days=1):%a %Y-%m-%d %H:%M:%S} UTC" in out
    assert f"succeeded   {run['run_id']}  cxr-training 1" in out


def test_a_schedule_that_did_not_fire(server, status, schedule):
    cron, due = hours_ago(2)
    server.fire(schedule(cron), due - timedelta(days=1))
    found, out, err = status()
    assert found == 1
    assert "succeeded" in out, "what there is, is shown all the same"
    assert f"expected a run at {due:%a %Y-%m-%d %H:%M:%S} UTC, received none" in err
    assert "ml-pipeline-scheduledworkflow" in err
    assert status("--tolerance", "180")[0] == 0, "a run may be late by the tolerance"


def test_a_schedule_that_never_fired_since_it_was_made(server, status, schedule):
    cron, _ = hours_ago(2)
    schedule(cron)
    found, out, err = status()
    assert found == 1 and "last run: never" in out and "received none" in err


def test_what_was_due_before_the_schedule_was_made_is_not_missed(server, status, schedule):
    cron, _ = hours_ago(2)
    schedule(cron, days=0)
    assert status()[0] == 0


def test_a_paused_schedule_misses_nothing(server, status, schedule):
    cron, _ = hours_ago(2)
    schedule(cron, "--enabled", "false")
    found, out, _ = status()
    assert found == 0
    assert "paused" in out and "next run: -" in out


def test_a_run_that_still_goes_on_is_named_as_the_reason(server, status, schedule):
    cron, due = hours_ago(2)
    run = server.fire(schedule(cron), due - timedelta(days=1), state="RUNNING")
    found, _, err = status()
    assert found == 1
    assert f"{run['run_id']} is still going on, and max_concurrency=1" in err


def test_runs_of_other_schedules_do_not_count(server, status, schedule):
    cron, due = hours_ago(2)
    schedule(cron)
    server.fire(schedule(cron, "--schedule_name", "other"), due)
    assert status()[0] == 1
    assert status("--schedule_name", "other")[0] == 0


def test_two_schedules_of_one_name_are_told(server, status, schedule):
    first = schedule("0 0 2 1 1 *", days=0)
    server.store.recurring["twin"] = {**server.store.recurring[first], "recurring_run_id": "twin"}
    found, _, err = status()
    assert found == 1
    assert "expected one schedule=cxr-training, received 2" in err


def test_a_schedule_made_by_hand_with_another_trigger_is_shown(server, status, schedule):
    made = schedule("0 0 2 * * *", days=0)
    server.store.recurring[made]["trigger"] = {"periodic_schedule": {"interval_second": "3600"}}
    found, out, _ = status()
    assert found == 0 and "no cron, but a period, enabled" in out


def test_as_many_runs_are_shown_as_wanted_the_newest_first(server, status, schedule):
    made = schedule("0 0 2 1 1 *", days=0)
    runs = [server.fire(made, NOW - timedelta(days=days), state="FAILED") for days in range(6)]
    _, out, _ = status("--runs", "2")
    shown = out.partition("last runs")[2]
    assert shown.index(runs[0]["run_id"]) < shown.index(runs[1]["run_id"])
    assert runs[2]["run_id"] not in shown
