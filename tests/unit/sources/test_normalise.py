"""Query keys and the casting of numbers."""

from __future__ import annotations

import hashlib
import unicodedata
from decimal import Decimal
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.sources.deliveries import RejectReason
from flows.sources.normalise import (
    Notation,
    normalise_query,
    parse_number,
    query_digest,
    query_keys,
    to_counts,
    to_prices,
    to_rates,
    to_shares,
)

PERCENT = Notation(percent=True)
FRACTION = Notation(percent=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts)
def test_normalising_twice_is_normalising_once(text):
    assert normalise_query(normalise_query(text)) == normalise_query(text)


@given(texts)
def test_a_key_is_lower_case_nfc_without_needless_space(text):
    key = normalise_query(text)
    assert unicodedata.is_normalized("NFC", key)
    assert key == key.strip()
    assert not any(a.isspace() and b.isspace() for a, b in pairwise(key))
    assert key == unicodedata.normalize("NFC", key.lower())


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("  Blue\t\nWidget  ", "blue widget"),
        ("cafe\u0301", "café"),
        ("CAFE\u0301", "café"),
        ("J\u030c", "ǰ"),
        ("a\u00a0b\u3000c", "a b c"),
        ("a\x1cb", "a b"),
        ("STRASSE ß", "strasse ß"),
        ("", ""),
    ],
)
def test_written_forms_of_a_query_have_one_key(written, key):
    assert normalise_query(written) == key
    assert query_keys(pa.array([written]))[0].to_pylist() == [key]


def test_the_digest_is_half_a_sha256():
    assert query_digest("blue widget") == hashlib.sha256(b"blue widget").digest()[:16]


@given(st.lists(st.none() | texts | st.text("aB \t", max_size=6)))
def test_a_column_has_the_keys_of_its_values(queries):
    keys = query_keys(pa.array(queries, pa.string()))
    expected = [None if query is None else normalise_query(query) for query in queries]
    assert keys.query.to_pylist() == expected
    assert keys.digest.to_pylist() == [
        None if key is None else query_digest(key) for key in expected
    ]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1234", "1234"),
        (" 1,234 ", "1234"),
        ("1,234,567.5", "1234567.5"),
        ("1 234 567", "1234567"),
        ("1\u00a0234", "1234"),
        ("1'234", "1234"),
        ("-3", "-3"),
        ("1e3", "1000"),
        (".5", "0.5"),
        ("5.", "5"),
    ],
)
def test_numbers_as_people_write_them(text, number):
    assert parse_number(text) == Decimal(number)


@pytest.mark.parametrize(
    "text",
    ["", "abc", "1,23", "1,2345", "1,234 567", "12,5", "1.2.3", "nan", "inf", "0x10", "--1",
     "1_000", "5%", "1e99999999999", "١٢", "1,234.5,6", "1.234,5"],
)  # fmt: skip
def test_what_is_no_number(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("1.234,5", "1234.5"), ("1.234", "1234"), ("0,5", "0.5"), ("15.50", "15.50"), ("7", "7")],
)
def test_a_decimal_comma(text, number):
    assert parse_number(text, decimal_comma=True) == Decimal(number)


def test_a_percent_sign_only_where_it_makes_sense():
    assert parse_number("12.5 %", percent_sign=True) == Decimal("12.5")
    assert to_counts(pa.array(["5%"]), PERCENT).faults[0].rows.tolist() == [True]
    assert to_shares(pa.array(["5%"]), PERCENT).values.to_pylist() == [0.05]


def faults(numbers):
    """Row → reason, the first one."""
    return {
        int(row): fault.reason
        for fault in reversed(numbers.faults)
        for row, wrong in enumerate(fault.rows)
        if wrong
    }


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([1300, None, 0]),
        pa.array([1300, None, 0], pa.int16()),
        pa.array([1300, None, 0], pa.uint64()),
        pa.array([1300.0, None, 0.0]),
        pa.array([Decimal("1300.00"), None, Decimal(0)]),
        pa.array(["1300", None, "0"]),
        pa.array(["1,300", "", "0.0"]),
        pa.array([b"1300", None, b"-0"]),
    ],
    ids=lambda cells: str(cells.type),
)
def test_counts_from_any_type(cells):
    numbers = to_counts(cells, PERCENT)
    assert numbers.values.to_pylist() == [1300, None, 0]
    assert numbers.values.type == pa.int64()
    assert not faults(numbers)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (pa.array([-1]), RejectReason.NEGATIVE),
        (pa.array(["-1"]), RejectReason.NEGATIVE),
        (pa.array([2**62]), RejectReason.OUT_OF_RANGE),
        (pa.array([2**63], pa.uint64()), RejectReason.OUT_OF_RANGE),
        (pa.array([1.5]), RejectReason.OUT_OF_RANGE),
        (pa.array(["1.5"]), RejectReason.OUT_OF_RANGE),
        (pa.array(["1e400"]), RejectReason.OUT_OF_RANGE),
        (pa.array([float("nan")]), RejectReason.NOT_A_NUMBER),
        (pa.array(["0x10"]), RejectReason.NOT_A_NUMBER),
        (pa.array(["\x00"]), RejectReason.NOT_A_NUMBER),
    ],
)
def test_faulty_counts(cells, reason):
    numbers = to_counts(pa.concat_arrays([cells, pa.array([7]).cast(cells.type)]), PERCENT)
    assert faults(numbers) == {0: reason}
    assert numbers.values[1].as_py() == 7


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), RejectReason.NOT_A_NUMBER),
        (float("inf"), RejectReason.NOT_A_NUMBER),
        (-0.01, RejectReason.NEGATIVE),
        (1.0001, RejectReason.SHARE_ABOVE_ONE),
    ],
)
def test_faulty_shares(value, reason):
    for cells in (pa.array([value, 1.0]), pa.array([str(value), "1"])):
        assert faults(to_shares(cells, FRACTION)) == {0: reason}


def test_shares_are_fractions_and_end_at_one():
    assert to_shares(pa.array([2.6, 100.0, None]), PERCENT).values.to_pylist() == [0.026, 1.0, None]
    assert to_shares(pa.array([1 + 1e-10]), FRACTION).values.to_pylist() == [1.0]


def test_rates_may_exceed_one_but_not_a_million():
    assert not faults(to_rates(pa.array([3.5, 1e6]), FRACTION))
    assert faults(to_rates(pa.array([1.1e6]), FRACTION)) == {0: RejectReason.OUT_OF_RANGE}


@given(st.lists(st.none() | st.decimals(0, 10**9, places=4), min_size=1))
def test_prices_are_exact_from_any_type(prices):
    as_text = pa.array([None if price is None else f"{price:f}" for price in prices], pa.string())
    as_float = pa.array([None if price is None else float(price) for price in prices], pa.float64())
    as_decimal = pa.array(prices, pa.decimal128(38, 9))
    for cells in (as_text, as_float, as_decimal):
        numbers = to_prices(cells, PERCENT)
        assert numbers.values.to_pylist() == prices
        numbers.values.validate(full=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nan", RejectReason.NOT_A_NUMBER),
        ("-1", RejectReason.NEGATIVE),
        ("10000000000", RejectReason.OUT_OF_RANGE),
        ("free", RejectReason.NOT_A_NUMBER),
    ],
)
def test_faulty_prices(text, reason):
    numbers = to_prices(pa.array([text, "2.50"]), PERCENT)
    assert faults(numbers) == {0: reason}
    assert numbers.values[1].as_py() == Decimal("2.5000")


@given(st.lists(st.sampled_from(["12", "-1", "abc", "", " 7", "1.0", "0x10", "9" * 19, "+5"])))
def test_a_column_is_cast_as_its_cells_are(cells):
    whole = to_counts(pa.array(cells, pa.string()), PERCENT)
    each = [to_counts(pa.array([cell]), PERCENT) for cell in cells]
    assert faults(whole) == {row: faults(one)[0] for row, one in enumerate(each) if faults(one)}
    assert [
        value for row, value in enumerate(whole.values.to_pylist()) if row not in faults(whole)
    ] == [one.values[0].as_py() for one in each if not faults(one)]
