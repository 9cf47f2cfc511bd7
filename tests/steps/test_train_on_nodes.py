"""A task lets several nodes train: through a server with the Kubernetes API, with a test in the part of the Trainer."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from cxr.cli.main import main, parse_step
from cxr.steps.train import Train
from support.kubernetes_server import KubernetesServer, end_job
from support.loopback import free_port

VALUES = {
    "model": "three_block",
    "architecture": "three_block",
    "augmentation": '{"rotation": 5.0, "horizontal_flip": true}',
    "epochs": "7",
    "learning_rate": "1e-05",
    "data_version": "5d41402abc4b2a76b9719d911017c592",
    "tracking_uri": "http://mlflow.cxr.svc.cluster.local:5000",
    "nodes": '{"count": 2, "image": "cxr-train-gpu@sha256:1f", "claim": "training", "runtime": "jax-distributed", '
    '"resources": {"cpu": "4"}, "hours": 24, "user": 10001, "secrets": {"cxr-mlflow": ["MLFLOW_TRACKING_USERNAME"]}}',
    "interval": "0.01",
}
DETERMINED_BY_THE_TASK = {"manifest", "splits", "prepared", "trained", "checkpoints"}


@pytest.fixture
def server(tmp_path, monkeypatch):
    with KubernetesServer(tmp_path / "account") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CXR_PIPELINE_RUN", "run-1")
        yield running


@pytest.fixture
def task(tmp_path, server, capfd, caplog):
    """Run the task; returns exit status, and log and errors."""
    caplog.set_level("INFO", "cxr")
    folders = {field: tmp_path / field for field in ("manifest", "splits", "prepared")}
    for field, folder in folders.items():
        folder.mkdir()
        (folder / "file").write_text(field)
    folders |= {"trained": tmp_path / "trained", "checkpoints": tmp_path / "volume", "service_account": server.account}
    folders["checkpoints"].mkdir()

    def run(**changes):
        flags = VALUES | folders | changes
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        status = main(["train_on_nodes", *words])
        return status, caplog.text + capfd.readouterr().err

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


def node_step(job):
    """The step that each node runs."""
    command, *arguments = job["spec"]["trainer"]["args"]
    assert (job["spec"]["trainer"]["command"], command) == (["cxr"], "train")
    return parse_step(Train, arguments)


def train(job):
    """Do what the nodes do: read the inputs from the volume, and write the network there."""
    step = node_step(job)
    for field in ("manifest", "splits", "prepared"):
        assert (getattr(step, field) / "file").read_text() == field
    step.checkpoints.mkdir(exist_ok=True)
    (step.checkpoints / "epoch").write_text("6")
    step.trained.mkdir()
    (step.trained / "model.keras").write_text("network")


def count(server, method):
    return sum(request.startswith(f"{method} ") and "/trainjobs" in request for request in server.requests)


def test_the_nodes_train_and_the_task_has_the_network(task, server, tmp_path):
    phases = iter(("Pending", "Running", "Running", "Succeeded"))
    steps = []

    def look(job):
        name, phase = job["metadata"]["name"], next(phases)
        server.add_pod(name, 1, phase)
        server.add_pod(name, 0, phase, "" if phase == "Pending" else "epoch 1\nepoch 2\n"[: 8 * (len(steps) + 1)])
        if phase == "Running":
            steps.append(node_step(job))
        if phase == "Succeeded":
            train(job)
            end_job(job, "Complete")

    server.on_look = look
    status, error = task()
    assert status == 0, error
    assert (tmp_path / "trained" / "model.keras").read_text() == "network"
    assert not list((tmp_path / "volume").iterdir()), "inputs and checkpoints stay on the volume"
    assert (count(server, "POST"), count(server, "DELETE")) == (1, 1)
    (job,) = server.jobs.values()
    assert job["spec"]["trainer"]["numNodes"] == 2
    assert {entry["name"]: entry.get("value") for entry in job["spec"]["trainer"]["env"]} == {
        "KERAS_BACKEND": "jax",
        "CXR_PIPELINE_RUN": "run-1",
        "CXR_IMAGE_DIGEST": "cxr-train-gpu@sha256:1f",
        "MLFLOW_TRACKING_USERNAME": None,
    }
    lines = re.findall(r"(?:TrainJob \S+: pods|process 0): .+", error)
    assert lines == [
        f"TrainJob {job['metadata']['name']}: pods: 2 pending",
        f"TrainJob {job['metadata']['name']}: pods: 2 running",
        "process 0: epoch 1",
        "process 0: epoch 2",
        f"TrainJob {job['metadata']['name']}: pods: 2 succeeded",
    ]


def test_the_nodes_get_all_values_of_the_task(task, server):
    steps = []

    def look(job):
        steps.append(node_step(job))
        train(job)
        end_job(job, "Complete")

    server.on_look = look
    assert task()[0] == 0
    own = {name: VALUES[name] for name in VALUES.keys() - {"nodes", "interval"}}
    expected = parse_step(Train, [word for name, value in own.items() for word in (f"--{name}", value)]
                          + ["--prepared", "p", "--trained", "t"])  # fmt: skip
    assert steps[0].model_dump(exclude=DETERMINED_BY_THE_TASK) == expected.model_dump(exclude=DETERMINED_BY_THE_TASK)


def test_a_failed_job_fails_the_task_with_the_errors_of_the_nodes(task, server, tmp_path):
    def look(job):
        name = job["metadata"]["name"]
        step = node_step(job)
        step.checkpoints.mkdir()
        (step.checkpoints / "epoch").write_text("3")
        server.add_pod(name, 0, "Failed", "epoch 1\ncxr train: expected a batch_size that 2 devices divide\n")
        server.add_pod(name, 1, "Failed", "Killed\n")
        server.add_pod(name, 2, "Running", "cxr train: not from here\n")
        end_job(job, "Failed", "jobset failed due to one or more job failures")

    server.on_look = look
    status, error = task()
    assert status == 1
    assert "received JobsFailed: jobset failed due to one or more job failures" in error
    assert "node-0-0-x7k2p: cxr train: expected a batch_size that 2 devices divide" in error
    assert "node-0-1-x7k2p: Killed" in error
    assert "not from here" not in error
    assert count(server, "DELETE") == 1
    assert not (tmp_path / "trained").exists()
    (folder,) = (tmp_path / "volume").iterdir()
    assert (folder / "checkpoints" / "epoch").read_text() == "3", "the next try goes on from there"


@pytest.fixture
def interruptible():
    """A shell that starts the tests in the background lets them ignore SIGINT."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(("number", "stopped"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, None)])
def test_a_task_that_is_stopped_deletes_the_job(task, server, number, stopped, interruptible):
    server.on_look = lambda job: os.kill(os.getpid(), number)
    if stopped:
        with pytest.raises(stopped):
            task()
    else:
        assert task()[0] == 130
    assert count(server, "DELETE") == 1
    assert all("deletionTimestamp" in job["metadata"] for job in server.jobs.values())


def test_another_try_follows_the_job_of_one_that_was_killed(task, server, tmp_path):
    server.on_look = lambda job: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit):
        task()
    (job,) = server.jobs.values()
    del job["metadata"]["deletionTimestamp"]  # as if the try had been killed before it could delete the job
    server.requests.clear()
    server.on_look = lambda job: (train(job), end_job(job, "Complete"))
    assert task()[0] == 0
    assert (count(server, "POST"), count(server, "DELETE")) == (0, 1)
    assert (tmp_path / "trained" / "model.keras").exists()


def test_a_job_of_a_killed_try_that_fails_later_fails_the_task(task, server):
    server.on_look = lambda job: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit):
        task()
    (job,) = server.jobs.values()
    del job["metadata"]["deletionTimestamp"]
    server.requests.clear()
    server.on_look = lambda job: end_job(job, "Failed") if count(server, "GET") > 2 else None
    assert task()[0] == 1
    assert (count(server, "POST"), count(server, "DELETE")) == (0, 1)


def test_another_try_makes_a_failed_job_anew_once_the_old_one_is_gone(task, server):
    server.on_look = lambda job: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit):
        task()
    (job,) = server.jobs.values()
    del job["metadata"]["deletionTimestamp"]
    end_job(job, "Failed")
    server.requests.clear()
    server.on_look = lambda job: "status" in job or (train(job), end_job(job, "Complete"))
    assert task()[0] == 0
    assert (count(server, "POST"), count(server, "DELETE")) == (1, 2)


def test_a_server_that_is_down_for_a_while_does_not_end_the_task(task, server):
    server.faults = [503, 500, 429]
    server.on_look = lambda job: (train(job), end_job(job, "Complete"))
    status, error = task()
    assert status == 0
    assert error.count("the training goes on") == 3


def test_a_server_that_stays_down_ends_the_task(task, server, monkeypatch):
    monkeypatch.setattr("cxr.train_job.following.OUTAGE_SECONDS", 0.05)
    server.faults = [503] * 1000
    status, error = task()
    assert status == 1
    assert "status 503" in error.splitlines()[-1]


@pytest.mark.parametrize(("faults", "remedy"), [([403], "account.yaml"), ([404, 404], "install the Kubeflow Trainer")])
def test_a_refusal_names_what_is_missing_in_the_cluster(task, server, faults, remedy):
    server.faults = faults
    status, error = task()
    assert status == 1
    assert remedy in error
    assert count(server, "GET") == 1, "a refusal is not tried again"


def test_a_job_that_somebody_deletes_fails_the_task(task, server):
    server.on_look = lambda job: server.jobs.clear() if count(server, "GET") > 3 else None
    status, error = task()
    assert status == 1
    assert "somebody deleted it" in error


def test_a_volume_that_only_the_nodes_see_is_explained(task, server):
    server.on_look = lambda job: end_job(job, "Complete")
    status, error = task()
    assert status == 1
    assert "ReadWriteMany" in error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": '{"count": 1, "image": "a"}'}, "count: Input should be greater than or equal to 2"),
        ({"nodes": '{"count": 1, "image": "a"}'}, "claim: Field required"),
        ({"service_account": "/nowhere"}, "expected the file /nowhere/token of a service account"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_asked(task, server, changes, message):
    status, error = task(**changes)
    assert status == 2
    assert message in error
    assert not server.requests


def test_a_task_outside_a_run_needs_a_name_for_it(task, monkeypatch):
    monkeypatch.delenv("CXR_PIPELINE_RUN")
    status, error = task()
    assert (status, "run_id" in error) == (2, True)


class RunningNodes:
    """Starts the processes of a job with its own command and variables, as the Trainer's runtime for JAX does."""

    def __init__(self, server, folder):
        self._server, self._folder = server, folder
        self._processes = []

    def look(self, job):
        """Start the processes at the first look, and report on them at each."""
        trainer, name = job["spec"]["trainer"], job["metadata"]["name"]
        if not self._processes:
            port = free_port()
            self._processes = [self._start(trainer, number, port) for number in range(trainer["numNodes"])]
        statuses = [process.poll() for process in self._processes]
        for number, status in enumerate(statuses):
            phase = {None: "Running", 0: "Succeeded"}.get(status, "Failed")
            self._server.add_pod(name, number, phase, (self._folder / f"{number}.log").read_text())
        if any(statuses):
            end_job(job, "Failed", "a pod failed")
        elif statuses == [0] * len(statuses):
            end_job(job, "Complete")

    def _start(self, trainer, number, port):
        variables = {entry["name"]: entry["value"] for entry in trainer["env"]} | {
            "JAX_NUM_PROCESSES": str(trainer["numNodes"]),
            "JAX_PROCESS_ID": str(number),
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }
        assert trainer["command"] == ["cxr"]
        command = [sys.executable, "-m", "cxr.cli.main", *trainer["args"]]
        with (self._folder / f"{number}.log").open("wb") as log:
            # As in a container, there is no data.dvc.
            return subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log, cwd=self._folder)


@pytest.mark.exhaustive  # what two processes compute is compared in tests/training
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_two_real_processes_train_by_the_command_of_the_job(task, server, tmp_path):
    from support.training_folders import write_training_folders

    folders = write_training_folders(tmp_path / "images", train=24, validation=10)
    nodes = json.loads(VALUES["nodes"]) | {"secrets": {}}
    server.on_look = RunningNodes(server, tmp_path).look
    status, error = task(
        **folders, architecture="shallow", model="small", epochs="2", batch_size="12", augmentation="{}",
        tracking_uri="", nodes=json.dumps(nodes), interval="0.5",
    )  # fmt: skip
    assert status == 0, error
    assert "process 0: process 0 of 2 waits for the others" in error
    facts = json.loads((tmp_path / "trained" / "training.json").read_text())
    assert (facts["devices"], facts["batch_size"], facts["device_batch_size"]) == (2, 12, 6)
    assert len((tmp_path / "trained" / "history.csv").read_text().splitlines()) == 3
    assert (tmp_path / "trained" / "model.keras").is_file()
    assert not list((tmp_path / "volume").iterdir())
