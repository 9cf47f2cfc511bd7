"""Results that are kept: one small, stable JSON file per data set, split and model (or ensemble of models)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cxr.errors import DataError
from cxr.files import COMPARISON_FILE, METADATA_FILE, METRICS_FILE, without_nan, write_text
from cxr.models.metadata import ModelCard

DIGITS = 6
"""Significant digits that are kept: more would change with the machine, not with the model."""

NOTE_NAME = "note.md"
REPORT_NAME = "report.json"
"""Inside a reference's folder: how often films would get no answer."""
DIGEST_LETTERS = 8

ENSEMBLE_EVALUATION = "evaluation"
"""Inside an ensemble's folder: its evaluation, as of any model, and how it does against its best member."""

ROUND_SHARE = 0.05
"""Shares of a split that was not written down are taken as the nearest multiple of this."""

IDENTITY = ("model", "dataset", "data_digest", "split_protocol", "split_digest")
"""Fields of a card that say what was judged on what; no result is without."""

DESCRIPTION = (
    "system",
    "data_md5",
    "recipe",
    "input_shape",
    "parameters",
    "seed",
    "git_commit",
    "temperature",
    "threshold",
    "threshold_rule",
)
"""Further fields of a card; None where unknown."""

EVIDENCE = (
    "device",
    "epochs_run",
    "best_epoch",
    "stopped",
    "seconds",
    "images_per_second",
    "train_images",
    "trainable_parameters",
)


@dataclass(frozen=True)
class Result:
    """One model on one split of one data set.

    Attributes:
        facts: everything that is known, as in the file; unknown values are None.
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
    def table(self) -> tuple[str, str, str, str]:
        """Data set, data digest, split protocol, split digest: only equal ones may share a table."""
        facts = self.facts
        return facts["dataset"]["name"], facts["data_digest"], facts["split_protocol"], facts["split_digest"]

    @property
    def path(self) -> Path:
        """Where it is kept, relative to the folder of all results."""
        name, data, protocol, split = self.table
        return Path(
            f"{_plain(name)}-{data[:DIGEST_LETTERS]}",
            f"{_plain(protocol)}-{split[:DIGEST_LETTERS]}",
            f"{_plain(self.model)}.json",
        )

    @property
    def validation_auroc(self) -> float:
        """What models are ranked by; NaN if unknown."""
        value = self.facts["metrics"]["validation"]["at_threshold"]["auroc"]["value"]
        return float("nan") if value is None else float(value)

    @property
    def ratios(self) -> tuple[float, float, float] | None:
        """Shares of train, validation and test that the split was made with; None if unknown."""
        ratios = self.facts["metrics"].get("split_ratios")
        return None if ratios is None else (ratios[0], ratios[1], ratios[2])

    @property
    def rounded_ratios(self) -> tuple[float, float, float] | None:
        """What those shares seem to be, from the numbers of images; None if they are near no round ones."""
        metrics = self.facts["metrics"]
        counts = [
            self.facts["training"].get("train_images"),
            *(metrics[side]["images"] for side in ("validation", "test")),
        ]
        if None in counts:
            return None
        shares = [round(count / sum(counts) / ROUND_SHARE) * ROUND_SHARE for count in counts]
        return (shares[0], shares[1], shares[2]) if abs(sum(shares) - 1) < ROUND_SHARE / 2 else None

    def write(self, folder: Path) -> Path:
        """Keep the result.

        Args:
            folder: folder of all results.

        Returns:
            The file, which is the same for the same result.
        """
        path = folder / self.path
        text = json.dumps(rounded(without_nan(self.facts)), indent=1, sort_keys=True, allow_nan=False) + "\n"
        write_text(path, text)
        return path


def collect(
    folders: Mapping[str, tuple[Path, Path]], ensemble: Path | None = None, reference: Path | None = None
) -> list[Result]:
    """Take the results of a run from its files.

    Args:
        folders: name to the folder of the trained model, for its training parameters, and of its evaluation.
        ensemble: folder of the ensemble of these models, with its evaluation and comparison; may be missing.
        reference: folder of the reference, whose report belongs to the models of its split; may be missing.

    Returns:
        One result per evaluation, by name of the model, the ensemble last.

    Raises:
        DataError: if a file cannot be read.
    """
    found = []
    for trained, judged in folders.values():
        training = trained / "training.json"
        settings = _read(training).get("parameters", {}) if training.is_file() else {}
        found.append(_result(asdict(ModelCard.read(judged)), _read(judged / METRICS_FILE), settings))
    if ensemble is not None and (ensemble / ENSEMBLE_EVALUATION / METRICS_FILE).is_file():
        found.append(_ensemble_result(ensemble))
    if reference is not None and (reference / REPORT_NAME).is_file():
        report = _read(reference / REPORT_NAME)
        found = [
            Result({**one.facts, "reference": report})
            if one.facts["split_digest"] == report.get("split_digest")
            else one
            for one in found
        ]
    return found


def keep(results: Iterable[Result], folder: Path, *, phantoms: bool = False) -> list[Path]:
    """Write results, each replacing the older one of the same model, data and split.

    Args:
        results: results of a run.
        folder: folder of all results.
        phantoms: whether results on drawn phantoms are kept as well.

    Returns:
        The files.
    """
    return [one.write(folder) for one in results if phantoms or not one.phantom]


def read_all(folder: Path) -> list[Result]:
    """Read all kept results.

    Args:
        folder: folder of all results; may be missing.

    Returns:
        The results, by path.

    Raises:
        DataError: if a file is not a result.
    """
    found = []
    for path in sorted(folder.glob("*/*/[!.]*.json")):
        result = Result(_read(path))
        try:
            expected = result.path
        except (KeyError, TypeError) as error:
            raise DataError(f"expected a result, received {path} without {error}; run `cxr results` again") from error
        if folder / expected != path:
            raise DataError(
                f"expected this result at {expected}, received {path.relative_to(folder)}; remove it and run "
                "`cxr results` again"
            )
        found.append(result)
    return found


def read_notes(folder: Path) -> dict[Path, str]:
    """Read what people have written beside the results: what was tried, and what limits the figures.

    Args:
        folder: folder of all results; may be missing.

    Returns:
        Folder of a data set and split, relative to ``folder``, to the Markdown of its ``note.md``.
    """
    notes = folder.glob(f"*/*/{NOTE_NAME}")
    return {path.parent.relative_to(folder): path.read_text(encoding="utf-8").strip() for path in notes}


def rounded(values: Any) -> Any:
    """Round floats to :data:`DIGITS` significant digits, at any depth.

    Args:
        values: mappings, sequences and plain values.

    Returns:
        The same with plain dicts and lists.
    """
    if isinstance(values, dict):
        return {key: rounded(value) for key, value in values.items()}
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return float(f"{values:.{DIGITS}g}") if isinstance(values, float) else values


def _result(card: Mapping[str, Any], metrics: dict[str, Any], settings: Mapping[str, Any]) -> Result:
    training = card.get("training") or {}
    return Result(
        {
            **{name: card[name] for name in IDENTITY},
            **{name: card.get(name) for name in DESCRIPTION},
            "training": {key: training.get(key) for key in EVIDENCE},
            "settings": dict(settings),
            "metrics": metrics,
        }
    )


def _ensemble_result(folder: Path) -> Result:
    evaluation, comparison = folder / ENSEMBLE_EVALUATION, folder / COMPARISON_FILE
    card = _read(evaluation / METADATA_FILE)
    absent = [name for name in IDENTITY if name not in card]
    if absent:
        raise DataError(
            f"expected the card of an ensemble with {', '.join(IDENTITY)}, received "
            f"{evaluation / METADATA_FILE} without {', '.join(absent)}; make the ensemble again"
        )
    members = [{"model": one.get("model"), "weight": one.get("weight")} for one in card.get("members") or ()]
    facts = _result(card, _read(evaluation / METRICS_FILE), {}).facts
    return Result({**facts, "members": members, "comparison": _read(comparison) if comparison.is_file() else None})


def _plain(name: str) -> str:
    """A name that is safe as a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "unnamed"


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"expected JSON, received {path}={error}; run the step that makes it again") from error
    if not isinstance(values, dict):
        raise DataError(f"expected a JSON object, received {path}={values!r}; run the step that makes it again")
    return values
