"""Row security, triggers, partitions and grants as the tables' declarations in dbt's YAML say."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path
from typing import Any

import psycopg

from flows.errors import Busy, WarehouseError
from flows.settings import PROJECT_ROOT
from flows.warehouse.connection import connect
from flows.warehouse.dbt_build import run_operation
from flows.warehouse.migrate import ATTEMPTS, head_revision, sole_migrator

DECLARED_IN = (
    "dbt_project/dbt_project.yml",
    "dbt_project/models/**/*.yml",
    "dbt_project/models/**/*.md",
    "dbt_project/seeds/*.yml",
    "dbt_project/macros/security/*.sql",
    "dbt_project/macros/triggers/*.sql",
    "dbt_project/macros/retention/*.sql",
    "dbt_project/macros/partitions/*.sql",
)


def ensure_policies() -> bool:
    """Apply the declarations unless the database has them already; whether they were applied.

    The login must own the tables: a superuser, or a member of `rls_definer`.

    Raises:
        Busy: another process has been migrating this database for too long.
        WarehouseError: dbt could not apply them.
    """
    wanted = fingerprint()
    with sole_migrator() as connection:
        if _held(connection) == wanted:
            return False
        _apply()
        connection.execute(
            """
            insert into app.applied_declarations (fingerprint)
            values (%s)
            on conflict (is_only_row) do update
            set fingerprint = excluded.fingerprint, applied_at = clock_timestamp()
            """,
            (wanted,),
        )
    return True


def _apply() -> None:
    """Run the macro; give way to whoever holds a table, and try again."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            run_operation("apply_table_policies")
        except WarehouseError as error:
            if not any(passing in error.why for passing in ("lock timeout", "deadlock detected")):
                raise
            if attempt == ATTEMPTS:
                raise Busy(
                    "the policies of the tables cannot be applied",
                    error.why,
                    "end the session that holds a table (see pg_locks), and run `warehouse up`",
                ) from error
            time.sleep(random.uniform(0.5, 1.5) * attempt)  # noqa: S311
        else:
            return


def policies_are_applied() -> bool:
    """Whether the database has the declarations of this version of the code."""
    with connect(autocommit=True, application="warehouse policies") as connection:
        return _held(connection) == fingerprint()


def _held(connection: psycopg.Connection[Any]) -> str | None:
    """The fingerprint of the declarations that the database has, or None."""
    row = connection.execute("select fingerprint from app.applied_declarations").fetchone()
    return row[0] if row else None


def fingerprint() -> str:
    """SHA-256 of what declares the tables, of what applies it, and of the newest migration."""
    digest = hashlib.sha256(head_revision().encode())
    for file in sorted(_files(PROJECT_ROOT)):
        digest.update(str(file.relative_to(PROJECT_ROOT)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files(root: Path) -> set[Path]:
    return {file for pattern in DECLARED_IN for file in root.glob(pattern)}
