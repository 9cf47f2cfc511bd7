"""One stored result: a small, stable JSON file per data set, split and model (or ensemble of models)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.errors import DataError
from cxr.files import METRICS_FILE, STRESS_FILE, read_json, without_nan, write_text

SIGNIFICANT_DIGITS = 6
"""Digits that are stored. Further digits would change with the machine, not with the model."""

NOTE_FILE = "note.md"
DIGEST_LETTERS = 8

SHARE_STEP = 0.05
"""If the ratios of a split were not recorded, its shares are rounded to the nearest multiple of this."""


@dataclass(frozen=True)
class ModelResult:
    """The result of one model on one split of one data set.

    Attributes:
        facts: content of the file; unknown values are None.
    """

    facts: dict[str, Any]

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.facts["model"])

    @property
    def phantom(self) -> bool:
        """Whether the images are drawn phantoms."""
        return bool(self.facts["dataset"]["kind"] == "phantom")

    @property
    def section(self) -> tuple[str, str, str, str]:
        """Data set, data digest, split protocol and split digest. Only results with equal ones may share a table."""
        facts = self.facts
        return facts["dataset"]["name"], facts["data_digest"], facts["split_protocol"], facts["split_digest"]

    @property
    def path(self) -> Path:
        """Path of the file, relative to the folder of all results."""
        name, data, protocol, split = self.section
        return Path(
            f"{_safe_name(name)}-{data[:DIGEST_LETTERS]}",
            f"{_safe_name(protocol)}-{split[:DIGEST_LETTERS]}",
            f"{_safe_name(self.model)}.json",
        )

    @property
    def test(self) -> Mapping[str, Any]:
        """The entry of the test images in the evaluation's report."""
        entry: Mapping[str, Any] = self.facts["metrics"]["test"]
        return entry

    @property
    def architecture(self) -> str | None:
        """The network, as named in the training parameters; None if those were not kept."""
        name = self.facts["settings"].get("architecture")
        return None if name is None else str(name)

    @property
    def validation_auroc(self) -> float:
        """The measure that models are ranked by; NaN if unknown."""
        value = self.facts["metrics"]["validation"]["at_threshold"]["auroc"]["value"]
        return float("nan") if value is None else float(value)

    @property
    def validation_rank(self) -> tuple[float, str]:
        """Sorts models: the highest validation AUROC first, unknown ones last, equal ones by name."""
        auroc = self.validation_auroc
        return (math.inf if math.isnan(auroc) else -auroc, self.model)

    @property
    def ratios(self) -> tuple[float, float, float] | None:
        """Shares of train, validation and test that the split was made with; None if unknown."""
        ratios = self.facts["metrics"].get("split_ratios")
        return None if ratios is None else (ratios[0], ratios[1], ratios[2])

    @property
    def estimated_ratios(self) -> tuple[float, float, float] | None:
        """Those shares, estimated from the numbers of images; None if they are not near round numbers."""
        metrics = self.facts["metrics"]
        counts = [
            self.facts["training"].get("train_images"),
            *(metrics[split]["images"] for split in ("validation", "test")),
        ]
        if None in counts:
            return None
        shares = [round(count / sum(counts) / SHARE_STEP) * SHARE_STEP for count in counts]
        return (shares[0], shares[1], shares[2]) if abs(sum(shares) - 1) < SHARE_STEP / 2 else None

    def shortcut_check(self, name: str) -> Mapping[str, Any]:
        """Return the result of a shortcut check.

        Args:
            name: ``metadata`` or ``lungs_hidden``.

        Returns:
            What was measured; empty if nothing was.
        """
        return (self.facts["metrics"].get("honesty") or {}).get(name) or {}

    @property
    def stress(self) -> Mapping[str, Any]:
        """The stress test, see :func:`cxr.evaluation.stress_test.measure_stress`; empty if there was none."""
        return self.facts["metrics"].get("stress") or {}

    def write(self, folder: Path) -> Path:
        """Write the file; the same result always gives the same bytes.

        Args:
            folder: folder of all results.

        Returns:
            The file.
        """
        path = folder / self.path
        facts = _round_floats(without_nan(self.facts))
        write_text(path, json.dumps(facts, indent=1, sort_keys=True, allow_nan=False) + "\n")
        return path


def keep_results(results: Iterable[ModelResult], folder: Path, *, phantoms: bool) -> list[Path]:
    """Write results. Each replaces the older one of the same model, data and split.

    Args:
        results: results of a run.
        folder: folder of all results.
        phantoms: whether to keep results on drawn phantoms.

    Returns:
        The files.
    """
    return [result.write(folder) for result in results if phantoms or not result.phantom]


def read_results(folder: Path) -> list[ModelResult]:
    """Read all results.

    Args:
        folder: folder of all results; may be missing.

    Returns:
        The results, by path.

    Raises:
        DataError: if a file is not a result, or does not lie where its content says.
    """
    results = []
    for path in sorted(folder.glob("*/*/[!.]*.json")):
        result = ModelResult(read_json(path))
        try:
            expected = result.path
        except (KeyError, TypeError) as error:
            raise DataError(f"expected a result, received {path} without {error}; run `cxr results` again") from error
        if folder / expected != path:
            raise DataError(
                f"expected this result at {expected}, received {path.relative_to(folder)}; remove it and run "
                "`cxr results` again"
            )
        results.append(result)
    return results


def read_notes(folder: Path) -> dict[Path, str]:
    """Read the notes that people have written beside the results: what was tried, and what limits the measures.

    Args:
        folder: folder of all results; may be missing.

    Returns:
        Folder of a data set and split, relative to ``folder``, to the Markdown of its ``note.md``.
    """
    notes = folder.glob(f"*/*/{NOTE_FILE}")
    return {path.parent.relative_to(folder): path.read_text(encoding="utf-8").strip() for path in notes}


def read_metrics(evaluation: Path) -> dict[str, Any]:
    """Read the figures of an evaluation.

    Args:
        evaluation: folder of the evaluation.

    Returns:
        Content of ``metrics.json``; if there was a stress test, the content of ``stress.json`` is the entry ``stress``.

    Raises:
        DataError: if ``metrics.json`` is missing, or a file holds no JSON object.
    """
    metrics, stress = read_json(evaluation / METRICS_FILE), evaluation / STRESS_FILE
    return {**metrics, "stress": read_json(stress)} if stress.is_file() else metrics


def _round_floats(values: Any) -> Any:
    """Round floats to :data:`SIGNIFICANT_DIGITS`, at any depth."""
    if isinstance(values, dict):
        return {key: _round_floats(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_round_floats(value) for value in values]
    return float(f"{values:.{SIGNIFICANT_DIGITS}g}") if isinstance(values, float) else values


def _safe_name(name: str) -> str:
    """A name that is safe as a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "unnamed"
