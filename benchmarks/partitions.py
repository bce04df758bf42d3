"""Loading metrics into monthly partitions against one table, and dropping a month against DELETE.

The one table is the twin of `app.campaign_metrics`: the same columns, checks, keys, foreign key,
indexes and triggers, and no partitions. Both are loaded by `etl` with the same binary COPY, in
turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks.isolation import plant_campaigns
from benchmarks.server import fresh_database
from flows.warehouse import policies
from flows.warehouse.connection import connect

MONTHS = 24
TENANTS = 100
PARTITIONED, TWIN = "app.campaign_metrics", "bench.campaign_metrics"
ORDERS = {"by day": ("days.day, campaigns.id", 3), "by campaign": ("campaigns.id, days.day", 1)}
"""How the rows come, and how many rounds are measured."""

FIRST_MONTH = f"(date_trunc('month', current_date) - interval '{MONTHS} months')"

MAKE_TWIN = f"""
create schema bench;
grant usage on schema bench to app_owner, etl;
create table {TWIN} (like {PARTITIONED} including all);
alter table {TWIN} owner to app_owner;
alter table {TWIN} add foreign key (campaign_id, user_id) references app.campaigns (id, user_id)
on update cascade on delete cascade;
grant select, insert, update, delete on {TWIN} to etl;
do $do$
declare
    definition text;
begin
    for definition in
        select replace(pg_get_triggerdef(oid), ' ON {PARTITIONED} ', ' ON {TWIN} ')
        from pg_trigger
        where tgrelid = '{PARTITIONED}'::regclass and not tgisinternal
    loop
        execute definition;
    end loop;
end;
$do$;
"""

ROWS = f"""
copy (
    select
        campaigns.id, campaigns.user_id, days.day::date, 1000 + days.number, days.number,
        (days.number / 10.0)::numeric(18, 4), (days.number / 7.0)::numeric(15, 4)
    from app.campaigns cross join generate_series(
        {FIRST_MONTH}, date_trunc('month', current_date) - interval '1 day', interval '1 day'
    ) with ordinality as days (day, number)
    order by {{order}}
    limit {{rows}}
) to stdout (format binary)
"""
COLUMNS = "campaign_id, user_id, date, impressions, clicks, conversions, spend_amount"

SIZE = "select sum(pg_total_relation_size(relid)) from pg_partition_tree(%s::regclass)"


def run(folder: Path, rows: int) -> dict[str, Any]:
    """Load so many rows into 24 months and into the twin; then drop a month, and delete one."""
    with fresh_database(), connect(autocommit=True) as connection:
        policies.ensure_policies()
        campaigns = -(-rows // (MONTHS * 30))
        plant_campaigns(connection, TENANTS, -(-campaigns // TENANTS))
        connection.execute(MAKE_TWIN)
        connection.execute("vacuum (analyze)")
        loads = [
            measure_loads(connection, folder / "metrics.bin", rows, order) for order in ORDERS
        ]
        return {"rows": rows, "loads": loads, "removals": measure_removals(connection)}


def measure_loads(
    connection: psycopg.Connection[Any], file: Path, rows: int, order: str
) -> dict[str, Any]:
    """Seconds of each table's load, in turn; the last round stays, of both."""
    order_by, rounds = ORDERS[order]
    text = ROWS.format(order=order_by, rows=rows)
    with file.open("wb") as out, connection.cursor() as cursor, cursor.copy(text) as copy:
        out.writelines(copy)
    seconds: dict[str, list[float]] = {PARTITIONED: [], TWIN: []}
    for number in range(rounds):
        connection.execute(f"truncate {PARTITIONED}, {TWIN}")
        for table in (PARTITIONED, TWIN) if number % 2 else (TWIN, PARTITIONED):
            connection.execute("checkpoint")
            seconds[table].append(load(file, table))
            if number < rounds - 1:
                connection.execute(f"truncate {table}")
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
            cursor.copy(f"copy {table} ({COLUMNS}) from stdin (format binary)") as copy,
        ):
            while block := rows.read(1 << 18):
                copy.write(block)
        connection.commit()
        return time.perf_counter() - started


def measure_removals(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Four ways to be rid of a month, each the oldest that its table still has."""
    connection.execute(
        "update app.table_policies set retention_key = 'date', retention_keep = '1 month'"
        f" where relation = '{PARTITIONED}'"
    )
    ways = [
        (
            "app.apply_retention, which counts the table before and after",
            PARTITIONED,
            f"select app.apply_retention(false, {FIRST_MONTH} + interval '2 months',"
            f" '{PARTITIONED}')",
        ),
        ("detach and drop the partition", PARTITIONED, drop_oldest(connection, 1)),
        ("DELETE from the partition", PARTITIONED, delete_month(PARTITIONED, 2)),
        ("DELETE from the one table", TWIN, delete_month(TWIN, 2)),
    ]
    return [measure_removal(connection, *way) for way in ways]


def drop_oldest(connection: psycopg.Connection[Any], months_after: int) -> str:
    """What retention does to the partition of a month."""
    row = connection.execute(
        "select partition_table::text from app.partition_bounds(%s::regclass)"
        f" where lower_bound = {FIRST_MONTH} + %s * interval '1 month'",
        (PARTITIONED, months_after),
    ).fetchone()
    assert row is not None
    return f"alter table {PARTITIONED} detach partition {row[0]}; drop table {row[0]}"


def delete_month(table: str, months_after: int) -> str:
    """The DELETE of a month's rows."""
    first = f"{FIRST_MONTH} + interval '{months_after} months'"
    return f"delete from {table} where date >= {first} and date < {first} + interval '1 month'"


def measure_removal(
    connection: psycopg.Connection[Any], name: str, table: str, statement: str
) -> dict[str, Any]:
    """Seconds of a statement with its commit, and the bytes that it gives back: at once, and once
    the table has been vacuumed.
    """
    before = held(connection, table)
    connection.execute("checkpoint")
    with timed() as removal:
        connection.execute(statement)
    after = held(connection, table)
    with timed() as vacuum:
        if statement.startswith("delete"):
            connection.execute(f"vacuum {table}")
    vacuumed = held(connection, table)
    return {
        "way": name,
        "rows": before[0] - after[0],
        "seconds": removal[0],
        "vacuum_s": vacuum[0] if statement.startswith("delete") else 0.0,
        "bytes_at_once": before[1] - after[1],
        "bytes_after_vacuum": before[1] - vacuumed[1],
    }


@contextmanager
def timed() -> Iterator[list[float]]:
    """A list that holds the seconds of the block, once that is over."""
    seconds: list[float] = []
    started = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - started)


def held(connection: psycopg.Connection[Any], table: str) -> tuple[int, int]:
    """Rows and bytes of a table, with its indexes and partitions."""
    rows = connection.execute(f"select count(*) from {table}").fetchone()
    size = connection.execute(SIZE, (table,)).fetchone()
    assert rows is not None
    assert size is not None
    return rows[0], int(size[0])
