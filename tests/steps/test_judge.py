"""`cxr judge`: a version on labelled images from elsewhere, with its own threshold: report, MLflow, bad tables."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxr.cli.main import main
from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.evaluation.acquisition_changes import ACQUISITION_CHANGES
from cxr.serving.model_source import load_version
from cxr.tracking.store import Store
from support.chest_models import LETTER, NAME, NAMES, Versions, write_versions
from support.figures import drawn_figures
from support.model_folders import add_prediction_sets
from support.outside_images import draw_chests, write_class_folders
from support.s3_server import S3Server

FEW = ("--resamples", 100, "--films", 20)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return write_versions(tmp_path_factory.mktemp("judged"))


def judge(versions: Versions, *arguments: object) -> int:
    return main(["judge", *map(str, ("--tracking_uri", versions.uri, *FEW, *arguments))])


def read(folder: Path, name: str = "metrics.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return content


def write_nih_set(root: Path) -> tuple[Path, Path]:
    """An archive with a folder per part, an image that is no radiograph, and NIH's table."""
    files = draw_chests(40)
    findings = {NORMAL: "No Finding", PNEUMONIA: "Infiltration|Pneumonia"}
    rows = [(name, findings[label], number // 2) for number, (name, (_, label)) in enumerate(files.items())]
    rows[0] = (rows[0][0], "Effusion|Infiltration", 0)
    rows.append(("letter.jpeg", "Pneumonia", 900))
    rows += [rows[1], rows[2], rows[2]]  # exact copies
    archive, table = root / "nih.zip", root / "Data_Entry.csv"
    with zipfile.ZipFile(archive, "w") as target:
        for number, (name, (data, _)) in enumerate(files.items()):
            target.writestr(f"images_{number % 3:03d}/images/{name}", data)
        target.writestr("images_002/images/letter.jpeg", LETTER)
        target.writestr("images_002/images/of_no_row.png", files["00000001_000.png"][0])
        target.writestr("README.txt", "about the set")
    pd.DataFrame(rows, columns=["Image Index", "Finding Labels", "Patient ID"]).to_csv(table, index=False)
    return archive, table


def test_a_table_of_nih_is_judged_and_logged_with_the_version(versions: Versions, tmp_path: Path) -> None:
    archive, table = write_nih_set(tmp_path)
    folder = tmp_path / "out"
    with drawn_figures():
        assert judge(versions, "--data", archive, "--labels", table, "--version", 1, "--judgement", folder) == 0
    report = read(folder)
    assert report["labels"]["known"] == {NORMAL: 19, PNEUMONIA: 21}
    assert report["labels"]["unknown"] == {"Effusion|Infiltration": 1}
    assert report["labels"]["images_without_label"] == 1
    assert report["labels"]["repeated_rows"] == 3
    assert "- 3 rows repeat an image: each image counts once\n" in (folder / "JUDGEMENT.md").read_text()
    assert report["refusals"]["refused"] == 1 and report["refusals"]["classes"][NORMAL]["refused"] == 0
    assert report["bootstrap"]["unit"] == "patient"
    answered, all_images = report["without_refused"], report["with_refused"]
    assert (answered["images"], all_images["images"]) == (39, 40)
    assert answered["patients"] == 20, "the first patient has an image of unknown class and one with pneumonia"

    rows = pd.read_parquet(folder / "predictions.parquet")
    for entry, part in ((answered, rows[rows["refusal"].isna()]), (all_images, rows)):
        labels, probability = part["label"] == PNEUMONIA, part["probability"]
        measures = entry["at_threshold"]
        assert measures["auroc"]["value"] == pytest.approx(roc_auc_score(labels, probability))
        assert measures["sensitivity"]["value"] == pytest.approx((probability[labels] >= rows["threshold"][0]).mean())
        assert measures["brier"]["value"] == pytest.approx(((probability - labels) ** 2).mean())
    assert not re.search(r"\b900\b", (folder / "predictions.parquet").read_bytes().decode("latin1"))
    assert "Patient ID" not in rows and set(rows["group"]) == set(range(21)), "keys of patients become numbers"

    client = Store(versions.uri).client
    version = client.get_model_version(NAME, "1")
    run = client.get_run(version.run_id)
    assert run.data.metrics["outside/nih/auroc"] == pytest.approx(answered["at_threshold"]["auroc"]["value"])
    assert float(version.tags["outside/nih/share_refused"]) == pytest.approx(1 / 40)
    (parent,) = client.list_artifacts(version.run_id, "outside")
    names = {Path(file.path).name for file in client.list_artifacts(version.run_id, f"{parent.path}/nih")}
    assert {"JUDGEMENT.md", "metrics.json", "summary.json", "predictions.parquet", "plots", "curves"} <= names
    inputs = {entry.tags[0].value: entry.dataset for entry in run.inputs.dataset_inputs}
    assert inputs["outside"].name == "nih" and json.loads(inputs["outside"].profile)["pneumonia"] == 21
    section = version.description.partition("## On other data")[2].partition("##")[0]
    assert re.search(r"nih \| 40<br>21 patients \| 2\.5 %", section)
    assert "On other data" not in client.get_model_version(NAME, "2").description
    # What the page of `cxr app` shows.
    cards = [
        load_version(Store(versions.uri), NAME, number, "", preferred_alias="").model_card for number in ("1", "2")
    ]
    assert ["## On other data" in str(card) for card in cards] == [True, False]
    page = (folder / "JUDGEMENT.md").read_text(encoding="utf-8")
    assert "1 left out, class unknown: Effusion|Infiltration (1)" in page and "no_chest_film (1)" in page


def test_nothing_is_fitted_and_probabilities_are_those_of_predict(versions: Versions, tmp_path: Path) -> None:
    data = write_class_folders(tmp_path / "ward", draw_chests(24, seed=3))
    folder, table = tmp_path / "out", tmp_path / "rows.csv"
    assert judge(versions, "--data", data, "--judgement", folder, "--offline", "true") == 0
    arguments = ("--tracking_uri", versions.uri, "--images", data, "--output", table)
    assert main(["predict", *map(str, arguments)]) == 0
    predicted = pd.read_csv(table).set_index("path")
    rows = pd.read_parquet(folder / "predictions.parquet").set_index("path")
    assert rows["probability"].to_dict() == pytest.approx(predicted["probability"].to_dict(), abs=1e-9)
    assert set(rows["threshold"]) == set(predicted["threshold"])
    assert read(folder)["bootstrap"]["unit"] == "image", "nobody says which patients these are"
    assert any("intervals are over images" in note for note in read(folder)["notes"])
    assert "outside/ward/auroc" not in Store(versions.uri).client.get_model_version(NAME, "1").tags


def test_a_table_of_covid_chestxray_keeps_views_and_patients(versions: Versions, tmp_path: Path) -> None:
    files = draw_chests(24, seed=5)
    findings = {NORMAL: "No Finding", PNEUMONIA: "Pneumonia/Viral/COVID-19"}
    rows = [(f"p{number // 4}", findings[label], "PA", "images", name)
            for number, (name, (_, label)) in enumerate(files.items())]  # fmt: skip
    rows[1] = (*rows[1][:2], "L", *rows[1][3:])
    rows[2] = (rows[2][0], "todo", *rows[2][2:])
    rows[3] = (rows[3][0], "Pneumonia/Lipoid", *rows[3][2:])
    (tmp_path / "set" / "images").mkdir(parents=True)
    for name, (data, _) in files.items():
        (tmp_path / "set" / "images" / name).write_bytes(data)
    table = tmp_path / "metadata.csv"
    pd.DataFrame(rows, columns=["patientid", "finding", "view", "folder", "filename"]).to_csv(table, index=False)
    folder = tmp_path / "out"
    assert judge(
        versions, "--data", tmp_path / "set", "--labels", table, "--judgement", folder, "--only", "{view: [PA, AP]}",
        "--words", "{No Finding: NORMAL, Pneumonia: PNEUMONIA, Pneumonia/Lipoid: null}", "--offline", "true",
    ) == 0  # fmt: skip
    report = read(folder)
    assert report["labels"]["unknown"] == {"todo": 1, "Pneumonia/Lipoid": 1}
    assert report["labels"]["rows_of_other_values"] == {"view": 1}
    assert report["labels"]["known"] == {NORMAL: 11, PNEUMONIA: 10}
    assert report["with_refused"]["patients"] == 6


def test_images_shifted_as_by_another_device_are_farther_from_training_and_still_reported(
    versions: Versions, tmp_path: Path
) -> None:
    darker = next(change for change in ACQUISITION_CHANGES if change.key == "contrast_0.6")
    shifted_files = draw_chests(60, change=lambda image: darker.apply(image[..., None])[..., 0])
    reports = {}
    for name, files in (("plain", draw_chests(60)), ("shifted", shifted_files)):
        data = write_class_folders(tmp_path / name, files)
        assert judge(versions, "--data", data, "--judgement", tmp_path / "out", "--offline", "true") == 0
        reports[name] = read(tmp_path / "out")
    contrasts = {
        name: next(test["distance"] for test in report["distance"]["findings"] if test["name"] == "contrast")
        for name, report in reports.items()
        if any(test["name"] == "contrast" for test in report["distance"]["findings"])
    }
    refused = {name: report["refusals"]["refused"] for name, report in reports.items()}
    assert refused["shifted"] > refused["plain"] or contrasts["shifted"] > contrasts["plain"] + 0.3
    assert reports["shifted"]["with_refused"]["images"] == 60


def test_images_of_one_class_are_judged_on_request_without_figures_that_need_both(
    versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: file for name, file in draw_chests(24).items() if file[1] == PNEUMONIA}
    data, folder = write_class_folders(tmp_path / "ill", files), tmp_path / "out"
    assert judge(versions, "--data", data, "--judgement", folder, "--offline", "true") == 2
    assert "received NORMAL=0, PNEUMONIA=12; add images of NORMAL" in capsys.readouterr().err
    assert not folder.exists()
    arguments = ("--data", data, "--judgement", folder, "--offline", "true", "--one_class", "true")
    assert judge(versions, *arguments) == 0
    measures = read(folder)["without_refused"]["at_threshold"]
    assert {name for name, entry in measures.items() if entry["value"] is not None} == {"sensitivity"}
    assert measures["sensitivity"]["low"] is not None
    assert "are all PNEUMONIA: only the sensitivity is known" in (folder / "JUDGEMENT.md").read_text()
    assert {path.stem for path in (folder / "plots").iterdir()} >= {"confusion", "scores", "mistakes"}
    assert not (folder / "plots" / "roc.png").exists() and not list((folder / "curves").iterdir())


def test_a_model_of_a_folder_is_judged_without_a_registry(versions: Versions, tmp_path: Path) -> None:
    data = write_class_folders(tmp_path / "ward", draw_chests(12))
    (data / NORMAL / "broken.png").write_bytes(draw_chests(1)["00000000_000.png"][0][:-60])
    folder = tmp_path / "out"
    arguments = ("--model", versions.folders.models / NAMES[0], "--data", data, "--judgement", folder)
    assert main(["judge", *map(str, (*arguments, *FEW, "--data_name", "ward-b"))]) == 0
    report = read(folder)
    assert report["version"] is None and report["data"]["name"] == "ward-b"
    assert report["unreadable"] == {"truncated": 1} and report["with_refused"]["images"] == 12

    judgements, root = tmp_path / "judgements", versions.folders.models.parent
    judgements.mkdir()
    folder.rename(judgements / "ward-b")
    places = {"models": root / "models", "evaluations": root / "evaluations", "judgements": judgements,
              "kept": tmp_path / "kept", "page": tmp_path / "results.md", "ensemble": tmp_path / "none",
              "reference": tmp_path / "none", "readme": "null", "phantoms": "true"}  # fmt: skip
    assert main(["results", *(word for name, value in places.items() for word in (f"--{name}", str(value)))]) == 0
    section = (tmp_path / "results.md").read_text().partition("### On other data")[2].partition("###")[0]
    assert "| **three_block** | ward-b | 13 |" in section and "**shallow**" not in section


def test_a_judgement_again_replaces_the_one_before_and_says_when_the_set_is_that_of_training(
    versions: Versions, tmp_path: Path
) -> None:
    files, data = draw_chests(24, seed=7), tmp_path / "ward"
    folder = tmp_path / "out"
    arguments = ("--version", 2, "--data", data, "--judgement", folder, "--data_name", "phantom")
    write_class_folders(data, files)
    assert judge(versions, *arguments) == 0
    assert any("data set of the same name" in note for note in read(folder)["notes"])
    for path in (data / NORMAL).iterdir():
        path.unlink()
    assert judge(versions, *arguments, "--one_class", "true") == 0
    tags = {name for name in Store(versions.uri).client.get_model_version(NAME, "2").tags if "outside/phantom" in name}
    assert "outside/phantom/sensitivity" in tags and "outside/phantom/auroc" not in tags
    description = Store(versions.uri).client.get_model_version(NAME, "2").description
    assert description.count("| phantom | 12 |") == 1 and "| phantom | 24 |" not in description


def test_slices_come_from_the_tables_of_the_set_and_the_worst_one_is_named_in_report_card_and_mlflow(
    versions: Versions, tmp_path: Path
) -> None:
    files = draw_chests(48, seed=11)
    data, table, folder = write_class_folders(tmp_path / "clinic", files), tmp_path / "labels.csv", tmp_path / "out"
    rows = []
    for number, (name, (_, label)) in enumerate(files.items()):
        scanner = "AAB"[number % 3]
        # Of scanner B, every second healthy chest is labelled as ill: its sensitivity is the lowest.
        wrong = label == NORMAL and scanner == "B" and number % 4 == 0
        rows.append(
            (f"{label}/{name}", PNEUMONIA if wrong else label, f"p{number}", scanner, "C" if number < 4 else "")
        )
    pd.DataFrame(rows, columns=["path", "label", "patient", "scanner", "site"]).to_csv(table, index=False)
    patients = [
        (f"{label}/{name}", f"p{number}", str(number % 30)) for number, (name, (_, label)) in enumerate(files.items())
    ]
    pd.DataFrame(patients, columns=["path", "patient", "age"]).to_csv(data / "patients.csv", index=False)
    slice_flags = ("--slices", "[scanner, site, age, brightness, sex]", "--slice_min_patients", 5)
    assert judge(versions, "--version", 2, "--data", data, "--labels", table, "--judgement", folder, *slice_flags) == 0

    report = read(folder)
    assert report["slices"] == {
        "columns": ["scanner", "site", "age", "brightness"], "absent": ["sex"], "min_patients": 5
    }  # fmt: skip
    measured = {
        f"{entry['column']}: {entry['slice']}": entry for entry in report["without_refused"]["slices"]["measured"]
    }
    assert [sum(title.startswith(column) for title in measured) for column in ("age", "brightness")] == [3, 3]
    predicted = pd.read_parquet(folder / "predictions.parquet")
    assert {"age", "scanner", "site"}.isdisjoint(predicted.columns), "only the names of slices are kept"
    predicted["scanner"] = predicted["path"].map({path: scanner for path, _, _, scanner, _ in rows})
    part = predicted[(predicted["scanner"] == "B") & predicted["refusal"].isna() & (predicted["label"] == PNEUMONIA)]
    expected = (part["probability"] >= part["threshold"]).mean()
    worst = report["without_refused"]["slices"]["worst"]
    assert (worst["column"], worst["slice"]) == ("scanner", "B") and 0 < expected < 1
    assert worst["sensitivity"]["value"] == pytest.approx(expected)
    assert [entry["slice"] for entry in report["without_refused"]["slices"]["too_small"]] == ["C"]

    page = (folder / "JUDGEMENT.md").read_text()
    assert re.search(r"Lowest sensitivity of a slice: [\d.]+ % \[.*\], scanner: B\.", page)
    assert "Too small for figures: site: C (4)." in page
    assert "no slices of sex: no table of the data set has such a column" in page
    version = Store(versions.uri).client.get_model_version(NAME, "2")
    assert version.tags["outside/clinic/worst_slice"] == "scanner: B"
    assert float(version.tags["outside/clinic/worst_slice_sensitivity"]) == pytest.approx(expected)
    metrics = Store(versions.uri).client.get_run(version.run_id).data.metrics
    assert metrics["outside/clinic/worst_slice_sensitivity"] == pytest.approx(expected)
    section = version.description.partition("## On other data")[2].partition("##")[0]
    assert "Lowest sensitivity of a slice" in section and "<br>scanner: B |" in section

    assert judge(versions, "--version", 2, "--data", data, "--judgement", folder) == 0
    tags = Store(versions.uri).client.get_model_version(NAME, "2").tags
    assert "outside/clinic/auroc" in tags and "outside/clinic/worst_slice" not in tags


SLICE_PROBLEMS = {
    "[sex, scanner]": ["slices=sex, scanner, which are not there; correct the names"],
    "[ward, both, path, many]": [
        "expected slices that patients share, received slices=path, the column of the path",
    ],
    "[ward, both, many]": [
        "received slices=both, which the table of labels and patients.csv have",
        "at most 50 values, received slices=many with 60",
        "expected rows of patients.csv for the images, received slices=ward and none",
    ],
    "[both, both]": ["expected slices to be a list of different columns"],
}


@pytest.mark.parametrize("columns", SLICE_PROBLEMS)
def test_wrong_slices_are_refused_before_an_image_is_read(
    columns: str, versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, names = tmp_path / "ward", [f"{number}.png" for number in range(60)]
    data.mkdir()
    for name in names:
        (data / name).write_bytes(b"no image")
    rows = [(name, NORMAL, "x", f"value {name}") for name in names]
    pd.DataFrame(rows, columns=["path", "label", "both", "many"]).to_csv(tmp_path / "labels.csv", index=False)
    (data / "patients.csv").write_text("path,patient,ward,both\nelsewhere.png,p1,A,y\n")
    arguments = ("--data", data, "--labels", tmp_path / "labels.csv", "--slices", columns)
    assert judge(versions, *arguments, "--judgement", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert [problem for problem in SLICE_PROBLEMS[columns] if problem not in message] == []
    assert not (tmp_path / "out").exists()


def test_a_model_with_a_coverage_says_how_many_images_of_elsewhere_are_uncertain(
    versions: Versions, tmp_path: Path
) -> None:
    data, folder = write_class_folders(tmp_path / "ward", draw_chests(24, seed=2)), tmp_path / "out"
    evaluation = tmp_path / "evaluation"
    shutil.copytree(versions.folders.evaluations / NAMES[0], evaluation)
    sets = add_prediction_sets(evaluation, 0.01, 0.99)
    arguments = ("--model", versions.folders.models / NAMES[0], "--evaluation", evaluation, "--data", data)
    assert main(["judge", *map(str, (*arguments, *FEW, "--judgement", folder, "--offline", "true"))]) == 0
    rows = pd.read_parquet(folder / "predictions.parquet")
    answered = rows[rows["refusal"].isna()]
    uncertain = [len(sets.classes(probability)) != 1 for probability in answered["probability"]]
    measured = read(folder)["without_refused"]["prediction_sets"]
    assert measured["uncertain"]["value"] == pytest.approx(sum(uncertain) / len(answered)) and any(uncertain)
    assert re.search(r"\| Uncertain \| [\d.]+ %", (folder / "JUDGEMENT.md").read_text())


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_the_source_is_the_name_that_the_user_gave_and_the_content_without_folders_of_the_machine(
    form: str, versions: Versions, tmp_path: Path
) -> None:
    data, folder = write_class_folders(tmp_path / "ward-7", draw_chests(8, seed=4)), tmp_path / "out"
    if form == "archive":
        shutil.make_archive(str(data), "zip", data)
        data = data.with_suffix(".zip")
    assert judge(versions, "--version", 2, "--data", data, "--judgement", folder) == 0
    summary = read(folder, "summary.json")
    assert summary["source"] == data.name
    version = Store(versions.uri).client.get_model_version(NAME, "2")
    written = (folder / "JUDGEMENT.md").read_text(), (folder / "metrics.json").read_text(), version.description
    assert all(f"{data.name}, content {summary['digest'][:8]}" in text for text in written[::2])
    assert not any(str(tmp_path) in text for text in written)


def test_images_of_an_object_store_are_judged(versions: Versions, tmp_path: Path, s3_store: S3Server) -> None:
    for name, (data, label) in draw_chests(8).items():
        s3_store.put(f"ward/{label}/{name}", data)
    address = f"s3://{s3_store.bucket}/ward"
    arguments = ("--data", address, "--endpoint_url", s3_store.url, "--judgement", tmp_path / "out")
    assert judge(versions, *arguments, "--offline", "true") == 0
    assert read(tmp_path / "out")["labels"]["known"] == {NORMAL: 4, PNEUMONIA: 4}
    assert read(tmp_path / "out")["data"]["source"] == address


TABLE_PROBLEMS = {
    "name,finding\n00000000_000.png,normal\n": ["a column for the path (path or Image Index or filename)"],
    "path,note\n00000000_000.png,normal\n": ["a column for the label (label or Finding Labels or finding)"],
    "path,label,patient\n00000000_000.png,NORMAL,a\n00000000_000.png,Pneumonia,b\ngone.png,NORMAL,c\n": [
        "contradict each other (NORMAL and PNEUMONIA) for 1: 'NORMAL/00000000_000.png'",
        "several patients for 1: 'NORMAL/00000000_000.png'",
        "images that are not there 1: 'gone.png'; give all images, remove these rows, or leave them out",
    ],
    "path,label\n00000000_000.png,Effusion\n00000001_000.png,\n": ["with 'Effusion', '(empty)'; name their class"],
    "": ["expected a table of labels as CSV in UTF-8", "No columns to parse from file"],
    "path,label\n": ["with no rows; name their class"],
    "path,label\n../elsewhere/00000000_000.png,NORMAL\n/etc/passwd,NORMAL\n": [
        "images that are not there 2: '../elsewhere/00000000_000.png', '/etc/passwd'",
    ],
    "path,label\nsame.png,NORMAL\n": ["names of several images 1: 'same.png'; give more of their paths"],
}


@pytest.mark.parametrize("content", TABLE_PROBLEMS)
def test_all_problems_of_a_table_are_reported_and_nothing_is_written(
    content: str, versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, table = write_class_folders(tmp_path / "ward", draw_chests(2)), tmp_path / "labels.csv"
    for folder in data.iterdir():
        (folder / "same.png").write_bytes(b"")
    table.write_text(content)
    assert judge(versions, "--data", data, "--labels", table, "--judgement", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert [problem for problem in TABLE_PROBLEMS[content] if problem not in message] == []
    assert {path.name for path in tmp_path.iterdir()} == {"ward", "labels.csv"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--data", "nowhere"), "expected a folder, an archive"),
        (("--data", ".", "--labels", "nowhere.csv"), "expected a table of labels as CSV"),
        (("--data", "s3://KEY:hush@ward/x"), "received source=s3://ward/x; correct the bucket's name, and set AWS_"),
        (("--data", "."), "expected images in folders NORMAL and PNEUMONIA, received 1 images elsewhere"),
        (("--data", ".", "--words", "{normal: healthy}"), "expected words.normal to be 'NORMAL' or 'PNEUMONIA'"),
        (("--data", ".", "--labels", "labels.csv", "--only", "{view: [PA]}"), "expected the column view of only"),
    ],
)
def test_wrong_arguments_end_with_exit_status_2(
    arguments: tuple[str, ...], expected: str, versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(draw_chests(1)["00000000_000.png"][0])
    Path("labels.csv").write_text("path,label\na.png,NORMAL\n")
    assert judge(versions, *arguments, "--judgement", "out") == (1 if "s3://" in arguments[1] else 2)
    message = capsys.readouterr().err
    assert expected in message and "hush" not in message
    assert not Path("out").exists()
