"""The nightly upkeep of tables: default partitions checked, partitions made, retention applied.

check → partition → retain. What a table's declaration says is done; what is in use by others is
left for the next time, and said.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg

from flows.errors import ExitCode
from flows.runs import Story, step, warehouse_flow
from flows.warehouse import upkeep as tables
from flows.warehouse.connection import connect
from flows.warehouse.upkeep import DefaultPartition, InUse, Partitions, Removal


@dataclass
class Upkeep:
    """One upkeep that holds the lock: its connection, and how long each step took."""

    connection: psycopg.Connection[Any]
    seconds: dict[str, float] = field(default_factory=dict)

    def at(self, step: str) -> None:
        """A step begins; an upkeep that dies leaves nothing half done, so nothing is noted."""


@dataclass(frozen=True)
class UpkeepReport:
    """What an upkeep found and did.

    Attributes:
        defaults: rows in default partitions, before anything was moved.
        left: the same afterwards, of those tables that had any.
        removals: what retention removed, or would remove where it was not `applied`.
        in_use: tables left for the next time, because others kept them locked.
        seconds: how long each step took.
    """

    applied: bool
    defaults: list[DefaultPartition]
    partitions: list[Partitions]
    left: list[DefaultPartition]
    removals: list[Removal]
    in_use: list[InUse]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """PARTIAL when a table was in use, or rows are where no upkeep can move them from."""
        is_done = not self.in_use and all(table.rows == 0 for table in self.left)
        return ExitCode.DONE if is_done else ExitCode.PARTIAL

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)

    def story(self) -> Story:
        """Each table's partitions and removals, and what was left."""
        made = sum(each.made for each in self.partitions)
        removed = sum(each.rows_removed for each in self.removals)
        verb = "removed" if self.applied else "would be removed"
        return Story(
            headline=f"{made} partitions made, {removed:,} rows {verb} by retention",
            changes=[
                {"table": table, "what": what, "number": number}
                for table, what, number in [
                    *((each.relation, "partitions made", each.made) for each in self.partitions),
                    *((each.relation, "rows moved", each.moved_rows) for each in self.partitions),
                    *((each.relation, f"rows {verb}", each.rows_removed) for each in self.removals),
                ]
                if number
            ],
            problems=[
                {
                    "what": f"{each.relation} was in use",
                    "why": f"others kept it locked, so its {each.what} was left",
                    "next_step": "nothing: the next run does it",
                }
                for each in self.in_use
            ]
            + [
                {
                    "what": f"{each.rows:,} rows stay in the default partition of {each.relation}",
                    "why": "their keys are outside of every partition that is declared",
                    "next_step": "see sqp.data_quality_checks and the runbook of retention",
                }
                for each in self.left
                if each.rows
            ],
        )


@warehouse_flow("keep-tables", steps=3)
def keep_tables(apply_retention: bool = False) -> UpkeepReport:
    """Keep every table as its declaration says.

    Args:
        apply_retention: remove what is older than its retention; otherwise it is only counted.

    Raises:
        Busy: another upkeep is at work (exit 75).
    """
    with (
        connect(autocommit=True, application="warehouse upkeep", role="etl") as connection,
        tables.upkeep_lock(connection),
    ):
        run = Upkeep(connection)
        defaults = check(run)
        partitions, without_partitions = partition(run)
        stray = [table.relation for table in defaults if table.rows]
        left = check(run, stray) if stray else []
        removals, without_retention = retain(run, apply_retention)
    return UpkeepReport(
        applied=apply_retention,
        defaults=defaults,
        partitions=partitions,
        left=left,
        removals=removals,
        in_use=without_partitions + without_retention,
        seconds=run.seconds,
    )


@step
def check(run: Upkeep, again: list[str] | None = None) -> list[DefaultPartition]:
    """Count the rows of the default partitions, and write a quality check for each table."""
    return tables.record_default_partition_checks(run.connection, again=again)


@step
def partition(run: Upkeep) -> tuple[list[Partitions], list[InUse]]:
    """Make what is missing, and move rows out of the default partitions."""
    return tables.ensure_partitions(run.connection)


@step
def retain(run: Upkeep, apply: bool) -> tuple[list[Removal], list[InUse]]:
    """Remove, or only count, what is older than its table's retention."""
    return tables.apply_retention(run.connection, apply=apply)
