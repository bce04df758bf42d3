"""Reading by column: the one way in which reports, pages and explanations ask the warehouse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

Row = dict[str, Any]


def rows(
    connection: psycopg.Connection[Any],
    query: LiteralString | sql.SQL | sql.Composed,
    parameters: Mapping[str, Any] | Sequence[Any] | None = None,
) -> list[Row]:
    """The rows of a query, each by column."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, parameters or None).fetchall()


def is_there(connection: psycopg.Connection[Any], relation: str) -> bool:
    """Whether a table or view is there: before the first build dbt's are not."""
    row = connection.execute("select to_regclass(%s) is not null", (relation,)).fetchone()
    return row is not None and bool(row[0])
