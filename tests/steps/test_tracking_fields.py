"""Steps without a store: offline by choice, away from the start, or lost during the training."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr.data.image_folder import ImageFolder
from cxr.errors import ParameterError, RegistryError
from cxr.images.preparation import prepare_images
from cxr.steps.evaluate import Evaluate
from cxr.steps.register import Register
from cxr.steps.train import Train
from cxr.tracking.store import Store
from support.forked_processes import run_forked
from support.loopback import Gate, MlflowServer, free_port
from support.model_folders import RECIPE

EPOCHS = 3
KILLED_TRAINING = """
import json, os, signal, sys
from cxr.steps.train import Train
from cxr.training.checkpoint import Checkpoint

Checkpoint.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Train.build(json.loads(sys.argv[1])).execute()
"""
"""Train until the first checkpoint would be written."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest, split and prepared images of random images; read only."""
    root = tmp_path_factory.mktemp("project")
    generator = np.random.default_rng(0)
    rows = []
    (root / "data").mkdir()
    for number in range(60):
        has_pneumonia = number % 2
        pixels = generator.normal(100 + 40 * has_pneumonia, 25, size=(16, 16))
        path = f"{number}.png"
        cv2.imwrite(str(root / "data" / path), np.clip(pixels, 0, 255).astype(np.uint8))
        split = ("train", "validation", "test")[number // 20]
        label = ("NORMAL", "PNEUMONIA")[has_pneumonia]
        rows.append((path, label, ("normal", "virus")[has_pneumonia], str(number), str(number), split))
    splits = pd.DataFrame(rows, columns=["path", "label", "subtype", "patient", "group", "split"])
    for folder in ("splits", "manifest"):
        (root / folder).mkdir()
    splits.to_parquet(root / "splits" / "splits.parquet")
    achieved = {"digest": "5" * 64, "protocol": "grouped", "ratios": [0.34, 0.33, 0.33]}
    (root / "splits" / "achieved.json").write_text(json.dumps(achieved))
    splits[["path"]].assign(bytes=1000, width=16, height=16, mean=100.0, sharpness=1.0, gradient_ratio=1.0).to_parquet(
        root / "manifest" / "manifest.parquet"
    )
    (root / "manifest" / "summary.json").write_text(json.dumps({"digest": "d" * 64}))
    card = {"name": "drawn", "kind": "phantom", "source": "test", "images": 60, "bytes": 1, "licence": "none"}
    (root / "manifest" / "dataset.json").write_text(json.dumps(card))
    images = ImageFolder(root / "data")
    prepare_images(images, splits["path"].tolist(), RECIPE, root / "prepared", workers=None, progress=False)
    return root


def train(project: Path, folder: Path, **changes: Any) -> Train:
    values: dict[str, Any] = {
        "model": "small",
        "architecture": "shallow",
        "manifest": project / "manifest",
        "splits": project / "splits",
        "prepared": project / "prepared",
        "trained": folder / "models" / "small",
        "checkpoints": folder / "checkpoints",
        "phantom_epochs": EPOCHS,
        "data_pointer": project / "none.dvc",
    }
    return Train.build({**values, **changes})


def evaluate(project: Path, folder: Path, **changes: Any) -> Evaluate:
    values: dict[str, Any] = {
        "model": "small",
        "trained": folder / "models" / "small",
        "prepared": project / "prepared",
        "splits": project / "splits",
        "manifest": project / "manifest",
        "data": project / "data",
        "evaluation": folder / "evaluations" / "small",
        "resamples": 100,
    }
    return Evaluate.build({**values, **changes})


def epochs_of(uri: str, run_id: str) -> list[float]:
    return [metric.step for metric in Store(uri).client.get_metric_history(run_id, "val_auroc")]


def test_offline_steps_use_no_store_and_the_next_online_step_logs_all(project: Path, uri: str, tmp_path: Path) -> None:
    offline = {"tracking_uri": f"http://127.0.0.1:{free_port()}", "offline": True}
    before = time.time()
    train(project, tmp_path, **offline).execute()
    after = time.time()
    evaluate(project, tmp_path, **offline).execute()
    training = json.loads((tmp_path / "models" / "small" / "training.json").read_text())
    assert training["run_id"] is None

    for _ in range(2):
        evaluate(project, tmp_path, tracking_uri=uri).execute()
    client = Store(uri).client
    experiment_id = client.get_experiment_by_name("pneumonia (phantoms)").experiment_id
    (run,) = client.search_runs([experiment_id])
    assert (run.info.run_name, run.info.status) == ("small", "FINISHED")
    assert before - 1 <= run.info.start_time / 1000 <= run.info.end_time / 1000 <= after + 1
    assert epochs_of(uri, run.info.run_id) == [1, 2, 3]
    assert run.data.params["architecture"] == "shallow"
    assert "offline" not in run.data.params
    assert "test_auroc" in run.data.metrics


def test_a_step_that_needs_a_store_refuses_offline(tmp_path: Path) -> None:
    for folder in ("models", "evaluations", "splits"):
        (tmp_path / folder).mkdir()
    values = {name: tmp_path / name for name in ("models", "evaluations", "splits") if name in Register.model_fields}
    step = Register.build({**values, "registration": tmp_path / "registration", "offline": True})
    with pytest.raises(ParameterError, match=r"register: expected a store.*offline=true.*tracking\.offline to false"):
        step.execute()
    assert ParameterError.exit_status == 2


@pytest.mark.parametrize("make", [train, evaluate])
def test_a_store_that_is_away_ends_a_step_before_its_work(project: Path, tmp_path: Path, make: Any) -> None:
    (tmp_path / "models" / "small").mkdir(parents=True)  # evaluate would read it if there were a store
    start = time.monotonic()
    with pytest.raises(RegistryError, match="connection refused"):
        make(project, tmp_path, tracking_uri=f"http://127.0.0.1:{free_port()}").execute()
    assert time.monotonic() - start < 30
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "evaluations" / "small").exists()


@pytest.mark.exhaustive  # tests/tracking/test_lost_server.py freezes the server of a run
@pytest.mark.usefixtures("hasty")
def test_a_training_whose_server_freezes_ends_well_and_is_logged_by_the_evaluation(
    project: Path, server: MlflowServer, gate: Gate, tmp_path: Path
) -> None:
    ended = threading.Event()

    def hold_after_the_first_epoch() -> None:
        while not ended.wait(0.05):
            experiment = Store(server.uri).client.get_experiment_by_name("freezes (phantoms)")
            runs = Store(server.uri).client.search_runs([experiment.experiment_id]) if experiment else []
            if any("val_auroc" in run.data.metrics for run in runs):
                gate.hold()
                return

    watch = threading.Thread(target=hold_after_the_first_epoch)
    watch.start()
    train(project, tmp_path, tracking_uri=gate.uri, experiment="freezes", phantom_epochs=25).execute()
    ended.set()
    watch.join()
    assert gate.mode == "held"
    run_id = json.loads((tmp_path / "models" / "small" / "training.json").read_text())["run_id"]
    assert Store(server.uri).client.get_run(run_id).info.status == "RUNNING"
    gate.open()
    evaluate(project, tmp_path, tracking_uri=gate.uri, experiment="freezes").execute()
    assert epochs_of(server.uri, run_id) == list(range(1, 26))
    assert Store(server.uri).client.get_run(run_id).info.status == "FINISHED"


def test_the_run_of_a_training_killed_before_its_first_checkpoint_is_closed_by_the_next_one(
    project: Path, uri: str, tmp_path: Path
) -> None:
    step = train(project, tmp_path, tracking_uri=uri)
    process = run_forked(KILLED_TRAINING, step.model_dump_json())
    assert process.returncode == -signal.SIGKILL, process.stderr[-3000:]
    client = Store(uri).client
    experiment_id = client.get_experiment_by_name("pneumonia (phantoms)").experiment_id
    (killed,) = client.search_runs([experiment_id])
    assert killed.info.status == "RUNNING"

    step.execute()
    runs = {run.info.run_id: run.info.status for run in client.search_runs([experiment_id])}
    trained = json.loads((tmp_path / "models" / "small" / "training.json").read_text())["run_id"]
    assert runs == {killed.info.run_id: "KILLED", trained: "FINISHED"}
    assert not (tmp_path / "checkpoints").exists()
