"""Days and moments as parameters: ``2026-11-01`` (UTC), ``2026-11-01T08:30+02:00``."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from pydantic import BeforeValidator


def read_moment(value: object) -> object:
    """Read a day or a moment.

    Args:
        value: text; anything else is left as it is.

    Returns:
        A date or a datetime.

    Raises:
        ValueError: if the text is neither.
    """
    if not isinstance(value, str):
        return value
    for kind in (date, datetime):
        try:
            return kind.fromisoformat(value)
        except ValueError:
            continue
    raise ValueError("a day such as 2026-11-01, or a moment such as 2026-11-01T08:30+02:00")


DayOrMoment = Annotated[date | datetime, BeforeValidator(read_moment)]
"""Field of a step."""


def time_bounds(value: date | datetime) -> tuple[datetime, datetime]:
    """Compute the bounds of a day, or of a moment.

    Args:
        value: a day (UTC), or a moment; a moment without a time zone is in UTC.

    Returns:
        For a day, its first moment and the first moment of the next day; for a moment, the moment twice. In UTC.
    """
    if isinstance(value, datetime):
        moment = (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
        return moment, moment
    start = datetime.combine(value, time(), UTC)
    return start, start + timedelta(days=1)
