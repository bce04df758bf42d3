"""Deliveries made of plain values, for tests that start where the parsers end."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa

from flows.sources.deliveries import (
    ROW_SCHEMA,
    Delivery,
    DeliveryFormat,
    PeriodType,
    RejectedRow,
    RejectReason,
    ReportView,
    SliceKey,
)
from flows.warehouse.landing import Landing
from flows.warehouse.run_log import SyncType, leased_run
from flows.warehouse.slice_register import accept_and_hold
from flows.warehouse.spool import Spool
from flows.warehouse.tally import Tally

MARKETPLACE = "ATVPDKIKX0DER"
SUNDAY = date(2026, 9, 27)


def asin(number: int) -> str:
    return f"B0{number:08}"


@dataclass(frozen=True)
class Slice:
    """One ASIN's week: its rows are query → impressions of the ASIN."""

    asin: str
    week: int
    queries: Mapping[str, int]
    account: str = "default"

    @property
    def period_start(self) -> date:
        return SUNDAY + timedelta(weeks=self.week)

    def rows(self, first_line: int = 1) -> list[dict[str, Any]]:
        return [
            row(self.asin, self.period_start, query, impressions, line, self.account)
            for line, (query, impressions) in enumerate(self.queries.items(), first_line)
        ]

    def key(self) -> SliceKey:
        return SliceKey(
            self.account,
            MARKETPLACE,
            ReportView.ASIN,
            PeriodType.WEEK,
            self.period_start,
            self.period_start + timedelta(days=6),
            self.asin,
        )


def row(
    subject: str, start: date, query: str, impressions: int, line: int, account: str = "default"
) -> dict[str, Any]:
    """One row of `ROW_SCHEMA`, all of whose counts follow from the impressions."""
    total = 10 * impressions + 7
    values: dict[str, Any] = {
        "account_id": account,
        "period_start": start,
        "period_end": start + timedelta(days=6),
        "subject": subject,
        "search_query": query,
        "query": query.lower(),
        "query_digest": hashlib.sha256(query.lower().encode()).digest()[:16],
        "search_query_score": 1 + impressions % 9,
        "search_query_volume": total * 2,
        "total_query_impression_count": total,
        "own_impression_count": impressions,
        "own_impression_share": impressions / total,
        "currency_code": "USD",
        "source_line": line,
    }
    for stage, part in (("click", 2), ("cart_add", 4), ("purchase", 8)):
        values[f"total_{stage}_count"] = total // part
        values[f"own_{stage}_count"] = impressions // part
        values[f"own_{stage}_share"] = (impressions // part) / max(total // part, 1)
    return values


@dataclass
class Parcel:
    """What one file brings: slices, the moment it came, and rows that were refused."""

    slices: Sequence[Slice]
    hour: int = 0
    name: str = "file"
    declares: Sequence[Slice] = ()
    refused: Sequence[Slice] = ()
    broken: bool = False
    extra_rows: Sequence[Mapping[str, Any]] = field(default_factory=list)

    def delivery(self) -> Delivery:
        return Delivery(
            name=self.name,
            paths=(Path(self.name),),
            delivery_format=DeliveryFormat.FLAT_PARQUET,
            report_view=ReportView.ASIN,
            period_type=PeriodType.WEEK,
            marketplace_id=MARKETPLACE,
            delivered_at=datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=self.hour),
            declared=tuple(each.key() for each in self.declares),
        )

    def rows(self) -> list[Mapping[str, Any]]:
        return [values for each in self.slices for values in each.rows()] + list(self.extra_rows)

    def rejected(self) -> list[RejectedRow]:
        return [
            RejectedRow(
                self.name,
                line,
                RejectReason.NEGATIVE,
                "asin_click_count is -1",
                "{}",
                each.account,
                each.period_start,
                each.asin,
            )
            for line, each in enumerate(self.refused, 1)
        ]


def sync(
    parcels: Sequence[Parcel],
    *,
    held: Mapping[str, str] | None = None,
    allow_older: bool = False,
    batch_rows: int = 3,
) -> Tally:
    """Land the parcels in one run and accept what landed, but for the ASINs in `held`."""
    deliveries = [parcel.delivery() for parcel in parcels]
    with leased_run() as run, tempfile.TemporaryDirectory() as folder:
        run.begin([SyncType.WEEKLY], source="test")
        spool = Spool(Path(folder))
        landing = Landing(
            run.connection, deliveries, run.load_ids(), spool, allow_older=allow_older
        )
        for number, parcel in enumerate(parcels):
            spool.declare(deliveries[number], number)
            table = pa.Table.from_pylist(parcel.rows(), schema=ROW_SCHEMA)
            for batch in table.to_batches(max_chunksize=batch_rows):
                spool.add(deliveries[number], number, batch)
            landing.refuse(number, parcel.rejected())
        landing.land({number for number, parcel in enumerate(parcels) if parcel.broken})
        ids = dict(
            run.connection.execute("select slice_id, subject from landing.sqp_slices").fetchall()
        )
        reasons = held or {}
        accept_and_hold(
            run.connection,
            {slice_id: reasons[name] for slice_id, name in ids.items() if name in reasons},
        )
        run.complete()
        return landing.tallies["WEEK"]


Contents = dict[tuple[str, str, date], dict[str, int]]


def in_force(connection: psycopg.Connection[Any]) -> Contents:
    """The rows in force, by slice: query → impressions. Emptied slices are there and empty."""
    contents: Contents = {
        (account, subject, start): {}
        for account, subject, start in connection.execute(
            """
            select account_id, subject, period_start
            from landing.sqp_slices
            where accepted_load_id is not null
            """
        )
    }
    for account, subject, start, query, impressions in connection.execute(
        """
        select stored.account_id, stored.asin, stored.period_start, stored.query,
            stored.asin_impression_count
        from landing.sqp_asin as stored
        inner join landing.sqp_slices as slices
            on stored.slice_id = slices.slice_id and stored.load_id = slices.accepted_load_id
        """
    ):
        contents[account, subject, start][query] = impressions
    return contents
