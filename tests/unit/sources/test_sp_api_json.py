"""The SP-API report: what is read, which rows are refused, and which reports altogether."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

from flows.errors import UnreadableDelivery
from flows.sources.deliveries import DeliveryFormat, PeriodType, RejectReason, ReportView
from flows.sources.read import read_delivery
from tests.unit.sources.written import (
    ASIN,
    FIXTURES,
    NOUNS,
    SATURDAY,
    SUNDAY,
    US,
    a_row,
    find_one,
    read_all,
    rejected_one,
    report,
    report_bytes,
    report_row,
    save,
    why,
)

EXAMPLE = FIXTURES / "sellingPartnerSearchQueryPerformanceReport.example.json"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report.json"


def test_the_published_example_is_read():
    delivery = find_one(EXAMPLE, marketplace=None)
    assert delivery.delivery_format is DeliveryFormat.SP_API_JSON
    assert (delivery.report_view, delivery.period_type) == (ReportView.ASIN, PeriodType.WEEK)
    assert (delivery.marketplace_id, delivery.account_id) == (US, "default")
    assert (delivery.period_start, delivery.period_end) == (date(2025, 1, 5), date(2025, 1, 11))
    assert [key.subject for key in delivery.declared] == ["B123456789", "B987654321"]
    parsed = read_all(EXAMPLE, marketplace=None)
    assert not parsed.rejected
    first, second = parsed.rows.to_pylist()
    assert (first["subject"], second["subject"]) == ("B123456789", "B987654321")
    assert first["query"] == "wireless headphones"
    assert first["own_impression_share"] == 0.0765
    assert first["total_cart_add_rate"] == 0.02
    assert first["own_median_purchase_price"] == Decimal("19.9900")
    assert first["total_two_day_shipping_purchase_count"] == 50
    assert (first["currency_code"], first["source_line"], second["source_line"]) == ("USD", 1, 2)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_plain_or_zipped_in_any_unicode(path, zipped, encoding):
    text = json.dumps(report([report_row(a_row("größe"))]), ensure_ascii=False)
    save(path, text.encode(encoding), zipped=zipped)
    assert read_all(path).rows["query"].to_pylist() == ["größe"]


def test_the_specification_may_come_last(path):
    document = report([report_row(a_row())])
    save(path, json.dumps(dict(reversed(document.items()))))
    assert find_one(path).period_start == SUNDAY
    assert len(read_all(path).rows) == 1


def test_asins_asked_for_are_declared_rows_or_no_rows(path):
    other = report_row(a_row(subject="B0OTHER001"))
    save(path, json.dumps(report([other], asin=f"{ASIN}  B0EXAMPLE2 {ASIN}")))
    assert [key.subject for key in find_one(path).declared] == [ASIN, "B0EXAMPLE2"]
    assert read_all(path).rows["subject"].to_pylist() == ["B0OTHER001"]
    save(path, json.dumps(report([])))
    assert find_one(path).declared[0].period_end == SATURDAY
    assert len(read_all(path).rows) == 0


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("MONTH", date(2024, 2, 1), date(2024, 2, 29)),
        ("QUARTER", date(2026, 10, 1), date(2026, 12, 31)),
    ],
)
def test_native_months_and_quarters(path, period, start, end):
    rows = [report_row(a_row(), start, end)]
    save(path, json.dumps(report(rows, period=period, start=start, end=end)))
    assert find_one(path).period_type == period
    assert read_all(path).rows["period_end"].to_pylist() == [end]


@pytest.mark.parametrize("missing", ["null", "left out", "amount null"])
def test_own_median_prices_may_be_missing(path, missing):
    row = report_row(a_row(own_click_count=0, own_median_click_price=None))
    if missing == "left out":
        del row["clickData"]["asinMedianClickPrice"]
    if missing == "amount null":
        row["clickData"]["asinMedianClickPrice"] = {"amount": None, "currencyCode": "USD"}
    save(path, json.dumps(report([row])))
    assert read_all(path).rows["own_median_click_price"].to_pylist() == [None]


def test_the_markets_median_is_missing_only_where_nothing_was_bought(path):
    none_bought = report_row(
        a_row(total_purchase_count=0, own_purchase_count=0, total_purchase_rate=0.0,
              own_purchase_share=0.0, total_median_purchase_price=None,
              own_median_purchase_price=None)
    )  # fmt: skip
    some_bought = report_row(a_row(total_median_purchase_price=None))
    save(path, json.dumps(report([none_bought, some_bought])))
    row = rejected_one(path, good=1)
    assert (row.line, row.reason_code) == (2, RejectReason.MISSING_VALUE)
    assert "purchaseData.totalMedianPurchasePrice" in row.reason


def test_the_currency_is_the_prices_or_the_marketplaces(path):
    nothing = dict.fromkeys(
        (f"{whose}_{stage}_count" for whose in ("total", "own") for stage in NOUNS), 0
    )
    no_prices = dict.fromkeys(
        (f"{whose}_median_{stage}_price" for whose in ("total", "own") for stage in NOUNS), None
    )
    no_shares = dict.fromkeys((f"own_{stage}_share" for stage in NOUNS), 0.0)
    without = report_row(a_row(**nothing, **no_prices, **no_shares))
    dollars = report_row(a_row())
    save(path, json.dumps(report([without, dollars], marketplaces=["A1PA6795UKMFR9"])))
    currencies = read_all(path, marketplace=None).rows["currency_code"].to_pylist()
    assert currencies == ["EUR", "USD"]


def broken(change):
    row = report_row(a_row())
    change(row)
    return row


def put(section, key, value):
    return lambda row: row[section].__setitem__(key, value)


BROKEN_ROWS = {
    "numeric text": (put("clickData", "totalClickCount", "2500"), RejectReason.NOT_A_NUMBER),
    "boolean": (put("clickData", "totalClickCount", True), RejectReason.NOT_A_NUMBER),
    "NaN": (put("clickData", "asinClickShare", float("nan")), RejectReason.NOT_A_NUMBER),
    "Infinity": (put("clickData", "totalClickRate", float("inf")), RejectReason.NOT_A_NUMBER),
    "NaN count": (put("clickData", "asinClickCount", float("nan")), RejectReason.NOT_A_NUMBER),
    "fraction": (put("clickData", "asinClickCount", 1.5), RejectReason.OUT_OF_RANGE),
    "too large": (put("searchQueryData", "searchQueryVolume", 2**62), RejectReason.OUT_OF_RANGE),
    "huge": (put("searchQueryData", "searchQueryVolume", 10**40), RejectReason.OUT_OF_RANGE),
    "negative": (put("clickData", "asinClickCount", -1), RejectReason.NEGATIVE),
    "negative share": (put("clickData", "asinClickShare", -0.1), RejectReason.NEGATIVE),
    "share": (put("impressionData", "asinImpressionShare", 1.01), RejectReason.SHARE_ABOVE_ONE),
    "own": (put("cartAddData", "asinCartAddCount", 801), RejectReason.OWN_ABOVE_TOTAL),
    "no count": (lambda row: row["clickData"].pop("totalClickCount"), RejectReason.MISSING_VALUE),
    "null count": (put("clickData", "totalClickCount", None), RejectReason.MISSING_VALUE),
    "missing section": (lambda row: row.pop("clickData"), RejectReason.MISSING_VALUE),
    "section of another type": (lambda row: row.update(clickData=[]), RejectReason.MALFORMED),
    "empty query": (put("searchQueryData", "searchQuery", " \t "), RejectReason.MISSING_VALUE),
    "NUL": (put("searchQueryData", "searchQuery", "a\0b"), RejectReason.BAD_TEXT),
    "surrogate": (put("searchQueryData", "searchQuery", "a\ud800"), RejectReason.BAD_TEXT),
    "query a number": (put("searchQueryData", "searchQuery", 5), RejectReason.MALFORMED),
    "short ASIN": (lambda row: row.update(asin="B0123"), RejectReason.BAD_ASIN),
    "small ASIN": (lambda row: row.update(asin=ASIN.lower()), RejectReason.BAD_ASIN),
    "ASIN with a line": (lambda row: row.update(asin=f"{ASIN}\n"), RejectReason.BAD_ASIN),
    "other week": (lambda row: row.update(startDate="2026-10-25"), RejectReason.BAD_PERIOD),
    "other end": (lambda row: row.update(endDate="2026-11-14"), RejectReason.BAD_PERIOD),
    "no date": (lambda row: row.update(startDate="1 November"), RejectReason.BAD_PERIOD),
    "price text": (
        put("clickData", "totalMedianClickPrice", {"amount": "15", "currencyCode": "USD"}),
        RejectReason.NOT_A_NUMBER,
    ),
    "price NaN": (
        put("clickData", "totalMedianClickPrice", {"amount": float("nan"), "currencyCode": "USD"}),
        RejectReason.NOT_A_NUMBER,
    ),
    "price negative": (
        put("clickData", "totalMedianClickPrice", {"amount": -1, "currencyCode": "USD"}),
        RejectReason.NEGATIVE,
    ),
    "two currencies": (
        put("clickData", "totalMedianClickPrice", {"amount": 1, "currencyCode": "EUR"}),
        RejectReason.MALFORMED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_ROWS)
def test_a_broken_row_is_refused_and_only_it(path, name):
    change, reason = BROKEN_ROWS[name]
    rows = [report_row(a_row("before")), broken(change), report_row(a_row("after"))]
    save(path, json.dumps(report(rows)))
    row = rejected_one(path, good=2)
    assert (row.source_file, row.line, row.reason_code) == (str(path), 2, reason)
    assert row.reason.isascii()
    json.loads(row.delivered_text)
    assert row.delivered_text == json.dumps(rows[1])
    assert (row.account_id, row.period_start) == ("default", SUNDAY)
    assert read_all(path).rows["query"].to_pylist() == ["before", "after"]


@pytest.mark.parametrize("element", [None, 5, "row", [], {}, True])
def test_an_element_that_is_no_row_is_refused(path, element):
    save(path, json.dumps(report([element, report_row(a_row())])))
    expected = RejectReason.MISSING_VALUE if element in ({}, None) else RejectReason.MALFORMED
    assert rejected_one(path, good=1).reason_code is expected


def raw(path, old, new):
    text = report_bytes([a_row("first"), a_row("second")]).decode()
    assert text.count(old) >= 1
    return save(path, text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"totalClickRate": 0.5', '"totalClickRate": 1e400', RejectReason.NOT_A_NUMBER),
        ('"totalClickRate": 0.5', '"totalClickRate": -Infinity', RejectReason.NOT_A_NUMBER),
        ('"totalClickCount": 2500', '"totalClickCount": 1' + "0" * 5000, RejectReason.NOT_A_NUMBER),
        ('"first"', '"\\ud800"', RejectReason.BAD_TEXT),
        ('"first"', '"\\u0000"', RejectReason.BAD_TEXT),
        ('"first"', '"a\0b"', RejectReason.BAD_TEXT),
        ('"asinClickCount"', '"x": 1, "x": 2, "asinClickCount"', RejectReason.MALFORMED),
    ],
    ids=["1e400", "-Infinity", "digits", "surrogate", "escaped NUL", "NUL", "repeated key"],
)  # fmt: skip
def test_what_only_text_can_say(path, old, new, reason):
    row = rejected_one(raw(path, old, new), good=1)
    assert row.reason_code is reason
    assert new.replace("\0", "\\u0000") in row.delivered_text
    assert row.delivered_text.isprintable()


def test_bytes_that_are_not_utf8_refuse_their_row(path):
    save(path, report_bytes([a_row("first"), a_row("second")]).replace(b"first", b"f\xffrst"))
    row = rejected_one(path, good=1)
    assert row.reason_code is RejectReason.BAD_TEXT
    assert "\\udcff" in row.delivered_text


@pytest.mark.parametrize("length", [6_000, 1_000_000])
def test_a_long_query_loads(path, length):
    save(path, report_bytes([a_row("x" * length), a_row("é" * length)]))
    assert [len(query) for query in read_all(path).rows["query"].to_pylist()] == [length, length]


def test_purchases_above_clicks_are_fine(path):
    row = a_row(own_purchase_count=30, total_purchase_count=3000, own_click_count=25)
    save(path, report_bytes([row]))
    assert read_all(path).rows["own_purchase_count"].to_pylist() == [30]


def changed(**changes):
    document = report([report_row(a_row())])
    document["reportSpecification"].update(changes)
    return json.dumps(document)


UNREADABLE = {
    "another report": (
        changed(reportType="GET_BRAND_ANALYTICS_SEARCH_CATALOG_PERFORMANCE_REPORT"), "reportType"
    ),
    "no marketplace": (changed(marketplaceIds=[]), "one marketplace"),
    "two marketplaces": (changed(marketplaceIds=[US, "A1PA6795UKMFR9"]), "one marketplace"),
    "unknown marketplace": (changed(marketplaceIds=["AMOON"]), "not known"),
    "country, not id": (changed(marketplaceIds=["US"]), "not known"),
    "two weeks": (changed(dataEndTime="2026-11-14"), "Sunday to Saturday"),
    "Monday": (changed(dataStartTime="2026-11-02", dataEndTime="2026-11-08"), "Sunday to Saturday"),
    "year 1": (changed(dataStartTime="0001-01-07", dataEndTime="0001-01-13"), "outside the years"),
    "no date": (changed(dataStartTime="2026-02-31"), "dataStartTime"),
    "DAY": (changed(reportOptions={"reportPeriod": "DAY", "asin": ASIN}), "reportPeriod"),
    "half a month": (
        changed(reportOptions={"reportPeriod": "MONTH", "asin": ASIN}), "first to its last day"
    ),
    "half a quarter": (
        changed(reportOptions={"reportPeriod": "QUARTER", "asin": ASIN}), "one quarter"
    ),
    "no ASIN asked for": (changed(reportOptions={"reportPeriod": "WEEK", "asin": ""}), "ASIN"),
    "bad ASIN asked for": (changed(reportOptions={"reportPeriod": "WEEK", "asin": "B0"}), "ASIN"),
    "no specification": ('{"dataByAsin": []}', "reportSpecification"),
    "no rows member": (changed().replace("dataByAsin", "rows"), "dataByAsin is missing"),
    "rows not an array": (
        json.dumps({**report([]), "dataByAsin": {}}), "JSON is broken"
    ),
    "specification twice": (
        changed()[:-1] + ', "reportSpecification": {}}', "there twice"
    ),
    "cut": (changed()[:-40], "JSON is broken"),
    "cut before the specification": ("{", "JSON is broken"),
    "more behind it": (changed() + "{}", "after the end"),
    "nested too deeply": (changed().replace("[{", "[" + "[" * 100_000 + "{"), "too deeply"),
    "JSON of something else": ('{"reports": []}', "JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_wrong_report_is_refused_whole(path, name):
    text, told = UNREADABLE[name]
    save(path, text)
    assert told in why(path)


@pytest.mark.parametrize(
    ("details", "told"),
    [
        ("The requested data is unavailable. Please try a different date range", "again later"),
        (
            "A client error occurred. Please double check that your parameters are valid and"
            " fulfill the requirements of the report type.",
            "trying again does not help",
        ),
        ("Something new", "once more"),
    ],
)
def test_the_document_of_a_failed_report_is_quoted(path, details, told):
    save(path, json.dumps({"errorDetails": details}))
    message = why(path)
    assert details in message
    assert told in message


def test_the_failed_report_among_the_fixtures():
    assert "requested data is unavailable" in why(FIXTURES / "sp_api_fatal_document.json")


def test_a_report_cut_in_its_rows_breaks_after_the_good_ones(path):
    save(path, report_bytes([a_row()] * 3)[:-700])
    batches = read_delivery(find_one(path), batch_rows=1)
    assert [len(next(batches).rows) for _ in range(2)] == [1, 1]
    with pytest.raises(UnreadableDelivery, match="JSON is broken"):
        next(batches)


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_damaged_gzip_is_told(path, kept):
    save(path, report_bytes([a_row(f"query {number}") for number in range(5000)]), zipped=True)
    data = path.read_bytes()
    save(path, data[: int(len(data) * kept)])
    assert "gzip" in why(path)
    save(path, data[:-8] + b"\0" * 8)
    assert "gzip" in why(path)
