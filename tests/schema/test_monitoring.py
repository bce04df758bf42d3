"""The monitoring views say what is so, on servers with and without pg_stat_statements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from flows.warehouse.connection import connect

VIEWS = (
    "slow_queries",
    "table_sizes",
    "partition_overview",
    "index_usage",
    "unused_indexes",
    "missing_indexes",
)

PLANTED = """
create table app.parents (id bigint primary key, tenant bigint, unique (id, tenant));
create table app.children (
    id bigint primary key,
    tenant bigint,
    bare bigint constraint children_bare references app.parents (id),
    partly bigint constraint children_partly references app.parents (id),
    covered bigint constraint children_covered references app.parents (id),
    pair bigint,
    second_pair bigint,
    third_pair bigint,
    constraint children_pair foreign key (pair, tenant) references app.parents (id, tenant),
    constraint children_second_pair
        foreign key (second_pair, tenant) references app.parents (id, tenant),
    constraint children_third_pair
        foreign key (third_pair, tenant) references app.parents (id, tenant)
);
create index children_partly_idx on app.children (partly) where partly > 10;
create index children_covered_idx on app.children (covered, id);
create index children_pair_idx on app.children (tenant, pair);
create index children_second_pair_idx on app.children (second_pair, id);
create index children_tenant_idx on app.children (tenant, id, third_pair);

create table app.readings (
    day date, value bigint, note text, parent bigint references app.parents (id)
) partition by range (day);
create table app.readings_default partition of app.readings default;
create table app.readings_2025_09 partition of app.readings
for values from ('2025-09-01') to ('2025-10-01');
create index readings_value on app.readings (value);
create unique index readings_note on app.readings (day, note);
insert into app.readings
select date '2025-09-01' + (number % 60), number, 'note ' || number
from generate_series(1, 5000) as numbers (number);
analyze app.readings;
"""


@pytest.fixture
def planted(database) -> Iterator[psycopg.Connection[Any]]:
    """An administrator's connection to a database with tables of known faults."""
    with connect(autocommit=True) as connection:
        connection.execute(PLANTED)
        yield connection


def rows(connection: psycopg.Connection[Any], query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()


def test_a_partitioned_tables_size_is_the_sum_of_its_partitions(planted) -> None:
    """Errata, table sizes: the specification's query says 0 for each partitioned table."""
    (found,) = rows(
        planted,
        "select partitions, estimated_rows, table_bytes, index_bytes, total_bytes, total_size"
        " from app.table_sizes where (schema_name, table_name) = ('app', 'readings')",
    )
    (expected,) = rows(
        planted,
        """
        select
            sum(pg_table_size(name))::bigint,
            sum(pg_indexes_size(name))::bigint,
            sum(pg_total_relation_size(name))::bigint
        from (values ('app.readings_2025_09'::regclass), ('app.readings_default')) as names (name)
        """,
    )
    assert found[:2] == (2, 5000)
    assert found[2:5] == expected
    assert expected[2] > 0
    assert found[5].endswith("kB")
    assert rows(
        planted,
        "select partitions from app.table_sizes where table_name = 'parents'",
    ) == [(0,)]
    assert not rows(
        planted,
        "select from app.table_sizes where table_name like 'readings_%' or schema_name ~ '^pg_'",
    )


def test_each_partition_is_shown_with_its_bounds(planted) -> None:
    found = rows(
        planted,
        "select partition_name, bounds, is_default, estimated_rows, total_bytes > 0"
        " from app.partition_overview where table_name = 'readings'",
    )
    inside = sum(1 for number in range(1, 5001) if number % 60 < 30)
    assert found == [
        (
            "readings_2025_09",
            "FOR VALUES FROM ('2025-09-01') TO ('2025-10-01')",
            False,
            inside,
            True,
        ),
        ("readings_default", "DEFAULT", True, 5000 - inside, True),
    ]


def test_a_foreign_key_without_an_index_is_missing_one(planted) -> None:
    """A partial index is none. One that begins with the columns in another order is one, and so
    is one that begins with what names the parent's row: `second_pair`, but not `tenant`.
    """
    found = rows(
        planted,
        "select constraint_name, column_names from app.missing_indexes"
        " where reason = 'foreign key' and table_name in ('children', 'readings')"
        " order by constraint_name",
    )
    assert found == [
        ("children_bare", ["bare"]),
        ("children_partly", ["partly"]),
        ("children_third_pair", ["third_pair", "tenant"]),
        ("readings_parent_fkey", ["parent"]),
    ]


def test_no_foreign_key_of_the_warehouse_lacks_an_index(database) -> None:
    with connect(autocommit=True) as connection:
        assert (
            rows(
                connection,
                "select schema_name, table_name, constraint_name from app.missing_indexes"
                " where reason = 'foreign key'",
            )
            == []
        )


def test_a_big_table_that_is_read_from_end_to_end_is_shown(planted) -> None:
    planted.execute(
        "create table app.big as select number, repeat('x', 200) as filler"
        " from generate_series(1, 40000) as numbers (number)"
    )
    planted.execute("set enable_indexscan = off; set max_parallel_workers_per_gather = 0")
    for _ in range(55):
        planted.execute("select count(*) from app.big where number = 7")
        planted.execute("select count(*) from app.parents")
    planted.execute("select pg_stat_force_next_flush()")
    assert rows(
        planted,
        "select table_name, seq_scan >= 55, seq_tup_read >= 55 * 40000, table_bytes > 8000000"
        " from app.missing_indexes where reason = 'sequential scans'",
    ) == [("big", True, True, True)]


def test_an_index_that_nobody_searches_is_shown_once_for_all_partitions(planted) -> None:
    unused = (
        "select index_name, serves_a_foreign_key from app.unused_indexes"
        " where table_name in ('children', 'readings') order by index_name"
    )
    before = [
        ("children_covered_idx", True),
        ("children_pair_idx", True),
        ("children_partly_idx", False),
        ("children_second_pair_idx", True),
        ("children_tenant_idx", False),
        ("readings_value", False),
    ]
    assert rows(planted, unused) == before
    sizes = rows(
        planted,
        "select index_bytes = (select sum(pg_relation_size(indexrelid))"
        " from pg_stat_user_indexes where indexrelname ~ '^readings.*_value_idx$')"
        " from app.unused_indexes where index_name = 'readings_value'",
    )
    assert sizes == [(True,)]

    planted.execute("set enable_seqscan = off; set enable_bitmapscan = off")
    planted.execute("select * from app.readings_2025_09 where value = 61")
    planted.execute("select pg_stat_force_next_flush()")
    assert rows(planted, unused) == before[:-1]
    used = rows(
        planted,
        "select table_name, idx_scan > 0 from app.index_usage"
        " where index_name ~ '^readings.*_value_idx$' order by table_name",
    )
    assert used == [("readings_2025_09", True), ("readings_default", False)]


def test_slow_queries_are_there_where_the_server_counts_them(planted) -> None:
    """Errata, pg_stat_statements.total_time: no such column, and an error without the extension."""
    ((counts,),) = rows(
        planted,
        "select exists (select from pg_extension where extname = 'pg_stat_statements')",
    )
    ((loads,),) = rows(
        planted, "select current_setting('shared_preload_libraries') ~ 'pg_stat_statements'"
    )
    assert counts == loads
    planted.execute("select count(*) as counted_for_the_test from app.readings")
    found = rows(
        planted,
        "select calls, rows, total_exec_time > 0, mean_exec_time <= max_exec_time"
        " from app.slow_queries where query like '%counted_for_the_test%' and calls > 0"
        " and query not like '%slow_queries%'",
    )
    assert found == ([(1, 1, True, True)] if counts else [])


def test_slow_queries_are_empty_without_the_extension(planted) -> None:
    planted.execute("drop extension if exists pg_stat_statements")
    assert rows(planted, "select * from app.slow_queries") == []


@pytest.mark.parametrize("view", VIEWS)
def test_the_upkeep_may_read_each_view_and_a_tenant_none(planted, view: str) -> None:
    ((options,),) = rows(
        planted, f"select reloptions from pg_class where oid = 'app.{view}'::regclass"
    )
    assert "security_invoker=true" in options
    with connect(role="etl", autocommit=True) as connection:
        connection.execute(f"select * from app.{view}")
    planted.execute("set role authenticated")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        planted.execute(f"select * from app.{view}")
    statistics = rows(planted, "select to_regclass('public.pg_stat_statements') is not null")
    if statistics == [(True,)]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            planted.execute("select * from public.pg_stat_statements")
