"""Makes a bucket of the spool ready for landing: which rows count, and each slice's digest.

Nothing here touches the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flows.sources.deliveries import ROW_SCHEMA
from flows.warehouse.row_hashes import RowHashes, digest_words, slice_digest, sort_out_duplicates

KEY_COLUMNS = ("account_id", "period_start", "period_end", "subject", "query", "query_digest")
VALUE_COLUMNS = tuple(
    name for name in ROW_SCHEMA.names if name not in (*KEY_COLUMNS, "search_query", "source_line")
)
"""What two deliveries of one key must agree on; they may spell the query differently."""

CONTENT_COLUMNS = (*VALUE_COLUMNS, "search_query")
"""What a row says beside its key: what decides whether it changed."""

Numbers = npt.NDArray[np.int32]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PreparedSlice:
    """A slice of a bucket: its number in the run, its digest, and where its rows are.

    `positions` are in the order of the query digest, which is that of the landing table's key.
    """

    number: int
    digest: bytes
    positions: Positions


@dataclass(frozen=True)
class PreparedBucket:
    """A bucket, ready to be landed.

    Attributes:
        rows: of the deliveries that hold, in the order in which they were read.
        slices: those with rows to land, by period start.
        present: the numbers of all slices that came with rows.
        superseded, repeated: the slice number of each row that a later delivery of its slice
            replaced, and of each that only repeats another.
        conflicting: rows whose key came with different values.
    """

    rows: pa.Table
    slices: list[PreparedSlice]
    present: Numbers
    superseded: Numbers
    repeated: Numbers
    conflicting: pa.Table


def prepare(bucket: pa.Table, holding: Positions, failed: set[int]) -> PreparedBucket:
    """Sort out the rows of a bucket.

    Args:
        holding: by slice number, the number of the delivery that holds, or -1.
        failed: the numbers of deliveries that broke: their rows do not count at all.
    """
    numbers = np.asarray(bucket.column("slice_number"))
    deliveries = np.asarray(bucket.column("delivery_number"))
    holds = holding[numbers] == deliveries
    superseded = numbers[~holds & ~np.isin(deliveries, list(failed))]
    if not holds.all():
        bucket, numbers = bucket.filter(pa.array(holds)), numbers[holds]

    key = digest_words(bucket.column("query_digest"))
    hashes = RowHashes(bucket, VALUE_COLUMNS)
    starts = np.asarray(bucket.column("period_start").cast(pa.int32()))
    lines = np.asarray(bucket.column("source_line"))
    order = np.lexsort((lines, key[:, 1], key[:, 0], numbers, starts))
    good, repeated, conflicting = sort_out_duplicates(
        numbers[order], key[order], hashes.values[:, order]
    )
    landed = order[good]
    return PreparedBucket(
        rows=bucket,
        slices=list(_slices(numbers[landed], landed, hashes.contents[:, landed])),
        present=np.unique(numbers),
        superseded=superseded,
        repeated=numbers[order[repeated]],
        conflicting=bucket.take(pa.array(order[conflicting])),
    )


def _slices(
    numbers: Numbers, positions: Positions, contents: npt.NDArray[np.uint64]
) -> Iterator[PreparedSlice]:
    if not len(numbers):
        return
    firsts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist()]
    sums = np.add.reduceat(contents, firsts, axis=1)
    for index, (first, stop) in enumerate(pairwise([*firsts, len(numbers)])):
        yield PreparedSlice(
            number=int(numbers[first]),
            digest=slice_digest(sums[:, index], stop - first),
            positions=positions[first:stop],
        )
