"""Partitions made ahead, default partitions watched, retention applied: what tables need nightly.

Which table needs what stands in `app.table_policies`; the work is done by functions of the
database. Each table is a transaction of its own, so that one that is in use delays no other: the
connections given to these functions are in autocommit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.rows import class_row

from flows.errors import Busy, UsageError

LOCK_NAME = "warehouse.upkeep"
PARTITIONS_A_CALL = 400
"""How many partitions of a table `app.ensure_partitions` makes at most in one call."""

Row = TypeVar("Row")


@dataclass(frozen=True)
class Partitions:
    """What was made of one table's partitions, and how many rows left its default partition."""

    relation: str
    made: int
    moved_rows: int


@dataclass(frozen=True)
class DefaultPartition:
    """How many rows lie in a table's default partition; there should be none."""

    relation: str
    rows: int


@dataclass(frozen=True)
class Removal:
    """What retention removed from one table, or would remove; times are UTC, counts exact."""

    relation: str
    cutoff: datetime
    held: bool
    partitions_dropped: list[str]
    rows_before: int
    rows_removed: int
    rows_after: int


@dataclass(frozen=True)
class InUse:
    """A table that was left for the next time, because others kept it locked."""

    relation: str
    what: str


@contextmanager
def upkeep_lock(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Keep every other upkeep away while within.

    Raises:
        Busy: another upkeep is at work.
    """
    got = connection.execute("select pg_try_advisory_lock(hashtext(%s))", (LOCK_NAME,)).fetchone()
    if got != (True,):
        raise Busy(
            "the upkeep of the tables is busy",
            "another process makes partitions or applies retention",
            "wait for it to end and try again",
        )
    try:
        yield
    finally:
        connection.execute("select pg_advisory_unlock(hashtext(%s))", (LOCK_NAME,))


def ensure_partitions(
    connection: psycopg.Connection[Any],
) -> tuple[list[Partitions], list[InUse]]:
    """Make every partition that a declared horizon or a stray row needs.

    Returns:
        what was made of each table, and the tables that were locked by others.
    """
    done: list[Partitions] = []
    in_use: list[InUse] = []
    for relation in _declared(connection, "partition_key"):
        made = moved = 0
        try:
            while True:
                (row,) = _call(
                    connection, Partitions, "select * from app.ensure_partitions(%s)", relation
                )
                made += row.made
                moved += row.moved_rows
                if row.made < PARTITIONS_A_CALL:
                    break
        except errors.LockNotAvailable:
            in_use.append(InUse(relation, "partitions"))
        done.append(Partitions(relation, made, moved))
    return done, in_use


def record_default_partition_checks(
    connection: psycopg.Connection[Any], *, again: Sequence[str] | None = None
) -> list[DefaultPartition]:
    """Write one row per partitioned table into `sqp.data_quality_checks`.

    A table passes when its default partition is empty. Rows that the upkeep has yet to move are a
    warning; rows that it has left where they are need a person, and are a failure.

    Args:
        again: after an upkeep, the tables to look at once more.

    Returns:
        the tables looked at, with what lies in their default partitions.
    """
    found = [
        table
        for table in _call(
            connection, DefaultPartition, "select * from app.default_partition_rows()"
        )
        if again is None or table.relation in again
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into sqp.data_quality_checks (
                check_type, check_name, check_status, source_value, target_value, difference,
                table_name, check_message
            )
            values ('default_partition', 'default_partition_is_empty', %s, 0, %s, %s, %s, %s)
            """,
            [
                (status, table.rows, table.rows, table.relation, message)
                for table in found
                for status, message in [_verdict(table, seen_before=again is not None)]
            ],
        )
    return found


def _verdict(table: DefaultPartition, *, seen_before: bool) -> tuple[str, str]:
    if table.rows == 0:
        return "passed", "every row is in the partition of its period"
    lying = f"{table.rows:,} rows lie in the default partition of {table.relation}"
    if not seen_before:
        return "warning", (
            f"{lying}: their periods have no partition. The upkeep moves them; if this comes again"
            " every day, declare a longer horizon (meta.partition) for the table"
        )
    return "failed", (
        f"{lying} after the upkeep: their times are infinite or of no real year, or the table has"
        " no declared partitions. Correct or delete the rows, or declare meta.partition"
    )


def apply_retention(
    connection: psycopg.Connection[Any], *, apply: bool, as_of: datetime | None = None
) -> tuple[list[Removal], list[InUse]]:
    """Remove what is older than each table's declared retention; without `apply`, only count.

    Args:
        as_of: the instant from which ages are counted, now by default.

    Returns:
        a removal per table that has a retention and exists, and the tables locked by others.

    Raises:
        UsageError: `as_of` is still to come, and rows were to be removed.
    """
    removals: list[Removal] = []
    in_use: list[InUse] = []
    for relation in _declared(connection, "retention_key"):
        try:
            removals += _call(
                connection,
                Removal,
                "select * from app.apply_retention(%s, %s, %s)",
                not apply,
                as_of,
                relation,
            )
        except errors.LockNotAvailable:
            in_use.append(InUse(relation, "retention"))
        except errors.InvalidParameterValue as error:
            raise UsageError(
                "retention was not applied", _primary(error), "name an instant that has passed"
            ) from error
    return removals, in_use


def hold_retention(connection: psycopg.Connection[Any], table: str, reason: str | None) -> str:
    """Hold the retention of a table for a reason; without one, release it.

    Returns:
        the table's full name.

    Raises:
        UsageError: there is no such table, or it has no retention.
    """
    try:
        row = connection.execute("select app.hold_retention(%s, %s)", (table, reason)).fetchone()
    except (
        errors.InvalidParameterValue,
        errors.UndefinedTable,
        errors.InsufficientPrivilege,
    ) as error:
        raise UsageError(
            f"the retention of {table} is as it was",
            _primary(error),
            "`warehouse retention` lists the tables that have one",
        ) from error
    assert row is not None
    return str(row[0])


def _declared(connection: psycopg.Connection[Any], what: str) -> list[str]:
    rows = connection.execute(
        sql.SQL(
            "select relation from app.table_policies"
            " where {} is not null and to_regclass(relation) is not null order by relation"
        ).format(sql.Identifier(what))
    ).fetchall()
    return [relation for (relation,) in rows]


def _call(
    connection: psycopg.Connection[Any], row_class: type[Row], query: LiteralString, *arguments: Any
) -> list[Row]:
    with connection.cursor(row_factory=class_row(row_class)) as cursor:
        return cursor.execute(query, arguments).fetchall()


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).splitlines()[0]
