"""Migrations: which one the database has, which one this version of the code wants, and upgrade."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from flows.errors import Busy, WarehouseError
from flows.settings import PROJECT_ROOT
from flows.warehouse.connection import connect

LOCK_WAIT = "60s"


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

    Two at once: the second waits for the first, and then has nothing to do.

    Raises:
        Busy: another upgrade has been at work for longer than `LOCK_WAIT`.
        WarehouseError: the database is at a migration that this version does not have.
    """
    with connect(autocommit=True, application="warehouse migrations") as connection:
        connection.execute(f"set lock_timeout = '{LOCK_WAIT}'")
        try:
            connection.execute("select pg_advisory_lock(hashtext('warehouse migrations'))")
        except errors.LockNotAvailable:
            raise Busy(
                "the migrations are busy",
                f"another process has been migrating this database for {LOCK_WAIT}",
                "wait for it, or end it and try again",
            ) from None
        before = current_revision()
        steps = _steps_from(before)
        if steps:
            try:
                command.upgrade(alembic_config(), "head")
            except DBAPIError as error:
                raise WarehouseError(
                    f"a migration after {before or 'the empty database'} failed",
                    str(error.orig).strip().splitlines()[0],
                    "nothing of that migration was kept; `warehouse up` tries again",
                ) from error
    return steps


def _steps_from(revision: str | None) -> list[str]:
    scripts = ScriptDirectory.from_config(alembic_config())
    try:
        missing = list(scripts.iterate_revisions("head", revision or "base"))
    except CommandError as error:
        raise WarehouseError(
            f"the database is at migration {revision}",
            f"this version of the code knows migrations up to {head_revision()}",
            "update the code: a newer version has used this database",
        ) from error
    return [script.revision for script in reversed(missing)]


def alembic_config() -> Config:
    """Where Alembic finds the migrations."""
    return Config(str(PROJECT_ROOT / "alembic.ini"))
