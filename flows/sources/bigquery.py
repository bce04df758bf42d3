"""The flat table in BigQuery as a delivery: which slices changed, and only their rows.

What changed is found as cheaply as the table allows: by its change time, by that of each of its
partitions, by a query that gives every slice its fingerprint, a row count and a checksum over all
columns. What is not as it was loaded is read, through the Storage Read API or, where that is not
allowed, by a query whose result comes over REST.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from google.cloud import bigquery

from flows.errors import UnreadableDelivery, UsageError
from flows.settings import Settings
from flows.sources.bigquery_client import PAGE_SLICES, BigQuery, estimate, talking_to_bigquery
from flows.sources.bigquery_contract import check_schema, contract
from flows.sources.bigquery_partitions import (
    WEEK,
    Compared,
    partition_times,
    weeks_written_to,
    within,
)
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

MOST_WEEKS_READ_WHOLE = 2
"""Up to so many weeks that were written to are read whole; of more, fingerprints tell what changed.

One week alone is written to because its rows are new or other ones; many at once are so because
something filled the table anew, mostly with what was there.
"""

log = logging.getLogger(__name__)


class SliceName(NamedTuple):
    """A slice as the table names it: nothing of it was judged yet."""

    account_id: str
    period_start: date
    subject: str


class Fingerprint(NamedTuple):
    """Rows of a slice, and the sums of the low and the high halves of their hashes.

    Rows that were counted and not hashed have no sums.
    """

    row_count: int
    low_sum: int | None
    high_sum: int | None

    def plus(self, other: Fingerprint) -> Fingerprint:
        """The fingerprint of both slices' rows together."""
        return Fingerprint(
            self.row_count + other.row_count,
            _sum(self.low_sum, other.low_sum),
            _sum(self.high_sum, other.high_sum),
        )


def _sum(mine: int | None, yours: int | None) -> int | None:
    return None if mine is None or yours is None else mine + yours


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

    def last_comparison(self) -> Compared | None:
        """What the last sync knew of the table, if that came through."""


@dataclass
class Comparison:
    """What one sync found in the table.

    Attributes:
        first_day: the window begins here.
        found, known: fingerprints in the table, and of what was loaded.
        read_whole: weeks of which everything counts as changed, since nothing was hashed.
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
    read_whole: Set[date]
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
            if (name.period_start in self.read_whole or self.known.get(name) != print_)
            and not self._is_held(name)
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
    today = today or datetime.now(UTC).date()
    marketplace_id = marketplace_of(request, settings)
    with talking_to_bigquery(client.table):
        table = client.rest.get_table(client.table, retry=client.retry, timeout=60)
    date_type = check_schema(table.schema, client.table)
    first_day = window_start(request, memory, settings, today)
    known = memory.slices_since(first_day)
    comparison = Comparison(
        bigquery=client,
        marketplace_id=marketplace_id,
        account=request.account,
        first_day=first_day,
        date_type=date_type,
        found=known,
        known=known,
        read_whole=frozenset(),
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
    last = memory.last_comparison() if known else None
    is_settled = table.table_type == "TABLE" and table.streaming_buffer is None
    if last and is_settled and last.holds_for(table.modified, first_day):
        log.info("%s is as it was when it was last compared: no query is run", client.table)
        times, whole_on = last.partitions, last.whole_on
    else:
        times, estimated = partition_times(client, table) if is_settled else (None, 0)
        comparison.metadata["estimated_bytes"] = estimated
        weeks = None
        if last and times is not None and last.partitions is not None:
            is_due = today - last.whole_on >= timedelta(days=settings.bigquery_whole_days)
            weeks = None if is_due else weeks_written_to(times, last, first_day)
        whole_on = last.whole_on if last and weeks is not None else today
        _find_slices(comparison, weeks)
        if not comparison.found and not known:
            raise UnreadableDelivery(
                f"{client.table} brings nothing",
                f"it has no row from {first_day} on",
                "look whether whatever fills the table works; --since reads further back",
            )
        comparison.losses = [] if request.accept_losses else losses(known, comparison.found)
    lost = [loss.period_start for loss in comparison.losses]
    comparison.metadata |= {
        "slices_compared": len(comparison.found),
        "slices_changed": len(comparison.changed()),
        "slices_gone": len(comparison.gone()),
        "weeks_held_back": len(lost),
        "held_weeks": [week.isoformat() for week in lost if week],
        "partitions": None if times is None or None in lost else within(times, first_day),
        "compared_whole_on": whole_on.isoformat(),
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


def _find_slices(comparison: Comparison, weeks: Set[date] | None) -> None:
    """Find the slices of these weeks as they are now, or of the whole window; others stay as known.

    Few weeks are counted and then read whole; of more, fingerprints tell what is to be read.
    """
    if weeks is None:
        comparison.found = _queried(comparison, None, is_hashed=True)
        return
    comparison.metadata["weeks_written_to"] = len(weeks)
    if not weeks:
        log.info("%s: no week of the window was written to", comparison.bigquery.table)
        return
    if len(weeks) <= MOST_WEEKS_READ_WHOLE:
        comparison.read_whole = frozenset(weeks)
    found = _queried(comparison, sorted(weeks), is_hashed=not comparison.read_whole)
    untouched = {
        name: print_ for name, print_ in comparison.known.items() if name.period_start not in weeks
    }
    comparison.found = untouched | found


def slices_query(table: str, date_type: str, condition: str, *, is_hashed: bool) -> str:
    """The query that gives each slice its row count and, if it is to be hashed, its fingerprint.

    Sums, not an exclusive or: rows that are there twice must not cancel each other out. The half
    hashes keep the sums within INT64 for two billion rows of a slice.
    """
    columns = ", ".join(f"`{name}`" for name in contract())
    day = "`Date`" if date_type == "DATE" else "date(`Date`)"
    row_hash = f"farm_fingerprint(to_json_string(struct({columns})))" if is_hashed else "null"
    return f"""
        select
            date_trunc({day}, week(sunday)) as week_start,
            trim(`Client Name`) as client_name,
            `Child ASIN` as asin,
            count(*) as row_count,
            sum(row_hash & 4294967295) as low_sum,
            sum((row_hash >> 32) & 4294967295) as high_sum
        from (
            select
                `Date`,
                `Client Name`,
                `Child ASIN`,
                {row_hash} as row_hash
            from `{table}`
            where {condition} or `Date` is null
        )
        group by week_start, client_name, asin
    """  # noqa: S608 - the table's name comes from the settings, the columns from the contract


def _queried(
    comparison: Comparison, weeks: Sequence[date] | None, *, is_hashed: bool
) -> dict[SliceName, Fingerprint]:
    """The slices of these weeks, or of the whole window, as a query finds them."""
    client, date_type = comparison.bigquery, comparison.date_type
    days = [comparison.first_day] if weeks is None else [d for w in weeks for d in (w, w + WEEK)]
    parameters = [
        bigquery.ScalarQueryParameter(f"day_{number}", date_type, _start_of(day, date_type))
        for number, day in enumerate(days)
    ]
    condition = (
        "`Date` >= @day_0"
        if weeks is None
        else " or ".join(
            f"(`Date` >= @day_{number} and `Date` < @day_{number + 1})"
            for number in range(0, len(days), 2)
        )
    )
    query = slices_query(client.table, date_type, condition, is_hashed=is_hashed)
    estimated = estimate(client, query, parameters)
    with talking_to_bigquery(client.table):
        job = client.start(query, parameters)
        found, undated = _slices_of(client.rows(job, page_rows=PAGE_SLICES), comparison.account)
    comparison.job_id = job.job_id
    comparison.compared_at = job.started or job.created or datetime.now(UTC)
    comparison.metadata |= {
        "job_id": job.job_id,
        "estimated_bytes": comparison.metadata["estimated_bytes"] + estimated,
        "bytes_processed": job.total_bytes_processed,
        "rows_without_date": undated,
    }
    return found


def _slices_of(
    rows: Iterable[bigquery.Row], account: str | None
) -> tuple[dict[SliceName, Fingerprint], int]:
    """The slices that a query found, and its rows that have no date and so belong to none."""
    found: dict[SliceName, Fingerprint] = {}
    undated = 0
    for row in rows:
        print_ = Fingerprint(row["row_count"], row["low_sum"], row["high_sum"])
        if row["week_start"] is None:
            undated += print_.row_count
            continue
        name = SliceName(
            account or row["client_name"] or DEFAULT_ACCOUNT, row["week_start"], row["asin"] or ""
        )
        found[name] = found[name].plus(print_) if name in found else print_
    return found, undated


def _start_of(day: date, date_type: str) -> date | datetime:
    """The day as the table's column has it."""
    if date_type == "DATE":
        return day
    midnight = datetime.combine(day, datetime.min.time())
    return midnight if date_type == "DATETIME" else midnight.replace(tzinfo=UTC)
