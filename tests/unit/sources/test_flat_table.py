"""The flat table as BigQuery exports it: columns, dates, types, and refused rows."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flows.sources.deliveries import DeliveryFormat, PeriodType, RejectReason, ReportView
from flows.sources.find import find_deliveries
from flows.sources.read import read_delivery
from tests.unit.sources.written import (
    ASIN,
    FLAT_HEADINGS,
    SATURDAY,
    SUNDAY,
    a_row,
    find_one,
    flat_csv,
    flat_table,
    read_all,
    rejected_one,
    save,
    why,
)

FULL = {
    "parent_asin": "B0PARENT01",
    "product_name": "Example widget, blue",
    "client_name": "Example Client",
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "export"


def as_csv(path, rows):
    return save(path, flat_csv(rows))


def as_parquet(path, rows):
    pq.write_table(flat_table(rows), path)
    return path


both = pytest.mark.parametrize("written", [as_csv, as_parquet])


@both
def test_rows_name_their_week_asin_and_client(path, written):
    written(path, [a_row(**FULL), a_row("other", subject="B0EXAMPLE2")])
    delivery = find_one(path)
    assert delivery.delivery_format in (DeliveryFormat.FLAT_CSV, DeliveryFormat.FLAT_PARQUET)
    assert (delivery.report_view, delivery.period_type) == (ReportView.ASIN, PeriodType.WEEK)
    assert (delivery.account_id, delivery.period_start, delivery.declared) == (None, None, ())
    parsed = read_all(path)
    assert not parsed.rejected
    first, second = parsed.rows.to_pylist()
    assert {key: first[key] for key in FULL} == FULL
    assert (first["account_id"], second["account_id"]) == ("Example Client", "default")
    assert (first["subject"], second["subject"]) == (ASIN, "B0EXAMPLE2")
    assert (first["period_start"], first["period_end"]) == (SUNDAY, SATURDAY)
    assert first["own_impression_share"] == 0.01
    assert first["own_median_purchase_price"] == Decimal("1219.25")
    assert first["total_one_day_shipping_cart_add_count"] == 266
    assert first["currency_code"] == "USD"
    line = 2 if delivery.delivery_format is DeliveryFormat.FLAT_CSV else 1
    assert (first["source_line"], second["source_line"]) == (line, line + 1)


def test_every_column_lands_where_it_belongs(path):
    table = flat_table([a_row(**FULL)])
    for number, (field, heading) in enumerate(FLAT_HEADINGS.items()):
        if field.endswith(("_count", "_score", "_volume", "_share", "_rate", "_price")):
            low = field.startswith("own_") and field.endswith("_count")
            value = pa.array([0 if low else number], table.schema.field(heading).type)
            table = table.set_column(table.schema.names.index(heading), heading, value)
    pq.write_table(table, path)
    (row,) = read_all(path).rows.to_pylist()
    for number, field in enumerate(FLAT_HEADINGS):
        if field.endswith(("_share", "_rate")):
            assert row[field] == number / 100, field
        elif field.endswith(("_count", "_score", "_volume", "_price")):
            low = field.startswith("own_") and field.endswith("_count")
            assert row[field] == (0 if low else number), field


@pytest.mark.parametrize("rename", [str, str.lower, lambda name: name.replace(" ", "_"), str.upper])
def test_names_in_any_order_and_spelling_besides_others(path, rename):
    table = flat_table([a_row(**FULL)])
    table = table.append_column("Extra Column", pa.array([[1, 2]]))
    names = table.schema.names
    random.Random(7).shuffle(names)
    table = table.select(names).rename_columns([rename(name) for name in names])
    pq.write_table(table, path)
    in_parquet = read_all(path).rows
    assert in_parquet["own_click_count"].to_pylist() == [25]
    lines = flat_csv([a_row(**FULL)]).splitlines()
    save(path, f"{rename(lines[0])},Extra Column,\n{lines[1]},x,\n")
    assert (
        read_all(path)
        .rows.drop_columns(["source_line"])
        .equals(in_parquet.drop_columns(["source_line"]))
    )


MOMENT = datetime(2026, 11, 1, tzinfo=UTC)

DATES = [
    pa.array([SUNDAY]),
    pa.array([SATURDAY]),
    pa.array([SUNDAY], pa.date64()),
    pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("us")),
    pa.array([MOMENT], pa.timestamp("ns", "UTC")),
    pa.array([datetime(2026, 11, 7, 23, 59)], pa.timestamp("ms")),
    pa.array(["2026-11-01"]),
    pa.array(["2026-11-07 00:00:00 UTC"]),
    pa.array(["2026-11-01T00:00:00"], pa.large_string()),
    pa.array(["2026-11-07"]).dictionary_encode(),
]


@pytest.mark.parametrize("dates", DATES, ids=lambda dates: f"{dates.type} {dates[0]}")
def test_dates_of_any_type(path, dates):
    table = flat_table([a_row()])
    pq.write_table(table.set_column(0, "Date", dates), path)
    (row,) = read_all(path).rows.to_pylist()
    assert (row["period_start"], row["period_end"]) == (SUNDAY, SATURDAY)


@both
@pytest.mark.parametrize("day", range(2, 7))
def test_other_days_than_sunday_and_saturday_are_refused(path, written, day):
    written(path, [a_row(date=date(2026, 11, day)), a_row()])
    row = rejected_one(path, good=1)
    assert (row.reason_code, row.period_start) == (RejectReason.BAD_PERIOD, None)
    assert f"2026-11-0{day}" in row.reason
    assert (row.subject, row.account_id) == (ASIN, "default")


@pytest.mark.parametrize(
    "text", ["", "soon", "0001-01-07", "9999-12-31", "2026-11-31", "11/7/2026"]
)
def test_texts_that_are_no_certain_day_are_refused(path, text):
    save(path, flat_csv([a_row(date=text), a_row()]))
    expected = RejectReason.BAD_PERIOD if text else RejectReason.MISSING_VALUE
    assert rejected_one(path, good=1).reason_code is expected


@pytest.mark.parametrize("year", [1, 1950, 2300, 9999])
def test_typed_dates_of_impossible_years_are_refused(path, year):
    as_parquet(path, [a_row(date=date(year, 1, 7)), a_row()])
    assert rejected_one(path, good=1).reason_code is RejectReason.BAD_PERIOD


@pytest.mark.parametrize(
    "to", [pa.int32(), pa.float64(), pa.decimal128(38, 9), pa.string(), pa.large_string()]
)
def test_numbers_of_any_type(path, to):
    table = flat_table([a_row(), a_row("two", own_median_click_price=None)])
    for at, field in enumerate(table.schema):
        if field.type == pa.int64() or (field.type == pa.float64() and to != pa.int32()):
            table = table.set_column(at, field.name, table.column(at).cast(to))
    pq.write_table(table, path)
    changed = read_all(path).rows
    pq.write_table(flat_table([a_row(), a_row("two", own_median_click_price=None)]), path)
    assert changed.equals(read_all(path).rows)


def test_text_columns_may_be_dictionaries_or_binary(path):
    table = flat_table([a_row(**FULL), a_row("other")])
    expected = None
    for to in (pa.string(), pa.dictionary(pa.int32(), pa.string()), pa.binary(), pa.large_binary()):
        for at, field in enumerate(table.schema):
            if field.type == pa.string():
                column = table.column(at).cast(to)
                pq.write_table(table.set_column(at, field.name, column), path)
                rows = read_all(path).rows
                expected = expected or rows
                assert rows.equals(expected)


@pytest.mark.parametrize(
    ("heading", "column"),
    [
        ("ASIN Click Count", pa.array([True])),
        ("ASIN Click Count", pa.array([[1]])),
        ("ASIN Click Count", pa.array([SUNDAY])),
        ("Date", pa.array([20261107])),
        ("Search Query", pa.array([5])),
    ],
)
def test_a_column_of_an_unusable_type_makes_the_file_unreadable(path, heading, column):
    table = flat_table([a_row()])
    pq.write_table(table.set_column(table.schema.names.index(heading), heading, column), path)
    assert f"{heading!r} is of type" in why(path)


@pytest.mark.parametrize("heading", ["Date", "Child ASIN", "Search Query", "ASIN Purchase Count"])
def test_a_needed_column_that_is_missing_makes_the_file_unreadable(path, heading):
    table = flat_table([a_row()]).drop_columns([heading])
    pq.write_table(table, path)
    assert heading.lower() in why(path)
    save(path, flat_csv([a_row()]).replace(heading, "Something", 1))
    assert heading.lower() in why(path)


def test_columns_that_may_be_missing_are_empty(path):
    keep = [heading for heading in FLAT_HEADINGS.values() if heading.endswith("Count")]
    table = flat_table([a_row()]).select(["Date", "Child ASIN", "Search Query", *keep])
    pq.write_table(table, path)
    (row,) = read_all(path).rows.to_pylist()
    assert row["account_id"] == "default"
    assert row["own_click_share"] is row["total_median_click_price"] is row["product_name"] is None


def test_a_column_twice_makes_the_file_unreadable(path):
    table = flat_table([a_row()])
    pq.write_table(table.append_column("search_query", pa.array(["x"])), path)
    assert "two columns" in why(path)


BROKEN = {
    "negative": ({"own_click_count": -1}, RejectReason.NEGATIVE),
    "too large": ({"search_query_volume": 2**62}, RejectReason.OUT_OF_RANGE),
    "share": ({"own_click_share": 1.01}, RejectReason.SHARE_ABOVE_ONE),
    "NaN": ({"own_click_share": float("nan")}, RejectReason.NOT_A_NUMBER),
    "Infinity": ({"total_click_rate": float("inf")}, RejectReason.NOT_A_NUMBER),
    "NaN price": ({"own_median_click_price": float("nan")}, RejectReason.NOT_A_NUMBER),
    "price": ({"own_median_click_price": 1e10}, RejectReason.OUT_OF_RANGE),
    "own": ({"own_purchase_count": 501, "own_purchase_share": 1.0}, RejectReason.OWN_ABOVE_TOTAL),
    "no count": ({"total_click_count": None}, RejectReason.MISSING_VALUE),
    "no query": ({"search_query": None}, RejectReason.MISSING_VALUE),
    "blank query": ({"search_query": " "}, RejectReason.MISSING_VALUE),
    "no ASIN": ({"subject": None}, RejectReason.MISSING_VALUE),
    "ASIN": ({"subject": "B0example1"}, RejectReason.BAD_ASIN),
    "NUL": ({"search_query": "a\0b"}, RejectReason.BAD_TEXT),
    "NUL in a name": ({"product_name": "a\0b"}, RejectReason.BAD_TEXT),
    "NUL in the client": ({"client_name": "a\0b"}, RejectReason.BAD_TEXT),
    "long client": ({"client_name": "x" * 256}, RejectReason.BAD_TEXT),
}


@both
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_refused_and_only_it(path, written, name):
    changes, reason = BROKEN[name]
    written(path, [a_row("before"), a_row(**{"search_query": "broken", **changes}), a_row("after")])
    row = rejected_one(path, good=2)
    assert row.reason_code is reason
    assert row.reason.isascii()
    delivered = json.loads(row.delivered_text)
    assert delivered["Child ASIN"] in (changes.get("subject", ASIN), "")
    assert row.line == read_all(path).rows["source_line"][0].as_py() + 1


def test_the_first_rule_that_a_row_breaks_is_told(path):
    as_parquet(path, [a_row("a\0b", own_click_count=-1), a_row(own_click_count=-1, subject="B0")])
    assert [row.reason_code for row in read_all(path).rejected] == [
        RejectReason.BAD_TEXT,
        RejectReason.BAD_ASIN,
    ]


def test_broken_utf8_refuses_its_row(path):
    table = flat_table([a_row("good"), a_row("broken")])
    at = table.schema.names.index("Search Query")
    broken = pa.array([b"good", b"br\xffken"], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(at, "Search Query", broken), path)
    row = rejected_one(path, good=1)
    assert row.reason_code is RejectReason.BAD_TEXT
    assert json.loads(row.delivered_text)["Search Query"] == "br\udcffken"
    save(path, flat_csv([a_row("good"), a_row("broken")]).encode().replace(b"brok", b"br\xffk"))
    assert rejected_one(path, good=1).line == 3


@both
def test_long_queries_load(path, written):
    written(path, [a_row("x" * 6_000), a_row("é" * 1_000_000)])
    assert pc.utf8_length(read_all(path).rows["query"]).to_pylist() == [6_000, 1_000_000]


@both
def test_no_rows_at_all(path, written):
    written(path, [])
    assert len(read_all(path).rows) == 0


@both
def test_an_account_given_is_of_all_rows(path, written):
    written(path, [a_row(**FULL)])
    (delivery,), _ = find_deliveries([str(path)], marketplace="US", account=" Mine ")
    (batch,) = read_delivery(delivery)
    assert batch.rows["account_id"].to_pylist() == ["Mine"]
    assert batch.rows["client_name"].to_pylist() == ["Example Client"]


@pytest.mark.parametrize("kept", [4, 100, 0.5, 0.99])
def test_a_cut_parquet_file_is_unreadable(path, kept):
    as_parquet(path, [a_row(f"query {number}") for number in range(1000)])
    data = path.read_bytes()
    save(path, data[: int(kept if kept > 1 else kept * len(data))])
    assert "cannot be read" in why(path)


def test_parquet_that_breaks_in_the_middle_is_unreadable(path):
    rows = [a_row(f"query {number}") for number in range(20_000)]
    pq.write_table(
        flat_table(rows), path, row_group_size=1000, write_page_checksum=True, compression="snappy"
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = b"\xaa" * 2000
    save(path, bytes(data))
    find_one(path)
    assert "damaged" in why(path)


def test_zipped_csv_that_is_cut_is_unreadable(path):
    save(path, flat_csv(a_row(f"query {n}") for n in range(20_000)), zipped=True)
    save(path, path.read_bytes()[:-2000])
    find_one(path)
    assert "gzip" in why(path)


def test_parquet_inside_gzip_is_refused(path):
    save(path, as_parquet(path, [a_row()]).read_bytes(), zipped=True)
    assert "unzip" in why(path)
