"""Compare: what a shadow has answered, beside what clients were told for the same images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from cxr.errors import CxrError
from cxr.steps.base import Output
from cxr.steps.drift_fields import WindowLimitsStep
from cxr.steps.registry_fields import VersionFilesStep
from cxr.steps.window_fields import LogWindowStep

if TYPE_CHECKING:
    from cxr.drift.shadow_report import ComparedVersion

log = logging.getLogger(__name__)


class Compare(WindowLimitsStep, VersionFilesStep, LogWindowStep):
    """Compare the logged answers of a shadow with those of the version that answered the clients."""

    name: ClassVar[str] = "compare"
    follows: ClassVar[str] = "drift"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "drift")
    ignored_keys: ClassVar[frozenset[str]] = VersionFilesStep.ignored_keys | frozenset(
        {"alias", "fallback", "version", "on_drift"}
    )

    report: Annotated[
        Path,
        Output("ShadowReport"),
        Field(description="Folder to write report.html, comparison.json, disagreements.csv and plots to."),
    ]

    served_version: Annotated[
        str | None,
        Field(pattern=r"^[0-9]+$", description="Number of the version that answered the clients; null: the newest."),
    ] = None
    shadow_version: Annotated[
        str | None, Field(pattern=r"^[0-9]+$", description="Number of the shadow; null: the newest in the log.")
    ] = None

    def run(self) -> None:
        """Read the log and both versions, compare, and write the report."""
        from cxr.drift.shadow_comparison import choose_pair, compare_with_shadow, other_pairs, rows_of_pair
        from cxr.drift.shadow_report import ShadowReport, detect_drift_of_both, write_shadow_report
        from cxr.serving.prediction_log_reader import logged_image_path, read_prediction_log

        since, until = self.window()
        window = read_prediction_log(self.log, since, until)
        pair = choose_pair(window.rows, self.served_version, self.shadow_version)
        comparison = compare_with_shadow(window.rows, pair)
        notes = tuple(f"the window also has {other}" for other in other_pairs(window.rows, pair))
        versions = self._read_version(pair.version), self._read_version(pair.shadow_version)
        drifts = detect_drift_of_both(window.rows, pair, versions, self.limits(), seed=self.seed)
        write_shadow_report(
            self.report,
            ShadowReport(
                comparison, rows_of_pair(window.rows, pair), versions, drifts, since, until, window.damaged, notes
            ),
            image_path=lambda row_id: logged_image_path(self.log, row_id),
        )
        for note in notes:
            log.info("%s; name it with --served_version and --shadow_version", note)
        log.info("%s", comparison.sentence())

    def _read_version(self, version: str) -> ComparedVersion | None:
        """Read what a version was trained and validated on; None if it cannot be read, which leaves out its drift."""
        from cxr.drift.shadow_report import ComparedVersion
        from cxr.evaluation.validation_scores import ValidationScores
        from cxr.inference.reference.reference import Reference
        from cxr.models.metadata import ModelMetadata
        from cxr.serving.model_source import read_version

        def read(folder: Path) -> ComparedVersion:
            return ComparedVersion(ModelMetadata.read(folder), Reference.load(folder), ValidationScores.load(folder))

        store = self.store
        try:
            return read_version(store, self.registered_name, version, read)
        except CxrError as error:
            log.warning("drift of version %s is left out: %s", version, error)
            return None
