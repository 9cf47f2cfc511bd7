from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cxr
from cxr.errors import MissingInputError, RegistryError
from cxr.images.decoding import decode_grey
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelCard
from cxr.promotion.registration import Registration
from cxr.promotion.rules import Policy
from cxr.tracking.artifacts import absent_files, fetch_model
from cxr.tracking.connection import client
from cxr.tracking.registry import Run, promotion_log, register
from cxr.tracking.versions import PACKAGE
from support.dicom_files import dicom_file
from support.model_folders import CPU, GPU, THRESHOLD, Folders, card, rejudge, set_summary, write_models

NAME = "pneumonia-classifier"
EASY = Policy(
    require_gpu=False,
    min_auroc=0.0,
    min_sensitivity=0.0,
    max_calibration_error=1.0,
    margin=1.0,
    sensitivity_margin=1.0,
    resamples=100,
)
"""Floors that all pass, so that validation alone decides; 24 test images could show nothing else."""


def run_register(folders: Folders, uri: str, policy: Policy = EASY, **options: object) -> Registration:
    run = Run(folders.models, folders.evaluations, folders.splits, folders.images[0].parent, **options)
    return register(run, uri=uri, experiment="pneumonia", registered_name=NAME, policy=policy)[0]


def aliases(uri: str) -> dict[str, str]:
    return {name: str(version) for name, version in client(uri).get_registered_model(NAME).aliases.items()}


def retrain(folders: Folders, name: str, **changes: object) -> None:
    """Another training of the same network: another card, and so another version."""
    card(name, **changes).write(folders.models / name)
    judged = ModelCard.read(folders.evaluations / name)
    assert judged.temperature is not None and judged.threshold is not None
    card(name, **changes).completed(judged.temperature, judged.threshold, "rule").write(folders.evaluations / name)


def test_a_version_answers_as_the_evaluation_did_in_a_process_without_the_package(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    run_register(folders, uri)
    expected = pd.read_parquet(folders.evaluations / "three_block" / "predictions.parquet").set_index("path")
    (tmp_path / "films").mkdir()
    for number, path in enumerate(folders.images[:3]):
        (tmp_path / "films" / str(number)).write_bytes(dicom_file(decode_grey(path.read_bytes())))
    code = """
import base64, json, sys
from pathlib import Path
import importlib.util
assert importlib.util.find_spec("cxr") is None, "the package must not be importable before loading"
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/pneumonia-classifier@champion")
paths = json.loads(sys.argv[1])
data = [Path(path).read_bytes() for path in paths]
films = [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())]
ways = {
    "bytes": model.predict(pd.DataFrame({"image": data})),
    "paths": model.predict(pd.DataFrame({"image": paths})),
    "list": model.predict(data),
    "base64": model.predict([base64.b64encode(one).decode() for one in data]),
    "dicom": model.predict([base64.b64encode(one).decode() for one in films]),
    "singly": pd.concat([model.predict([one]) for one in data[:6]], ignore_index=True),
}
print(json.dumps({way: answer.to_dict("list") for way, answer in ways.items()}))
"""
    script = tmp_path / "elsewhere" / "serve.py"
    script.parent.mkdir()
    script.write_text(code)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    answer = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            _WITHOUT_THE_PACKAGE,
            str(script),
            json.dumps([str(path) for path in folders.images]),
            str(tmp_path / "films"),
        ],
        capture_output=True,
        text=True,
        cwd=script.parent,
        env={**environment, "MLFLOW_TRACKING_URI": uri},
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    ways = json.loads(answer.stdout.splitlines()[-1])
    wanted = expected.loc[[path.name for path in folders.images]]
    for way, table in ways.items():
        part = wanted["probability"].tolist()[: len(table["label"])]
        assert table["probability"] == pytest.approx(part, abs=1e-6), way
        assert table["label"] == ["PNEUMONIA" if p >= THRESHOLD else "NORMAL" for p in part], way
        assert table["threshold"] == [THRESHOLD] * len(part), way
    assert len(ways["bytes"]["label"]) == len(folders.images)
    assert set(ways["bytes"]["label"]) == {"NORMAL", "PNEUMONIA"}


def test_a_version_carries_the_modules_that_prediction_imports_and_no_other() -> None:
    source = Path(cxr.__file__).parent
    needed: set[Path] = set()
    waiting = [source / "inference" / "predictor.py", source / "inference" / "reference" / "reference.py"]
    while waiting:
        file = waiting.pop()
        if file in needed:
            continue
        needed.add(file)
        needed.update(folder / "__init__.py" for folder in file.parents if folder.is_relative_to(source))
        tree = ast.parse(file.read_text())
        imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
        modules = (str(node.module).split(".") for node in imports)
        paths = (source.joinpath(*parts[1:]) for parts in modules if parts[0] == "cxr")
        waiting += [path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in paths]
    carried = {source / name for name in PACKAGE if name.endswith(".py")}
    folders = {source / name for name in PACKAGE if not name.endswith(".py")}
    outside = {file for file in needed if not any(file.is_relative_to(folder) for folder in folders)}
    assert outside == carried
    assert all(any(file.is_relative_to(folder) for file in needed) for folder in folders)


_WITHOUT_THE_PACKAGE = """
import site, sys
sys.path += [path for path in {packages!r} if path not in sys.path]
script = sys.argv[1]
sys.argv = sys.argv[1:]
exec(compile(open(script).read(), script, "exec"))
""".format(packages=[path for path in sys.path if path.endswith("-packages")])
"""Starts Python without the files that put an editable installation on the path."""


def test_registering_twice_registers_once(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path, ["three_block", "shallow"])
    first = run_register(folders, uri)
    second = run_register(folders, uri)
    assert sorted(first.new) == ["1", "2"]
    assert second.new == ()
    assert len(client(uri).search_model_versions(f"name = '{NAME}'")) == 2
    assert second.decision is not None and second.decision.rules == ()


def test_tags_tell_device_data_code_and_figures(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    run_register(folders, uri)
    tags = client(uri).get_model_version(NAME, "1").tags
    summary = json.loads((folders.evaluations / "three_block" / "summary.json").read_text())
    wanted = {
        "device": CPU["name"],
        "gpu": "no",
        "framework": CPU["framework"],
        "train_seconds": "1.5",
        "epochs": "3",
        "data_md5": "abc.dir",
        "git_commit": "c" * 40,
        "dataset_kind": "patients",
        "split_digest": "5" * 64,
        "recipe": "s2_resize",
        "validation_auroc": str(summary["validation_auroc"]),
    }
    assert {key: tags.get(key) for key in wanted} == wanted
    assert "driver" not in tags


def test_the_challenger_is_the_best_on_validation_whatever_test_says(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path, ["three_block", "shallow"])
    set_summary(folders, "three_block", validation_auroc=0.97, test_auroc=0.90)
    set_summary(folders, "shallow", validation_auroc=0.96, test_auroc=0.99)
    run_register(folders, uri)
    chosen = client(uri).get_model_version_by_alias(NAME, "challenger")
    assert chosen.tags["model"] == "three_block"


def test_a_model_trained_on_a_cpu_becomes_challenger_and_not_champion(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    strict = replace(EASY, require_gpu=True)
    outcome = run_register(folders, uri, strict)
    assert aliases(uri) == {"challenger": "1"}
    assert "trained on a CPU (test processor)" in outcome.headline()
    claimed = {"device": {**GPU, "driver": None}, "seconds": 60.0}
    retrain(folders, "three_block", training=claimed)
    assert "as it says without driver" in run_register(folders, uri, strict).headline()
    retrain(folders, "three_block", training={**claimed, "device": GPU})
    run_register(folders, uri, strict)
    assert aliases(uri) == {"challenger": "3", "champion": "3"}


def test_a_better_challenger_replaces_the_champion_and_a_tie_does_not(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    first = rejudge(folders, "three_block", 1.0)["validation_auroc"]
    run_register(folders, uri)
    retrain(folders, "three_block", seed=1)
    tie = run_register(folders, uri)
    assert aliases(uri) == {"challenger": "2", "champion": "1"}
    assert f"{first:.4f} against {first:.4f}" in tie.headline()
    retrain(folders, "three_block", seed=2)
    assert rejudge(folders, "three_block", 4.0)["validation_auroc"] > first
    run_register(folders, uri)
    assert aliases(uri) == {"challenger": "3", "champion": "3"}


def test_a_challenger_that_is_worse_on_the_frozen_test_images_is_refused(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    assert rejudge(folders, "three_block", 1.5)["validation_auroc"] < 1
    run_register(folders, uri)
    judged = folders.evaluations / "three_block" / "predictions.parquet"
    table = pd.read_parquet(judged)
    sick = table["label"] == "PNEUMONIA"
    # Perfect on validation, guesses on test.
    table["probability"] = np.where(table["split"] == "validation", sick, np.linspace(0, 1, len(table)))
    table.to_parquet(judged)
    retrain(folders, "three_block", seed=1)
    set_summary(folders, "three_block", validation_auroc=1.0)
    outcome = run_register(folders, uri, replace(EASY, margin=0.05))
    assert outcome.decision is not None
    assert [rule.name for rule in outcome.decision.rules if not rule.passed] == ["auroc_on_test"]
    assert aliases(uri)["champion"] == "1"


def test_a_champion_of_another_split_is_asked_about_the_images_that_are_new_to_it(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    splits = pd.read_parquet(folders.splits / "splits.parquet")
    rejudge(folders, "three_block", 2.0)
    asked = pd.read_parquet(folders.evaluations / "three_block" / "predictions.parquet").set_index("path")
    # The champion knew nothing of four images, and was trained on two others.
    new, learned = splits["path"].iloc[4:8].tolist(), splits["path"].iloc[8:10].tolist()
    earlier = splits[~splits["path"].isin(new)].assign(
        split=lambda rows: rows["split"].mask(rows["path"].isin(learned), "train")
    )
    earlier.to_parquet(folders.splits / "splits.parquet")
    asked.drop([*new, *learned]).reset_index().to_parquet(folders.evaluations / "three_block" / "predictions.parquet")
    retrain(folders, "three_block", split_digest="0" * 64, data_digest="1" * 64)
    run_register(folders, uri)
    splits.to_parquet(folders.splits / "splits.parquet")
    retrain(folders, "three_block", seed=1)
    rejudge(folders, "three_block", 5.0)
    run = Run(folders.models, folders.evaluations, folders.splits, folders.images[0].parent)
    outcome, rows = register(run, uri=uri, experiment="pneumonia", registered_name=NAME, policy=EASY)
    assert outcome.match is not None and rows is not None
    assert (outcome.match.set_aside, outcome.match.afresh) == (2, 4)
    assert not set(rows["path"]) & set(learned)
    truth = Predictor.load(folders.models / "three_block", ModelCard.read(folders.evaluations / "three_block"))
    answers = truth.predict([folders.images[0].parent / path for path in new])
    champion = ModelCard.read(folders.evaluations / "three_block")
    assert champion.temperature is not None
    found = rows.set_index("path").loc[new, "theirs"]
    # The same network with the champion's own temperature.
    kept = client(uri).get_model_version(NAME, "1")
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Predictor.load(fetch_model(uri, kept, Path(scratch))).predict(
            [folders.images[0].parent / path for path in new]
        )
    assert found.tolist() == pytest.approx([one.probability for one in wanted], abs=1e-6)
    assert len(answers) == 4
    unknown = register(
        replace(run, data=tmp_path / "nowhere"), uri=uri, experiment="pneumonia", registered_name=NAME, policy=EASY
    )[0]
    assert unknown.decision is not None and unknown.decision.rules == (), "it has been promoted already"


def test_without_the_images_a_champion_of_other_data_is_not_replaced(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    splits = pd.read_parquet(folders.splits / "splits.parquet")
    rejudge(folders, "three_block", 2.0)
    judged = folders.evaluations / "three_block" / "predictions.parquet"
    full = pd.read_parquet(judged)
    splits.iloc[4:].to_parquet(folders.splits / "splits.parquet")
    full.iloc[4:].to_parquet(judged)
    run_register(folders, uri)
    splits.to_parquet(folders.splits / "splits.parquet")
    retrain(folders, "three_block", seed=1)
    rejudge(folders, "three_block", 5.0)
    run = Run(folders.models, folders.evaluations, folders.splits, tmp_path / "nowhere")
    outcome, rows = register(run, uri=uri, experiment="pneumonia", registered_name=NAME, policy=EASY)
    assert rows is None and aliases(uri)["champion"] == "1"
    assert "asked about 4 new images: expected the folder of the images" in outcome.headline()


def test_the_log_answers_which_version_was_champion_when(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    rejudge(folders, "three_block", 1.0)
    run_register(folders, uri)
    retrain(folders, "three_block", seed=1)
    run_register(folders, uri)
    run_register(folders, uri)
    retrain(folders, "three_block", seed=2)
    rejudge(folders, "three_block", 4.0)
    outcome = run_register(folders, uri)
    entries = promotion_log(uri, NAME)
    assert [(one.number, one.candidate, one.champion, one.moved) for one in entries] == [
        (1, "1", "1", True),
        (2, "2", "1", False),
        (3, "3", "3", True),
    ], "the same run once more adds nothing"
    assert outcome.entry == 3
    assert [one.time for one in entries] == sorted(one.time for one in entries)
    assert entries[1].reasons and entries[2].figures["validation_auroc_champion"] < 1
    assert all(one.applied for one in entries)


def test_an_alias_that_a_person_has_set_is_never_moved(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    rejudge(folders, "three_block", 1.0)
    run_register(folders, uri)
    retrain(folders, "three_block", seed=1)
    rejudge(folders, "three_block", 2.0)
    run_register(folders, uri)
    connected = client(uri)
    connected.set_registered_model_alias(NAME, "champion", "1")  # a person goes back to the first version
    connected.set_registered_model_alias(NAME, "challenger", "1")
    retrain(folders, "three_block", seed=2)
    rejudge(folders, "three_block", 5.0)
    outcome = run_register(folders, uri)
    assert aliases(uri) == {"challenger": "1", "champion": "1"}
    assert outcome.held == ("challenger", "champion")
    assert connected.get_model_version(NAME, "3").tags["recommended"] == "champion"
    assert "a person has chosen version 1 as champion" in outcome.headline()
    assert [one.kind for one in promotion_log(uri, NAME)] == ["run", "run", "person", "run"]
    connected.set_registered_model_alias(NAME, "champion", "3")
    run_register(folders, uri)
    assert "recommended" not in connected.get_model_version(NAME, "3").tags


def test_a_pinned_champion_stays(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    rejudge(folders, "three_block", 1.0)
    run_register(folders, uri)
    client(uri).set_model_version_tag(NAME, "1", "pinned", "true")
    retrain(folders, "three_block", seed=1)
    rejudge(folders, "three_block", 5.0)
    run_register(folders, uri)
    assert aliases(uri) == {"challenger": "1", "champion": "1"}


def test_phantoms_never_replace_patients_and_patients_replace_phantoms(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path, dataset={"name": "phantom", "kind": "phantom"})
    rejudge(folders, "three_block", 5.0)
    assert run_register(folders, uri).on_phantoms
    assert "Trained on phantoms" in client(uri).get_model_version(NAME, "1").description
    retrain(folders, "three_block")
    rejudge(folders, "three_block", 2.0)
    run_register(folders, uri)
    assert aliases(uri)["champion"] == "2"
    retrain(folders, "three_block", seed=3, dataset={"name": "phantom", "kind": "phantom"})
    outcome = run_register(folders, uri)
    assert aliases(uri)["champion"] == "2"
    assert "never replaces version 2, trained on patients" in outcome.headline()


def test_a_champion_that_has_lost_its_files_is_told_and_can_still_be_replaced(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    rejudge(folders, "three_block", 1.0)
    run_register(folders, uri)
    for network in Path(client(uri).get_model_version(NAME, "1").source).rglob("model.keras"):
        network.unlink()
    retrain(folders, "three_block", seed=1)
    tie = run_register(folders, uri)
    assert aliases(uri)["champion"] == "1"
    assert "Champion version 1 has lost model.keras: it cannot answer" in tie.notes[0]
    retrain(folders, "three_block", seed=2)
    rejudge(folders, "three_block", 5.0)
    assert run_register(folders, uri).notes == ()
    assert aliases(uri)["champion"] == "3", "what it said of the images was kept"


def test_a_challenger_without_its_files_is_never_promoted(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    outcome = run_register(folders, uri, replace(EASY, min_auroc=1.1))
    for network in Path(client(uri).get_model_version(NAME, "1").source).rglob("model.keras"):
        network.unlink()
    found = absent_files(uri, client(uri).get_model_version(NAME, "1"))
    assert found == ("model.keras",) and outcome.aliases["champion"] is None
    with pytest.raises(RegistryError, match=r"without model\.keras: it cannot answer"):
        fetch_model(uri, client(uri).get_model_version(NAME, "1"), tmp_path)


def test_models_judged_on_different_splits_are_not_put_side_by_side(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path, ["three_block", "shallow"])
    retrain(folders, "shallow", split_protocol="official", split_digest="0" * 64)
    with pytest.raises(RegistryError, match="same images and split, received shallow=official 00000000"):
        run_register(folders, uri)
    assert run_register(folders, uri, include=["shallow"]).new == ("1",)


def test_a_model_that_was_not_evaluated_is_named(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    with pytest.raises(MissingInputError, match=r"vgg16/model\.keras.*run `cxr train` and `cxr evaluate`"):
        run_register(folders, uri, include=["three_block", "vgg16"])
    assert client(uri).search_registered_models() == []


def register_ensemble(folders: Folders, ensemble: Path, uri: str, **options: list[str]) -> Registration:
    return run_register(folders, uri, ensemble=ensemble, **options)


def test_an_ensemble_is_one_version_that_holds_its_members(
    half_lungs: tuple[Folders, Path], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    folders, ensemble = half_lungs
    first, second = (register_ensemble(folders, ensemble, uri) for _ in range(2))
    assert first.candidates[0].model == "weighted"
    assert len(first.new) == 4 and second.new == ()
    version = client(uri).get_model_version_by_alias(NAME, "champion")
    tags = version.tags
    assert (tags["model"], tags["system"], tags["gpu"], tags["train_seconds"]) == ("weighted", "S3", "no", "3.0")
    assert tags["weights"].split(", ")[1] == "reversed 0.0000"
    assert tags["validation_auroc"] == str(
        json.loads((ensemble / "evaluation" / "summary.json").read_text())["validation_auroc"]
    )
    assert "pooling left" in version.description
    run = client(uri).get_run(version.run_id)
    assert run.info.run_name == "weighted"
    assert {"evaluation", "registered"} == {one.path for one in client(uri).list_artifacts(version.run_id)}

    monkeypatch.setattr(sys, "path", list(sys.path))  # loading puts the version's own code on it
    stored = Path(version.source)
    assert sorted(path.parent.name for path in stored.rglob("model.keras")) == ["left", "right"]
    answer = mlflow.pyfunc.load_model(str(stored)).predict([path.read_bytes() for path in folders.images])
    judged = pd.read_parquet(ensemble / "evaluation" / "predictions.parquet").set_index("path")
    wanted = judged.loc[[path.name for path in folders.images], "probability"]
    assert answer["probability"].tolist() == pytest.approx(wanted.tolist(), abs=1e-6)
    assert set(answer["threshold"]) == {ModelCard.read(ensemble / "model").threshold}


def test_an_ensemble_can_be_taken_alone_or_left_out(half_lungs: tuple[Folders, Path], uri: str) -> None:
    folders, ensemble = half_lungs
    assert [one.model for one in register_ensemble(folders, ensemble, uri, include=["left"]).candidates] == ["left"]
    alone = register_ensemble(folders, ensemble, uri, include=["weighted"])
    assert [one.model for one in alone.candidates] == ["weighted"]
    missing = register_ensemble(folders, ensemble.with_name("none"), uri)
    assert "weighted" not in {one.model for one in missing.candidates}


def test_another_member_makes_another_version(half_lungs: tuple[Folders, Path], uri: str, tmp_path: Path) -> None:
    folders, ensemble = half_lungs
    changed = tmp_path / "ensemble"
    shutil.copytree(ensemble, changed)
    assert register_ensemble(folders, changed, uri, include=["weighted"]).new == ("1",)
    network = changed / "model" / "members" / "left" / "model.keras"
    shutil.copyfile(folders.models / "reversed" / "model.keras", network)
    assert register_ensemble(folders, changed, uri, include=["weighted"]).new == ("2",)
    network.unlink()
    with pytest.raises(MissingInputError, match=r"members/left/model\.keras"):
        register_ensemble(folders, changed, uri, include=["weighted"])
