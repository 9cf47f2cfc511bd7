"""The verdict on a data set: what is written down about it, and what happens when a critical check failed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.data.checks.rules import CheckResult
from cxr.data.dataset import DatasetCard
from cxr.errors import DataError
from cxr.files import EXPLORATION_FILE, SUMMARY_FILE

log = logging.getLogger(__name__)

CHECKS_NAME = "checks.json"
QUARANTINE_NAME = "quarantine.csv"
DOCS_NAME = "data_docs"
LISTED = 20
"""Offending files that an error message names; all of them are in ``checks.json``."""


def completed(card: DatasetCard, manifest: pd.DataFrame) -> DatasetCard:
    """Fill in what a folder without a card does not say.

    Args:
        card: card of the data set.
        manifest: one row per file.

    Returns:
        The card with the number of files and their bytes, where they were unknown.
    """
    if card.images:
        return card
    return replace(card, images=len(manifest), bytes=int(manifest["bytes"].fillna(0).sum()))


def write_summary(manifest: pd.DataFrame, digest: str, card: DatasetCard, folder: Path) -> None:
    """Write the card, the counts (``summary.json``) and the files left out (``quarantine.csv``).

    The outcome of the checks is not part of it: a changed severity alters no image, so that nothing needs
    to be trained again.

    Args:
        manifest: one row per file.
        digest: content version of the data.
        card: card of the data set.
        folder: an existing folder.
    """
    card.write(folder)
    accepted = manifest[manifest["status"] == "accepted"]
    left_out = manifest.loc[manifest["status"] != "accepted", ["path", "problem", "detail", "status"]]
    left_out.to_csv(folder / QUARANTINE_NAME, index=False)
    summary: dict[str, Any] = {
        "digest": digest,
        "name": card.name,
        "kind": card.kind,
        "files": len(manifest),
        "accepted": len(accepted),
        "patients": int(accepted["patient"].nunique()),
        "labels": _counts(accepted["label"]),
        "subtypes": _counts(accepted["subtype"]),
        "official_splits": _counts(accepted["official_split"]),
        "problems": _counts(manifest.loc[manifest["problem"] != "", "problem"]),
        "left_out": left_out["path"].tolist(),
    }
    _write_json(summary, folder / SUMMARY_FILE)


def write_checks(results: Sequence[CheckResult], digest: str, folder: Path) -> None:
    """Write the outcome of every check with all offending files (``checks.json``).

    Args:
        results: outcomes of :func:`cxr.data.checks.expectations.validate`.
        digest: content version of the data.
        folder: an existing folder.
    """
    checks = [asdict(result) | {"outcome": result.outcome, "count": len(result.paths)} for result in results]
    _write_json({"digest": digest, "checks": checks}, folder / CHECKS_NAME)


def require(results: Sequence[CheckResult], manifest: pd.DataFrame, written: Sequence[Path], rejected: Path) -> None:
    """Stop if a critical check failed, keeping what was written for a person to look at.

    Args:
        results: outcomes of :func:`cxr.data.checks.expectations.validate`.
        manifest: one row per file, for the reasons.
        written: folders whose files are kept if the data are rejected.
        rejected: folder to keep them in; removed if the data are accepted.

    Raises:
        DataError: naming every critical check that failed, what was expected, what was found and the first
            offending files.
    """
    shutil.rmtree(rejected, ignore_errors=True)
    failed = [result for result in results if result.stops]
    if not failed:
        return
    for folder in written:
        shutil.copytree(folder, rejected, dirs_exist_ok=True)
    faulty = manifest[manifest["problem"] != ""]
    reasons = dict(zip(faulty["path"], faulty["problem"] + ", " + faulty["detail"], strict=True))
    raise DataError(
        f"the data were rejected by {len(failed)} critical check{'s' if len(failed) > 1 else ''}:\n"
        + "\n".join(_sentence(result, reasons) for result in failed)
        + f"\nAll files and reasons: {rejected / EXPLORATION_FILE} and {rejected / DOCS_NAME / 'index.html'}.\n"
        "Repair or remove the files, or change policy, severity or limits in the section validate of "
        "params.yaml; the manifest was not written."
    )


def announce(results: Sequence[CheckResult], manifest: pd.DataFrame) -> None:
    """Say in the log what was left out of accepted data, and which warnings there are.

    Args:
        results: outcomes of :func:`cxr.data.checks.expectations.validate`.
        manifest: one row per file.
    """
    left_out = manifest.loc[manifest["status"] != "accepted", "problem"]
    log.info("%d of %d files accepted", len(manifest) - len(left_out), len(manifest))
    if len(left_out):
        kinds = ", ".join(f"{count} {problem}" for problem, count in left_out.value_counts().items())
        log.warning("%d files left out (%s): %s lists each with its reason", len(left_out), kinds, QUARANTINE_NAME)
    for result in results:
        if result.passed is False:
            log.warning(
                "warning: %s: expected %s, received %s (%s)", result.name, result.expected, result.observed, CHECKS_NAME
            )


def _sentence(result: CheckResult, reasons: Mapping[str, str]) -> str:
    """One failed check: rule, expected, received, the first offending files."""
    lines = [f"- {result.name}: {result.title}: expected {result.expected}, received {result.observed}"]
    lines += [f"    {path}{f': {reasons[path]}' if path in reasons else ''}" for path in result.paths[:LISTED]]
    if len(result.paths) > LISTED:
        lines.append(f"    ... and {len(result.paths) - LISTED} more")
    return "\n".join(lines)


def _counts(values: pd.Series[Any]) -> dict[str, int]:
    found = values.dropna()
    return {str(name): int(count) for name, count in found[found != ""].value_counts().sort_index().items()}


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
