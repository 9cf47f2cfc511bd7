"""One shard or ten: the steps that work on every image write the same bytes, wherever the shards ran."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cxr.cli.main import main
from cxr.errors import MissingInputError, ParameterError
from cxr.images.shards import all_shards
from cxr.steps.predict import Predict
from cxr.steps.preprocess import Preprocess
from cxr.steps.reference import DescribeReference
from cxr.steps.reference_shard import ReferenceShard
from cxr.steps.resplit import Resplit
from cxr.steps.validate import Validate
from cxr.steps.validate_shard import ValidateShard
from support.folder_digests import folder_digests
from support.model_folders import ModelFolders, write_models

COUNTS = [3, pytest.param(10, marks=pytest.mark.exhaustive)]


@pytest.fixture(scope="module")
def data(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms and a broken file."""
    folder = tmp_path_factory.mktemp("shards") / "data"
    shutil.copytree(phantom_folder, folder)
    image = min(folder.rglob("*.jpeg"))
    image.with_name(f"z{image.name}").write_bytes(image.read_bytes()[:-60])
    return folder


def validate(data: Path, outputs: Path, **changes: Any) -> None:
    """Run the step; its reports and its manifest are in ``outputs``."""
    folders = {name: outputs / name for name in ("manifest", "report", "baseline", "rejected")}
    severity = {"complete": "off", "left_out": "off", "known_name": "off"}
    Validate.build(
        {"data": data, **folders, "cache_gigabytes": 0, "tracking_uri": "", "severity": severity, **changes}
    ).execute()


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of all steps without shards."""
    outputs = tmp_path_factory.mktemp("whole")
    validate(data, outputs)
    folders = {name: outputs / name for name in ("manifest", "splits")}
    Resplit.build({**folders, "max_deviation": 1}).execute()
    images = {"data": data, "cache_gigabytes": 0}
    manifest = outputs / "manifest"
    Preprocess.build(
        {**images, "manifest": manifest, "recipe": "s2_resize", "prepared": outputs / "prepared"}
    ).execute()
    DescribeReference.build({**images, "splits": outputs / "splits", "reference": outputs / "reference"}).execute()
    return outputs


def same_files(first: Path, second: Path, *names: str) -> bool:
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


@pytest.mark.parametrize("count", COUNTS)
def test_validate_finds_what_shards_found(
    data: Path, whole: Path, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in all_shards(count):
        folder = tmp_path / "results" / str(shard.number)
        ValidateShard.build(
            {"data": data, "results": folder, "shard": str(shard), "cache": tmp_path / "cache"}
        ).execute()
    looked_at_again = count_calls(monkeypatch, "cxr.images.decoding._inspect_content")
    validate(data, tmp_path, image_results=tmp_path / "results")
    assert looked_at_again() == 1  # the broken file: what is found in it is not kept
    assert same_files(tmp_path, whole, "manifest/manifest.parquet", "report/exploration.html")


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> Callable[[], int]:
    """Count the calls of a function, which does its work as before."""
    module, _, function = name.rpartition(".")
    original = getattr(import_module(module), function)
    calls: list[None] = []

    @functools.wraps(original)
    def counted(*arguments: Any) -> Any:
        calls.append(None)
        return original(*arguments)

    monkeypatch.setattr(name, counted)
    return lambda: len(calls)


@pytest.mark.parametrize("count", COUNTS)
def test_reference_finds_the_features_of_shards(
    data: Path, whole: Path, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = {"data": data, "splits": whole / "splits"}
    for shard in all_shards(count):
        folder = tmp_path / "results" / str(shard.number)
        ReferenceShard.build({**splits, "results": folder, "shard": str(shard), "cache": tmp_path / "cache"}).execute()
    described = count_calls(monkeypatch, "cxr.inference.reference.building.read_posed_features")
    results = {"image_results": tmp_path / "results", "cache_gigabytes": 0}
    DescribeReference.build({**splits, **results, "reference": tmp_path / "reference"}).execute()
    assert described() == 0
    assert same_files(tmp_path, whole, "reference/reference.npz", "reference/report.json")


def test_processes_prepare_the_same_bytes(data: Path, whole: Path, tmp_path: Path) -> None:
    values = {"data": data, "manifest": whole / "manifest", "recipe": "s2_resize", "cache_gigabytes": 0}
    Preprocess.build({**values, "prepared": tmp_path / "prepared", "shards": 3}).execute()
    assert folder_digests(tmp_path / "prepared") == folder_digests(whole / "prepared")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    return write_models(tmp_path_factory.mktemp("predict"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("count", COUNTS)
def test_the_predictions_of_shards_are_joined(
    folders: ModelFolders, tmp_path: Path, count: int, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    for path in folders.images[:12]:
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "images" / "broken.jpeg").write_bytes(folders.images[2].read_bytes()[:-40])
    common = ["--model", str(folders.models / "three_block"), "--images", str(tmp_path / "images")]
    common = ["predict", *common, "--part_size", "2"]
    assert main([*common, "--output", str(tmp_path / f"whole{suffix}")]) == 0
    for shard in all_shards(count):
        output = tmp_path / "scored" / str(shard.number)
        assert main([*common, "--predictions", str(output), "--shard", str(shard)]) == 0
    parts = list(tmp_path.glob("scored/*/*.parquet"))
    predicted_again = count_calls(monkeypatch, "cxr.inference.scoring.batch._predict_batch")
    assert main([*common, "--output", str(tmp_path / f"joined{suffix}"), "--scored", str(tmp_path / "scored")]) == 0
    assert predicted_again() == 0
    assert len(parts) == 7  # parts of two files, one of them with one
    assert (tmp_path / f"joined{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert not list(tmp_path.glob("scored/.*"))


@pytest.mark.parametrize(
    ("step", "values", "problems"),
    [
        (Validate, {"shards": 0, "workers": -1}, ["shards=0", "workers=-1"]),
        (Preprocess, {"shards": "many", "shard": "3/2"}, ["shards='many'", "shard='3/2'"]),
        (Preprocess, {"shards": 2, "shard": "1/2"}, ["shard=1/2 and shards=2"]),
        (Predict, {"images": ".", "output": "a.csv", "shard": "1/2"}, ["output with shard=1/2"]),
        (Predict, {"images": ".", "output": "a.csv", "shards": 2, "scored": "."}, ["shards and scored"]),
        (Predict, {"files": ["a.jpeg"], "shards": 2}, ["shards=2"]),
    ],
)
def test_all_wrong_values_are_reported(step: type[Any], values: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(ParameterError) as error:
        step.build(values)
    for problem in problems:
        assert problem in str(error.value)


def test_a_missing_folder_of_shards_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"one folder for each shard, received .*nothing"):
        validate(data, tmp_path, image_results=tmp_path / "nothing")
    assert not (tmp_path / "manifest").exists()
