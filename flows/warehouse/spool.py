"""Regroups the rows of a run by slice without holding them in memory.

Deliveries bring slices in any order, split over batches and files. The spool deals rows into
buckets by slice, on disk once they outgrow memory, so that each slice lies whole in one bucket
and a bucket is small enough to sort.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from flows.sources.deliveries import ROW_SCHEMA, Delivery, SliceKey

BUCKETS = 32
MEMORY_BYTES = 32 * 2**20
PART_ROWS = 2**16
"""A bucket of more rows is handed out in parts."""

SPOOL_SCHEMA = ROW_SCHEMA.append(pa.field("slice_number", pa.int32())).append(
    pa.field("delivery_number", pa.int32())
)


class Arrival(NamedTuple):
    """Which delivery brought a slice, in the order in which deliveries replace each other."""

    delivered_at: float
    name: str
    delivery_number: int


class Spool:
    """Rows of all deliveries of one run, dealt into buckets by slice.

    Attributes:
        keys: the slices seen, by slice number.
        arrivals: for each slice number, the deliveries that brought rows of it.
        declared: for each slice number, the deliveries that spoke for it.
    """

    def __init__(self, folder: Path) -> None:
        self.keys: list[SliceKey] = []
        self.arrivals: dict[int, set[Arrival]] = defaultdict(set)
        self.declared: dict[int, set[Arrival]] = defaultdict(set)
        self._folder = folder
        self._numbers: dict[SliceKey, int] = {}
        self._pending: dict[int, list[pa.RecordBatch]] = defaultdict(list)
        self._pending_bytes = 0
        self._files: dict[int, pa.ipc.RecordBatchFileWriter] = {}

    def declare(self, delivery: Delivery, delivery_number: int) -> None:
        """Note the slices that a delivery speaks for, with or without rows of them."""
        for key in delivery.declared:
            plain = key._replace(report_view=str(key.report_view), period_type=str(key.period_type))
            self.declared[self._number(plain)].add(_arrival(delivery, delivery_number))

    def add(self, delivery: Delivery, delivery_number: int, rows: pa.RecordBatch) -> None:
        """Deal a batch of `ROW_SCHEMA` rows of one delivery into the buckets."""
        if rows.num_rows == 0:
            return
        slices = self._slice_numbers(delivery, delivery_number, rows)
        dealt = rows.append_column("slice_number", pa.array(slices)).append_column(
            "delivery_number", pa.array(np.full(rows.num_rows, delivery_number, dtype=np.int32))
        )
        buckets = slices % BUCKETS
        order = np.argsort(buckets, kind="stable")
        dealt = dealt.take(pa.array(order))
        present, starts = np.unique(buckets[order], return_index=True)
        for bucket, start, stop in zip(present, starts, [*starts[1:], rows.num_rows], strict=True):
            self._pending[int(bucket)].append(dealt.slice(start, stop - start))
        self._pending_bytes += dealt.nbytes
        if self._pending_bytes > MEMORY_BYTES:
            self._spill()

    def buckets(self) -> Iterator[pa.Table]:
        """The buckets, one after the other, large ones in parts; each has its slices whole."""
        for writer in self._files.values():
            writer.close()
        for bucket in range(BUCKETS):
            batches = self._pending.pop(bucket, [])
            if bucket in self._files:
                with pa.memory_map(str(self._path(bucket))) as source:
                    spilled = pa.ipc.open_file(source).read_all()
                    pending = pa.Table.from_batches(batches, SPOOL_SCHEMA)
                    yield from _parts(pa.concat_tables([spilled, pending]))
                self._path(bucket).unlink()
            elif batches:
                yield from _parts(pa.Table.from_batches(batches, SPOOL_SCHEMA))

    def _slice_numbers(
        self, delivery: Delivery, delivery_number: int, rows: pa.RecordBatch
    ) -> np.ndarray:
        accounts = rows.column("account_id").dictionary_encode()
        subjects = rows.column("subject").dictionary_encode()
        starts = rows.column("period_start").dictionary_encode()
        codes = np.asarray(accounts.indices).astype(np.int64)
        for column in (subjects, starts):
            codes = codes * len(column.dictionary) + np.asarray(column.indices)
        _, firsts, inverse = np.unique(codes, return_index=True, return_inverse=True)
        arrival = _arrival(delivery, delivery_number)
        numbers = np.empty(len(firsts), dtype=np.int32)
        columns = ("account_id", "period_start", "period_end", "subject")
        distinct = rows.select(columns).take(pa.array(firsts)).to_pylist()
        for position, row in enumerate(distinct):
            number = self._number(
                SliceKey(
                    row["account_id"],
                    delivery.marketplace_id,
                    str(delivery.report_view),
                    str(delivery.period_type),
                    row["period_start"],
                    row["period_end"],
                    row["subject"],
                )
            )
            self.arrivals[number].add(arrival)
            numbers[position] = number
        return numbers[inverse]

    def _number(self, key: SliceKey) -> int:
        number = self._numbers.setdefault(key, len(self.keys))
        if number == len(self.keys):
            self.keys.append(key)
        return number

    def _spill(self) -> None:
        for bucket, batches in self._pending.items():
            if bucket not in self._files:
                self._files[bucket] = pa.ipc.new_file(str(self._path(bucket)), SPOOL_SCHEMA)
            table = pa.Table.from_batches(batches, SPOOL_SCHEMA).combine_chunks()
            self._files[bucket].write_table(table)
        self._pending.clear()
        self._pending_bytes = 0

    def _path(self, bucket: int) -> Path:
        return self._folder / f"bucket-{bucket:02}.arrow"


def _parts(bucket: pa.Table) -> Iterator[pa.Table]:
    parts = -(-bucket.num_rows // PART_ROWS)
    if parts == 1:
        yield bucket
        return
    part_of = np.asarray(bucket.column("slice_number")) // BUCKETS % parts
    for part in range(parts):
        yield bucket.filter(pa.array(part_of == part))


def _arrival(delivery: Delivery, delivery_number: int) -> Arrival:
    return Arrival(delivery.delivered_at.timestamp(), delivery.name, delivery_number)
