"""Migrations: up, down and up again leave the same; nothing is kept of one that fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import errors, sql
from pydantic import SecretStr

from flows.errors import Busy, WarehouseError
from flows.settings import PROJECT_ROOT, Connection, get_settings
from flows.warehouse import migrate
from flows.warehouse.connection import connect
from flows.warehouse.embedded import program
from flows.warehouse.policies import ensure_policies
from flows.warehouse.ready import ensure_ready
from tests.conftest import drop_database, execute, use_database
from tests.integration.landing_rows import Landing, Row, week
from tests.integration.test_dbt_models import Dbt, dbt  # noqa: F401
from tests.schema.catalogue import FAULTS

REVISIONS = [
    script.revision
    for script in reversed(
        list(ScriptDirectory.from_config(migrate.alembic_config()).walk_revisions())
    )
]

COLUMN_STAMP = re.compile(r"^ALTER TABLE ONLY \S+ ALTER COLUMN \S+ SET \(pg_attver=\d+\);\n", re.M)
"""Minor releases of PostgreSQL stamp each column when it is made; a newer pg_dump writes it out."""


@pytest.fixture(scope="session")
def bare_template(server: Connection) -> Iterator[str]:
    """The name of a migrated database without anything that is generated."""
    name = f"wh_bare_{os.getpid()}"
    execute(server, sql.SQL("create database {}").format(sql.Identifier(name)))
    with pytest.MonkeyPatch.context() as patch:
        use_database(patch, server.model_copy(update={"database": name}))
        migrate.upgrade()
    get_settings.cache_clear()
    yield name
    drop_database(server, name)


@pytest.fixture
def bare(
    server: Connection, bare_template: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connection]:
    """A migrated database without policies, triggers and grants."""
    connection = server.model_copy(update={"database": f"wh_down_{os.getpid()}"})
    execute(
        server,
        sql.SQL("create database {} template {}").format(
            sql.Identifier(connection.database), sql.Identifier(bare_template)
        ),
    )
    use_database(monkeypatch, connection)
    yield connection
    drop_database(server, connection.database)


@pytest.fixture
def empty(server: Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A database with nothing in it."""
    connection = server.model_copy(update={"database": f"wh_empty_{os.getpid()}"})
    execute(server, sql.SQL("create database {}").format(sql.Identifier(connection.database)))
    use_database(monkeypatch, connection)
    yield connection
    drop_database(server, connection.database)


@pytest.fixture
def own_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations that a test may change, in use for this test."""
    folder = tmp_path / "migrations"
    shutil.copytree(
        PROJECT_ROOT / "migrations", folder, ignore=shutil.ignore_patterns("__pycache__")
    )
    config = Config(str(PROJECT_ROOT / "alembic.ini"))
    config.set_main_option("script_location", str(folder))
    monkeypatch.setattr(migrate, "alembic_config", lambda: config)
    return folder / "versions"


def dump(database: Connection) -> str:
    """The schema as pg_dump tells it, with rights and without owners."""
    done = subprocess.run(
        [program("pg_dump"), "--schema-only", "--no-owner", "--restrict-key=same"],
        env=os.environ | database.environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return COLUMN_STAMP.sub("", done.stdout)


def objects(database: Connection) -> list[str]:
    """The same by object: what refers to a partition is dumped in the order of its making."""
    return sorted(dump(database).split("\n--\n-- Name: "))


@pytest.mark.parametrize("revision", ["base", *REVISIONS[:-1]])
def test_down_to_any_revision_and_up_again_leaves_the_same(bare: Connection, revision: str) -> None:
    before = dump(bare)
    command.downgrade(migrate.alembic_config(), revision)
    halfway = dump(bare)
    assert halfway != before
    first = REVISIONS.index(revision) + 1 if revision in REVISIONS else 0
    assert migrate.upgrade() == REVISIONS[first:]
    assert dump(bare) == before
    command.downgrade(migrate.alembic_config(), revision)
    assert dump(bare) == halfway


def test_a_downgrade_takes_generated_objects_along_and_they_come_back(
    database: Connection,
) -> None:
    before = objects(database)
    command.downgrade(migrate.alembic_config(), "0005")
    migrate.upgrade()
    assert ensure_policies()
    assert objects(database) == before
    assert not ensure_policies(), "what is applied is not applied again"


def test_each_migration_in_force_is_recorded_with_its_rollback(database: Connection) -> None:
    with connect(autocommit=True) as connection:
        recorded = connection.execute(
            "select version, rollback_sql, checksum from app.schema_migrations order by version"
        ).fetchall()
        assert [version for version, _, _ in recorded] == REVISIONS
        assert all(len(checksum) == 64 for _, _, checksum in recorded)
        for _, rollback, _ in reversed(recorded):
            connection.execute(rollback)
        left = connection.execute(
            "select tablename from pg_tables where schemaname in"
            " ('app', 'landing', 'sqp', 'reporting', 'private', 'auth')"
        ).fetchall()
    assert left == [("alembic_version",)], "the recorded SQL takes everything back"


def test_an_upgrade_of_an_upgraded_database_does_nothing(database: Connection) -> None:
    assert migrate.upgrade() == []


def test_a_migration_that_fails_half_way_leaves_nothing(
    bare: Connection, own_migrations: Path
) -> None:
    before = dump(bare)
    (own_migrations / "9999_fails.py").write_text(
        f'''
from migrations.operations import run_sql
revision, down_revision, branch_labels, depends_on = "9999", "{REVISIONS[-1]}", None, None
DOWNGRADE = "drop table app.half"
def upgrade():
    run_sql("create table app.half (id int); insert into app.half values (1)")
    run_sql("select 1 / 0")
def downgrade():
    run_sql(DOWNGRADE)
'''
    )
    with pytest.raises(WarehouseError, match="migration 9999 failed") as failed:
        migrate.upgrade()
    assert "division by zero" in failed.value.why
    assert dump(bare) == before
    assert migrate.current_revision() == REVISIONS[-1]


def test_an_edited_migration_that_was_applied_is_refused(
    bare: Connection, own_migrations: Path
) -> None:
    edited = next(own_migrations.glob("0006_*.py"))
    edited.write_text(edited.read_text() + "\n# a harmless remark\n")
    with pytest.raises(WarehouseError, match="0006 has been edited"):
        migrate.upgrade()


def test_a_database_of_a_newer_version_is_refused(bare: Connection) -> None:
    with connect(autocommit=True) as connection:
        connection.execute("update app.alembic_version set version_num = '9999'")
    with pytest.raises(WarehouseError, match="at migration 9999"):
        migrate.upgrade()


def test_a_database_from_before_checksums_gets_them(bare: Connection) -> None:
    command.downgrade(migrate.alembic_config(), "0003")
    migrate.upgrade()
    with connect(autocommit=True) as connection:
        without = connection.execute(
            "select count(*) from app.schema_migrations where checksum is null"
        ).fetchone()
    assert without == (0,)


def test_a_migration_waits_for_no_lock_for_long(
    bare: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "ATTEMPTS", 2)
    monkeypatch.setattr("migrations.operations.LOCK_TIMEOUT", "200ms")
    command.downgrade(migrate.alembic_config(), "0008")
    with connect() as holder:
        holder.execute("lock table app.user_accounts in access share mode")
        with pytest.raises(Busy, match="0009 does not get its lock"):
            migrate.upgrade()
        holder.rollback()
    assert migrate.upgrade() == REVISIONS[REVISIONS.index("0009") :]


def test_a_statement_of_a_migration_cannot_run_for_ever(
    bare: Connection, own_migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrations.operations.STATEMENT_TIMEOUT", "300ms")
    (own_migrations / "9999_slow.py").write_text(
        f'''
from migrations.operations import run_sql
revision, down_revision, branch_labels, depends_on = "9999", "{REVISIONS[-1]}", None, None
DOWNGRADE = ""
def upgrade():
    run_sql("select pg_sleep(60)")
'''
    )
    with pytest.raises(WarehouseError, match="9999 failed") as failed:
        migrate.upgrade()
    assert "statement timeout" in failed.value.why


class TestConcurrentIndexes:
    """The indexes of 0016, made outside of a transaction."""

    migration = import_module("migrations.versions.0016_concurrent_indexes")

    def test_they_are_valid_on_the_table_and_on_every_partition(self, bare: Connection) -> None:
        command.downgrade(migrate.alembic_config(), "0015")
        with connect(autocommit=True) as connection:
            for month in ("2025-01-01", "2025-02-01"):
                connection.execute(
                    "select app.create_monthly_partition('landing.sqp_asin', %s)", (month,)
                )
            migrate.upgrade()
            assert self.state(connection) == {(True, 1), (True, 3)}

    def test_what_an_attempt_that_was_broken_off_left_is_made_anew(self, bare: Connection) -> None:
        command.downgrade(migrate.alembic_config(), "0015")
        with connect(autocommit=True) as connection:
            connection.execute(
                "select app.create_monthly_partition('landing.sqp_asin','2025-01-01')"
            )
            connection.execute("set role app_owner")
            connection.execute(
                "create index sqp_asin_account on only landing.sqp_asin (account_id, period_start)"
            )
            connection.execute(
                "create index sqp_asin_2025_01_account_id_period_start_idx"
                " on landing.sqp_asin_2025_01"
                " (account_id, period_start)"
            )
            connection.execute("create index idx_sync_log_account on sqp.sync_log (account_id)")
            connection.execute("reset role")
            connection.execute(
                "update pg_index set indisvalid = false where indexrelid in"
                " ('landing.sqp_asin_2025_01_account_id_period_start_idx'::regclass,"
                " 'sqp.idx_sync_log_account'::regclass)"
            )
            migrate.upgrade()
            assert self.state(connection) == {(True, 1), (True, 2)}
            assert "started_at DESC" in str(
                connection.execute(
                    "select pg_get_indexdef('sqp.idx_sync_log_account'::regclass)"
                ).fetchone()
            )

    def state(self, connection: psycopg.Connection) -> set[tuple[bool, int]]:
        """Per index of the migration: is it valid, and on how many tables."""
        return {
            connection.execute(
                """
                select bool_and(indisvalid), count(*)::int
                from pg_index
                where indexrelid = any(
                    array(select relid from pg_partition_tree(%(name)s::regclass))
                    || %(name)s::regclass
                )
                """,
                {"name": f"{index.table.split('.')[0]}.{index.name}"},
            ).fetchone()
            for index in self.migration.INDEXES
        }  # type: ignore[return-value]


def test_the_sync_metadata_of_rows_that_were_there_are_filled_and_no_figure_changes(
    database: Connection,
    dbt: Dbt,  # noqa: F811
) -> None:
    with psycopg.connect(**database.libpq(), autocommit=True) as connection:
        connection.execute("set time zone 'UTC'")
        landing = Landing(connection)
        from datetime import date

        load_id = landing.deliver(week(date(2025, 1, 5), "B000000RED"), [Row("a"), Row("b")])
        dbt("run", "--select", "+weekly_summary", "+monthly_summary", "+quarterly_summary")
        figures = "select to_jsonb(summary) - array['load_id', 'sync_log_id', 'bigquery_sync_id',"
        figures += " 'last_synced_at'] from sqp.{}_summary as summary order by 1"
        before = [
            connection.execute(figures.format(period)).fetchall()
            for period in ("weekly", "monthly", "quarterly")
        ]
        indexes = (
            "select regexp_replace(indexdef, 'INDEX .* ON', 'ON') from pg_indexes where schemaname"
            " = 'sqp' and tablename = 'weekly_summary' order by 1"
        )
        indexes_before = connection.execute(indexes).fetchall()
        connection.execute("drop view if exists sqp.sync_status, sqp.data_freshness cascade")
        command.downgrade(migrate.alembic_config(), "0009")
        assert connection.execute("select count(load_id) from sqp.weekly_summary").fetchone() == (
            2,
        )
        migrate.upgrade()
        ensure_policies()
        assert set(
            connection.execute(
                "select sync_log_id, bigquery_sync_id, last_synced_at is not null"
                " from sqp.weekly_summary"
            ).fetchall()
        ) == {(load_id, "test.json", True)}
        after = [
            connection.execute(figures.format(period)).fetchall()
            for period in ("weekly", "monthly", "quarterly")
        ]
        assert after == before
        assert connection.execute(indexes).fetchall() == indexes_before
        dbt("run", "--select", "+weekly_summary", "+monthly_summary", "+quarterly_summary")
        assert [
            connection.execute(figures.format(period)).fetchall()
            for period in ("weekly", "monthly", "quarterly")
        ] == before


def test_a_host_that_has_its_own_uid_and_roles_keeps_them(empty: Connection) -> None:
    with connect(autocommit=True) as connection:
        connection.execute("create schema auth")
        connection.execute(
            "create function auth.uid() returns uuid language sql as"
            " $$ select '00000000-0000-0000-0000-000000000001'::uuid $$"
        )
        migrate.upgrade()
        answer = connection.execute("select auth.uid()::text").fetchone()
        assert answer == ("00000000-0000-0000-0000-000000000001",)
        command.downgrade(migrate.alembic_config(), "base")
        assert connection.execute("select auth.uid() is not null").fetchone() == (True,)


def test_a_migration_of_rows_finds_them_under_forced_row_security(database: Connection) -> None:
    with connect() as connection:
        connection.execute(
            "insert into app.users (email, password_hash, first_name, last_name)"
            " values ('a@example.com', 'x', 'a', 'a')"
        )
        connection.execute("set local role app_owner")
        changed = connection.execute("update app.users set first_name = 'b'").rowcount
        connection.rollback()
    assert changed == 1


def test_a_login_that_is_no_superuser_migrates(
    server: Connection, bare_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"wh_builder_{os.getpid()}"
    execute(server, sql.SQL("create role {} login password 'x'").format(sql.Identifier(name)))
    for statement in (
        "grant app_owner, rls_definer, etl, dbt, backup to {}",
        "create database {0} owner {0}",
    ):
        execute(server, sql.SQL(statement).format(sql.Identifier(name)))
    try:
        builder = server.model_copy(
            update={"user": name, "password": SecretStr("x"), "database": name}
        )
        use_database(monkeypatch, builder)
        assert migrate.upgrade() == REVISIONS
        assert ensure_policies()
        with connect(autocommit=True, role="etl") as connection:
            assert connection.execute("select count(*) from app.users").fetchone() == (0,)
        with connect(autocommit=True) as connection:
            faults = {name: connection.execute(query).fetchall() for name, query in FAULTS.items()}
        assert not any(faults.values()), faults
        command.downgrade(migrate.alembic_config(), "base")
    finally:
        drop_database(server, name)
        execute(server, sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_a_login_that_is_a_member_of_the_loaders_is_enough(
    server: Connection, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"wh_member_{os.getpid()}"
    execute(server, sql.SQL("create role {} login password 'x'").format(sql.Identifier(name)))
    execute(server, sql.SQL("grant etl, dbt to {}").format(sql.Identifier(name)))
    try:
        use_database(
            monkeypatch,
            database.model_copy(update={"user": name, "password": SecretStr("x")}),
        )
        ensure_ready()
        with connect(autocommit=True) as connection:
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute("create table app.mine (id int)")
            assert connection.execute("select count(*) from app.schema_migrations").fetchone() == (
                len(REVISIONS),
            )
    finally:
        get_settings.cache_clear()
        execute(server, sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_the_loader_cannot_change_the_schema(database: Connection) -> None:
    with connect(autocommit=True, role="etl") as connection:
        for statement in (
            "create table app.mine (id int)",
            "create table sqp.mine (id int)",
            "alter table app.users add column mine int",
            "drop table landing.rejected_rows",
            "truncate app.audit_logs",
            "delete from app.audit_logs",
            "alter table app.users disable row level security",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement)
