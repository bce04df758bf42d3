"""Reporting periods: weeks from Sunday to Saturday, calendar months and calendar quarters."""

from __future__ import annotations

import re
from datetime import date, timedelta

from flows.sources.deliveries import PeriodType

FIRST_YEAR, LAST_YEAR = 2000, 2100
"""Dates outside these years are mistakes; Search Query Performance began in 2021."""

_YEAR_FIRST = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:[T ].*)?", re.ASCII | re.DOTALL)
_YEAR_LAST = re.compile(r"(\d{1,2})([/.])(\d{1,2})\2(\d{4})(?:[T ].*)?", re.ASCII | re.DOTALL)


def period_around(period_type: PeriodType, day: date) -> tuple[date, date]:
    """The first and the last day of the period that holds `day`."""
    if period_type is PeriodType.WEEK:
        start = day - timedelta(days=(day.weekday() + 1) % 7)
        return start, start + timedelta(days=6)
    months = 1 if period_type is PeriodType.MONTH else 3
    first_month = (day.month - 1) // months * months + 1
    start = date(day.year, first_month, 1)
    after = date(day.year + (first_month + months > 12), (first_month + months - 1) % 12 + 1, 1)
    return start, after - timedelta(days=1)


def period_fault(period_type: PeriodType, start: date, end: date) -> str | None:
    """Why the days from `start` to `end` are not exactly one period, or None where they are."""
    if not FIRST_YEAR <= start.year <= LAST_YEAR or not FIRST_YEAR <= end.year <= LAST_YEAR:
        return f"{start} to {end} is outside the years {FIRST_YEAR} to {LAST_YEAR}"
    if (start, end) == period_around(period_type, start):
        return None
    shape = {
        PeriodType.WEEK: "one week from Sunday to Saturday",
        PeriodType.MONTH: "one month from its first to its last day",
        PeriodType.QUARTER: "one quarter from its first to its last day",
    }[period_type]
    return f"{start} ({start:%A}) to {end} ({end:%A}) is not {shape}"


def possible_days(text: str) -> tuple[date, ...]:
    """The days that a written date can mean, the likeliest first; none if it is no date.

    Year first (`2026-11-07`, a time of day may follow) has one meaning. What a spreadsheet makes
    of it, `11/7/2026`, is month first or day first; `7.11.2026` is day first. Years that can only
    be a mistake are no date.
    """
    text = text.strip()
    if found := _YEAR_FIRST.fullmatch(text):
        year, month, day = map(int, found.groups())
        return _real_days((year, month, day))
    if found := _YEAR_LAST.fullmatch(text):
        first, second, year = int(found[1]), int(found[3]), int(found[4])
        if found[2] == ".":
            return _real_days((year, second, first))
        return _real_days((year, first, second), (year, second, first))
    return ()


def _real_days(*candidates: tuple[int, int, int]) -> tuple[date, ...]:
    days = []
    for year, month, day in candidates:
        if FIRST_YEAR <= year <= LAST_YEAR and 1 <= month <= 12:
            last = period_around(PeriodType.MONTH, date(year, month, 1))[1]
            if 1 <= day <= last.day:
                days.append(date(year, month, day))
    return tuple(dict.fromkeys(days))
