"""The same rows written in each format, by the formats' documentation and not by our code."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flows.errors import UnreadableDelivery
from flows.settings import PROJECT_ROOT
from flows.sources.deliveries import Delivery, ParsedBatch, RejectedRow
from flows.sources.find import find_deliveries
from flows.sources.read import read_delivery

FIXTURES = PROJECT_ROOT / "tests" / "fixtures" / "sqp"
SUNDAY, SATURDAY = date(2026, 11, 1), date(2026, 11, 7)
ASIN = "B0EXAMPLE1"
US = "ATVPDKIKX0DER"

NOUNS = {"click": "Click", "cart_add": "Cart Add", "purchase": "Purchase"}
SPEEDS = {"same": "Same Day", "one": "One Day", "two": "Two Day"}

Row = dict[str, Any]


def a_row(query: str = "example widget", **changes: Any) -> Row:
    """A sound row by field name; shares and rates are fractions of four decimals."""
    row: Row = {
        "subject": ASIN,
        "search_query": query,
        "search_query_score": 1,
        "search_query_volume": 5000,
        "total_query_impression_count": 130_000,
        "own_impression_count": 1300,
    }
    for stage, total, own in (("click", 2500, 25), ("cart_add", 800, 8), ("purchase", 500, 5)):
        row[f"total_{stage}_count"], row[f"own_{stage}_count"] = total, own
        row[f"total_median_{stage}_price"] = Decimal("15.5")
        row[f"own_median_{stage}_price"] = Decimal("1219.25")
        for number, speed in enumerate(SPEEDS, start=1):
            row[f"total_{speed}_day_shipping_{stage}_count"] = total // (number + 1)
    row |= {key: value for key, value in changes.items() if value is not ...}
    for own, total, share in (
        ("own_impression_count", "total_query_impression_count", "own_impression_share"),
        *((f"own_{s}_count", f"total_{s}_count", f"own_{s}_share") for s in NOUNS),
        *((f"total_{s}_count", "search_query_volume", f"total_{s}_rate") for s in NOUNS),
    ):
        if share not in row:
            row[share] = _ratio(row[own], row[total])
    return row


def _ratio(part: Any, whole: Any) -> float | None:
    if not isinstance(part, int) or not isinstance(whole, int) or not whole:
        return None
    return round(part / whole, 4)


# --- SP-API report ---------------------------------------------------------------------------


def report_row(row: Row, start: date = SUNDAY, end: date = SATURDAY) -> dict[str, Any]:
    """One element of `dataByAsin`."""
    element: dict[str, Any] = {
        "startDate": start.isoformat(),
        "endDate": end.isoformat(),
        "asin": row["subject"],
        "searchQueryData": {
            "searchQuery": row["search_query"],
            "searchQueryScore": row["search_query_score"],
            "searchQueryVolume": row["search_query_volume"],
        },
        "impressionData": {
            "totalQueryImpressionCount": row["total_query_impression_count"],
            "asinImpressionCount": row["own_impression_count"],
            "asinImpressionShare": row["own_impression_share"],
        },
    }
    for stage, section in (("click", "click"), ("cart_add", "cartAdd"), ("purchase", "purchase")):
        noun = NOUNS[stage].replace(" ", "")
        element[f"{section}Data"] = {
            f"total{noun}Count": row[f"total_{stage}_count"],
            f"total{noun}Rate": row[f"total_{stage}_rate"],
            f"asin{noun}Count": row[f"own_{stage}_count"],
            f"asin{noun}Share": row[f"own_{stage}_share"],
            f"totalMedian{noun}Price": _amount(row[f"total_median_{stage}_price"]),
            f"asinMedian{noun}Price": _amount(row[f"own_median_{stage}_price"]),
            f"totalSameDayShipping{noun}Count": row[f"total_same_day_shipping_{stage}_count"],
            f"totalOneDayShipping{noun}Count": row[f"total_one_day_shipping_{stage}_count"],
            f"totalTwoDayShipping{noun}Count": row[f"total_two_day_shipping_{stage}_count"],
        }
    return element


def _amount(price: Decimal | None) -> dict[str, Any] | None:
    return None if price is None else {"amount": float(price), "currencyCode": "USD"}


def report(
    elements: Iterable[Any],
    *,
    asin: str = ASIN,
    period: str = "WEEK",
    start: date = SUNDAY,
    end: date = SATURDAY,
    marketplaces: Sequence[str] = (US,),
) -> dict[str, Any]:
    """A whole report document."""
    return {
        "reportSpecification": {
            "reportType": "GET_BRAND_ANALYTICS_SEARCH_QUERY_PERFORMANCE_REPORT",
            "reportOptions": {"reportPeriod": period, "asin": asin},
            "dataStartTime": start.isoformat(),
            "dataEndTime": end.isoformat(),
            "marketplaceIds": list(marketplaces),
        },
        "dataByAsin": list(elements),
    }


def report_bytes(rows: Iterable[Row], **options: Any) -> bytes:
    """A report of rows, as Amazon would send it."""
    return json.dumps(report([report_row(row) for row in rows], **options)).encode()


# --- Seller Central CSV ----------------------------------------------------------------------


def metadata(view: str = "ASIN", *, quoted: bool = True, subject: str | None = None) -> str:
    """The first line of a download."""
    key = "Brand" if view == "Brand" else "ASIN or Product"
    subject = subject or ("Example Brand" if view == "Brand" else ASIN)
    cells = [
        f'{key}=["{subject}"]',
        'Reporting Range=["Weekly"]',
        'Select week=["Week 45 | 2026-11-01 - 2026-11-07 2026"]',
    ]
    if not quoted:
        return ",".join(cells)
    return ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)


def header(view: str = "ASIN") -> list[str]:
    """The published header of a view."""
    name = f"US_Search_Query_Performance_{view}_View_Comprehensive_Week_2026_11_07.csv"
    lines = (FIXTURES / name).read_text(encoding="utf-8-sig").splitlines()
    return next(csv.reader([lines[1]]))


HEADER_FIELDS = [
    "search_query",
    "search_query_score",
    "search_query_volume",
    "total_query_impression_count",
    "own_impression_count",
    "own_impression_share",
    *(
        field.format(stage)
        for stage in NOUNS
        for field in (
            "total_{}_count",
            "total_{}_rate",
            "own_{}_count",
            "own_{}_share",
            "total_median_{}_price",
            "own_median_{}_price",
            "total_same_day_shipping_{}_count",
            "total_one_day_shipping_{}_count",
            "total_two_day_shipping_{}_count",
        )
    ),
]
"""What the columns of a download mean, in their order; Reporting Date follows."""


def csv_cells(row: Row, end: str = "2026-11-07") -> list[str]:
    """The cells of a download's row."""
    return [percent_text(field, row[field]) for field in HEADER_FIELDS] + [end]


def percent_text(field: str, value: Any) -> str:
    """A value as the CSV formats write it: shares and rates in percent."""
    if value is None:
        return ""
    if field.endswith(("_share", "_rate")) and isinstance(value, float):
        return f"{value * 100:.2f}"
    return str(value)


def download(
    rows: Iterable[Row],
    view: str = "ASIN",
    *,
    first_line: str | None = None,
    delimiter: str = ",",
    end: str = "2026-11-07",
) -> str:
    """A download of rows."""
    first = metadata(view) if first_line is None else first_line
    lines = [header(view), *(csv_cells(row, end) for row in rows)]
    return f"{first}\n{written_csv(lines, delimiter)}"


def written_csv(table: Iterable[Sequence[str]], delimiter: str = ",") -> str:
    """Lines of CSV, quoted where need be."""
    table = [list(cells) for cells in table]
    has_returns = any("\r" in str(cell) for cells in table for cell in cells)
    quoting = csv.QUOTE_ALL if has_returns else csv.QUOTE_MINIMAL
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=quoting).writerows(table)
    return text.getvalue()


# --- the flat table --------------------------------------------------------------------------

FLAT_HEADINGS: dict[str, str] = {
    "date": "Date",
    "parent_asin": "Parent ASIN",
    "subject": "Child ASIN",
    "product_name": "Product Name",
    "client_name": "Client Name",
    "search_query": "Search Query",
    "search_query_score": "Search Query Score",
    "search_query_volume": "Search Query Volume",
    "total_query_impression_count": "Total Query Impression Count",
    "own_impression_count": "ASIN Impression Count",
    "own_impression_share": "ASIN Impression Share",
}
for _stage, _noun in NOUNS.items():
    FLAT_HEADINGS |= {
        f"total_{_stage}_count": f"Total {_noun} Count",
        f"total_{_stage}_rate": f"Total {_noun} Rate",
        f"own_{_stage}_count": f"ASIN {_noun} Count",
        f"own_{_stage}_share": f"ASIN {_noun} Share",
        f"total_median_{_stage}_price": f"Total Median {_noun} Price Amount",
        f"own_median_{_stage}_price": f"ASIN Median {_noun} Price Amount",
    } | {
        f"total_{speed}_day_shipping_{_stage}_count": f"Total {spoken} Shipping {_noun} Count"
        for speed, spoken in SPEEDS.items()
    }


def flat_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as the flat table: counts INT64, shares, rates and prices FLOAT64, `Date` DATE."""
    columns: dict[str, pa.Array[Any]] = {}
    rows = list(rows)
    for field, heading in FLAT_HEADINGS.items():
        cells = [row.get(field, SUNDAY if field == "date" else None) for row in rows]
        if field.endswith(("_share", "_rate")):
            cells = [cell if cell is None else round(cell * 100, 2) for cell in cells]
            columns[heading] = pa.array(cells, pa.float64())
        elif field.endswith("_price"):
            cells = [cell if cell is None else float(cell) for cell in cells]
            columns[heading] = pa.array(cells, pa.float64())
        elif field.endswith(("_count", "_score", "_volume")):
            columns[heading] = pa.array(cells, pa.int64())
        else:
            columns[heading] = pa.array(cells, pa.date32() if field == "date" else pa.string())
    return pa.table(columns)


def flat_csv(rows: Iterable[Row]) -> str:
    """Rows as the flat table's CSV."""
    lines = [list(FLAT_HEADINGS.values())]
    for row in rows:
        cells = {"date": SUNDAY, **row}
        lines.append([percent_text(field, cells.get(field)) for field in FLAT_HEADINGS])
    return written_csv(lines)


# --- reading them ----------------------------------------------------------------------------


def save(path: Path, content: bytes | str, *, zipped: bool = False) -> Path:
    """Write a file, as gzip if wanted."""
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


def find_one(path: Path, marketplace: str | None = "US") -> Delivery:
    """The one delivery in a file; raises what the file is refused for."""
    deliveries, unread = find_deliveries([str(path)], marketplace=marketplace, account=None)
    if unread:
        raise unread[0]
    (delivery,) = deliveries
    return delivery


def read_all(path: Path, marketplace: str | None = "US", batch_rows: int = 65_536) -> ParsedBatch:
    """All rows of the one delivery in a file, in one batch."""
    batches = list(read_delivery(find_one(path, marketplace), batch_rows=batch_rows))
    rejected = [row for batch in batches for row in batch.rejected]
    if not batches:
        return ParsedBatch(pa.RecordBatch.from_pylist([]), rejected)
    table = pa.Table.from_batches([batch.rows for batch in batches]).combine_chunks()
    rows = table.to_batches() or [batches[0].rows]
    return ParsedBatch(rows[0], rejected)


def rejected_one(path: Path, good: int = 0) -> RejectedRow:
    """The one rejected row of a file that has `good` good ones besides."""
    parsed = read_all(path)
    assert len(parsed.rows) == good, parsed
    (row,) = parsed.rejected
    return row


def why(path: Path, marketplace: str | None = "US") -> str:
    """Why a file is unreadable: the whole error; fails where it is readable."""
    with pytest.raises(UnreadableDelivery) as caught:
        read_all(path, marketplace)
    assert caught.value.what
    assert caught.value.next_step
    return str(caught.value)
