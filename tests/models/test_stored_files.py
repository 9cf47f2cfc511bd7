"""Files of stored models that changed after they were written are refused, and folders without digests are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cxr.cli.main import main
from cxr.errors import DataError
from cxr.inference.predictor import Predictor
from cxr.lineage.model_origin import ModelOrigin, copy_model
from cxr.models.metadata import ModelMetadata
from cxr.models.stored_files import DIGESTS_FILE, check_digest, damaged_files, record_digests
from cxr.promotion.candidates import RunFolders, find_candidates
from support.model_folders import ModelFolders, add_prediction_sets, write_models

FILES = ("model.keras", "card.json", "training.json", "history.csv")


def flip_byte(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def folders(tmp_path: Path) -> ModelFolders:
    """One model and its evaluation with their digests, as training and evaluation leave them."""
    folders = write_models(tmp_path)
    for folder in (folders.models, folders.evaluations):
        record_digests(folder / "three_block")
    return folders


def test_a_changed_byte_of_any_file_is_seen(folders: ModelFolders) -> None:
    trained = folders.models / "three_block"
    assert damaged_files(trained) == []
    assert set(json.loads((trained / DIGESTS_FILE).read_text())) == set(FILES)
    for name in FILES:
        check_digest(trained / name)
        flip_byte(trained / name)
        with pytest.raises(DataError, match=rf"expected {name} as it was written, received a damaged or changed .*;"):
            check_digest(trained / name)
    assert set(damaged_files(trained)) == set(FILES)


def test_a_changed_threshold_is_refused_where_the_card_is_read(folders: ModelFolders) -> None:
    card = folders.evaluations / "three_block" / "card.json"
    card.write_text(card.read_text().replace('"threshold": 0.6', '"threshold": 0.9'))
    with pytest.raises(DataError, match=r"damaged or changed .*card\.json"):
        ModelMetadata.read(card.parent)


def test_a_changed_pair_of_thresholds_is_refused_where_the_card_is_read(folders: ModelFolders) -> None:
    evaluation = folders.evaluations / "three_block"
    sets = add_prediction_sets(evaluation, 0.3, 0.7)
    record_digests(evaluation)
    assert ModelMetadata.read(evaluation).prediction_sets == sets
    add_prediction_sets(evaluation, 0.3, 0.6)
    with pytest.raises(DataError, match=r"damaged or changed .*card\.json"):
        ModelMetadata.read(evaluation)


@pytest.mark.parametrize("with_digests", [True, False])
def test_a_damaged_network_is_one_sentence(
    folders: ModelFolders, capsys: pytest.CaptureFixture[str], tmp_path: Path, with_digests: bool
) -> None:
    trained = folders.models / "three_block"
    network = trained / "model.keras"
    network.write_bytes(network.read_bytes()[:-200])  # its table of contents is at the end
    if not with_digests:
        (trained / DIGESTS_FILE).unlink()
    images = [str(path) for path in folders.images[:1]]
    status = main(["predict", *images, "--model", str(trained), "--predictions", str(tmp_path / "predictions")])
    errors = capsys.readouterr().err
    assert status == 1 and "Traceback" not in errors
    assert str(network) in errors and "dvc repro --force" in errors
    assert not (tmp_path / "predictions").exists()


@pytest.mark.parametrize("name", ["model.keras", "training.json"])
def test_a_damaged_model_is_not_registered(folders: ModelFolders, name: str) -> None:
    run = RunFolders(folders.models, folders.evaluations, folders.splits)
    assert len(find_candidates(run)) == 1
    flip_byte(folders.models / "three_block" / name)
    with pytest.raises(DataError, match=f"damaged or changed .*{name}"):
        find_candidates(run)


def test_a_folder_of_an_earlier_version_is_read_and_its_copy_gets_digests(
    folders: ModelFolders, tmp_path: Path
) -> None:
    old = tmp_path / "received"
    shutil.copytree(folders.models / "three_block", old)
    (old / DIGESTS_FILE).unlink()
    (old / "training.json").write_text(json.dumps({"device": {}, "parameters": {"model": "three_block"}}))
    Predictor.load(old)
    ModelOrigin.read(old)
    copy_model(old, tmp_path / "adopted", "another")
    assert ModelMetadata.read(tmp_path / "adopted").model == "another"
    assert damaged_files(tmp_path / "adopted") == []
    assert set(json.loads((tmp_path / "adopted" / DIGESTS_FILE).read_text())) == set(FILES)


def test_damaged_digests_are_one_sentence(folders: ModelFolders) -> None:
    trained = folders.models / "three_block"
    (trained / DIGESTS_FILE).write_text("{")
    with pytest.raises(DataError, match=rf"expected digests of the files beside it, received .*{DIGESTS_FILE}"):
        Predictor.load(trained)
