"""How numbers are written for people, each kind once: `2.6 %`, `29,355`, `2026-11-27 01:07 UTC`.

Inside the warehouse a share is a fraction; percent begins here.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import isfinite

NOTHING = "–"
"""What stands where there is no value."""

Number = int | float | Decimal


def percent_value(fraction: Number | None, digits: int = 1) -> float | None:
    """A fraction in percent, rounded as it is written: 0.026 is 2.6."""
    return None if fraction is None else round(float(fraction) * 100, digits)


def percent(fraction: Number | None, digits: int = 1) -> str | None:
    """A fraction as people read it: 0.026 is 2.6 %."""
    value = percent_value(fraction, digits)
    return None if value is None else f"{value:.{digits}f} %"


def points(fraction: Number | None) -> str | None:
    """A difference of two fractions in percentage points: 0.004 is +0.4 pp."""
    value = percent_value(fraction)
    return None if value is None else f"{value:+.1f} pp"


def deviation(percentage: Number | None) -> str | None:
    """A difference that is in percent already; the smallest one stays visible: 0.00008 %."""
    if percentage is None:
        return None
    if 0 < abs(float(percentage)) < 1:
        return f"{Decimal(f'{percentage:.2g}'):f} %"
    return f"{percentage:,.1f} %"


def count(value: Number | None) -> str | None:
    """A count or a sum with its thousands apart; decimals only where there are some."""
    if value is None:
        return None
    if not isfinite(value):
        return str(value)
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(float(value)) >= 1000 else f"{Decimal(f'{value:.4g}'):f}"


def day(value: date | None) -> str | None:
    """A day: 2026-11-27."""
    return None if value is None else f"{value:%Y-%m-%d}"


def moment(value: datetime | None) -> str | None:
    """A time to the minute, in UTC: 2026-11-27 01:07 UTC."""
    return None if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def duration(value: timedelta | None) -> str | None:
    """How long something took: 42 s, 3 min 5 s, 2 h 10 min."""
    if value is None:
        return None
    seconds = round(value.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
