"""Regroups the rows of a run by slice without holding them in memory.

Deliveries bring slices in any order, split over batches and files. The spool deals rows into
buckets by slice, on disk once they outgrow memory, so that each slice lies whole in one bucket
and a bucket is small enough to sort.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
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
        arrivals: by slice number, the deliveries that brought rows of it.
        declared: by slice number, the deliveries that spoke for it.
    """

    def __init__(self, folder: Path) -> None:
        self.keys: list[SliceKey] = []
        self.arrivals: dict[int, tuple[Arrival, ...]] = {}
        self.declared: dict[int, tuple[Arrival, ...]] = {}
        self._folder = folder
        self._numbers: dict[SliceKey, int] = {}
        self._pending: dict[int, list[pa.RecordBatch]] = defaultdict(list)
        self._pending_bytes = 0
        self._row_counts: Counter[int] = Counter()
        self._files: dict[int, pa.ipc.RecordBatchFileWriter] = {}

    def declare(self, delivery: Delivery, delivery_number: int) -> None:
        """Note the slices that a delivery speaks for, with or without rows of them."""
        for key in delivery.declared:
            plain = key._replace(report_view=str(key.report_view), period_type=str(key.period_type))
            _note(self.declared, self._number(plain), _arrival(delivery, delivery_number))

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
            self._row_counts[int(bucket)] += int(stop - start)
        self._pending_bytes += dealt.nbytes
        if self._pending_bytes > MEMORY_BYTES:
            self._spill()

    @property
    def is_large(self) -> bool:
        """Whether it holds more rows than are handed out at a time."""
        return self._row_counts.total() > PART_ROWS

    def buckets(self) -> Generator[pa.Table, None, None]:
        """The buckets, one after the other, large ones in parts; each has its slices whole."""
        for writer in self._files.values():
            writer.close()
        for bucket, rows in sorted(self._row_counts.items()):
            parts = -(-rows // PART_ROWS)
            for part in range(parts):
                yield pa.Table.from_batches(
                    [_part(batch, part, parts) for batch in self._batches(bucket)], SPOOL_SCHEMA
                )
            self._pending.pop(bucket, None)
            if bucket in self._files:
                self._path(bucket).unlink()

    def _batches(self, bucket: int) -> Iterator[pa.RecordBatch]:
        """The batches of a bucket, those on disk read one by one."""
        if bucket in self._files:
            with pa.OSFile(str(self._path(bucket))) as source, pa.ipc.open_file(source) as file:
                yield from map(file.get_batch, range(file.num_record_batches))
        yield from self._pending.get(bucket, [])

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
            _note(self.arrivals, number, arrival)
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


def _part(batch: pa.RecordBatch, part: int, parts: int) -> pa.RecordBatch:
    """Those rows of a batch whose slices belong to one of so many parts of its bucket."""
    if parts == 1:
        return batch
    part_of = np.asarray(batch.column("slice_number")) // BUCKETS % parts
    return batch.filter(pa.array(part_of == part))


def _note(arrivals: dict[int, tuple[Arrival, ...]], number: int, arrival: Arrival) -> None:
    before = arrivals.get(number, ())
    if arrival not in before:
        arrivals[number] = (*before, arrival)


def _arrival(delivery: Delivery, delivery_number: int) -> Arrival:
    return Arrival(delivery.delivered_at.timestamp(), delivery.name, delivery_number)
