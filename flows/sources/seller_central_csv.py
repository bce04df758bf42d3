"""Seller Central's Search Query Performance downloads: ASIN View and Brand View.

The first line says whose report it is and for which period; the header follows in American or
British English. Both survive being re-saved by a spreadsheet in most of its ways.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

from flows.errors import UnreadableDelivery
from flows.sources.csv_text import (
    HEAD_BYTES,
    CsvLayout,
    HeadLine,
    find_delimiter,
    head_lines,
    judge_csv,
    split_cells,
    stream_cells,
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
from flows.sources.files import is_western, open_utf8, reading, unreadable
from flows.sources.periods import period_around, period_fault, possible_days
from flows.sources.row_rules import (
    ASIN_PATTERN,
    REQUIRED_COUNTS,
    Cells,
    Days,
    Terms,
    Verdict,
    constant_days,
    is_storable,
    shorten,
)

AGAIN = "download the report from Seller Central again and leave its first line as it is"

PERIOD_TYPES = {
    "week": PeriodType.WEEK,
    "month": PeriodType.MONTH,
    "quarter": PeriodType.QUARTER,
}
SETTINGS_LENGTH = 10_000
"""How much of the first line is looked at."""

_SETTING = r'(?:{key})\s*=\s*\[\s*(?P<value>.*?)\s*\]"?\s*(?:[,;\t]|$)'
_ASIN = re.compile(_SETTING.format(key="ASIN or Product|ASIN"), re.IGNORECASE)
_BRAND = re.compile(_SETTING.format(key="Brand"), re.IGNORECASE)
_SELECTED = re.compile(
    _SETTING.format(key="Select (?P<kind>week|month|quarter|year)"), re.IGNORECASE
)
_ANY_SETTING = re.compile(
    r"(?:Brand|ASIN|ASIN or Product|Reporting Range|Select \w+)\s*=\s*\[", re.IGNORECASE
)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def _fields_by_heading(own: str) -> dict[str, str]:
    fields = {
        "search query": "search_query",
        "search query score": "search_query_score",
        "search query volume": "search_query_volume",
        "impressions: total count": "total_query_impression_count",
        f"impressions: {own} count": "own_impression_count",
        f"impressions: {own} share": "own_impression_share",
        "reporting date": "reporting_date",
    }
    for stage in STAGES:
        spoken = stage.replace("_", " ")
        fields |= {
            f"{spoken}s: total count": f"total_{stage}_count",
            f"{spoken}s: {spoken} rate": f"total_{stage}_rate",
            f"{spoken}s: {own} count": f"own_{stage}_count",
            f"{spoken}s: {own} share": f"own_{stage}_share",
            f"{spoken}s: price (median)": f"total_median_{stage}_price",
            f"{spoken}s: {own} price (median)": f"own_median_{stage}_price",
            f"{spoken}s: same day shipping speed": f"total_same_day_shipping_{stage}_count",
            f"{spoken}s: 1d shipping speed": f"total_one_day_shipping_{stage}_count",
            f"{spoken}s: 2d shipping speed": f"total_two_day_shipping_{stage}_count",
        }
    return fields


FIELDS_BY_HEADING = {view: _fields_by_heading(view.value) for view in ReportView}
"""Each view's column names, as `normalise_heading` writes them, and the fields that they fill."""


def normalise_heading(heading: str) -> str:
    """A column's name in one spelling: lower case, American, no hyphens, no percent sign."""
    heading = heading.lower().replace("basket", "cart").replace("%", " ")
    return " ".join(re.sub(r"\s*:\s*", ": ", re.sub(r"[-\u2010-\u2013]", " ", heading)).split())


def is_seller_central(lines: list[HeadLine]) -> bool:
    """Whether the first line of a file is, or the header should have followed, such a line."""
    if not lines:
        return False
    if _ANY_SETTING.search(lines[0].text):
        return True
    header = lines[0].text
    cells = {normalise_heading(cell) for cell in split_cells(header, find_delimiter(header))}
    return {"search query", "impressions: total count"} <= cells


@dataclass(frozen=True)
class Report:
    """What the head of a download says: its columns, its subject and its period."""

    layout: CsvLayout
    view: ReportView
    subject: str
    period_type: PeriodType
    start: date
    end: date


def inspect_seller_central(path: Path, name: str) -> Inspection:
    """What a download says about itself."""
    report = read_report(path, name)
    return Inspection(
        DeliveryFormat.SELLER_CENTRAL_CSV,
        report.view,
        report.period_type,
        period_start=report.start,
        period_end=report.end,
        subjects=(report.subject,),
    )


def read_seller_central(path: Path, terms: Terms, batch_rows: int) -> Iterator[ParsedBatch]:
    """The rows of a download; those of another period than the file's are rejected."""
    report = read_report(path, terms.source_file)
    terms = replace(terms, read_days=_days_of(report))
    yield from judge_csv(path, report.layout, terms, batch_rows)


def read_report(path: Path, name: str) -> Report:
    """Read the head of a download; raises `UnreadableDelivery` where it does not say enough."""
    with reading(name):
        encoding = "cp1252" if is_western(path) else "utf-8"
        with open_utf8(path, encoding, marks=True) as stream:
            lines = head_lines(stream.read(HEAD_BYTES))
    settings = lines[0].text[:SETTINGS_LENGTH].replace('""', '"')
    if not _ANY_SETTING.search(settings):
        raise unreadable(
            name, "its first line, with the ASIN or brand and the period, is missing", AGAIN
        )
    view, subject = _read_subject(settings, name)
    layout = _read_layout(lines, encoding, view, name)
    selected = _SELECTED.search(settings)
    if selected is None:
        raise unreadable(name, "its first line does not say which period was selected", AGAIN)
    kind = selected["kind"].lower()
    if kind not in PERIOD_TYPES:
        raise unreadable(
            name,
            "it is a yearly report, and years are not kept",
            "download its weeks, months or quarters instead",
        )
    days = [possible_days(day) for day in _DAY.findall(selected["value"])]
    if len(days) >= 2 and days[0] and days[1]:
        start, end = days[0][0], days[1][0]
    else:
        start, end = _period_of_rows(path, layout, PERIOD_TYPES[kind], name)
    if fault := period_fault(PERIOD_TYPES[kind], start, end):
        raise unreadable(name, f"{fault}", "download the report for one whole period")
    return Report(layout, view, subject, PERIOD_TYPES[kind], start, end)


def _read_subject(settings: str, name: str) -> tuple[ReportView, str]:
    """The view of a download and its ASIN or brand."""
    found = _ASIN.search(settings)
    view = ReportView.ASIN if found else ReportView.BRAND
    found = found or _BRAND.search(settings)
    if found is None:
        raise unreadable(name, "its first line names neither an ASIN nor a brand", AGAIN)
    subjects = [subject.strip() for subject in _listed(found["value"])]
    if len(subjects) != 1 or not subjects[0]:
        told = ", ".join(subjects) or "nothing"
        raise unreadable(
            name, f"its first line must name one {view} and names {told}", "download one at a time"
        )
    subject = subjects[0]
    if view is ReportView.ASIN and not re.fullmatch(ASIN_PATTERN, subject):
        raise unreadable(
            name, f"{shorten(subject)} is not an ASIN (ten capital letters and digits)", AGAIN
        )
    if not is_storable(subject):
        raise unreadable(name, f"the brand {shorten(subject)} is damaged text", AGAIN)
    return view, subject


def _listed(value: str) -> list[str]:
    """The texts of a list such as `"A"` or `"A","B"`."""
    try:
        texts = json.loads(f"[{value}]")
    except ValueError:
        texts = [value.removeprefix('"').removesuffix('"')]
    return [str(text) for text in texts]


def _read_layout(lines: list[HeadLine], encoding: str, view: ReportView, name: str) -> CsvLayout:
    """The columns of a download, whose header is one row or, in an older layout, two."""
    known = FIELDS_BY_HEADING[view]
    for rows in (1, 2):
        header = lines[1 : 1 + rows]
        if len(header) < rows:
            break
        delimiter = find_delimiter(header[-1].text)
        cells = [split_cells(line.text, delimiter) for line in header]
        headings = tuple(cells[0]) if rows == 1 else _joined(cells[0], cells[1], known)
        fields = _fields_of(headings, known, name)
        if fields.keys() >= REQUIRED:
            return CsvLayout(
                encoding, delimiter, headings, fields, header[-1].end, header[-1].number + 1
            )
        if "search_query" in fields and len(fields) > rows:
            raise _missing(fields, view, name)
    raise unreadable(
        name,
        "the line with the names of the columns is missing",
        "download the Search Query Performance report again",
    )


REQUIRED = frozenset({"search_query", *REQUIRED_COUNTS})


def _missing(fields: dict[str, int], view: ReportView, name: str) -> UnreadableDelivery:
    missing = REQUIRED - fields.keys()
    wanted = [heading for heading, field in FIELDS_BY_HEADING[view].items() if field in missing]
    return unreadable(
        name,
        f"columns of the {view} view are missing: {', '.join(wanted)}",
        "download the Comprehensive report of the view that its first line names",
    )


def _joined(groups: list[str], names: list[str], known: dict[str, str]) -> tuple[str, ...]:
    """One heading a column from two header rows, the upper one filled only where a group starts."""
    headings, group = [], ""
    for index, name in enumerate(names):
        group = (groups[index] if index < len(groups) else "") or group
        full = f"{group}: {name}"
        headings.append(full if normalise_heading(full) in known else name or group)
    return tuple(headings)


def _fields_of(headings: tuple[str, ...], known: dict[str, str], name: str) -> dict[str, int]:
    fields: dict[str, int] = {}
    for index, heading in enumerate(headings):
        field = known.get(normalise_heading(heading))
        if field is not None and fields.setdefault(field, index) != index:
            raise unreadable(name, f"it has two columns {shorten(heading)}", "keep one of them")
    return fields


def _period_of_rows(
    path: Path, layout: CsvLayout, period_type: PeriodType, name: str
) -> tuple[date, date]:
    """The period from the first Reporting Date that ends one, for a first line without dates."""
    column = layout.fields.get("reporting_date")
    if column is not None:
        with reading(name), open_utf8(path, layout.encoding, marks=True) as stream:
            stream.read(layout.rows_start)
            for batch in stream_cells(stream, layout, name, batch_rows=1000):
                for cell in batch.cells.column(column).drop_null().unique().to_pylist():
                    ends = [
                        day
                        for day in possible_days(cell.decode(errors="replace"))
                        if day == period_around(period_type, day)[1]
                    ]
                    if len(ends) == 1:
                        return period_around(period_type, ends[0])
    raise unreadable(
        name,
        "its first line gives no dates, and no Reporting Date says which period it is",
        AGAIN,
    )


def _days_of(report: Report) -> Callable[[Cells, Verdict], Days]:
    """The report's period for every row; a row whose Reporting Date is another is refused."""
    same = constant_days(report.start, report.end)

    def read_days(cells: Cells, verdict: Verdict) -> Days:
        if "reporting_date" in cells.columns:
            distinct = cells.columns["reporting_date"].dictionary_encode()
            other = np.array(
                [
                    report.end not in possible_days(cell.decode(errors="replace"))
                    for cell in distinct.dictionary.to_pylist()
                ]
                + [True]
            )[distinct.indices.fill_null(len(distinct.dictionary)).to_numpy()]
            verdict.refuse(other, RejectReason.BAD_PERIOD, "reporting_date", f"is not {report.end}")
        return same(cells, verdict)

    return read_days
