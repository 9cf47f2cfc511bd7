"""Cron expressions as Kubeflow Pipelines reads them: six fields, checked, put into words, and their dates.

Kubeflow parses with robfig/cron 1.2: seconds come first, and an expression of five fields is *not* refused but
read as seconds, minutes, hours, day and month. Day of month and day of week must both match if one of them
has a star, else one of them is enough. A schedule has no time zone of its own: it is the cluster's
(``CRON_SCHEDULE_TIMEZONE`` of the deployment ml-pipeline-scheduledworkflow), UTC unless that is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
MACROS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
HORIZON = timedelta(days=366 * 5)
"""Kubeflow gives up after five years without a date."""
LISTED = 4
"""More times a day than this are described by their fields, not one by one."""


@dataclass(frozen=True)
class Field:
    """One field of an expression.

    Attributes:
        values: the numbers that match.
        star: whether a ``*`` or ``?`` stands in it, even with a step.
    """

    values: frozenset[int]
    star: bool


@dataclass(frozen=True)
class Cron:
    """A schedule.

    Attributes:
        text: the expression with six fields, as it is sent to Kubeflow.
        note: what was made of the expression if it was another one; empty if nothing was.
    """

    text: str
    note: str
    second: int
    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    def dates(self, after: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Moments at which it fires.

        Args:
            after: a moment with a time zone; only later ones are given.
            zone: time zone of the cluster's schedules.

        Yields:
            Moments in that zone, in order, at most five years ahead.
        """
        after = after.astimezone(UTC)  # within one zone Python compares clocks, not moments
        day, last = after.astimezone(zone).date(), (after + HORIZON).astimezone(zone).date()
        while day <= last:
            if self._on(day):
                yield from (moment for moment in self._of(day, zone) if moment > after)
            day += timedelta(days=1)

    def last(self, until: datetime, zone: tzinfo) -> datetime | None:
        """The latest moment at which it should have fired.

        Args:
            until: a moment with a time zone.
            zone: time zone of the cluster's schedules.

        Returns:
            The moment, not after ``until``; None if there is none within five years.
        """
        until = until.astimezone(UTC)
        day, first = until.astimezone(zone).date(), (until - HORIZON).astimezone(zone).date()
        while day >= first:
            if self._on(day):
                for moment in reversed(self._of(day, zone)):
                    if moment <= until:
                        return moment
            day -= timedelta(days=1)
        return None

    def words(self, zone: str) -> str:
        """Say it in words.

        Args:
            zone: name of the time zone.

        Returns:
            For example ``"every Monday 02:00 UTC"``.
        """
        days = self._days_in_words()
        if len(self.month.values) < len(MONTHS):
            days += f" in {_joined([MONTHS[number - 1] for number in sorted(self.month.values)])}"
        return f"{days} {self._times_in_words()} {zone}"

    def _on(self, day: date) -> bool:
        """Whether it fires on a day, as robfig/cron decides."""
        if day.month not in self.month.values:
            return False
        of_month, of_week = day.day in self.day.values, day.isoweekday() % 7 in self.weekday.values
        return of_month and of_week if self.day.star or self.weekday.star else of_month or of_week

    def _of(self, day: date, zone: tzinfo) -> list[datetime]:
        """Moments of a day of the zone, where the clock may leave an hour out or show one twice."""
        moment = datetime.combine(day, time(), zone).astimezone(UTC)
        end = datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)
        found = []
        while moment < end:
            local = moment.astimezone(zone)
            if local.hour in self.hour.values and local.minute in self.minute.values:
                found.append(local.replace(second=self.second))
            moment += timedelta(minutes=1)
        return found

    def _days_in_words(self) -> str:
        days = f"on day {_joined([str(number) for number in sorted(self.day.values)])} of the month"
        weekdays = f"every {_weekdays(sorted(self.weekday.values))}"
        all_days, all_weekdays = len(self.day.values) == 31, len(self.weekday.values) == len(DAYS)
        if all_days and all_weekdays:
            return "every day"
        either = not (self.day.star or self.weekday.star)
        if either:
            # One field alone decides nothing here: each date that fits either of them counts.
            return "every day" if all_days or all_weekdays else f"{days} and also {weekdays}"
        if all_weekdays:
            return days
        return weekdays if all_days else f"{days} if it is a {_joined(_names(sorted(self.weekday.values)), 'or')}"

    def _times_in_words(self) -> str:
        hours, minutes = sorted(self.hour.values), sorted(self.minute.values)
        if len(hours) * len(minutes) <= LISTED:
            return _joined([f"{hour:02}:{minute:02}{self._seconds()}" for hour in hours for minute in minutes])
        past = "every minute" if len(minutes) == 60 else f"at minute {_joined([str(one) for one in minutes])}"
        of = "every hour" if len(hours) == 24 else f"the hours {_joined([str(one) for one in hours])}"
        return f"{past} of {of}{f', second {self.second},' if self.second else ''}"

    def _seconds(self) -> str:
        return f":{self.second:02}" if self.second else ""


def parse_cron(expression: str) -> Cron:
    """Read a cron expression.

    Args:
        expression: six fields (second, minute, hour, day of month, month, day of week), the five of crontab,
            or a word such as ``@weekly``.

    Returns:
        The schedule.

    Raises:
        ValueError: in words that continue "expected cron to be ...".
    """
    text = " ".join(expression.split())
    words = MACROS.get(text.lower(), text).split(" ")
    note = f"{text} is {' '.join(words)}" if text.startswith("@") else ""
    if len(words) == 5:
        words = ["0", *words]
        note = (
            f"{text} has five fields: read as {' '.join(words)}, since Kubeflow takes six and would read the first "
            "one as seconds"
        )
    if len(words) != 6:
        raise ValueError(
            "six fields (second minute hour day month weekday, e.g. '0 0 2 * * MON'), the five of crontab, or one of "
            f"{', '.join(MACROS)}"
        )
    seconds = _field(words[0], "second", 0, 59)
    if len(seconds.values) > 1:
        raise ValueError(
            f"one second of the minute in the first of six fields, such as '0', and not {words[0]!r}, which starts "
            f"{len(seconds.values)} runs within a minute"
        )
    found = Cron(
        text=" ".join(words),
        note=note,
        second=min(seconds.values),
        minute=_field(words[1], "minute", 0, 59),
        hour=_field(words[2], "hour", 0, 23),
        day=_field(words[3], "day of month", 1, 31),
        month=_field(words[4], "month", 1, 12, MONTHS),
        weekday=_field(words[5], "day of week", 0, 6, DAYS),
    )
    if next(found.dates(datetime.now(UTC), UTC), None) is None:
        raise ValueError("a date that comes within five years")
    return found


def time_zone(name: str) -> tzinfo:
    """Find a time zone.

    Args:
        name: e.g. ``"UTC"`` or ``"Europe/Berlin"``.

    Returns:
        The zone. UTC needs no time zone data, which slim images lack.

    Raises:
        ValueError: if this machine knows no such zone; it continues "expected time_zone to be ...".
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError("UTC, or a time zone that this machine knows, such as Europe/Berlin") from None


def _field(text: str, name: str, low: int, high: int, names: Sequence[str] = ()) -> Field:
    """Read one field: a list of numbers, names, ranges and steps."""
    values: set[int] = set()
    star = False
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, name, part) if slash else 1
        if step == 0:
            raise ValueError(f"{name} with a step above 0, and not {part!r}")
        first, dash, last = span.partition("-")
        if first in {"*", "?"} and not dash:
            start, end = low, high
            star = True
        else:
            start = _number(first, name, part, low, names)
            end = _number(last, name, part, low, names) if dash else high if slash else start
        if not low <= start <= end <= high:
            sunday = "; Kubeflow writes Sunday as 0 or SUN" if high == 6 and 7 in (start, end) else ""
            raise ValueError(f"{name} from {low} to {high}, smaller first, and not {part!r}{sunday}")
        values.update(range(start, end + 1, step))
    return Field(frozenset(values), star)


def _number(text: str, name: str, part: str, low: int = 0, names: Sequence[str] = ()) -> int:
    """A number, or the first three letters of a day or month."""
    short = [one[:3].lower() for one in names]
    if text.lower() in short:
        return low + short.index(text.lower())
    if not (text.isascii() and text.isdigit()):
        known = f" or {', '.join(one.upper() for one in short)}" if short else ""
        raise ValueError(f"numbers, ranges, lists and steps{known} in the field {name}, and not {part!r}")
    return int(text)


def _weekdays(numbers: Sequence[int]) -> str:
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"day from {DAYS[numbers[0]]} to {DAYS[numbers[-1]]}"
    return _joined(_names(numbers))


def _names(numbers: Sequence[int]) -> list[str]:
    return [DAYS[number] for number in numbers]


def _joined(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
