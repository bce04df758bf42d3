"""A list of words is the same in the database, in Python and in the documentation."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from flows.settings import Connection
from flows.vocabulary import all_lists
from flows.warehouse.connection import connect
from tests.schema.built import Dbt, dbt, manifest  # noqa: F401

ONE_OF = re.compile(
    r"CHECK \(+(\w+)\)?(?:::text)? = ANY \(+ARRAY\[(?P<words>[^]]*)\]\)?(?:::text\[\])?\)+"
)

TOLD_ELSEWHERE = {
    "landing.sqp_asin.period_type": "landing.sqp_slices.period_type",
    "landing.sqp_brand.period_type": "landing.sqp_slices.period_type",
}
"""Columns of millions of rows, which dbt would read whole in every sync."""


def lists_of_the_database(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """Each column of an enum type or with a CHECK that lists words, and those words in order."""
    types = connection.execute(
        """
        select
            format('%s.%s.%s', namespaces.nspname, tables.relname, columns.attname),
            array_agg(enums.enumlabel::text order by enums.enumsortorder)
        from pg_attribute as columns
        inner join pg_class as tables on columns.attrelid = tables.oid
        inner join pg_namespace as namespaces on tables.relnamespace = namespaces.oid
        inner join pg_enum as enums on columns.atttypid = enums.enumtypid
        where
            tables.relkind in ('r', 'p')
            and not tables.relispartition
            and namespaces.nspname in ('app', 'landing', 'sqp', 'reporting')
        group by 1
        """
    ).fetchall()
    checks = connection.execute(
        """
        select
            format('%s.%s.%s', namespaces.nspname, tables.relname, columns.attname),
            pg_get_constraintdef(constraints.oid)
        from pg_constraint as constraints
        inner join pg_class as tables on constraints.conrelid = tables.oid
        inner join pg_namespace as namespaces on tables.relnamespace = namespaces.oid
        inner join pg_attribute as columns
            on tables.oid = columns.attrelid and constraints.conkey = array[columns.attnum]
        where
            constraints.contype = 'c'
            and not tables.relispartition
            and namespaces.nspname in ('app', 'landing', 'sqp', 'reporting')
            and pg_get_constraintdef(constraints.oid) like '%= ANY (%'
        """
    ).fetchall()
    lists = dict(types)
    for column, definition in checks:
        found = ONE_OF.fullmatch(definition)
        assert found, f"{column}: not a plain list of words: {definition}"
        assert column not in lists, f"{column} is bounded twice"
        lists[column] = found["words"].split("'")[1::2]
    return lists


def lists_of_the_docs(dbt: Dbt) -> dict[str, list[str]]:  # noqa: F811
    """Each column of a table whose accepted values are declared, and those values."""
    read = manifest(dbt)
    lists = {}
    for node in read["nodes"].values():
        if (node.get("test_metadata") or {}).get("name") != "accepted_values":
            continue
        source = read["sources"].get(node["depends_on"]["nodes"][0])
        if source and "view" not in source["config"]["meta"]:
            column = f"{source['schema']}.{source['identifier']}.{node['column_name']}"
            lists[column] = node["test_metadata"]["kwargs"]["values"]
    return lists


def in_order(lists: dict[str, list[str]]) -> dict[str, list[str]]:
    return {column: sorted(words) for column, words in lists.items()}


def test_the_database_and_python_list_the_same_words(database: Connection) -> None:
    with connect(autocommit=True) as connection:
        held = lists_of_the_database(connection)
    written = {column: [str(word) for word in words] for column, words in all_lists().items()}
    assert in_order(written) == in_order(held)


def test_the_database_and_the_documentation_list_the_same_words(
    database: Connection,
    dbt: Dbt,  # noqa: F811
) -> None:
    dbt("parse")
    with connect(autocommit=True) as connection:
        held = lists_of_the_database(connection)
    told = lists_of_the_docs(dbt)
    told |= {column: told[other] for column, other in TOLD_ELSEWHERE.items()}
    assert in_order(told) == in_order(held)


def test_a_list_that_grows_in_the_database_alone_is_found(database: Connection) -> None:
    with connect(autocommit=True) as connection:
        before = lists_of_the_database(connection)
        connection.execute("alter type app.platform_type add value 'another_ads'")
        connection.execute("alter table app.workflows drop constraint workflows_status_check")
        connection.execute("alter table app.ads add check (name in ('one', 'two'))")
        after = lists_of_the_database(connection)
    assert {column for column in before if after.get(column) != before[column]} == {
        "app.user_api_credentials.platform",
        "app.platform_assets.platform",
        "app.campaigns.platform",
        "app.api_rate_limits.platform",
        "app.workflows.status",
    }
    assert after["app.ads.name"] == ["one", "two"]
