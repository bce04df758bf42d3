"""What the recorded checks come to: a verdict of every table for every account.

Green needs a check that ran: a table that no check looked at since its newest load is unknown.
Pure functions over rows; `quality.py` reads them and writes the page.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from itertools import groupby

WHOLE_TABLE = ("dbt_test", "freshness", "default_partition", "alert")
"""Kinds of checks that look at a whole table, whichever accounts a run brought."""

WATCHED = {
    "landing.sqp_asin": "asin",
    "landing.sqp_brand": "brand",
    "sqp.weekly_summary": "asin",
    "sqp.monthly_summary": "asin",
    "sqp.quarterly_summary": "asin",
}
"""The tables whose checks are missed where there are none, and the report view that feeds each."""


class Verdict(IntEnum):
    """How a table stands, the worst last."""

    PASSED = 0
    WARNING = 1
    UNKNOWN = 2
    FAILED = 3

    @property
    def word(self) -> str:
        """The word in templates and style sheets."""
        return self.name.lower()


@dataclass(frozen=True)
class Result:
    """One row of `sqp.data_quality_checks`.

    Attributes:
        run: the last log id of the run that it belongs to; None for dbt run by hand.
        run_key: results of one key are of one run.
        scope: which part of the table: view and period type.
        failing: how many slices failed; `named` lists the first of them.
    """

    id: int
    run: int | None
    run_key: str
    check_type: str
    check_name: str
    table_name: str
    column_name: str
    scope: str
    status: Verdict
    source_value: Decimal | None
    target_value: Decimal | None
    difference_pct: Decimal | None
    message: str
    failing: int
    named: tuple[str, ...]
    checked_at: datetime

    @property
    def check(self) -> tuple[str, str, str, str, str]:
        """What the same check of another run has in common with this result."""
        return (self.table_name, self.check_type, self.check_name, self.column_name, self.scope)

    def concerns(self, account: str, covered: Mapping[int, Collection[str]]) -> bool:
        """Whether the result says something of an account; `covered` is accounts by run."""
        if self.run is None or self.check_type in WHOLE_TABLE:
            return True
        return account in covered.get(self.run, ())

    def verdict_for(self, account: str) -> Verdict:
        """What the result says of an account: slices that failed are blamed on their owners.

        Where not all of them are named, or none are slices, no account is spared.
        """
        if self.status is Verdict.PASSED or not self.named or len(self.named) < self.failing:
            return self.status
        blamed = any(label.startswith(f"{account} / ") for label in self.named)
        of_slices = all(" / " in label for label in self.named)
        return self.status if blamed or not of_slices else Verdict.PASSED


@dataclass(frozen=True)
class Load:
    """The newest load of an account in one report view: the last log id of its run, and when."""

    run: int
    loaded_at: datetime


@dataclass(frozen=True)
class Cell:
    """A table's verdict for an account: None where the account delivers nothing to it."""

    verdict: Verdict | None
    why: str

    @property
    def is_amiss(self) -> bool:
        """Whether somebody should look at it."""
        return self.verdict not in (None, Verdict.PASSED)


@dataclass(frozen=True)
class Change:
    """The newest result of a check, and what the run before came to; None where there was none."""

    result: Result
    before: Verdict | None

    @property
    def is_new(self) -> bool:
        """Whether it is worse than it was."""
        return self.result.status > (self.before or Verdict.PASSED)


def latest(results: Iterable[Result]) -> list[Result]:
    """Of each check the result of its newest run, the worst where a run has several."""
    return [runs[-1] for runs in _by_run(results)]


def problems(results: Iterable[Result]) -> list[Change]:
    """The checks whose newest result is not green: what is new first, then the worst."""
    changes = [
        Change(runs[-1], runs[-2].status if len(runs) > 1 else None) for runs in _by_run(results)
    ]
    return sorted(
        (change for change in changes if change.result.status is not Verdict.PASSED),
        key=lambda change: (not change.is_new, -change.result.status, change.result.check),
    )


def matrix(
    results: Sequence[Result],
    accounts: Sequence[str],
    covered: Mapping[int, Collection[str]],
    loads: Mapping[tuple[str, str], Load],
) -> dict[str, dict[str, Cell]]:
    """The verdict of each table for each account.

    Args:
        covered: the accounts that a run brought something of, by the run's last log id.
        loads: the newest load in force by account and report view.
    """
    tables = list(dict.fromkeys([*WATCHED, *sorted({each.table_name for each in results})]))
    by_table = {table: [each for each in results if each.table_name == table] for table in tables}
    return {
        table: {
            account: _cell(table, account, by_table[table], covered, loads) for account in accounts
        }
        for table in tables
    }


def _cell(
    table: str,
    account: str,
    results: Sequence[Result],
    covered: Mapping[int, Collection[str]],
    loads: Mapping[tuple[str, str], Load],
) -> Cell:
    view = WATCHED.get(table)
    load = loads.get((account, view)) if view else None
    if view and load is None:
        return Cell(None, "the account delivers nothing to it")
    concerning = [each for each in results if each.concerns(account, covered)]
    if load:
        concerning += _taken_up(results, concerning, load)
    if not concerning:
        return Cell(Verdict.UNKNOWN, "no check ran")
    if load and not any(_is_since(each, load) for each in concerning):
        return Cell(Verdict.UNKNOWN, "no check ran since its newest load")
    worst = max(
        latest(concerning), key=lambda each: (each.verdict_for(account), each.status, each.id)
    )
    verdict = worst.verdict_for(account)
    if verdict is Verdict.PASSED:
        return Cell(verdict, f"{len(latest(concerning))} checks passed")
    return Cell(verdict, worst.message or worst.check_name)


def _taken_up(results: Sequence[Result], concerning: Sequence[Result], load: Load) -> list[Result]:
    """Checks of a load whose own run died before them: the first later run took them up.

    A sync checks whatever has landed and is not checked yet, whoever landed it.
    """
    of_loads = [each for each in results if each.check_type not in WHOLE_TABLE]
    since = [each for each in of_loads if each.run is not None and each.run >= load.run]
    if any(each in concerning for each in since):
        return []
    first = min((each.run for each in since if each.run), default=None)
    return [each for each in since if each.run == first]


def _is_since(result: Result, load: Load) -> bool:
    if result.run is None:
        return result.checked_at >= load.loaded_at
    return result.run >= load.run


def _by_run(results: Iterable[Result]) -> list[list[Result]]:
    """The runs of each check, oldest first, each by the worst of its results."""
    ordered = sorted(results, key=lambda each: (each.check, each.id))
    checks = []
    for _, of_check in groupby(ordered, key=lambda each: each.check):
        by_run: dict[str, Result] = {}
        for each in of_check:
            held = by_run.pop(each.run_key, each)
            by_run[each.run_key] = max(held, each, key=lambda one: (one.status, one.id))
        checks.append(list(by_run.values()))
    return checks


def overall(
    cells: Iterable[Cell], amiss: Iterable[Change], *, stale: int, held: int, failed_sync: bool
) -> Verdict:
    """The verdict on today's numbers: the worst of the cells and of the newest results.

    A failed check counts also where it concerns no account of today. What is late or held warns.
    """
    verdicts = [cell.verdict for cell in cells if cell.verdict is not None]
    told = [change.result.status for change in amiss]
    worst = max([*(verdicts or [Verdict.UNKNOWN]), *told])
    if worst is Verdict.PASSED and (stale or held or failed_sync):
        return Verdict.WARNING
    return worst
