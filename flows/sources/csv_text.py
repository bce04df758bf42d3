"""CSV as streams of cells: lines of the head, then batches of cells with their line numbers."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from flows.sources.deliveries import ParsedBatch, RejectedRow, RejectReason
from flows.sources.files import has_marks, open_utf8, reading, unmarked, unreadable
from flows.sources.normalise import payload
from flows.sources.row_rules import Cells, Terms, judge

BLOCK_BYTES = 4 << 20
"""How much is parsed at a time; no row may be longer."""
HEAD_BYTES = 1 << 20
HEAD_LINES = 8
DELIMITERS = ",;\t"

_LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")
_NEWLINE = ord("\n")


class HeadLine(NamedTuple):
    """A line at the beginning of a file: its text, its number, and where the next one starts."""

    text: str
    number: int
    end: int


def head_lines(head: bytes) -> list[HeadLine]:
    """The first lines of a file that are not blank (blank cells count as blank)."""
    lines: list[HeadLine] = []
    for number, found in enumerate(_LINE.finditer(head), start=1):
        if len(lines) == HEAD_LINES or found.start() == len(head):
            break
        text = unmarked(found[1]).decode("utf-8", "surrogateescape")
        if text.strip(DELIMITERS + ' "'):
            lines.append(HeadLine(text, number, found.end()))
    return lines


def split_cells(line: str, delimiter: str) -> list[str]:
    """The cells of one line of CSV, trimmed."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def find_delimiter(header: str) -> str:
    """The delimiter that gives a header the most cells."""
    return max(DELIMITERS, key=lambda delimiter: len(split_cells(header, delimiter)))


@dataclass(frozen=True)
class CsvLayout:
    """Where the rows of a file begin, and what its columns are.

    Attributes:
        encoding: of the file, unless a byte-order mark says otherwise.
        headings: of all columns, as delivered.
        fields: field → index of its column.
        rows_start: where the first row starts, in bytes of UTF-8.
        rows_line: the number of that line.
    """

    encoding: str
    delimiter: str
    headings: tuple[str, ...]
    fields: dict[str, int]
    rows_start: int
    rows_line: int

    @property
    def field_headings(self) -> dict[str, str]:
        """What the file calls each field."""
        return {field: self.headings[index] for field, index in self.fields.items()}


class Ragged(NamedTuple):
    """A row with more or fewer cells than the header."""

    line: int
    text: str
    cells: int


class CellBatch(NamedTuple):
    """Some rows of a file: binary cells (null where empty), line numbers, and ragged rows."""

    cells: pa.RecordBatch
    lines: npt.NDArray[np.int64]
    ragged: list[Ragged]

    def as_json(self, headings: Sequence[str], row: int) -> str:
        """One row as a JSON object of the delivered cells."""
        return json.dumps(
            {
                heading: (cell.as_py() or b"").decode("utf-8", "surrogateescape")
                for heading, cell in zip(headings, (c[row] for c in self.cells), strict=True)
            }
        )


def stream_cells(
    stream: BinaryIO, layout: CsvLayout, name: str, batch_rows: int
) -> Iterator[CellBatch]:
    """The rows of a file from where the stream stands: `layout.rows_start`, with marks.

    Rows without any cell are blank lines and are left out. Raises `UnreadableDelivery` where a
    quotation mark is opened and never closed: nobody can say which rows it swallowed.
    """
    counted = _CountedQuotes(stream)
    if counted.is_empty():
        return
    lines = _LineNumbers(layout.rows_line)
    columns = [str(index) for index in range(len(layout.headings))]
    reader = pyarrow.csv.open_csv(
        pa.PythonFile(counted, mode="r"),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=BLOCK_BYTES, column_names=columns
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=layout.delimiter,
            newlines_in_values=True,
            ignore_empty_lines=False,
            invalid_row_handler=lines.note_ragged,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            check_utf8=False,
            column_types=dict.fromkeys(columns, pa.binary()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    with reader:
        for block in reader:
            for start in range(0, block.num_rows, batch_rows):
                cells = _unmarked(block.slice(start, batch_rows))
                yield _without_blank_rows(lines.number(cells))
    trailing = lines.number(pa.RecordBatch.from_pylist([], reader.schema), to_the_end=True)
    if counted.quotes % 2 and lines.last_spans_lines:
        raise unreadable(
            name,
            f"a quotation mark is opened on line {lines.last_line} and never closed",
            "mend that line or deliver the file again",
        )
    if trailing.ragged:
        yield trailing


def judge_csv(
    path: Path, layout: CsvLayout, terms: Terms, batch_rows: int
) -> Iterator[ParsedBatch]:
    """The rows of a CSV file, judged; a comma before decimals is read where `;` parts cells."""
    name = terms.source_file
    terms = replace(terms, notation=replace(terms.notation, decimal_comma=layout.delimiter == ";"))
    with reading(name), open_utf8(path, layout.encoding, marks=True) as stream:
        stream.read(layout.rows_start)
        for batch in stream_cells(stream, layout, name, batch_rows):
            judged = judge(
                Cells(
                    {field: batch.cells.column(at) for field, at in layout.fields.items()},
                    layout.field_headings,
                    pa.array(batch.lines),
                    partial(batch.as_json, layout.headings),
                ),
                terms,
            )
            rejected = judged.rejected + [
                RejectedRow(
                    source_file=name,
                    line=ragged.line,
                    reason_code=RejectReason.MALFORMED,
                    reason=f"has {ragged.cells} cells, the header has {len(layout.headings)}",
                    delivered_text=json.dumps(ragged.text),
                    account_id=terms.account_id,
                    subject=terms.subject,
                )
                for ragged in batch.ragged
            ]
            yield ParsedBatch(judged.rows, sorted(rejected, key=lambda row: row.line))


def _unmarked(cells: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        pa.array([cell and unmarked(cell) for cell in column.to_pylist()], pa.binary())
        if has_marks(payload(column).tobytes())
        else column
        for column in cells.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=cells.schema)


def _without_blank_rows(batch: CellBatch) -> CellBatch:
    if not all(column.null_count for column in batch.cells.columns):
        return batch
    filled = np.zeros(len(batch.lines), dtype=bool)
    for column in batch.cells.columns:
        filled |= column.is_valid().to_numpy(zero_copy_only=False)
    if filled.all():
        return batch
    return CellBatch(batch.cells.filter(pa.array(filled)), batch.lines[filled], batch.ragged)


class _CountedQuotes(io.RawIOBase):
    """A stream that counts the quotation marks it hands on."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._first = stream.read(1)
        self.quotes = 0

    def readable(self) -> bool:
        return True

    def is_empty(self) -> bool:
        return not self._first

    def read(self, size: int = -1) -> bytes:
        data = self._first + self._stream.read(size - len(self._first) if size > 0 else size)
        self._first = b""
        self.quotes += data.count(b'"')
        return data


class _LineNumbers:
    """On which line of the file each row starts, and which rows are ragged.

    Rows with a line break inside a cell span several lines; Arrow tells of ragged rows by their
    number and leaves them out.
    """

    def __init__(self, first_line: int) -> None:
        self._ragged: dict[int, tuple[str, int]] = {}
        self._next_row = 1
        self._next_line = first_line
        self.last_line = first_line
        self.last_spans_lines = False

    def note_ragged(self, row: pyarrow.csv.InvalidRow) -> str:
        """Remember a ragged row; called by Arrow ahead of the batch that it belongs to."""
        text = unmarked(row.text.encode()).decode("utf-8", "surrogateescape")
        self._ragged[row.number] = (text, row.actual_columns)
        return "skip"

    def number(self, cells: pa.RecordBatch, *, to_the_end: bool = False) -> CellBatch:
        """The rows with their lines, and the ragged rows before them (or up to the end)."""
        numbers = self._ragged_among(len(cells), to_the_end=to_the_end)
        is_ragged = np.zeros(len(cells) + len(numbers), dtype=bool)
        is_ragged[[number - self._next_row for number in numbers]] = True
        ragged = [self._ragged.pop(number) for number in numbers]
        breaks = np.zeros(len(is_ragged), dtype=np.int64)
        breaks[~is_ragged] = _line_breaks(cells)
        breaks[is_ragged] = [text.count("\n") for text, _ in ragged]
        ends = self._next_line + np.cumsum(breaks + 1)
        starts = ends - breaks - 1
        if len(starts):
            self._next_row += len(starts)
            self._next_line = int(ends[-1])
            self.last_line, self.last_spans_lines = int(starts[-1]), bool(breaks[-1])
        return CellBatch(
            cells,
            starts[~is_ragged],
            [
                Ragged(line, text, count)
                for line, (text, count) in zip(starts[is_ragged].tolist(), ragged, strict=True)
            ],
        )

    def _ragged_among(self, good: int, *, to_the_end: bool) -> list[int]:
        """The ragged rows that come before the last of the next `good` rows."""
        numbers: list[int] = []
        for number in sorted(self._ragged):
            if not to_the_end and number >= self._next_row + good + len(numbers):
                break
            numbers.append(number)
        return numbers


def _line_breaks(cells: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """How many line breaks the cells of each row hold."""
    breaks = np.zeros(len(cells), dtype=np.int64)
    for column in cells.columns:
        if (payload(column) == _NEWLINE).any():
            breaks += pc.fill_null(pc.count_substring(column, "\n"), 0).to_numpy()
    return breaks
