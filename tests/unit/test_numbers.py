"""Numbers for people: each kind written once, and never a hundred times too large."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import numbers


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.percent(0.026), "2.6 %"),
        (numbers.percent(Decimal("0.026")), "2.6 %"),
        (numbers.percent(0), "0.0 %"),
        (numbers.percent(1.5), "150.0 %"),
        (numbers.percent_value(0.0264), 2.6),
        (numbers.points(Decimal("0.004")), "+0.4 pp"),
        (numbers.points(-0.1), "-10.0 pp"),
        (numbers.deviation(Decimal("0.00008")), "0.00008 %"),
        (numbers.deviation(0), "0.0 %"),
        (numbers.deviation(0.31), "0.31 %"),
        (numbers.deviation(12.345), "12.3 %"),
        (numbers.count(29355), "29,355"),
        (numbers.count(Decimal("29355.000")), "29,355"),
        (numbers.count(0.03951234), "0.03951"),
        (numbers.count(0.00000123), "0.00000123"),
        (numbers.count(-1234567.89), "-1,234,567.9"),
        (numbers.count(Decimal("Infinity")), "Infinity"),
        (numbers.day(date(2026, 11, 7)), "2026-11-07"),
        (
            numbers.moment(datetime(2026, 11, 27, 3, 7, tzinfo=timezone(timedelta(hours=2)))),
            "2026-11-27 01:07 UTC",
        ),
        (numbers.duration(timedelta(seconds=42.4)), "42 s"),
        (numbers.duration(timedelta(seconds=185)), "3 min 5 s"),
        (numbers.duration(timedelta(hours=2, minutes=10)), "2 h 10 min"),
    ],
)
def test_numbers_as_people_read_them(written: object, expected: object) -> None:
    assert written == expected


@pytest.mark.parametrize(
    "kind",
    [
        numbers.percent,
        numbers.percent_value,
        numbers.points,
        numbers.deviation,
        numbers.count,
        numbers.day,
        numbers.moment,
        numbers.duration,
    ],
)
def test_nothing_stays_nothing(kind) -> None:
    assert kind(None) is None


@given(st.floats(min_value=0, max_value=10))
def test_a_percent_is_its_fraction(fraction: float) -> None:
    written = numbers.percent(fraction) or ""
    assert float(written.removesuffix(" %")) == pytest.approx(100 * fraction, abs=0.05 + 1e-9)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_is_to_the_minute(moment: datetime) -> None:
    assert numbers.moment(moment) == f"{moment:%Y-%m-%d %H:%M} UTC"
