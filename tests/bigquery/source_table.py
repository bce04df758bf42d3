"""The flat table as it lies in BigQuery, filled with rows that follow from a few numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg

from flows.settings import get_settings
from flows.sources.bigquery import (
    Comparison,
    compare,
    source_of,
)
from flows.sources.bigquery_client import BigQuery, connect_bigquery
from flows.sources.bigquery_contract import contract
from flows.sources.bigquery_request import BigQueryRequest
from flows.sources.deliveries import PeriodType
from flows.sources.read import read_delivery
from flows.sync_sqp import remember
from flows.warehouse.bigquery_slices import LoadedSlices
from flows.warehouse.landing import Landing
from flows.warehouse.run_log import SyncType, leased_run
from flows.warehouse.slice_register import accept_and_hold
from flows.warehouse.spool import Spool
from flows.warehouse.tally import Tally
from tests.bigquery.engine import DATASET, PROJECT, Engine
from tests.integration.deliveries import MARKETPLACE

NAME = "seller-search_query_performance"
TABLE = f"`{PROJECT}.{DATASET}.{NAME}`"
TODAY = date(2026, 11, 24)
SUNDAY = date(2026, 11, 15)
"""The newest week; week 1 is the one before it."""

CLIENT = "Acme"


def sunday(weeks_ago: int) -> date:
    return SUNDAY - timedelta(weeks=weeks_ago)


def create(
    engine: Engine,
    *,
    date_type: str = "DATE",
    number: str = "INT64",
    partition_by: str | None = None,
) -> None:
    """The table, empty, its numbers of one kind."""
    columns = []
    for name, types in contract().items():
        kind = date_type if name == "Date" else types[0]
        if kind == "FLOAT64" and number != "INT64":
            kind = number
        if kind == "INT64":
            kind = number
        columns.append(f"`{name}` {kind}")
    parts = f" partition by {partition_by}" if partition_by else ""
    engine.sql(f"create or replace table {TABLE} ({', '.join(columns)}){parts}")


def row(asin: str, query: str, impressions: int, day: date, client: str = CLIENT) -> dict[str, Any]:
    """One row whose counts follow from the impressions; shares and rates are percent."""
    total = 10 * impressions + 7
    cells: dict[str, Any] = {
        "Date": day,
        "Parent ASIN": None,
        "Child ASIN": asin,
        "Product Name": "A thing",
        "Client Name": client,
        "Search Query": query,
        "Search Query Score": 1 + impressions % 9,
        "Search Query Volume": 2 * total,
        "Total Query Impression Count": total,
        "ASIN Impression Count": impressions,
        "ASIN Impression Share": round(100 * impressions / total, 2),
    }
    for stage, part in (("Click", 2), ("Cart Add", 4), ("Purchase", 8)):
        cells[f"Total {stage} Count"] = total // part
        cells[f"Total {stage} Rate"] = round(100 * (total // part) / (2 * total), 2)
        cells[f"ASIN {stage} Count"] = impressions // part
        cells[f"ASIN {stage} Share"] = round(100 * (impressions // part) / (total // part), 2)
        cells[f"Total Median {stage} Price Amount"] = 19.99
        cells[f"ASIN Median {stage} Price Amount"] = 18.5 if impressions // part else None
        for speed in ("Same", "One", "Two"):
            cells[f"Total {speed} Day Shipping {stage} Count"] = total // 20
    return cells


def rows_of(asin: str, weeks_ago: int, count: int, base: int = 40) -> list[dict[str, Any]]:
    """A slice of `count` queries."""
    return [row(asin, f"query {n}", base + n, sunday(weeks_ago)) for n in range(count)]


def insert(engine: Engine, rows: Sequence[dict[str, Any]]) -> None:
    names = ", ".join(f"`{name}`" for name in contract())
    values = ",\n".join(f"({', '.join(map(_literal, each.values()))})" for each in rows)
    engine.sql(f"insert into {TABLE} ({names}) values {values}")


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    return f"'{value}'" if isinstance(value, (str, date)) else str(value)


def change(engine: Engine, statement: str) -> None:
    """A statement about the table, which it calls `{table}`."""
    engine.sql(statement.format(table=TABLE))


@contextmanager
def compared(
    request: BigQueryRequest | None = None, client: BigQuery | None = None
) -> Iterator[tuple[Any, Comparison]]:
    """A run, and what it finds in the table."""
    request = request or BigQueryRequest()
    client = client or connect_bigquery(get_settings())
    with leased_run() as run:
        source = source_of(client, request.account)
        loaded = LoadedSlices(run.connection, source, MARKETPLACE)
        yield run, compare(client, request, loaded, get_settings(), today=TODAY)


@dataclass
class Extracted:
    """What one extraction came to."""

    comparison: Comparison
    tally: Tally
    metadata: dict[str, Any]


def extract(request: BigQueryRequest | None = None, client: BigQuery | None = None) -> Extracted:
    """Compare, read, land, remember and accept, as the flow does, without checks and dbt."""
    with compared(request, client) as (run, comparison), tempfile.TemporaryDirectory() as folder:
        delivery = comparison.delivery()
        run.begin([SyncType.WEEKLY], source=comparison.bigquery.table)
        spool = Spool(Path(folder))
        landing = Landing(run.connection, [delivery], run.load_ids(), spool)
        spool.declare(delivery, 0)
        for batch in read_delivery(delivery):
            spool.add(delivery, 0, batch.rows)
            landing.refuse(0, batch.rejected)
        landing.land(set())
        remember(run, comparison)
        accept_and_hold(run.connection, {})
        run.complete()
        return Extracted(comparison, landing.tallies[PeriodType.WEEK], comparison.metadata)


def in_force(warehouse: psycopg.Connection[Any]) -> dict[tuple[str, str], list[tuple[str, int]]]:
    """Of each slice in force its rows: query and own impressions."""
    found: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for subject, start, query, impressions in warehouse.execute(
        """
        select slices.subject, slices.period_start::text, stored.query,
            stored.asin_impression_count
        from landing.sqp_slices as slices
        left join landing.sqp_asin as stored
            on stored.slice_id = slices.slice_id and stored.load_id = slices.accepted_load_id
        order by 1, 2, 3
        """
    ):
        rows = found.setdefault((subject, start), [])
        if query is not None:
            rows.append((query, impressions))
    return found


def asked_for_rows(engine: Engine) -> list[str]:
    """The conditions of the reads since faults were planned last."""
    return [each.removeprefix("restriction ") for each in engine.asked() if "restriction" in each]
