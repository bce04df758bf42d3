"""The SP-API report `GET_BRAND_ANALYTICS_SEARCH_QUERY_PERFORMANCE_REPORT`, JSON or gzip.

Every row is held against the published schema (`schemas/`), so that nothing is guessed from a
shape that Amazon has changed. Shares and rates are fractions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import fastjsonschema
import pyarrow as pa

from flows.sources.deliveries import (
    ROW_SCHEMA,
    DeliveryFormat,
    Inspection,
    ParsedBatch,
    PeriodType,
    RejectedRow,
    RejectReason,
    ReportView,
)
from flows.sources.files import open_utf8, reading, unreadable
from flows.sources.json_stream import BrokenJson, Value, stream_document
from flows.sources.marketplaces import find_marketplace
from flows.sources.periods import period_fault
from flows.sources.row_rules import (
    ASIN_PATTERN,
    NUMBER_CASTS,
    Cells,
    Terms,
    constant_days,
    judge,
    shorten,
)
from flows.sources.sp_api_row import FIELDS, HEADINGS, RefusedRow, flatten, validators

ROWS = "dataByAsin"
BATCH_ROWS = 8_192
BATCH_CHARACTERS = 32 << 20
"""Batches are smaller than other formats' because each row's text is kept until it is judged."""


def inspect_sp_api_json(path: Path, name: str) -> Inspection:
    """What a report's specification says; reads on until it comes."""
    specification = None
    with _reading(name), open_utf8(path) as source:
        for value in stream_document(source, ROWS):
            if value.key == "errorDetails":
                raise _failed_report(name, value.value)
            if value.key == "reportSpecification":
                specification = value
                break
    if specification is None:
        raise unreadable(name, "it is JSON, but not a report: it has no reportSpecification", AGAIN)
    return _inspect(specification, name)


AGAIN = "request the report again and deliver its document unchanged"


def _inspect(specification: Value, name: str) -> Inspection:
    check, _ = validators()
    try:
        check(specification.value)
    except fastjsonschema.JsonSchemaValueException as error:
        told = error.message.replace("data", "reportSpecification", 1)
        raise unreadable(name, told, AGAIN) from error
    if specification.repeated is not None:
        raise unreadable(name, f"{specification.repeated!r} is in its specification twice", AGAIN)
    options = specification.value["reportOptions"]
    period_type = PeriodType(options["reportPeriod"])
    start = date.fromisoformat(specification.value["dataStartTime"])
    end = date.fromisoformat(specification.value["dataEndTime"])
    if fault := period_fault(period_type, start, end):
        raise unreadable(name, fault, "request the report with the exact bounds of one period")
    asins = tuple(dict.fromkeys(re.split(r"[\s,]+", options["asin"].strip())))
    for asin in asins:
        if not re.fullmatch(ASIN_PATTERN, asin):
            raise unreadable(name, f"it was requested for {shorten(asin)}, not an ASIN", AGAIN)
    return Inspection(
        DeliveryFormat.SP_API_JSON,
        ReportView.ASIN,
        period_type,
        _marketplace_id(specification.value["marketplaceIds"], name),
        start,
        end,
        asins,
    )


def _marketplace_id(ids: list[str], name: str) -> str:
    if len(ids) != 1:
        told = ", ".join(map(shorten, ids)) or "none"
        raise unreadable(
            name,
            f"it must be about one marketplace and names {told}",
            "request one report for each marketplace",
        )
    marketplace = find_marketplace(ids[0])
    if marketplace is None or marketplace.marketplace_id != ids[0]:
        raise unreadable(
            name,
            f"its marketplace {shorten(ids[0])} is not known",
            "add the marketplace to dbt_project/seeds/marketplaces.csv",
        )
    return ids[0]


def _failed_report(name: str, details: object) -> Exception:
    """The error for the document of a report that ended FATAL: it quotes Amazon's text."""
    told = str(details)
    if "unavailable" in told:
        next_step = (
            "request it again later: the newest period can come up to two weeks late; for an"
            " older one trying again does not help"
        )
    elif "parameters are valid" in told:
        next_step = "trying again does not help: correct the request's period, ASINs or options"
    else:
        next_step = "request the report once more; if it fails again, ask Amazon's support"
    return unreadable(name, f"Amazon could not make the report: {shorten(told, 300)}", next_step)


def read_sp_api_json(
    path: Path, terms: Terms, period: tuple[date, date], batch_rows: int
) -> Iterator[ParsedBatch]:
    """The rows of a report about the period; a row's line is its number in the report."""
    name = terms.source_file
    batch = _Batch(terms, period)
    with _reading(name), open_utf8(path) as source:
        for value in stream_document(source, ROWS):
            if value.key == ROWS:
                batch.add(value)
            if batch.is_full(min(batch_rows, BATCH_ROWS)):
                yield batch.judged()
                batch = _Batch(terms, period)
    yield batch.judged()


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        with reading(name):
            yield
    except BrokenJson as error:
        raise unreadable(name, f"its JSON is broken: {error}", AGAIN) from error


class _Batch:
    """Rows of a report on their way from objects to columns."""

    def __init__(self, terms: Terms, period: tuple[date, date]) -> None:
        self._terms = terms
        self._period = period
        self._rows: list[tuple[Any, ...]] = []
        self._lines: list[int] = []
        self._texts: list[str] = []
        self._characters = 0
        self._rejected: list[RejectedRow] = []

    def is_full(self, rows: int) -> bool:
        """Whether it should be judged before more is added."""
        held = len(self._lines) + len(self._rejected)
        return held >= rows or self._characters >= BATCH_CHARACTERS

    def add(self, value: Value) -> None:
        """Add a row, or reject it if it does not have the report's shape."""
        self._characters += len(value.text)
        assert value.number is not None
        try:
            if value.repeated is not None:
                repeated = shorten(value.repeated)
                raise RefusedRow(RejectReason.MALFORMED, f"{repeated} is in it twice")
            row = flatten(value.value, self._period)
        except RefusedRow as refused:
            self._rejected.append(self._as_rejected(value, refused))
            return
        self._rows.append(row)
        self._lines.append(value.number)
        self._texts.append(value.text)

    def judged(self) -> ParsedBatch:
        """The rows after every rule that holds for all formats."""
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(FIELDS)
        cells = Cells(
            {field: _as_array(field, cells) for field, cells in zip(FIELDS, columns, strict=True)},
            HEADINGS,
            pa.array(self._lines, pa.int64()),
            lambda row: _as_ascii(self._texts[row]),
        )
        terms = replace(self._terms, read_days=constant_days(*self._period))
        judged = judge(cells, terms)
        rejected = sorted(self._rejected + judged.rejected, key=lambda row: row.line)
        return ParsedBatch(judged.rows, rejected)

    def _as_rejected(self, value: Value, refused: RefusedRow) -> RejectedRow:
        asin = value.value.get("asin") if isinstance(value.value, dict) else None
        known = isinstance(asin, str) and re.fullmatch(ASIN_PATTERN, asin) is not None
        assert value.number is not None
        return RejectedRow(
            source_file=self._terms.source_file,
            line=value.number,
            reason_code=refused.reason,
            reason=str(refused),
            delivered_text=_as_ascii(value.text),
            account_id=self._terms.account_id,
            period_start=self._period[0],
            subject=asin if known else None,
        )


def _as_array(name: str, values: Sequence[Any]) -> pa.Array[Any]:
    """A column of Python values; what Arrow cannot hold goes on as text, to be judged there."""
    if name not in NUMBER_CASTS:
        try:
            return pa.array(values, pa.string())
        except UnicodeEncodeError:
            return pa.array([text.encode("utf-8", "surrogatepass") for text in values])
    is_count = pa.types.is_integer(ROW_SCHEMA.field(name).type)
    kinds = set(map(type, values)) - {type(None)}
    try:
        if not is_count:
            return pa.array(values, pa.float64())
        if kinds <= {int}:
            return pa.array(values, pa.int64())
    except (pa.ArrowInvalid, OverflowError):
        pass
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _as_ascii(text: str) -> str:
    """JSON with everything beyond printable ASCII written as escapes."""
    return _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)


_BEYOND_ASCII = re.compile(r"[^\x20-\x7e\t\n\r]")
