"""Champion: print which version is served now, or was on a past day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.registry_fields import RegistryStep
from cxr.steps.time_fields import DayOrMoment, time_bounds


class Champion(RegistryStep):
    """Print which version is champion now, or was on a past day, and since when."""

    name: ClassVar[str] = "champion"
    follows: ClassVar[str] = "tune"

    on: Annotated[
        DayOrMoment | None,
        Field(description="Day (2026-11-01, UTC) or moment (2026-11-01T08:30+02:00) to look back to; null is now."),
    ] = None

    def run(self) -> None:
        """Print one line per version that was champion then."""
        from cxr.promotion.log import became_champion, champions_between
        from cxr.tracking.aliases import read_promotion_log

        entries = read_promotion_log(self.store, self.registered_name)
        start, end = self._first_and_last_moment()
        for moment, version in champions_between(entries, start, end):
            entry = became_champion(entries, version, moment)
            who = f"version {version}" if version else "nobody"
            since = f"since {entry.time:%Y-%m-%d %H:%M:%S} UTC: {entry.sentence()}, by {entry.who}" if entry else ""
            self.show(f"{moment:%Y-%m-%d %H:%M:%S} UTC  {who}  {since}".rstrip())

    def _first_and_last_moment(self) -> tuple[datetime, datetime]:
        if self.on is None:
            now = datetime.now(UTC)
            return now, now
        start, end = time_bounds(self.on)
        return start, max(start, end - timedelta(microseconds=1))
