"""The step fetch: data whole or not at all, no work for the same request, and no file of a person is deleted."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cxr.data.dataset import DatasetCard
from cxr.data.fetching import kermany
from cxr.errors import ParameterError, SourceError
from cxr.steps.fetch import Fetch


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fetch(source: str, **values: object) -> None:
    Fetch.build({"source": source, **values}).execute()


def make_set(folder: Path, images: int = 2) -> Path:
    for label in ("NORMAL", "PNEUMONIA"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            (folder / label / f"{number}.png").write_bytes(f"{folder.name} {label} {number}".encode())
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def modification_times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_images_and_card_appear_in_the_data_folder(tmp_path: Path) -> None:
    make_set(tmp_path / "one")
    fetch("one", data_name="clinic")
    assert names(tmp_path / "data") == {*names(tmp_path / "one"), "dataset.json"}
    assert DatasetCard.read(tmp_path / "data").name == "clinic"


def test_phantoms_are_drawn_by_default(tmp_path: Path) -> None:
    Fetch.build({"phantom_images": 24, "phantom_seed": 3}).execute()
    card = DatasetCard.read(tmp_path / "data")
    assert (card.kind, card.images) == ("phantom", 24)
    assert card.bytes == sum(path.stat().st_size for path in (tmp_path / "data").rglob("*.jpeg"))
    times_before = modification_times(tmp_path / "data")
    Fetch.build({"phantom_images": 24, "phantom_seed": 3, "max_gigabytes": 1}).execute()
    assert modification_times(tmp_path / "data") == times_before


def test_the_same_request_does_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_set(tmp_path / "one")
    fetch("one")
    times_before = modification_times(tmp_path / "data")
    with caplog.at_level(logging.INFO):
        fetch(str(tmp_path / "one"))
    assert modification_times(tmp_path / "data") == times_before
    assert "already holds one: 4 images" in caplog.text


@pytest.mark.parametrize("values", [{"data_name": "other"}, {"refresh": True}, {"expect": "any"}])
def test_another_request_fetches_again(tmp_path: Path, values: dict[str, object]) -> None:
    make_set(tmp_path / "one")
    fetch("one")
    times_before = modification_times(tmp_path / "data")
    fetch("one", **values)
    assert modification_times(tmp_path / "data") != times_before


def test_a_source_that_changed_is_fetched_again(tmp_path: Path) -> None:
    make_set(tmp_path / "one")
    fetch("one")
    make_set(tmp_path / "one", images=3)
    fetch("one")
    assert DatasetCard.read(tmp_path / "data").images == 6


def test_data_of_an_earlier_fetch_are_replaced_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_set(tmp_path / "one")
    make_set(tmp_path / "two", images=1)
    fetch("one")
    for path in (tmp_path / "data").rglob("*.png"):
        path.chmod(0o444)  # as DVC leaves files
    fetch("two")
    assert names(tmp_path / "data") == {*names(tmp_path / "two"), "dataset.json"}
    assert "data/ (one, 4 images) is replaced by two" in caplog.text
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_failed_fetch_leaves_the_data_as_it_was(tmp_path: Path) -> None:
    make_set(tmp_path / "one")
    fetch("one")
    times_before = modification_times(tmp_path / "data")
    with pytest.raises(SourceError):
        fetch("nowhere")
    (tmp_path / "half").mkdir()
    with pytest.raises(SourceError):
        fetch("half")
    assert modification_times(tmp_path / "data") == times_before
    assert names(tmp_path) >= {"data/dataset.json", "artifacts/downloads/fetch.json"}
    fetch("one")
    assert modification_times(tmp_path / "data") == times_before


def test_a_partial_source_never_becomes_data(tmp_path: Path) -> None:
    make_set(tmp_path / "one")
    with pytest.raises(SourceError, match="expected the whole Kermany set"):
        fetch("one", expect="kermany")
    assert not (tmp_path / "data").exists()
    assert list(tmp_path.glob(".data*")) == []


def test_a_folder_that_fetch_did_not_make_is_never_replaced(tmp_path: Path) -> None:
    make_set(tmp_path / "data")
    make_set(tmp_path / "one")
    times_before = modification_times(tmp_path / "data")
    with pytest.raises(SourceError, match=r"received data=data without dataset\.json; move it away"):
        fetch("one")
    assert modification_times(tmp_path / "data") == times_before


def test_a_file_in_the_place_of_the_folder_is_never_replaced(tmp_path: Path) -> None:
    make_set(tmp_path / "one")
    (tmp_path / "data").write_text("mine")
    with pytest.raises(SourceError, match="move it away"):
        fetch("one")
    assert (tmp_path / "data").read_text() == "mine"


def test_a_damaged_card_is_named_with_a_way_out_that_works(tmp_path: Path) -> None:
    make_set(tmp_path / "one")
    fetch("one")
    (tmp_path / "data" / "dataset.json").write_text("{")
    with pytest.raises(SourceError, match=r"dataset\.json: .*; correct it, or move data away"):
        fetch("one", refresh=True)
    (tmp_path / "data").rename(tmp_path / "away")
    fetch("one")
    assert DatasetCard.read(tmp_path / "data").images == 4


@pytest.mark.parametrize("change", ["NORMAL/own.png", "notes.txt"])
def test_files_that_somebody_added_are_never_deleted(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    make_set(tmp_path / "one")
    make_set(tmp_path / "two")
    fetch("one")
    (tmp_path / "data" / change).write_bytes(b"mine")
    fetch("one")
    assert "it was changed since it was fetched" in caplog.text
    with pytest.raises(SourceError, match="move it away first"):
        fetch("two")
    with pytest.raises(SourceError, match="move it away first"):
        fetch("one", refresh=True)
    assert (tmp_path / "data" / change).read_bytes() == b"mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    make_set(tmp_path / "one")
    (tmp_path / "data").mkdir()
    fetch("one")
    assert (tmp_path / "data" / "dataset.json").exists()


def test_a_linked_data_folder_stays_a_link(tmp_path: Path) -> None:
    make_set(tmp_path / "one")
    (tmp_path / "disk" / "data").mkdir(parents=True)
    (tmp_path / "data").symlink_to(tmp_path / "disk" / "data")
    fetch("one")
    assert (tmp_path / "data").is_symlink()
    assert (tmp_path / "disk" / "data" / "dataset.json").exists()


def test_images_that_dvc_has_linked_to_its_cache_count_as_unchanged(tmp_path: Path) -> None:
    make_set(tmp_path / "one")
    make_set(tmp_path / "two")
    fetch("one")
    for number, path in enumerate((tmp_path / "data").rglob("*.png")):
        shutil.move(path, tmp_path / f"cached{number}")
        path.symlink_to(tmp_path / f"cached{number}")
    fetch("two")
    assert names(tmp_path / "data") == {*names(tmp_path / "two"), "dataset.json"}
    assert (tmp_path / "cached0").exists()


@pytest.mark.parametrize("source", ["data", ".", "data/NORMAL"])
def test_source_and_data_must_lie_apart(tmp_path: Path, source: str) -> None:
    make_set(tmp_path / "one")
    fetch("one")
    with pytest.raises(SourceError, match="lie apart"):
        fetch(source)


def test_the_record_holds_no_folder_of_this_machine(tmp_path: Path) -> None:
    fetch(str(make_set(tmp_path / "one")))
    record = (tmp_path / "artifacts/downloads/fetch.json").read_text()
    assert str(tmp_path) not in record
    assert json.loads(record)["request"]["source"] == "one"


def test_a_lost_record_costs_a_fetch_and_nothing_else(tmp_path: Path) -> None:
    make_set(tmp_path / "one")
    fetch("one")
    (tmp_path / "artifacts/downloads/fetch.json").write_text("{")
    times_before = modification_times(tmp_path / "data")
    fetch("one")
    assert modification_times(tmp_path / "data") != times_before


def test_the_published_set_that_another_machine_fetched_is_recognised_without_a_network(
    tmp_path: Path,
) -> None:
    source = "s3://bucket/kermany"
    for (split, label), count in kermany.COUNTS.items():
        folder = tmp_path / "data" / split / label
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}.jpeg").touch()
    DatasetCard("kermany", "patients", source, kermany.IMAGES, 0, kermany.LICENCE).write(tmp_path / "data")
    fetch(source, endpoint_url="http://127.0.0.1:9")
    next((tmp_path / "data").rglob("*.jpeg")).unlink()
    DatasetCard("kermany", "patients", source, kermany.IMAGES - 1, 0, "").write(tmp_path / "data")
    with pytest.raises(SourceError, match="could not reach"):
        fetch(source, endpoint_url="http://127.0.0.1:9")


def test_wrong_parameters_are_all_listed() -> None:
    with pytest.raises(ParameterError) as caught:
        Fetch.build({"source": "", "expect": "most", "phantom_images": 1, "max_gigabytes": 0, "sauce": "x"})
    assert len(caught.value.problems) == 5


def test_the_module_loads_no_library() -> None:
    libraries = {"numpy", "boto3", "kagglehub", "cv2", "tqdm"}
    code = f"import sys, cxr.steps.fetch; print(*(sys.modules.keys() & {libraries}))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == []
