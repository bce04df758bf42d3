"""The rows of a synthetic market, in the words of each kind of delivery."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from flows.sources.deliveries import STAGES, PeriodType, ReportView
from flows.sources.sample.market import BRAND, MISSING, SPEEDS, IntArray, MarketRows

ROW_GROUP = 65_536


class CsvLayout(NamedTuple):
    """How one Seller Central CSV was written: no two sellers' files look quite alike."""

    has_bom: bool = True
    quotes_metadata: bool = True
    asin_key: str = "ASIN or Product"
    says_dates: bool = True
    resaved_by_excel: bool = False


CSV_LAYOUTS = (
    CsvLayout(),
    CsvLayout(quotes_metadata=False),
    CsvLayout(has_bom=False, quotes_metadata=False, asin_key="ASIN"),
    CsvLayout(resaved_by_excel=True),
    CsvLayout(has_bom=False, says_dates=False),
)


def report_json(
    rows: MarketRows, asins: Sequence[str], *, omits_missing_prices: bool = False
) -> bytes:
    """An SP-API search query performance report that asks for `asins` and holds `rows`.

    A median price that does not exist is null, or left out where `omits_missing_prices`.
    """
    period = rows.period
    specification = {
        "reportType": "GET_BRAND_ANALYTICS_SEARCH_QUERY_PERFORMANCE_REPORT",
        "reportOptions": {"reportPeriod": period.period_type, "asin": " ".join(asins)},
        "dataStartTime": period.start.isoformat(),
        "dataEndTime": period.end.isoformat(),
        "marketplaceIds": [rows.market.marketplace.marketplace_id],
    }
    entries = ",\n".join(_json_entries(rows, omits_missing_prices))
    return (
        f'{{"reportSpecification":{json.dumps(specification)},"dataByAsin":[\n{entries}\n]}}\n'
    ).encode()


def _json_entries(rows: MarketRows, omits_missing_prices: bool) -> Iterator[str]:
    """One JSON object a row, as text: prices are numbers with two decimals."""
    period, market = rows.period, rows.market
    currency = market.marketplace.currency_code
    dates = f'"startDate":"{period.start}","endDate":"{period.end}"'

    def price(name: str, hundredths: int) -> str:
        if hundredths == MISSING:
            return "" if omits_missing_prices else f'"{name}":null,'
        return f'"{name}":{{"amount":{_hundredths(hundredths)},"currencyCode":"{currency}"}},'

    for row in _as_dicts(rows):
        stages = []
        for stage, noun in zip(STAGES, ("Click", "CartAdd", "Purchase"), strict=True):
            speeds = (
                f'"total{speed}Shipping{noun}Count":{row[f"total_{key}_shipping_{stage}_count"]}'
                for speed, key in zip(("SameDay", "OneDay", "TwoDay"), SPEEDS, strict=True)
            )
            stages.append(
                f'"{noun[0].lower()}{noun[1:]}Data":{{'
                f'"total{noun}Count":{row[f"total_{stage}_count"]},'
                f'"total{noun}Rate":{row[f"total_{stage}_rate"] / 10_000},'
                f'"asin{noun}Count":{row[f"own_{stage}_count"]},'
                f'"asin{noun}Share":{row[f"own_{stage}_share"] / 10_000},'
                + price(f"totalMedian{noun}Price", row[f"total_median_{stage}_price"])
                + price(f"asinMedian{noun}Price", row[f"own_median_{stage}_price"])
                + ",".join(speeds)
                + "}"
            )
        yield (
            f'{{{dates},"asin":"{market.products[row["asin"]].asin}",'
            f'"searchQueryData":{{"searchQuery":{_json_text(market.queries[row["query"]])},'
            f'"searchQueryScore":{row["search_query_score"]},'
            f'"searchQueryVolume":{row["search_query_volume"]}}},'
            f'"impressionData":{{"totalQueryImpressionCount":{row["total_query_impression_count"]},'
            f'"asinImpressionCount":{row["own_impression_count"]},'
            f'"asinImpressionShare":{row["own_impression_share"] / 10_000}}},'
            f"{','.join(stages)}}}"
        )


def seller_central_csv(rows: MarketRows, view: ReportView, layout: CsvLayout) -> bytes:
    """A Seller Central download of one ASIN's rows (or the brand's), as British sellers get it
    when the marketplace is UK.
    """
    subject = BRAND if view is ReportView.BRAND else rows.market.products[rows["asin"][0]].asin
    own = "Brand" if view is ReportView.BRAND else "ASIN"
    key = "Brand" if view is ReportView.BRAND else layout.asin_key
    metadata = [
        f'{key}=["{subject}"]',
        f'Reporting Range=["{_range_name(rows)}"]',
        f'Select {rows.period.period_type.lower()}=["{_range_choice(rows, layout)}"]',
    ]
    headers = _csv_headers(own, british=rows.market.marketplace.country_code == "UK")
    lines = _excel_lines if layout.resaved_by_excel else _download_lines
    text = lines(metadata, headers, rows, layout)
    return text.encode("utf-8-sig" if layout.has_bom else "utf-8")


def _range_name(rows: MarketRows) -> str:
    return {"WEEK": "Weekly", "MONTH": "Monthly", "QUARTER": "Quarterly"}[rows.period.period_type]


def _range_choice(rows: MarketRows, layout: CsvLayout) -> str:
    """The period as the report's menu called it, e.g. `Week 28 | 2026-07-05 - 2026-07-11 2026`."""
    period = rows.period
    number = {
        PeriodType.WEEK: period.end.isocalendar().week,
        PeriodType.MONTH: period.end.month,
        PeriodType.QUARTER: period.end.month // 3,
    }[period.period_type]
    dates = f"{period.start} - {period.end} " if layout.says_dates else ""
    return f"{period.period_type.title()} {number} | {dates}{period.end.year}"


def _csv_headers(own: str, *, british: bool) -> list[str]:
    cart = "Basket" if british else "Cart"
    speeds = ("Same-Day ", "1D-", "2D-") if british else ("Same Day ", "1D ", "2D ")
    headers = ["Search Query", "Search Query Score", "Search Query Volume"]
    headers += [
        f"Impressions: {name}" for name in ("Total Count", f"{own} Count", f"{own} Share %")
    ]
    for group, rate in (
        ("Clicks", "Click Rate %"),
        (f"{cart} Adds", f"{cart} Add Rate %"),
        ("Purchases", "Purchase Rate %"),
    ):
        names = ["Total Count", rate, f"{own} Count", f"{own} Share %"]
        names += ["Price (Median)", f"{own} Price (Median)"]
        names += [f"{speed}Shipping Speed" for speed in speeds]
        headers += [f"{group}: {name}" for name in names]
    return [*headers, "Reporting Date"]


def _csv_columns() -> list[tuple[str, str]]:
    """The columns of a download between query and date, each with how it is written."""
    columns = [("search_query_score", "count"), ("search_query_volume", "count")]
    columns += [("total_query_impression_count", "count"), ("own_impression_count", "count")]
    columns += [("own_impression_share", "percent")]
    for stage in STAGES:
        columns += [(f"total_{stage}_count", "count"), (f"total_{stage}_rate", "percent")]
        columns += [(f"own_{stage}_count", "count"), (f"own_{stage}_share", "percent")]
        columns += [
            (f"total_median_{stage}_price", "price"),
            (f"own_median_{stage}_price", "price"),
        ]
        columns += [(f"total_{speed}_shipping_{stage}_count", "count") for speed in SPEEDS]
    return columns


def _download_lines(
    metadata: list[str], headers: list[str], rows: MarketRows, layout: CsvLayout
) -> str:
    """The file as it was downloaded: everything quoted but the price that does not exist."""

    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    def cell(value: int, kind: str) -> str:
        if kind == "count":
            return f'"{value}"'
        if kind == "price":
            return "" if value == MISSING else f'"{_hundredths(value)}"'
        return f'"{_hundredths(value)}"' if value else '"0.0"'

    columns = _csv_columns()
    lines = [
        ",".join(map(quoted, metadata) if layout.quotes_metadata else metadata),
        ",".join(map(quoted, headers)),
    ]
    for row in _as_dicts(rows):
        cells = [cell(row[name], kind) for name, kind in columns]
        query = quoted(rows.market.queries[row["query"]])
        lines.append(",".join([query, *cells, f'"{rows.period.end}"']))
    return "\n".join(lines) + "\n"


def _excel_lines(
    metadata: list[str], headers: list[str], rows: MarketRows, _layout: CsvLayout
) -> str:
    """The file after a spreadsheet saved it: its numbers, its dates, its quotes, its padding."""

    def cell(value: int, kind: str) -> str:
        if kind == "count":
            return f"{value:,}"
        if value == MISSING:
            return ""
        return f"{value / 100:.10g}" if kind == "percent" else f"{value / 100:,.2f}"

    columns = _csv_columns()
    end = rows.period.end
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(metadata + [""] * (len(headers) - len(metadata)))
    writer.writerow(headers)
    for row in _as_dicts(rows):
        cells = [cell(row[name], kind) for name, kind in columns]
        query = rows.market.queries[row["query"]]
        writer.writerow([query, *cells, f"{end.month}/{end.day}/{end.year}"])
    return text.getvalue()


def flat_table(rows: MarketRows) -> pa.Table:
    """The rows as the flat table in BigQuery has them: percent, and column names with spaces."""
    market = rows.market
    products = market.products
    day = datetime.combine(rows.period.start, datetime.min.time())
    columns: dict[str, pa.Array] = {
        "Date": pa.repeat(pa.scalar(day, pa.timestamp("us", tz="UTC")), len(rows)),
        "Parent ASIN": _texts([product.parent_asin for product in products], rows["asin"]),
        "Child ASIN": _texts([product.asin for product in products], rows["asin"]),
        "Product Name": _texts([product.name for product in products], rows["asin"]),
        "Client Name": pa.repeat(pa.scalar(BRAND), len(rows)),
        "Search Query": _texts(market.queries, rows["query"]),
        "Search Query Score": pa.array(rows["search_query_score"]),
        "Search Query Volume": pa.array(rows["search_query_volume"]),
        "Total Query Impression Count": pa.array(rows["total_query_impression_count"]),
        "ASIN Impression Count": pa.array(rows["own_impression_count"]),
        "ASIN Impression Share": _decimals(rows["own_impression_share"]),
    }
    for stage in STAGES:
        noun = stage.replace("_", " ").title()
        columns |= {
            f"Total {noun} Count": pa.array(rows[f"total_{stage}_count"]),
            f"Total {noun} Rate": _decimals(rows[f"total_{stage}_rate"]),
            f"ASIN {noun} Count": pa.array(rows[f"own_{stage}_count"]),
            f"ASIN {noun} Share": _decimals(rows[f"own_{stage}_share"]),
            f"Total Median {noun} Price Amount": _decimals(rows[f"total_median_{stage}_price"]),
            f"ASIN Median {noun} Price Amount": _decimals(rows[f"own_median_{stage}_price"]),
        }
        for speed in SPEEDS:
            columns[f"Total {speed.replace('_', ' ').title()} Shipping {noun} Count"] = pa.array(
                rows[f"total_{speed}_shipping_{stage}_count"]
            )
    return pa.table(columns)


def flat_parquet(table: pa.Table) -> bytes:
    """The flat table as one Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=ROW_GROUP)
    return sink.getvalue()


def flat_csv(table: pa.Table, *, with_header: bool = True) -> bytes:
    """The flat table as BigQuery exports it to CSV."""
    sink = io.BytesIO()
    days = table["Date"].cast(pa.timestamp("us")).cast(pa.date32()).cast(pa.string())
    stamps = pa.compute.binary_join_element_wise(days, "00:00:00 UTC", " ")
    options = pa.csv.WriteOptions(include_header=with_header)
    pa.csv.write_csv(table.set_column(0, "Date", stamps), sink, options)
    return sink.getvalue()


def _as_dicts(rows: MarketRows) -> Iterator[dict[str, int]]:
    names = list(rows.columns)
    for values in zip(*(rows[name].tolist() for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def _json_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _hundredths(value: int) -> str:
    return f"{value // 100}.{value % 100:02d}"


def _decimals(hundredths: IntArray) -> pa.Array:
    return pa.array(hundredths / 100, mask=hundredths == MISSING)


def _texts(texts: Sequence[str], positions: IntArray) -> pa.Array:
    return pa.array(texts, pa.string()).take(pa.array(positions.astype(np.int32)))
