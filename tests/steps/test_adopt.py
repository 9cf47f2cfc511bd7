"""``cxr adopt`` takes a model of another machine only if it stands for the training of this one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import yaml

from cxr.cli.main import main
from cxr.lineage.model_origin import MODEL_FILES
from cxr.models.networks import build_network
from cxr.models.stored_files import DIGESTS_FILE, damaged_files
from support.trained_models import MODEL, SmallTraining

GPU = {"kind": "gpu", "name": "NVIDIA H200", "backend": "jax", "framework": "jax 0.11.2", "driver": "580.159.04"}


@pytest.fixture(scope="module")
def training(small_training: SmallTraining) -> SmallTraining:
    return small_training


@pytest.fixture
def received(training: SmallTraining, tmp_path: Path) -> Path:
    """The trained model's folder, as it was copied from the other machine; its program wrote no digests yet."""
    ignored = shutil.ignore_patterns(DIGESTS_FILE)
    return Path(shutil.copytree(training.trained, tmp_path / "received", ignore=ignored))


@pytest.fixture
def adopt(
    training: SmallTraining, tmp_path: Path, received: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command on the received folder: exit status, standard output and messages."""

    def run(*arguments: str, folder: Path = received, params: Path | None = training.params) -> tuple[int, str, str]:
        named = ["--params", str(params)] if params else []
        named += ["--manifest", str(training.manifest), "--splits", str(training.splits)]
        named += ["--prepared", str(training.prepared.parent), "--trained", str(tmp_path / "models" / MODEL)]
        capsys.readouterr()
        status = main(["adopt", str(folder), *named, *arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != DIGESTS_FILE}


def change(path: Path, **values: Any) -> None:
    """Replace values of a JSON file; ``a__b`` is the key b of the mapping a."""
    document = json.loads(path.read_text())
    for name, value in values.items():
        *parents, last = name.split("__")
        section = document
        for parent in parents:
            section = section[parent]
        section[last] = value
    path.write_text(json.dumps(document))


def change_facts(folder: Path, **values: Any) -> None:
    """Change facts about the training in both files that state them."""
    change(folder / "training.json", **values)
    change(folder / "card.json", **{f"training__{name}": value for name, value in values.items()})


def change_device(folder: Path, **values: Any) -> None:
    change_facts(folder, **{f"device__{name}": value for name, value in values.items()})


def name_the_other_epoch(folder: Path) -> None:
    """Name the worse of the two epochs as the best one."""
    change_facts(folder, best_epoch=3 - json.loads((folder / "training.json").read_text())["best_epoch"])


def change_history(folder: Path, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    edit(pd.read_csv(folder / "history.csv")).to_csv(folder / "history.csv", index=False)


def replace_network(folder: Path, network: Any) -> None:
    network.save(folder / "model.keras")


def shifted_network(folder: Path) -> Any:
    """The network with another last bias, as of another training."""
    network = keras.saving.load_model(folder / "model.keras")
    network.layers[-1].bias.assign(network.layers[-1].bias + 0.5)
    return network


def broken_network(folder: Path) -> Any:
    network = keras.saving.load_model(folder / "model.keras")
    network.layers[-1].bias.assign([np.nan])
    return network


def name_a_program(folder: Path) -> None:
    """Change the file of the network so that a layer is a function of the operating system."""
    with zipfile.ZipFile(folder / "model.keras") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    layer = config["config"]["layers"][1]
    layer |= {"module": "os", "class_name": "system", "registered_name": None, "config": f"touch {folder / 'ran'}"}
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_a_model_that_fits_is_copied_as_a_whole_and_the_next_commands_are_named(adopt, received, tmp_path) -> None:
    (received / ".DS_Store").write_text("left by a file manager")
    status, output, _ = adopt()
    assert status == 0
    copied = contents(tmp_path / "models" / MODEL)
    assert set(copied) == set(MODEL_FILES)
    assert copied == {name: (received / name).read_bytes() for name in MODEL_FILES}
    assert f"dvc commit --force train@{MODEL}" in output
    assert re.search(rf"cxr evaluate .*--model {MODEL} .*--trained \S+{MODEL} --evaluation artifacts/eval", output)
    assert "cxr register --params params.yaml" in output
    assert "trained on a CPU" in output, "the policy will refuse it as champion"


def test_a_model_that_is_already_there_is_not_written_again(adopt, tmp_path) -> None:
    adopt()
    before = (tmp_path / "models" / MODEL / "model.keras").stat()
    status, output, _ = adopt()
    assert status == 0
    assert "is already in" in output
    assert (tmp_path / "models" / MODEL / "model.keras").stat() == before


def test_a_further_seed_is_adopted_under_the_name_of_its_own_entry(adopt, received, training, tmp_path) -> None:
    sections = yaml.safe_load(training.params.read_text())
    own_seed = json.loads((received / "card.json").read_text())["seed"]
    sections["models"] = {
        MODEL: {**sections["models"][MODEL], "seed": own_seed + 1},
        "again": {**sections["models"][MODEL], "seed": own_seed},
    }
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(sections))
    status, _, message = adopt(params=params)
    assert status == 1
    assert "name another entry with --model" in message
    for place in ("in", "already in"):
        status, output, message = adopt("--model", "again", params=params)
        assert status == 0, message
        assert f"again is {place} " in output
        assert "train@again" in output
    copied, original = contents(tmp_path / "models" / MODEL), contents(received)
    assert copied["model.keras"] == original["model.keras"]
    assert copied["history.csv"] == original["history.csv"]
    assert json.loads(copied["card.json"]) == json.loads(original["card.json"]) | {"model": "again"}
    assert json.loads(copied["training.json"])["parameters"]["model"] == "again"


def test_the_copy_has_digests_and_a_folder_that_changed_on_its_way_is_refused(adopt, training, tmp_path) -> None:
    assert adopt(folder=training.trained)[0] == 0
    adopted = tmp_path / "models" / MODEL
    assert (adopted / DIGESTS_FILE).read_bytes() == (training.trained / DIGESTS_FILE).read_bytes()
    assert damaged_files(adopted) == []
    for name in MODEL_FILES:
        changed = Path(shutil.copytree(training.trained, tmp_path / name))
        (changed / name).write_bytes((changed / name).read_bytes() + b" ")
        status, _, message = adopt(folder=changed)
        assert status == 1
        assert f"received a damaged or changed {changed / name}" in message


def test_the_evidence_of_a_gpu_is_shown(adopt, received) -> None:
    change_device(received, **GPU)
    status, output, _ = adopt()
    assert status == 0
    assert "trained on NVIDIA H200, jax 0.11.2, driver 580.159.04" in output
    assert "CPU" not in output


def test_another_model_is_replaced_only_on_demand(adopt, received, tmp_path) -> None:
    adopt()
    before = contents(tmp_path / "models" / MODEL)
    change_device(received, **GPU)
    status, _, message = adopt()
    assert status == 2
    assert re.search(r"received a model that was trained on .*; --replace true replaces it\..*NVIDIA H200", message)
    assert contents(tmp_path / "models" / MODEL) == before
    assert adopt("--replace", "true")[0] == 0
    assert contents(tmp_path / "models" / MODEL) == contents(received)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a file is missing": (lambda folder: (folder / "history.csv").unlink(), "expected the file history.csv"),
    "a card is cut off": (lambda folder: (folder / "card.json").write_text('{"model":'), "expected card.json as"),
    "facts are a list": (lambda folder: (folder / "training.json").write_text("[]"), "expected training.json as"),
    "a history holds words": (
        lambda folder: (folder / "history.csv").write_text("epoch,seconds\none,2\n"), "expected history.csv as"
    ),
    "the card is an evaluation's": (
        lambda folder: change(folder / "card.json", temperature=1.0, threshold=0.5), "that of an evaluation"
    ),
    "a network is cut off": (
        lambda folder: (folder / "model.keras").write_bytes((folder / "model.keras").read_bytes()[:2000]),
        "that Keras loads in safe mode",
    ),
    "a network names a program": (name_a_program, "that Keras loads in safe mode"),
    "the network is of another architecture": (
        lambda folder: replace_network(folder, build_network("shallow", (48, 48, 1))),
        "expected the layers of architecture=three_block",
    ),
    "the network is of another size": (
        lambda folder: replace_network(folder, build_network(MODEL, (64, 64, 1))), r"received model.keras with \(64, 64"
    ),
    "a weight is no number": (lambda folder: replace_network(folder, broken_network(folder)), "finite weights"),
    "the network is of another training": (
        lambda folder: replace_network(folder, shifted_network(folder)), "val_loss=.* as history.csv says"
    ),
    "other images": (lambda folder: change(folder / "card.json", data_digest="d" * 64), "data_digest=dddd"),
    "another split": (lambda folder: change(folder / "card.json", split_digest="5" * 64), "split_digest=5555"),
    "another protocol": (lambda folder: change(folder / "card.json", split_protocol="official"), "=official in card"),
    "patients": (lambda folder: change(folder / "card.json", dataset__kind="patients"), "dataset.kind=phantom"),
    "another recipe": (
        lambda folder: change(folder / "card.json", recipe__equalise=True), "expected equalise=False in the recipe"
    ),
    "an unknown recipe": (lambda folder: change(folder / "card.json", recipe__sise=3), "received sise="),
    "another learning rate": (
        lambda folder: change(folder / "training.json", parameters__learning_rate=0.5), "expected learning_rate=0.001"
    ),
    "an unknown parameter": (
        lambda folder: change(folder / "training.json", parameters__sharpness=2), "received sharpness=2"
    ),
    "another seed": (lambda folder: change(folder / "training.json", parameters__seed=7), "expected seed=0, as in"),
    "files that disagree": (lambda folder: change(folder / "card.json", seed=3), "expected the same seed in both"),
    "a GPU without a driver": (lambda folder: change_device(folder, **{**GPU, "driver": None}), r"expected device\.dr"),
    "a GPU without a name": (lambda folder: change_device(folder, **{**GPU, "name": ""}), r"expected device\.name"),
    "a driver without a GPU": (lambda folder: change_device(folder, driver="580"), "expected no driver of a GPU"),
    "two frameworks": (lambda folder: change_device(folder, framework="caffe 1"), "expected the framework of backend"),
    "another device in one file": (
        lambda folder: change(folder / "training.json", device__name="another"), "expected the same device in both"
    ),
    "another best epoch": (name_the_other_epoch, "expected best_epoch="),
    "an epoch is missing": (
        lambda folder: change_history(folder, lambda history: history.iloc[1:]), "expected the epochs 1 to epochs_run=2"
    ),
    "too little time": (lambda folder: change_facts(folder, seconds=0.01), "expected seconds of at least"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_what_does_not_fit_is_refused_and_nothing_is_written(name: str, adopt, received, tmp_path) -> None:
    damage, expected = DAMAGES[name]
    damage(received)
    status, output, message = adopt()
    assert (status, output) == (1, "")
    assert re.search(expected, message), message
    assert not (tmp_path / "models").exists()
    assert not (received / "ran").exists()


def test_all_problems_are_reported_together(adopt, received) -> None:
    change(received / "card.json", data_digest="d" * 64, recipe__equalise=True)
    change(received / "training.json", parameters__learning_rate=0.5, best_epoch=9)
    replace_network(received, build_network("shallow", (48, 48, 1)))
    status, _, message = adopt()
    assert status == 1
    for problem in ("data_digest", "equalise", "learning_rate", "same best_epoch", "best_epoch=9", "layers of arch"):
        assert problem in message


def test_a_parameter_that_is_younger_than_the_model_had_its_default(
    adopt, received, training: SmallTraining, tmp_path
) -> None:
    facts = json.loads((received / "training.json").read_text())
    for name in ("augmented_views", "gpu_precision"):
        del facts["parameters"][name]
    (received / "training.json").write_text(json.dumps(facts))
    assert adopt()[0] == 0
    sections = yaml.safe_load(training.params.read_text())
    sections["models"][MODEL]["augmented_views"] = 5
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections))
    status, _, message = adopt(params=tmp_path / "params.yaml")
    assert status == 1
    assert "expected augmented_views=5, as in params.yaml, received augmented_views=2" in message


def expect_monitor(training: SmallTraining, folder: Path, monitor: str) -> Path:
    """Write a parameter file that wants another monitor."""
    sections = yaml.safe_load(training.params.read_text())
    sections["models"][MODEL]["monitor"] = monitor
    (folder / "params.yaml").write_text(yaml.safe_dump(sections))
    return folder / "params.yaml"


def test_another_monitor_is_one_problem_and_not_also_a_wrong_epoch(adopt, received, training, tmp_path) -> None:
    other_epoch = 3 - json.loads((received / "training.json").read_text())["best_epoch"]
    change_history(
        received, lambda history: history.assign(val_loss=history["val_loss"] * (history["epoch"] != other_epoch))
    )
    status, _, message = adopt(params=expect_monitor(training, tmp_path, "loss"))
    assert status == 1
    assert "expected monitor='loss', as in params.yaml, received monitor='auroc'" in message
    assert "best_epoch" not in message


def test_the_epoch_of_a_monitor_under_acquisition_changes_is_checked(adopt, received, training, tmp_path) -> None:
    params = expect_monitor(training, tmp_path, "stressed_loss")
    change(received / "training.json", parameters__monitor="stressed_loss")
    status, _, message = adopt(params=params)
    assert status == 1
    assert "without ['val_stressed_loss']" in message
    best_epoch = json.loads((received / "training.json").read_text())["best_epoch"]
    change_history(received, lambda history: history.assign(val_stressed_loss=abs(history["epoch"] - best_epoch)))
    assert adopt(params=params)[0] == 0
    change_history(received, lambda history: history.assign(val_stressed_loss=-abs(history["epoch"] - best_epoch)))
    status, _, message = adopt("--replace", "true", params=params)
    assert (status, "which has the best val_stressed_loss" in message) == (1, True)


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC, whose stages find `cxr` beside this interpreter."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": programs, "DVC_NO_ANALYTICS": "1", "GIT_CEILING_DIRECTORIES": "/"}
    process = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    return process.stdout + process.stderr


def test_dvc_does_not_train_an_adopted_model_again(
    received, training, repository, tmp_path, monkeypatch, capsys
) -> None:
    project = tmp_path / "project"
    for folder in (training.manifest, training.splits, training.prepared):
        shutil.copytree(folder, project / "artifacts" / folder.relative_to(training.root))
    shutil.copy(training.params, project / "params.yaml")
    train = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]["train"]
    train["do"]["deps"] = [path for path in train["do"]["deps"] if not path.startswith(("src/", "artifacts/code/"))]
    (project / "dvc.yaml").write_text(yaml.safe_dump({"vars": ["params.yaml"], "stages": {"train": train}}))
    dvc(project, "init", "--no-scm")
    change_device(received, **GPU)
    monkeypatch.chdir(project)
    capsys.readouterr()
    assert main(["adopt", str(received), "--params", "params.yaml"]) == 0
    (command,) = re.findall(r"^  dvc (commit --force \S+)", capsys.readouterr().out, re.MULTILINE)
    dvc(project, *command.split())
    assert "didn't change, skipping" in dvc(project, "repro", f"train@{MODEL}")
    assert contents(project / "artifacts" / "models" / MODEL) == contents(received)


def test_a_card_from_before_a_field_existed_is_read(adopt, received) -> None:
    card = json.loads((received / "card.json").read_text())
    assert card.pop("mirrored") is False
    (received / "card.json").write_text(json.dumps(card))
    assert adopt()[0] == 0


def test_mistakes_of_a_person_have_status_2(adopt, received, tmp_path) -> None:
    status, _, message = adopt(folder=tmp_path / "nowhere")
    assert (status, "nowhere" in message) == (2, True)
    status, _, message = adopt(params=None)
    assert (status, "give --params params.yaml" in message) == (2, True)
    change(received / "card.json", model="../../etc")
    status, _, message = adopt()
    assert status == 2
    assert "received model='../../etc'" in message and MODEL in message
    assert not (tmp_path / "models").exists()
