"""Migrations: up, down and up again leave the same; partitions are made once, whoever asks."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st

from flows.settings import Connection
from flows.sources.deliveries import PeriodType, RejectReason, ReportView
from flows.warehouse import migrate
from flows.warehouse.connection import connect
from flows.warehouse.embedded import program
from flows.warehouse.run_log import SyncStatus, SyncType

REVISIONS = [
    script.revision
    for script in reversed(
        list(ScriptDirectory.from_config(migrate.alembic_config()).walk_revisions())
    )
]


def dump(database: Connection) -> str:
    """The schema as pg_dump tells it, without the comment lines that name the run."""
    done = subprocess.run(
        [program("pg_dump"), "--schema-only", "--no-owner", "--restrict-key=same"],
        env=os.environ | database.environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.parametrize("revision", ["base", *REVISIONS[:-1]])
def test_down_to_any_revision_and_up_again_leaves_the_same(
    database: Connection, revision: str
) -> None:
    before = dump(database)
    command.downgrade(migrate.alembic_config(), revision)
    halfway = dump(database)
    assert halfway != before
    assert (
        migrate.upgrade()
        == REVISIONS[REVISIONS.index(revision) + 1 if revision in REVISIONS else 0 :]
    )
    assert dump(database) == before
    command.downgrade(migrate.alembic_config(), revision)
    assert dump(database) == halfway


def test_each_migration_in_force_is_recorded_with_its_rollback(database: Connection) -> None:
    with connect(autocommit=True) as connection:
        recorded = connection.execute(
            "select version, rollback_sql from app.schema_migrations order by version"
        ).fetchall()
        assert [version for version, _ in recorded] == REVISIONS
        for _, rollback in reversed(recorded):
            connection.execute(rollback)
        left = connection.execute(
            "select count(*) from pg_tables where schemaname in ('landing', 'sqp')"
        ).fetchone()
    assert left == (0,), "the recorded SQL takes everything back"


def test_an_upgrade_of_an_upgraded_database_does_nothing(database: Connection) -> None:
    assert migrate.upgrade() == []


@pytest.mark.parametrize(
    ("table", "column", "listed"),
    [
        ("sqp.sync_log", "sync_type", SyncType),
        ("sqp.sync_log", "sync_status", SyncStatus),
        ("landing.sqp_slices", "period_type", PeriodType),
        ("landing.sqp_slices", "report_view", ReportView),
        ("landing.rejected_rows", "reason_code", RejectReason),
    ],
)
def test_the_constraint_and_the_enum_list_the_same(
    database: Connection, table: str, column: str, listed: type[SyncType]
) -> None:
    with connect(autocommit=True) as connection:
        row = connection.execute(
            """
            select pg_get_constraintdef(constraints.oid)
            from pg_constraint as constraints
            where
                constraints.conrelid = %s::regclass
                and constraints.contype = 'c'
                and pg_get_constraintdef(constraints.oid) like %s
            """,
            (table, f"%({column})::text = ANY%"),
        ).fetchone()
    assert row is not None
    held = {part.split("'")[1] for part in row[0].split("ARRAY[")[1].split("]")[0].split(",")}
    assert held == {str(value) for value in listed}


def test_ninety_concurrent_calls_make_one_partition(database: Connection) -> None:
    def ask(number: int) -> str:
        with connect(autocommit=True) as connection:
            row = connection.execute(
                "select app.create_monthly_partition('landing.sqp_asin', %s)",
                (date(2026, 1 + number % 3, 1 + number % 28),),
            ).fetchone()
        assert row is not None
        return str(row[0])

    with ThreadPoolExecutor(12) as pool:
        made = list(pool.map(ask, range(90)))
    assert set(made) == {f"sqp_asin_2026_0{month}" for month in (1, 2, 3)}


@given(day=st.dates(date(1990, 1, 1), date(2090, 12, 31)))
def test_a_partition_holds_exactly_the_month_of_its_date(database: Connection, day: date) -> None:
    with connect() as connection:
        connection.execute("set time zone 'Pacific/Kiritimati'")
        connection.execute("create table sqp.events (at timestamptz) partition by range (at)")
        connection.execute("select app.create_monthly_partition('sqp.events', %s)", (day,))
        connection.execute("set time zone 'UTC'")
        first = day.replace(day=1)
        for inside in (f"{first} 00:00:00+00", f"{day} 12:00:00+00"):
            connection.execute("insert into sqp.events values (%s)", (inside,))
        with pytest.raises(psycopg.errors.CheckViolation), connection.transaction():
            connection.execute(
                "insert into sqp.events values (%s::timestamptz - interval '1 microsecond')",
                (f"{first} 00:00:00+00",),
            )
        connection.rollback()


def test_a_table_that_squats_on_a_partition_name_is_refused(database: Connection) -> None:
    with connect(autocommit=True) as connection:
        connection.execute("create table landing.sqp_asin_2026_01 (x int)")
        with pytest.raises(psycopg.errors.DuplicateTable, match="is not a partition"):
            connection.execute(
                "select app.create_monthly_partition('landing.sqp_asin', '2026-01-15')"
            )


def test_a_name_too_long_for_a_partition_is_refused(database: Connection) -> None:
    long_name = "t" * 60
    with connect(autocommit=True) as connection:
        connection.execute(f"create table sqp.{long_name} (day date) partition by range (day)")
        with pytest.raises(psycopg.Error, match="longer than 63 bytes"):
            connection.execute(
                "select app.create_monthly_partition(%s, '2026-01-15')", (f"sqp.{long_name}",)
            )
        with pytest.raises(psycopg.Error, match="not partitioned"):
            connection.execute("select app.create_monthly_partition('sqp.sync_log', '2026-01-15')")
