"""Champion: print which version is served now, or was on a past day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.registry_fields import Registered
from cxr.steps.time_fields import DayOrMoment, span


class Champion(Registered):
    """Print which version is champion now, or was on a past day, and since when."""

    name: ClassVar[str] = "champion"

    on: Annotated[
        DayOrMoment | None,
        Field(description="Day (2026-11-01, UTC) or moment (2026-11-01T08:30+02:00) to look back to; null is now."),
    ] = None

    def run(self) -> None:
        """Print one line per version that was champion then."""
        from cxr.promotion.log import champions_between
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
        start, end = span(self.on)
        return start, max(start, end - timedelta(microseconds=1))
