"""Drift: compare logged predictions with what their version was trained and validated on."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr

from cxr.errors import DriftError, MissingInputError, RegistryError, TooFewError
from cxr.steps.base import Output
from cxr.steps.drift_fields import WindowLimitsStep
from cxr.steps.model_fields import FixedModelStep
from cxr.steps.registry_fields import REGISTRATION_KEYS
from cxr.steps.window_fields import LogWindowStep

if TYPE_CHECKING:
    from cxr.drift.report import ReportContext
    from cxr.drift.window_comparison import WindowComparison

log = logging.getLogger(__name__)


class Drift(WindowLimitsStep, FixedModelStep, LogWindowStep):
    """Compare logged predictions with training: exit status 0 no drift, 3 drift, 4 too few images to tell."""

    name: ClassVar[str] = "drift"
    follows: ClassVar[str] = "serve"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "drift")
    ignored_keys: ClassVar[frozenset[str]] = REGISTRATION_KEYS

    report: Annotated[Path, Output("DriftReport"), Field(description="Folder to write report.html and drift.json to.")]

    experiment: Annotated[
        str, Field(min_length=1, description="MLflow experiment; comparisons with phantoms go to one of their own.")
    ] = "drift"
    offline: Annotated[bool, Field(description="Log nothing to MLflow.")] = False
    on_drift: Annotated[
        list[str] | None,
        Field(
            min_length=1, description="Command to run on drift, as a list of words. It runs once per version, until a "
            "window without drift, if the report stays in the same folder. null for none."
        ),
    ] = None  # fmt: skip

    _previous_command: dict[str, Any] | None = PrivateAttr(None)

    def execute(self) -> None:
        """Compare, log the metrics, run the command if it is due, and end with the exit status of the outcome.

        Raises:
            DriftError: if the window has drifted.
            TooFewError: if it holds too few images.
            PipelineError: if the command failed.
            InstallationError: if the command does not exist.
        """
        from cxr.drift.on_drift import ON_DRIFT, read_report, run_command_once

        self._previous_command = read_report(self.report).get(ON_DRIFT)
        super().execute()
        report = read_report(self.report)
        if report["outcome"] == "too few to tell":
            raise TooFewError(f"{report['sentence']}; take a longer window (since), or wait")
        if report["outcome"] == "no drift":
            log.info("%s", report["sentence"])
            return
        if self.on_drift is not None:
            run_command_once(self.on_drift, self.report)
        raise DriftError(f"{report['sentence']}; see {self.report / 'report.html'}")

    def run(self) -> None:
        """Read the log and the version, compare, write the report and log its metrics."""
        from cxr.drift.detection import detect_drift
        from cxr.drift.on_drift import entries_of_run
        from cxr.drift.report import ReportContext, write_report
        from cxr.models.backend import load_keras
        from cxr.serving.prediction_log_reader import logged_image_path, read_prediction_log

        since, until = self.window()
        window = read_prediction_log(self.log, since, until)
        choice = self.choose_model()
        load_keras()
        served = choice.load()
        if served.reference is None and served.validation is None:
            raise MissingInputError(
                f"expected a version with statistics of its training images or scores of its validation, received "
                f"{choice.name} without either; register it again, or for a model of a folder "
                "run `cxr reference` and name its folder as --reference"
            )
        comparison = detect_drift(
            window.rows, (served.version, served.metadata.model), served.reference, served.validation, self.limits(),
            seed=self.seed,
        )  # fmt: skip
        for note in comparison.notes:
            log.info("%s", note)
        context = ReportContext(
            served.version, served.alias, served.metadata, served.reference, served.validation, since, until,
            window.damaged,
        )  # fmt: skip
        identity = hashlib.sha256(choice.identity.encode()).hexdigest()
        write_report(
            self.report, comparison, window.rows, context,
            image_path=lambda name: logged_image_path(self.log, name),
            entries=entries_of_run(self._previous_command, identity, comparison.outcome),
        )  # fmt: skip
        self._log_to_mlflow(context, comparison)

    def _log_to_mlflow(self, context: ReportContext, comparison: WindowComparison) -> None:
        """Log metrics and files. If the store does not answer, the drift is still reported."""
        from cxr.tracking.active_run import open_run

        facts = context.to_dict()
        tags = {**{name: facts[name] for name in ("version", "alias", "model")}, "outcome": comparison.outcome}
        parameters = {"since": facts["since"], "until": facts["until"], **asdict(comparison.limits)}
        run_name = f"{context.metadata.model} {context.until:%Y-%m-%d %H:%M}"
        try:
            with open_run(
                None if self.offline else self.store, self.experiment, run_name, tags, parameters,
                dataset_kind=context.metadata.dataset_kind,
            ) as run:  # fmt: skip
                run.log_epoch(0, comparison.metrics())
                run.log_folder(self.report, "drift")
        except RegistryError as error:
            log.warning("the metrics are not in MLflow: %s", error)
