"""One form for everything a row says: query keys, counts, fractions and prices.

Columns are cast by Arrow as a whole. Only a column with a cell that Arrow refuses is read value
by value, and then each distinct value once.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flows.sources.deliveries import PRICE, RejectReason

COUNT_LIMIT = 10**12
"""Counts are below this, so that the sums of a quarter are exact also in floating point."""
RATE_LIMIT = 1e6
"""Rates are stage count ÷ search query volume; they may exceed 1, but not by this much."""
PRICE_LIMIT = 1e10
"""What `PRICE` can hold."""
SHARE_TOLERANCE = 1e-9
"""By how much a share may exceed 1 because it was computed in floating point."""

DIGEST_BYTES = 16

Mask = npt.NDArray[np.bool_]

_PLAIN_QUERY = r"^[!-~]+( [!-~]+)*$"
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_POINT = re.compile(r"[+-]?[0-9]*\.(?:[0-9]{1,2}|[0-9]{4,})")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:([,.'\u2019 \u00a0\u202f])[0-9]{3})(?:\1[0-9]{3})*")
_NUMBER_BYTES = np.zeros(256, dtype=bool)
_NUMBER_BYTES[list(b"0123456789.-eE")] = True


def normalise_query(text: str) -> str:
    """The key of a search query: trimmed, inner whitespace collapsed, lower case, NFC.

    Lower-casing can make letters that compose (J̌ becomes ǰ), so NFC comes before and after it.
    """
    collapsed = " ".join(text.split())
    if collapsed.isascii():
        return collapsed.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", collapsed).lower())


def query_digest(query: str) -> bytes:
    """The first 16 bytes of the SHA-256 of a normalised query."""
    return sha256(query.encode()).digest()[:DIGEST_BYTES]


class QueryKeys(NamedTuple):
    """Normalised queries and their digests, in the order of the queries given."""

    query: pa.StringArray
    digest: pa.BinaryArray


def query_keys(queries: pa.StringArray) -> QueryKeys:
    """Normalise and digest many queries; give each only once. Nulls stay null."""
    plain = pc.match_substring_regex(queries, _PLAIN_QUERY)
    normalised = pc.ascii_lower(pc.if_else(plain, queries, pa.scalar("")))
    others = pc.fill_null(pc.invert(plain), False)
    if pc.any(others).as_py():
        rest = pa.array([normalise_query(text) for text in queries.filter(others).to_pylist()])
        normalised = pc.replace_with_mask(normalised, others, rest.cast(pa.string()))
    digests = [
        None if text is None else sha256(text).digest()[:DIGEST_BYTES]
        for text in normalised.cast(pa.binary()).to_pylist()
    ]
    return QueryKeys(normalised, pa.array(digests, pa.binary()))


def parse_number(
    text: str, *, decimal_comma: bool = False, percent_sign: bool = False
) -> Decimal | None:
    """The number that a cell says, as people and spreadsheets write numbers, or None.

    Thousands may be grouped (`1,234`, `1 234`; `1.234` with a decimal comma, where `15.50` can
    only be a decimal point), and a percent sign may follow where one makes sense; it does not
    change the number.
    """
    text = text.strip()
    if percent_sign:
        text = text.removesuffix("%").rstrip()
    point = "," if decimal_comma and not _POINT.fullmatch(text) else "."
    whole, found, rest = text.partition(point)
    if _GROUPED.fullmatch(whole):
        whole = re.sub(r"[^0-9+-]", "", whole)
    text = f"{whole}.{rest}" if found else whole
    return Decimal(text) if _NUMBER.fullmatch(text) else None


class Fault(NamedTuple):
    """Rows whose cell breaks one rule, and how to say so."""

    rows: Mask
    reason: RejectReason
    what: str


@dataclass(frozen=True)
class Numbers:
    """A column cast to its type: null where the cell is empty or faulty."""

    values: pa.Array[Any]
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class Notation:
    """How a delivery writes its numbers.

    Attributes:
        percent: shares and rates are 0–100, not 0–1.
        decimal_comma: a comma, not a point, comes before the decimals.
    """

    percent: bool
    decimal_comma: bool = False


def to_counts(cells: pa.Array[Any], notation: Notation) -> Numbers:
    """Whole numbers from 0 to below 10^12, as int64."""
    numbers = _cast(cells, pa.int64(), notation)
    smallest, largest = pc.min_max(numbers.values).as_py().values()
    if smallest is None or (smallest >= 0 and largest < COUNT_LIMIT):
        return numbers
    values = _filled(numbers.values)
    return Numbers(
        numbers.values,
        [
            *numbers.faults,
            Fault(values < 0, RejectReason.NEGATIVE, "is negative"),
            Fault(values >= COUNT_LIMIT, RejectReason.OUT_OF_RANGE, "is out of range"),
        ],
    )


def to_shares(cells: pa.Array[Any], notation: Notation) -> Numbers:
    """Fractions from 0 to 1, as float64."""
    numbers = _fractions(cells, notation, 1.0 + SHARE_TOLERANCE, RejectReason.SHARE_ABOVE_ONE)
    return Numbers(pc.min_element_wise(numbers.values, 1.0, skip_nulls=False), numbers.faults)


def to_rates(cells: pa.Array[Any], notation: Notation) -> Numbers:
    """Fractions from 0 to `RATE_LIMIT`, as float64."""
    return _fractions(cells, notation, RATE_LIMIT, RejectReason.OUT_OF_RANGE)


def to_prices(cells: pa.Array[Any], notation: Notation) -> Numbers:
    """Amounts of money from 0 to below 10^10, as `PRICE`, rounded to its four decimals."""
    numbers = _bounded(
        _cast(cells, pa.float64(), notation), PRICE_LIMIT - 1, RejectReason.OUT_OF_RANGE
    )
    amounts = _filled(numbers.values)
    for fault in numbers.faults:
        amounts = np.where(fault.rows, 0.0, amounts)
    words = np.empty((len(amounts), 2), dtype=np.int64)
    words[:, 0] = np.rint(amounts * 10**PRICE.scale).astype(np.int64)
    words[:, 1] = 0
    present = numbers.values.is_valid()
    return Numbers(
        pa.Array.from_buffers(
            PRICE,
            len(amounts),
            [present.buffers()[1] if numbers.values.null_count else None, pa.py_buffer(words)],
        ),
        numbers.faults,
    )


def _fractions(
    cells: pa.Array[Any], notation: Notation, limit: float, above: RejectReason
) -> Numbers:
    numbers = _cast(cells, pa.float64(), notation, percent_sign=notation.percent)
    values = _percent_to_fraction(numbers.values) if notation.percent else numbers.values
    return _bounded(Numbers(values, numbers.faults), limit, above)


def _percent_to_fraction(percents: pa.DoubleArray) -> pa.DoubleArray:
    """2.6 % becomes 0.026, the same float as that literal: exact to the twelfth decimal."""
    return pc.divide(pc.round(pc.multiply(percents, 1e10)), 1e12)


def _bounded(numbers: Numbers, limit: float, above: RejectReason) -> Numbers:
    """Refuse what is not between 0 and `limit`; NaN is not."""
    values = _filled(numbers.values)
    if np.all((values >= 0) & (values <= limit)):
        return numbers
    finite = np.isfinite(values)
    what = "is above 1" if above is RejectReason.SHARE_ABOVE_ONE else "is out of range"
    return Numbers(
        numbers.values,
        [
            *numbers.faults,
            Fault(~finite, RejectReason.NOT_A_NUMBER, "is not a finite number"),
            Fault(finite & (values < 0), RejectReason.NEGATIVE, "is negative"),
            Fault(finite & (values > limit), above, what),
        ],
    )


def _filled(values: pa.Array[Any]) -> npt.NDArray[Any]:
    filled: npt.NDArray[Any] = pc.fill_null(values, 0).to_numpy()
    return filled


def _cast(
    cells: pa.Array[Any], to: pa.DataType, notation: Notation, *, percent_sign: bool = False
) -> Numbers:
    """Cast as a whole where Arrow can, else each distinct value by itself."""
    if cells.type == to:
        return Numbers(cells)
    if _is_text(cells.type):
        fits = not notation.decimal_comma and bool(_NUMBER_BYTES[payload(cells)].all())
    else:
        fits = not pa.types.is_boolean(cells.type)
    if fits:
        try:
            source = cells.cast(pa.string()) if pa.types.is_binary(cells.type) else cells
            return Numbers(source.cast(to))
        except pa.ArrowInvalid:
            pass
    return _cast_each(cells, to, notation, percent_sign=percent_sign)


def _cast_each(
    cells: pa.Array[Any], to: pa.DataType, notation: Notation, *, percent_sign: bool
) -> Numbers:
    distinct = cells.dictionary_encode()
    where = pc.fill_null(distinct.indices, -1).to_numpy()
    comma = notation.decimal_comma and _is_text(cells.type)
    values: list[int | float | None] = []
    faults: dict[RejectReason, list[bool]] = {
        RejectReason.NOT_A_NUMBER: [],
        RejectReason.OUT_OF_RANGE: [],
    }
    for cell in distinct.dictionary.to_pylist():
        text = cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)
        number = parse_number(text, decimal_comma=comma, percent_sign=percent_sign)
        whole = to != pa.int64() or (
            number is not None and abs(number) < COUNT_LIMIT and number == int(number)
        )
        usable = number is not None and whole
        values.append((int if to == pa.int64() else float)(number) if usable else None)  # type: ignore[arg-type]
        faults[RejectReason.NOT_A_NUMBER].append(number is None and bool(text.strip()))
        faults[RejectReason.OUT_OF_RANGE].append(number is not None and not whole)
    spread = pa.array(values, to).take(distinct.indices)
    said = {
        RejectReason.NOT_A_NUMBER: "is not a number",
        RejectReason.OUT_OF_RANGE: "is not a whole number in range",
    }
    return Numbers(
        spread,
        [
            Fault(np.array([*wrong, False])[where], reason, said[reason])
            for reason, wrong in faults.items()
        ],
    )


def _is_text(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_string(data_type) or pa.types.is_binary(data_type))


def payload(cells: pa.Array[Any]) -> npt.NDArray[np.uint8]:
    """The bytes of all values of a text or binary array, one after the other."""
    _, offsets, data = cells.buffers()
    if offsets is None or data is None or len(cells) == 0:
        return np.empty(0, dtype=np.uint8)
    ends = np.frombuffer(offsets, dtype=np.int32)
    start, end = ends[cells.offset], ends[cells.offset + len(cells)]
    return np.frombuffer(data, dtype=np.uint8)[start:end]
