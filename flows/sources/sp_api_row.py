"""One row of the SP-API report: held against the published schema and flattened to cells.

The schema is Amazon's own (`schemas/`), so that nothing is guessed from a shape that changed.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from datetime import date
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import fastjsonschema

from flows.sources.deliveries import STAGES, RejectReason
from flows.sources.row_rules import NUMBER_CASTS, shorten

SCHEMA = Path(__file__).parent / "schemas" / "sellingPartnerSearchQueryPerformanceReport.json"
STAGE_SECTIONS = {"click": "clickData", "cart_add": "cartAddData", "purchase": "purchaseData"}


class RefusedRow(Exception):
    """A row that does not have the report's shape; says why."""

    def __init__(self, reason: RejectReason, what: str) -> None:
        super().__init__(what)
        self.reason = reason


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.title() for word in others)


def _paths() -> dict[str, tuple[str, str]]:
    """Field → section of the row and key in it."""
    paths = {"search_query": ("searchQueryData", "searchQuery")}
    for field in NUMBER_CASTS:
        key = _camel(field.replace("own_", "asin_", 1))
        if field.startswith("search_query"):
            paths[field] = ("searchQueryData", key)
        elif field.endswith(("_impression_count", "_impression_share")):
            paths[field] = ("impressionData", key)
        else:
            stage = next(stage for stage in STAGES if stage in field)
            paths[field] = (STAGE_SECTIONS[stage], key)
    return paths


_PATHS = _paths()
_PRICES = {field: path for field, path in _PATHS.items() if field.endswith("_price")}
_PLAIN = {
    section: [
        field for field, path in _PATHS.items() if path[0] == section and field not in _PRICES
    ]
    for section in ("searchQueryData", "impressionData", *STAGE_SECTIONS.values())
}
_GETTERS = tuple(
    (section, itemgetter(*(_PATHS[field][1] for field in fields)))
    for section, fields in _PLAIN.items()
)


class _Median(NamedTuple):
    """Where a median price is, and the count without which there is none (market-wide only)."""

    section: str
    key: str
    total_count: str | None


_MEDIANS = tuple(
    _Median(
        section,
        key,
        _PATHS[field.replace("median_", "").replace("_price", "_count")][1]
        if field.startswith("total")
        else None,
    )
    for field, (section, key) in _PRICES.items()
)

FIELDS = (
    "subject",
    *(field for fields in _PLAIN.values() for field in fields),
    *_PRICES,
    "currency_code",
)
"""The fields of a row's cells, in their order."""

HEADINGS = {"subject": "asin"} | {field: ".".join(path) for field, path in _PATHS.items()}
"""What the report calls each field."""


@cache
def validators() -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Validators of the report's specification and of one row.

    The published schema requires all median prices. Where nothing was clicked, added or bought
    there is none, and real reports leave it out or say null: own medians may be missing always,
    the market's where `flatten` finds the market's count to be 0.
    """
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    definitions = copy.deepcopy(schema["definitions"])
    price = definitions["CurrencyAmount"]
    definitions["OptionalAmount"] = {
        **price,
        "type": ["object", "null"],
        "properties": {**price["properties"], "amount": {"type": ["number", "null"]}},
    }
    row = definitions["SearchQueryPerformanceData"]
    for median in _MEDIANS:
        data = definitions[row["properties"][median.section]["$ref"].rsplit("/")[-1]]
        data["required"].remove(median.key)
        data["properties"][median.key] = {"$ref": "#/definitions/OptionalAmount"}
    return (
        fastjsonschema.compile(schema["properties"]["reportSpecification"]),
        fastjsonschema.compile({**row, "definitions": definitions}),
    )


def flatten(row: Any, period: tuple[date, date]) -> tuple[Any, ...]:
    """The cells of a row in the order of `FIELDS`; no currency where the row has no price.

    Raises `RefusedRow` where the row does not have the schema's shape, is about another period,
    or where its prices are missing or in several currencies.
    """
    _, check = validators()
    try:
        check(row)
    except fastjsonschema.JsonSchemaValueException as error:
        raise _schema_fault(error) from error
    for key, day in zip(("startDate", "endDate"), period, strict=True):
        if row[key] != day.isoformat():
            raise RefusedRow(
                RejectReason.BAD_PERIOD, f"{key} is {shorten(row[key])}, the report's is {day}"
            )
    cells = [row["asin"]]
    for section, get in _GETTERS:
        cells += get(row[section])
    currencies = set()
    for section, key, total_count in _MEDIANS:
        price = row[section].get(key)
        amount = price and price["amount"]
        if amount is None and total_count is not None and row[section][total_count] > 0:
            raise RefusedRow(RejectReason.MISSING_VALUE, f"{section}.{key} is missing")
        if price:
            currencies.add(price["currencyCode"])
        cells.append(amount)
    return (*cells, _one_currency(currencies))


def _one_currency(currencies: set[str]) -> str | None:
    if len(currencies) > 1:
        told = ", ".join(sorted(map(shorten, currencies)))
        raise RefusedRow(RejectReason.MALFORMED, f"its prices are in several currencies: {told}")
    currency = next(iter(currencies), None)
    if currency is not None and not re.fullmatch("[A-Z]{3}", currency):
        raise RefusedRow(RejectReason.MALFORMED, f"currencyCode is {shorten(currency)}")
    return currency


def _schema_fault(error: fastjsonschema.JsonSchemaValueException) -> RefusedRow:
    """Which reason a row has that breaks the schema."""
    where, value = ".".join(map(str, error.path[1:])) or "the row", error.value
    if error.rule == "required":
        missing = next(key for key in error.rule_definition if key not in value)
        return RefusedRow(RejectReason.MISSING_VALUE, f"{where}.{missing} is missing")
    if value is None:
        return RefusedRow(RejectReason.MISSING_VALUE, f"{where} is null")
    if error.rule == "format":
        return RefusedRow(RejectReason.BAD_PERIOD, f"{where} is not a date: {shorten(value)}")
    if error.rule_definition in ("integer", "number", ["number", "null"]):
        if isinstance(value, float) and math.isfinite(value):
            return RefusedRow(
                RejectReason.OUT_OF_RANGE, f"{where} is not a whole number: {shorten(value)}"
            )
        return RefusedRow(RejectReason.NOT_A_NUMBER, f"{where} is not a number: {shorten(value)}")
    return RefusedRow(
        RejectReason.MALFORMED, f"{where} is not as the schema has it: {shorten(value)}"
    )
