from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cxr.errors import MissingInputError, ParameterError, RegistryError
from cxr.models.metadata import ModelMetadata
from cxr.steps.champion import Champion
from cxr.steps.history import History
from cxr.steps.lineage import ShowLineage
from cxr.steps.register import Register
from cxr.steps.registry_fields import RegistryStep
from cxr.steps.release import Release
from cxr.steps.rollback import Rollback
from cxr.tracking.store import Store
from support.detector_folders import ON_CPU, DetectorFolders
from support.model_folders import write_models, write_store

NAME = "pneumonia-regions"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of a run in the checkout are no input of a test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folders(tmp_path: Path) -> DetectorFolders:
    write_store(tmp_path)
    return DetectorFolders(tmp_path)


def store(folders: DetectorFolders) -> Store:
    return Store(f"sqlite:///{folders.root}/mlflow.db")


def aliases(folders: DetectorFolders) -> dict[str, str]:
    registered = store(folders).connect().get_registered_model(NAME)
    return {alias: str(version) for alias, version in registered.aliases.items()}


def broken_rules(folders: DetectorFolders) -> list[str]:
    return [rule["name"] for rule in folders.decision()["decision"]["rules"] if not rule["passed"]]


def test_a_detector_of_a_cpu_is_refused_for_want_of_a_gpu_alone(
    folders: DetectorFolders, caplog: pytest.LogCaptureFixture
) -> None:
    folders.write("retinanet", training=ON_CPU)
    with caplog.at_level(logging.INFO, logger="cxr"):
        folders.step().execute()
    assert broken_rules(folders) == ["gpu"]
    assert aliases(folders) == {"challenger": "1"}
    assert "trained on a CPU (test processor)" in caplog.text
    page = (folders.root / "registration" / "decision.html").read_text()
    assert "May version 1 (retinanet) be champion? No" in page
    assert "set promotion_regions.require_gpu to false for a trial" in page
    assert "Test sensitivity at 0.5 false positives per image" in page and "Test calibration error" not in page


def test_a_detector_of_a_gpu_becomes_champion_and_registers_once(folders: DetectorFolders) -> None:
    folders.write("retinanet")
    folders.step().execute()
    assert aliases(folders) == {"challenger": "1", "champion": "1"}
    assert folders.decision()["new"] == ["1"] and broken_rules(folders) == []
    folders.step().execute()
    decision = folders.decision()
    assert decision["new"] == [] and decision["entry"] is None and decision["decision"]["rules"] == []
    assert len(store(folders).connect().search_model_versions(f"name = '{NAME}'")) == 1


def test_a_better_detector_replaces_the_champion_and_a_worse_one_and_a_tie_do_not(folders: DetectorFolders) -> None:
    folders.write("retinanet", noise=0.12)
    folders.step().execute()
    folders.write("retinanet", noise=0.12, seed=1)
    folders.step().execute()
    assert aliases(folders) == {"challenger": "2", "champion": "1"}
    assert broken_rules(folders) == ["better_on_validation"], "a tie"
    folders.write("retinanet", noise=0.05, seed=2)
    folders.step().execute()
    assert aliases(folders) == {"challenger": "3", "champion": "3"}
    decision = folders.decision()
    figures = decision["match"]["comparison"]
    summary = json.loads((folders.evaluations / "retinanet" / "summary.json").read_text())
    ours = figures["validation"]["mean_average_precision"]["ours"]
    assert ours == pytest.approx(summary["validation_mean_average_precision"], abs=1e-9)
    test = figures["test"]["mean_average_precision"]
    assert test["ours"] == pytest.approx(summary["test_mean_average_precision"], abs=1e-9)
    assert test["low"] > 0 and decision["match"]["images"] == 60
    images = pd.read_parquet(folders.root / "registration" / "comparison.parquet")
    assert set(images["split"]) == {"validation", "test"}
    assert images.loc[images["split"] == "test", "champion"].mean() == pytest.approx(test["theirs"], abs=1e-9)
    page = (folders.root / "registration" / "decision.html").read_text()
    assert page.count("<img ") == 1 and "test mean average precision" in page and "Average precisions of both" in page
    folders.write("retinanet", noise=0.12, seed=3)
    folders.step().execute()
    assert aliases(folders) == {"challenger": "4", "champion": "3"}
    assert broken_rules(folders) == ["better_on_validation", "mean_average_precision_on_test"]


def test_validation_chooses_among_the_detectors_of_a_run(folders: DetectorFolders) -> None:
    folders.write("sure", noise=0.05)
    folders.write("vague", noise=0.12)
    folders.step().execute()
    decision = folders.decision()
    assert [facts["model"] for facts in decision["candidates"]] == ["sure", "vague"]
    champion = store(folders).connect().get_model_version_by_alias(NAME, "champion")
    assert champion.tags["model"] == "sure"
    folders.step(include=["vague"], registered_name="another").execute()
    assert [facts["model"] for facts in folders.decision()["candidates"]] == ["vague"]


def test_a_detector_of_another_split_is_not_compared(folders: DetectorFolders) -> None:
    folders.write("retinanet", noise=0.12)
    folders.step().execute()
    folders.write("retinanet", noise=0.05, split_digest="6" * 64)
    folders.step().execute()
    assert broken_rules(folders) == ["comparable"]
    decision = folders.decision()
    assert decision["match"]["comparison"] is None
    assert "on split 66666666 of data dddddddd, the champion on split 55555555" in decision["match"]["reason"]
    assert aliases(folders) == {"challenger": "2", "champion": "1"}


def test_a_detector_like_the_reference_methods_is_refused(folders: DetectorFolders) -> None:
    folders.write("retinanet", noise=0.3)
    folders.step(min_sensitivity=0.0, min_mean_average_precision=0.0).execute()
    assert broken_rules(folders) == ["better_than_references"]
    folders.write("retinanet", noise=0.05)
    path = folders.evaluations / "retinanet" / "summary.json"
    figures = {name: value for name, value in json.loads(path.read_text()).items() if "prior" not in name}
    path.write_text(json.dumps(figures))
    folders.step(registered_name="another").execute()
    assert broken_rules(folders) == ["better_than_references"], "nobody has measured the prior boxes"


def test_limits_on_test_refuse(folders: DetectorFolders) -> None:
    folders.write("retinanet", noise=0.12)
    folders.step(min_mean_average_precision=0.99, min_sensitivity=1.0, require_gpu=False).execute()
    assert broken_rules(folders) == ["mean_average_precision", "sensitivity"]


def test_phantoms_say_so_and_never_replace_patients(folders: DetectorFolders) -> None:
    folders.write("retinanet", noise=0.12)
    folders.step().execute()
    folders.write("retinanet", noise=0.05, dataset={"name": "phantom", "kind": "phantom"})
    folders.step().execute()
    assert broken_rules(folders) == ["data"] and aliases(folders)["champion"] == "1"
    assert "Trained on phantoms" in (folders.root / "registration" / "decision.html").read_text()


def test_the_run_of_a_detector_has_its_figures(folders: DetectorFolders) -> None:
    folders.write("retinanet")
    folders.step().execute()
    client = store(folders).connect()
    version = client.get_model_version(NAME, "1")
    run = client.get_run(version.run_id)
    report = json.loads((folders.evaluations / "retinanet" / "metrics.json").read_text())
    for split, method, name in (("validation", "detector", ""), ("test", "grad_cam", "_grad_cam")):
        figures = report[split]["methods"][method]["all"]
        assert run.data.metrics[f"{split}_auroc{name}"] == figures["auroc"]["value"]
        assert run.data.metrics[f"{split}_sensitivity_at_0.5_fp{name}"] == figures["sensitivity"]["value"]
    assert run.data.metrics["val_mean_average_precision"] == 0.2
    assert run.data.tags["training.device.driver"] == "1.2" and float(run.data.tags["box_scale"]) in (0.9, 1.0)
    tags = version.tags
    assert tags["task"] == "detection" and tags["backbone"] == "efficientnet_lite0"
    sensitivity = report["test"]["methods"]["detector"]["all"]["sensitivity"]["value"]
    assert float(tags["test_sensitivity_at_0.5_fp"]) == sensitivity
    files = {file.path for file in client.list_artifacts(version.run_id, "evaluation")}
    assert {"evaluation/images.parquet", "evaluation/methods.csv"} <= files


def shown(step: RegistryStep, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    step.execute()
    return capsys.readouterr().out


def test_the_commands_about_versions_take_the_name_of_the_registered_model(
    folders: DetectorFolders, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, noise in enumerate((0.12, 0.05)):
        folders.write("retinanet", noise=noise, seed=seed)
        folders.step().execute()
    values: dict[str, Any] = {"tracking_uri": f"sqlite:///{folders.root}/mlflow.db", "registered_name": NAME}
    assert "version 2" in shown(Champion.build(values), capsys)
    history = shown(History.build(values), capsys)
    assert "validation_mean_average_precision_champion" in history
    lineage = shown(ShowLineage.build({**values, "version": "champion"}), capsys)
    assert f"{NAME} version 2 (challenger, champion)" in lineage
    assert "test_sensitivity_at_0.5_fp" in lineage and "threshold rule" in lineage
    Rollback.build(values).execute()
    assert aliases(folders)["champion"] == "1"
    Release.build(values).execute()
    folders.step().execute()
    assert aliases(folders)["champion"] == "2"


def test_classifiers_and_detectors_do_not_mix(folders: DetectorFolders, tmp_path: Path) -> None:
    folders.write("retinanet")
    folders.step().execute()
    classifiers = write_models(tmp_path / "classifiers")
    common = {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "registration": tmp_path / "other"}
    of_classifiers = {
        "models": classifiers.models, "evaluations": classifiers.evaluations, "splits": classifiers.splits
    }  # fmt: skip
    of_detectors = {"models": folders.models, "evaluations": folders.evaluations, "splits": folders.splits}
    with pytest.raises(RegistryError, match=r"expected classifiers, received model=retinanet.*`cxr train`"):
        Register.build({**common, **of_detectors}).execute()
    with pytest.raises(RegistryError, match="expected detectors, received model=three_block"):
        folders.step(**of_classifiers).execute()
    with pytest.raises(RegistryError, match=f"registered_name='{NAME}' with detectors"):
        Register.build({**common, **of_classifiers, "registered_name": NAME}).execute()
    Register.build({**common, **of_classifiers}).execute()
    with pytest.raises(RegistryError, match="registered_name='pneumonia-classifier' with classifiers"):
        folders.step(registered_name="pneumonia-classifier").execute()


def test_a_detector_that_was_not_evaluated_is_named(folders: DetectorFolders) -> None:
    folders.write("retinanet")
    with pytest.raises(MissingInputError, match=r"absent.*run `cxr train_regions` and `cxr evaluate_regions`"):
        folders.step(include=["absent"]).execute()
    images = folders.evaluations / "retinanet" / "images.parquet"
    images.rename(folders.root / "images.parquet")
    with pytest.raises(MissingInputError, match=r"retinanet/images\.parquet; run `cxr evaluate_regions`"):
        folders.step().execute()
    (folders.root / "images.parquet").rename(images)
    ModelMetadata.read(folders.models / "retinanet").write(folders.evaluations / "retinanet")
    with pytest.raises(MissingInputError, match="run `cxr evaluate_regions`"):
        folders.step().execute()


def test_limits_out_of_bounds_are_all_reported() -> None:
    with pytest.raises(ParameterError) as caught:
        DetectorFolders(Path()).step(min_mean_average_precision=1.5, min_ratio_to_references=-1, margin=math.inf)
    assert len(caught.value.problems) == 3
