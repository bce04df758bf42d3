"""How things are printed: results on stdout, notes and errors on stderr, JSON for machines.

Colours and bars appear on a terminal only and respect `NO_COLOR`. Text of users (file names,
queries) is printed as it is: never as markup, and never as control characters.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from flows.errors import WarehouseError
from flows.progress import Progress as Watcher

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

PIPE_WIDTH = 200
STYLES = {
    "ok": "green",
    "passed": "green",
    "completed": "green",
    "warn": "yellow",
    "warning": "yellow",
    "fail": "bold red",
    "failed": "bold red",
}
"""The colour of a verdict, by its word."""


@cache
def stdout() -> Console:
    """Where results go."""
    return _console(stderr=False)


@cache
def stderr() -> Console:
    """Where notes, bars and errors go."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    on_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=True,
        width=None if on_terminal else PIPE_WIDTH,
    )


def printable(text: object) -> str:
    """`text` with control characters shown as escapes, so that it cannot drive a terminal."""
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1]
        for character in str(text)
    )


def say(text: str, *, style: str | None = None) -> None:
    """One line of a result."""
    stdout().print(printable(text), style=style)


def note(text: str) -> None:
    """One line about what is going on; not part of the result."""
    stderr().print(printable(text), style="dim")


def say_json(value: Any) -> None:
    """The result for a machine: one JSON document; dates, paths and the like as text."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def say_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
) -> None:
    """A table: numbers to the right, None as a dash, words that are verdicts in their colour."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        cells = [row[index] for row in rows if row[index] is not None]
        numeric = bool(cells) and all(isinstance(cell, int | float) for cell in cells)
        table.add_column(
            Text(column), justify="right" if numeric else "left", overflow="fold", no_wrap=numeric
        )
    for row in rows:
        table.add_row(*(Text(_cell(cell), style=STYLES.get(str(cell), "")) for cell in row))
    stdout().print(table, soft_wrap=False)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(value)


def show_error(error: WarehouseError) -> None:
    """What, why and the next step, a line each, on stderr."""
    stderr().print(f"error: {printable(error.what)}", style="bold red")
    stderr().print(f"  why: {printable(error.why)}")
    stderr().print(f" next: {printable(error.next_step)}")


def progress_bars() -> Progress:
    """Bars for long work, as a context manager: `add_task`, `advance`; silent off a terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr(),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def step_bars() -> StepBars:
    """Bars for the steps of a sync, as a context manager that can be given to `watched_by`."""
    return StepBars(progress_bars())


class StepBars(Watcher):
    """One bar a step: what it is, how many rows it has dealt with, how long it takes."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> StepBars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, step: str) -> None:
        """A new bar, moving."""
        self._tasks[step] = self._bars.add_task(step, total=None)

    def advance(self, step: str, rows: int) -> None:
        """So many more rows."""
        self._bars.advance(self._tasks[step], rows)

    def end(self, step: str) -> None:
        """The step's bar is full."""
        task = self._bars.tasks[self._tasks[step]]
        self._bars.update(task.id, total=task.completed or 1, completed=task.completed or 1)
