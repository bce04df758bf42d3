"""One session that lands buckets, each in a transaction of its own.

A slice's digest says whether it changed. The rows of a changed slice are copied in as its
candidate load, which `slice_register.accept_and_hold` puts in force after the checks.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa

from flows.sources.deliveries import ROW_SCHEMA, Delivery, RejectedRow, RejectReason, SliceKey
from flows.warehouse import slice_register
from flows.warehouse.buckets import CONTENT_COLUMNS, Numbers, PreparedBucket, prepare
from flows.warehouse.copying import copy_into
from flows.warehouse.refusals import Refusals
from flows.warehouse.row_hashes import slice_digest
from flows.warehouse.slice_register import KnownSlice, NewLoad, OwnCounts, SliceLoad, landing_column
from flows.warehouse.spool import Arrival
from flows.warehouse.tally import Tally, add_to_log

NO_ROWS = np.empty(0, dtype=np.int64)
EMPTY = slice_digest(np.zeros(2, dtype=np.uint64), 0)
"""The digest of a slice without rows."""
OWN_COUNTS = tuple(
    f"own_{stage}_count" for stage in ("impression", "click", "cart_add", "purchase")
)
"""The columns whose sums `OwnCounts` are, in its order."""


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


@dataclass(frozen=True)
class Plan:
    """What is to be landed of a run, as all of its lanes know it.

    Attributes:
        deliveries: by delivery number.
        failed: the numbers of those that broke: none of their rows is landed.
        log_ids: the `sqp.sync_log.id` of each period type: the `load_id` of its rows.
        keys: the slices, by slice number.
        winners: which delivery holds for each slice.
        refusals: what was refused; rows that contradict each other join them.
        allow_older: whether a delivery may replace a slice that was delivered later.
    """

    deliveries: Sequence[Delivery]
    failed: set[int]
    log_ids: Mapping[str, int]
    keys: Sequence[SliceKey]
    winners: Mapping[int, Arrival]
    refusals: Refusals
    allow_older: bool

    @cached_property
    def holding(self) -> npt.NDArray[np.int64]:
        """By slice number, the number of the delivery that holds, or -1."""
        holding = np.full(len(self.keys), -1)
        holding[list(self.winners)] = [each.delivery_number for each in self.winners.values()]
        return holding


class Landed(NamedTuple):
    """What became of some slices: counts by period type, and the slices that came with rows."""

    tallies: Mapping[str, Tally]
    present: Numbers


class Lane:
    """A session that lands buckets of a plan."""

    def __init__(self, connection: psycopg.Connection[Any], plan: Plan) -> None:
        self.connection = connection
        self.plan = plan
        self.tallies: dict[str, Tally] = {}
        """What became of the bucket at hand."""

    def land(self, bucket: pa.Table) -> Landed:
        """Land a bucket of the spool."""
        prepared = prepare(bucket, self.plan.holding, self.plan.failed)
        with self._counted():
            self._land_bucket(prepared)
        return Landed(self.tallies, prepared.present)

    def empty(self, numbers: Iterable[int]) -> Landed:
        """Empty the slices of these numbers, of which no row was delivered."""
        with self._counted():
            self._replace(
                [self._slice(number, EMPTY, NO_ROWS) for number in numbers],
                ROW_SCHEMA.empty_table(),
            )
        return Landed(self.tallies, np.empty(0, dtype=np.int32))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """One transaction, with what it came to in the run's log."""
        self.tallies = defaultdict(Tally)
        with self.connection.transaction():
            # The run's next commit waits for the disk, and with it all before it are safe.
            self.connection.execute("set local synchronous_commit = off")
            yield
            add_to_log(self.connection, self.plan.log_ids, self.tallies)

    def _land_bucket(self, bucket: PreparedBucket) -> None:
        """Count what is not landed of a bucket, and land the rest."""
        for number, count in self._count("skipped", bucket.superseded):
            self.tallies[self.plan.keys[number].period_type].superseded_records += count
        self._count("skipped", bucket.repeated)
        self._count("failed", np.asarray(bucket.conflicting.column("slice_number")))
        self._refuse_conflicts(bucket.conflicting)
        slices = [self._slice(each.number, each.digest, each.positions) for each in bucket.slices]
        self._replace(slices, bucket.rows)

    def _slice(self, number: int, digest: bytes, positions: npt.NDArray[np.int64]) -> _Slice:
        delivery_number = self.plan.winners[number].delivery_number
        key = self.plan.keys[number]
        return _Slice(
            key=key,
            delivery=self.plan.deliveries[delivery_number],
            digest=digest,
            positions=positions,
            rejected=self.plan.refusals.of(delivery_number, key),
        )

    def _replace(self, slices: list[_Slice], rows: pa.Table) -> None:
        """Bring register and rows of these slices up to what was delivered."""
        known = slice_register.look_up(self.connection, [each.key for each in slices])
        changed: list[_Slice] = []
        came_again = []
        for each in slices:
            tally = self.tallies[each.key.period_type]
            tally.cover(each.key.period_start, each.key.period_end)
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
                self.plan.allow_older
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
        counts = [rows.column(name).to_numpy() for name in OWN_COUNTS]
        ids = slice_register.register(
            self.connection,
            [
                NewLoad(
                    key=each.key,
                    load_id=self.plan.log_ids[each.key.period_type],
                    slice_digest=each.digest,
                    row_count=each.row_count,
                    rejected_count=each.rejected,
                    source_file=each.delivery.name,
                    delivered_at=each.delivery.delivered_at,
                    own_counts=OwnCounts(*(int(count[each.positions].sum()) for count in counts)),
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
                    self.plan.log_ids[each.key.period_type],
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
                    (self.plan.log_ids[each.key.period_type] for each in slices), pa.int64()
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
            self.plan.refusals.keep(
                self.connection,
                delivery_number,
                [
                    RejectedRow(
                        source_file=self.plan.deliveries[delivery_number].name,
                        line=row["source_line"],
                        reason_code=RejectReason.CONFLICTING_DUPLICATE,
                        reason=f"the query {row['query'][:200]!r} came more than once in"
                        f" {self.plan.keys[number].subject}'s slice with different values",
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
            self.tallies[self.plan.keys[number].period_type].records[outcome] += count
        return counted


def _is_mended(each: _Slice, before: KnownSlice) -> bool:
    """Whether a held slice came again with the same rows let in, and other ones refused."""
    return before.slice_status == "held" and each.rejected != before.rejected_count


def _arrived(each: _Slice) -> tuple[datetime, str]:
    """What decides which of two deliveries of a slice holds: the later one, then by name."""
    return each.delivery.delivered_at, each.delivery.name
