"""Retention: what is old enough goes, counted before and after; nothing else, and nothing on hold.

Errata of the multi-platform specification, which deleted row by row, kept cancelled jobs for ever,
and counted nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import typer
from psycopg import errors
from typer.testing import CliRunner

from flows.commands import upkeep as commands
from flows.errors import UsageError
from flows.settings import Connection
from flows.warehouse import upkeep
from flows.warehouse.connection import connect

AS_OF = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def connection(database: Connection) -> Iterator[psycopg.Connection[Any]]:
    with connect(autocommit=True) as connection:
        yield connection


def declare(connection: psycopg.Connection[Any], relation: str, keep: str, **more: Any) -> None:
    """Register a retention of `relation` by its column `at`; `more` are further columns."""
    columns = {"relation": relation, "declaration": "{}", "retention_key": "at"} | more
    columns["retention_keep"] = keep
    connection.execute(
        f"insert into app.table_policies ({', '.join(columns)})"
        f" values ({', '.join(['%s'] * len(columns))})",
        list(columns.values()),
    )


@pytest.fixture
def hours(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Ten days of one row an hour, in daily partitions, with two stray rows; kept for 7 days."""
    with connection.transaction():
        connection.execute("set local role app_owner")
        connection.execute(
            "create table app.hours (id bigint, at timestamptz not null) partition by range (at)"
        )
        connection.execute("create table app.hours_default partition of app.hours default")
    connection.execute(
        "select app.create_daily_partition('hours', '2026-03-10'::date + number)"
        " from generate_series(0, 10) as number"
    )
    connection.execute(
        "insert into app.hours select 1, at from generate_series("
        " '2026-03-10 00:00+00'::timestamptz, '2026-03-20 23:00+00', interval '1 hour') as at"
    )
    connection.execute("insert into app.hours values (2, '2020-01-01'), (3, '2030-01-01')")
    declare(connection, "app.hours", "7 days")
    return connection


@pytest.fixture
def jobs(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Jobs of every status around the boundary of 30 days; finished ones go."""
    with connection.transaction():
        connection.execute("set local role app_owner")
        connection.execute("create table app.jobs (status text, at timestamptz)")
    for status in ("completed", "failed", "cancelled", "running", "pending"):
        for at in (AS_OF - timedelta(days=30) - MICROSECOND, AS_OF - timedelta(days=30), None):
            connection.execute("insert into app.jobs values (%s, %s)", (status, at))
    declare(
        connection,
        "app.jobs",
        "30 days",
        retention_when_column="status",
        retention_when_values=["completed", "failed", "cancelled"],
    )
    return connection


def apply(
    connection: psycopg.Connection[Any], table: str, *, dry_run: bool, as_of: datetime = AS_OF
) -> upkeep.Removal:
    with connect(autocommit=True, role="etl") as caller:
        rows = caller.execute(
            "select * from app.apply_retention(%s, %s, %s)", (dry_run, as_of, table)
        ).fetchall()
    assert len(rows) == 1
    return upkeep.Removal(*rows[0])


def count(connection: psycopg.Connection[Any], what: str) -> int:
    row = connection.execute(f"select count(*) from {what}").fetchone()
    assert row is not None
    return int(row[0])


def partitions(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute(
        "select relname::text from pg_inherits inner join pg_class on inhrelid = pg_class.oid"
        " where inhparent = 'app.hours'::regclass order by 1"
    ).fetchall()
    return [name for (name,) in rows]


def test_a_dry_run_counts_and_changes_nothing(hours: psycopg.Connection[Any]) -> None:
    before = partitions(hours), count(hours, "app.hours")
    planned = apply(hours, "hours", dry_run=True)
    assert planned.partitions_dropped == [
        "hours_2026_03_10",
        "hours_2026_03_11",
        "hours_2026_03_12",
    ]
    assert (planned.rows_before, planned.rows_removed, planned.rows_after) == (266, 73, 193)
    assert (partitions(hours), count(hours, "app.hours")) == before
    assert count(hours, "app.retention_log") == 0
    assert count(hours, "app.apply_retention() where partitions_dropped <> '{}'") == 1
    assert (partitions(hours), count(hours, "app.hours")) == before, "a dry run is the default"


def test_whole_partitions_and_stray_rows_go_and_all_is_counted(
    hours: psycopg.Connection[Any],
) -> None:
    planned = apply(hours, "hours", dry_run=True)
    done = apply(hours, "app.hours", dry_run=False)
    assert done == planned, "what was announced was done"
    assert partitions(hours) == [f"hours_2026_03_{day}" for day in range(13, 21)] + [
        "hours_default"
    ]
    assert count(hours, "app.hours") == done.rows_after == 193
    assert count(hours, "pg_class where relname like 'hours_2026_03_1_' and relkind = 'r'") == 7
    assert count(hours, "app.hours where at < '2026-03-13 00:00+00'") == 0
    assert count(hours, "app.hours where id = 3") == 1, "a stray row of the future stays"
    logged = hours.execute(
        "select relation, cutoff, partitions_dropped, rows_before, rows_removed, rows_after,"
        " applied_by = session_user from app.retention_log"
    ).fetchall()
    assert logged == [
        ("app.hours", AS_OF - timedelta(days=7), done.partitions_dropped, 266, 73, 193, True)
    ]
    again = apply(hours, "hours", dry_run=False)
    assert (again.rows_before, again.rows_removed, again.rows_after) == (193, 0, 193)
    assert again.partitions_dropped == []


@pytest.mark.parametrize(
    ("as_of", "dropped"),
    [
        (datetime(2026, 3, 18, tzinfo=UTC) - MICROSECOND, 0),
        (datetime(2026, 3, 18, tzinfo=UTC), 1),
        (datetime(2026, 3, 19, tzinfo=UTC) - MICROSECOND, 1),
    ],
)
def test_a_partition_goes_at_the_instant_its_last_moment_is_old_enough(
    hours: psycopg.Connection[Any], as_of: datetime, dropped: int
) -> None:
    done = apply(hours, "hours", dry_run=False, as_of=as_of)
    assert len(done.partitions_dropped) == dropped
    assert done.rows_removed == 24 * dropped + 1


def test_finished_jobs_go_cancelled_ones_too_and_open_ones_stay(
    jobs: psycopg.Connection[Any],
) -> None:
    done = apply(jobs, "jobs", dry_run=False)
    assert (done.rows_before, done.rows_removed, done.rows_after) == (15, 3, 12)
    left = jobs.execute(
        "select status, count(*) from app.jobs group by status order by status"
    ).fetchall()
    assert left == [
        ("cancelled", 2),
        ("completed", 2),
        ("failed", 2),
        ("pending", 3),
        ("running", 3),
    ]
    assert count(jobs, f"app.jobs where at < '{AS_OF - timedelta(days=30)}'") == 2


def test_a_day_is_old_when_its_midnight_in_utc_is(connection: psycopg.Connection[Any]) -> None:
    with connection.transaction():
        connection.execute("set local role app_owner")
        connection.execute("create table app.days (at date)")
    connection.execute("insert into app.days values ('2026-03-12'), ('2026-03-13'), ('2026-03-14')")
    declare(connection, "app.days", "7 days")
    with connect(autocommit=True) as caller:
        caller.execute("set time zone 'Pacific/Kiritimati'")
        caller.execute("select * from app.apply_retention(false, %s, 'days')", (AS_OF,))
    left = connection.execute("select at::text from app.days order by at").fetchall()
    assert left == [("2026-03-13",), ("2026-03-14",)]


def test_a_partitioned_table_whose_retention_asks_for_more_loses_rows_only(
    hours: psycopg.Connection[Any],
) -> None:
    hours.execute(
        "update app.table_policies"
        " set retention_when_column = 'id', retention_when_values = '{2}'"
        " where relation = 'app.hours'"
    )
    done = apply(hours, "hours", dry_run=False)
    assert (done.partitions_dropped, done.rows_removed) == ([], 1)


def test_a_held_table_is_reported_and_left_alone_until_it_is_released(
    hours: psycopg.Connection[Any],
) -> None:
    with connect(autocommit=True, role="etl") as caller:
        assert upkeep.hold_retention(caller, "hours", "a legal request") == "app.hours"
        held = apply(hours, "hours", dry_run=False)
        assert held.held
        assert (held.rows_before, held.rows_removed, held.rows_after) == (266, 0, 266)
        assert count(hours, "app.retention_log") == 0
        upkeep.hold_retention(caller, "app.hours", None)
    assert apply(hours, "hours", dry_run=False).rows_removed == 73
    assert count(hours, "app.retention_log") == 1


@pytest.mark.parametrize("table", ["app.retention_log", "no_such_table", "pg_catalog.pg_class"])
def test_only_a_table_with_a_retention_can_be_held(
    connection: psycopg.Connection[Any], table: str
) -> None:
    with pytest.raises(UsageError):
        upkeep.hold_retention(connection, table, "because")


def test_a_hold_says_why(hours: psycopg.Connection[Any]) -> None:
    with pytest.raises(errors.CheckViolation):
        hours.execute("update app.table_policies set retention_hold = true")
    with pytest.raises(errors.CheckViolation):
        hours.execute("select app.hold_retention('hours', '')")


def test_an_instant_to_come_is_refused(hours: psycopg.Connection[Any]) -> None:
    later = datetime.now(UTC) + timedelta(days=400)
    assert apply(hours, "hours", dry_run=True, as_of=later).rows_removed > 73
    with pytest.raises(UsageError):
        upkeep.apply_retention(hours, apply=True, as_of=later)
    assert count(hours, "app.hours") == 266


def test_retention_does_not_wait_for_ever_and_does_the_others(
    hours: psycopg.Connection[Any], jobs: psycopg.Connection[Any]
) -> None:
    hours.execute(
        "alter function app.apply_retention(boolean, timestamptz, text) set lock_timeout = '200ms'"
    )
    with connect() as reader:
        reader.execute("select count(*) from app.hours")
        removals, in_use = upkeep.apply_retention(hours, apply=True, as_of=AS_OF)
    assert [table.relation for table in in_use] == ["app.hours"]
    assert {removal.relation: removal.rows_removed for removal in removals}["app.jobs"] == 3
    assert count(hours, "app.hours") == 266


@pytest.mark.parametrize("role", ["dbt", "authenticated", "anon", "backup"])
def test_nobody_but_the_loader_removes(hours: psycopg.Connection[Any], role: str) -> None:
    with hours.transaction(force_rollback=True):
        hours.execute(f"set local role {role}")
        with pytest.raises(errors.InsufficientPrivilege):
            hours.execute("select * from app.apply_retention(true)")


@pytest.mark.parametrize(
    "columns",
    [
        "retention_key = 'at'",
        "retention_key = 'at', retention_keep = '-1 day'",
        "retention_when_column = 'status', retention_when_values = '{done}'",
        "retention_key = 'at', retention_keep = '1 day', retention_when_column = 'status'",
        "partition_key = 'at', partition_unit = 'month'",
        "partition_key = 'at', partition_unit = 'week', partitions_behind = 1,"
        " partitions_ahead = 1",
    ],
)
def test_half_a_declaration_is_refused(connection: psycopg.Connection[Any], columns: str) -> None:
    connection.execute(
        "insert into app.table_policies (relation, declaration) values ('app.x', '{}')"
    )
    with pytest.raises(errors.CheckViolation):
        connection.execute(f"update app.table_policies set {columns} where relation = 'app.x'")


def run(*arguments: str) -> Any:
    app = typer.Typer()
    commands.register(app)
    return CliRunner().invoke(app, arguments)


def test_the_commands_count_hold_and_remove(
    hours: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.warehouse.ready.ensure_ready", lambda: None)

    def removal_of_hours(*arguments: str) -> dict[str, Any]:
        done = run("retention", "--json", *arguments)
        assert done.exit_code == 0, done.output
        return {each["relation"]: each for each in json.loads(done.stdout)["removals"]}["app.hours"]

    planned = removal_of_hours()
    assert not planned["held"]
    assert count(hours, "app.hours") == 266
    assert run("retention-hold", "hours", "--reason", "a request").exit_code == 0
    assert removal_of_hours("--apply")["held"]
    assert count(hours, "app.hours") == 266
    assert run("retention-hold", "hours", "--release").exit_code == 0
    assert "dry run" in run("retention").stdout
    assert removal_of_hours("--apply")["rows_removed"] == planned["rows_removed"] > 0
    assert isinstance(run("retention-hold", "hours").exception, UsageError)
    assert isinstance(
        run("retention-hold", "hours", "--release", "--reason", "x").exception, UsageError
    )


def test_the_upkeep_flow_moves_first_and_removes_only_when_told(
    hours: psycopg.Connection[Any], prefect_server: str
) -> None:
    from flows.upkeep import keep_tables

    hours.execute(
        "update app.table_policies set partition_key = 'at', partition_unit = 'day',"
        " partitions_behind = 1, partitions_ahead = 2 where relation = 'app.hours'"
    )
    report = keep_tables()
    assert {table.relation: table.rows for table in report.defaults}["app.hours"] == 2
    assert {table.relation: table.moved_rows for table in report.partitions}["app.hours"] == 2
    assert [(table.relation, table.rows) for table in report.left] == [("app.hours", 0)]
    assert not report.applied
    assert report.exit_code == 0
    assert count(hours, "app.hours") == 266
    applied = keep_tables(apply_retention=True)
    removed = {removal.relation: removal for removal in applied.removals}["app.hours"]
    assert "hours_2020_01_01" in removed.partitions_dropped
    assert count(hours, "app.hours") == removed.rows_after
    assert set(applied.seconds) == {"check", "partition", "retain"}
    assert applied.as_dict()["applied"] is True
