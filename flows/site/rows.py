"""How the pages read from the warehouse: as `etl`, in one moment, and only what is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg

from flows.errors import WarehouseError
from flows.warehouse.connection import connect
from flows.warehouse.rows import Row, is_there
from flows.warehouse.rows import rows as read

Session = psycopg.Connection[Any]


@contextmanager
def reading() -> Iterator[Session]:
    """A session that changes nothing and sees one moment, however long the pages take."""
    with connect(role="etl", application="warehouse site") as connection:
        connection.execute("set transaction isolation level repeatable read, read only")
        yield connection


def rows(
    session: Session, query: LiteralString, parameters: Mapping[str, Any] | None = None
) -> list[Row]:
    """The rows of a query by column.

    Raises:
        WarehouseError: something that dbt builds is not there, though other things are.
    """
    try:
        return read(session, query, parameters)
    except psycopg.errors.UndefinedTable as error:
        raise WarehouseError(
            "the site cannot be written",
            f"{str(error).splitlines()[0]}: a build of a part dropped what rests on it, or failed",
            "run `dbt build --project-dir dbt_project`, then again",
        ) from error


def rows_of(
    session: Session,
    relation: str,
    query: LiteralString,
    parameters: Mapping[str, Any] | None = None,
) -> list[Row]:
    """The rows of a query on something that dbt builds; none before the first build."""
    return rows(session, query, parameters) if is_there(session, relation) else []
