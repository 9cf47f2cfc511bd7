"""The server of a team, as ``mlflow/entrypoint.sh`` starts it on PostgreSQL and S3, and what users do with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr.cli.main import main
from cxr.inference.predictor import Predictor
from cxr.tracking.aliases import read_promotion_log
from cxr.tracking.registry_reader import fetch_model
from cxr.tracking.store import Store
from support.model_folders import ModelFolders, replace_evaluation, write_models
from support.servers import ENTRYPOINT, ObjectStore, TrackingServer, add_user, ask_as_admin

# They need PostgreSQL and an S3 store; tests/tracking does the same with local stores, and with servers of one file.
pytestmark = [pytest.mark.integration, pytest.mark.exhaustive]

EXPERIMENTS = "/api/2.0/mlflow/experiments/search?max_results=1"


def register(folders: ModelFolders, uri: str, name: str, *included: str, **parameters: str) -> dict[str, Any]:
    """Run `cxr register` as a user does, and return its decision."""
    flags = {**flags_of(folders, uri, name), "include": json.dumps(included), **parameters}
    assert main(["register", *(argument for key, value in flags.items() for argument in (f"--{key}", str(value)))]) == 0
    return dict(json.loads((folders.models.parent / "registration" / "decision.json").read_text()))


def flags_of(folders: ModelFolders, uri: str, name: str) -> dict[str, object]:
    """Flags of `cxr register` for small models: floors that all pass."""
    root = folders.models.parent
    return {
        "models": folders.models,
        "evaluations": folders.evaluations,
        "ensemble": root / "no-ensemble",
        "splits": folders.splits,
        "data": root / "no-data",
        "registration": root / "registration",
        "tracking_uri": uri,
        "registered_name": name,
        "require_gpu": "false",
        "min_auroc": 0.5,
        "min_sensitivity": 0.0,
        "max_calibration_error": 1.0,
    }


@pytest.fixture(scope="module")
def promoted(
    mlflow_server: TrackingServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelFolders, list[bool]]:
    """A guessing model and one that knows, which a user has registered in turn, and whether each was promoted."""
    folders = write_models(tmp_path_factory.mktemp("promoted"), ["three_block", "shallow"])
    replace_evaluation(folders, "three_block", skill=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", mlflow_server.user[0])
        patch.setenv("MLFLOW_TRACKING_PASSWORD", mlflow_server.user[1])
        decisions = [register(folders, mlflow_server.uri, "promoted", name) for name in ("three_block", "shallow")]
    return folders, [decision["decision"]["promote"] for decision in decisions]


def test_a_login_is_required(mlflow_server: TrackingServer) -> None:
    assert mlflow_server.status(EXPERIMENTS) == 401
    assert mlflow_server.status(EXPERIMENTS, ("admin", "password1234")) == 401
    assert mlflow_server.status(EXPERIMENTS, mlflow_server.user) == 200
    assert mlflow_server.status("/api/2.0/mlflow-artifacts/artifacts") == 401


def test_only_the_allowed_hosts_are_answered(mlflow_server: TrackingServer) -> None:
    assert mlflow_server.status(EXPERIMENTS, mlflow_server.user, Host="tracking.example.org") == 200
    assert mlflow_server.status(EXPERIMENTS, mlflow_server.user, Host="elsewhere.example.org") == 403


def test_health_is_answered_to_anyone(mlflow_server: TrackingServer) -> None:
    assert mlflow_server.status("/health", Host="elsewhere.example.org") == 200


def test_a_version_that_a_user_registers_answers_from_the_server(
    server_uri: str, mlflow_server: TrackingServer, object_store: ObjectStore,
    promoted: tuple[ModelFolders, list[bool]], tmp_path: Path,
) -> None:  # fmt: skip
    folders, _ = promoted
    version = Store(server_uri).client.get_model_version_by_alias("promoted", "challenger")
    assert version.tags["model"] == "shallow"
    assert version.source.startswith("mlflow-artifacts:/")
    assert list((object_store.folder / mlflow_server.bucket / "team").rglob("model.keras"))
    (tmp_path / "downloaded").mkdir()
    predictor = Predictor.load(fetch_model(Store(server_uri), version, tmp_path / "downloaded"))
    evaluated = pd.read_parquet(folders.evaluations / "shallow" / "predictions.parquet").set_index("path")
    probabilities = [prediction.probability for prediction in predictor.predict(folders.images[:8])]
    expected = evaluated.loc[[path.name for path in folders.images[:8]], "probability"]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_promotion_and_rollback_move_the_alias_for_every_user(
    server_uri: str, mlflow_server: TrackingServer, monkeypatch: pytest.MonkeyPatch,
    promoted: tuple[ModelFolders, list[bool]], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert promoted[1] == [True, True]
    log_experiment = Store(server_uri).client.get_experiment_by_name("promoted: promotions").experiment_id
    users = {name: (name, f"a password of the {name}") for name in ("reader", "editor", "writer")}
    for user in users.values():
        add_user(mlflow_server, *user)
    grant(mlflow_server, "editor", "registered_model", "promoted")
    grant(mlflow_server, "writer", "experiment", log_experiment)

    def roll_back(name: str) -> tuple[int, str]:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", users[name][0])
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", users[name][1])
        status = main(["rollback", "--tracking_uri", server_uri, "--registered_name", "promoted"])
        return status, capsys.readouterr().err

    for name in users:
        status, message = roll_back(name)
        assert status == 1 and "EDIT on the experiment 'promoted: promotions'" in message, name
        champion = Store(server_uri).client.get_model_version_by_alias("promoted", "champion")
        assert (champion.version, champion.tags["model"]) == ("2", "shallow")
        entries = read_promotion_log(Store(server_uri), "promoted")
        assert [entry.champion for entry in entries] == ["1", "2"], f"{name}: nothing is half done"
    grant(mlflow_server, "editor", "experiment", log_experiment)
    assert roll_back("editor")[0] == 0, "EDIT on both is enough"
    assert Store(server_uri).client.get_model_version_by_alias("promoted", "champion").version == "1"
    entries = read_promotion_log(Store(server_uri), "promoted")
    assert [(entry.champion, entry.applied) for entry in entries] == [("1", True), ("2", True), ("1", True)]


def test_a_colleague_may_change_a_model_only_with_permission(
    server_uri: str, mlflow_server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    Store(server_uri).client.create_registered_model("guarded")
    colleague = ("colleague", "a password for editing")
    add_user(mlflow_server, *colleague)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", colleague[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", colleague[1])
    with pytest.raises(MlflowException, match=r"(?i)permission denied"):
        Store(server_uri).client.set_registered_model_tag("guarded", "colour", "red")
    grant(mlflow_server, colleague[0], "registered_model", "guarded")
    Store(server_uri).client.set_registered_model_tag("guarded", "colour", "red")
    assert Store(server_uri).client.get_registered_model("guarded").tags == {"colour": "red"}


def test_a_second_account_approves_what_the_first_one_has_trained(
    server_uri: str, mlflow_server: TrackingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    name, trainer, reviewer = "approved", mlflow_server.user, ("reviewer", "a password for approving")
    add_user(mlflow_server, *reviewer)

    def log_in(user: tuple[str, str]) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user[0])
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", user[1])

    def approve(*arguments: str) -> tuple[int, str]:
        status = main(["approve", *arguments, "--tracking_uri", server_uri, "--registered_name", name])
        return status, capsys.readouterr().err

    def aliases() -> dict[str, str]:
        return dict(Store(server_uri).client.get_registered_model(name).aliases)

    folders = write_models(tmp_path, ["three_block", "shallow"])
    replace_evaluation(folders, "three_block", skill=1)
    replace_evaluation(folders, "shallow", skill=5)
    decision = register(folders, server_uri, name, "three_block", require_approval="true")["decision"]
    assert not decision["promote"] and aliases() == {"challenger": "1", "candidate": "1"}

    status, message = approve("1", "--reason", "my own work")
    assert status == 2 and f"another user than {trainer[0]}, who trained version 1" in message
    assert "champion" not in aliases()

    log_in(reviewer)
    status, message = approve("1", "--reason", "seen")
    assert status == 1 and f"MANAGE on the registered model and EDIT on the experiment '{name}: promotions'" in message
    log_experiment = Store(server_uri).client.get_experiment_by_name(f"{name}: promotions")
    grant(mlflow_server, reviewer[0], "experiment", log_experiment.experiment_id)
    assert approve("1", "--reason", "seen") == (1, message)
    assert [entry.kind for entry in read_promotion_log(Store(server_uri), name)] == ["run"], "nothing is half done"
    grant(mlflow_server, reviewer[0], "registered_model", name, "MANAGE")
    begun = datetime.now(UTC)
    assert approve("1", "--reason", "seen beside the films of May")[0] == 0
    assert aliases() == {"champion": "1", "challenger": "1"}

    log_in(trainer)
    register(folders, server_uri, name, "shallow", require_approval="true")
    assert aliases() == {"champion": "1", "challenger": "2", "candidate": "2"}
    log_in(reviewer)
    client = Store(server_uri).client  # the page of MLflow sends the same requests
    client.set_model_version_tag(name, "2", "approved_by", reviewer[0])
    client.set_model_version_tag(name, "2", "approval_reason", "better on our films")
    log_in(trainer)
    assert approve()[0] == 0
    assert aliases() == {"champion": "2", "challenger": "2"}

    approvals = [entry for entry in read_promotion_log(Store(server_uri), name) if entry.kind == "approval"]
    assert [(entry.champion, entry.approved_by, entry.trained_by, list(entry.reasons)) for entry in approvals] == [
        ("1", reviewer[0], (trainer[0],), ["seen beside the films of May"]),
        ("2", reviewer[0], (trainer[0],), ["better on our films"]),
    ]
    assert begun <= approvals[0].time <= approvals[1].time <= datetime.now(UTC)
    tags = Store(server_uri).client.get_model_version(name, "2").tags
    assert f"approved by {reviewer[0]}, trained by {trainer[0]}: better on our films" in tags["approval"]
    assert "approved_by" not in tags


def grant(server: TrackingServer, user: str, kind: str, resource: str, permission: str = "EDIT") -> None:
    """Give a user a permission on a registered model or an experiment, in place of the former one."""
    values = {"username": user, "resource_type": kind, "resource_id": resource, "permission": permission}
    ask_as_admin(server, "/api/3.0/mlflow/users/permissions/grant", **values)


def test_the_schema_can_be_upgraded_without_loss(mlflow_server: TrackingServer, server_uri: str) -> None:
    Store(server_uri).client.create_registered_model("kept")
    command = [str(ENTRYPOINT), "upgrade"]
    process = subprocess.run(command, env=mlflow_server.environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert Store(server_uri).client.get_registered_model("kept").name == "kept"


def test_no_password_shows_in_the_list_of_processes(mlflow_server: TrackingServer) -> None:
    if shutil.which("ps") is None:
        pytest.skip("there is no ps: apt-get install procps")
    processes = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert mlflow_server.uri.rpartition(":")[2] in processes
    secrets = [mlflow_server.environment[name] for name in ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY")]
    assert not [secret for secret in (*secrets, mlflow_server.admin[1]) if secret in processes]


COMPETITOR = """
import sys
from cxr.cli.main import main
print("ready", flush=True)
sys.stdin.readline()
sys.exit(main(sys.argv[1:]))
"""


def test_two_runs_that_finish_at_once_promote_one_and_both_are_in_the_log(server_uri: str, tmp_path: Path) -> None:
    processes = []
    for number in (1, 2):  # equally good, so that the second one is a tie
        folders = write_models(tmp_path / str(number), seed=number)
        replace_evaluation(folders, "three_block", skill=2)
        flags = {**flags_of(folders, server_uri, "rivals"), "margin": 1, "sensitivity_margin": 1}
        arguments = [argument for key, value in flags.items() for argument in (f"--{key}", str(value))]
        command = [sys.executable, "-c", COMPETITOR, "register", *arguments]
        processes.append(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
            )
        )
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors[-3000:]
    decisions = [
        json.loads((tmp_path / str(number) / "registration" / "decision.json").read_text()) for number in (1, 2)
    ]
    assert sorted(decision["decision"]["promote"] for decision in decisions) == [False, True]
    entries = read_promotion_log(Store(server_uri), "rivals")
    assert [(entry.number, entry.kind, entry.moved, entry.applied) for entry in entries] == [
        (1, "run", True, True),
        (2, "run", False, True),
    ]
    champion = Store(server_uri).client.get_model_version_by_alias("rivals", "champion")
    assert {entry.champion for entry in entries} == {str(champion.version)}
    assert len(Store(server_uri).client.search_model_versions("name = 'rivals'")) == 2
