"""The generated parts of ``dvc.yaml``: code dependencies of the stages, metrics and plots of the models."""

from __future__ import annotations

from pathlib import Path

import yaml

from cxr.lineage.dvc_graph import stage_code, with_code, with_models


def test_code_replaces_the_older_list_and_leaves_the_rest_of_the_graph(repository: Path) -> None:
    text = (
        "# a comment\nstages:\n  resplit:\n    cmd: cxr resplit --params params.yaml --manifest m\n    deps:\n"
        "      - artifacts/manifest\n      - src/cxr/gone.py\n      - src/cxr/models/${item.architecture}.py\n"
        "    params: [resplit]\n"
    )
    code = stage_code("resplit", repository / "src", has_network_file=True)
    written = with_code(text, repository / "src")
    deps = yaml.safe_load(written)["stages"]["resplit"]["deps"]
    assert deps == ["artifacts/manifest", "src/cxr/models/${item.architecture}.py", *code]
    assert "src/cxr/data/splitting.py" in code and "src/cxr/steps/resplit.py" in code
    assert written.startswith("# a comment\n") and written.endswith("    params: [resplit]\n")
    assert with_code(written, repository / "src") == written


def test_training_does_not_depend_on_what_only_records_it_and_registration_does(repository: Path) -> None:
    train = "\n".join(stage_code("train", repository / "src"))
    assert "src/cxr/images/recipes.py" in train, "editing a recipe must train again"
    assert "tracking" not in train and "errors.py" not in train
    for step in ("register", "register_regions"):
        assert "src/cxr/tracking" in "\n".join(stage_code(step, repository / "src")), step


def test_a_stage_depends_on_the_work_that_its_step_shares_with_others(repository: Path) -> None:
    """Both training steps write their model with a function of the step that they extend."""
    for step in ("train", "train_regions"):
        code = stage_code(step, repository / "src")
        assert "src/cxr/steps/training_fields.py" in code, step
        assert any(path in {"src/cxr/training", "src/cxr/training/trained_model.py"} for path in code), step


def test_every_model_gets_its_metrics_and_curves() -> None:
    written = yaml.safe_load(with_models("stages: {}\n\nmetrics:\n  - old.json\n", ["shallow", "deep"]))
    assert written["metrics"] == [
        "artifacts/ensemble/evaluation/summary.json",
        "artifacts/evaluations/shallow/summary.json",
        "artifacts/evaluations/deep/summary.json",
    ]
    curves = {
        title: list(plot["y"]) for entry in written["plots"] if isinstance(entry, dict) for title, plot in entry.items()
    }
    assert curves["Validation loss"] == [
        "artifacts/evaluations/shallow/curves/training.csv",
        "artifacts/evaluations/deep/curves/training.csv",
    ]
    assert len(curves["ROC curve on test images"]) == 3
