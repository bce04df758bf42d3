"""Seller Central downloads: both views, as downloaded and as spreadsheets leave them."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

from flows.sources.deliveries import DeliveryFormat, PeriodType, RejectReason, ReportView
from tests.unit.sources.written import (
    ASIN,
    FIXTURES,
    HEADER_FIELDS,
    SATURDAY,
    SUNDAY,
    a_row,
    csv_cells,
    download,
    find_one,
    header,
    metadata,
    read_all,
    rejected_one,
    save,
    why,
    written_csv,
)

QUERIES = ["example widget", 'größe 10, "xl" widget', "no own clicks"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "download.csv"


@pytest.mark.parametrize(("view", "subject"), [("ASIN", ASIN), ("Brand", "Example Brand")])
def test_both_views_as_downloaded(view, subject):
    name = f"US_Search_Query_Performance_{view}_View_Comprehensive_Week_2026_11_07.csv"
    delivery = find_one(FIXTURES / name, marketplace=None)
    assert delivery.delivery_format is DeliveryFormat.SELLER_CENTRAL_CSV
    assert (delivery.report_view, delivery.period_type) == (view.lower(), PeriodType.WEEK)
    assert [(key.subject, key.report_view, key.period_start) for key in delivery.declared] == [
        (subject, view.lower(), SUNDAY)
    ]
    parsed = read_all(FIXTURES / name, marketplace=None)
    assert not parsed.rejected
    rows = parsed.rows.to_pylist()
    assert [row["search_query"] for row in rows] == QUERIES
    assert [row["source_line"] for row in rows] == [3, 4, 5]
    assert {(row["subject"], row["currency_code"]) for row in rows} == {(subject, "USD")}
    assert rows[1]["own_impression_share"] == 0.025
    assert rows[1]["total_click_rate"] == 0.5
    assert rows[2]["own_median_click_price"] is None
    assert rows[2]["total_median_click_price"] == Decimal("11.25")
    assert rows[0]["total_one_day_shipping_purchase_count"] == 250


def test_every_column_lands_where_it_belongs(path):
    cells = [str(number) for number in range(1, 35)]
    cells[0] = "query"
    for at in (4, 8, 17, 26):
        cells[at] = "1"
    cells[33] = "2026-11-07"
    save(path, f"{metadata()}\n{written_csv([header(), cells])}")
    (row,) = read_all(path).rows.to_pylist()
    for field, cell in zip(HEADER_FIELDS[1:], cells[1:33], strict=True):
        scale = 100 if field.endswith(("_share", "_rate")) else 1
        assert float(row[field]) == float(cell) / scale, field


FIRST_LINES = {
    "quoted": metadata(),
    "unquoted": metadata(quoted=False),
    "trailing cells": metadata() + "," * 31,
    "trailing semicolons": metadata(quoted=False).replace("],", "];") + ";" * 31,
    "older key": metadata(quoted=False).replace("ASIN or Product=", "ASIN="),
    "with spaces": metadata(quoted=False).replace("=[", " = [ ").replace("],", " ] ,"),
    "small letters": metadata(quoted=False).replace("Select week", "select Week"),
    "no trailing year": metadata().replace(' 2026""]', '""]'),
    "brand besides": 'Brand=["X"],' + metadata(quoted=False),
}


@pytest.mark.parametrize("name", FIRST_LINES)
def test_variants_of_the_first_line(path, name):
    save(path, download([a_row()], first_line=FIRST_LINES[name]))
    delivery = find_one(path)
    assert [key.subject for key in delivery.declared] == [ASIN]
    assert (delivery.period_start, delivery.period_end) == (SUNDAY, SATURDAY)
    assert len(read_all(path).rows) == 1


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("brand", ["O'Neil & Söhne", "A, B", "A;B", "[x] y", "Größe", "50% = half"])
def test_names_of_brands(path, brand, quoted):
    first = metadata("Brand", quoted=quoted, subject=f"  {brand} ")
    save(path, download([a_row()], "Brand", first_line=first))
    assert find_one(path).declared[0].subject == brand
    assert read_all(path).rows["subject"].to_pylist() == [brand]


SHORT = '"ASIN=[""B0EXAMPLE1""]","Reporting Range=[""Weekly""]","Select {kind}=[""{value}""]"'


@pytest.mark.parametrize(
    ("kind", "value", "end", "period"),
    [
        ("week", "Week 45 | 2026", "2026-11-07", (SUNDAY, SATURDAY)),
        ("week", "Week 45 | 2026", "11/14/2026", (date(2026, 11, 8), date(2026, 11, 14))),
        ("month", "October 2026", "2026-10-31", (date(2026, 10, 1), date(2026, 10, 31))),
        ("quarter", "Q3 | 2026", "2026-09-30", (date(2026, 7, 1), date(2026, 9, 30))),
        (
            "month",
            "Month 10 | 2026-10-01 - 2026-10-31 2026",
            "2026-10-31",
            (date(2026, 10, 1), date(2026, 10, 31)),
        ),
    ],
)
def test_a_first_line_without_dates_takes_them_from_the_rows(path, kind, value, end, period):
    save(path, download([a_row()], first_line=SHORT.format(kind=kind, value=value), end=end))
    delivery = find_one(path)
    assert delivery.period_type == kind.upper()
    assert (delivery.period_start, delivery.period_end) == period
    assert read_all(path).rows["period_start"].to_pylist() == [period[0]]


@pytest.mark.parametrize("end", ["2026-11-06", "11/7/2026", "", "soon"])
def test_without_a_date_that_can_only_be_the_end_the_file_is_unreadable(path, end):
    first = SHORT.format(kind="week", value="Week 45 | 2026")
    save(path, download([a_row()], first_line=first, end=end))
    assert "no Reporting Date says" in why(path)


def test_without_rows_the_slice_is_still_declared(path):
    save(path, download([]))
    assert [key.subject for key in find_one(path).declared] == [ASIN]
    assert len(read_all(path).rows) == 0
    save(path, download([]).rstrip("\n"))
    assert len(read_all(path).rows) == 0


def british(text):
    text = text.replace("Cart Adds:", "Basket Adds:").replace("Cart Add Rate", "Basket Add Rate")
    text = text.replace("Same Day Shipping", "Same-Day Shipping")
    return text.replace("1D Shipping", "1D-Shipping").replace("2D Shipping", "2D-Shipping")


HEADERS = {
    "British": british,
    "capitals": str.upper,
    "no percent signs": lambda text: text.replace(" %", ""),
    "wide spaces": lambda text: text.replace(": ", " :  "),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("view", ["ASIN", "Brand"])
def test_spellings_of_the_header(path, name, view):
    first, head, *rest = download([a_row()], view).split("\n")
    save(path, "\n".join([first, HEADERS[name](head), *rest]))
    (row,) = read_all(path).rows.to_pylist()
    assert row["own_cart_add_share"] == 0.01
    assert row["total_cart_add_rate"] == 0.16
    assert row["total_two_day_shipping_purchase_count"] == 125


ENCODINGS = {
    "utf-8": "utf-8",
    "byte-order mark": "utf-8-sig",
    "utf-16": "utf-16",
    "big-endian": "utf-16-be",
    "western": "cp1252",
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ENCODINGS)
def test_encodings(path, name, zipped):
    text = download([a_row("größe"), a_row("€ 5")])
    if name == "big-endian":
        text = "\ufeff" + text
    save(path, text.replace("\n", "\r\n").encode(ENCODINGS[name]), zipped=zipped)
    assert read_all(path).rows["search_query"].to_pylist() == ["größe", "€ 5"]


def test_one_damaged_row_does_not_make_a_file_western(path):
    data = download([a_row("größe"), a_row("damaged")]).encode()
    save(path, data.replace(b"damaged", b"d\xe4maged"))
    row = rejected_one(path, good=1)
    assert (row.reason_code, row.line) == (RejectReason.BAD_TEXT, 4)
    assert read_all(path).rows["search_query"].to_pylist() == ["größe"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["2026-11-07", "11/7/2026", "7/11/2026", "11/07/2026", "7.11.2026"])
def test_resaved_by_a_spreadsheet(path, delimiter, end):
    row = a_row(search_query_volume=1_234_567, total_query_impression_count=12_345_678)
    cells = csv_cells(row, end)
    cells[2], cells[3] = "1,234,567", "12,345,678"
    cells[5], cells[10] = "1.50%", "1,015.50"
    if delimiter == ";":
        cells[2], cells[3] = "1.234.567", "12 345 678"
        cells[5], cells[10] = "1,50%", "1.015,5"
    first = delimiter.join(metadata().split(",")) + delimiter * 31
    text = f"{first}\n{written_csv([header(), cells, [''] * 34], delimiter)}"
    save(path, text.replace("\n", "\r\n"))
    parsed = read_all(path)
    assert not parsed.rejected
    (read,) = parsed.rows.to_pylist()
    assert read["search_query_volume"] == 1_234_567
    assert read["total_query_impression_count"] == 12_345_678
    assert read["own_impression_share"] == 0.015
    assert read["total_median_click_price"] == Decimal("1015.5")


def test_a_decimal_comma_needs_semicolons(path):
    cells = csv_cells(a_row())
    cells[10] = "15,5"
    save(path, f"{metadata()}\n{written_csv([header(), cells])}")
    assert rejected_one(path).reason_code is RejectReason.NOT_A_NUMBER


@pytest.mark.parametrize("blank", ["", ",,,,"])
def test_the_older_layout_with_two_header_rows(path, blank):
    groups, names = [], []
    for heading in header():
        group, _, name = heading.partition(": ")
        groups.append(group if name and group not in groups else "")
        names.append(name or heading)
    rows = [groups, names, csv_cells(a_row())]
    save(path, f"{metadata()}\n{blank}\n{written_csv(rows)}")
    (row,) = read_all(path).rows.to_pylist()
    assert (row["own_click_count"], row["own_purchase_count"]) == (25, 5)
    assert row["total_same_day_shipping_cart_add_count"] == 400
    assert row["source_line"] == 5


def without(*headings):
    lines = [header(), csv_cells(a_row())]
    keep = [index for index, name in enumerate(header()) if name not in headings]
    return f"{metadata()}\n" + written_csv([[line[index] for index in keep] for line in lines])


def test_a_subset_of_the_columns_leaves_the_others_empty(path):
    optional = [
        name for name in header() if "Speed" in name or "Price" in name or "Rate" in name
    ]  # fmt: skip
    save(path, without(*optional, "Search Query Score", "Reporting Date"))
    (row,) = read_all(path).rows.to_pylist()
    assert row["total_click_rate"] is None
    assert row["own_median_click_price"] is None
    assert row["search_query_score"] is None
    assert (row["own_click_count"], row["period_end"]) == (25, SATURDAY)


@pytest.mark.parametrize("heading", ["Clicks: ASIN Count", "Impressions: Total Count"])
def test_without_a_count_the_file_is_unreadable(path, heading):
    save(path, without(heading))
    assert heading.lower() in why(path)


def refused(path, at, cell):
    cells = csv_cells(a_row("broken"))
    cells[at] = cell
    rows = [header(), csv_cells(a_row("before")), cells, csv_cells(a_row("after"))]
    save(path, f"{metadata()}\n{written_csv(rows)}")
    row = rejected_one(path, good=2)
    assert (row.source_file, row.line, row.subject) == (str(path), 4, ASIN)
    assert json.loads(row.delivered_text) == dict(zip(header(), cells, strict=True))
    assert header()[at].lower() in row.reason.lower() or at == 0
    return row


@pytest.mark.parametrize(
    ("at", "cell", "reason"),
    [
        (0, "", RejectReason.MISSING_VALUE),
        (0, "   ", RejectReason.MISSING_VALUE),
        (0, "a\0b", RejectReason.BAD_TEXT),
        (1, "first", RejectReason.NOT_A_NUMBER),
        (3, "", RejectReason.MISSING_VALUE),
        (4, "-1", RejectReason.NEGATIVE),
        (4, "130001", RejectReason.OWN_ABOVE_TOTAL),
        (4, "1.5", RejectReason.OUT_OF_RANGE),
        (5, "100.01", RejectReason.SHARE_ABOVE_ONE),
        (5, "NaN", RejectReason.NOT_A_NUMBER),
        (7, "-0.01", RejectReason.NEGATIVE),
        (10, "inf", RejectReason.NOT_A_NUMBER),
        (33, "2026-11-14", RejectReason.BAD_PERIOD),
        (33, "someday", RejectReason.BAD_PERIOD),
        (33, "", RejectReason.BAD_PERIOD),
    ],
)
def test_a_broken_row_is_refused_and_only_it(path, at, cell, reason):
    assert refused(path, at, cell).reason_code is reason


@pytest.mark.parametrize("cells", [3, 33, 35])
def test_a_ragged_row_is_refused_with_its_text(path, cells):
    ragged = ["x"] * cells
    rows = [header(), csv_cells(a_row("a")), ragged, csv_cells(a_row("b\nc")), csv_cells(a_row())]
    save(path, f"{metadata()}\n{written_csv(rows)}")
    row = rejected_one(path, good=3)
    assert (row.reason_code, row.line) == (RejectReason.MALFORMED, 4)
    assert json.loads(row.delivered_text) == ",".join(ragged)
    assert read_all(path).rows["source_line"].to_pylist() == [3, 5, 7]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_damaged_text_in_a_ragged_row_or_the_header_moves_nothing(path, encoding):
    rows = [header(), csv_cells(a_row("größe")), ["x", "LONE"], csv_cells(a_row("LONE"))]
    text = f"{metadata()}\n{written_csv([[*row, 'LONE'] for row in rows])}"
    save(path, text.replace("LONE", "a\ud800").encode(encoding, "surrogatepass"))
    parsed = read_all(path)
    assert parsed.rows["search_query"].to_pylist() == ["größe"]
    assert [(row.line, row.reason_code) for row in parsed.rejected] == [
        (4, RejectReason.MALFORMED),
        (5, RejectReason.BAD_TEXT),
    ]
    assert json.loads(parsed.rejected[0].delivered_text).startswith("x,a\udced")


def test_lines_are_the_files_lines(path):
    rows = [csv_cells(a_row(query)) for query in ["a\nb\nc", "d", "e", "f\r\ng", "h"]]
    text = f"{metadata()}\n\n{written_csv([header(), *rows])}"
    lines = text.split("\n")
    save(path, text)
    parsed = read_all(path)
    starts = {0: "a", 3: "d", 4: "e", 5: "f", 7: "h"}
    assert parsed.rows["source_line"].to_pylist() == [4 + at for at in starts]
    assert [lines[3 + at].lstrip('"')[0] for at in starts] == list(starts.values())


@pytest.mark.parametrize("length", [6_000, 1_000_000])
def test_a_long_query_loads(path, length):
    save(path, download([a_row("x" * length), a_row("short")]))
    assert [len(query) for query in read_all(path).rows["query"].to_pylist()] == [length, 5]


UNREADABLE = {
    "no first line": (lambda text: text.split("\n", 1)[1], "first line"),
    "no period": (lambda text: text.replace("Select week", "Chosen week"), "period"),
    "a year": (lambda text: text.replace("Select week", "Select year"), "yearly"),
    "Monday": (lambda text: text.replace("2026-11-01 -", "2026-11-02 -"), "Sunday to Saturday"),
    "two weeks": (lambda text: text.replace("2026-11-01 -", "2026-10-25 -"), "Saturday"),
    "not an ASIN": (lambda text: text.replace(ASIN, "all"), "not an ASIN"),
    "two ASINs": (lambda text: text.replace(ASIN, f'{ASIN}"",""B0EXAMPLE2'), "one asin"),
    "no subject": (lambda text: text.replace("ASIN or Product=", "Product="), "neither"),
    "empty subject": (lambda text: text.replace(ASIN, ""), "one asin"),
    "the other view's columns": (
        lambda text: text.replace("ASIN Count", "Brand Count"), "are missing"
    ),
    "no header": (lambda text: text.split("\n")[0], "names of the columns"),
    "a header of another report": (
        lambda text: text.split("\n")[0] + "\nASIN,ASIN Title,Category\n", "names of the columns"
    ),
    "a column twice": (
        lambda text: text.replace("Search Query Score", "Search Query Volume"), "two columns"
    ),
    "a quote never closed": (
        lambda text: text.replace("second", '"second'), "never closed"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_wrong_download_is_refused_whole(path, name):
    change, told = UNREADABLE[name]
    text = download([a_row("first"), a_row("second"), a_row("third")])
    assert change(text) != text
    save(path, change(text))
    assert told in why(path)


def test_a_brand_that_cannot_be_stored_is_refused(path):
    save(path, download([], "Brand", first_line=metadata("Brand", subject="a\0b")))
    assert "damaged" in why(path)


def test_brand_rows_are_of_the_brand_view(path):
    save(path, download([a_row()], "Brand"))
    assert find_one(path).report_view is ReportView.BRAND
