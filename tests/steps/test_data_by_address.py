"""Images in an object store give the outputs that the same images give in a folder, byte by byte."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from cxr.data.dvc_hashes import folder_md5
from cxr.data.image_index import read_index
from cxr.errors import SourceError
from cxr.steps.evaluate import Evaluate
from cxr.steps.fetch import Fetch
from cxr.steps.preprocess import Preprocess
from cxr.steps.reference import DescribeReference
from cxr.steps.validate import Validate
from support.dvc_remotes import push, upload
from support.folder_digests import folder_digests
from support.s3_server import S3Server
from support.trained_models import MODEL, SmallTraining, train_small_model

IMAGES, MISTAKES = 60, 2
OUTPUTS = ("manifest", "splits", "prepared", "reference", "evaluation")
TIMES = {"evaluation": {"card.json", "curves/training.csv", "digests.json", "metrics.json", "summary.json"}}
"""Files of a folder that hold the time that something took, or the digest of such a file."""


@pytest.fixture(scope="module")
def indexed(s3_store_of_file: S3Server, phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the phantoms as a version in a DVC remote; read only."""
    root = tmp_path_factory.mktemp("indexed")
    shutil.copytree(phantom_folder, root / "data")
    version, remote = push(root)
    address = upload(remote, s3_store_of_file, "remote")
    shutil.rmtree(remote)
    shutil.rmtree(root / "data")
    values = {"source": address, "data_version": version, "index": True}
    Fetch.build({**values, "data": root / "data", "downloads": root / "downloads"}).execute()
    return root / "data"


def build_reference(training: SmallTraining, root: Path) -> None:
    caches = {"cache": root / "cache", "image_cache": root / "image_cache"}
    splits = {"data": training.data, "splits": training.splits}
    DescribeReference.build({**splits, **caches, "reference": root / "reference"}).execute()


def evaluate(training: SmallTraining, root: Path) -> None:
    """Evaluate the model with its sheet of mistakes."""
    Evaluate.build(
        {"data": training.data, "splits": training.splits, "manifest": training.manifest,
         "prepared": training.prepared, "trained": training.trained, "evaluation": root / "evaluation", "model": MODEL,
         "mistakes": MISTAKES, "resamples": 100, "stress": False, "tracking_uri": ""}
    ).execute()  # fmt: skip


@dataclass(frozen=True)
class BothWays:
    """Outputs of all steps, from a folder and by address.

    Attributes:
        folder: name of an output to its folder.
        address: the same.
        requests: number of requests for each object, from ``validate`` to the reference.
        requests_of_evaluation: number of requests of ``evaluate``.
    """

    folder: dict[str, Path]
    address: dict[str, Path]
    requests: dict[str, int]
    requests_of_evaluation: int


@pytest.fixture(scope="module")
def both_ways(
    s3_store_of_file: S3Server, indexed: Path, small_training: SmallTraining, tmp_path_factory: pytest.TempPathFactory
) -> BothWays:
    outputs = {}
    for name in ("folder", "address"):
        s3_store_of_file.ranges.clear()
        root = tmp_path_factory.mktemp(name)
        training = small_training if name == "folder" else train_small_model(root, indexed)
        build_reference(training, root)
        requests = {key: len(ranges) for key, ranges in s3_store_of_file.ranges.items()}
        evaluate(training, root)
        outputs[name] = {
            "manifest": training.manifest,
            "splits": training.splits,
            "prepared": training.prepared,
            "reference": root / "reference",
            "evaluation": root / "evaluation",
        }
    requests_of_evaluation = sum(map(len, s3_store_of_file.ranges.values())) - sum(requests.values())
    return BothWays(outputs["folder"], outputs["address"], requests, requests_of_evaluation)


def test_the_index_holds_no_image_and_is_the_version(indexed: Path, phantom_folder: Path) -> None:
    assert {path.name for path in indexed.iterdir()} == {"images.parquet", "dataset.json", "boxes.json"}
    assert folder_md5(indexed) == folder_md5(phantom_folder)


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_outputs_are_those_of_the_folder_byte_by_byte(both_ways: BothWays, name: str) -> None:
    expected, received = folder_digests(both_ways.folder[name]), folder_digests(both_ways.address[name])
    differing = {file for file in expected.keys() | received.keys() if expected.get(file) != received.get(file)}
    assert differing <= TIMES.get(name, set())
    assert expected.keys() == received.keys()


def test_the_losses_of_the_training_are_the_same(both_ways: BothWays) -> None:
    expected, received = (
        pd.read_csv(folders["evaluation"] / "curves" / "training.csv").drop(columns=["seconds"])
        for folders in (both_ways.folder, both_ways.address)
    )
    pd.testing.assert_frame_equal(received, expected, check_exact=True)


def test_one_machine_requests_each_image_once_and_for_a_figure_those_that_it_shows(both_ways: BothWays) -> None:
    assert list(both_ways.requests.values()) == [1] * IMAGES
    assert both_ways.requests_of_evaluation <= 2 * MISTAKES


def step_values(data: Path, root: Path, **changes: object) -> dict[str, object]:
    """Values of ``validate`` with its own folders."""
    folders = ("manifest", "report", "baseline", "rejected", "cache", "image_cache")
    return {"data": data, "tracking_uri": "", **{name: root / name for name in folders}, **changes}


def test_without_copies_each_step_requests_the_images_again(
    s3_store_of_file: S3Server, indexed: Path, tmp_path: Path
) -> None:
    s3_store_of_file.ranges.clear()
    values = step_values(indexed, tmp_path, cache_gigabytes=0, image_cache_gigabytes=0)
    Validate.build(values).execute()
    assert s3_store_of_file.ranges
    before = sum(map(len, s3_store_of_file.ranges.values()))
    keep_nothing = {name: values[name] for name in ("data", "manifest", "cache_gigabytes", "image_cache_gigabytes")}
    Preprocess.build({**keep_nothing, "recipe": "s2_resize", "prepared": tmp_path / "prepared"}).execute()
    assert sum(map(len, s3_store_of_file.ranges.values())) - before == IMAGES
    assert not (tmp_path / "image_cache").exists()


def test_a_step_that_the_store_interrupted_continues_with_the_images_that_it_has(
    s3_store_of_file: S3Server, indexed: Path, tmp_path: Path
) -> None:
    """The store refuses everything after some images, and answers again later."""
    s3_store_of_file.ranges.clear()
    values = step_values(indexed, tmp_path)
    keys = sorted(f"remote/files/md5/{md5[:2]}/{md5[2:]}" for md5 in read_index(indexed)["md5"])
    s3_store_of_file.answers_left = 20
    with pytest.raises(SourceError, match="AccessDenied"):
        Validate.build(values).execute()
    assert not (tmp_path / "manifest").exists()
    s3_store_of_file.answers_left = None
    Validate.build(values).execute()
    assert sorted(s3_store_of_file.ranges) == keys
    assert sum(map(len, s3_store_of_file.ranges.values())) <= IMAGES + 20
    assert (tmp_path / "manifest" / "manifest.parquet").is_file()
