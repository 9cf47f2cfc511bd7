"""The generated parts of ``dvc.yaml``: the code that each stage depends on, and the lists of models.

DVC runs a stage again when one of its dependencies has changed. A figure depends on code too, so each stage lists
the import closure of its step. DVC has no patterns for metrics and plots, so each model is named there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cxr.lineage.code_closure import PACKAGE, as_folders, import_closure

WITHOUT_EFFECT = (
    "errors.py",  # texts of errors
    "fast_import.py",  # how fast large packages load
    "files.py",  # names of files, and how they are written
    "images/result_*.py",  # where results of single images are kept
    "steps/base.py",  # reading of parameters, which DVC compares by value
    "steps/cache_fields.py",  # the same
    "steps/evaluation_fields.py",  # the same
    "steps/tracking_fields.py",  # where figures are logged
    "storage/*.py",  # how objects are downloaded
    "lineage/*.py",  # what is recorded about a run
    "tracking/*.py",  # the same, in MLflow
)
"""Code below the package that changes no figure of a stage."""

RECORDING = ("lineage/*.py", "tracking/*.py")
"""Code that only the stages of :data:`RECORDING_STEPS` depend on: recording is their work."""
RECORDING_STEPS = frozenset({"register", "register_regions"})

NETWORK_FILE = "models/${item.architecture}.py"
"""Dependency of a stage on the file of its network."""


def stage_code(step: str, source: Path, *, has_network_file: bool = False) -> list[str]:
    """List the code that a stage depends on.

    Args:
        step: name of the step that the stage runs.
        source: folder that holds the package.
        has_network_file: whether the stage depends on the file of its network besides; what the files of all networks
            import is added then.

    Returns:
        Sorted files and folders, as ``dvc.yaml`` names them.
    """
    excluded = [name for name in WITHOUT_EFFECT if step not in RECORDING_STEPS or name not in RECORDING]
    files = import_closure(f"{PACKAGE}.steps.{step}", source, excluded)
    if has_network_file:
        files |= _imported_by_networks(source, excluded)
    return [f"{source.name}/{PACKAGE}/{name}" for name in as_folders(files, source)]


def _imported_by_networks(source: Path, excluded: Sequence[str]) -> set[str]:
    """Find what the files of networks import; a network is built by its name, which no import statement shows."""
    files: set[str] = set()
    for path in (source / PACKAGE / "models").glob("*.py"):
        if "\ndef build(" in path.read_text(encoding="utf-8"):
            files |= import_closure(f"{PACKAGE}.models.{path.stem}", source, excluded) - {f"models/{path.name}"}
    return files


def with_code(graph: str, source: Path) -> str:
    """Write the code dependencies of every stage anew.

    Args:
        graph: text of a ``dvc.yaml``. Dependencies with a placeholder are kept, such as
            ``src/cxr/models/${item.architecture}.py``.
        source: folder that holds the package.

    Returns:
        The text with the dependencies of each stage, its code last; everything else as it was.
    """
    lines: list[str] = []
    step = ""
    generated = re.compile(rf"\s*- {source.name}/{PACKAGE}/[^$]*$")
    indent: str | None = None
    has_network_file = False
    for line in graph.splitlines():
        command = re.search(rf"\b{PACKAGE} (\w+) --", line)
        step = command[1] if command else step
        if indent is not None:
            item = re.match(rf"{indent}\s+- ", line)
            if item and generated.match(line):
                continue
            if not item:
                code = stage_code(step, source, has_network_file=has_network_file)
                lines += [f"{indent}  - {path}" for path in code]
                indent = None
            has_network_file = has_network_file or NETWORK_FILE in line
        if re.match(r"\s*deps:$", line):
            indent = line[: len(line) - len(line.lstrip())]
            has_network_file = False
        lines.append(line)
    return "\n".join(lines) + "\n"


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
