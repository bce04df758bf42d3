"""The flat weekly table of Search Query Performance, as BigQuery exports it.

CSV or Parquet, gzip or not, columns in any order, their names with spaces or underscores. Each
row names its own week, ASIN and client; shares and rates are percent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.sources.csv_text import (
    HEAD_BYTES,
    CsvLayout,
    find_delimiter,
    head_lines,
    judge_csv,
    split_cells,
)
from flows.sources.deliveries import (
    STAGES,
    DeliveryFormat,
    Inspection,
    ParsedBatch,
    PeriodType,
    RejectReason,
    ReportView,
)
from flows.sources.files import open_utf8, reading, unreadable
from flows.sources.normalise import Mask
from flows.sources.periods import FIRST_YEAR, LAST_YEAR, period_around, possible_days
from flows.sources.row_rules import (
    NUMBER_CASTS,
    REQUIRED_COUNTS,
    Cells,
    Days,
    Terms,
    Verdict,
    judge,
)

REQUIRED = frozenset({"date", "subject", "search_query", *REQUIRED_COUNTS})


def _fields_by_heading() -> dict[str, str]:
    fields = {
        "date": "date",
        "parent asin": "parent_asin",
        "child asin": "subject",
        "product name": "product_name",
        "client name": "client_name",
        "search query": "search_query",
        "search query score": "search_query_score",
        "search query volume": "search_query_volume",
        "total query impression count": "total_query_impression_count",
        "asin impression count": "own_impression_count",
        "asin impression share": "own_impression_share",
    }
    for stage in STAGES:
        spoken = stage.replace("_", " ")
        fields |= {
            f"total {spoken} count": f"total_{stage}_count",
            f"total {spoken} rate": f"total_{stage}_rate",
            f"asin {spoken} count": f"own_{stage}_count",
            f"asin {spoken} share": f"own_{stage}_share",
            f"total median {spoken} price amount": f"total_median_{stage}_price",
            f"asin median {spoken} price amount": f"own_median_{stage}_price",
        }
        for speed in ("same", "one", "two"):
            fields[f"total {speed} day shipping {spoken} count"] = (
                f"total_{speed}_day_shipping_{stage}_count"
            )
    return fields


FIELDS_BY_HEADING = _fields_by_heading()
"""The table's column names, in lower case with spaces, and the fields that they fill."""


def normalise_heading(heading: str) -> str:
    """A column's name in lower case, words parted by single spaces."""
    return " ".join(re.split(r"[\s_]+", heading.strip().lower()))


def is_flat_header(headings: Sequence[str]) -> bool:
    """Whether these are column names of the flat table, though perhaps not all of them."""
    known = {normalise_heading(heading) for heading in headings} & FIELDS_BY_HEADING.keys()
    return {"search query", "child asin"} <= known or len(known) >= len(REQUIRED)


def fields_of(headings: Sequence[str], name: str) -> dict[str, int]:
    """Which column fills which field; raises where one is missing or there twice."""
    fields: dict[str, int] = {}
    for index, heading in enumerate(headings):
        field = FIELDS_BY_HEADING.get(normalise_heading(heading))
        if field is None:
            continue
        if field in fields:
            raise unreadable(name, f"it has two columns {heading!r}", "keep one of them")
        fields[field] = index
    if missing := REQUIRED - fields.keys():
        wanted = [heading for heading, field in FIELDS_BY_HEADING.items() if field in missing]
        raise unreadable(
            name,
            f"the flat table's columns are missing: {', '.join(wanted)}",
            "export the table with all of its columns",
        )
    return fields


def inspect_flat_csv(path: Path, name: str) -> Inspection:
    """What a flat CSV says about itself: only that its rows are weeks."""
    read_layout(path, name)
    return _inspection(DeliveryFormat.FLAT_CSV)


def inspect_flat_parquet(path: Path, name: str) -> Inspection:
    """What a flat Parquet file says about itself; raises where a column has an unusable type."""
    with reading(name), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        for field, index in fields_of(schema.names, name).items():
            if not _usable(field, schema.field(index).type):
                column = schema.field(index)
                raise unreadable(
                    name,
                    f"its column {column.name!r} is of type {column.type}",
                    "export it as the type that the flat table has",
                )
    return _inspection(DeliveryFormat.FLAT_PARQUET)


def _inspection(delivery_format: DeliveryFormat) -> Inspection:
    return Inspection(delivery_format, ReportView.ASIN, PeriodType.WEEK)


def _usable(field: str, delivered: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(delivered):
        delivered = delivered.value_type
    if types.is_null(delivered) or _is_any_text(delivered):
        return True
    if field == "date":
        return bool(types.is_date(delivered) or types.is_timestamp(delivered))
    is_number = types.is_integer, types.is_floating, types.is_decimal
    return field in NUMBER_CASTS and any(check(delivered) for check in is_number)


def _is_any_text(delivered: pa.DataType) -> bool:
    return delivered in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def read_layout(path: Path, name: str) -> CsvLayout:
    """The columns of a flat CSV and where its rows start."""
    with reading(name), open_utf8(path, marks=True) as stream:
        lines = head_lines(stream.read(HEAD_BYTES))
    if not lines:
        raise unreadable(name, "it is empty")
    header = lines[0]
    delimiter = find_delimiter(header.text)
    headings = split_cells(header.text, delimiter)
    return CsvLayout(
        encoding="utf-8",
        delimiter=delimiter,
        headings=tuple(headings),
        fields=fields_of(headings, name),
        rows_start=header.end,
        rows_line=header.number + 1,
    )


def read_flat_csv(path: Path, terms: Terms, batch_rows: int) -> Iterator[ParsedBatch]:
    """The rows of a flat CSV."""
    yield from judge_csv(path, read_layout(path, terms.source_file), terms, batch_rows)


def read_flat_parquet(path: Path, terms: Terms, batch_rows: int) -> Iterator[ParsedBatch]:
    """The rows of a flat Parquet file; a row's line is its number in the file."""
    name = terms.source_file
    inspect_flat_parquet(path, name)
    with reading(name), pq.ParquetFile(path, buffer_size=1 << 16, pre_buffer=False) as file:
        names = file.schema_arrow.names
        wanted = [names[index] for index in fields_of(names, name).values()]
        yield from judge_batches(
            file.iter_batches(batch_rows, columns=wanted, use_threads=False), terms
        )


def judge_batches(batches: Iterator[pa.RecordBatch], terms: Terms) -> Iterator[ParsedBatch]:
    """The rows of batches with the flat table's columns; a row's line is its number among them."""
    row = 1
    for batch in batches:
        names = batch.schema.names
        headings = {
            field: names[index] for field, index in fields_of(names, terms.source_file).items()
        }
        columns = {field: _plain(batch.column(heading)) for field, heading in headings.items()}
        yield judge(
            Cells(
                columns,
                headings,
                pa.array(np.arange(row, row + len(batch))),
                partial(_row_as_json, batch),
            ),
            terms,
        )
        row += len(batch)


def _plain(column: pa.Array[Any]) -> pa.Array[Any]:
    """The column without dictionary and 64-bit offsets; text as bytes, for nobody checked it."""
    if pa.types.is_dictionary(column.type):
        return _plain(column.dictionary_decode())
    if pa.types.is_large_string(column.type):
        column = column.view(pa.large_binary())
    if pa.types.is_large_binary(column.type):
        return column.cast(pa.binary())
    return column.view(pa.binary()) if pa.types.is_string(column.type) else column


def _row_as_json(batch: pa.RecordBatch, row: int) -> str:
    cells = {}
    for column, heading in zip(batch.columns, batch.schema.names, strict=True):
        cells[heading] = _as_json_value(_plain(column.slice(row, 1))[0].as_py())
    return json.dumps(cells)


def _as_json_value(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def read_weeks(cells: Cells, verdict: Verdict) -> Days:
    """Each row's week from its `date`, which is the week's Sunday or its Saturday."""
    delivered = cells.columns["date"]
    dates = _dates(delivered)
    days = pc.fill_null(dates.cast(pa.int32()), 0).to_numpy()
    years = pc.fill_null(pc.year(dates), 0).to_numpy()
    weekdays = (days + _EPOCH_WEEKDAY) % 7
    usable = (years >= FIRST_YEAR) & (years <= LAST_YEAR)
    usable &= (weekdays == _SUNDAY) | (weekdays == _SATURDAY)
    if not usable.all():
        empty = delivered.is_null().to_numpy(zero_copy_only=False)
        verdict.refuse(empty, RejectReason.MISSING_VALUE, "date", "is empty")
        verdict.refuse(
            ~usable,
            RejectReason.BAD_PERIOD,
            "date",
            "is neither the Sunday nor the Saturday of a week",
        )
    starts = days - weekdays
    return Days(_as_dates(starts, usable), _as_dates(starts + 6, usable))


_EPOCH_WEEKDAY, _SUNDAY, _SATURDAY = 4, 0, 6


def _as_dates(days: npt.NDArray[np.int32], usable: Mask) -> pa.Array[Any]:
    return pa.array(days, pa.int32(), mask=~usable).cast(pa.date32())


def _dates(cells: pa.Array[Any]) -> pa.Array[Any]:
    if not _is_any_text(cells.type):
        return cells.cast(pa.date32())
    distinct = cells.dictionary_encode()
    days = [_week_day(text) for text in distinct.dictionary.cast(pa.binary()).to_pylist()]
    return pa.array(days, pa.date32()).take(distinct.indices)


def _week_day(text: bytes) -> date | None:
    """The day that a text means: of two readings the one that a week starts or ends with."""
    days = possible_days(text.decode(errors="replace"))
    fitting = [day for day in days if day in period_around(PeriodType.WEEK, day)]
    return fitting[0] if len(fitting) == 1 else None
