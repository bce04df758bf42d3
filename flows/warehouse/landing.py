"""Lands deliveries: each changed slice replaced whole, each unchanged slice left alone.

A slice's digest says whether it changed. The rows of a changed slice are copied in as its
candidate load, which `slice_register.accept_and_hold` puts in force after the checks. Each bucket
of slices is one transaction, so that a run that dies leaves whole slices and counts that add up.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa
from pgpq import ArrowToPostgresBinaryEncoder
from psycopg import sql

from flows.sources.deliveries import ROW_SCHEMA, Delivery, RejectedRow, RejectReason, SliceKey
from flows.warehouse import slice_register
from flows.warehouse.buckets import CONTENT_COLUMNS, PreparedBucket, one_ahead, prepare
from flows.warehouse.faults import die_here_if_asked
from flows.warehouse.row_hashes import slice_digest
from flows.warehouse.slice_register import KnownSlice, NewLoad, SliceLoad, landing_column
from flows.warehouse.spool import Arrival, Spool

COPY_ROWS = 4_096
NO_ROWS = np.empty(0, dtype=np.int64)
EMPTY = slice_digest(np.zeros(2, dtype=np.uint64), 0)
"""The digest of a slice without rows."""


@dataclass
class Tally:
    """What became of the rows and slices of one period type in one run.

    `records` counts inserted, updated, unchanged, skipped and failed rows, which make up the
    processed ones, and deleted ones, which were loaded before and not delivered again. `restated`
    are the first days of the periods of which something was replaced.
    """

    records: Counter[str] = field(default_factory=Counter)
    slices_changed: int = 0
    slices_unchanged: int = 0
    period_start: date | None = None
    period_end: date | None = None
    superseded_records: int = 0
    older_records: int = 0
    restated: set[date] = field(default_factory=set)

    @property
    def processed(self) -> int:
        """Every delivered row."""
        return self.records.total() - self.records["deleted"]

    def cover(self, key: SliceKey) -> None:
        """Widen the range of periods by a slice's."""
        self.period_start = min(self.period_start or key.period_start, key.period_start)
        self.period_end = max(self.period_end or key.period_end, key.period_end)


@dataclass(frozen=True)
class _Slice:
    """One delivered slice; `positions` says which rows of the bucket at hand are its own."""

    key: SliceKey
    delivery: Delivery
    digest: bytes
    positions: npt.NDArray[np.int64]
    rejected: int

    @property
    def row_count(self) -> int:
        return len(self.positions)


class Landing:
    """Lands the rows of one run.

    Args:
        connection: the run's own; outside of `land` it is in no transaction.
        deliveries: by delivery number.
        log_ids: the `sqp.sync_log.id` of each period type: the `load_id` of its rows.
        allow_older: whether a delivery may replace a slice that was delivered later.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        deliveries: Sequence[Delivery],
        log_ids: Mapping[str, int],
        spool: Spool,
        *,
        allow_older: bool = False,
    ) -> None:
        self.connection = connection
        self.deliveries = deliveries
        self.log_ids = log_ids
        self.spool = spool
        self.allow_older = allow_older
        self.tallies = {period_type: Tally() for period_type in log_ids}
        self._rejected: Counter[tuple[int, str | None, date | None, str | None]] = Counter()

    def refuse(self, delivery_number: int, rejected: Sequence[RejectedRow]) -> None:
        """Keep rejected rows for whoever will mend them; `land` counts them as failed."""
        if not rejected:
            return
        delivery = self.deliveries[delivery_number]
        self._rejected.update(
            (delivery_number, row.account_id, row.period_start, row.subject) for row in rejected
        )
        write_rejected_rows(self.connection, self.log_ids[delivery.period_type], delivery, rejected)

    def land(self, failed: set[int]) -> None:
        """Land everything in the spool.

        Args:
            failed: numbers of the deliveries that broke while they were read; none of their
                rows is landed.
        """
        self._count_refused(failed)
        winners = self._winners(failed)
        self._ensure_partitions(self.spool.keys[number] for number in winners)
        holding = np.full(len(self.spool.keys), -1)
        holding[list(winners)] = [arrival.delivery_number for arrival in winners.values()]
        emptied = set(winners)
        buckets = (prepare(bucket, holding, failed) for bucket in self.spool.buckets())
        for position, bucket in enumerate(one_ahead(buckets)):
            with self.connection.transaction():
                # The last transaction waits for the disk, and with it all before it are safe.
                self.connection.execute("set local synchronous_commit = off")
                self._land_bucket(bucket, winners)
                self.write_tallies()
            emptied.difference_update(bucket.present.tolist())
            die_here_if_asked(f"bucket_{position}")
        with self.connection.transaction():
            empty = [self._slice(number, winners, EMPTY, NO_ROWS) for number in sorted(emptied)]
            self._replace(empty, ROW_SCHEMA.empty_table())
            self.write_tallies()

    def _count_refused(self, failed: set[int]) -> None:
        """Count the rows refused while parsing, of the deliveries that did not break."""
        for (number, *_), count in self._rejected.items():
            if number not in failed:
                self.tallies[self.deliveries[number].period_type].records["failed"] += count

    def write_tallies(self) -> None:
        """Bring the run's log rows up to the counts so far."""
        for period_type, tally in self.tallies.items():
            write_tally(self.connection, self.log_ids[period_type], tally)

    def _winners(self, failed: set[int]) -> dict[int, Arrival]:
        """The delivery that holds for each slice: the latest that says anything usable of it.

        One that only had rows that were refused says nothing: it neither empties the slice nor
        stands in the way of an earlier one.
        """
        winners = {}
        for number, key in enumerate(self.spool.keys):
            usable = self.spool.arrivals[number] | {
                arrival
                for arrival in self.spool.declared[number]
                if not self._rejected_of(arrival.delivery_number, key)
            }
            if arrivals := [each for each in usable if each.delivery_number not in failed]:
                winners[number] = max(arrivals)
        return winners

    def _rejected_of(self, delivery_number: int, key: SliceKey) -> int:
        return self._rejected[delivery_number, key.account_id, key.period_start, key.subject]

    def _ensure_partitions(self, keys: Iterable[SliceKey]) -> None:
        needed = {
            (f"landing.sqp_{key.report_view}", key.period_start.replace(day=1)) for key in keys
        }
        with self.connection.transaction():
            for table, month in sorted(needed):
                self.connection.execute(
                    "select app.create_monthly_partition(%s, %s)", (table, month)
                )

    def _land_bucket(self, bucket: PreparedBucket, winners: Mapping[int, Arrival]) -> None:
        """Count what is not landed of a bucket, and land the rest."""
        for number, count in self._count("skipped", bucket.superseded):
            self.tallies[self.spool.keys[number].period_type].superseded_records += count
        self._count("skipped", bucket.repeated)
        self._count("failed", np.asarray(bucket.conflicting.column("slice_number")))
        self._refuse_conflicts(bucket.conflicting)
        slices = [
            self._slice(each.number, winners, each.digest, each.positions) for each in bucket.slices
        ]
        self._replace(slices, bucket.rows)

    def _slice(
        self,
        number: int,
        winners: Mapping[int, Arrival],
        digest: bytes,
        positions: npt.NDArray[np.int64],
    ) -> _Slice:
        delivery_number = winners[number].delivery_number
        key = self.spool.keys[number]
        return _Slice(
            key=key,
            delivery=self.deliveries[delivery_number],
            digest=digest,
            positions=positions,
            rejected=self._rejected_of(delivery_number, key),
        )

    def _replace(self, slices: list[_Slice], rows: pa.Table) -> None:
        """Bring register and rows of these slices up to what was delivered."""
        known = slice_register.look_up(self.connection, [each.key for each in slices])
        changed: list[_Slice] = []
        came_again = []
        for each in slices:
            tally = self.tallies[each.key.period_type]
            tally.cover(each.key)
            before = known.get(each.key)
            if before is None:
                tally.records["inserted"] += each.row_count
                changed.append(each)
            elif each.digest == before.slice_digest and not _is_mended(each, before):
                tally.records["unchanged"] += each.row_count
                tally.slices_unchanged += 1
                if _arrived(each) > (before.delivered_at, before.source_file):
                    came_again.append((before.slice_id, *_arrived(each)))
            elif (
                self.allow_older
                or before.is_all_there_is_and_held
                or _arrived(each) >= (before.delivered_at, before.source_file)
            ):
                changed.append(each)
            else:
                tally.records["skipped"] += each.row_count
                tally.older_records += each.row_count
        slice_register.note_arrivals(self.connection, came_again)
        if changed:
            self._replace_changed(changed, known, rows)

    def _replace_changed(
        self, changed: list[_Slice], known: Mapping[SliceKey, KnownSlice], rows: pa.Table
    ) -> None:
        ids = slice_register.register(
            self.connection,
            [
                NewLoad(
                    key=each.key,
                    load_id=self.log_ids[each.key.period_type],
                    slice_digest=each.digest,
                    row_count=each.row_count,
                    rejected_count=each.rejected,
                    source_file=each.delivery.name,
                    delivered_at=each.delivery.delivered_at,
                )
                for each in changed
            ],
        )
        for view in sorted({each.key.report_view for each in changed}):
            self._copy(view, [each for each in changed if each.key.report_view == view], ids, rows)

        replaced: list[tuple[SliceLoad, int]] = []
        never_accepted: list[SliceLoad] = []
        for each in changed:
            self.tallies[each.key.period_type].slices_changed += 1
            if before := known.get(each.key):
                self.tallies[each.key.period_type].restated.add(each.key.period_start)
                load = SliceLoad(
                    each.key.report_view,
                    each.key.period_type,
                    each.key.period_start,
                    before.slice_id,
                    self.log_ids[each.key.period_type],
                )
                replaced.append((load, before.accepted_load_id or before.load_id))
                if before.load_id != before.accepted_load_id:
                    never_accepted.append(load._replace(load_id=before.load_id))
        for period_type, outcome, records in slice_register.compare_loads(
            self.connection, replaced, CONTENT_COLUMNS
        ):
            self.tallies[period_type].records[outcome] += records
        slice_register.delete_loads(self.connection, never_accepted)

    def _copy(
        self, view: str, slices: list[_Slice], ids: Mapping[SliceKey, int], rows: pa.Table
    ) -> None:
        """Binary COPY of the slices' rows into their landing table."""
        counts = [each.row_count for each in slices]
        if not sum(counts):
            return
        rows = rows.take(pa.array(np.concatenate([each.positions for each in slices])))
        spread = pa.array(np.repeat(np.arange(len(slices)), counts))

        def per_slice(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
            return pa.array(list(values), kind).take(spread)

        table = pa.table(
            {
                "slice_id": per_slice((ids[each.key] for each in slices), pa.int64()),
                "load_id": per_slice(
                    (self.log_ids[each.key.period_type] for each in slices), pa.int64()
                ),
                "marketplace_id": per_slice(
                    (each.key.marketplace_id for each in slices), pa.string()
                ),
                "period_type": per_slice((each.key.period_type for each in slices), pa.string()),
                **{landing_column(name, view): rows.column(name) for name in ROW_SCHEMA.names},
                "slice_digest": per_slice((each.digest for each in slices), pa.binary()),
                "loaded_at": pa.repeat(
                    pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC")), rows.num_rows
                ),
            }
        )
        copy_into(self.connection, slice_register.landing_table(view), table)

    def _refuse_conflicts(self, rows: pa.Table) -> None:
        """Refuse every row of a key that came with different values."""
        if not rows.num_rows:
            return
        for row in rows.drop_columns(["query_digest"]).to_pylist():
            delivery_number = row.pop("delivery_number")
            number = row.pop("slice_number")
            self.refuse(
                delivery_number,
                [
                    RejectedRow(
                        source_file=self.deliveries[delivery_number].name,
                        line=row["source_line"],
                        reason_code=RejectReason.CONFLICTING_DUPLICATE,
                        reason=f"the query {row['query'][:200]!r} came more than once in"
                        f" {self.spool.keys[number].subject}'s slice with different values",
                        delivered_text=json.dumps(row, default=str),
                        account_id=row["account_id"],
                        period_start=row["period_start"],
                        subject=row["subject"],
                    )
                ],
            )

    def _count(self, outcome: str, numbers: npt.NDArray[np.int32]) -> list[tuple[int, int]]:
        """Add rows of the given slices to their tallies; returns (slice number, rows)."""
        distinct, counts = np.unique(numbers, return_counts=True)
        counted = list(zip(distinct.tolist(), counts.tolist(), strict=True))
        for number, count in counted:
            self.tallies[self.spool.keys[number].period_type].records[outcome] += count
        return counted


def _is_mended(each: _Slice, before: KnownSlice) -> bool:
    """Whether a held slice came again with the same rows let in, and other ones refused."""
    return before.slice_status == "held" and each.rejected != before.rejected_count


def _arrived(each: _Slice) -> tuple[datetime, str]:
    """What decides which of two deliveries of a slice holds: the later one, then by name."""
    return each.delivery.delivered_at, each.delivery.name


def copy_into(connection: psycopg.Connection[Any], table: sql.Identifier, rows: pa.Table) -> None:
    """Binary COPY of an Arrow table into a Postgres table with columns of the same names."""
    encoder = ArrowToPostgresBinaryEncoder(rows.schema)
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(encoder.write_header())
        batches = rows.combine_chunks().to_batches(max_chunksize=COPY_ROWS)
        for encoded in one_ahead(map(encoder.write_batch, batches)):
            copy.write(encoded)
            die_here_if_asked("mid_copy")
        copy.write(encoder.finish())


def write_rejected_rows(
    connection: psycopg.Connection[Any],
    load_id: int,
    delivery: Delivery,
    rejected: Sequence[RejectedRow],
) -> None:
    """Store refused rows; a row that was refused before, the same way, is not stored again."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into landing.rejected_rows (
                reject_digest, load_id, account_id, marketplace_id, report_view, period_type,
                period_start, subject, source_file, source_line, reason_code, reason,
                delivered_text
            )
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            on conflict (reject_digest) do nothing
            """,
            [
                (
                    _reject_digest(row),
                    load_id,
                    row.account_id,
                    delivery.marketplace_id,
                    delivery.report_view,
                    delivery.period_type,
                    row.period_start,
                    row.subject,
                    row.source_file,
                    row.line,
                    row.reason_code,
                    row.reason,
                    row.delivered_text,
                )
                for row in rejected
            ],
        )


def _reject_digest(row: RejectedRow) -> bytes:
    parts = (row.source_file, str(row.line), row.reason_code, row.delivered_text)
    return hashlib.sha256("\x1f".join(parts).encode(errors="surrogatepass")).digest()


def write_tally(connection: psycopg.Connection[Any], log_id: int, tally: Tally) -> None:
    """Write a tally into its row of `sqp.sync_log`."""
    records = tally.records
    connection.execute(
        """
        update sqp.sync_log
        set
            records_processed = %s,
            records_inserted = %s,
            records_updated = %s,
            records_unchanged = %s,
            records_skipped = %s,
            records_failed = %s,
            records_deleted = %s,
            slices_changed = %s,
            slices_unchanged = %s,
            period_start = %s,
            period_end = %s
        where id = %s
        """,
        (
            tally.processed,
            records["inserted"],
            records["updated"],
            records["unchanged"],
            records["skipped"],
            records["failed"],
            records["deleted"],
            tally.slices_changed,
            tally.slices_unchanged,
            tally.period_start,
            tally.period_end,
            log_id,
        ),
    )
