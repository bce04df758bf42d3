"""Migrations: which one the database has, which one this version of the code wants, and upgrade."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util.exc import CommandError
from psycopg import errors, sql
from sqlalchemy.exc import DBAPIError

from flows.errors import Busy, WarehouseError
from flows.settings import PROJECT_ROOT
from flows.warehouse.connection import connect, current_connection
from migrations.record import checksum

LOCK_SECONDS = 120
"""How long an upgrade waits for another one."""
ATTEMPTS = 5
"""How often a migration that does not get a lock is tried, each time for its lock_timeout."""
SEARCH_PATH = "app, sqp, reporting, landing, public"
"""Where names without a schema are looked up: the specifications' queries run as written."""
SETTINGS = {
    "search_path": SEARCH_PATH,
    # The partition key alone says which partitions a question is about. By default the planner also
    # reads the constraints of every partition: two thirds of its time for a question of weeks.
    "constraint_exclusion": "off",
}
"""What every session in the database starts with."""


def head_revision() -> str:
    """The newest migration of this version of the code."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None
    return head


def current_revision() -> str | None:
    """The migration that the database is at, or None before the first.

    Raises:
        WarehouseError: no server is up, or it refuses the login.
    """
    with connect(autocommit=True, application="warehouse migrations") as connection:
        exists = connection.execute("select to_regclass('app.alembic_version') is not null")
        if exists.fetchone() != (True,):
            return None
        row = connection.execute("select version_num from app.alembic_version").fetchone()
    return row[0] if row else None


def upgrade() -> list[str]:
    """Bring the database to the newest migration; the revisions that were applied, oldest first.

    Two at once: the second waits for the first, and then has nothing to do. A migration that
    cannot get a lock gives way to its holder and is tried again.

    Raises:
        Busy: another upgrade has been at work for longer than `LOCK_SECONDS`, or a lock that a
            migration needs is held for longer than all attempts.
        WarehouseError: the database is at a migration that this version does not have, an
            applied migration has been edited since, or one failed.
    """
    with sole_migrator() as connection:
        before = current_revision()
        steps = _steps_from(before)
        _refuse_edited(connection)
        if steps:
            _apply(steps)
        settle_database(connection)
    return steps


@contextmanager
def sole_migrator() -> Iterator[psycopg.Connection[Any]]:
    """A connection whose holder alone changes the schema of this database.

    It asks for the lock again and again. A session that waits in the lock would hold a snapshot,
    and an index that is made concurrently waits for every snapshot.

    Raises:
        Busy: another process has held the lock for `LOCK_SECONDS`.
    """
    give_up = time.monotonic() + LOCK_SECONDS
    with connect(autocommit=True, application="warehouse migrations") as connection:
        while connection.execute(
            "select pg_try_advisory_lock(hashtext('warehouse migrations'))"
        ).fetchone() != (True,):
            if time.monotonic() > give_up:
                raise Busy(
                    "the migrations are busy",
                    f"another process has been migrating this database for {LOCK_SECONDS} s",
                    "wait for it, or end it and try again",
                )
            time.sleep(0.2)
        yield connection


def _apply(steps: list[str]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            command.upgrade(alembic_config(), "head")
        except (DBAPIError, psycopg.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            said = str(cause).strip().splitlines()[0]
            failed = _failed_step(steps)
            if isinstance(cause, errors.InsufficientPrivilege):
                login = current_connection().user
                raise WarehouseError(
                    f"migration {failed} failed",
                    said,
                    "an administrator must migrate, or must let this login: grant app_owner,"
                    f" rls_definer, etl, dbt, backup to {login}",
                ) from error
            if not isinstance(cause, errors.LockNotAvailable | errors.DeadlockDetected):
                raise WarehouseError(
                    f"migration {failed} failed",
                    said,
                    "what it had done was undone, but for indexes that are made concurrently, which"
                    " it makes anew; `warehouse up` tries again",
                ) from error
            if attempt == ATTEMPTS:
                raise Busy(
                    f"migration {failed} does not get its lock",
                    said,
                    "end the session that holds it (see pg_locks), and run `warehouse up` again",
                ) from error
            time.sleep(random.uniform(0.5, 1.5) * attempt)  # noqa: S311
        else:
            return


def _failed_step(steps: list[str]) -> str:
    reached = current_revision()
    return steps[steps.index(reached) + 1] if reached in steps else steps[0]


def _refuse_edited(connection: psycopg.Connection[Any]) -> None:
    """Compare the checksum of each migration in force with its file."""
    try:
        recorded = connection.execute(
            "select version, checksum from app.schema_migrations where checksum is not null"
            " order by version"
        ).fetchall()
    except (errors.UndefinedTable, errors.UndefinedColumn):
        return
    scripts = ScriptDirectory.from_config(alembic_config())
    for version, known in recorded:
        script = scripts.get_revision(version)
        if checksum(script) != known:
            raise WarehouseError(
                f"migration {version} has been edited since it was applied",
                f"{Path(script.path).name} is not the file that this database was migrated with",
                "put the file back, and make the change in a new migration",
            )


def settle_database(connection: psycopg.Connection[Any]) -> None:
    """What belongs to the database itself and to no schema; a clone does not inherit it.

    The settings that sessions start with, that dbt may make its schemas, and that tenants make no
    temporary objects, which would be looked up before others.

    Raises:
        WarehouseError: the login does not own the database.
    """
    (database,) = connection.execute("select current_database()").fetchone() or ("",)
    settled = connection.execute(
        """
        select
            has_database_privilege('dbt', current_database(), 'create')
            and has_database_privilege('etl', current_database(), 'temporary')
            and not has_database_privilege('anon', current_database(), 'temporary')
        """
    ).fetchone()
    steps = []
    if settled != (True,):
        steps += [
            "grant create, temporary on database {} to dbt",
            "grant temporary on database {} to etl",
            "revoke temporary on database {} from public",
        ]
    found = connection.execute(
        """
        select settings.setconfig
        from pg_catalog.pg_db_role_setting as settings
        where
            settings.setrole = 0
            and settings.setdatabase = (
                select oid from pg_catalog.pg_database where datname = %s
            )
        """,
        (database,),
    ).fetchone()
    held = found[0] if found else []
    steps += [
        f"alter database {{}} set {name} = {value}"
        for name, value in SETTINGS.items()
        if f"{name}={value}" not in held
    ]
    try:
        for step in steps:
            connection.execute(sql.SQL(step).format(sql.Identifier(database)))
    except errors.InsufficientPrivilege as error:
        raise WarehouseError(
            f"the login may not settle the database {database}",
            str(error).strip().splitlines()[0],
            "let the owner of the database run: "
            + "; ".join(step.format(f'"{database}"') for step in steps),
        ) from error


def _steps_from(revision: str | None) -> list[str]:
    scripts = ScriptDirectory.from_config(alembic_config())
    try:
        missing = list(scripts.iterate_revisions("head", revision or "base"))
    except (CommandError, RevisionError) as error:
        raise WarehouseError(
            f"the database is at migration {revision}",
            f"this version of the code knows migrations up to {head_revision()}",
            "update the code: a newer version has used this database",
        ) from error
    return [script.revision for script in reversed(missing)]


def alembic_config() -> Config:
    """Where Alembic finds the migrations."""
    return Config(str(PROJECT_ROOT / "alembic.ini"))
