"""What every revision needs: to run its SQL as it stands, as the role that owns the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alembic import op

OWNER = "app_owner"
LOCK_TIMEOUT = "5s"
"""How long a migration waits for a lock, before it gives way to whoever holds it."""
STATEMENT_TIMEOUT = "15min"
REMOVE_GENERATED = "select private.drop_generated_objects();"


def run_sql(statements: str) -> None:
    """Run a script of several statements as written: `:` and `%` mean themselves."""
    connection = op.get_bind()
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute(statements)


def run_as_owner(statements: str) -> None:
    """Run a script as the owner of the tables, so that what it makes belongs to that role."""
    run_sql(f"set local role {OWNER}")
    run_sql(statements)
    run_sql("set local role none")


def roll_back(statements: str) -> None:
    """Take a revision back, first of all the generated objects, which may refer to it."""
    run_sql(f"{REMOVE_GENERATED}\n{statements}")


@dataclass(frozen=True)
class ConcurrentIndex:
    """An index that is made while the table is read and written.

    Attributes:
        table: schema and name; of a partitioned table each partition gets its index, one by one.
        name: the index's name, without schema.
        columns: what stands between the parentheses.
    """

    table: str
    name: str
    columns: str

    @property
    def column_names(self) -> list[str]:
        """The columns alone: PostgreSQL names the index of a partition after them."""
        return [column.split()[0] for column in self.columns.split(", ")]

    @property
    def drop(self) -> str:
        """The SQL that takes the index away, in a transaction."""
        return f"drop index if exists {self.table.split('.')[0]}.{self.name};"


def create_concurrently(index: ConcurrentIndex) -> None:
    """Make an index without keeping writers out; safe to repeat after it was broken off.

    It runs outside of a transaction: what an attempt that was broken off has left invalid is
    dropped first, what is complete is left as it is.
    """
    with op.get_context().autocommit_block():
        connection = op.get_bind().connection.driver_connection
        assert connection is not None
        connection.execute(f"set role {OWNER}")
        # It waits for every snapshot that is older than itself, and keeps nobody out meanwhile.
        connection.execute("set lock_timeout = 0")
        connection.execute("set statement_timeout = 0")
        schema = index.table.split(".")[0]
        partitions = _partitions(connection, index.table)
        if partitions is None:
            _build(connection, schema, index.name, index.table, index.columns)
        else:
            connection.execute(
                f"create index if not exists {index.name} on only {index.table} ({index.columns})"
            )
            for partition in partitions:
                name = "_".join([partition, *index.column_names, "idx"])[:63]
                _build(connection, schema, name, f"{schema}.{partition}", index.columns)
                connection.execute(
                    f"alter index {schema}.{index.name} attach partition {schema}.{name}"
                )
        connection.execute(f"set lock_timeout = '{LOCK_TIMEOUT}'")
        connection.execute(f"set statement_timeout = '{STATEMENT_TIMEOUT}'")
        connection.execute("reset role")


def _partitions(connection: Any, table: str) -> list[str] | None:
    """The names of a table's partitions; None for a table without."""
    (kind,) = connection.execute(
        "select relkind::text from pg_catalog.pg_class where oid = %s::regclass", (table,)
    ).fetchone()
    if kind != "p":
        return None
    found = connection.execute(
        "select relname from pg_catalog.pg_inherits"
        " inner join pg_catalog.pg_class on pg_class.oid = inhrelid"
        " where inhparent = %s::regclass order by relname",
        (table,),
    )
    return [name for (name,) in found.fetchall()]


def _build(connection: Any, schema: str, name: str, table: str, columns: str) -> None:
    broken = connection.execute(
        "select from pg_catalog.pg_index where indexrelid = to_regclass(%s) and not indisvalid",
        (f"{schema}.{name}",),
    ).fetchone()
    if broken is not None:
        connection.execute(f"drop index concurrently {schema}.{name}")
    connection.execute(f"create index concurrently if not exists {name} on {table} ({columns})")
