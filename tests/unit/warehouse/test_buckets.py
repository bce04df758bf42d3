"""Buckets: digests that say exactly whether a slice changed, and what counts of its rows."""

from __future__ import annotations

import random
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from flows.sources.deliveries import ROW_SCHEMA
from flows.warehouse.buckets import CONTENT_COLUMNS, prepare
from flows.warehouse.spool import SPOOL_SCHEMA
from tests.integration.deliveries import row

Row = dict[str, Any]

rows_of_a_slice = st.dictionaries(
    st.text("abcé ", min_size=1, max_size=4), st.integers(0, 2**61), min_size=1, max_size=6
)


def spooled(queries: dict[str, int], number: int = 0, delivery: int = 0) -> list[Row]:
    start = date(2026, 11, 1) + timedelta(weeks=number)
    return [
        row("B000000001", start, query, impressions % 10**6, line)
        | {
            "search_query_volume": impressions,
            "asin": None,
            "slice_number": number,
            "delivery_number": delivery,
        }
        for line, (query, impressions) in enumerate(queries.items(), 1)
    ]


def bucket(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SPOOL_SCHEMA)


def digests(rows: list[Row]) -> dict[int, bytes]:
    holding = np.zeros(10, dtype=np.int64)
    return {each.number: each.digest for each in prepare(bucket(rows), holding, set()).slices}


def changed(value: Any) -> Any:
    match value:
        case None:
            return 1
        case bool() | int() | float():
            return value + 1
        case Decimal():
            return value + Decimal("0.0001")
        case _:
            return f"{value}x"


@given(queries=rows_of_a_slice, order=st.randoms(use_true_random=False))
def test_the_order_and_the_chunks_of_rows_do_not_matter(
    queries: dict[str, int], order: random.Random
) -> None:
    rows = spooled(queries)
    rows[0]["search_query"] = rows[0]["search_query"].upper()
    shuffled = rows.copy()
    order.shuffle(shuffled)
    cut = order.randint(0, len(rows))
    pieces = pa.concat_tables([bucket(shuffled[:cut]), bucket(shuffled[cut:])])
    (prepared,) = prepare(pieces, np.zeros(1, dtype=np.int64), set()).slices
    assert prepared.digest == digests(rows)[0]


@given(
    queries=rows_of_a_slice,
    column=st.sampled_from(CONTENT_COLUMNS),
    to_null=st.booleans(),
    choose=st.randoms(use_true_random=False),
)
def test_any_change_of_any_column_changes_the_digest_of_its_slice_only(
    queries: dict[str, int], column: str, to_null: bool, choose: random.Random
) -> None:
    rows = spooled(queries) + spooled(queries, number=1)
    before = digests(rows)
    victim = choose.randrange(len(queries))
    value = changed(rows[victim].get(column))
    if pa.types.is_string(ROW_SCHEMA.field(column).type):
        value = str(value)
    elif pa.types.is_decimal(ROW_SCHEMA.field(column).type):
        value = Decimal(value)
    if to_null and ROW_SCHEMA.field(column).nullable and rows[victim].get(column) is not None:
        value = None
    after = digests([*rows[:victim], rows[victim] | {column: value}, *rows[victim + 1 :]])
    assert after[0] != before[0]
    assert after[1] == before[1]


@given(queries=rows_of_a_slice)
def test_a_row_less_and_a_value_moved_to_another_row_change_the_digest(
    queries: dict[str, int],
) -> None:
    rows = spooled(queries)
    assert digests(rows[1:]).get(0) != digests(rows)[0]
    if len({each["search_query_volume"] for each in rows}) > 1:
        volumes = [each["search_query_volume"] for each in rows]
        moved = [
            each | {"search_query_volume": volume}
            for each, volume in zip(rows, volumes[1:] + volumes[:1], strict=True)
        ]
        assert digests(moved)[0] != digests(rows)[0]


def test_rows_are_ready_in_the_order_of_the_key() -> None:
    queries = {f"query {number}": number for number in range(200)}
    rows = spooled(queries, number=1) + spooled(queries)
    prepared = prepare(bucket(rows), np.zeros(2, dtype=np.int64), set())
    assert [each.number for each in prepared.slices] == [0, 1]
    for each in prepared.slices:
        keys = prepared.rows.take(pa.array(each.positions)).column("query_digest").to_pylist()
        assert keys == sorted(keys)


def test_what_a_later_delivery_replaces_and_what_a_broken_one_brought_is_told_apart() -> None:
    rows = [
        *spooled({"old": 1, "older": 2}, delivery=0),
        *spooled({"new": 3}, delivery=1),
        *spooled({"broken": 4}, delivery=2),
    ]
    prepared = prepare(bucket(rows), np.array([1]), {2})
    assert prepared.rows.column("query").to_pylist() == ["new"]
    assert prepared.superseded.tolist() == [0, 0]
    assert prepared.present.tolist() == [0]
