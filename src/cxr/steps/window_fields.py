"""Fields of every step that reads a span of the prediction log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from cxr.steps.base import Input, Step
from cxr.steps.time_fields import DayOrMoment, read_moment, time_bounds


def _read_window_start(value: object) -> object:
    """Read a length such as ``7d`` or ``12h`` as a timedelta, anything else as a day or moment."""
    if isinstance(value, str) and value[-1:] in ("d", "h") and value[:-1].isdecimal():
        return timedelta(**{{"d": "days", "h": "hours"}[value[-1]]: int(value[:-1])})
    try:
        return read_moment(value)
    except ValueError:
        raise ValueError("an age such as 7d or 12h, a day such as 2026-11-01, or a moment") from None


class LogWindowStep(Step):
    """A step that reads the predictions of a window from their log."""

    log: Annotated[
        Path, Input("PredictionLog"), Field(description="Folder that predictions are logged to (cxr serve, cxr app).")
    ]

    since: Annotated[
        timedelta | DayOrMoment,
        BeforeValidator(_read_window_start),
        Field(description="Start of the window: its length (7d, 12h), or a day (UTC) or moment."),
    ] = "7d"  # type: ignore[assignment]  # as it is shown and typed; validated like every value
    until: Annotated[
        DayOrMoment | None, Field(description="End of the window: a day (UTC; all of it) or moment; null is now.")
    ] = None

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        since, until = self.window()
        if since >= until:
            raise ValueError(f"expected since before until, received since={self.since}, until={self.until}")
        return self

    def window(self) -> tuple[datetime, datetime]:
        """Return the start of the window and its end, which is exclusive; both UTC."""
        until = datetime.now(UTC) if self.until is None else time_bounds(self.until)[1]
        return (until - self.since if isinstance(self.since, timedelta) else time_bounds(self.since)[0]), until
