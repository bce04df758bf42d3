"""The SP-API report `GET_BRAND_ANALYTICS_SEARCH_QUERY_PERFORMANCE_REPORT`, JSON or gzip.

Every row is held against the published schema (`schemas/`), so that nothing is guessed from a
shape that Amazon has changed. Shares and rates are fractions.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema
import pyarrow as pa

from flows.sources.deliveries import (
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
    is_storable,
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
    path: Path, terms: Terms, start: date, end: date, batch_rows: int
) -> Iterator[ParsedBatch]:
    """The rows of a report about the period from `start` to `end`; a row's line is its number."""
    name = terms.source_file
    terms = replace(terms, read_days=constant_days(start, end), currency_code=None)
    marketplace_currency = terms_currency = terms.currency_code
    del marketplace_currency, terms_currency
    batch = _Batch()
    there = False
    with _reading(name), open_utf8(path) as source:
        for value in stream_document(source, ROWS):
            if value.key != ROWS:
                continue
            yield from ()
    if not there:
        raise unreadable(name, f"it has no {ROWS}", AGAIN)
