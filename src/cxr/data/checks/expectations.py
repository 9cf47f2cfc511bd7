"""Great Expectations on the manifest: runs the checks, builds the Data Docs, returns plain results.

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
from cxr.data.checks.drift import Comparison
from cxr.data.checks.rules import Bounds, Check, CheckResult, Severity, Table, all_checks, check_table
from cxr.data.dataset import DatasetCard
from cxr.errors import DataError
from cxr.fast_import import load

SITE = "data_docs"
TABLE_TITLES: dict[Table, str] = {"files": "files", "images": "accepted_images", "drift": "drift"}
"""Names of the three tables in the Data Docs."""


def validate(
    manifest: pd.DataFrame,
    comparison: Comparison,
    docs: Path,
    *,
    card: DatasetCard | None = None,
    bounds: Bounds | None = None,
    severities: Mapping[str, Severity] | None = None,
    run_name: str = "manifest",
) -> list[CheckResult]:
    """Check a manifest and build the Data Docs.

    Args:
        manifest: one row per file; see :func:`cxr.data.manifest.builder.build_manifest`.
        comparison: outcome of :func:`cxr.data.checks.drift.compare`.
        docs: folder to build the Data Docs in (``index.html`` is the entry); pages load nothing from outside.
        card: card of the data set, whose image count the files must match.
        bounds: limits of sizes and shares.
        severities: check name to severity, where it differs from the default.
        run_name: name of the run in the Data Docs, for example the digest of the data.

    Returns:
        One result per check, in the order of :func:`cxr.data.checks.rules.all_checks`.
    """
    found = all_checks(bounds, card)
    chosen = {check.name: (severities or {}).get(check.name, check.severity) for check in found}
    files = check_table(manifest)
    frames: dict[Table, pd.DataFrame] = {
        "files": files,
        "images": files[files["accepted"]].reset_index(drop=True),
        "drift": _drift_rows(comparison),
    }
    to_run = [check for check in found if chosen[check.name] != "off" and len(frames[check.table])]
    outcomes = _run(to_run, frames, chosen, docs, run_name)
    results = [_result(check, chosen[check.name], outcomes.get(check.name), frames) for check in found]
    return [
        replace(result, observed=comparison.note) if result.name == "drift" and result.severity != "off" else result
        for result in results
    ]


def _drift_rows(comparison: Comparison) -> pd.DataFrame:
    """Shape the drift table for checking: one ``path``-like name per statistic."""
    table = comparison.table
    return pd.DataFrame(
        {
            "path": table["statistic"] + " of " + table["group"],
            "distance": table["distance"].astype(float),
            "limit": table["limit"].astype(float),
            "drift": ~table["drifted"].astype(bool),
        }
    )


def _run(
    to_run: Sequence[Check],
    frames: Mapping[Table, pd.DataFrame],
    severities: Mapping[str, Severity],
    docs: Path,
    run_name: str,
) -> dict[str, dict[str, Any]]:
    """Run the checks of each table and build the pages; returns the raw outcome by check name."""
    with _quiet():
        load("great_expectations")
        import great_expectations as gx
        from great_expectations.core.run_identifier import RunIdentifier

        context = _context(docs)
        run_id = RunIdentifier(run_name=run_name, run_time=datetime.now(UTC))
        outcomes: dict[str, dict[str, Any]] = {}
        counts: dict[str, tuple[int, int]] = {}
        for table in dict.fromkeys(check.table for check in to_run):
            suite = gx.ExpectationSuite(TABLE_TITLES[table])
            for check in to_run:
                if check.table == table:
                    suite.add_expectation(_expectation(check, severities[check.name]))
            checkpoint = _checkpoint(context, context.suites.add(suite))
            ran = checkpoint.run(batch_parameters={"dataframe": frames[table]}, run_id=run_id)
            for validation in ran.run_results.values():
                raw = [item.to_json_dict() for item in validation.results]
                outcomes |= {item["expectation_config"]["meta"]["check"]: item for item in raw}
                counts[suite.name] = (sum(item["success"] for item in raw), len(raw))
        context.build_data_docs(site_names=[SITE])
    make_self_contained(docs, counts)
    return outcomes


def _context(docs: Path) -> Any:
    """Make a context in memory whose only site is ``docs``: no analytics, no progress bars."""
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


def _expectation(check: Check, severity: Severity) -> Any:
    """Make the expectation of a check; its sentence shows in the Data Docs."""
    from great_expectations import expectations

    return getattr(expectations, check.expectation)(
        **check.arguments,
        severity=severity,
        description=f"{check.title}: {check.expects} ({severity}).",
        meta={"check": check.name},
    )


def _checkpoint(context: Any, suite: Any) -> Any:
    """Join a suite with a table of the same name, listing every offending row by its path."""
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


def _result(
    check: Check, severity: Severity, outcome: Mapping[str, Any] | None, frames: Mapping[Table, pd.DataFrame]
) -> CheckResult:
    """Turn the raw outcome of a check into a plain one."""
    result = CheckResult(check.name, check.title, severity, None, "switched off", check.expects)
    if severity == "off":
        return result
    if outcome is None:
        # An empty table: nothing to compare is no fault of the data, no accepted image is.
        return replace(result, passed=None if check.table == "drift" else False, observed="no accepted image")
    found = outcome["result"]
    if "element_count" not in found and "observed_value" not in found:
        raise DataError(
            f"expected the check {check.name} to run on the manifest, received "
            f"error={outcome.get('exception_info')!r}; run `cxr validate` again after `make install`"
        )
    passed = bool(outcome["success"])
    paths = {row["path"] for row in found.get("unexpected_index_list") or []}
    if check.name == "left_out" and not passed:
        files = frames["files"]
        paths = set(files.loc[~files["accepted"], "path"])
    return replace(result, passed=passed, observed=_observed(check, found), paths=tuple(sorted(paths)))


def _observed(check: Check, found: Mapping[str, Any]) -> str:
    """Say what was found, in words."""
    unit = "files" if check.table == "files" else "images"
    if check.expectation == "ExpectTableRowCountToBeBetween":
        return f"{int(found['observed_value'])} {unit}"
    if "observed_value" in found:
        return f"a share of {float(found['observed_value']):.3f}"
    others = int(found["unexpected_count"])
    return f"{others} of {found['element_count']} {unit} that break it" if others else f"all {unit} keep it"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's notices and deprecation warnings out of the pipeline's output; errors are raised."""
    # Some of its modules set the level of their own loggers, so the way up is cut instead.
    logger = logging.getLogger("great_expectations")
    propagate, silence = logger.propagate, logging.NullHandler()
    logger.propagate = False
    logger.addHandler(silence)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(silence)
