"""Kept results are stable files; the page is made of them alone and never mixes splits or data sets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cxr.card import ModelCard
from cxr.errors import DataError
from cxr.evaluation import Evaluation, evaluate
from cxr.evaluation.files import write_evaluation
from cxr.results import collect, keep, read_all
from cxr.results.page import render
from cxr.steps.results import Results
from judged import predictions


@pytest.fixture(scope="module")
def strong() -> Evaluation:
    return evaluate(predictions(600), resamples=100, sensitivities=[0.9703])


@pytest.fixture(scope="module")
def weak() -> Evaluation:
    table = predictions(600)
    flipped = table.index % 9 == 0
    table.loc[flipped, "probability_raw"] = 1 - table.loc[flipped, "probability_raw"]
    return evaluate(table, resamples=100, sensitivities=[0.9703])


def lay_out(root: Path, model: str, architecture: str, found: Evaluation, **changes: Any) -> None:
    """Folders of a trained and evaluated model, as the steps leave them."""
    card = ModelCard(
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
    evaluation, trained = root / "evaluations" / model, root / "models" / model
    evaluation.mkdir(parents=True)
    trained.mkdir(parents=True)
    write_evaluation(evaluation, found)
    card.completed(found.temperature, found.point.threshold, found.point.sentence()).write(evaluation)
    (trained / "training.json").write_text(json.dumps({"parameters": {"architecture": architecture}}))


def run(root: Path, **changes: Any) -> str:
    Results(
        evaluations=root / "evaluations",
        models=root / "models",
        kept=root / "reports",
        page=root / "docs" / "results.md",
        **changes,
    ).execute()
    return (root / "docs" / "results.md").read_text()


def sections(page: str) -> Iterator[str]:
    return iter(re.split(r"^## ", page, flags=re.MULTILINE)[1:])


def test_two_runs_give_the_same_files(strong: Evaluation, tmp_path: Path) -> None:
    lay_out(tmp_path, "s2", "three_block", strong)
    first = run(tmp_path)
    kept = {path: path.read_bytes() for path in (tmp_path / "reports").rglob("*.json")}
    assert run(tmp_path) == first
    assert {path: path.read_bytes() for path in (tmp_path / "reports").rglob("*.json")} == kept
    assert [path.relative_to(tmp_path / "reports").as_posix() for path in kept] == [
        "kermany-dddddddd/grouped-aaaaaaaa/s2.json"
    ]


def test_the_page_is_made_of_kept_results_alone(strong: Evaluation, tmp_path: Path) -> None:
    lay_out(tmp_path, "s2", "three_block", strong)
    page = run(tmp_path)
    assert render(read_all(tmp_path / "reports")) == page
    (tmp_path / "evaluations").rename(tmp_path / "gone")
    assert run(tmp_path) == page


def test_splits_and_data_sets_never_share_a_table(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    variants = [
        {},
        {"split_protocol": "official", "split_digest": "b" * 64},
        {"split_digest": "e" * 64},
        {"data_digest": "f" * 64},
    ]
    for number, changes in enumerate(variants):
        lay_out(tmp_path, f"model_{number}", "three_block", weak if number else strong, **changes)
    found = [set(re.findall(r"model_\d", section)) for section in sections(run(tmp_path))]
    assert sorted(map(sorted, found)) == [["model_0"], ["model_1"], ["model_2"], ["model_3"]]


def test_figures_of_others_stand_only_beside_their_own_split(strong: Evaluation, tmp_path: Path) -> None:
    lay_out(tmp_path, "three_block", "three_block", strong)
    lay_out(tmp_path, "shallow_grouped", "shallow", strong)
    lay_out(tmp_path, "shallow", "shallow", strong, split_protocol="official", split_digest="b" * 64)
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


def test_a_recall_at_another_threshold_is_not_compared_at_half(strong: Evaluation, tmp_path: Path) -> None:
    lay_out(tmp_path, "three_block", "three_block", strong, git_commit="c" * 40 + "-dirty")
    page = run(tmp_path)
    (line,) = [line for line in page.splitlines() if "AUROC +" in line or "AUROC -" in line]
    assert "Sensitivity" not in line
    assert "`cccccccc-dirty`" in page


def test_models_are_ranked_by_validation(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    lay_out(tmp_path, "a_weak", "shallow", weak)
    lay_out(tmp_path, "b_strong", "three_block", strong)
    page = run(tmp_path)
    assert page.index("b_strong") < page.index("a_weak")


def test_bars_say_by_how_much(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    lay_out(tmp_path, "three_block", "three_block", weak)
    (section,) = sections(run(tmp_path))
    auroc = weak.summary()["test_auroc"]
    (best,) = [line for line in section.splitlines() if line.startswith("| Best model")]
    assert f"**below** ({auroc - 0.985:+.4f})" in best
    point = weak.report["test"]["further_points"][0]
    (recall,) = [line for line in section.splitlines() if line.startswith("| S2: its recall")]
    word = "above" if point["sensitivity"]["value"] > 0.9703 else "**below**"
    assert f"{word} ({100 * (point['sensitivity']['value'] - 0.9703):+.2f} points)" in recall
    assert f"{100 * point['specificity']['value']:.2f} %" in section


def test_a_bar_whose_model_was_not_run_says_so(strong: Evaluation, tmp_path: Path) -> None:
    lay_out(tmp_path, "plain", "plain_cnn", strong)
    assert run(tmp_path).count("not run") == 2


def test_phantoms_stay_out_unless_asked_for(strong: Evaluation, tmp_path: Path) -> None:
    lay_out(tmp_path, "s2", "three_block", strong, dataset={"name": "phantom", "kind": "phantom"})
    assert "No results have been kept yet" in run(tmp_path)
    assert not list((tmp_path / "reports").rglob("*.json"))
    page = run(tmp_path, phantoms=True)
    assert "drawn phantoms, not patients" in page
    assert "Kermany" not in page
    assert "S2, three-block CNN" not in page
    assert "Bars" not in page


def test_unknown_figures_are_a_dash(strong: Evaluation, tmp_path: Path) -> None:
    lay_out(tmp_path, "bare", "three_block", strong, training={}, git_commit=None)
    page = run(tmp_path)
    assert "| – of – | – | – | – (–) |" in page
    assert "nan" not in page
    assert "None" not in page


def test_every_table_is_well_formed(strong: Evaluation, weak: Evaluation, tmp_path: Path) -> None:
    lay_out(tmp_path, "one", "three_block", strong)
    lay_out(tmp_path, "two", "residual_separable", weak)
    tables = re.findall(r"(?:^\|.*\n)+", run(tmp_path), flags=re.MULTILINE)
    assert len(tables) == 6
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_a_file_in_the_wrong_place_is_refused(strong: Evaluation, tmp_path: Path) -> None:
    lay_out(tmp_path, "s2", "three_block", strong)
    (path,) = keep(collect(tmp_path / "evaluations"), tmp_path / "reports")
    path.rename(path.with_name("other.json"))
    with pytest.raises(DataError, match="other"):
        read_all(tmp_path / "reports")
    path.with_name("other.json").write_text("{")
    with pytest.raises(DataError, match="expected JSON"):
        read_all(tmp_path / "reports")
