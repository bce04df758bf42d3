"""Periods: exact weeks, months and quarters, and dates as spreadsheets rewrite them."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.sources.deliveries import PeriodType
from flows.sources.periods import period_around, period_fault, possible_days

days = st.dates(date(2000, 1, 10), date(2100, 9, 30))
kinds = st.sampled_from(PeriodType)


@given(kinds, days)
def test_periods_tile_the_calendar(kind, day):
    start, end = period_around(kind, day)
    assert start <= day <= end
    assert period_around(kind, start) == period_around(kind, end) == (start, end)
    assert period_around(kind, end + timedelta(days=1))[0] == end + timedelta(days=1)


@given(kinds, days)
def test_periods_begin_where_amazon_says(kind, day):
    start, end = period_around(kind, day)
    if kind is PeriodType.WEEK:
        assert (f"{start:%a}", f"{end:%a}", (end - start).days) == ("Sun", "Sat", 6)
    else:
        assert start.day == 1
        assert (end + timedelta(days=1)).day == 1
        assert (end.month - start.month) == (0 if kind is PeriodType.MONTH else 2)
    if kind is PeriodType.QUARTER:
        assert start.month in (1, 4, 7, 10)


@given(kinds, days, st.integers(-8, 8), st.integers(-8, 8))
def test_only_exact_bounds_are_a_period(kind, day, early, late):
    start, end = period_around(kind, day)
    fault = period_fault(kind, start + timedelta(days=early), end + timedelta(days=late))
    exact = early == late == 0 or (kind is PeriodType.WEEK and early == late and early in (-7, 7))
    assert (fault is None) == exact


@pytest.mark.parametrize("year", [1, 1999, 2101, 9999])
def test_impossible_years_are_no_period(year):
    assert "outside the years" in str(period_fault(PeriodType.WEEK, date(year, 1, 1), date.max))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-07", [date(2026, 11, 7)]),
        (" 2026-11-07T00:00:00 ", [date(2026, 11, 7)]),
        ("2026-11-07 00:00:00 UTC", [date(2026, 11, 7)]),
        ("2026/11/7", [date(2026, 11, 7)]),
        ("11/7/2026", [date(2026, 11, 7), date(2026, 7, 11)]),
        ("13/11/2026", [date(2026, 11, 13)]),
        ("7.11.2026", [date(2026, 11, 7)]),
        ("1/1/2026", [date(2026, 1, 1)]),
        ("2026-02-30", []),
        ("20261107", []),
        ("yesterday", []),
        ("", []),
    ],
)
def test_written_dates(text, meant):
    assert list(possible_days(text)) == meant
