"""Cron expressions: which are accepted, their descriptions, and their dates against a search minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cxr.kubeflow.cron import find_time_zone, parse_cron

BERLIN = find_time_zone("Europe/Berlin")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("0 0 2 * * MON", "At 02:00, only on Monday (UTC)"),
        ("0 0 2 ? * 1", "At 02:00, only on Monday (UTC)"),
        ("15 30 2 * * *", "At 02:30, at second 15 (UTC)"),
        ("0 0 2,14 * * mon,THU", "At 02:00 and 14:00, only on Monday and Thursday (UTC)"),
        ("0 0 6 * * MON-FRI", "At 06:00, Monday through Friday (UTC)"),
        ("0 0 2 1,15 * *", "At 02:00, on day 1 and 15 of the month (UTC)"),
        ("0 0 2 1 JAN,jul ?", "At 02:00, on day 1 of the month, only in January and July (UTC)"),
        ("0 0 2 13 * FRI", "At 02:00, on day 13 of the month, and also on Friday (UTC)"),
        ("0 0 2 */10 * FRI", "At 02:00, on day 1, 11, 21, and 31 of the month, but only on Friday (UTC)"),
        ("0 0 2 13 * 0-6", "At 02:00 (UTC)"),
        ("0 */20 * * * *", "At 0, 20, and 40 minutes past the hour (UTC)"),
        ("0 10/20 8 * * *", "At 10, 30, and 50 minutes past the hour, at 08:00 (UTC)"),
        ("0 */5 * * * *", "Every 5 minutes (UTC)"),
        ("0 0 */25 * * *", "At 00:00 (UTC)"),
        ("5 * 8-17/3 * * *", "Every minute, at 08:00, 11:00, 14:00, and 17:00, at second 5 (UTC)"),
    ],
)
def test_a_schedule_is_described(text, description):
    cron = parse_cron(text)
    assert cron.describe("UTC") == description
    assert cron.note == ""


def test_five_fields_of_crontab_become_six_with_a_note():
    cron = parse_cron(" 0 2 * *  1 ")
    assert cron.expression == "0 0 2 * * 1"
    assert "0 2 * * 1 has five fields: read as 0 0 2 * * 1" in cron.note
    assert cron.describe("UTC") == "At 02:00, only on Monday (UTC)"


def test_macros_are_expanded():
    cron = parse_cron("@weekly")
    assert (cron.expression, cron.note) == ("0 0 0 * * 0", "@weekly is 0 0 0 * * 0")
    assert cron.describe("UTC") == "At 00:00, only on Sunday (UTC)"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "six fields"),
        ("0 2 * *", "six fields"),
        ("0 0 2 * * MON 2026", "six fields"),
        ("@every 1h", "six fields"),
        ("0 60 2 * * *", "minute from 0 to 59"),
        ("0 0 24 * * *", "hour from 0 to 23"),
        ("0 0 2 0 * *", "day of month from 1 to 31"),
        ("0 0 2 * 13 *", "month from 1 to 12"),
        ("0 0 2 * * 7", "Sunday as 0 or SUN"),
        ("0 0 2 * * FRI-MON", "smaller first"),
        ("0 0 2 * * monday", "SUN, MON"),
        ("0 0 2 L * *", "field day of month"),
        ("0 0 */0 * * *", "a step above 0"),
        ("0 0 2, * * *", "field hour"),
        ("0 0 -2 * * *", "field hour"),
        ("0 0 ² * * *", "field hour"),
        ("* 0 2 * * MON", "starts 60 runs within a minute"),
        ("0 0 2 30 2 *", "a date that comes"),
    ],
)
def test_expressions_that_kubeflow_would_refuse_or_misread_are_refused(text, part):
    with pytest.raises(ValueError, match=part):
        parse_cron(text)


def test_unknown_time_zone_is_refused():
    with pytest.raises(ValueError, match="Europe/Berlin"):
        find_time_zone("Mars")


def matcher(text):
    """Say of a time whether an expression matches it; independent of the module: one number at a time."""
    fields = text.split()
    names = {
        3: {},
        4: dict(zip(MONTHS, range(1, 13), strict=True)),
        5: dict(zip(DAYS, range(7), strict=True)),
    }

    def fits(position, number, largest):
        for part in fields[position].split(","):
            body, _, step = part.partition("/")
            low, dash, high = body.partition("-")
            known = names.get(position, {})
            if body in "*?":
                first, last = (1 if position in {3, 4} else 0), largest
            else:
                first = known[low] if low in known else int(low)
                last = (known[high] if high in known else int(high)) if dash else (largest if step else first)
            if first <= number <= last and (number - first) % int(step or 1) == 0:
                return True
        return False

    def fitting(position, largest):
        return {number for number in range(largest + 1) if fits(position, number, largest)}

    minutes, hours, month_days = fitting(1, 59), fitting(2, 23), fitting(3, 31)
    months, week_days = fitting(4, 12), fitting(5, 6)
    star = any(mark in fields[3] + fields[5] for mark in "*?")

    def matches(moment):
        clock = moment.minute in minutes and moment.hour in hours and moment.month in months
        month_day, week_day = moment.day in month_days, moment.isoweekday() % 7 in week_days
        return clock and (month_day and week_day if star else month_day or week_day)

    return matches


def part(low, high, names=()):
    """One element of a field."""
    number = st.integers(low, high)
    spelled = st.one_of(number.map(str), *([st.sampled_from(names)] if names else []))
    span = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    return st.one_of(
        st.just("*"),
        spelled,
        span,
        st.tuples(st.one_of(st.just("*"), span, number.map(str)), st.integers(1, 9)).map("{0[0]}/{0[1]}".format),
    )


def field(low, high, names=()):
    return st.lists(part(low, high, names), min_size=1, max_size=3).map(",".join)


expressions = st.tuples(
    st.just("0"),
    field(0, 59),
    field(0, 23),
    field(1, 28),
    st.sampled_from(["*", "3", "10-11", "*/2", "MAR,OCT", "2-12/4"]),
    field(0, 6, ("SUN", "WED", "SAT")),
).map(" ".join)
starts = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))


@settings(max_examples=25, deadline=None)
@example("0 * * * * *", datetime(2027, 10, 28, 0, 1, tzinfo=UTC), BERLIN)  # ends in the hour that occurs twice
@given(expressions, starts, st.sampled_from([UTC, BERLIN]))
def test_dates_are_those_of_a_search_minute_by_minute(text, start, zone):
    minutes = 3 * 24 * 60
    first = start.replace(second=0, microsecond=0)
    every = [first + timedelta(minutes=count) for count in range(minutes)]
    matches = matcher(text)
    expected = [time for time in every if time > start and matches(time.astimezone(zone))]
    cron = parse_cron(text)
    dates = []
    for date in cron.dates(start, zone):
        if date > every[-1] or len(dates) > len(expected):
            break
        dates.append(date)
    assert [date.astimezone(UTC) for date in dates] == expected
    if expected:  # in UTC: a time that the clock shows twice equals no time of another zone
        assert cron.last(every[-1], zone).astimezone(UTC) == expected[-1]
        assert cron.last(expected[0], zone).astimezone(UTC) == expected[0]


def test_an_hour_that_the_clock_skips_has_no_run_and_one_that_occurs_twice_has_two():
    cron = parse_cron("0 30 2 * * *")
    spring = list(islice(cron.dates(datetime(2026, 3, 28, 12, tzinfo=UTC), BERLIN), 2))
    assert [date.day for date in spring] == [30, 31], "the clock goes from 02:00 to 03:00 on the 29th"
    autumn = list(islice(cron.dates(datetime(2026, 10, 24, 12, tzinfo=UTC), BERLIN), 3))
    assert [date.astimezone(UTC).strftime("%d %H:%M") for date in autumn] == ["25 00:30", "25 01:30", "26 01:30"]


def test_dates_have_the_second_of_the_expression():
    start = datetime(2026, 11, 21, 12, 0, 10, tzinfo=UTC)
    assert next(parse_cron("15 * * * * *").dates(start, UTC)) == datetime(2026, 11, 21, 12, 0, 15, tzinfo=UTC)
    assert parse_cron("15 * * * * *").last(start, UTC) == datetime(2026, 11, 21, 11, 59, 15, tzinfo=UTC)


def test_leap_days_are_found_years_ahead():
    cron = parse_cron("0 0 0 29 2 *")
    assert next(cron.dates(datetime(2026, 1, 1, tzinfo=UTC), UTC)) == datetime(2028, 2, 29, tzinfo=UTC)
    assert cron.last(datetime(2026, 1, 1, tzinfo=UTC), UTC) == datetime(2024, 2, 29, tzinfo=UTC)
