"""Accepts or rejects a data set: writes the outcome of its checks, and stops if a critical check failed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.data.checks.measurement import Column
from cxr.data.checks.rules import CheckResult
from cxr.data.dataset import DatasetCard
from cxr.errors import DataError
from cxr.files import EXPLORATION_FILE, SUMMARY_FILE, printable_name, write_json

log = logging.getLogger(__name__)

CHECKS_FILE = "checks.json"
QUARANTINE_FILE = "quarantine.csv"
DATA_DOCS_FOLDER = "data_docs"
MAX_LISTED_FILES = 20
"""Offending files that an error message names; all of them are in ``checks.json``."""


def complete_card(card: DatasetCard, column: Column) -> DatasetCard:
    """Add the counts that are unknown for a folder without a card.

    Args:
        card: card of the data set.
        column: reads a column of the manifest: one row per file.

    Returns:
        The card with the number of files and their bytes, where they were unknown.
    """
    if card.images:
        return card
    sizes = column("bytes")
    return replace(card, images=len(sizes), bytes=int(sizes.fillna(0).sum()))


def write_summary(column: Column, digest: str, card: DatasetCard, folder: Path) -> None:
    """Write the card, the counts (``summary.json``) and the files left out (``quarantine.csv``).

    The outcome of the checks is not part of it: a changed severity changes no image, so no later step has to run
    again.

    Args:
        column: reads a column of the manifest, one at a time.
        digest: content version of the data.
        card: card of the data set.
        folder: an existing folder.
    """
    card.write(folder)
    is_accepted = column("status") == "accepted"
    left_out = pd.DataFrame({name: column(name)[~is_accepted] for name in ("path", "problem", "detail", "status")})
    left_out.to_csv(folder / QUARANTINE_FILE, index=False)
    summary: dict[str, Any] = {
        "digest": digest,
        "name": card.name,
        "kind": card.kind,
        "files": len(is_accepted),
        "accepted": int(is_accepted.sum()),
        "patients": int(column("patient")[is_accepted].nunique()),
        "labels": _count_values(column("label")[is_accepted]),
        "subtypes": _count_values(column("subtype")[is_accepted]),
        "official_splits": _count_values(column("official_split")[is_accepted]),
        "problems": _count_values(column("problem")),
        "left_out": left_out["path"].tolist(),
    }
    write_json(folder / SUMMARY_FILE, summary)


def write_checks(results: Sequence[CheckResult], digest: str, folder: Path) -> None:
    """Write the outcome of every check with all offending files (``checks.json``).

    Args:
        results: outcomes of :func:`cxr.data.checks.expectations.run_checks`.
        digest: content version of the data.
        folder: an existing folder.
    """
    checks = [asdict(result) | {"outcome": result.outcome, "count": len(result.paths)} for result in results]
    write_json(folder / CHECKS_FILE, {"digest": digest, "checks": checks})


def stop_if_rejected(
    results: Sequence[CheckResult],
    column: Column,
    outputs: Sequence[Path],
    rejected: Path,
    publish: Callable[[str], str],
) -> None:
    """Stop if a critical check failed; the outputs are copied for a person to look at.

    Args:
        results: outcomes of :func:`cxr.data.checks.expectations.run_checks`.
        column: reads a column of the manifest, for the reasons.
        outputs: folders whose files are copied if the data are rejected.
        rejected: folder for the copies; removed if the data are accepted.
        publish: called with the text of the failed checks after the copies are in place; copies the reports to a place
            that outlives a container, and returns its description, or an empty text if there is none.

    Raises:
        DataError: naming every critical check that failed, what was expected and observed, and the first
            offending files.
    """
    shutil.rmtree(rejected, ignore_errors=True)
    failed = [result for result in results if result.stops]
    if not failed:
        return
    for folder in outputs:
        shutil.copytree(folder, rejected, dirs_exist_ok=True)
    is_faulty = column("problem") != ""
    path, problem, detail = (column(name)[is_faulty] for name in ("path", "problem", "detail"))
    reasons = dict(zip(path, problem + ", " + detail, strict=True))
    checks = f"the data were rejected by {len(failed)} critical check{'s' if len(failed) > 1 else ''}:\n" + "\n".join(
        _describe_failure(result, reasons) for result in failed
    )
    published = publish(checks)
    raise DataError(
        f"{checks}\n"
        f"All files and reasons: {rejected / EXPLORATION_FILE} and {rejected / DATA_DOCS_FOLDER / 'index.html'}"
        f"{f', and {published}' if published else ''}.\n"
        "Repair or remove the files, or change naming, policy, severity or limits in the section validate of "
        "params.yaml; the manifest was not written."
    )


def log_outcome(results: Sequence[CheckResult], column: Column) -> None:
    """Log what was left out of accepted data, and which warnings there are.

    Args:
        results: outcomes of :func:`cxr.data.checks.expectations.run_checks`.
        column: reads a column of the manifest.
    """
    is_accepted = column("status") == "accepted"
    problems = column("problem")[~is_accepted]
    log.info("%d of %d files accepted", int(is_accepted.sum()), len(is_accepted))
    if len(problems):
        counts = ", ".join(f"{count} {problem}" for problem, count in problems.value_counts().items())
        log.warning("%d files left out (%s): %s lists each with its reason", len(problems), counts, QUARANTINE_FILE)
    for result in results:
        if result.passed is False:
            log.warning(
                "warning: %s: expected %s, received %s (%s)", result.name, result.expected, result.observed, CHECKS_FILE
            )


def _describe_failure(result: CheckResult, reasons: Mapping[str, str]) -> str:
    """Describe one failed check: rule, expected, received, the first offending files."""
    lines = [f"- {result.name}: {result.title}: expected {result.expected}, received {result.observed}"]
    for path in result.paths[:MAX_LISTED_FILES]:
        name = printable_name(path)
        lines.append(f"    {name}: {reasons[path]}" if path in reasons else f"    {name}")
    if len(result.paths) > MAX_LISTED_FILES:
        lines.append(f"    ... and {len(result.paths) - MAX_LISTED_FILES} more")
    return "\n".join(lines)


def _count_values(values: pd.Series[Any]) -> dict[str, int]:
    known = values.dropna()
    return {str(name): int(count) for name, count in known[known != ""].value_counts().sort_index().items()}
