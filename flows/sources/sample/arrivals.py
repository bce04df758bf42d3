"""What arrives when: each week's reports, and the late, restated, emptied and repeated ones."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import count, islice
from typing import NamedTuple

import numpy as np

from flows.sources.deliveries import DeliveryFormat, PeriodType, ReportView
from flows.sources.marketplaces import Marketplace
from flows.sources.sample import formats
from flows.sources.sample.market import (
    ROWS_PER_ASIN,
    Market,
    MarketRows,
    Period,
    brand_rows,
    make_market,
    reported,
    restated,
)
from flows.sources.sample.words import LONG_QUERY

ASINS_PER_REPORT = 8
DAYS_UNTIL_DELIVERY = timedelta(days=3)
DAY, WEEK = timedelta(days=1), timedelta(days=7)


class Occasion(StrEnum):
    """Why a delivery came on its day."""

    ON_TIME = "on time"
    LATE = "late"
    RESTATED = "restated"
    REPEATED = "repeated"


class Arrival(NamedTuple):
    """The day on which a delivery comes, and why then."""

    day: date
    occasion: Occasion


@dataclass(frozen=True)
class SampleDelivery:
    """One delivery to be written: its files by name (the shards of one export, or one file).

    `asked` are the positions of the ASINs that it speaks for (0 for the brand): one without rows
    is emptied.
    """

    arrival: Arrival
    delivery_format: DeliveryFormat
    report_view: ReportView
    rows: MarketRows
    asked: frozenset[int]
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Plan:
    """What a sample is to hold: `asins` products, sold in each marketplace for `weeks` weeks."""

    asins: int
    weeks: int
    queries: int
    seed: int
    marketplaces: tuple[Marketplace, ...]
    last_week: date

    @cached_property
    def markets(self) -> list[Market]:
        """One market a marketplace, in which two queries in five find an ASIN."""
        finding = min(ROWS_PER_ASIN, self.queries * 2 // 5)
        return [
            make_market(
                marketplace,
                asins=self.asins,
                queries=self.queries,
                links=self.asins * finding,
                seed=self.seed,
            )
            for marketplace in self.marketplaces
        ]

    def week(self, index: int) -> Period:
        """The week at `index`, 0 being the first."""
        sunday = self.last_week - (self.weeks - 1 - index) * WEEK
        return Period.around(PeriodType.WEEK, sunday)

    def arrival(self, index: int) -> date:
        """The day on which the week at `index` is delivered; no delivery is later than the last."""
        return self.week(min(index, self.weeks - 1)).end + DAYS_UNTIL_DELIVERY


Sender = Callable[[MarketRows, list[int], Arrival, Iterator[int]], Iterator[SampleDelivery]]
"""Packs the rows of the ASINs at some positions; the numbers keep file names apart."""


def weekly_deliveries(plan: Plan, index: int) -> list[SampleDelivery]:
    """Every delivery of one week's rows, whenever it arrives.

    The first marketplace sends reports of the SP-API, the second downloads from Seller Central,
    the third exports of the flat table; then from the beginning.
    """
    deliveries: list[SampleDelivery] = []
    for position, market in enumerate(plan.markets):
        rows = reported(market.rows(plan.week(index)))
        if position == 0 and index == plan.weeks - 1:
            rows = _with_long_query(rows)
        deliveries += _deliveries_of_market(plan, rows, index, SENDERS[position % len(SENDERS)])
    if index == 0 and plan.weeks > 1:
        deliveries += _repeated(deliveries, plan.arrival(1))
    return deliveries


def native_deliveries(plan: Plan) -> list[SampleDelivery]:
    """The first marketplace's own MONTH and QUARTER reports: near the sums of its weeks, no more.

    Of each the periods that lie within the weeks; without one, the last that was over in time.
    """
    deliveries: list[SampleDelivery] = []
    numbers = count(1)
    for period_type in (PeriodType.MONTH, PeriodType.QUARTER):
        for period in _periods_over(plan, period_type):
            ready = period.end + DAYS_UNTIL_DELIVERY
            arrivals = (plan.arrival(index) for index in range(plan.weeks))
            arrival = Arrival(min(day for day in arrivals if day >= ready), Occasion.ON_TIME)
            rows = reported(plan.markets[0].rows(period))
            deliveries += _reports(rows, list(range(plan.asins)), arrival, numbers)
    return deliveries


def _periods_over(plan: Plan, period_type: PeriodType) -> list[Period]:
    """The periods of this type within the weeks, or the last one before their end."""
    beyond = Period.around(period_type, plan.week(plan.weeks - 1).end + DAY)
    periods = [Period.around(period_type, beyond.start - DAY)]
    while (earlier := Period.around(period_type, periods[0].start - DAY)).start >= plan.week(
        0
    ).start:
        periods.insert(0, earlier)
    return periods


def _deliveries_of_market(
    plan: Plan, rows: MarketRows, index: int, send: Sender
) -> Iterator[SampleDelivery]:
    """A week of a marketplace: what came on time, what came late, and what came again.

    Some ASINs of every week but the last are late, others restated, each by one to three weeks.
    In the first week a report asks for an ASIN that had rows, and holds none of it.
    """
    draw = rows.market.draws("fates", rows.period.start)
    order = draw.permutation(plan.asins).tolist() if index < plan.weeks - 1 else []
    late, rest = _split(order, max(len(order) // 20, len(order) > 2))
    changed, rest = _split(rest, -(-len(order) // 10))
    emptied = rest[:1] if index == 0 and send is _reports else []
    late_on = plan.arrival(index + int(draw.integers(1, 3)))
    changed_on = plan.arrival(index + int(draw.integers(1, 4)))

    numbers = count(1)
    punctual = [asin for asin in range(plan.asins) if asin not in late]
    yield from send(rows, punctual, Arrival(plan.arrival(index), Occasion.ON_TIME), numbers)
    yield from send(rows, late, Arrival(late_on, Occasion.LATE), numbers)
    again = restated(rows.of_asins(changed))
    yield from send(again, changed + emptied, Arrival(changed_on, Occasion.RESTATED), numbers)


def _split(positions: list[int], length: int) -> tuple[list[int], list[int]]:
    return sorted(positions[:length]), positions[length:]


def _repeated(deliveries: list[SampleDelivery], day: date) -> list[SampleDelivery]:
    """The first delivery of which nothing is restated, once more, on another day."""
    moved = {
        slice_
        for delivery in deliveries
        if delivery.arrival.occasion is Occasion.RESTATED
        for slice_ in _slices(delivery)
    }
    unmoved = (
        replace(delivery, arrival=Arrival(day, Occasion.REPEATED))
        for delivery in deliveries
        if delivery.arrival.occasion is Occasion.ON_TIME and not moved & _slices(delivery)
    )
    return list(islice(unmoved, 1))


def _slices(delivery: SampleDelivery) -> set[tuple[Marketplace, ReportView, int]]:
    return {
        (delivery.rows.market.marketplace, delivery.report_view, asin) for asin in delivery.asked
    }


def _with_long_query(rows: MarketRows) -> MarketRows:
    """The rows with the last query of the first ASIN replaced by one of 6,000 characters."""
    market = replace(rows.market, queries=(*rows.market.queries, LONG_QUERY))
    query = rows["query"].copy()
    query[np.flatnonzero(rows["asin"] == rows["asin"][0])[-1]] = len(market.queries) - 1
    return replace(rows, market=market, columns={**rows.columns, "query": query})


def _reports(
    rows: MarketRows, positions: list[int], arrival: Arrival, numbers: Iterator[int]
) -> Iterator[SampleDelivery]:
    """SP-API reports of some ASINs each, in turn plain and compressed."""
    products, period = rows.market.products, rows.period
    country = rows.market.marketplace.country_code
    for start in range(0, len(positions), ASINS_PER_REPORT):
        asked = positions[start : start + ASINS_PER_REPORT]
        number = next(numbers)
        compressed = number % 2 == 0
        report = formats.report_json(
            rows.of_asins(asked),
            [products[position].asin for position in asked],
            omits_missing_prices=compressed,
        )
        name = f"{country}_search_query_performance_{period.period_type}_{period.start}_{number}"
        yield SampleDelivery(
            arrival,
            DeliveryFormat.SP_API_JSON,
            ReportView.ASIN,
            rows.of_asins(asked),
            frozenset(asked),
            {f"{name}.json.gz": gzip.compress(report, mtime=0)}
            if compressed
            else {f"{name}.json": report},
        )


def _downloads(
    rows: MarketRows, positions: list[int], arrival: Arrival, _numbers: Iterator[int]
) -> Iterator[SampleDelivery]:
    """Seller Central downloads, one an ASIN in a folder of its own; on time also the Brand View."""
    weeks = rows.period.start.toordinal() // 7
    parcels = [
        (
            ReportView.ASIN,
            frozenset([position]),
            rows.of_asins([position]),
            f"{rows.market.products[position].asin}/",
            formats.CSV_LAYOUTS[(position + weeks) % len(formats.CSV_LAYOUTS)],
        )
        for position in positions
    ]
    if arrival.occasion is Occasion.ON_TIME:
        brand = (ReportView.BRAND, frozenset([0]), brand_rows(rows), "")
        parcels.append((*brand, formats.CSV_LAYOUTS[weeks % 2]))
    for view, asked, some, folder, layout in parcels:
        if len(some):
            name = f"{folder}{_download_name(some, view)}"
            yield SampleDelivery(
                arrival,
                DeliveryFormat.SELLER_CENTRAL_CSV,
                view,
                some,
                asked,
                {name: formats.seller_central_csv(some, view, layout)},
            )


def _download_name(rows: MarketRows, view: ReportView) -> str:
    country = rows.market.marketplace.country_code
    shown = "Brand" if view is ReportView.BRAND else "ASIN"
    kind, end = rows.period.period_type.title(), rows.period.end.strftime("%Y_%m_%d")
    return f"{country}_Search_Query_Performance_{shown}_View_Comprehensive_{kind}_{end}.csv"


def _exports(
    rows: MarketRows, positions: list[int], arrival: Arrival, numbers: Iterator[int]
) -> Iterator[SampleDelivery]:
    """Exports of the flat table: one week as two shards of CSV, the next as Parquet."""
    country, start = rows.market.marketplace.country_code, rows.period.start
    some = rows.of_asins(positions)
    if not len(some):
        return
    stem = f"{country}_seller-search_query_performance_{start:%Y%m%d}_{next(numbers)}"
    table = formats.flat_table(some)
    half = len(table) // 2
    if start.toordinal() // 7 % 2:
        as_parquet = {f"{stem}-{0:012d}.parquet": formats.flat_parquet(table)}
        export = (DeliveryFormat.FLAT_PARQUET, as_parquet)
    else:
        shards = (table.slice(0, half), table.slice(half))
        names = [f"{stem}-{shard:012d}.csv" for shard in range(len(shards))]
        as_csv = dict(zip(names, map(formats.flat_csv, shards), strict=True))
        export = (DeliveryFormat.FLAT_CSV, as_csv)
    kind, files = export
    yield SampleDelivery(arrival, kind, ReportView.ASIN, some, frozenset(positions), files)


SENDERS: tuple[Sender, ...] = (_reports, _downloads, _exports)
