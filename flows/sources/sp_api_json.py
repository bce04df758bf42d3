"""The SP-API report `GET_BRAND_ANALYTICS_SEARCH_QUERY_PERFORMANCE_REPORT`, JSON or gzip.

Every row is held against the published schema (`schemas/`), so that nothing is guessed from a
shape that Amazon has changed. Shares and rates are fractions.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema
import pyarrow as pa

from flows.sources.deliveries import (
    ROW_SCHEMA,
    STAGES,
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

SCHEMA = Path(__file__).parent / "schemas" / "sellingPartnerSearchQueryPerformanceReport.json"
ROWS = "dataByAsin"
BATCH_ROWS = 8_192
BATCH_CHARACTERS = 32 << 20
"""Batches are smaller than other formats' because each row's text is kept until it is judged."""

MEDIANS = tuple(
    (stage, whose, f"{whose}Median{stage.title().replace('_', '')}Price")
    for stage in STAGES
    for whose in ("total", "asin")
)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.title() for word in others)


def _paths() -> dict[str, tuple[str, ...]]:
    """Field → where the report has it."""
    paths = {
        "subject": ("asin",),
        "search_query": ("searchQueryData", "searchQuery"),
        "search_query_score": ("searchQueryData", "searchQueryScore"),
        "search_query_volume": ("searchQueryData", "searchQueryVolume"),
    }
    for name in NUMBER_CASTS:
        if name in paths:
            continue
        stage = next(stage for stage in ("impression", *STAGES) if stage in name)
        key = _camel(name.replace("own_", "asin_", 1))
        if name.endswith("_price"):
            whose = "total" if name.startswith("total") else "asin"
            key = _camel(f"{whose}_median_{stage}_price")
        paths[name] = (f"{_camel(stage)}Data", key)
    return paths


PATHS = _paths()


@cache
def _validators() -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Validators of the report's specification and of one row.

    The published schema requires all median prices. There is none where nothing was clicked,
    added or bought: then real reports leave it out or say null. For the market's medians that
    holds where the market's count is 0, which `_missing_median` sees to.
    """
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    definitions = copy.deepcopy(schema["definitions"])
    price = definitions["CurrencyAmount"]
    definitions["OptionalAmount"] = {
        **price,
        "type": ["object", "null"],
        "properties": {**price["properties"], "amount": {"type": ["number", "null"]}},
    }
    for stage, _, key in MEDIANS:
        data = definitions[f"SearchQueryPerformance{stage.title().replace('_', '')}Data"]
        data["required"].remove(key)
        data["properties"][key] = {"$ref": "#/definitions/OptionalAmount"}
    row = {"$ref": "#/definitions/SearchQueryPerformanceData", "definitions": definitions}
    specification = schema["properties"]["reportSpecification"]
    return fastjsonschema.compile(specification), fastjsonschema.compile(row)


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
    check, _ = _validators()
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


class _Refused(Exception):
    """A row that does not have the report's shape."""

    def __init__(self, reason: RejectReason, what: str) -> None:
        super().__init__(what)
        self.reason = reason


class _Batch:
    """Rows of a report on their way from objects to columns."""

    def __init__(self, terms: Terms, period: tuple[date, date]) -> None:
        self._terms = terms
        self._period = period
        self._columns: dict[str, list[Any]] = {name: [] for name in PATHS}
        self._currencies: list[str | None] = []
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
        try:
            row = _checked(value, self._period)
            currency = _currency_of(row) or self._terms.currency_code
        except _Refused as refused:
            self._rejected.append(self._as_rejected(value, refused))
            return
        for name, (section, *key) in PATHS.items():
            cell = row[section][key[0]] if key and not name.endswith("_price") else row[section]
            if name.endswith("_price"):
                price = cell.get(key[0])
                cell = price and price["amount"]
            self._columns[name].append(cell)
        self._currencies.append(currency)
        assert value.number is not None
        self._lines.append(value.number)
        self._texts.append(value.text)

    def judged(self) -> ParsedBatch:
        """The rows after every rule that holds for all formats."""
        columns = {name: _as_array(name, values) for name, values in self._columns.items()}
        columns["currency_code"] = pa.array(self._currencies, pa.string())
        cells = Cells(
            columns,
            {name: ".".join(path) for name, path in PATHS.items()},
            pa.array(self._lines, pa.int64()),
            lambda row: _as_ascii(self._texts[row]),
        )
        terms = replace(self._terms, currency_code=None, read_days=constant_days(*self._period))
        judged = judge(cells, terms)
        rejected = sorted(self._rejected + judged.rejected, key=lambda row: row.line)
        return ParsedBatch(judged.rows, rejected)

    def _as_rejected(self, value: Value, refused: _Refused) -> RejectedRow:
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


def _checked(value: Value, period: tuple[date, date]) -> dict[str, Any]:
    """The row, if it has the schema's shape, is about the period and misses no price."""
    if value.repeated is not None:
        raise _Refused(RejectReason.MALFORMED, f"{shorten(value.repeated)} is in it twice")
    _, check = _validators()
    try:
        check(value.value)
    except fastjsonschema.JsonSchemaValueException as error:
        raise _schema_fault(error) from error
    row: dict[str, Any] = value.value
    for key, day in zip(("startDate", "endDate"), period, strict=True):
        if row[key] != day.isoformat():
            raise _Refused(
                RejectReason.BAD_PERIOD, f"{key} is {shorten(row[key])}, the report's is {day}"
            )
    for stage, whose, key in MEDIANS:
        total_path = PATHS[f"total_{stage}_count"]
        price = row[total_path[0]].get(key)
        missing = price is None or price["amount"] is None
        if whose == "total" and missing and row[total_path[0]][total_path[1]] > 0:
            raise _Refused(RejectReason.MISSING_VALUE, f"{total_path[0]}.{key} is missing")
    return row


def _schema_fault(error: fastjsonschema.JsonSchemaValueException) -> _Refused:
    """Which reason a row has that breaks the schema."""
    where, value = ".".join(map(str, error.path[1:])) or "the row", error.value
    if error.rule == "required":
        missing = next(key for key in error.rule_definition if key not in value)
        return _Refused(RejectReason.MISSING_VALUE, f"{where}.{missing} is missing")
    if value is None:
        return _Refused(RejectReason.MISSING_VALUE, f"{where} is null")
    if error.rule == "format":
        return _Refused(RejectReason.BAD_PERIOD, f"{where} is not a date: {shorten(value)}")
    if error.rule_definition in ("integer", "number", ["number", "null"]):
        if isinstance(value, float) and math.isfinite(value):
            return _Refused(
                RejectReason.OUT_OF_RANGE, f"{where} is not a whole number: {shorten(value)}"
            )
        return _Refused(RejectReason.NOT_A_NUMBER, f"{where} is not a number: {shorten(value)}")
    return _Refused(
        RejectReason.MALFORMED, f"{where} is not as the schema has it: {shorten(value)}"
    )


def _currency_of(row: dict[str, Any]) -> str | None:
    """The one currency of a row's prices, or None where it has no price."""
    prices = (row[PATHS[f"total_{stage}_count"][0]].get(key) for stage, _, key in MEDIANS)
    currencies = {price["currencyCode"] for price in prices if price is not None}
    if len(currencies) > 1:
        told = ", ".join(sorted(map(shorten, currencies)))
        raise _Refused(RejectReason.MALFORMED, f"its prices are in several currencies: {told}")
    currency: str | None = next(iter(currencies), None)
    if currency is not None and not re.fullmatch("[A-Z]{3}", currency):
        raise _Refused(RejectReason.MALFORMED, f"currencyCode is {shorten(currency)}")
    return currency


def _as_array(name: str, values: list[Any]) -> pa.Array[Any]:
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
