"""Drift: compare logged predictions with what their version was trained and validated on."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from cxr.errors import DriftError, InstallationError, MissingInputError, PipelineError, RegistryError, TooFewError
from cxr.files import DRIFT_FILE
from cxr.steps.base import Reads, Writes
from cxr.steps.model_fields import AnsweringOnce
from cxr.steps.time_fields import DayOrMoment, read_moment, span

if TYPE_CHECKING:
    from cxr.drift.findings import WindowComparison
    from cxr.drift.report import Watched

log = logging.getLogger(__name__)

STARTED = "on_drift"
"""Entry of drift.json about the command that was started."""


def _read_age(value: object) -> object:
    """``7d`` and ``12h`` are timedeltas."""
    if isinstance(value, str) and value[-1:] in ("d", "h") and value[:-1].isdecimal():
        return timedelta(**{{"d": "days", "h": "hours"}[value[-1]]: int(value[:-1])})
    try:
        return read_moment(value)
    except ValueError:
        raise ValueError("an age such as 7d or 12h, a day such as 2026-11-01, or a moment") from None


class Drift(AnsweringOnce):
    """Compare logged predictions with training: exit status 0 no drift, 3 drift, 4 too few films to tell."""

    name: ClassVar[str] = "drift"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "drift")
    passed_over: ClassVar[frozenset[str]] = frozenset({"include"})

    log: Annotated[
        Path, Reads("PredictionLog"), Field(description="Folder that predictions are logged to (cxr serve, cxr app).")
    ]
    report: Annotated[Path, Writes("DriftReport"), Field(description="Folder to write report.html and drift.json to.")]

    experiment: Annotated[
        str, Field(min_length=1, description="MLflow experiment; comparisons with phantoms go to one of their own.")
    ] = "drift"
    offline: Annotated[bool, Field(description="Log no figures to MLflow.")] = False
    since: Annotated[
        timedelta | DayOrMoment,
        BeforeValidator(_read_age),
        Field(description="Begin of the window: its length (7d, 12h), or a day (UTC) or moment."),
    ] = "7d"  # type: ignore[assignment]  # as it is shown and typed; validated like every value
    until: Annotated[
        DayOrMoment | None, Field(description="End of the window: a day (UTC; all of it) or moment; null is now.")
    ] = None
    films: Annotated[int, Field(ge=10, description="Fewest films that are compared; fewer are too few to tell.")] = 50
    distance: Annotated[
        float, Field(gt=0, le=1, description="Largest Kolmogorov-Smirnov distance of statistics and probabilities.")
    ] = 0.15
    embedding: Annotated[float, Field(gt=0, le=1, description="Largest energy distance of the embeddings.")] = 0.1
    shares: Annotated[float, Field(gt=0, le=1, description="Largest change of the share of pneumonia.")] = 0.1
    refusals: Annotated[
        float,
        Field(gt=0, le=1, description="How far the share of refused pictures may exceed the one stated at training."),
    ] = 0.05
    significance: Annotated[
        float,
        Field(
            gt=0, lt=0.5, description="Share of all runs without drift that may be called drift: p-values beyond it, "
            "corrected for the number of comparisons, count as chance."
        ),
    ] = 0.01  # fmt: skip
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of the permutations.")] = 0
    on_drift: Annotated[
        list[str] | None,
        Field(
            min_length=1, description="Command to run on drift, as a list of words; once per version, until a window "
            "without drift, as long as the report stays in the same folder. null for none."
        ),
    ] = None  # fmt: skip

    _earlier: dict[str, Any] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Self:
        since, until = self.window()
        if since >= until:
            raise ValueError(f"expected since before until, received since={self.since}, until={self.until}")
        return self

    def window(self) -> tuple[datetime, datetime]:
        """First moment of the window, and the one after its last.

        Returns:
            Both, UTC.
        """
        until = datetime.now(UTC) if self.until is None else span(self.until)[1]
        return (until - self.since if isinstance(self.since, timedelta) else span(self.since)[0]), until

    def execute(self) -> None:
        """Compare, log the figures, run the command if it is due, and end with the status of the outcome.

        Raises:
            DriftError: if the window has drifted.
            TooFewError: if it holds too few films.
            PipelineError: if the command failed.
            InstallationError: if the command isn't there.
        """
        self._earlier = self._read().get(STARTED)
        super().execute()
        found = self._read()
        if found["outcome"] == "too few to tell":
            raise TooFewError(f"{found['sentence']}; take a longer window (since), or wait")
        if found["outcome"] == "no drift":
            log.info("%s", found["sentence"])
            return
        if self.on_drift is not None:
            self._start(self.on_drift, found)
        raise DriftError(f"{found['sentence']}; see {self.report / 'report.html'}")

    def run(self) -> None:
        """Read the log and the version, compare, write the report and log its figures."""
        from cxr.drift.comparison import compare
        from cxr.drift.findings import WindowLimits
        from cxr.drift.report import Watched, write_report
        from cxr.models.backend import load_keras
        from cxr.serving.prediction_log import picture_path, read_log

        since, until = self.window()
        window = read_log(self.log, since, until)
        choice = self.choice()
        load_keras()
        served = choice.load()
        if served.reference is None and served.validation is None:
            raise MissingInputError(
                f"expected a version with films of its training and scores of its validation, received {choice.name} "
                "without either; register it again"
            )
        limits = WindowLimits(
            distance=self.distance, shares=self.shares, significance=self.significance, embedding=self.embedding,
            refusals=self.refusals, films=self.films,
        )  # fmt: skip
        comparison = compare(
            window.rows, (served.version, served.card.model), served.reference, served.validation, limits,
            seed=self.seed,
        )  # fmt: skip
        for note in comparison.notes:
            log.info("%s", note)
        watched = Watched(
            served.version, served.alias, served.card, served.reference, served.validation, since, until,
            window.damaged,
        )  # fmt: skip
        identity = hashlib.sha256(choice.identity.encode()).hexdigest()
        same = self._earlier is not None and self._earlier["identity"] == identity
        carried = self._earlier if same and comparison.outcome != "no drift" else None
        write_report(
            self.report, comparison, window.rows, watched, picture_of=lambda name: picture_path(self.log, name),
            more={"identity": identity, STARTED: carried},
        )  # fmt: skip
        self._note(watched, comparison)

    def _note(self, watched: Watched, comparison: WindowComparison) -> None:
        """Log figures and files; a store that is away keeps nobody from learning of a drift."""
        from cxr import tracking

        facts = watched.to_dict()
        tags = {**{name: facts[name] for name in ("version", "alias", "model")}, "outcome": comparison.outcome}
        span_of = {name: facts[name] for name in ("since", "until")}
        name = f"{watched.card.model} {watched.until:%Y-%m-%d %H:%M}"
        try:
            with tracking.open_run(
                "" if self.offline else self.tracking_uri, self.experiment, name, tags,
                {**span_of, **asdict(comparison.limits)}, dataset_kind=watched.card.dataset_kind,
            ) as run:  # fmt: skip
                run.log_epoch(0, comparison.metrics())
                run.log_folder(self.report, "drift")
        except RegistryError as error:
            log.warning("the figures are not in MLflow: %s", error)

    def _read(self) -> dict[str, Any]:
        """What drift.json says; nothing if there is none."""
        try:
            found = json.loads((self.report / DRIFT_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _start(self, command: list[str], found: dict[str, Any]) -> None:
        """Run the command, unless it was run for this drift already."""
        if found[STARTED] is not None:
            log.info("on_drift was run for this version on %s and is not run again", found[STARTED]["time"])
            return
        log.info("on drift: %s", shlex.join(command))
        try:
            status = subprocess.run(command, check=False).returncode
        except OSError as error:
            raise InstallationError(
                f"expected a command to run on drift, received on_drift={command} ({error.strerror})"
            ) from error
        if status:
            raise PipelineError(
                f"{found['sentence']}; expected the command of on_drift to end with status 0, received {status} from "
                f"{shlex.join(command)}; it is run again next time"
            )
        from cxr.files import write_json

        moment = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"time": moment, "identity": found["identity"], "command": command}
        partial = self.report / f".{DRIFT_FILE}.partial"
        write_json(partial, {**found, STARTED: entry})
        partial.replace(self.report / DRIFT_FILE)
