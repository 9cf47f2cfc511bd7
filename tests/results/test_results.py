"""Stored results are stable files. Page and README come from them alone, and never mix splits or data sets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr.errors import DataError
from cxr.evaluation.evaluate import Evaluation
from cxr.evaluation.files import write_evaluation
from cxr.evaluation.stress_test import with_stress_test
from cxr.models.metadata import ModelMetadata, model_folders
from cxr.results.collection import collect_results
from cxr.results.model_result import keep_results, read_results
from cxr.results.page import render_page
from cxr.results.readme import BEGIN, END, update_readme
from cxr.results.reported_results import PUBLISHED
from cxr.steps.results import Results
from support.simulated_predictions import changed_predictions, evaluated, predictions


@pytest.fixture(scope="module")
def strong() -> Evaluation:
    return evaluated(predictions(600), resamples=100, sensitivities=[0.9703])


@pytest.fixture(scope="module")
def weak() -> Evaluation:
    table = predictions(600)
    flipped = table.index % 9 == 0
    table.loc[flipped, "probability_raw"] = 1 - table.loc[flipped, "probability_raw"]
    return evaluated(table, resamples=100, sensitivities=[0.9703])


@pytest.fixture(scope="module")
def weaker() -> Evaluation:
    table = predictions(600)
    flipped = table.index % 7 == 0
    table.loc[flipped, "probability_raw"] = 1 - table.loc[flipped, "probability_raw"]
    return evaluated(table, resamples=100)


OFFICIAL = {"split_protocol": "official", "split_digest": "b" * 64}


def write_model(
    root: Path,
    model: str,
    architecture: str,
    evaluation: Evaluation,
    *,
    parameters: dict[str, Any] | None = None,
    **changes: Any,
) -> None:
    """Write the folders of a trained and evaluated model, as the steps do."""
    card = ModelMetadata(
        **{
            "model": model,
            "system": "S2",
            "recipe": {"name": "s2_resize"},
            "input_shape": (64, 64, 1),
            "parameters": 318_209,
            "seed": 0,
            "dataset": {"name": "kermany", "kind": "patients"},
            "data_digest": "d" * 64,
            "split_protocol": "grouped",
            "split_digest": "a" * 64,
            "git_commit": "c" * 40,
            "training": {
                "device": {"kind": "cpu", "name": "test processor", "framework": "tensorflow 2.21"},
                "epochs_run": 12,
                "best_epoch": 9,
                "seconds": 90.0,
                "images_per_second": 1180.4,
                "train_images": 4100,
            },
            **changes,
        }
    )
    evaluation_folder, model_folder = root / "evaluations" / model, root / "models" / model
    evaluation_folder.mkdir(parents=True)
    model_folder.mkdir(parents=True)
    write_evaluation(evaluation_folder, evaluation)
    point = evaluation.operating_point
    card.with_calibration(evaluation.temperature, point.threshold, point.sentence()).write(evaluation_folder)
    settings = {"model": model, "architecture": architecture, "seed": card.seed, **(parameters or {})}
    (model_folder / "training.json").write_text(json.dumps({"parameters": settings}))


def shortcut_checks(metadata: float | None, hidden: float | None) -> dict[str, Any]:
    """Entries that the step evaluate adds to the report of a model with AUROC 0.98."""

    def entry(value: float | None) -> dict[str, float | None]:
        return {"value": value, "low": value and value - 0.01, "high": value and value + 0.01}

    return {
        "metadata": {"facts": ["file size"], "auroc": entry(metadata)},
        "lungs_hidden": {"auroc": entry(hidden), "drop": entry(None if hidden is None else 0.98 - hidden)},
    }


def write_ensemble(root: Path, evaluation: Evaluation, comparison: dict[str, Any] | None) -> None:
    """Write the folder of an ensemble, as its step does: an evaluation with members, and a comparison."""
    write_model(root, "weighted", "", evaluation)
    ensemble = root / "ensemble"
    ensemble.mkdir()
    (root / "evaluations" / "weighted").rename(ensemble / "evaluation")
    card = json.loads((ensemble / "evaluation" / "card.json").read_text())
    members = [
        {"model": "three_block", "weight": 0.6251, "card": {**card, "model": "three_block"}},
        {"model": "shallow", "weight": 0.0, "card": {**card, "model": "shallow"}},
    ]
    card |= {"members": members, "input_shape": [], "recipe": {"name": "s1, s2"}, "training": {}}
    (ensemble / "evaluation" / "card.json").write_text(json.dumps(card))
    if comparison is not None:
        (ensemble / "comparison.json").write_text(json.dumps(comparison))


def run(root: Path, **changes: Any) -> str:
    Results(
        evaluations=root / "evaluations",
        models=root / "models",
        ensemble=root / "ensemble",
        kept=root / "reports",
        page=root / "docs" / "results.md",
        **{"readme": None, **changes},
    ).execute()
    return (root / "docs" / "results.md").read_text()


def cells(page: str, heading: str, model: str) -> dict[str, str]:
    """The row of a model in the first table under a heading, by column."""
    lines = page[page.index(f"### {heading}") :].splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return next(dict(zip(table[0], row, strict=True)) for row in table if row[0] == model)


def sections(page: str) -> Iterator[str]:
    return iter(re.split(r"^## ", page, flags=re.MULTILINE)[1:])


def test_two_runs_give_the_same_files(strong: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "s2", "three_block", strong)
    first = run(tmp_path)
    files = {path: path.read_bytes() for path in (tmp_path / "reports").rglob("*.json")}
    assert run(tmp_path) == first
    assert {path: path.read_bytes() for path in (tmp_path / "reports").rglob("*.json")} == files
    assert [path.relative_to(tmp_path / "reports").as_posix() for path in files] == [
        "kermany-dddddddd/grouped-aaaaaaaa/s2.json"
    ]


def test_the_page_is_made_of_kept_results_alone(strong: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "s2", "three_block", strong)
    page = run(tmp_path)
    assert render_page(read_results(tmp_path / "reports"), {}, phantoms=False) == page
    (tmp_path / "evaluations").rename(tmp_path / "gone")
    assert run(tmp_path) == page


def test_a_note_appears_in_its_section(strong: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "s2", "three_block", strong)
    write_model(tmp_path, "s1", "shallow", strong, split_protocol="official", split_digest="b" * 64)
    run(tmp_path)
    (tmp_path / "reports" / "kermany-dddddddd" / "official-bbbbbbbb" / "note.md").write_text("### Tried\n\nmuch\n")
    has_note = {section.splitlines()[0]: "### Tried\n\nmuch\n" in section for section in sections(run(tmp_path))}
    assert [noted for title, noted in has_note.items() if "official" in title] == [True]
    assert sum(has_note.values()) == 1


def test_initial_weights_are_shown(strong: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "s2", "three_block", strong)
    assert "| Initial weights |" in run(tmp_path) and "| random |" in run(tmp_path)


def test_splits_and_data_sets_never_share_a_table(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    variants = [
        {},
        {"split_protocol": "official", "split_digest": "b" * 64},
        {"split_digest": "e" * 64},
        {"data_digest": "f" * 64},
    ]
    for number, changes in enumerate(variants):
        write_model(tmp_path, f"model_{number}", "three_block", weak if number else strong, **changes)
    models = [set(re.findall(r"model_\d", section)) for section in sections(run(tmp_path))]
    assert sorted(map(sorted, models)) == [["model_0"], ["model_1"], ["model_2"], ["model_3"]]


def test_reported_results_appear_only_beside_their_own_split(strong: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "three_block", "three_block", strong)
    write_model(tmp_path, "shallow_grouped", "shallow", strong)
    write_model(tmp_path, "shallow", "shallow", strong, split_protocol="official", split_digest="b" * 64)
    grouped, official = sections(run(tmp_path))
    assert "S2, three-block CNN" in grouped
    assert "0.9711" in grouped
    assert "Kermany" not in grouped
    assert "S1, shallow CNN" not in grouped
    assert "S1, shallow CNN" in official
    assert "92.8 %" in official
    assert "93.2 %" in official
    assert "90.1 %" in official
    assert "S2, three-block CNN" not in official
    for published in PUBLISHED:
        assert f"*{published.title}*" in official and f"*{published.title}*" not in grouped
    assert "*0.9892* | *91.56 %* |" in official


def test_a_recall_at_another_threshold_is_not_compared_at_half(strong: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "three_block", "three_block", strong, git_commit="c" * 40 + "-dirty")
    page = run(tmp_path)
    (line,) = [line for line in page.splitlines() if "AUROC +" in line or "AUROC -" in line]
    assert "Sensitivity" not in line
    assert "`cccccccc-dirty`" in page


def test_models_are_sorted_by_validation(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "a_weak", "shallow", weak)
    write_model(tmp_path, "b_strong", "three_block", strong)
    page = run(tmp_path)
    assert page.index("b_strong") < page.index("a_weak")


def test_targets_say_by_how_much(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "three_block", "three_block", weak)
    (section,) = sections(run(tmp_path))
    auroc = weak.summary()["test_auroc"]
    (best,) = [line for line in section.splitlines() if line.startswith("| Best model")]
    assert f"**missed** ({auroc - 0.985:+.4f})" in best
    point = weak.report["test"]["further_points"][0]
    (recall,) = [line for line in section.splitlines() if line.startswith("| S2: its recall")]
    verdict = "reached" if point["sensitivity"]["value"] > 0.9703 else "**missed**"
    assert f"{verdict} ({100 * (point['sensitivity']['value'] - 0.9703):+.2f} points)" in recall
    assert f"{100 * point['specificity']['value']:.2f} %" in section


def test_a_target_whose_model_was_not_run_says_so(strong: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "plain", "plain_cnn", strong)
    assert run(tmp_path).count("not run") == 2


def test_phantoms_are_shown_only_on_request(strong: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "s2", "three_block", strong, dataset={"name": "phantom", "kind": "phantom"})
    assert "No results have been kept yet" in run(tmp_path)
    assert not list((tmp_path / "reports").rglob("*.json"))
    page = run(tmp_path, phantoms=True)
    assert "drawn phantoms, not patients" in page
    assert "Kermany" not in page
    assert "S2, three-block CNN" not in page
    assert "Targets" not in page


def test_unknown_values_are_a_dash(strong: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "bare", "three_block", strong, training={}, git_commit=None)
    page = run(tmp_path)
    assert "| – of – | – | – | – (–) | – |" in page
    assert "nan" not in page
    assert "None" not in page


def test_every_table_is_well_formed(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "one", "three_block", strong)
    write_model(tmp_path, "two", "residual_separable", weak)
    tables = re.findall(r"(?:^\|.*\n)+", run(tmp_path), flags=re.MULTILINE)
    assert len(tables) == 9
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_a_file_in_the_wrong_place_is_refused(strong: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "s2", "three_block", strong)
    results = collect_results(model_folders(tmp_path / "models", tmp_path / "evaluations"))
    (path,) = keep_results(results, tmp_path / "reports", phantoms=False)
    path.rename(path.with_name("other.json"))
    with pytest.raises(DataError, match="other"):
        read_results(tmp_path / "reports")
    path.with_name("other.json").write_text("{")
    with pytest.raises(DataError, match="expected JSON"):
        read_results(tmp_path / "reports")


@pytest.mark.parametrize(
    ("changes", "ratios", "title"),
    [
        ({}, [0.7, 0.15, 0.15], "kermany: re-split by patient, 70/15/15"),
        ({}, [0.8, 0.1, 0.1], "kermany: re-split by patient, 80/10/10 (S2's Set A)"),
        ({"split_protocol": "official"}, [0.7, 0.15, 0.15], "kermany: official test set"),
        ({"training": {"train_images": 1400}}, None, "kermany: re-split by patient, about 70/15/15"),
        ({"training": {"train_images": 4100}}, None, "kermany: re-split by patient"),
        ({"training": {}}, None, "kermany: re-split by patient"),
    ],
)
def test_a_section_names_its_protocol_and_ratios(
    strong: Evaluation, tmp_path: Path, changes: dict[str, Any], ratios: list[float] | None, title: str
) -> None:
    evaluation = strong if ratios is None else strong.with_entries({"split_ratios": ratios})
    write_model(tmp_path, "s2", "three_block", evaluation, **changes)
    (section,) = sections(run(tmp_path))
    assert section.splitlines()[0] == title


def test_both_shortcut_checks_appear_beside_the_auroc(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "checked", "three_block", weak.with_entries({"honesty": shortcut_checks(0.8765, 0.6432)}))
    write_model(tmp_path, "unchecked", "shallow", strong)
    page = run(tmp_path)
    heading = "At the threshold chosen on validation"
    row = cells(page, heading, "**checked**")
    assert row["AUROC"].startswith(f"{weak.summary()['test_auroc']:.4f}")
    assert row["AUROC, lungs hidden"] == "0.6432<br>[0.6332–0.6532]"
    assert row["Drop"] == "0.3368"
    row = cells(page, heading, "**unchecked**")
    assert (row["AUROC, lungs hidden"], row["Drop"]) == ("–", "–")
    row = cells(page, heading, "metadata baseline")
    assert row["AUROC"] == "0.8765<br>[0.8665–0.8865]"
    assert set(row.values()) == {"metadata baseline", row["AUROC"], "–"}
    assert "0.8765" in page[: page.index("\n## ")]


def test_shortcut_checks_without_a_value_are_a_dash(strong: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "s2", "three_block", strong.with_entries({"honesty": shortcut_checks(None, None)}))
    row = cells(run(tmp_path), "At the threshold chosen on validation", "**s2**")
    assert (row["AUROC, lungs hidden"], row["Drop"]) == ("–", "–")


def test_the_metadata_baseline_names_the_facts_that_it_saw(
    strong: Evaluation, weak: Evaluation, tmp_path: Path
) -> None:
    older, newer = (shortcut_checks(value, 0.5) for value in (0.81, 0.92))
    newer["metadata"]["facts"] = ["file size", "sharpness"]
    write_model(tmp_path, "best", "three_block", strong.with_entries({"honesty": older}))
    assert "The metadata baseline sees: file size." in run(tmp_path)
    write_model(tmp_path, "other", "shallow", weak.with_entries({"honesty": newer}))
    page = run(tmp_path)
    assert "The metadata baseline sees: file size, sharpness." in page
    row = cells(page, "At the threshold chosen on validation", "metadata baseline")
    assert row["AUROC"].startswith("0.9200"), "the baseline with more facts stands for the split"


def test_the_stress_test_appears_with_mean_and_lowest_figures(
    strong: Evaluation, weak: Evaluation, tmp_path: Path
) -> None:
    write_model(tmp_path, "untested", "shallow", weak)
    heading = "Under acquisition changes"
    assert heading not in run(tmp_path), "results from before there was a stress test have no such section"
    changed = changed_predictions(strong.predictions, {"crop_0.08": 4.0})
    tested = with_stress_test(strong, changed, resamples=100, seed=0)
    write_model(tmp_path, "tested", "three_block", tested)
    page = run(tmp_path)
    row = cells(page, heading, "**tested**")
    stress = json.loads((tmp_path / "evaluations" / "tested" / "stress.json").read_text())
    for column, entry in (
        ("Validation AUROC, mean", stress["validation"]["mean"]),
        ("AUROC, unchanged", stress["test"]["unchanged"]),
        ("AUROC, mean", stress["test"]["mean"]),
        ("AUROC, lowest", stress["test"]["worst"]),
    ):
        assert row[column].startswith(f"{entry['auroc']['value']:.4f}<br>["), column
    assert row["AUROC, lowest"].endswith("8 % of each border cut off")
    assert "Sensitivity, lowest" in row and "Specificity, mean" in row
    section = page[page.index(f"### {heading}") :]
    lowest = stress["test"]["worst"]["auroc"]["value"]
    assert f"| 8 % of each border cut off | {lowest:.4f} |" in section
    assert "**untested**" not in section[: section.index("### How")]
    assert run(tmp_path) == page


def test_uncertain_answers_appear_for_the_models_that_have_them(
    strong: Evaluation, weak: Evaluation, tmp_path: Path
) -> None:
    write_model(tmp_path, "s1", "shallow", weak)
    assert "Uncertain answers" not in run(tmp_path)
    with_sets = evaluated(predictions(600), resamples=100, coverage=0.95)
    write_model(tmp_path, "s2", "three_block", with_sets)
    page = run(tmp_path)
    row = cells(page, "Uncertain answers", "**s2**")
    test, sets = with_sets.report["test"]["prediction_sets"], with_sets.prediction_sets
    assert sets is not None
    assert row["Wanted coverage"] == "95.0 %"
    assert (row["NORMAL at most"], row["PNEUMONIA at least"]) == (
        f"{sets.normal_at_most:.3f}",
        f"{sets.pneumonia_at_least:.3f}",
    )
    assert row["Uncertain"].startswith(f"{100 * test['uncertain']['value']:.1f} %<br>[")
    assert row["Sensitivity, certain answers"].startswith(f"{100 * test['sensitivity']['value']:.1f} %<br>[")
    table = page[page.index("### Uncertain answers") :]
    assert "**s1**" not in table[: table.index("\n### ")]


def test_slices_appear_for_the_models_that_have_them(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "s1", "shallow", weak)
    assert "### Slices" not in run(tmp_path)
    table = predictions(600)
    wards = pd.Categorical(np.select([table.index % 3 == 0, table.index < 20], ["A", "C"], "B"), ordered=True)
    slices = {"slices": ["ward"], "slice_min_patients": 10}
    by_ward = evaluated(table.assign(**{"slice.ward": wards}), resamples=100, **slices)
    write_model(tmp_path, "s2", "three_block", by_ward)
    page, test = run(tmp_path), by_ward.report["test"]["slices"]
    row = cells(page, "Slices", "**s2**")
    assert row["Worst slice"] == f"ward: {test['worst']['slice']}"
    assert row["Its sensitivity"].startswith(f"{100 * test['worst']['sensitivity']['value']:.1f} %<br>[")
    section = page[page.index("### Slices") :].partition("\n### ")[0]
    first, second = test["measured"]
    assert (first["slice"], second["slice"]) == ("A", "B")
    for name, entry in ((f"| ward: {part['slice']} | {part['images']} |", part) for part in (first, second)):
        shown = [line for line in section.splitlines() if line.startswith(name)]
        in_auroc, in_sensitivity, in_specificity = shown
        assert f"{entry['auroc']['value']:.4f}<br>" in in_auroc
        assert f"{100 * entry['sensitivity']['value']:.1f} %<br>" in in_sensitivity
        assert f"{100 * entry['specificity']['value']:.1f} %<br>" in in_specificity
    assert f"Too small for figures: ward: C ({test['too_small'][0]['images']})." in section
    assert "**s1**" not in section


def test_prediction_speed_names_its_device_if_it_differs(strong: Evaluation, tmp_path: Path) -> None:
    for model, device in (("same", "test processor"), ("other", "a graphics card")):
        speed = {"images_per_second": 1234.5, "device": {"name": device}}
        write_model(tmp_path, model, "three_block", strong.with_entries({"speed": speed}))
    page = run(tmp_path)
    same, other = (cells(page, "How they were trained", f"**{model}**") for model in ("same", "other"))
    assert same["Images/s in training"] == "1,180"
    assert same["Images/s at prediction"] == "1,234"
    assert other["Images/s at prediction"] == "1,234<br>a graphics card"


def test_an_ensemble_is_a_row_with_its_weights(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "three_block", "three_block", weak)
    write_ensemble(tmp_path, strong, {"sentence": "On 300 test images weighted has a higher AUROC."})
    page = run(tmp_path)
    assert page.index("**weighted**") < page.index("**three_block**")
    row = cells(page, "At the threshold chosen on validation", "**weighted**")
    assert row["AUROC"].startswith(f"{strong.summary()['test_auroc']:.4f}")
    assert "three_block 0.625, shallow 0.000. On 300 test images weighted has a higher AUROC.\n" in page
    assert cells(page, "How they were trained", "**weighted**")["Input"] == "–"
    aims = [line for line in page.splitlines() if line.startswith("| Aim for the best model")]
    assert aims and all("**weighted**" in line for line in aims)
    (tmp_path / "ensemble").rename(tmp_path / "gone")
    assert run(tmp_path) == page


def test_an_ensemble_without_a_comparison_has_a_dash(strong: Evaluation, tmp_path: Path) -> None:
    write_ensemble(tmp_path, strong, None)
    assert "Against its best member: –." in run(tmp_path)


def test_an_ensemble_without_its_split_is_refused(strong: Evaluation, tmp_path: Path) -> None:
    write_ensemble(tmp_path, strong, None)
    (tmp_path / "ensemble" / "evaluation" / "card.json").write_text(json.dumps({"model": "weighted"}))
    with pytest.raises(DataError, match="split_digest"):
        run(tmp_path)


def test_aims_for_the_best_model_are_called_aims(strong: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "s2", "three_block", strong, split_protocol="official")
    page = run(tmp_path)
    lines = [line for line in page.splitlines() if line.startswith("| Aim")]
    aims = [line.split("|")[2].strip() for line in lines]
    assert aims == ["at least 0.985", "at least 95 %", "at least 0.98"]
    summary = strong.summary()
    assert f"({summary['test_auroc'] - 0.985:+.4f})" in lines[0]
    assert f"({100 * (summary['test_accuracy'] - 0.95):+.2f} points)" in lines[1]
    assert "not run" in lines[2]


def test_a_calibration_error_has_to_stay_below_its_bound(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    errors = {}
    for number, evaluation in enumerate((strong, weak)):
        root = tmp_path / str(number)
        write_model(root, "model", "three_block", evaluation)
        (line,) = [
            line for line in run(root).splitlines() if "calibration error |" in line and line.startswith("| Aim")
        ]
        error = evaluation.report["test"]["at_threshold"]["calibration_error"]["value"]
        assert f"at most 0.02 | **model** | {error:.3f}" in line
        assert ("**missed**" in line) == (error > 0.02)
        assert f"({error - 0.02:+.4f})" in line
        errors[number] = error
    assert max(errors.values()) > 0.02, "one of the cases is missed"


def test_trainings_of_one_network_that_differ_in_their_seed_are_summed_up(
    strong: Evaluation, weak: Evaluation, weaker: Evaluation, tmp_path: Path
) -> None:
    heading = "Several trainings of one network"
    write_model(tmp_path, "lite", "lite", strong, **OFFICIAL)
    write_model(tmp_path, "other", "lite", strong, seed=3, parameters={"learning_rate": 0.1}, **OFFICIAL)
    write_model(tmp_path, "shallow", "shallow", strong, seed=1, **OFFICIAL)
    assert heading not in run(tmp_path), "they differ in more than their seed"
    graphics_card = {"device": {"name": "a graphics card"}, "seconds": 60.0}
    write_model(tmp_path, "lite_seed1", "lite", weak, seed=1, **OFFICIAL)
    write_model(tmp_path, "lite_seed2", "lite", weaker, seed=2, training=graphics_card, **OFFICIAL)
    page = run(tmp_path)
    row = cells(page, heading, "**lite**")
    summaries = [evaluation.summary() for evaluation in (strong, weak, weaker)]
    aurocs, accuracies = ([summary[f"test_{name}"] for summary in summaries] for name in ("auroc", "accuracy"))
    assert (row["Trainings"], row["Seeds"]) == ("3", "0, 1, 2")
    assert row["Device of training"] == "test processor<br>a graphics card"
    assert row["AUROC"] == f"{fmean(aurocs):.4f} ± {stdev(aurocs):.4f}<br>({min(aurocs):.4f} to {max(aurocs):.4f})"
    shares = [100 * value for value in accuracies]
    assert row["Accuracy"] == f"{fmean(shares):.1f} % ± {stdev(shares):.1f}<br>({min(shares):.1f} to {max(shares):.1f})"
    (aim,) = [line for line in page.splitlines() if line.startswith("| Aim for the mean")]
    assert f"**lite**, 3 trainings | {fmean(aurocs):.4f} | **missed** ({fmean(aurocs) - 0.98:+.4f})" in aim
    seeds = {model: cells(page, "How they were trained", f"**{model}**")["Seed"] for model in ("lite", "lite_seed2")}
    assert seeds == {"lite": "0", "lite_seed2": "2"}


def test_trainings_on_other_splits_are_not_summed_up(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    write_model(tmp_path, "lite", "lite", strong)
    write_model(tmp_path, "lite_seed1", "lite", weak, seed=1, **OFFICIAL)
    assert "Several trainings" not in run(tmp_path)


def test_accuracies_selected_on_test_stand_beside_what_any_threshold_reaches(
    strong: Evaluation, weak: Evaluation, tmp_path: Path
) -> None:
    heading = "An upper bound: accuracy selected on test"
    test = {**weak.report["test"]}
    test["at_threshold"] = {key: value for key, value in test["at_threshold"].items() if key != "oracle_accuracy"}
    write_model(tmp_path, "earlier", "shallow", weak.with_entries({"test": test}), **OFFICIAL)
    assert heading not in run(tmp_path), "earlier evaluations did not measure it"
    write_model(tmp_path, "resnet50v2", "resnet50v2", strong, **OFFICIAL)
    write_model(tmp_path, "grouped", "resnet50v2", strong)
    rows = strong.predictions[strong.predictions["split"] == "test"]
    is_pneumonia = rows["label"] == "PNEUMONIA"
    highest = max(
        ((rows["probability"] >= threshold) == is_pneumonia).mean() for threshold in np.linspace(0, 1, 20_001)
    )
    page = run(tmp_path)
    grouped, official = sections(page)
    row = cells(official, heading, "**resnet50v2**")
    accuracy = strong.report["test"]["at_threshold"]["accuracy"]["value"]
    assert row["Accuracy, threshold of validation"].startswith(f"{100 * accuracy:.1f} %<br>[")
    assert row["Accuracy, selected on test"] == f"{100 * highest:.1f} %"
    assert highest > accuracy
    assert cells(official, heading, "**earlier**")["Accuracy, selected on test"] == "–"
    assert cells(official, heading, "*S3, ResNet50V2*")["Accuracy, selected on test"] == "*96.2 %*"
    assert cells(grouped, heading, "*S0, residual separable CNN*")["Accuracy, selected on test"] == "*98.22 %*"
    assert "S3, ResNet50V2" not in grouped
    assert "oracle" not in json.dumps(strong.summary()), "nothing that chooses a model sees it"


def test_the_readme_shows_the_model_that_validation_prefers_on_the_official_test(
    strong: Evaluation, weak: Evaluation, tmp_path: Path
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{BEGIN}\nold figures\n{END}\n\nmore\n")
    write_model(tmp_path, "re_split", "three_block", strong)
    run(tmp_path, readme=readme)
    assert "No result on the official test" in readme.read_text()
    write_model(tmp_path, "preferred", "three_block", weak, **OFFICIAL)
    better_on_test = weak.with_entries({"test": strong.report["test"], "validation": {**weak.report["validation"]}})
    better_on_test.report["validation"]["at_threshold"] = {"auroc": {"value": 0.5, "low": 0.4, "high": 0.6}}
    write_model(tmp_path, "better_on_test", "shallow", better_on_test, **OFFICIAL)
    write_model(tmp_path, "drawn", "shallow", strong, dataset={"name": "phantom", "kind": "phantom"}, **OFFICIAL)
    run(tmp_path, readme=readme, phantoms=True)
    text = readme.read_text()
    head, _, rest = text.partition(BEGIN)
    sentence, _, tail = rest.partition(END)
    assert (head, tail) == ("# Title\n\n", "\n\nmore\n")
    entries = weak.report["test"]["at_threshold"]
    auroc = "{value:.4f} [{low:.4f}–{high:.4f}]".format(**entries["auroc"])
    assert f"AUROC {auroc},\nsensitivity {100 * entries['sensitivity']['value']:.1f} % [" in sentence
    assert "`preferred`" in sentence and "old figures" not in text
    run(tmp_path, readme=readme, phantoms=True)
    assert readme.read_text() == text


@pytest.mark.parametrize(
    "text", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n", f"{BEGIN}\n{END}\n{END}\n"]
)
def test_a_readme_without_the_two_marks_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    with pytest.raises(DataError, match="--readme null"):
        update_readme(readme, [])
    readme.write_text(text)
    with pytest.raises(DataError, match=f"{BEGIN} and {END}"):
        update_readme(readme, [])
    assert readme.read_text() == text
