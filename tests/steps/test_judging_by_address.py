"""The steps that judge, export and register read images by address, and write what they write from a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import CompletedProcess

import onnx
import pandas as pd
import pytest

from cxr.data.fetching.indexing import index_folder
from cxr.models.metadata import ModelMetadata
from cxr.steps.evaluate import Evaluate
from cxr.steps.evaluate_regions import EvaluateRegions
from cxr.steps.preprocess import Preprocess
from cxr.steps.register import Register
from cxr.tracking.relocation import correct_addresses
from support.fetch_requests import fetch_request
from support.folder_digests import folder_digests
from support.forked_processes import COMMAND, run_forked
from support.model_folders import ModelFolders, make_metadata, replace_evaluation, write_models, write_store
from support.s3_server import S3Server
from support.small_detector import MODEL as DETECTOR
from support.small_detector import SIDE, write_detector
from support.trained_models import MODEL, SmallTraining

NEW = 4
"""Images that the champion has not seen."""


def index(images: Path, data: Path, store: S3Server) -> Path:
    """Upload the images of a folder and index them; gives the data folder."""
    data.mkdir()
    request = fetch_request("phantom", index=True, image_store=f"s3://{store.bucket}/images", endpoint_url=store.url)
    index_folder(images, data, request)
    return data


def differing_files(first: Path, second: Path) -> set[str]:
    expected, received = folder_digests(first), folder_digests(second)
    return {name for name in expected.keys() | received.keys() if expected.get(name) != received.get(name)}


@dataclass(frozen=True)
class Judged:
    """A classifier with its evaluation, and the phantoms that it was judged on in two places.

    Attributes:
        training: folders of the training.
        root: folder with ``models`` and ``evaluations``.
        places: the data folder with the images, and the one with their index.
    """

    training: SmallTraining
    root: Path
    places: Mapping[str, Path]

    @property
    def trained(self) -> Path:
        return self.root / "models" / MODEL

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluations" / MODEL


@pytest.fixture(scope="module")
def judged(
    small_training: SmallTraining, s3_store_of_file: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Judged:
    root = tmp_path_factory.mktemp("judged")
    by_address = index(small_training.data, root / "indexed", s3_store_of_file)
    judged = Judged(small_training, root, {"folder": small_training.data, "address": by_address})
    shutil.copytree(small_training.trained, judged.trained)
    Evaluate.build(
        {"data": by_address, "splits": small_training.splits, "manifest": small_training.manifest,
         "prepared": small_training.prepared, "trained": judged.trained, "evaluation": judged.evaluation,
         "model": MODEL, "resamples": 100, "stress": False, "tracking_uri": ""}
    ).execute()  # fmt: skip
    return judged


@pytest.mark.exhaustive  # below, the export and the champion read images in the same way
def test_boxes_are_evaluated_as_from_the_folder(judged: Judged, s3_store_of_file: S3Server, tmp_path: Path) -> None:
    """With a classifier, which draws its boxes on the raw images, and a sheet of examples."""
    detector = write_detector(tmp_path)
    training = judged.training
    split = json.loads((training.splits / "achieved.json").read_text())["digest"]
    for folder in (detector.trained, detector.evaluation):
        replace(ModelMetadata.read(folder), split_digest=split).write(folder)
    prepared = tmp_path / "prepared"
    Preprocess.build(
        {"data": training.data, "manifest": training.manifest, "prepared": prepared, "recipe": "s4_resize",
         "size": SIDE, "cache": tmp_path / "cache"}
    ).execute()  # fmt: skip
    s3_store_of_file.ranges.clear()
    for place, data in judged.places.items():
        EvaluateRegions.build(
            {"data": data, "splits": training.splits, "manifest": training.manifest, "prepared": prepared,
             "trained": detector.trained, "model": DETECTOR, "classifier": judged.trained,
             "classifier_evaluation": judged.evaluation, "evaluation": tmp_path / place, "resamples": 100,
             "box_scales": [0.9, 1.0], "heat_levels": [0.3, 0.6], "examples": 2, "tracking_uri": ""}
        ).execute()  # fmt: skip
    assert differing_files(tmp_path / "folder", tmp_path / "address") == set()
    splits = pd.read_parquet(training.splits / "splits.parquet")["split"]
    assert len(s3_store_of_file.ranges) >= (splits == "test").sum(), "the images were read at their addresses"


def constants(file: Path) -> list[tuple[int, list[int], bytes]]:
    """Weights and other constants of an ONNX file; the converter orders and numbers them in another way each time."""
    tensors = onnx.load(file).graph.initializer
    return sorted((tensor.data_type, list(tensor.dims), tensor.raw_data) for tensor in tensors)


def export(judged: Judged, place: str, output: Path) -> CompletedProcess[str]:
    """Export in a process of its own: Keras numbers the layers of a process, and the file holds their names."""
    folders = {"--model": judged.trained, "--images": judged.places[place], "--splits": judged.training.splits}
    words = [str(word) for flag in folders.items() for word in flag]
    return run_forked(COMMAND, "export", *words, "--output", str(output))


def test_a_network_is_exported_as_from_the_folder(judged: Judged, s3_store_of_file: S3Server, tmp_path: Path) -> None:
    s3_store_of_file.ranges.clear()
    for place in judged.places:
        done = export(judged, place, tmp_path / place)
        assert done.returncode == 0, done.stderr
    assert differing_files(tmp_path / "folder", tmp_path / "address") <= {"model.onnx", "digests.json"}
    assert constants(tmp_path / "folder" / "model.onnx") == constants(tmp_path / "address" / "model.onnx")
    splits = pd.read_parquet(judged.training.splits / "splits.parquet")["split"]
    assert sum(map(len, s3_store_of_file.ranges.values())) == (splits == "validation").sum()


def test_a_store_that_refuses_ends_an_export_and_nothing_half_is_left(
    judged: Judged, s3_store_of_file: S3Server, tmp_path: Path
) -> None:
    s3_store_of_file.refusal = "AccessDenied"
    try:
        done = export(judged, "address", tmp_path / "output")
    finally:
        s3_store_of_file.refusal = ""
    assert done.returncode == 1 and "s3://" in done.stderr and "AccessDenied" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def challenged(s3_store_of_file: S3Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelFolders, Path, Path]:
    """A better model on a split with images that are new to the champion, the champion's store, and the index."""
    root = tmp_path_factory.mktemp("challenged")
    folders = write_models(root)
    predictions = folders.evaluations / MODEL / "predictions.parquet"
    replace_evaluation(folders, MODEL, 2.0)
    table, splits = pd.read_parquet(predictions), pd.read_parquet(folders.splits / "splits.parquet")
    table.iloc[NEW:].to_parquet(predictions)
    splits.iloc[NEW:].to_parquet(folders.splits / "splits.parquet")
    (root / "store").mkdir()
    uri = write_store(root / "store")
    register(folders, folders.images[0].parent, uri, root / "registration")
    splits.to_parquet(folders.splits / "splits.parquet")
    make_metadata(MODEL, seed=1).write(folders.models / MODEL)
    replace_evaluation(folders, MODEL, 5.0)
    return folders, root / "store", index(folders.images[0].parent, root / "indexed", s3_store_of_file)


def copy_store(store: Path, folder: Path) -> str:
    """Copy a store with its files; gives the address of the copy."""
    shutil.copytree(store, folder)
    correct_addresses(folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"


def register(folders: ModelFolders, data: Path, uri: str, registration: Path) -> None:
    Register.build(
        {"models": folders.models, "evaluations": folders.evaluations, "splits": folders.splits, "data": data,
         "ensemble": data / "none", "reference": data / "none", "registration": registration,
         "tracking_uri": uri, "min_auroc": 0.5, "min_sensitivity": 0.0, "max_calibration_error": 1.0,
         "require_gpu": False, "resamples": 100}
    ).execute()  # fmt: skip


def test_a_champion_predicts_new_images_as_from_the_folder(
    challenged: tuple[ModelFolders, Path, Path], s3_store_of_file: S3Server, tmp_path: Path
) -> None:
    folders, store, by_address = challenged
    s3_store_of_file.ranges.clear()
    for place, data in (("folder", folders.images[0].parent), ("address", by_address)):
        register(folders, data, copy_store(store, tmp_path / f"store_{place}"), tmp_path / place)
    assert sum(map(len, s3_store_of_file.ranges.values())) == NEW
    rows = [(tmp_path / place / "comparison.parquet").read_bytes() for place in ("folder", "address")]
    assert rows[0] == rows[1]
    decision = json.loads((tmp_path / "address" / "decision.json").read_text())
    assert decision["aliases"] == {"champion": "2", "challenger": "2"}


def test_a_champion_that_cannot_read_new_images_stays(
    challenged: tuple[ModelFolders, Path, Path], s3_store_of_file: S3Server, tmp_path: Path
) -> None:
    folders, store, by_address = challenged
    uri = copy_store(store, tmp_path / "store")
    s3_store_of_file.refusal = "AccessDenied"
    try:
        register(folders, by_address, uri, tmp_path / "registration")
    finally:
        s3_store_of_file.refusal = ""
    decision = json.loads((tmp_path / "registration" / "decision.json").read_text())
    assert decision["aliases"] == {"champion": "1", "challenger": "2"}
    assert "s3://" in json.dumps(decision) and "AccessDenied" in json.dumps(decision)
