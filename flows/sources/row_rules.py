"""The rules that a row must keep, whatever file it came in, applied to a whole batch at a time.

A format hands over the cells of a batch by field name, as delivered; what comes back is the rows
in `ROW_SCHEMA` and the rejected ones, each with the first rule that it breaks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.sources.deliveries import (
    ROW_SCHEMA,
    STAGES,
    ParsedBatch,
    RejectedRow,
    RejectReason,
)
from flows.sources.normalise import (
    Mask,
    Notation,
    Numbers,
    query_keys,
    to_counts,
    to_prices,
    to_rates,
    to_shares,
)

ASIN_PATTERN = "^[A-Z0-9]{10}$"
ACCOUNT_LENGTH = 255
DEFAULT_ACCOUNT = "default"
"""The account of rows when neither the user nor the delivery names one."""

STAGE_TOTALS = {
    "impression": ("total_query_impression_count", "own_impression_count"),
    **{stage: (f"total_{stage}_count", f"own_{stage}_count") for stage in STAGES},
}
"""Of each stage of the funnel, the market-wide count and the own count."""

REQUIRED_COUNTS = frozenset(name for pair in STAGE_TOTALS.values() for name in pair)
"""The counts without which a row says nothing."""

OPTIONAL_TEXTS = ("parent_asin", "product_name", "client_name")

_Cast = Callable[["pa.Array[Any]", Notation], Numbers]


def _casts() -> dict[str, _Cast]:
    casts: dict[str, _Cast] = {}
    for field in ROW_SCHEMA:
        if field.name.endswith(("_count", "_score", "_volume")):
            casts[field.name] = to_counts
        elif field.name.endswith("_share"):
            casts[field.name] = to_shares
        elif field.name.endswith("_rate"):
            casts[field.name] = to_rates
        elif field.name.endswith("_price"):
            casts[field.name] = to_prices
    return casts


NUMBER_CASTS = _casts()
"""How each field that holds a number is cast, in the order of `ROW_SCHEMA`."""


@dataclass(frozen=True)
class Cells:
    """The cells of some rows, as delivered.

    Attributes:
        columns: by field of `ROW_SCHEMA` (and `date`, `reporting_date`); a field that the
            delivery does not have is not there. Text may be binary.
        headings: what the delivery calls each field.
        lines: of each row in its file, from 1.
        delivered_text: a row, by its index here, as JSON.
    """

    columns: Mapping[str, pa.Array[Any]]
    headings: Mapping[str, str]
    lines: pa.Int64Array
    delivered_text: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.lines)


class Days(NamedTuple):
    """The first and the last day of each row's period, null where the row has no period."""

    start: pa.Array[Any]
    end: pa.Array[Any]


@dataclass(frozen=True)
class Terms:
    """What is the same for all rows of a file.

    Attributes:
        source_file: what rejected rows are said to come from.
        notation: how numbers are written.
        currency_code: of all prices, where the cells have no column of it.
        account_id: None where each row's `client_name` says it.
        subject: the ASIN or brand; None where each row has its own ASIN.
        read_days: finds each row's period and refuses rows without one.
    """

    source_file: str
    notation: Notation
    currency_code: str
    account_id: str | None
    subject: str | None
    read_days: Callable[[Cells, Verdict], Days]


class Verdict:
    """Which rows are refused, and of each the first rule that it breaks."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self.refused: Mask = np.zeros(len(cells), dtype=bool)
        self.reasons: dict[int, tuple[RejectReason, str]] = {}

    def refuse(self, rows: Mask, reason: RejectReason, field: str, what: str) -> None:
        """Refuse the rows of a mask that are not refused yet: column `field` `what`."""
        for row in np.flatnonzero(rows & ~self.refused).tolist():
            heading = self._cells.headings.get(field, field)
            self.reasons[row] = (reason, f"{heading} {what}{self._shown(field, row)}")
        self.refused |= rows

    def _shown(self, field: str, row: int) -> str:
        cell = self._cells.columns[field][row].as_py() if field in self._cells.columns else None
        return "" if cell is None else f": {shorten(cell)}"


def shorten(cell: object, limit: int = 80) -> str:
    """A cell's value for a message: escaped, and cut after `limit` characters."""
    if isinstance(cell, (dict, list)):
        return "an object" if isinstance(cell, dict) else "an array"
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "surrogateescape")
    shown = json.dumps(cell) if isinstance(cell, str) else str(cell)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


def is_storable(text: str) -> bool:
    """Whether Postgres can store a text: no NUL, no lone surrogate."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


class Texts(NamedTuple):
    """A text column: its distinct values, clean or null, and where each row's value is."""

    values: pa.StringArray
    where: pa.Array[Any]

    def spread(self, values: pa.Array[Any] | None = None) -> pa.Array[Any]:
        """The column; or, for something computed from each distinct value, that column."""
        return (self.values if values is None else values).take(self.where)


def judge(cells: Cells, terms: Terms) -> ParsedBatch:
    """Cast the cells, apply every rule, and part the good rows from the rejected ones."""
    verdict = Verdict(cells)
    columns: dict[str, pa.Array[Any]] = {"source_line": cells.lines}
    for name in OPTIONAL_TEXTS:
        if name in cells.columns:
            columns[name] = _trimmed(_read_texts(cells, name, verdict))
    queries = _read_texts(cells, "search_query", verdict)
    keys = query_keys(queries.values)
    columns["search_query"] = queries.spread()
    columns["query"] = queries.spread(keys.query)
    columns["query_digest"] = queries.spread(keys.digest)
    empty = pc.equal(pc.fill_null(columns["query"], ""), "").to_numpy(zero_copy_only=False)
    verdict.refuse(empty, RejectReason.MISSING_VALUE, "search_query", "is empty")
    columns["subject"] = _read_subjects(cells, terms, verdict)
    columns["account_id"] = _read_accounts(columns, terms, verdict)
    columns["period_start"], columns["period_end"] = terms.read_days(cells, verdict)
    columns |= _read_numbers(cells, terms, verdict)
    _refuse_own_above_total(columns, verdict)
    currency = cells.columns.get("currency_code", pa.nulls(len(cells), pa.string()))
    columns["currency_code"] = currency.fill_null(terms.currency_code)
    return _part(cells, terms, verdict, columns)


def _part(
    cells: Cells, terms: Terms, verdict: Verdict, columns: dict[str, pa.Array[Any]]
) -> ParsedBatch:
    rejected = [
        RejectedRow(
            source_file=terms.source_file,
            line=cells.lines[row].as_py(),
            reason_code=verdict.reasons[row][0],
            reason=verdict.reasons[row][1],
            delivered_text=cells.delivered_text(row),
            account_id=columns["account_id"][row].as_py(),
            period_start=columns["period_start"][row].as_py(),
            subject=columns["subject"][row].as_py(),
        )
        for row in sorted(verdict.reasons)
    ]
    arrays = [
        columns[field.name] if field.name in columns else pa.nulls(len(cells), field.type)
        for field in ROW_SCHEMA
    ]
    if rejected:
        good = pa.array(~verdict.refused)
        arrays = [array.filter(good) for array in arrays]
    return ParsedBatch(pa.RecordBatch.from_arrays(arrays, schema=ROW_SCHEMA), rejected)


def _read_texts(cells: Cells, name: str, verdict: Verdict) -> Texts:
    """A text column without what Postgres cannot store: NUL, lone surrogates, broken UTF-8."""
    delivered = cells.columns[name]
    if pa.types.is_null(delivered.type):
        delivered = delivered.cast(pa.string())
    column = (
        delivered if pa.types.is_dictionary(delivered.type) else pc.dictionary_encode(delivered)
    )
    distinct = column.dictionary.cast(pa.binary())
    values, faults = _clean_texts(distinct)
    where = column.indices
    for what, wrong in faults.items():
        rows = np.append(wrong, False)[pc.fill_null(where, len(wrong)).to_numpy()]
        verdict.refuse(rows, RejectReason.BAD_TEXT, name, what)
    return Texts(values, where)


def _clean_texts(distinct: pa.BinaryArray) -> tuple[pa.StringArray, dict[str, Mask]]:
    """The values as text, null where they cannot be; and which ones cannot, by what is wrong."""
    faults: dict[str, Mask] = {}
    try:
        values = distinct.cast(pa.string())
    except pa.ArrowInvalid:
        texts = [_decoded(value) for value in distinct.to_pylist()]
        wrong = pc.and_(distinct.is_valid(), pa.array([text is None for text in texts]))
        faults["is not valid Unicode"] = wrong.to_numpy(zero_copy_only=False)
        values = pa.array(texts, pa.string())
    nul = pc.match_substring(values, "\0")
    if pc.any(nul).as_py():
        faults["holds a NUL byte"] = pc.fill_null(nul, False).to_numpy(zero_copy_only=False)
        values = pc.if_else(nul, pa.scalar(None, pa.string()), values)
    return values, faults


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _trimmed(texts: Texts) -> pa.Array[Any]:
    trimmed = pc.utf8_trim_whitespace(texts.values)
    return texts.spread(pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed))


def _read_subjects(cells: Cells, terms: Terms, verdict: Verdict) -> pa.Array[Any]:
    if terms.subject is not None:
        return pa.repeat(pa.scalar(terms.subject), len(cells))
    texts = _read_texts(cells, "subject", verdict)
    fits = pc.match_substring_regex(texts.values, ASIN_PATTERN)
    subjects = texts.spread(pc.if_else(fits, texts.values, pa.scalar(None, pa.string())))
    missing = texts.where.is_null().to_numpy(zero_copy_only=False)
    verdict.refuse(missing, RejectReason.MISSING_VALUE, "subject", "is empty")
    verdict.refuse(
        subjects.is_null().to_numpy(zero_copy_only=False),
        RejectReason.BAD_ASIN,
        "subject",
        "is not ten capital letters and digits",
    )
    return subjects


def _read_accounts(
    columns: dict[str, pa.Array[Any]], terms: Terms, verdict: Verdict
) -> pa.Array[Any]:
    names = columns.get("client_name")
    if terms.account_id is not None or names is None:
        account = terms.account_id or DEFAULT_ACCOUNT
        return pa.repeat(pa.scalar(account), len(columns["source_line"]))
    too_long = pc.fill_null(pc.greater(pc.utf8_length(names), ACCOUNT_LENGTH), False)
    verdict.refuse(
        too_long.to_numpy(zero_copy_only=False),
        RejectReason.BAD_TEXT,
        "client_name",
        f"is longer than {ACCOUNT_LENGTH} characters",
    )
    return pc.fill_null(names, DEFAULT_ACCOUNT)


def _read_numbers(cells: Cells, terms: Terms, verdict: Verdict) -> dict[str, pa.Array[Any]]:
    columns = {}
    for name, cast in NUMBER_CASTS.items():
        if name not in cells.columns:
            continue
        numbers = cast(cells.columns[name], terms.notation)
        for fault in numbers.faults:
            verdict.refuse(fault.rows, fault.reason, name, fault.what)
        if name in REQUIRED_COUNTS and numbers.values.null_count:
            missing = numbers.values.is_null().to_numpy(zero_copy_only=False)
            verdict.refuse(missing, RejectReason.MISSING_VALUE, name, "is empty")
        columns[name] = numbers.values
    return columns


def _refuse_own_above_total(columns: dict[str, pa.Array[Any]], verdict: Verdict) -> None:
    for stage, (total, own) in STAGE_TOTALS.items():
        above = pc.fill_null(pc.greater(columns[own], columns[total]), False)
        if pc.any(above).as_py():
            verdict.refuse(
                above.to_numpy(zero_copy_only=False),
                RejectReason.OWN_ABOVE_TOTAL,
                own,
                f"is above the market's {stage} count",
            )


def constant_days(start: date, end: date) -> Callable[[Cells, Verdict], Days]:
    """The same period for every row of a file."""

    def read_days(cells: Cells, _verdict: Verdict) -> Days:
        return Days(
            pa.repeat(pa.scalar(start, pa.date32()), len(cells)),
            pa.repeat(pa.scalar(end, pa.date32()), len(cells)),
        )

    return read_days
