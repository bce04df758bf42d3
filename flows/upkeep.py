"""The nightly upkeep of tables: default partitions checked, partitions made, retention applied.

check → partition → retain. What a table's declaration says is done; what is in use by others is
left for the next time, and said.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import psycopg
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.errors import ExitCode
from flows.progress import progress
from flows.warehouse import upkeep as tables
from flows.warehouse.connection import connect
from flows.warehouse.upkeep import DefaultPartition, InUse, Partitions, Removal

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Upkeep:
    """One upkeep that holds the lock: its connection, and how long each step took."""

    connection: psycopg.Connection[Any]
    seconds: dict[str, float] = field(default_factory=dict)


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


@flow(name="keep-tables", persist_result=False)
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


def step(function: Callable[Concatenate[Upkeep, P], T]) -> Callable[Concatenate[Upkeep, P], T]:
    """A step of the upkeep: a Prefect task whose seconds are counted."""
    name = function.__name__

    @wraps(function)
    def timed(run: Upkeep, *args: P.args, **kwargs: P.kwargs) -> T:
        progress().begin(name)
        started = time.perf_counter()
        try:
            return function(run, *args, **kwargs)
        finally:
            run.seconds[name] = run.seconds.get(name, 0.0) + time.perf_counter() - started
            progress().end(name)

    as_task = task(name=name, cache_policy=NO_CACHE, persist_result=False)(timed)
    return cast("Callable[Concatenate[Upkeep, P], T]", as_task)


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
