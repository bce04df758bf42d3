"""What holds for every format: the same rows, nothing lost, and only named errors."""

from __future__ import annotations

import gzip
import io
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.errors import UnreadableDelivery, UsageError
from flows.sources import csv_text
from flows.sources.deliveries import ROW_SCHEMA
from flows.sources.find import find_deliveries
from flows.sources.normalise import normalise_query, query_digest
from flows.sources.read import read_delivery
from tests.unit.sources.written import (
    NOUNS,
    SATURDAY,
    SPEEDS,
    SUNDAY,
    a_row,
    csv_cells,
    download,
    find_one,
    flat_csv,
    flat_table,
    header,
    metadata,
    read_all,
    report,
    report_bytes,
    report_row,
    save,
    written_csv,
)


def parquet_bytes(rows):
    file = io.BytesIO()
    pq.write_table(flat_table(rows), file, row_group_size=3)
    return file.getvalue()


FORMATS = {
    "report": report_bytes,
    "download": lambda rows: download(rows).encode(),
    "flat csv": lambda rows: flat_csv(rows).encode(),
    "flat parquet": parquet_bytes,
}

each_format = pytest.mark.parametrize("name", FORMATS)
counts = st.integers(0, 10**12 - 1)
prices = st.decimals("0.01", 10**6, places=2)
# The last characters of Unicode stand for bytes that are not UTF-8 while a file is read.
queries = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0", max_codepoint=0x10FEFF),
    min_size=1,
).filter(str.strip)


@st.composite
def sound_rows(draw):
    changes = {"search_query_score": draw(counts), "search_query_volume": draw(counts)}
    total = changes["total_query_impression_count"] = draw(counts)
    changes["own_impression_count"] = draw(st.integers(0, total))
    shares = {"own_impression_share": draw(st.integers(0, 10_000)) / 10_000}
    for stage in NOUNS:
        total = changes[f"total_{stage}_count"] = draw(counts)
        own = changes[f"own_{stage}_count"] = draw(st.integers(0, total))
        shares[f"own_{stage}_share"] = draw(st.integers(0, 10_000)) / 10_000
        shares[f"total_{stage}_rate"] = draw(st.integers(0, 50_000)) / 10_000
        changes[f"total_median_{stage}_price"] = draw(prices) if total else None
        changes[f"own_median_{stage}_price"] = draw(prices) if own else None
        for speed in SPEEDS:
            changes[f"total_{speed}_day_shipping_{stage}_count"] = draw(counts)
    return a_row(draw(queries), **changes, **shares)


@given(st.lists(sound_rows(), min_size=1, max_size=4))
def test_the_same_rows_in_any_format_are_the_same(tmp_path, rows):
    read = {}
    for name, written in FORMATS.items():
        parsed = read_all(save(tmp_path / "file", written(rows)))
        assert not parsed.rejected, name
        read[name] = parsed.rows.drop_columns(["source_line"])
    assert len({name for name in read if read[name].equals(read["report"])}) == len(FORMATS)
    for row, delivered in zip(read["report"].to_pylist(), rows, strict=True):
        assert {field: row[field] for field in delivered} == delivered
        assert row["query"] == normalise_query(delivered["search_query"])
        assert row["query_digest"] == query_digest(row["query"])
        assert (row["period_start"], row["period_end"]) == (SUNDAY, SATURDAY)


@each_format
def test_rows_are_in_the_one_schema(tmp_path, name):
    path = save(tmp_path / "file", FORMATS[name]([a_row(), a_row("b", own_click_count=-1)]))
    for batch in read_delivery(find_one(path)):
        assert batch.rows.schema.equals(ROW_SCHEMA)
        batch.rows.validate(full=True)
        for field, column in zip(ROW_SCHEMA, batch.rows.columns, strict=True):
            assert field.nullable or column.null_count == 0, field


BROKEN = st.sampled_from([
    {},
    {"own_click_count": -1},
    {"own_click_share": 1.5},
    {"own_click_count": 10**6, "own_click_share": 1.0},
    {"subject": "B0"},
    {"search_query": "a\nb"},
    {"search_query": "\t"},
    {"search_query": "NUL \0"},
])  # fmt: skip


def summary(batches):
    rows = [row for batch in batches for row in batch.rows.to_pylist()]
    return rows, [row for batch in batches for row in batch.rejected]


@each_format
@given(changes=st.lists(BROKEN, max_size=12), batch_rows=st.integers(1, 7))
def test_the_size_of_batches_does_not_matter(tmp_path, name, changes, batch_rows):
    rows = [a_row(**{"search_query": f"row {at}", **change}) for at, change in enumerate(changes)]
    delivery = find_one(save(tmp_path / "file", FORMATS[name](rows)))
    whole, small = (list(read_delivery(delivery, batch_rows=size)) for size in (65_536, batch_rows))
    assert summary(small) == summary(whole)
    assert all(len(batch.rows) <= batch_rows for batch in small)
    good, rejected = summary(whole)
    assert len(good) + len(rejected) == len(rows)
    lines = [row["source_line"] for row in good] + [row.line for row in rejected]
    assert len(set(lines)) == len(rows)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.sampled_from(["", "0", "-1", "1e3", "NaN", "inf", "1,000", "9" * 25, " 7 ", "0x1"])


@given(st.lists(st.tuples(st.integers(0, 33), texts | numbers), max_size=6), st.integers(0, 9))
def test_every_row_of_a_download_is_good_or_rejected(tmp_path, changes, ragged):
    lines = [csv_cells(a_row(f"row {at}")) for at in range(len(changes))]
    for cells, (at, text) in zip(lines, changes, strict=True):
        cells[at] = text
    lines += [["x"] * (at + 2) for at in range(ragged)]
    path = save(tmp_path / "file", f"{metadata()}\n{written_csv([header(), *lines])}")
    parsed = read_all(path)
    assert len(parsed.rows) + len(parsed.rejected) == len(lines)
    for row in parsed.rejected:
        json.loads(row.delivered_text)
        assert row.reason.isascii()
        assert row.delivered_text.isascii()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed_elements(draw):
    element = report_row(a_row())
    place = element
    while draw(st.booleans()) and isinstance(place, dict):
        inner = [key for key in place if isinstance(place[key], dict)]
        if not inner:
            break
        place = place[draw(st.sampled_from(inner))]
    key = draw(st.sampled_from(sorted(place)))
    place[key] = draw(json_values)
    return element


@given(st.lists(changed_elements() | json_values, max_size=5))
def test_every_row_of_a_report_is_good_or_rejected(tmp_path, elements):
    path = save(tmp_path / "file", json.dumps(report(elements)))
    parsed = read_all(path)
    assert len(parsed.rows) + len(parsed.rejected) == len(elements)
    for row in parsed.rejected:
        assert row.delivered_text == json.dumps(elements[row.line - 1])
        assert row.reason.isascii()


def read_whatever(path):
    """Find and read a file; only the errors that users are told may come."""
    try:
        found, _ = find_deliveries([str(path)], marketplace="US", account=None)
        for delivery in found:
            for batch in read_delivery(delivery):
                batch.rows.validate(full=True)
                for row in batch.rejected:
                    json.loads(row.delivered_text, strict=False)
                    row.reason.encode()
                    row.delivered_text.encode()
    except (UnreadableDelivery, UsageError) as error:
        str(error).encode()


@given(
    st.sampled_from([b"", b"{", b"[", b"PAR1", b"\x1f\x8b", b"\xff\xfe", b"\xef\xbb\xbf",
                     b'ASIN=["', metadata().encode() + b"\n", b'{"dataByAsin":[']),
    st.binary(),
    st.booleans(),
)  # fmt: skip
def test_any_bytes_are_read_or_refused_by_name(tmp_path, start, rest, zipped):
    read_whatever(save(tmp_path / "file", start + rest, zipped=zipped))


SOUND = [a_row("größe"), a_row('10" tube, "xl"'), a_row("a\nb", own_median_click_price=None)]


@each_format
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=6)),
                     min_size=1, max_size=5),
    zipped=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-16", "cp1252"]),
)  # fmt: skip
def test_damaged_files_are_read_or_refused_by_name(tmp_path, name, changes, zipped, encoding):
    data = FORMATS[name](SOUND)
    if name != "flat parquet":
        data = data.decode().encode(encoding)
    if zipped:
        data = gzip.compress(data)
    for where, cut, put in changes:
        at = int(where * len(data))
        data = data[:at] + put + data[at + cut :]
    read_whatever(save(tmp_path / "file", data))


@each_format
@given(where=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_gives_no_row_that_was_not_there(tmp_path, name, where):
    """But for plain CSV whose last cell is cut: nothing in such a file says so."""
    data = FORMATS[name](SOUND)
    whole = read_all(save(tmp_path / "file", data)).rows.to_pylist()
    path = save(tmp_path / "file", data[: int(where * len(data))])
    try:
        rows = read_all(path).rows.to_pylist()
    except UnreadableDelivery:
        return
    assert name in ("download", "flat csv")
    last_cell = ROW_SCHEMA.names[-3] if name == "flat csv" else "source_line"
    for cut, uncut in zip(rows, whole, strict=False):
        assert cut | {last_cell: 0} == uncut | {last_cell: 0}


@pytest.mark.parametrize("name", ["flat csv", "flat parquet", "download"])
def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch, name):
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 1 << 16)

    def peak(rows):
        if name == "flat parquet":
            table = flat_table([a_row(f"query {at}") for at in range(1000)])
            path = tmp_path / "file"
            with pq.ParquetWriter(path, table.schema) as writer:
                for _ in range(rows // 1000):
                    writer.write_table(table)
        else:
            path = save(tmp_path / "file", FORMATS[name](a_row(f"q {at}") for at in range(rows)))
        delivery = find_one(path)
        before = pa.total_allocated_bytes()
        most = read = 0
        for batch in read_delivery(delivery, batch_rows=1000):
            most = max(most, pa.total_allocated_bytes() - before)
            read += len(batch.rows)
        assert read == rows
        return most

    assert peak(24_000) < 1.5 * peak(6_000)


def test_prices_keep_their_cents(tmp_path):
    rows = [a_row(total_median_click_price=Decimal(cents) / 100) for cents in range(1, 3000)]
    for written in FORMATS.values():
        read = read_all(save(tmp_path / "file", written(rows))).rows
        assert read["total_median_click_price"].to_pylist() == [
            Decimal(cents) / 100 for cents in range(1, 3000)
        ]
