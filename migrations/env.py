"""Runs migrations in one transaction each, and keeps `app.schema_migrations` beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from sqlalchemy import Connection, NullPool, create_engine, text

from flows.warehouse.connection import sqlalchemy_url
from migrations.operations import LOCK_TIMEOUT, STATEMENT_TIMEOUT
from migrations.record import checksum, has_checksums, rollback_script


def record_version(
    ctx: MigrationContext,
    step: MigrationInfo,
    heads: Collection[Any],  # noqa: ARG001
    run_args: Mapping[str, Any],  # noqa: ARG001
) -> None:
    """Keep the specifications' `schema_migrations(version, applied_at, rollback_sql)` in step."""
    version, connection = step.up_revision_id, ctx.connection
    assert version is not None
    assert connection is not None
    if step.is_upgrade:
        script = context.script.get_revision(version)
        connection.execute(
            text(
                "insert into app.schema_migrations (version, rollback_sql)"
                " values (:version, :rollback)"
            ),
            {"version": version, "rollback": rollback_script(script.module)},
        )
        if has_checksums(connection):
            record_checksums(connection)
    elif step.down_revision_ids:  # the first revision takes the table itself away
        connection.execute(
            text("delete from app.schema_migrations where version = :version"),
            {"version": version},
        )


def record_checksums(connection: Connection) -> None:
    """Keep the checksum of each migration in force that has none yet."""
    unknown = connection.execute(
        text("select version from app.schema_migrations where checksum is null")
    )
    for version in unknown.scalars().all():
        connection.execute(
            text("update app.schema_migrations set checksum = :sum where version = :version"),
            {"sum": checksum(context.script.get_revision(version)), "version": version},
        )


def run() -> None:
    """Connect as the settings say and migrate."""
    engine = create_engine(sqlalchemy_url(), poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"set lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text(f"set statement_timeout = '{STATEMENT_TIMEOUT}'"))
        connection.execute(text("create schema if not exists app"))
        connection.commit()
        context.configure(
            connection=connection,
            version_table_schema="app",
            transaction_per_migration=True,
            on_version_apply=record_version,
        )
        with context.begin_transaction():
            context.run_migrations()


run()
