"""A folder of synthetic deliveries, as a year's worth of real ones would lie there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain
from pathlib import Path

from flows.errors import UsageError
from flows.sources.deliveries import DeliveryFormat, PeriodType
from flows.sources.marketplaces import Marketplace, all_marketplaces, find_marketplace
from flows.sources.periods import period_around
from flows.sources.sample.arrivals import (
    Occasion,
    Plan,
    SampleDelivery,
    native_deliveries,
    weekly_deliveries,
)

DEFAULT_ASINS = 20
DEFAULT_WEEKS = 10
DEFAULT_QUERIES = 120
DEFAULT_SEED = 2026
DEFAULT_MARKETPLACES = ("US", "UK", "DE")
DEFAULT_LAST_WEEK = date(2026, 11, 8)

MOST_ASINS, MOST_WEEKS = 99_999, 520
FEWEST_QUERIES, MOST_QUERIES = 10, 1_000_000
README = "README.md"


@dataclass(frozen=True)
class SampleSummary:
    """What was written.

    Attributes:
        files: without the README.
        deliveries: the shards of one export are one delivery.
        rows: in all files, restated and repeated ones included.
        late, restated, emptied, repeated: how many slices came late, came again with other
            numbers, came again without rows, came again as they were.
        formats: how many files of each format.
    """

    folder: Path
    files: int
    deliveries: int
    rows: int
    weeks: int
    marketplaces: tuple[str, ...]
    late: int
    restated: int
    emptied: int
    repeated: int
    formats: Mapping[DeliveryFormat, int]


def write_sample(
    folder: Path,
    *,
    asins: int = DEFAULT_ASINS,
    weeks: int = DEFAULT_WEEKS,
    queries: int = DEFAULT_QUERIES,
    seed: int = DEFAULT_SEED,
    marketplaces: Sequence[str] = DEFAULT_MARKETPLACES,
    last_week: date = DEFAULT_LAST_WEEK,
    on_progress: Callable[[int, int], None] | None = None,
) -> SampleSummary:
    """Write synthetic deliveries into `folder`, one folder of it for each day of delivery.

    Each marketplace has the same `asins` products and `queries` queries of its own, and about
    asins × weeks × 0.36 queries rows. The same arguments write the same files, bytes and
    modification times alike (compressed files depend on zlib's and pyarrow's versions, too).
    A modification time is the moment of delivery.

    Args:
        last_week: the Sunday on which the last week starts.
        on_progress: called with the steps done and the steps in all.

    Raises:
        UsageError: an argument is out of range, or `folder` holds something else.
    """
    plan = _plan(asins, weeks, queries, seed, marketplaces, last_week)
    _claim(folder, plan)
    files: Counter[DeliveryFormat] = Counter()
    slices: Counter[Occasion | str] = Counter()
    deliveries = rows = 0
    sent: Counter[date] = Counter()
    for delivery in plan_deliveries(plan, on_progress):
        day = delivery.arrival.day
        for name, content in delivery.files.items():
            _write(folder / f"delivered={day}" / name, content, _moment(day, sent[day]))
        sent[day] += 1
        emptied = len(delivery.asked - set(delivery.rows["asin"].tolist()))
        slices[delivery.arrival.occasion] += len(delivery.asked) - emptied
        slices["emptied"] += emptied
        files[delivery.delivery_format] += len(delivery.files)
        deliveries += 1
        rows += len(delivery.rows)
    return SampleSummary(
        folder=folder,
        files=files.total(),
        deliveries=deliveries,
        rows=rows,
        weeks=weeks,
        marketplaces=tuple(place.country_code for place in plan.marketplaces),
        late=slices[Occasion.LATE],
        restated=slices[Occasion.RESTATED],
        emptied=slices["emptied"],
        repeated=slices[Occasion.REPEATED],
        formats=dict(files),
    )


def plan_deliveries(
    plan: Plan, on_progress: Callable[[int, int], None] | None = None
) -> Iterator[SampleDelivery]:
    """Every delivery of a sample, in the order in which they are made (not: arrive)."""
    steps = plan.weeks + 1
    weekly = (weekly_deliveries(plan, index) for index in range(plan.weeks))
    native = (native_deliveries(plan) for _ in range(1))
    for done, deliveries in enumerate(chain(weekly, native), start=1):
        yield from deliveries
        if on_progress is not None:
            on_progress(done, steps)


def _plan(
    asins: int,
    weeks: int,
    queries: int,
    seed: int,
    marketplaces: Sequence[str],
    last_week: date,
) -> Plan:
    """The arguments, checked."""
    for name, value, least, most in (
        ("asins", asins, 1, MOST_ASINS),
        ("weeks", weeks, 1, MOST_WEEKS),
        ("queries", queries, FEWEST_QUERIES, MOST_QUERIES),
    ):
        if not least <= value <= most:
            raise UsageError(
                "No sample was written",
                f"{name} is {value}",
                f"choose {name} between {least:,} and {most:,}",
            )
    if period_around(PeriodType.WEEK, last_week)[0] != last_week:
        raise UsageError(
            "No sample was written",
            f"the last week would start on {last_week}, a {last_week:%A}",
            "choose a Sunday: weeks run from Sunday to Saturday",
        )
    places = [_marketplace(name) for name in marketplaces]
    if not places or len(set(places)) < len(places):
        raise UsageError(
            "No sample was written",
            f"the marketplaces are {', '.join(marketplaces) or 'none'}",
            "name at least one marketplace, and each only once",
        )
    return Plan(asins, weeks, queries, seed, tuple(places), last_week)


def _marketplace(name: str) -> Marketplace:
    found = find_marketplace(name)
    if found is None:
        known = ", ".join(place.country_code for place in all_marketplaces())
        raise UsageError(
            "No sample was written", f"no marketplace is called {name}", f"use {known}"
        )
    return found


def _readme(plan: Plan) -> bytes:
    """What the folder says about itself; it differs whenever an argument does."""
    places = ", ".join(place.country_code for place in plan.marketplaces)
    return (
        "# Synthetic data\n"
        "\n"
        "Made by a program: no real seller, shopper or product is in it.\n"
        "Search query performance reports as they would be delivered, one folder for each day of\n"
        "delivery; the modification time of a file is the moment at which it arrived.\n"
        "\n"
        f"    warehouse sample THIS_FOLDER --asins {plan.asins} --weeks {plan.weeks}"
        f" --queries {plan.queries} --seed {plan.seed}\n"
        "\n"
        f"Marketplaces: {places}. Last week: {plan.last_week} to {plan.week(plan.weeks - 1).end}.\n"
        "The same command writes the same files again and touches nothing else in here.\n"
    ).encode()


def _claim(folder: Path, plan: Plan) -> None:
    """Make the folder ours by its README, unless something else is in it."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} cannot hold a sample", "it is a file", "name a folder")
    label, readme = folder / README, _readme(plan)
    if folder.is_dir() and any(folder.iterdir()):
        if not label.is_file():
            raise UsageError(
                f"{folder} cannot hold a sample",
                "other files are in it",
                "name a new or an empty folder",
            )
        if label.read_bytes() != readme:
            raise UsageError(
                f"{folder} cannot hold this sample",
                f"another one is in it, as its {README} says",
                "remove that folder or name another one",
            )
    _write(label, readme, _moment(plan.arrival(plan.weeks - 1), 0))


def _moment(day: date, number: int) -> datetime:
    """When the delivery of this number (from 0) arrived: one a second from five o'clock UTC."""
    return datetime.combine(day, time(5, tzinfo=UTC)) + timedelta(seconds=number)


def _write(path: Path, content: bytes, arrived_at: datetime) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (arrived_at.timestamp(), arrived_at.timestamp()))
