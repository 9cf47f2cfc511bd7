"""Runs the checks on a manifest with Great Expectations, builds the Data Docs and returns plain results.

Great Expectations gets what was measured: a table of one row, with a column for each check. Of the table of all files
it would make copies that take twice the memory of the table. Its context lives in memory only, and it is imported only
while checks run (it takes seconds).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.data.checks.data_docs import make_self_contained
from cxr.data.checks.drift import DatasetComparison
from cxr.data.checks.measurement import Column, FileValues, Measurement, measure_values
from cxr.data.checks.rules import Check, CheckBounds, CheckResult, CheckTable, Measure, Severity, list_checks
from cxr.data.dataset import DatasetCard
from cxr.errors import DataError
from cxr.fast_import import import_without_garbage_collection, packages_hidden
from cxr.files import printable_name

SITE = "data_docs"
TABLE_TITLES: dict[CheckTable, str] = {"files": "files", "images": "accepted_images", "drift": "drift"}
"""Names of the three tables in the Data Docs."""
UNITS: dict[CheckTable, str] = {"files": "files", "images": "images", "drift": "statistics"}
"""What the rows of each table are."""
MAX_SHOWN_FILES = 20
"""Offending files that the Data Docs show; all of them are in ``checks.json``."""

_STORES = ("boto3", "botocore", "google", "pyspark", "sqlalchemy")
"""Packages of stores that Great Expectations imports if they are installed. It gets a table in memory."""

_EXPECTATIONS: dict[Measure, str] = {
    "rows": "ExpectWordedSumToBeBetween",
    "mean": "ExpectWordedMeanToBeBetween",
    "broken": "ExpectWordedSumToBeBetween",
}
"""What is measured to a class of :mod:`cxr.data.checks.worded_expectations`."""


def run_checks(
    column: Column,
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
        column: reads a column of the manifest, one at a time.
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
    active = [check for check in checks if severity_of[check.name] != "off"]
    measurements = _measure(active, column, comparison)
    measured = [check for check in active if measurements[check.name].rows]
    passed = _run_expectations(measured, measurements, severity_of, docs, run_name)
    return [
        _make_result(check, severity_of[check.name], passed.get(check.name), measurements.get(check.name), comparison)
        for check in checks
    ]


def _measure(checks: Sequence[Check], column: Column, comparison: DatasetComparison) -> dict[str, Measurement]:
    """Measure each check; the rows of drift are named after the statistics."""
    files, drift = FileValues(column), comparison.table
    is_stable, statistics = ~drift["drifted"].to_numpy(dtype=bool), drift["statistic"] + " of " + drift["group"]
    return {
        check.name: measure_values(check, is_stable, np.ones_like(is_stable), lambda: statistics)
        if check.table == "drift"
        else files.measure(check)
        for check in checks
    }


def _run_expectations(
    checks: Sequence[Check],
    measurements: Mapping[str, Measurement],
    severities: Mapping[str, Severity],
    docs: Path,
    run_name: str,
) -> dict[str, bool]:
    """Run the checks of each table and build the pages; returns whether each check passed."""
    with _quiet():
        with packages_hidden(*_STORES):
            import_without_garbage_collection("great_expectations")
        import great_expectations as gx
        from great_expectations.core.run_identifier import RunIdentifier

        context = _make_context(docs)
        run_id = RunIdentifier(run_name=run_name, run_time=datetime.now(UTC))
        passed: dict[str, bool] = {}
        counts: dict[str, tuple[int, int]] = {}
        for table in dict.fromkeys(check.table for check in checks):
            of_table = [check for check in checks if check.table == table]
            suite = gx.ExpectationSuite(TABLE_TITLES[table])
            for check in of_table:
                suite.add_expectation(_make_expectation(check, severities[check.name], measurements[check.name]))
            checkpoint = _make_checkpoint(context, context.suites.add(suite))
            row = pd.DataFrame({check.name: [measurements[check.name].value] for check in of_table})
            run = checkpoint.run(batch_parameters={"dataframe": row}, run_id=run_id)
            for validation in run.run_results.values():
                outcomes = {result.expectation_config.meta["check"]: result for result in validation.results}
                passed |= {name: _has_passed(name, outcome) for name, outcome in outcomes.items()}
                counts[suite.name] = (sum(passed[name] for name in outcomes), len(outcomes))
        context.build_data_docs(site_names=[SITE])
    make_self_contained(docs, counts)
    return passed


def _has_passed(name: str, outcome: Any) -> bool:
    if "observed_value" not in outcome.result:
        raise DataError(
            f"expected the check {name} to run on the manifest, received error={outcome.exception_info!r}; install the "
            "packages of requirements/run.txt again, and run `cxr validate`"
        )
    return bool(outcome.success)


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


def _make_expectation(check: Check, severity: Severity, measurement: Measurement) -> Any:
    """Make the expectation of a check; its description is shown in the Data Docs."""
    from cxr.data.checks import worded_expectations

    low, high = (None, 0) if check.measure == "broken" else (check.low, check.high)
    return getattr(worded_expectations, _EXPECTATIONS[check.measure])(
        column=check.name,
        min_value=low,
        max_value=high,
        severity=severity,
        description=f"{check.title}: {check.expects} ({severity}).{_name_files(check, measurement)}",
        meta={"check": check.name, worded_expectations.OBSERVED: _describe_observed(check, measurement)},
    )


def _make_checkpoint(context: Any, suite: Any) -> Any:
    """Make a checkpoint of a suite and the table of the same name."""
    import great_expectations as gx

    asset = context.data_sources.get("manifest").add_dataframe_asset(suite.name)
    batch = asset.add_batch_definition_whole_dataframe(suite.name)
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=suite.name, data=batch, suite=suite))
    return context.checkpoints.add(gx.Checkpoint(name=suite.name, validation_definitions=[definition]))


def _make_result(
    check: Check,
    severity: Severity,
    passed: bool | None,
    measurement: Measurement | None,
    comparison: DatasetComparison,
) -> CheckResult:
    """Turn what was measured, and whether it passed, into a plain result."""
    result = CheckResult(check.name, check.title, severity, None, "switched off", check.expects)
    if measurement is None:
        return result
    if check.name == "drift":
        return replace(result, passed=passed, observed=comparison.note, paths=measurement.paths)
    if passed is None:  # there is no accepted image, which is a fault
        return replace(result, passed=False, observed="no accepted image")
    paths = () if passed else measurement.paths
    return replace(result, passed=passed, observed=_describe_observed(check, measurement), paths=paths)


def _describe_observed(check: Check, measurement: Measurement) -> str:
    unit = UNITS[check.table]
    if check.measure == "rows":
        return f"{measurement.rows} {unit}"
    if check.measure == "mean":
        return f"a share of {measurement.value:.3f}"
    if not measurement.value:
        return f"all {unit} keep it"
    return f"{measurement.value:.0f} of {measurement.rows} {unit} that break it"


def _name_files(check: Check, measurement: Measurement) -> str:
    """Name the first offending files, as HTML: Great Expectations escapes nothing."""
    if not measurement.paths:
        return ""
    shown = ", ".join(escape(printable_name(path)) for path in measurement.paths[:MAX_SHOWN_FILES])
    more = len(measurement.paths) - MAX_SHOWN_FILES
    return f" {UNITS[check.table].capitalize()}: {shown}{f' and {more} more' if more > 0 else ''}."


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
