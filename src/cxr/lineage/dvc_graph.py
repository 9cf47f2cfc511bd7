"""The generated parts of ``dvc.yaml``: its metrics and plots. DVC has no patterns there, so each model is named."""

from __future__ import annotations

from collections.abc import Sequence


def with_models(graph: str, models: Sequence[str]) -> str:
    """Write the metrics and plots of a graph anew.

    Args:
        graph: text of a ``dvc.yaml`` whose last sections are ``metrics`` and ``plots``.
        models: names of the models that the graph trains.

    Returns:
        The text with every model, and the ensemble first.
    """
    evaluations = [f"artifacts/evaluations/{model}" for model in models]
    folders = ["artifacts/ensemble/evaluation", *evaluations]
    lines = ["metrics:", *(f"  - {folder}/summary.json" for folder in folders), "", "plots:"]
    for title, x, y, curve, drawn in (
        ("ROC curve on test images", "false_positive_rate", "sensitivity", "roc", folders),
        ("Precision and recall on test images", "sensitivity", "precision", "precision_recall", folders),
        ("Validation loss", "epoch", "val_loss", "training", evaluations),
    ):
        lines += [f"  - {title}:", "      template: simple", f"      x: {x}", "      y:"]
        lines += [f"        {folder}/curves/{curve}.csv: {y}" for folder in drawn]
        lines += [f"      x_label: {_label(x)}", f"      y_label: {_label(y)}"]
    lines += [f"  - {folder}/plots" for folder in folders]
    before, _, _ = graph.partition("\nmetrics:\n")
    return f"{before.rstrip()}\n\n" + "\n".join(lines) + "\n"


def _label(column: str) -> str:
    return {"val_loss": "Loss"}.get(column, column.replace("_", " ").capitalize())
