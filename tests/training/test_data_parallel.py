"""Training on several devices, and in several processes, gives what one device gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest

from cxr.errors import ParameterError
from cxr.models.networks import build_network
from cxr.training.data_parallel import ADDED_ROWS, DeviceGroup, choose_devices
from cxr.training.phases import plan_phases
from cxr.training.plan import learning_rate_factor
from cxr.training.processes import ONE_PROCESS, ProcessGroup
from support.loopback import free_port
from support.other_backend import run_on_backend
from support.patch_images import train_and_task
from support.training_folders import read_trained, train_arguments, write_training_folders
from support.training_settings import training_settings

needs_jax = pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed")

TRAIN_IMAGES, BATCH_SIZE, EPOCHS = 42, 12, 3
"""The last batch of an epoch has 6 images, which 4 devices cannot divide evenly."""

TRAININGS = """
import json, shutil, sys
from pathlib import Path
from cxr.cli.main import main
from cxr.images.prepared import PreparedImages
from cxr.steps.train import Train
from cxr.training.data_parallel import choose_devices
from cxr.training.processes import ONE_PROCESS
from cxr.training.session import TrainingSession
from cxr.training.split_data import SplitData
from support.training_folders import train_arguments

values, root = json.loads(sys.argv[1]), Path(sys.argv[2])

def train(name, **changes):
    folders = {"trained": str(root / name), "checkpoints": str(root / f"{name}-checkpoints")}
    return main(train_arguments(values | folders | changes))

def train_until_killed_in_epoch_2(name, devices):
    step = Train.build(values | {"trained": root, "checkpoints": root / f"{name}-checkpoints"})
    data, prepared = SplitData.read(step.manifest, step.splits), PreparedImages.open(step.prepared)
    group = choose_devices(devices, ONE_PROCESS)
    session = TrainingSession(step.settings(), prepared, data, step.checkpoints, resume=True, devices=group)
    def kill(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt
    try:
        session.train(on_epoch=kill)
    except KeyboardInterrupt:
        pass

if sys.argv[3] == "whole":
    assert train("one") == 0
    assert train("four", devices=4) == 0
    assert train("uneven", devices=4, batch_size=10) == 2
    assert train("too_many", devices=5) == 2
else:
    train_until_killed_in_epoch_2("resumed", 4)
    shutil.copytree(root / "resumed-checkpoints", root / "fewer-checkpoints")
    assert train("resumed", devices=4) == 0
    assert train("fewer", devices=2) == 0
"""
"""Several trainings in one process, which imports Keras once."""

KILLED_IN_EPOCH_2 = """
import os, signal, sys
from cxr.cli.main import main
from cxr.training.batches import Batches

draw_order = Batches._draw_order

def draw_order_or_die(batches):
    if batches.shuffle and batches.epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return draw_order(batches)

Batches._draw_order = draw_order_or_die
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """A training whose result depends on all images of a batch: by normalisation, mixing, weights and averages.

    The training images lie on the devices, and validation images are sent to them.
    """
    folders = write_training_folders(tmp_path_factory.mktemp("folders"), train=TRAIN_IMAGES, validation=10)
    return {name: str(folder) for name, folder in folders.items()} | {
        "model": "small", "architecture": "shallow", "tracking_uri": "", "epochs": EPOCHS, "batch_size": BATCH_SIZE,
        "batch_normalisation": True, "dropout": 0.3, "balance": "class_weights", "mixup": 0.2, "average_decay": 0.9,
        "augmentation": {"zoom": 0.1, "gamma": 0.2}, "on_device": "always", "optimizer": "sgd", "learning_rate": 0.05,
    }  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Environment variables with which JAX keeps what it has compiled, which takes most of the time of these tests."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="module")
def on_devices(values, compiled, tmp_path_factory):
    """Folder of the trainings on 1 and 4 devices, and what they said."""
    return run_trainings("whole", tmp_path_factory.mktemp("on_devices"), values, compiled)


@pytest.fixture(scope="module")
def resumed(on_devices, values, compiled):
    """The same folder with trainings that were killed on 4 devices and go on with 4 and with 2, and what they said."""
    return run_trainings("resumed", on_devices[0], values, compiled)


def run_trainings(which, root, values, compiled):
    arguments = ["-c", TRAININGS, json.dumps(values), str(root), which]
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    return root, run_on_backend("jax", root, arguments, **compiled, **devices).stderr


def expect_same_training(trained, expected, tolerance):
    weights, history, _ = read_trained(trained)
    expected_weights, expected_history, _ = read_trained(expected)
    for array, expected_array in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(array, expected_array, rtol=0, atol=tolerance)
    figures = ["loss", "accuracy", "auroc", "val_loss", "val_auroc", "learning_rate"]
    np.testing.assert_allclose(history[figures], expected_history[figures], rtol=0, atol=tolerance)
    assert len(history) == EPOCHS


@pytest.mark.exhaustive  # the parts of all devices and processes are compared below without training
@needs_jax
def test_four_devices_give_the_losses_and_weights_of_one(on_devices):
    root, log = on_devices
    expect_same_training(root / "four", root / "one", 1e-5)
    assert "batches of 12 images, 3 on each of 4 devices" in log
    for name, devices, share in (("one", 1, 12), ("four", 4, 3)):
        facts = read_trained(root / name)[2]
        assert (facts["batch_size"], facts["devices"], facts["device_batch_size"]) == (12, devices, share)
        assert facts["device_changes"] == []


@pytest.mark.exhaustive  # test_session.py resumes on one device
@needs_jax
def test_a_killed_training_on_four_devices_goes_on_there_with_the_same_result(resumed):
    root, log = resumed
    expect_same_training(root / "resumed", root / "four", 0)
    assert "training goes on after epoch 1\n" in log


@pytest.mark.exhaustive  # test_session.py resumes on one device
@needs_jax
def test_a_killed_training_goes_on_with_fewer_devices_and_says_so(resumed):
    root, log = resumed
    expect_same_training(root / "fewer", root / "one", 1e-5)
    assert "training goes on after epoch 1, with devices=2 after devices=4" in log
    _, history, facts = read_trained(root / "fewer")
    assert history["devices"].tolist() == [4, 2, 2]
    assert facts["device_changes"] == [{"epoch": 2, "devices": 2}]


@pytest.mark.exhaustive  # asked in the process of the trainings above
@needs_jax
def test_batches_that_cannot_be_divided_and_devices_that_do_not_exist_are_refused(on_devices):
    root, log = on_devices
    assert "received batch_size=10, devices=4; set batch_size to 8 or 12" in log
    assert "expected devices of at most 4, the devices that JAX has here, received devices=5" in log
    assert not (root / "uneven").exists()


@pytest.mark.exhaustive  # the parts of all processes are compared below without processes
@needs_jax
def test_two_processes_give_what_one_gives_even_if_one_is_killed(on_devices, values, compiled, tmp_path):
    root, _ = on_devices
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | compiled
    folders = {"trained": str(tmp_path / "trained"), "checkpoints": str(tmp_path / "checkpoints")}
    arguments = train_arguments(values | folders)

    def start(number, port, program):
        cluster = {
            "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(number), "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, *program, *arguments], env=environment | cluster, stderr=subprocess.PIPE, text=True
        )

    port = free_port()
    first, killed = start(0, port, ["-m", "cxr.cli.main"]), start(1, port, ["-c", KILLED_IN_EPOCH_2])
    assert killed.wait(400) == -signal.SIGKILL
    message = first.communicate(timeout=400)[1]
    assert first.returncode == 1, message
    assert "expected all 2 processes to train to the end" in message
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"], "there is no half output"

    port = free_port()
    processes = [start(number, port, ["-m", "cxr.cli.main"]) for number in (0, 1)]
    logs = [process.communicate(timeout=400)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], logs
    assert "training goes on after epoch 1" in logs[0]
    assert "6 on each of 2 devices of 2 processes" in logs[0]
    expect_same_training(tmp_path / "trained", root / "one", 1e-5)
    assert read_trained(tmp_path / "trained")[2]["devices"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["trained"], "the checkpoints are removed"


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_parts_of_all_processes_are_the_batch(processes):
    whole, _ = train_and_task(batch_size=20, shuffle=True, mixup=0.4, balance="class_weights")
    names = ("cpu:0", "cpu:1", "cpu:2", "cpu:3")
    groups = [DeviceGroup(names, ProcessGroup(processes, number, "host:1")) for number in range(processes)]
    parts = [
        train_and_task(batch_size=20, shuffle=True, mixup=0.4, balance="class_weights", devices=group)[0]
        for group in groups
    ]
    for index in range(len(whole)):
        inputs, *judged = whole[index]
        divided = [part[index] for part in parts]
        rows = len(judged[0])
        for name, array in inputs.items():
            joined = np.concatenate([own["inputs"][name] for own, *_ in divided])
            np.testing.assert_array_equal(joined[:rows], array)
        for number, array in enumerate(judged, 1):
            np.testing.assert_array_equal(np.concatenate([own[number] for own in divided])[:rows], array)
        assert sum(len(own[1]) for own in divided) % 4 == 0


def test_the_last_batch_is_filled_so_that_it_can_be_divided():
    group = DeviceGroup(("cpu:0", "cpu:1", "cpu:2", "cpu:3"), ProcessGroup(2, 1, "host:1"))
    np.testing.assert_array_equal(group.own_rows(8), [4, 5, 6, 7])
    np.testing.assert_array_equal(group.own_rows(6), [4, 5, 5, 5])
    assert group.divide(np.zeros(4), 6)[ADDED_ROWS].shape == (2, 2, 0)


def test_one_process_needs_no_variables():
    assert ProcessGroup.read({}) == ProcessGroup.read({"JAX_NUM_PROCESSES": "1"}) == ONE_PROCESS


def test_all_wrong_variables_of_a_cluster_are_named_at_once(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(ParameterError) as error:
        ProcessGroup.read({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2", "JAX_COORDINATOR_ADDRESS": "host"})
    problems = "\n".join(error.value.problems)
    assert len(error.value.problems) == 3
    assert "JAX_PROCESS_ID='2'" in problems
    assert "JAX_COORDINATOR_ADDRESS='host'" in problems
    assert "set KERAS_BACKEND=jax" in problems


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX divides batches")
def test_other_backends_refuse_several_devices():
    assert choose_devices(None, ONE_PROCESS).count == 1
    with pytest.raises(ParameterError, match=r"expected devices=1 with .*set KERAS_BACKEND=jax"):
        choose_devices(2, ONE_PROCESS)


@pytest.mark.parametrize(("rule", "factor"), [("constant", 1.0), ("linear", 4.0), ("sqrt", 2.0)])
def test_the_rule_says_how_the_learning_rate_grows_with_the_batch(rule, factor):
    assert learning_rate_factor(rule, 256 / 64) == factor
    network = build_network("shallow", (24, 24, 3))
    (phase,) = plan_phases(training_settings("shallow", learning_rate=0.01), network, factor, phantom=False)
    assert phase.plan.learning_rate == pytest.approx(0.01 * factor)
