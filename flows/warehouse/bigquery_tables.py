"""Moves tables between Postgres and BigQuery: landing there, small summaries back.

What landed goes month by month, and only the months in which another load is in force than the
copy in BigQuery has. Load jobs cost nothing, and each replaces its month in one step.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import IO, Any

import psycopg
import pyarrow as pa
from google.cloud import bigquery
from psycopg import sql

from flows.sources.bigquery_client import LABELS, BigQuery, talking_to_bigquery
from flows.warehouse.copying import copy_into

Connection = psycopg.Connection[Any]

REGISTER = "landing.sqp_slices"
DELIVERED = ("landing.sqp_asin", "landing.sqp_brand")
RECORDS = ("sqp.sync_log", "sqp.data_quality_checks")
READERS = "access.account_readers"
"""Whose address may read which account: in a dataset of its own, that no reader needs to see."""

BUILDS = "sqp.slice_builds"
"""What dbt notes on either side for itself: made there, and never copied."""

SMALL_SUMMARIES = (
    "account_months",
    "top_queries",
    "year_over_year_queries",
    "bleeding_queries",
    "ctr_deterioration",
    "share_anomalies",
)
"""The marts that dashboards read from Postgres, whose size is bounded by what they select."""

CLUSTERED = {
    REGISTER: ["account_id", "marketplace_id"],
    **{name: ["account_id", "marketplace_id", "slice_id"] for name in DELIVERED},
}

TYPES = {
    "bigint": "INT64",
    "integer": "INT64",
    "smallint": "INT64",
    "numeric": "NUMERIC",
    "double precision": "FLOAT64",
    "boolean": "BOOL",
    "date": "DATE",
    "timestamp with time zone": "TIMESTAMP",
    "bytea": "BYTES",
    "jsonb": "JSON",
}
"""GoogleSQL's type for each of Postgres's; every other becomes STRING."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """A column of a table: its name and its type in Postgres, without parameters."""

    name: str
    kind: str

    @property
    def field(self) -> bigquery.SchemaField:
        """The same in BigQuery."""
        return bigquery.SchemaField(self.name, TYPES.get(self.kind, "STRING"))

    @property
    def as_text(self) -> sql.Composable:
        """How a CSV of BigQuery has it: bytes in base 64, in one line."""
        name = sql.Identifier("stored", self.name)
        if self.kind == "bytea":
            return sql.SQL("translate(encode({}, 'base64'), E'\\n', '')").format(name)
        return name


@dataclass(frozen=True)
class Published:
    """What became of one table."""

    table: str
    rows: int
    parts: int


def publish_landing(
    client: BigQuery, connection: Connection, *, with_readers: bool = False
) -> list[Published]:
    """Bring BigQuery's copy of what is in force up to date.

    A run that dies is made good by the next: the register goes last.

    Args:
        with_readers: also which tenant may read which account, for row access policies.

    Raises:
        BigQueryError: BigQuery refused or failed; months that were loaded stay.
    """
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        connection.execute("set local time zone 'UTC'")
        for name in (*DELIVERED, REGISTER, *RECORDS, BUILDS):
            _ensure_table(client, name, _columns(connection, name))
        known = _months_there(client)
        done = [_publish_readers(client, connection)] if with_readers else []
        for name in DELIVERED:
            view = name.rpartition("_")[2]
            months = _months_here(connection, view)
            stale = sorted(month for month in months if months[month] != known.get((view, month)))
            rows = sum(_load_month(client, connection, name, month) for month in stale)
            done.append(Published(name, rows, len(stale)))
        done += [
            Published(name, _load_whole(client, connection, name), 1)
            for name in (*RECORDS, REGISTER)
        ]
    return done


def _publish_readers(client: BigQuery, connection: Connection) -> Published:
    """Which address may read which account: the tenants of `app.sqp_accounts` who are there."""
    columns = [Column("account_id", "text"), Column("email", "text")]
    _ensure_table(client, READERS, columns)
    select = sql.SQL(
        "select accounts.account_id, lower(users.email) from app.sqp_accounts as accounts"
        " inner join app.users as users on accounts.user_id = users.id"
        " where users.deleted_at is null"
    )
    return Published(READERS, _load(client, connection, READERS, columns, select), 1)


def publish_summaries(
    client: BigQuery, connection: Connection, names: Sequence[str] = SMALL_SUMMARIES
) -> list[Published]:
    """Bring Postgres's small summaries to what BigQuery computed; rows that are equal stay.

    Readers see each table before or after, never between.
    """
    done = []
    for name in names:
        build = "build it first: `uv run dbt build --project-dir dbt_project --target bigquery`"
        with talking_to_bigquery(f"sqp.{name} in BigQuery", if_missing=build):
            query = f"select * from `{client.rest.project}.sqp.{name}`"  # noqa: S608 - ours
            rows = client.rows(client.start(query))
            arrow = rows.to_arrow(bqstorage_client=client.storage)
        done.append(_replace(connection, name, arrow))
    return done


def _replace(connection: Connection, name: str, rows: pa.Table) -> Published:
    table = sql.Identifier("sqp", name)
    with connection.transaction():
        layout = _columns(connection, f"sqp.{name}")
        columns = [column.name for column in layout]
        connection.execute(
            sql.SQL("create temporary table published (like {}) on commit drop").format(table)
        )
        compared = [column for column in columns if column != "updated_at"]
        came = sql.SQL(", ").join(sql.Identifier("came", column) for column in compared)
        held = sql.SQL(", ").join(sql.Identifier("held", column) for column in compared)
        copy_into(connection, sql.Identifier("published"), _typed(rows, layout))
        gone = connection.execute(
            sql.SQL(
                "delete from {table} as held where not exists (select from published as came"
                " where ({came}) is not distinct from ({held}))"
            ).format(table=table, came=came, held=held)
        ).rowcount
        new = connection.execute(
            sql.SQL(
                "insert into {table} ({columns}) select {columns} from published as came"
                " where not exists (select from {table} as held"
                " where ({came}) is not distinct from ({held}))"
            ).format(
                table=table,
                columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
                came=came,
                held=held,
            )
        ).rowcount
    return Published(f"sqp.{name}", rows.num_rows, gone + new)


ARROW = {"integer": pa.int32(), "bigint": pa.int64(), "numeric": pa.decimal128(38, 9)}
"""What binary COPY takes for Postgres's numbers; all else comes as it is needed."""


def _typed(rows: pa.Table, layout: Sequence[Column]) -> pa.Table:
    """The rows in the table's order and with its types."""
    columns = [rows.column(column.name) for column in layout]
    return pa.table(
        [
            values.cast(ARROW.get(column.kind, values.type))
            for column, values in zip(layout, columns, strict=True)
        ],
        names=[column.name for column in layout],
    )


def _columns(connection: Connection, name: str) -> list[Column]:
    schema, _, table = name.partition(".")
    rows = connection.execute(
        """
        select column_name, data_type
        from information_schema.columns
        where table_schema = %s and table_name = %s
        order by ordinal_position
        """,
        (schema, table),
    ).fetchall()
    return [Column(*row) for row in rows]


def _reference(client: BigQuery, name: str, suffix: str = "") -> str:
    return f"{client.rest.project}.{name}{suffix}"


def _ensure_table(client: BigQuery, name: str, columns: Iterable[Column]) -> None:
    with talking_to_bigquery(name):
        dataset = bigquery.Dataset(_reference(client, name.partition(".")[0]))
        dataset.location = client.location
        client.rest.create_dataset(dataset, exists_ok=True, retry=client.retry)
        table = bigquery.Table(_reference(client, name), [column.field for column in columns])
        table.clustering_fields = CLUSTERED.get(name)
        table.labels = {"application": "warehouse"}
        if name in DELIVERED:
            table.time_partitioning = bigquery.TimePartitioning(
                type_=bigquery.TimePartitioningType.MONTH, field="period_start"
            )
        client.rest.create_table(table, exists_ok=True, retry=client.retry)


Force = tuple[int, int]
"""Slices in force of a month, and the sum of their load ids."""


def _months_here(connection: Connection, view: str) -> dict[date, Force]:
    rows = connection.execute(
        """
        select date_trunc('month', period_start)::date, count(*), sum(accepted_load_id)::bigint
        from landing.sqp_slices
        where report_view = %s and accepted_load_id is not null
        group by 1
        """,
        (view,),
    ).fetchall()
    return {month: (slices, loads) for month, slices, loads in rows}


def _months_there(client: BigQuery) -> dict[tuple[str, date], Force]:
    query = f"""
        select report_view, date_trunc(period_start, month) as month, count(*) as slices,
            sum(accepted_load_id) as loads
        from `{_reference(client, REGISTER)}`
        where accepted_load_id is not null
        group by report_view, month
    """  # noqa: S608 - a name of ours
    with talking_to_bigquery(REGISTER):
        return {
            (row["report_view"], row["month"]): (row["slices"], row["loads"])
            for row in client.rows(client.start(query))
        }


def _load_month(client: BigQuery, connection: Connection, name: str, month: date) -> int:
    """Replace a month of what was delivered by the rows in force."""
    condition = sql.SQL(
        " inner join landing.sqp_slices as slices"
        " on stored.slice_id = slices.slice_id and stored.load_id = slices.accepted_load_id"
        " where stored.period_start >= {first} and stored.period_start < {first} + interval"
        " '1 month'"
    ).format(first=sql.Literal(month))
    columns = _columns(connection, name)
    select = _select(name, columns, condition)
    return _load(client, connection, name, columns, select, suffix=f"${month:%Y%m}")


def _load_whole(client: BigQuery, connection: Connection, name: str) -> int:
    columns = _columns(connection, name)
    return _load(client, connection, name, columns, _select(name, columns, sql.SQL("")))


def _select(name: str, columns: Sequence[Column], condition: sql.Composable) -> sql.Composable:
    return sql.SQL("select {columns} from {table} as stored{condition}").format(
        columns=sql.SQL(", ").join(column.as_text for column in columns),
        table=sql.Identifier(*name.split(".")),
        condition=condition,
    )


def _load(
    client: BigQuery,
    connection: Connection,
    name: str,
    columns: Sequence[Column],
    select: sql.Composable,
    suffix: str = "",
) -> int:
    """Replace a table, or a partition of it, by the rows of a query on Postgres."""
    with tempfile.TemporaryFile() as file:
        _write_csv(connection, select, file)
        file.seek(0)
        config = bigquery.LoadJobConfig(
            schema=[column.field for column in columns],
            source_format=bigquery.SourceFormat.CSV,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            allow_quoted_newlines=True,
            null_marker="\\N",
            labels=LABELS,
        )
        with talking_to_bigquery(name):
            job = client.rest.load_table_from_file(
                file, _reference(client, name, suffix), job_config=config, num_retries=3
            )
            job.result(retry=client.retry)
    rows = int(job.output_rows or 0)
    log.info("%s%s: %s rows loaded into BigQuery", name, suffix, f"{rows:,}")
    return rows


def _write_csv(connection: Connection, select: sql.Composable, file: IO[bytes]) -> None:
    statement = sql.SQL("copy ({select}) to stdout (format csv, null '\\N')").format(select=select)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for chunk in copy:
            file.write(chunk)
