"""Champion: print which version is served now, or was on a past day."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from cxr.steps.registered import Registered


class Champion(Registered):
    """Print which version is champion now, or was on a past day, and since when."""

    name: ClassVar[str] = "champion"

    on: Annotated[
        date | datetime | None,
        Field(description="Day (2026-11-01, UTC) or moment (2026-11-01T08:30+02:00) to look back to; null is now."),
    ] = None

    @field_validator("on", mode="before")
    @classmethod
    def _moment(cls, on: object) -> object:
        if not isinstance(on, str):
            return on
        for kind in (date, datetime):
            try:
                return kind.fromisoformat(on)
            except ValueError:
                continue
        raise ValueError("a day such as 2026-11-01, or a moment such as 2026-11-01T08:30+02:00")

    def run(self) -> None:
        """Print one line per version that was champion then."""
        from cxr.history import champions_between
        from cxr.tracking.registry import promotion_log

        entries = promotion_log(self.tracking_uri, self.registered_name)
        start, end = self._span()
        for moment, version in champions_between(entries, start, end):
            since = next(
                (one for one in reversed(entries) if one.time <= moment and one.moved and one.champion == version), None
            )
            who = f"version {version}" if version else "nobody"
            words = f"since {since.time:%Y-%m-%d %H:%M:%S} UTC: {since.sentence()}, by {since.who}" if since else ""
            self.show(f"{moment:%Y-%m-%d %H:%M:%S} UTC  {who}  {words}".rstrip())

    def _span(self) -> tuple[datetime, datetime]:
        """First and last moment that is asked about."""
        if self.on is None:
            now = datetime.now(UTC)
            return now, now
        if isinstance(self.on, datetime):
            moment = self.on if self.on.tzinfo else self.on.replace(tzinfo=UTC)
            return moment.astimezone(UTC), moment.astimezone(UTC)
        start = datetime.combine(self.on, time(), UTC)
        return start, start + timedelta(days=1) - timedelta(microseconds=1)
