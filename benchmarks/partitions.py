"""Loading metrics into monthly partitions against one table, and dropping a month against DELETE.

The one table is the twin of `app.campaign_metrics`: the same columns, checks, keys, foreign key,
indexes and triggers, and no partitions. Both are loaded by `etl` with the same binary COPY, in
turn.
"""

from __future__ import annotations

import time
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.isolation import plant_campaigns
from benchmarks.server import fresh_database
from flows.warehouse import policies
from flows.warehouse.connection import connect

MONTHS = 24
TENANTS = 100
PARTITIONED, TWIN = "app.campaign_metrics", "bench.campaign_metrics"
ORDERS = {"by day": ("days.day, campaigns.id", 3), "by campaign": ("campaigns.id, days.day", 1)}
"""How the rows come, and how many rounds are measured."""

MAKE_TWIN = """
create schema bench;
grant usage on schema bench to app_owner, etl;
create table bench.campaign_metrics (like app.campaign_metrics including all);
alter table bench.campaign_metrics owner to app_owner;
alter table bench.campaign_metrics add foreign key (campaign_id, user_id)
references app.campaigns (id, user_id) on update cascade on delete cascade;
grant select, insert, update, delete on bench.campaign_metrics to etl;
do $do$
declare
    definition text;
begin
    for definition in
        select replace(pg_get_triggerdef(oid), ' ON app.', ' ON bench.')
        from pg_trigger
        where tgrelid = 'app.campaign_metrics'::regclass and not tgisinternal
    loop
        execute definition;
    end loop;
end;
$do$;
"""

ROWS = """
copy (
    select
        campaigns.id, campaigns.user_id, days.day::date, 1000 + days.number, days.number,
        (days.number / 10.0)::numeric(18, 4), (days.number / 7.0)::numeric(15, 4)
    from app.campaigns cross join generate_series(
        {first_day}, {last_day}, interval '1 day'
    ) with ordinality as days (day, number)
    order by {order}
    limit {rows}
) to stdout (format binary)
"""
LOAD = """
copy {table} (campaign_id, user_id, date, impressions, clicks, conversions, spend_amount)
from stdin (format binary)
"""

RETAIN = """
update app.table_policies
set retention_key = 'date', retention_keep = '1 month'
where relation = 'app.campaign_metrics'
"""
PARTITION_OF = """
select partition_table::text
from app.partition_bounds('app.campaign_metrics')
where lower_bound = %s
"""
DROP = "alter table app.campaign_metrics detach partition {partition}; drop table {partition}"
DELETE = "delete from {table} where date >= {first_day} and date < {end}"

COUNT = "select count(*) from {table}"
SIZE = """
select sum(pg_total_relation_size(relations.relid))
from (
    select %(table)s::regclass as relid
    union
    select relid from pg_partition_tree(%(table)s)
) as relations
"""


def run(folder: Path, rows: int) -> dict[str, Any]:
    """Load so many rows into 24 months and into the twin; then drop a month, and delete one."""
    with fresh_database(), connect(autocommit=True) as connection:
        policies.ensure_policies()
        campaigns = -(-rows // (MONTHS * 30))
        plant_campaigns(connection, TENANTS, -(-campaigns // TENANTS))
        connection.execute(MAKE_TWIN)
        connection.execute("vacuum (analyze)")
        loads = [measure_loads(connection, folder / "metrics.bin", rows, order) for order in ORDERS]
        return {"rows": rows, "loads": loads, "removals": measure_removals(connection)}


def months(connection: psycopg.Connection[Any]) -> list[date]:
    """The first day of each of the months that are loaded, oldest first, and of the current one."""
    found = connection.execute(
        """
        select (date_trunc('month', current_date) - number * interval '1 month')::date
        from generate_series(%s, 0, -1) as numbers (number)
        """,
        (MONTHS,),
    )
    return [first_day for (first_day,) in found.fetchall()]


def measure_loads(
    connection: psycopg.Connection[Any], file: Path, rows: int, order: str
) -> dict[str, Any]:
    """Seconds of each table's load, in turn; the last round stays, of both."""
    order_by, rounds = ORDERS[order]
    first_days = months(connection)
    text = sql.SQL(ROWS).format(
        first_day=first_days[0],
        last_day=first_days[-1] - timedelta(days=1),
        order=sql.SQL(order_by),
        rows=rows,
    )
    with file.open("wb") as out, connection.cursor() as cursor, cursor.copy(text) as copy:
        out.writelines(copy)
    seconds: dict[str, list[float]] = {PARTITIONED: [], TWIN: []}
    truncate = sql.SQL("truncate {}")
    for number in range(rounds):
        for table in (PARTITIONED, TWIN):
            connection.execute(truncate.format(sql.SQL(table)))
        for table in (PARTITIONED, TWIN) if number % 2 else (TWIN, PARTITIONED):
            connection.execute("checkpoint")
            seconds[table].append(load(file, table))
            if number < rounds - 1:
                connection.execute(truncate.format(sql.SQL(table)))
    file.unlink()
    stray = connection.execute("select rows from app.default_partition_rows() where rows > 0")
    assert stray.fetchall() == []
    return {
        "order": order,
        "rounds": rounds,
        "partitioned_s": median(seconds[PARTITIONED]),
        "twin_s": median(seconds[TWIN]),
        "ratio": median(seconds[PARTITIONED]) / median(seconds[TWIN]),
    }


def load(file: Path, table: str) -> float:
    """Seconds of a COPY of the file by `etl`, with its commit."""
    with connect(role="etl") as connection:
        started = time.perf_counter()
        with (
            file.open("rb") as rows,
            connection.cursor() as cursor,
            cursor.copy(sql.SQL(LOAD).format(table=sql.SQL(table))) as copy,
        ):
            while block := rows.read(1 << 18):
                copy.write(block)
        connection.commit()
        return time.perf_counter() - started


def measure_removals(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Four ways to be rid of a month; the last is what all are compared with."""
    connection.execute(RETAIN)
    first_days = months(connection)
    retention = sql.SQL("select app.apply_retention(false, {}, 'app.campaign_metrics')")
    dropped = connection.execute(PARTITION_OF, (first_days[1],)).fetchone()
    assert dropped is not None
    ways = [
        (
            "`app.apply_retention`, which counts the table's rows before and after",
            PARTITIONED,
            retention.format(first_days[2]),
        ),
        (
            "detach and drop its partition",
            PARTITIONED,
            sql.SQL(DROP).format(partition=sql.SQL(dropped[0])),
        ),
        (
            "DELETE from its partition",
            PARTITIONED,
            sql.SQL(DELETE).format(
                table=sql.SQL(PARTITIONED), first_day=first_days[2], end=first_days[3]
            ),
        ),
        (
            "DELETE from one table",
            TWIN,
            sql.SQL(DELETE).format(table=sql.SQL(TWIN), first_day=first_days[2], end=first_days[3]),
        ),
    ]
    return [measure_removal(connection, *way) for way in ways]


def measure_removal(
    connection: psycopg.Connection[Any],
    way: str,
    table: str,
    statement: sql.Composed,
) -> dict[str, Any]:
    """Seconds of a statement with its commit, and the bytes that it gives back: at once, and once
    the table has been vacuumed, which only a DELETE needs.
    """
    before = held(connection, table)
    connection.execute("checkpoint")
    seconds = timed(connection, statement)
    after = held(connection, table)
    vacuum_s = None
    if way.startswith("DELETE"):
        vacuum_s = timed(connection, sql.SQL("vacuum {}").format(sql.SQL(table)))
    vacuumed = held(connection, table)
    return {
        "way": way,
        "rows": before[0] - after[0],
        "seconds": seconds,
        "vacuum_s": vacuum_s,
        "bytes_at_once": before[1] - after[1],
        "bytes_after_vacuum": before[1] - vacuumed[1],
    }


def timed(connection: psycopg.Connection[Any], statement: sql.Composed) -> float:
    """Seconds of a statement with its commit."""
    started = time.perf_counter()
    connection.execute(statement)
    return time.perf_counter() - started


def held(connection: psycopg.Connection[Any], table: str) -> tuple[int, int]:
    """Rows and bytes of a table, with its indexes and partitions."""
    rows = connection.execute(sql.SQL(COUNT).format(table=sql.SQL(table))).fetchone()
    size = connection.execute(SIZE, {"table": table}).fetchone()
    assert rows is not None
    assert size is not None
    return rows[0], int(size[0])
