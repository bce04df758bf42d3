"""One big delivery of a synthetic market in each format, written fast: for benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq

from flows.errors import UsageError
from flows.sources.deliveries import PeriodType
from flows.sources.marketplaces import find_marketplace
from flows.sources.sample import formats
from flows.sources.sample.folder import DEFAULT_LAST_WEEK
from flows.sources.sample.market import MarketRows, Period, make_market

ASINS_PER_REPORT = 18
"""As many as fit into the 200 characters in which a report is asked for."""


def write_flat_parquet(
    path: Path,
    *,
    rows: int,
    asins: int,
    queries: int,
    seed: int,
    weeks: int = 5,
    marketplace: str = "US",
) -> None:
    """Write exactly `rows` rows of the flat table as one Parquet file, in row groups of 65,536.

    The rows are spread evenly over `weeks` weeks; memory holds one week.

    Raises:
        UsageError: a week would have more rows than there are pairs of ASIN and query, or none.
    """
    writer = None
    for week in _weeks(rows, asins, queries, seed, weeks, marketplace):
        table = formats.flat_table(week)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=formats.ROW_GROUP)
    assert writer is not None
    writer.close()


def write_flat_csv(
    path: Path,
    *,
    rows: int,
    asins: int,
    queries: int,
    seed: int,
    weeks: int = 5,
    marketplace: str = "US",
) -> None:
    """Write the rows of `write_flat_parquet` as one CSV file."""
    with path.open("wb") as file:
        for number, week in enumerate(_weeks(rows, asins, queries, seed, weeks, marketplace)):
            file.write(formats.flat_csv(formats.flat_table(week), with_header=number == 0))


def write_report_json(
    folder: Path,
    *,
    rows: int,
    asins: int,
    queries: int,
    seed: int,
    weeks: int = 5,
    marketplace: str = "US",
) -> list[Path]:
    """Write the rows of `write_flat_parquet` as SP-API reports, and return their paths.

    A report holds one week of 18 ASINs: more cannot be asked for at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for week in _weeks(rows, asins, queries, seed, weeks, marketplace):
        products = week.market.products
        for start in range(0, len(products), ASINS_PER_REPORT):
            asked = list(range(len(products)))[start : start + ASINS_PER_REPORT]
            some = week.of_asins(asked)
            path = folder / f"{week.period.start}_{start:05d}.json"
            path.write_bytes(formats.report_json(some, [products[asin].asin for asin in asked]))
            paths.append(path)
    return paths


def _weeks(
    rows: int, asins: int, queries: int, seed: int, weeks: int, marketplace: str
) -> Iterator[MarketRows]:
    """The weeks' rows, oldest week first; the first ones have the rows that are left over."""
    place = find_marketplace(marketplace)
    if place is None:
        raise UsageError(
            "No rows were written", f"no marketplace is called {marketplace}", "use US"
        )
    if not weeks <= rows <= weeks * asins * queries:
        raise UsageError(
            "No rows were written",
            f"{weeks} weeks of {asins} ASINs and {queries} queries cannot have {rows} rows",
            f"choose between {weeks} and {weeks * asins * queries} rows",
        )
    for index in range(weeks):
        links = rows // weeks + (index < rows % weeks)
        market = make_market(place, asins=asins, queries=queries, links=links, seed=seed)
        sunday = DEFAULT_LAST_WEEK - timedelta(days=7 * (weeks - 1 - index))
        yield market.rows(Period.around(PeriodType.WEEK, sunday))
