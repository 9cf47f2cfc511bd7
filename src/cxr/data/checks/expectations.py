"""Runs the checks on a manifest with Great Expectations, builds the Data Docs and returns plain results.

The context lives in memory only, and Great Expectations is imported only while checks run (it takes seconds).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.data.checks.data_docs import make_self_contained
from cxr.data.checks.drift import DatasetComparison
from cxr.data.checks.rules import (
    Check,
    CheckBounds,
    CheckResult,
    CheckTable,
    Severity,
    build_check_columns,
    list_checks,
)
from cxr.data.dataset import DatasetCard
from cxr.errors import DataError
from cxr.fast_import import import_without_garbage_collection

SITE = "data_docs"
TABLE_TITLES: dict[CheckTable, str] = {"files": "files", "images": "accepted_images", "drift": "drift"}
"""Names of the three tables in the Data Docs."""


def run_checks(
    manifest: pd.DataFrame,
    comparison: DatasetComparison,
    docs: Path,
    *,
    card: DatasetCard | None,
    bounds: CheckBounds,
    severities: Mapping[str, Severity],
    run_name: str,
) -> list[CheckResult]:
    """Check a manifest and build the Data Docs.

    Args:
        manifest: one row per file; see :func:`cxr.data.manifest.builder.build_manifest`.
        comparison: outcome of :func:`cxr.data.checks.drift.compare_datasets`.
        docs: folder to build the Data Docs in (``index.html`` is the entry); pages load nothing from outside.
        card: card of the data set; its number of images, if known, must be that of the files.
        bounds: limits of sizes and shares.
        severities: check name to severity, where it differs from the default.
        run_name: name of the run in the Data Docs, for example the digest of the data.

    Returns:
        One result per check, in the order of :func:`cxr.data.checks.rules.list_checks`.
    """
    checks = list_checks(bounds, card)
    severity_of = {check.name: severities.get(check.name, check.severity) for check in checks}
    files = build_check_columns(manifest)
    frames: dict[CheckTable, pd.DataFrame] = {
        "files": files,
        "images": files[files["accepted"]].reset_index(drop=True),
        "drift": _drift_rows(comparison),
    }
    active = [check for check in checks if severity_of[check.name] != "off" and len(frames[check.table])]
    outcomes = _run_expectations(active, frames, severity_of, docs, run_name)
    results = [_make_result(check, severity_of[check.name], outcomes.get(check.name), frames) for check in checks]
    return [
        replace(result, observed=comparison.note) if result.name == "drift" and result.severity != "off" else result
        for result in results
    ]


def _drift_rows(comparison: DatasetComparison) -> pd.DataFrame:
    """Reshape the drift table for the checks: the column ``path`` names the statistic."""
    table = comparison.table
    return pd.DataFrame(
        {
            "path": table["statistic"] + " of " + table["group"],
            "distance": table["distance"].astype(float),
            "limit": table["limit"].astype(float),
            "drift": ~table["drifted"].astype(bool),
        }
    )


def _run_expectations(
    checks: Sequence[Check],
    frames: Mapping[CheckTable, pd.DataFrame],
    severities: Mapping[str, Severity],
    docs: Path,
    run_name: str,
) -> dict[str, dict[str, Any]]:
    """Run the checks of each table and build the pages; returns the raw outcomes by name of the check."""
    with _quiet():
        import_without_garbage_collection("great_expectations")
        import great_expectations as gx
        from great_expectations.core.run_identifier import RunIdentifier

        context = _make_context(docs)
        run_id = RunIdentifier(run_name=run_name, run_time=datetime.now(UTC))
        outcomes: dict[str, dict[str, Any]] = {}
        counts: dict[str, tuple[int, int]] = {}
        for table in dict.fromkeys(check.table for check in checks):
            suite = gx.ExpectationSuite(TABLE_TITLES[table])
            for check in checks:
                if check.table == table:
                    suite.add_expectation(_make_expectation(check, severities[check.name]))
            checkpoint = _make_checkpoint(context, context.suites.add(suite))
            run = checkpoint.run(batch_parameters={"dataframe": frames[table]}, run_id=run_id)
            for validation in run.run_results.values():
                table_outcomes = [result.to_json_dict() for result in validation.results]
                outcomes |= {item["expectation_config"]["meta"]["check"]: item for item in table_outcomes}
                counts[suite.name] = (sum(item["success"] for item in table_outcomes), len(table_outcomes))
        context.build_data_docs(site_names=[SITE])
    make_self_contained(docs, counts)
    return outcomes


def _make_context(docs: Path) -> Any:
    """Make a context in memory without analytics and progress bars; its only site is ``docs``."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    for site in list(context.list_data_docs_sites()):
        context.delete_data_docs_site(site)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
    context.add_data_docs_site(SITE, {"class_name": "SiteBuilder", "store_backend": store})
    context.data_sources.add_pandas("manifest")
    return context


def _make_expectation(check: Check, severity: Severity) -> Any:
    """Make the expectation of a check; its description is shown in the Data Docs."""
    from great_expectations import expectations

    return getattr(expectations, check.expectation)(
        **check.arguments,
        severity=severity,
        description=f"{check.title}: {check.expects} ({severity}).",
        meta={"check": check.name},
    )


def _make_checkpoint(context: Any, suite: Any) -> Any:
    """Make a checkpoint of a suite and the table of the same name; it lists every offending row by its path."""
    import great_expectations as gx

    asset = context.data_sources.get("manifest").add_dataframe_asset(suite.name)
    batch = asset.add_batch_definition_whole_dataframe(suite.name)
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=suite.name, data=batch, suite=suite))
    result_format = {
        "result_format": "COMPLETE",
        "unexpected_index_column_names": ["path"],
        "return_unexpected_index_query": False,
    }
    return context.checkpoints.add(
        gx.Checkpoint(name=suite.name, validation_definitions=[definition], result_format=result_format)
    )


def _make_result(
    check: Check, severity: Severity, outcome: Mapping[str, Any] | None, frames: Mapping[CheckTable, pd.DataFrame]
) -> CheckResult:
    """Turn the raw outcome of a check into a plain result."""
    result = CheckResult(check.name, check.title, severity, None, "switched off", check.expects)
    if severity == "off":
        return result
    if outcome is None:
        # The table is empty. No drift statistics are not a fault of the data; no accepted image is one.
        return replace(result, passed=None if check.table == "drift" else False, observed="no accepted image")
    values = outcome["result"]
    if "element_count" not in values and "observed_value" not in values:
        raise DataError(
            f"expected the check {check.name} to run on the manifest, received "
            f"error={outcome.get('exception_info')!r}; install the packages of requirements/run.txt again, and run "
            "`cxr validate`"
        )
    passed = bool(outcome["success"])
    paths = {row["path"] for row in values.get("unexpected_index_list") or []}
    if check.name == "left_out" and not passed:
        files = frames["files"]
        paths = set(files.loc[~files["accepted"], "path"])
    return replace(result, passed=passed, observed=_describe_observed(check, values), paths=tuple(sorted(paths)))


def _describe_observed(check: Check, values: Mapping[str, Any]) -> str:
    unit = "files" if check.table == "files" else "images"
    if check.expectation == "ExpectTableRowCountToBeBetween":
        return f"{int(values['observed_value'])} {unit}"
    if "observed_value" in values:
        return f"a share of {float(values['observed_value']):.3f}"
    violations = int(values["unexpected_count"])
    return f"{violations} of {values['element_count']} {unit} that break it" if violations else f"all {unit} keep it"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the notices and deprecation warnings of Great Expectations out of the output; errors are still raised."""
    # Some of its modules set the level of their own loggers, so propagation is switched off instead.
    logger = logging.getLogger("great_expectations")
    propagate, null_handler = logger.propagate, logging.NullHandler()
    logger.propagate = False
    logger.addHandler(null_handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(null_handler)
