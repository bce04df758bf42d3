"""Copies Arrow tables into Postgres."""

from __future__ import annotations

from typing import Any

import psycopg
import pyarrow as pa
from pgpq import ArrowToPostgresBinaryEncoder
from psycopg import sql

from flows.warehouse.faults import die_here_if_asked
from flows.warehouse.threads import one_ahead

COPY_ROWS = 4_096


def copy_into(connection: psycopg.Connection[Any], table: sql.Identifier, rows: pa.Table) -> None:
    """Binary COPY of an Arrow table into a Postgres table with columns of the same names."""
    encoder = ArrowToPostgresBinaryEncoder(rows.schema)
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(encoder.write_header())
        batches = rows.combine_chunks().to_batches(max_chunksize=COPY_ROWS)
        for encoded in one_ahead(map(encoder.write_batch, batches)):
            copy.write(encoded)
            die_here_if_asked("mid_copy")
        copy.write(encoder.finish())
