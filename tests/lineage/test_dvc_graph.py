"""The generated parts of ``dvc.yaml``: metrics and plots of the models."""

from __future__ import annotations

import yaml

from cxr.lineage.dvc_graph import with_models


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
