"""What a source hands over: deliveries, and their rows as Arrow batches in one shape.

A *delivery* is one file, the shards of one export, or what one sync reads of a table in BigQuery.
It replaces, whole, every slice it
brings: (account, marketplace, report view, period type, period start, ASIN or brand).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa


class PeriodType(StrEnum):
    """The reporting periods of Search Query Performance; never mixed with each other."""

    WEEK = "WEEK"
    MONTH = "MONTH"
    QUARTER = "QUARTER"


class ReportView(StrEnum):
    """What a report is about: one ASIN, or one brand (Seller Central CSV only)."""

    ASIN = "asin"
    BRAND = "brand"


class DeliveryFormat(StrEnum):
    """The kinds of file that are understood, told apart by content; and BigQuery's table."""

    SP_API_JSON = "sp_api_json"
    SELLER_CENTRAL_CSV = "seller_central_csv"
    FLAT_CSV = "flat_csv"
    FLAT_PARQUET = "flat_parquet"
    BIGQUERY = "bigquery"


class RejectReason(StrEnum):
    """Why a row was not loaded: the one list, held by a CHECK on `landing.rejected_rows`."""

    NOT_A_NUMBER = "not_a_number"
    NEGATIVE = "negative"
    OUT_OF_RANGE = "out_of_range"
    SHARE_ABOVE_ONE = "share_above_one"
    OWN_ABOVE_TOTAL = "own_above_total"
    BAD_ASIN = "bad_asin"
    BAD_PERIOD = "bad_period"
    BAD_TEXT = "bad_text"
    MISSING_VALUE = "missing_value"
    MALFORMED = "malformed"
    CONFLICTING_DUPLICATE = "conflicting_duplicate"


class SliceKey(NamedTuple):
    """The unit of arrival: a new delivery of it replaces the old one whole."""

    account_id: str
    marketplace_id: str
    report_view: str
    period_type: str
    period_start: date
    period_end: date
    subject: str


@dataclass(frozen=True)
class Delivery:
    """One recognised delivery, before its rows are read.

    Attributes:
        name: how messages and `landing.rejected_rows.source_file` call it: the path as given.
        paths: the file, or the shards of one export in order.
        delivered_at: when it was delivered (the newest file's modification time, UTC); of two
            deliveries of a slice the later one holds.
        account_id: the account of all rows, or None where each row names its own (the flat
            table's `Client Name`).
        period_start, period_end: of all rows, or None where each row has its own.
        declared: slices that the delivery speaks for even when it has no row of them (the ASINs
            asked for in an SP-API report): without rows such a slice is emptied.
        open_batches: opens the rows of a delivery that is no file, as its source has them.
    """

    name: str
    paths: tuple[Path, ...]
    delivery_format: DeliveryFormat
    report_view: ReportView
    period_type: PeriodType
    marketplace_id: str
    delivered_at: datetime
    account_id: str | None = None
    period_start: date | None = None
    period_end: date | None = None
    declared: tuple[SliceKey, ...] = ()
    open_batches: Callable[[], Iterator[pa.RecordBatch]] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Inspection:
    """What a file says about itself, read from its beginning without loading its rows.

    Attributes:
        marketplace_id: None where only the file's name or the user can tell.
        period_start, period_end, subjects: None or empty where each row has its own.
        subjects: the ASINs or the brand that the file speaks for, rows or no rows.
    """

    delivery_format: DeliveryFormat
    report_view: ReportView
    period_type: PeriodType
    marketplace_id: str | None = None
    period_start: date | None = None
    period_end: date | None = None
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True)
class RejectedRow:
    """One delivered row that was not loaded, with the text as it was delivered.

    `line` counts from 1 in the file (for JSON and Parquet: the row's number in the report).
    `delivered_text` is JSON, so that NUL bytes and lone surrogates survive as escapes.
    """

    source_file: str
    line: int
    reason_code: RejectReason
    reason: str
    delivered_text: str
    account_id: str | None = None
    period_start: date | None = None
    subject: str | None = None


@dataclass(frozen=True)
class ParsedBatch:
    """Some rows of a delivery: the good ones in `ROW_SCHEMA`, and the rejected ones."""

    rows: pa.RecordBatch
    rejected: list[RejectedRow] = field(default_factory=list)


STAGES = ("click", "cart_add", "purchase")
"""The stages after the impression, in the order of the funnel."""

PRICE = pa.decimal128(14, 4)
"""Money: exact, in the row's `currency_code`."""


def _row_fields() -> list[pa.Field]:
    text, count, fraction = pa.string(), pa.int64(), pa.float64()
    fields = [
        pa.field("account_id", text, nullable=False),
        pa.field("period_start", pa.date32(), nullable=False),
        pa.field("period_end", pa.date32(), nullable=False),
        pa.field("subject", text, nullable=False),
        pa.field("parent_asin", text),
        pa.field("product_name", text),
        pa.field("client_name", text),
        pa.field("search_query", text, nullable=False),
        pa.field("query", text, nullable=False),
        pa.field("query_digest", pa.binary(), nullable=False),
        pa.field("search_query_score", count),
        pa.field("search_query_volume", count),
        pa.field("total_query_impression_count", count, nullable=False),
        pa.field("own_impression_count", count, nullable=False),
        pa.field("own_impression_share", fraction),
    ]
    for stage in STAGES:
        fields += [
            pa.field(f"total_{stage}_count", count, nullable=False),
            pa.field(f"total_{stage}_rate", fraction),
            pa.field(f"own_{stage}_count", count, nullable=False),
            pa.field(f"own_{stage}_share", fraction),
            pa.field(f"total_median_{stage}_price", PRICE),
            pa.field(f"own_median_{stage}_price", PRICE),
            pa.field(f"total_same_day_shipping_{stage}_count", count),
            pa.field(f"total_one_day_shipping_{stage}_count", count),
            pa.field(f"total_two_day_shipping_{stage}_count", count),
        ]
    fields += [
        pa.field("currency_code", text),
        pa.field("source_line", count, nullable=False),
    ]
    return fields


ROW_SCHEMA = pa.schema(_row_fields())
"""The one shape of a parsed row. Counts are own (the ASIN's or brand's) or total (market-wide);
shares and rates are fractions; `query` is `search_query` trimmed, inner whitespace collapsed,
lower-cased and in NFC; `query_digest` is the first 16 bytes of its SHA-256."""
