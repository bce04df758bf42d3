"""The flat table in BigQuery as a delivery: which slices changed, and only their rows.

One query gives every slice of the window its fingerprint, a row count and a checksum over all
columns. Slices whose fingerprint is not the one that was loaded are read, through the Storage Read
API or, where that is not allowed, by a query whose result comes over REST.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from google.cloud import bigquery

from flows.errors import UnreadableDelivery, UsageError
from flows.settings import Settings
from flows.sources.bigquery_client import JOB_PREFIX, BigQuery, estimate, talking_to_bigquery
from flows.sources.bigquery_contract import check_schema, contract
from flows.sources.bigquery_request import BigQueryRequest
from flows.sources.bigquery_rows import Restriction, open_rows
from flows.sources.deliveries import (
    Delivery,
    DeliveryFormat,
    PeriodType,
    ReportView,
    SliceKey,
)
from flows.sources.marketplaces import find_marketplace
from flows.sources.periods import period_around
from flows.sources.row_rules import ASIN_PATTERN, DEFAULT_ACCOUNT

MOST_LOST = 0.5
"""A week that lost more than this part of its rows is held back."""

MOST_ASINS = 500
"""Of a week in which more ASINs changed, all are read."""

WEEK = timedelta(weeks=1)

log = logging.getLogger(__name__)


class SliceName(NamedTuple):
    """A slice as the table names it: nothing of it was judged yet."""

    account_id: str
    period_start: date
    subject: str


class Fingerprint(NamedTuple):
    """Rows of a slice, and the sums of the low and the high halves of their hashes."""

    row_count: int
    low_sum: int
    high_sum: int

    def plus(self, other: Fingerprint) -> Fingerprint:
        """The fingerprint of both slices' rows together."""
        return Fingerprint(*(mine + yours for mine, yours in zip(self, other, strict=True)))


class Loss(NamedTuple):
    """A week that came with far fewer rows than were loaded; None stands for all weeks."""

    period_start: date | None
    rows_before: int
    rows_now: int


class Memory(Protocol):
    """What the warehouse knows of a table from earlier syncs."""

    def newest_week(self) -> date | None:
        """The first day of the newest week that was loaded."""

    def slices_since(self, first_day: date) -> Mapping[SliceName, Fingerprint]:
        """What was loaded of each slice."""

    def compared_at(self, first_day: date) -> datetime | None:
        """The table's change time when everything from this day on was found as it was loaded."""


@dataclass
class Comparison:
    """What one sync found in the table.

    Attributes:
        first_day: the window begins here.
        found, known: fingerprints in the table, and of what was loaded.
        losses: weeks that are held back.
        metadata: for `sqp.sync_log.sync_metadata`.
    """

    bigquery: BigQuery
    marketplace_id: str
    account: str | None
    first_day: date
    date_type: str
    found: Mapping[SliceName, Fingerprint]
    known: Mapping[SliceName, Fingerprint]
    losses: list[Loss]
    job_id: str
    compared_at: datetime
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """What the memory of these slices is kept under: by whose slices they were taken to be."""
        return source_of(self.bigquery, self.account)

    def _is_held(self, name: SliceName) -> bool:
        return any(loss.period_start in (None, name.period_start) for loss in self.losses)

    def changed(self) -> dict[SliceName, Fingerprint]:
        """The slices to read: new or different from what was loaded, and not held back."""
        return {
            name: print_
            for name, print_ in self.found.items()
            if self.known.get(name) != print_ and not self._is_held(name)
        }

    def gone(self) -> list[SliceName]:
        """The slices that were loaded and are not in the table any more, and not held back."""
        return [name for name in self.known if name not in self.found and not self._is_held(name)]

    def delivery(self) -> Delivery:
        """What changed, as one delivery that speaks for the slices that are gone as well."""
        return Delivery(
            name=self.job_id,
            paths=(),
            delivery_format=DeliveryFormat.BIGQUERY,
            report_view=ReportView.ASIN,
            period_type=PeriodType.WEEK,
            marketplace_id=self.marketplace_id,
            delivered_at=self.compared_at,
            account_id=self.account,
            declared=tuple(
                SliceKey(
                    name.account_id,
                    self.marketplace_id,
                    ReportView.ASIN,
                    PeriodType.WEEK,
                    *period_around(PeriodType.WEEK, name.period_start),
                    name.subject,
                )
                for name in self.gone()
                if re.match(ASIN_PATTERN, name.subject)
            ),
            open_batches=self.open_batches,
        )

    def open_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows of the changed slices, in no order."""
        restriction, expected = self.restriction()
        if not expected:
            return iter(())
        return open_rows(
            self.bigquery,
            restriction,
            list(contract()),
            expected_rows=expected,
            as_of=self.compared_at,
            metadata=self.metadata,
        )

    def restriction(self) -> tuple[Restriction, int]:
        """Which rows to read, and how many there are of them."""
        wanted: dict[date, set[str]] = {}
        for name in self.changed():
            wanted.setdefault(name.period_start, set()).add(name.subject)
        there: dict[date, Counter[str]] = {week: Counter() for week in wanted}
        for name, print_ in self.found.items():
            if name.period_start in there:
                there[name.period_start][name.subject] += print_.row_count
        weeks: dict[date, frozenset[str] | None] = {}
        expected = 0
        for week, asins in sorted(wanted.items()):
            rows = there[week]
            whole = (
                len(asins) > MOST_ASINS
                or rows.keys() <= asins
                or not all(re.match(ASIN_PATTERN, asin) for asin in asins)
            )
            weeks[week] = None if whole else frozenset(asins)
            expected += rows.total() if whole else sum(rows[asin] for asin in asins)
        return Restriction(self.date_type, weeks), expected

    def held_back(self) -> list[UnreadableDelivery]:
        """What to tell of the weeks that are held back."""
        told = []
        for loss in self.losses:
            what = f"the week of {loss.period_start}" if loss.period_start else "the whole window"
            told.append(
                UnreadableDelivery(
                    f"{what} in {self.bigquery.table} is held back",
                    f"it had {loss.rows_before:,} rows and has {loss.rows_now:,}",
                    "mend the table and sync again; or, if they are gone for good, sync once"
                    " with --accept-losses",
                )
            )
        return told


def compare(
    client: BigQuery,
    request: BigQueryRequest,
    memory: Memory,
    settings: Settings,
    *,
    today: date | None = None,
) -> Comparison:
    """Find what changed in the table since it was loaded.

    Raises:
        UsageError: no marketplace is given.
        BigQueryError: the table cannot be read, or breaks the contract.
        UnreadableDelivery: the table holds no row of the window, and never did.
    """
    marketplace_id = marketplace_of(request, settings)
    with talking_to_bigquery(client.table):
        table = client.rest.get_table(client.table, retry=client.retry, timeout=60)
    date_type = check_schema(table.schema, client.table)
    first_day = window_start(request, memory, settings, today or datetime.now(UTC).date())
    known = memory.slices_since(first_day)
    comparison = Comparison(
        bigquery=client,
        marketplace_id=marketplace_id,
        account=request.account,
        first_day=first_day,
        date_type=date_type,
        found=known,
        known=known,
        losses=[],
        job_id="unchanged",
        compared_at=table.modified or datetime.now(UTC),
        metadata={
            "source": "bigquery",
            "table": client.table,
            "slices_of": source_of(client, request.account),
            "marketplace_id": marketplace_id,
            "compared_from": first_day.isoformat(),
            "table_modified": table.modified.isoformat() if table.modified else None,
        },
    )
    is_settled = table.table_type == "TABLE" and table.streaming_buffer is None
    if known and is_settled and memory.compared_at(first_day) == table.modified:
        log.info("%s is as it was when it was last compared: no query is run", client.table)
    else:
        _query_fingerprints(client, comparison, request.account)
        if not comparison.found and not known:
            raise UnreadableDelivery(
                f"{client.table} brings nothing",
                f"it has no row from {first_day} on",
                "look whether whatever fills the table works; --since reads further back",
            )
        comparison.losses = [] if request.accept_losses else losses(known, comparison.found)
    comparison.metadata |= {
        "slices_compared": len(comparison.found),
        "slices_changed": len(comparison.changed()),
        "slices_gone": len(comparison.gone()),
        "weeks_held_back": len(comparison.losses),
    }
    return comparison


def source_of(client: BigQuery, account: str | None) -> str:
    """The table, or the table as one account's: the two are different sets of slices."""
    return f"{client.table} as {account}" if account else client.table


def marketplace_of(request: BigQueryRequest, settings: Settings) -> str:
    """The marketplace's id that all rows of the table belong to."""
    given = request.marketplace or settings.bigquery_marketplace
    if given is None:
        raise UsageError(
            "the table in BigQuery does not say its marketplace",
            "it has no column for it",
            "give it with --marketplace, or set BIGQUERY_MARKETPLACE",
        )
    marketplace = find_marketplace(given)
    if marketplace is None:
        raise UsageError(
            f"the marketplace {given!a} is not known",
            "a country or one of Amazon's marketplace ids is expected",
            "write for example US, UK or DE",
        )
    return marketplace.marketplace_id


def window_start(request: BigQueryRequest, memory: Memory, settings: Settings, today: date) -> date:
    """The Sunday from which on slices are compared.

    Without `--since` or `--weeks`: the rolling window, stretched back to the newest week that was
    loaded, so that a pause leaves no gap; at the first sync of a table the first load's days.
    """
    newest = memory.newest_week()
    if request.since:
        day = request.since
    elif request.weeks:
        day = today - request.weeks * WEEK
    elif newest is None:
        day = today - timedelta(days=settings.bigquery_first_load_days)
    else:
        day = min(today - settings.bigquery_window_weeks * WEEK, newest)
    return period_around(PeriodType.WEEK, day)[0]


def losses(
    known: Mapping[SliceName, Fingerprint], found: Mapping[SliceName, Fingerprint]
) -> list[Loss]:
    """The weeks that lost more than half of their rows; or all of them, where nothing is left."""
    before, now = _rows_by_week(known), _rows_by_week(found)
    if before and not now:
        return [Loss(None, sum(before.values()), 0)]
    return [
        Loss(week, rows, now.get(week, 0))
        for week, rows in sorted(before.items())
        if now.get(week, 0) < MOST_LOST * rows
    ]


def _rows_by_week(slices: Mapping[SliceName, Fingerprint]) -> dict[date, int]:
    weeks: dict[date, int] = {}
    for name, print_ in slices.items():
        weeks[name.period_start] = weeks.get(name.period_start, 0) + print_.row_count
    return weeks


def fingerprint_query(table: str, date_type: str) -> str:
    """The query that gives each slice since `@first_day` its fingerprint.

    Sums, not an exclusive or: rows that are there twice must not cancel each other out. The half
    hashes keep the sums within INT64 for two billion rows of a slice.
    """
    columns = ", ".join(f"`{name}`" for name in contract())
    day = "`Date`" if date_type == "DATE" else "date(`Date`)"
    return f"""
        select
            date_trunc({day}, week(sunday)) as week_start,
            trim(`Client Name`) as client_name,
            `Child ASIN` as asin,
            count(*) as row_count,
            sum(fingerprint & 4294967295) as low_sum,
            sum((fingerprint >> 32) & 4294967295) as high_sum
        from (
            select
                `Date`,
                `Client Name`,
                `Child ASIN`,
                farm_fingerprint(to_json_string(struct({columns}))) as fingerprint
            from `{table}`
            where `Date` >= @first_day or `Date` is null
        )
        group by week_start, client_name, asin
    """  # noqa: S608 - the table's name comes from the settings, the columns from the contract


def _query_fingerprints(client: BigQuery, comparison: Comparison, account: str | None) -> None:
    first_day = datetime.combine(comparison.first_day, datetime.min.time())
    parameter: Any = {
        "DATE": comparison.first_day,
        "DATETIME": first_day,
        "TIMESTAMP": first_day.replace(tzinfo=UTC),
    }[comparison.date_type]
    parameters = [bigquery.ScalarQueryParameter("first_day", comparison.date_type, parameter)]
    query = fingerprint_query(client.table, comparison.date_type)
    estimated = estimate(client, query, parameters)
    with talking_to_bigquery(client.table):
        job = client.rest.query(
            query,
            job_config=client.query_config(query_parameters=parameters),
            job_id_prefix=JOB_PREFIX,
            retry=client.retry,
            timeout=60,
        )
        rows = list(job.result(retry=client.retry))
    found: dict[SliceName, Fingerprint] = {}
    undated = 0
    for row in rows:
        print_ = Fingerprint(row["row_count"], row["low_sum"], row["high_sum"])
        if row["week_start"] is None:
            undated += print_.row_count
            continue
        name = SliceName(
            account or row["client_name"] or DEFAULT_ACCOUNT,
            row["week_start"],
            row["asin"] or "",
        )
        found[name] = found[name].plus(print_) if name in found else print_
    comparison.found = found
    comparison.job_id = job.job_id
    comparison.compared_at = job.started or job.created or datetime.now(UTC)
    comparison.metadata |= {
        "job_id": job.job_id,
        "estimated_bytes": estimated,
        "bytes_processed": job.total_bytes_processed,
        "rows_without_date": undated,
    }
