"""Cron expressions as Kubeflow Pipelines reads them: checked, described, and their dates.

Kubeflow parses expressions with robfig/cron 1.2. ``croniter`` computes the dates and ``cron_descriptor`` the texts;
this module covers the differences:

- Seconds come first, and an expression of five fields is *not* refused but read as second, minute, hour, day and month.
- ``L``, ``#``, ranges such as ``FRI-MON`` and Sunday as 7 are refused.
- A date must match day of month and day of week if one of them contains a star (also ``*/10`` or ``3,*``); otherwise
  it must match one of them.
- A local time that daylight saving skips has no run, and one that occurs twice has two runs.

A schedule has no time zone of its own. It is the cluster's (``CRON_SCHEDULE_TIMEZONE`` of the deployment
ml-pipeline-scheduledworkflow), which is UTC unless somebody changed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import groupby
from zoneinfo import ZoneInfo

MACROS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
FIELDS: dict[str, tuple[int, int, str]] = {
    "second": (0, 59, ""),
    "minute": (0, 59, ""),
    "hour": (0, 23, ""),
    "day of month": (1, 31, ""),
    "month": (1, 12, "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"),
    "day of week": (0, 6, "SUN MON TUE WED THU FRI SAT"),
}
"""Field to its smallest and largest number, and the names of these numbers."""
MAX_LISTED = 4
"""A step with at most so many numbers is described by its numbers: ``*/25`` hours are not "every 25 hours"."""
HORIZON_YEARS = 5
"""Kubeflow gives up after five years without a date."""


@dataclass(frozen=True)
class CronSchedule:
    """A schedule.

    Attributes:
        expression: the expression with six fields, as it is sent to Kubeflow.
        note: how the expression was completed; empty if it had six fields.
        fields: the six fields in numbers, for croniter and cron_descriptor.
        both_days: whether day of month and day of week must both match.
    """

    expression: str
    note: str
    fields: tuple[str, ...]
    both_days: bool

    def dates(self, after: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Times at which it starts a run.

        Args:
            after: a time with a time zone; only later ones are returned.
            zone: time zone of the cluster's schedules.

        Yields:
            Times in that zone, in order, until none comes within five years.
        """
        after = after.astimezone(UTC)  # within one zone Python compares clock times and ignores their offsets
        start = _midnight(after, zone) - timedelta(seconds=1)
        for _, times in groupby(self._local_times(start), key=datetime.date):
            yield from (time.astimezone(zone) for time in _in_utc(times, zone) if time > after)

    def last(self, until: datetime, zone: tzinfo) -> datetime | None:
        """The latest time at which it should have started a run.

        Args:
            until: a time with a time zone.
            zone: time zone of the cluster's schedules.

        Returns:
            The time, not after ``until``; None if there is none within five years.
        """
        until = until.astimezone(UTC)
        end = _midnight(until, zone) + timedelta(days=1)
        for _, times in groupby(self._local_times(end, backwards=True), key=datetime.date):
            for time in reversed(_in_utc(times, zone)):
                if time <= until:
                    return time.astimezone(zone)
        return None

    def describe(self, zone: str) -> str:
        """Describe it in English.

        Args:
            zone: name of the time zone.

        Returns:
            For example ``"At 02:00, only on Monday (UTC)"``.
        """
        second, minute, hour, day, month, weekday = self.fields
        if "*" in {day, weekday}:
            text = _describe(minute, hour, day, month, weekday)
        else:
            # cron_descriptor does not tell whether both days must match, or one of them.
            weekdays = _describe("0", "0", "*", "*", weekday).removeprefix("At 00:00, ").removeprefix("only ")
            relation = "but only" if self.both_days else "and also"
            text = f"{_describe(minute, hour, day, month, '*')}, {relation} {weekdays}"
        return f"{text}{f', at second {second}' if second != '0' else ''} ({zone})"

    def _local_times(self, start: datetime, *, backwards: bool = False) -> Iterator[datetime]:
        """Clock times without a time zone, after the start or before it."""
        from croniter import croniter

        times = croniter(
            " ".join(self.fields),
            start,
            datetime,
            day_or=not self.both_days,
            second_at_beginning=True,
            max_years_between_matches=HORIZON_YEARS,
        )
        iterator: Iterator[datetime] = times.all_prev() if backwards else times.all_next()
        return iterator


def parse_cron(expression: str) -> CronSchedule:
    """Read a cron expression.

    Args:
        expression: six fields (second, minute, hour, day of month, month, day of week), the five of crontab,
            or a macro such as ``@weekly``.

    Returns:
        The schedule.

    Raises:
        ValueError: with a message that continues "expected cron to be ...".
    """
    text = " ".join(expression.split())
    fields = MACROS.get(text.lower(), text).split(" ")
    note = f"{text} is {' '.join(fields)}" if text.startswith("@") else ""
    if len(fields) == 5:
        fields = ["0", *fields]
        note = (
            f"{text} has five fields: read as {' '.join(fields)}, since Kubeflow takes six and would read the first "
            "one as seconds"
        )
    if len(fields) != 6:
        raise ValueError(
            "six fields (second minute hour day month weekday, e.g. '0 0 2 * * MON'), the five of crontab, or one of "
            f"{', '.join(MACROS)}"
        )
    numeric, numbers = zip(*map(_read_field, FIELDS, fields), strict=True)
    if len(numbers[0]) > 1:
        raise ValueError(
            f"one second of the minute in the first of six fields, such as '0', and not {fields[0]!r}, which starts "
            f"{len(numbers[0])} runs within a minute"
        )
    second, minute, hour, day, month, weekday = (str(min(numbers[0])), *numeric[1:])
    both_days = not {"*", "?"}.isdisjoint(fields[3] + fields[5])
    if not both_days and (len(numbers[3]) == 31 or len(numbers[5]) == 7):
        day = weekday = "*"  # one matching field is enough, and one of them matches each day
    schedule = CronSchedule(" ".join(fields), note, (second, minute, hour, day, month, weekday), both_days)
    if next(schedule.dates(datetime.now(UTC), UTC), None) is None:
        raise ValueError("a date that comes within five years")
    return schedule


def find_time_zone(name: str) -> tzinfo:
    """Find a time zone.

    Args:
        name: e.g. ``"UTC"`` or ``"Europe/Berlin"``.

    Returns:
        The zone. UTC needs no time zone data, which slim images lack.

    Raises:
        ValueError: if this machine does not know the zone; the message continues "expected time_zone to be ...".
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError("UTC, or a time zone that this machine knows, such as Europe/Berlin") from None


def _read_field(name: str, text: str) -> tuple[str, set[int]]:
    """Read one field: a list of numbers, names, ranges and steps.

    Returns:
        The field with numbers alone, and the numbers that match.
    """
    low, high, names = FIELDS[name]
    known = names.split()
    value = "|".join([r"\d+", *known])
    pattern = re.compile(rf"(?:[*?]|({value})(?:-({value}))?)(?:/(\d+))?", re.ASCII | re.IGNORECASE)
    parts: list[str] = []
    numbers: set[int] = set()
    for part in text.split(","):
        match = pattern.fullmatch(part)
        if match is None:
            hint = f" or {', '.join(known)}" if known else ""
            raise ValueError(f"numbers, ranges, lists and steps{hint} in the field {name}, and not {part!r}")
        first, last = (known.index(end.upper()) + low if end and end.isalpha() else end for end in match.groups()[:2])
        step = int(match[3] or 1)
        if step == 0:
            raise ValueError(f"{name} with a step above 0, and not {part!r}")
        start = low if first is None else int(first)
        end = int(last) if last is not None else high if first is None or match[3] else start
        if not low <= start <= end <= high:
            sunday = "; Kubeflow writes Sunday as 0 or SUN" if high == 6 and 7 in {start, end} else ""
            raise ValueError(f"{name} from {low} to {high}, smaller first, and not {part!r}{sunday}")
        matching = range(start, end + 1, step)
        numbers |= set(matching)
        if (step > 1 and len(matching) <= MAX_LISTED) or start == end:
            parts += map(str, matching)
        else:
            span = "*" if first is None else f"{start}-{end}"
            parts.append(span if step == 1 else f"{span}/{step}")
    return ",".join(parts), numbers


def _midnight(moment: datetime, zone: tzinfo) -> datetime:
    """Start of the day of a time in a zone, as a clock time without the zone."""
    return moment.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)


def _in_utc(local_times: Iterable[datetime], zone: tzinfo) -> list[datetime]:
    """Convert the clock times of one day: a time that is skipped gives none, and one that occurs twice gives two."""
    pairs = [(local, local.replace(tzinfo=zone, fold=fold).astimezone(UTC)) for local in local_times for fold in (0, 1)]
    return sorted({moment for local, moment in pairs if moment.astimezone(zone).replace(tzinfo=None, fold=0) == local})


def _describe(*fields: str) -> str:
    from cron_descriptor import Options, get_description

    return str(get_description(" ".join(fields), Options(use_24hour_time_format=True, locale_code="en_US")))
