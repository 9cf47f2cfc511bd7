"""A pipeline whose record would be too long for Kubeflow becomes several runs, and several parts of a schedule."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml


@pytest.fixture
def params(repository, tmp_path, server, monkeypatch):
    """Parameters with five models that get everything that a cluster has."""
    sections = yaml.safe_load((repository / "params.yaml").read_text())
    sections["containers"] |= {
        "version": "3f2c1ab4d5e6",
        "checkpoints": {"size": "2Gi"},
        "secrets": {"s3": "cxr-s3", "mlflow": "cxr-mlflow"},
    }
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(sections, sort_keys=False))
    (tmp_path / "pipelines").symlink_to(repository / "pipelines")
    return path


def test_five_models_are_trained_in_three_runs(server, cxr, params):
    status, out, err = cxr("submit", "--params", params)
    assert status == 0, err
    assert "3 runs: residual_separable, shallow; three_block; plain_cnn, efficientnet_lite0" in out
    runs = list(server.store.runs.values())
    assert [run["display_name"][-8:] for run in runs] == ["(1 of 3)", "(2 of 3)", "(3 of 3)"]
    assert len({run["pipeline_version_reference"]["pipeline_version_id"] for run in runs}) == 3
    assert len(server.store.pipelines) == 1


def test_two_models_are_trained_in_one_run(server, cxr, params):
    status, out, err = cxr("submit", "--params", params, "--models", "[shallow, three_block]")
    assert status == 0, err
    assert "runs:" not in out
    assert len(server.store.runs) == 1


def test_compile_writes_a_file_for_each_run(cxr, params):
    status, out, err = cxr("compile", "--params", params)
    assert status == 0, err
    lines = out.splitlines()
    assert [Path(line.partition(":")[0]).name for line in lines] == [
        "training.yaml",
        "training-2.yaml",
        "training-3.yaml",
    ]
    assert lines[2].endswith("models plain_cnn, efficientnet_lite0")


def test_a_schedule_has_a_part_for_each_run_and_stays_one_schedule(server, cxr, params):
    def names():
        return sorted(run["display_name"] for run in server.store.recurring.values())

    assert cxr("schedule", "--params", params)[0] == 0
    assert names() == ["cxr-training", "cxr-training.part2", "cxr-training.part3"]
    status, out, err = cxr("status", "--params", params)
    assert status == 0, err
    assert "cxr-training.part2: At 02:00" in out
    status, out, err = cxr("schedule", "--params", params, "--models", "[shallow]")
    assert status == 0, err
    assert "it replaces 3 older" in out
    assert names() == ["cxr-training"]
    assert cxr("schedule", "--params", params)[0] == 0
    assert "3 deleted" in cxr("unschedule", "--params", params)[1]
    assert names() == []


def test_a_part_that_cannot_be_created_leaves_the_older_schedule(server, cxr, params):
    assert cxr("schedule", "--params", params, "--models", "[shallow]")[0] == 0
    (older,) = server.store.recurring
    server.fail(403, on="POST /apis/v2beta1/recurringruns", times=1)
    status, _, err = cxr("schedule", "--params", params)
    assert status == 1 and "older schedules with the name 'cxr-training' are unchanged" in err
    assert list(server.store.recurring) == [older]
