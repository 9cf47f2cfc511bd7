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

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest

import cxr
from cxr.errors import MissingInputError, RegistryError
from cxr.images.decoding import decode_grey
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.models.stored_files import record_digests
from cxr.promotion.candidates import RunFolders
from cxr.promotion.policy import PromotionPolicy
from cxr.promotion.report import Registration, write_decision
from cxr.tracking.aliases import read_promotion_log
from cxr.tracking.model_package import PACKAGE
from cxr.tracking.registry import store_decision
from cxr.tracking.registry_reader import fetch_model, missing_files
from cxr.tracking.store import Store
from support.dicom_files import dicom_file
from support.model_folders import (
    CPU,
    GPU,
    THRESHOLD,
    ModelFolders,
    add_prediction_sets,
    change_summary,
    make_metadata,
    replace_evaluation,
    write_models,
)
from support.promotion_policies import EASY_POLICY
from support.registrations import register

NAME = "pneumonia-classifier"


def run_register(
    folders: ModelFolders, store: Store, policy: PromotionPolicy = EASY_POLICY, **options: object
) -> Registration:
    run = RunFolders(folders.models, folders.evaluations, folders.splits, folders.images[0].parent, **options)
    return register(store, run, experiment="pneumonia", registered_name=NAME, policy=policy)


def aliases(store: Store) -> dict[str, str]:
    return {name: str(version) for name, version in store.client.get_registered_model(NAME).aliases.items()}


def retrain(folders: ModelFolders, name: str, **changes: object) -> None:
    """Train the same network again: other metadata, and so another version."""
    make_metadata(name, **changes).write(folders.models / name)
    evaluated = ModelMetadata.read(folders.evaluations / name)
    assert evaluated.temperature is not None and evaluated.threshold is not None
    make_metadata(name, **changes).with_calibration(evaluated.temperature, evaluated.threshold, "rule").write(
        folders.evaluations / name
    )


def test_a_version_predicts_as_the_evaluation_did_in_a_process_without_the_package(
    store: Store, tmp_path: Path
) -> None:
    folders = write_models(tmp_path)
    run_register(folders, store)
    expected = pd.read_parquet(folders.evaluations / "three_block" / "predictions.parquet").set_index("path")
    (tmp_path / "dicom").mkdir()
    for number, path in enumerate(folders.images[:3]):
        (tmp_path / "dicom" / str(number)).write_bytes(dicom_file(decode_grey(path.read_bytes())))
    code = """
import base64, json, sys
from pathlib import Path
import importlib.util
assert importlib.util.find_spec("cxr") is None, "the package must not be importable before loading"
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/pneumonia-classifier@champion")
paths = json.loads(sys.argv[1])
data = [Path(path).read_bytes() for path in paths]
dicom = [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())]
tables = {
    "bytes": model.predict(pd.DataFrame({"image": data})),
    "paths": model.predict(pd.DataFrame({"image": paths})),
    "list": model.predict(data),
    "base64": model.predict([base64.b64encode(file).decode() for file in data]),
    "dicom": model.predict([base64.encodebytes(file).decode() for file in dicom]),
    "singly": pd.concat([model.predict([file]) for file in data[:6]], ignore_index=True),
}
print(json.dumps({form: table.to_dict("list") for form, table in tables.items()}))
"""
    script = tmp_path / "elsewhere" / "serve.py"
    script.parent.mkdir()
    script.write_text(code)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            _WITHOUT_THE_PACKAGE,
            str(script),
            json.dumps([str(path) for path in folders.images]),
            str(tmp_path / "dicom"),
        ],
        capture_output=True,
        text=True,
        cwd=script.parent,
        env={**environment, "MLFLOW_TRACKING_URI": store.uri},
    )
    assert process.returncode == 0, process.stderr[-3000:]
    tables = json.loads(process.stdout.splitlines()[-1])
    expected = expected.loc[[path.name for path in folders.images]]
    for form, table in tables.items():
        probabilities = expected["probability"].tolist()[: len(table["label"])]
        assert table["probability"] == pytest.approx(probabilities, abs=1e-6), form
        assert table["label"] == ["PNEUMONIA" if p >= THRESHOLD else "NORMAL" for p in probabilities], form
        assert table["threshold"] == [THRESHOLD] * len(probabilities), form
    assert len(tables["bytes"]["label"]) == len(folders.images)
    assert set(tables["bytes"]["label"]) == {"NORMAL", "PNEUMONIA"}


def test_a_version_says_uncertain_and_another_coverage_is_another_version(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading puts the version's own code on it
    folders = write_models(tmp_path)
    run_register(folders, store)
    add_prediction_sets(folders.evaluations / "three_block", 0.165, 0.835)
    assert run_register(folders, store).new_versions == ("2",)
    assert run_register(folders, store).new_versions == ()
    plain, with_sets = (
        mlflow.pyfunc.load_model(store.client.get_model_version(NAME, version).source).predict(
            [str(path) for path in folders.images]
        )
        for version in ("1", "2")
    )
    uncertain = with_sets["probability"].between(0.165, 0.835, inclusive="neither")
    assert 0 < uncertain.sum() < len(uncertain)
    assert with_sets["label"].tolist() == plain["label"].mask(uncertain, "UNCERTAIN").tolist()
    columns = ["probability", "threshold", "refusal"]
    pd.testing.assert_frame_equal(with_sets[columns], plain[columns])


def test_a_version_carries_the_modules_that_prediction_imports_and_no_other() -> None:
    source = Path(cxr.__file__).parent
    needed: set[Path] = set()
    queue = [source / "inference" / "predictor.py", source / "inference" / "reference" / "reference.py"]
    while queue:
        file = queue.pop()
        if file in needed:
            continue
        needed.add(file)
        needed.update(folder / "__init__.py" for folder in file.parents if folder.is_relative_to(source))
        tree = ast.parse(file.read_text())
        imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
        modules = (str(node.module).split(".") for node in imports)
        paths = (source.joinpath(*parts[1:]) for parts in modules if parts[0] == "cxr")
        queue += [path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in paths]
    files = {source / name for name in PACKAGE if name.endswith(".py")}
    folders = {source / name for name in PACKAGE if not name.endswith(".py")}
    outside = {file for file in needed if not any(file.is_relative_to(folder) for folder in folders)}
    assert outside == files
    assert all(any(file.is_relative_to(folder) for file in needed) for folder in folders)


_WITHOUT_THE_PACKAGE = """
import site, sys
sys.path += [path for path in {packages!r} if path not in sys.path]
script = sys.argv[1]
sys.argv = sys.argv[1:]
exec(compile(open(script).read(), script, "exec"))
""".format(packages=[path for path in sys.path if path.endswith("-packages")])
"""Starts Python without the files that put an editable installation on the path."""


def test_registering_twice_registers_once(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path, ["three_block", "shallow"])
    first = run_register(folders, store)
    (tmp_path / "registration").mkdir()
    write_decision(tmp_path / "registration", first)
    store_decision(store, first, tmp_path / "registration")
    second = run_register(folders, store)
    assert sorted(first.new_versions) == ["1", "2"]
    assert second.new_versions == ()
    assert len(store.client.search_model_versions(f"name = '{NAME}'")) == 2
    assert second.decision is not None and second.decision.rules == ()
    assert (first.entry, second.entry) == (1, None)


def test_tags_name_device_data_code_and_figures(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    run_register(folders, store)
    tags = store.client.get_model_version(NAME, "1").tags
    summary = json.loads((folders.evaluations / "three_block" / "summary.json").read_text())
    expected = {
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
    assert {key: tags.get(key) for key in expected} == expected
    assert "driver" not in tags


def test_a_figure_that_was_measured_later_is_added_to_the_version(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    run_register(folders, store)
    before = store.client.get_model_version(NAME, "1").tags
    change_summary(folders, "three_block", validation_stress_auroc=0.875, test_auroc=0.123)
    registration = run_register(folders, store)
    assert registration.new_versions == ()
    assert store.client.get_model_version(NAME, "1").tags == {**before, "validation_stress_auroc": "0.875"}
    assert registration.candidates[0].validation_stress_auroc == 0.875


def test_the_policy_says_which_figure_on_validation_chooses_the_challenger(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path, ["three_block", "shallow"])
    change_summary(folders, "three_block", validation_auroc=0.97, validation_stress_auroc=0.90)
    change_summary(folders, "shallow", validation_auroc=0.96, validation_stress_auroc=0.95)
    run_register(folders, store, replace(EASY_POLICY, choose_by="stressed_validation"))
    assert store.client.get_model_version_by_alias(NAME, "challenger").tags["model"] == "shallow"
    run_register(folders, store, EASY_POLICY)
    assert store.client.get_model_version_by_alias(NAME, "challenger").tags["model"] == "three_block"


def test_the_challenger_is_the_best_on_validation_whatever_test_says(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path, ["three_block", "shallow"])
    change_summary(folders, "three_block", validation_auroc=0.97, test_auroc=0.90)
    change_summary(folders, "shallow", validation_auroc=0.96, test_auroc=0.99)
    run_register(folders, store)
    challenger = store.client.get_model_version_by_alias(NAME, "challenger")
    assert challenger.tags["model"] == "three_block"


def test_a_model_trained_on_a_cpu_becomes_challenger_and_not_champion(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    strict = replace(EASY_POLICY, require_gpu=True)
    registration = run_register(folders, store, strict)
    assert aliases(store) == {"challenger": "1"}
    assert "trained on a CPU (test processor)" in registration.headline()
    training = {"device": {**GPU, "driver": None}, "seconds": 60.0}
    retrain(folders, "three_block", training=training)
    assert "as it says without driver" in run_register(folders, store, strict).headline()
    retrain(folders, "three_block", training={**training, "device": GPU})
    run_register(folders, store, strict)
    assert aliases(store) == {"challenger": "3", "champion": "3"}


def test_a_better_challenger_replaces_the_champion_and_a_tie_does_not(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    auroc = replace_evaluation(folders, "three_block", 1.0)["validation_auroc"]
    run_register(folders, store)
    retrain(folders, "three_block", seed=1)
    tie = run_register(folders, store)
    assert aliases(store) == {"challenger": "2", "champion": "1"}
    assert f"{auroc:.4f} against {auroc:.4f}" in tie.headline()
    retrain(folders, "three_block", seed=2)
    assert replace_evaluation(folders, "three_block", 4.0)["validation_auroc"] > auroc
    run_register(folders, store)
    assert aliases(store) == {"challenger": "3", "champion": "3"}


def test_a_challenger_that_is_worse_on_the_frozen_test_images_is_refused(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    assert replace_evaluation(folders, "three_block", 1.5)["validation_auroc"] < 1
    run_register(folders, store)
    predictions = folders.evaluations / "three_block" / "predictions.parquet"
    table = pd.read_parquet(predictions)
    has_pneumonia = table["label"] == "PNEUMONIA"
    # Perfect on validation, guesses on test.
    table["probability"] = np.where(table["split"] == "validation", has_pneumonia, np.linspace(0, 1, len(table)))
    table.to_parquet(predictions)
    retrain(folders, "three_block", seed=1)
    change_summary(folders, "three_block", validation_auroc=1.0)
    registration = run_register(folders, store, replace(EASY_POLICY, margin=0.05))
    assert registration.decision is not None
    assert [rule.name for rule in registration.decision.rules if not rule.passed] == ["auroc_on_test"]
    assert aliases(store)["champion"] == "1"


def test_a_champion_of_another_split_predicts_the_images_that_are_new_to_it(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    splits = pd.read_parquet(folders.splits / "splits.parquet")
    replace_evaluation(folders, "three_block", 2.0)
    evaluated = pd.read_parquet(folders.evaluations / "three_block" / "predictions.parquet").set_index("path")
    # Four images are new to the champion, and it was trained on two others.
    new, learned = splits["path"].iloc[4:8].tolist(), splits["path"].iloc[8:10].tolist()
    earlier = splits[~splits["path"].isin(new)].assign(
        split=lambda rows: rows["split"].mask(rows["path"].isin(learned), "train")
    )
    earlier.to_parquet(folders.splits / "splits.parquet")
    evaluated.drop([*new, *learned]).reset_index().to_parquet(
        folders.evaluations / "three_block" / "predictions.parquet"
    )
    retrain(folders, "three_block", split_digest="0" * 64, data_digest="1" * 64)
    run_register(folders, store)
    splits.to_parquet(folders.splits / "splits.parquet")
    retrain(folders, "three_block", seed=1)
    replace_evaluation(folders, "three_block", 5.0)
    run = RunFolders(folders.models, folders.evaluations, folders.splits, folders.images[0].parent)
    registration = register(store, run, experiment="pneumonia", registered_name=NAME, policy=EASY_POLICY)
    assert registration.comparison is not None and registration.comparison.rows is not None
    rows = registration.comparison.rows
    assert (registration.comparison.set_aside, registration.comparison.newly_predicted) == (2, 4)
    assert not set(rows["path"]) & set(learned)
    predictor = Predictor.load(folders.models / "three_block", ModelMetadata.read(folders.evaluations / "three_block"))
    predictions = predictor.predict([folders.images[0].parent / path for path in new])
    champion = ModelMetadata.read(folders.evaluations / "three_block")
    assert champion.temperature is not None
    compared = rows.set_index("path").loc[new, "theirs"]
    # The same network with the champion's own temperature.
    version = store.client.get_model_version(NAME, "1")
    with tempfile.TemporaryDirectory() as scratch:
        expected = Predictor.load(fetch_model(store, version, Path(scratch))).predict(
            [folders.images[0].parent / path for path in new]
        )
    assert compared.tolist() == pytest.approx([prediction.probability for prediction in expected], abs=1e-6)
    assert len(predictions) == 4
    again = register(
        store,
        replace(run, data=tmp_path / "nowhere"),
        experiment="pneumonia",
        registered_name=NAME,
        policy=EASY_POLICY,
    )
    assert again.decision is not None and again.decision.rules == (), "it has been promoted already"


def test_without_the_images_a_champion_of_other_data_is_not_replaced(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    splits = pd.read_parquet(folders.splits / "splits.parquet")
    replace_evaluation(folders, "three_block", 2.0)
    predictions = folders.evaluations / "three_block" / "predictions.parquet"
    full = pd.read_parquet(predictions)
    splits.iloc[4:].to_parquet(folders.splits / "splits.parquet")
    full.iloc[4:].to_parquet(predictions)
    run_register(folders, store)
    splits.to_parquet(folders.splits / "splits.parquet")
    retrain(folders, "three_block", seed=1)
    replace_evaluation(folders, "three_block", 5.0)
    run = RunFolders(folders.models, folders.evaluations, folders.splits, tmp_path / "nowhere")
    registration = register(store, run, experiment="pneumonia", registered_name=NAME, policy=EASY_POLICY)
    assert registration.comparison is not None and registration.comparison.rows is None
    assert aliases(store)["champion"] == "1"
    assert "predict 4 new images: expected the folder of the images" in registration.headline()


def test_the_log_answers_which_version_was_champion_when(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    replace_evaluation(folders, "three_block", 1.0)
    run_register(folders, store)
    retrain(folders, "three_block", seed=1)
    run_register(folders, store)
    run_register(folders, store)
    retrain(folders, "three_block", seed=2)
    replace_evaluation(folders, "three_block", 4.0)
    registration = run_register(folders, store)
    entries = read_promotion_log(store, NAME)
    assert [(entry.number, entry.candidate, entry.champion, entry.moved) for entry in entries] == [
        (1, "1", "1", True),
        (2, "2", "1", False),
        (3, "3", "3", True),
    ], "the same run once more adds nothing"
    assert registration.entry == 3
    assert [entry.time for entry in entries] == sorted(entry.time for entry in entries)
    assert entries[1].reasons and entries[2].figures["validation_auroc_champion"] < 1
    assert all(entry.applied for entry in entries)


def test_an_alias_that_a_person_has_set_is_never_moved(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    replace_evaluation(folders, "three_block", 1.0)
    run_register(folders, store)
    retrain(folders, "three_block", seed=1)
    replace_evaluation(folders, "three_block", 2.0)
    run_register(folders, store)
    client = store.client
    client.set_registered_model_alias(NAME, "champion", "1")  # a person goes back to the first version
    client.set_registered_model_alias(NAME, "challenger", "1")
    retrain(folders, "three_block", seed=2)
    replace_evaluation(folders, "three_block", 5.0)
    registration = run_register(folders, store)
    assert aliases(store) == {"challenger": "1", "champion": "1"}
    assert registration.manual_aliases == ("challenger", "champion")
    assert client.get_model_version(NAME, "3").tags["recommended"] == "champion"
    assert "a person has chosen version 1 as champion" in registration.headline()
    assert [entry.kind for entry in read_promotion_log(store, NAME)] == ["run", "run", "person", "run"]
    client.set_registered_model_alias(NAME, "champion", "3")
    run_register(folders, store)
    assert "recommended" not in client.get_model_version(NAME, "3").tags


def test_a_pinned_champion_stays(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    replace_evaluation(folders, "three_block", 1.0)
    run_register(folders, store)
    store.client.set_model_version_tag(NAME, "1", "pinned", "true")
    retrain(folders, "three_block", seed=1)
    replace_evaluation(folders, "three_block", 5.0)
    run_register(folders, store)
    assert aliases(store) == {"challenger": "1", "champion": "1"}


def test_phantoms_never_replace_patients_and_patients_replace_phantoms(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path, dataset={"name": "phantom", "kind": "phantom"})
    replace_evaluation(folders, "three_block", 5.0)
    assert run_register(folders, store).on_phantoms
    assert "Trained on phantoms" in store.client.get_model_version(NAME, "1").description
    retrain(folders, "three_block")
    replace_evaluation(folders, "three_block", 2.0)
    run_register(folders, store)
    assert aliases(store)["champion"] == "2"
    retrain(folders, "three_block", seed=3, dataset={"name": "phantom", "kind": "phantom"})
    registration = run_register(folders, store)
    assert aliases(store)["champion"] == "2"
    assert "never replaces version 2, trained on patients" in registration.headline()


def test_a_champion_that_has_lost_its_files_is_reported_and_can_still_be_replaced(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    replace_evaluation(folders, "three_block", 1.0)
    run_register(folders, store)
    for network in Path(store.client.get_model_version(NAME, "1").source).rglob("model.keras"):
        network.unlink()
    retrain(folders, "three_block", seed=1)
    tie = run_register(folders, store)
    assert aliases(store)["champion"] == "1"
    assert "Champion version 1 has lost model.keras: it cannot answer" in tie.notes[0]
    retrain(folders, "three_block", seed=2)
    replace_evaluation(folders, "three_block", 5.0)
    assert run_register(folders, store).notes == ()
    assert aliases(store)["champion"] == "3", "its predictions were kept"


def test_a_challenger_without_its_files_is_never_promoted(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    registration = run_register(folders, store, replace(EASY_POLICY, min_auroc=1.1))
    for network in Path(store.client.get_model_version(NAME, "1").source).rglob("model.keras"):
        network.unlink()
    missing = missing_files(store, store.client.get_model_version(NAME, "1"))
    assert missing == ("model.keras",) and registration.aliases["champion"] is None
    with pytest.raises(RegistryError, match=r"without model\.keras: it cannot answer"):
        fetch_model(store, store.client.get_model_version(NAME, "1"), tmp_path)


def test_models_judged_on_different_splits_are_not_registered_together(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path, ["three_block", "shallow"])
    retrain(folders, "shallow", split_protocol="official", split_digest="0" * 64)
    with pytest.raises(RegistryError, match="same images and split, received shallow=official 00000000"):
        run_register(folders, store)
    assert run_register(folders, store, include=["shallow"]).new_versions == ("1",)


def test_a_model_that_was_not_evaluated_is_named(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    with pytest.raises(MissingInputError, match=r"vgg16/model\.keras.*run `cxr train` and `cxr evaluate`"):
        run_register(folders, store, include=["three_block", "vgg16"])
    assert store.client.search_registered_models() == []


def register_ensemble(folders: ModelFolders, ensemble: Path, store: Store, **options: list[str]) -> Registration:
    return run_register(folders, store, ensemble=ensemble, **options)


def test_an_ensemble_is_one_version_that_holds_its_members(
    half_lungs: tuple[ModelFolders, Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    folders, ensemble = half_lungs
    first, second = (register_ensemble(folders, ensemble, store) for _ in range(2))
    assert first.candidates[0].model == "weighted"
    assert len(first.new_versions) == 4 and second.new_versions == ()
    version = store.client.get_model_version_by_alias(NAME, "champion")
    tags = version.tags
    assert (tags["model"], tags["system"], tags["gpu"], tags["train_seconds"]) == ("weighted", "S3", "no", "3.0")
    assert tags["weights"].split(", ")[1] == "reversed 0.0000"
    assert tags["validation_auroc"] == str(
        json.loads((ensemble / "evaluation" / "summary.json").read_text())["validation_auroc"]
    )
    assert "pooling left" in version.description
    run = store.client.get_run(version.run_id)
    assert run.info.run_name == "weighted"
    assert {"evaluation", "registered"} == {file.path for file in store.client.list_artifacts(version.run_id)}

    monkeypatch.setattr(sys, "path", list(sys.path))  # loading puts the version's own code on it
    stored = Path(version.source)
    assert sorted(path.parent.name for path in stored.rglob("model.keras")) == ["left", "right"]
    table = mlflow.pyfunc.load_model(str(stored)).predict([path.read_bytes() for path in folders.images])
    evaluated = pd.read_parquet(ensemble / "evaluation" / "predictions.parquet").set_index("path")
    expected = evaluated.loc[[path.name for path in folders.images], "probability"]
    assert table["probability"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert set(table["threshold"]) == {ModelMetadata.read(ensemble / "model").threshold}


def test_an_ensemble_can_be_registered_alone_or_left_out(half_lungs: tuple[ModelFolders, Path], store: Store) -> None:
    folders, ensemble = half_lungs
    assert [facts.model for facts in register_ensemble(folders, ensemble, store, include=["left"]).candidates] == [
        "left"
    ]
    alone = register_ensemble(folders, ensemble, store, include=["weighted"])
    assert [facts.model for facts in alone.candidates] == ["weighted"]
    missing = register_ensemble(folders, ensemble.with_name("none"), store)
    assert "weighted" not in {facts.model for facts in missing.candidates}


def test_another_member_makes_another_version(
    half_lungs: tuple[ModelFolders, Path], store: Store, tmp_path: Path
) -> None:
    folders, ensemble = half_lungs
    changed = tmp_path / "ensemble"
    shutil.copytree(ensemble, changed)
    assert register_ensemble(folders, changed, store, include=["weighted"]).new_versions == ("1",)
    network = changed / "model" / "members" / "left" / "model.keras"
    shutil.copyfile(folders.models / "reversed" / "model.keras", network)
    record_digests(network.parent)
    assert register_ensemble(folders, changed, store, include=["weighted"]).new_versions == ("2",)
    network.unlink()
    with pytest.raises(MissingInputError, match=r"members/left/model\.keras"):
        register_ensemble(folders, changed, store, include=["weighted"])
