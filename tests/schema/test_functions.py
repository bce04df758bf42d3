"""Every function of the warehouse is sound, explained, and looks names up where it should."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from flows.settings import Connection
from flows.warehouse.connection import connect
from tests.schema.built import built, dbt  # noqa: F401

OURS = "('app', 'landing', 'sqp', 'reporting', 'private')"
WITHOUT_CHECKER = (
    "the server does not have the extension plpgsql_check: Debian and Ubuntu have it for version 15"
    " as the package postgresql-15-plpgsql-check"
)

FUNCTIONS = f"""
select functions.*
from pg_proc as functions
inner join pg_namespace as namespaces on functions.pronamespace = namespaces.oid
where
    namespaces.nspname in {OURS}
    and not exists (
        select
        from pg_depend
        where
            pg_depend.objid = functions.oid
            and pg_depend.deptype = 'e'
    )
"""

CHECKED = f"""
with ours as ({FUNCTIONS}),

calls as (
    select
        ours.oid as function_oid,
        0::oid as table_oid,
        null::name as old_table,
        null::name as new_table
    from ours
    inner join pg_language as languages on ours.prolang = languages.oid
    where languages.lanname = 'plpgsql' and ours.prorettype <> 'trigger'::regtype
    union
    select triggers.tgfoid, triggers.tgrelid, triggers.tgoldtable, triggers.tgnewtable
    from pg_trigger as triggers
    inner join ours on triggers.tgfoid = ours.oid
    where not triggers.tgisinternal and triggers.tgparentid = 0
)
"""

FINDINGS = f"""
{CHECKED}
select
    calls.function_oid::regprocedure::text, nullif(calls.table_oid, 0)::regclass::text,
    findings.level, findings.lineno, findings.message
from calls
cross join lateral plpgsql_check_function_tb(
    calls.function_oid, calls.table_oid, fatal_errors => false,
    oldtable => calls.old_table, newtable => calls.new_table
) as findings
where
    coalesce(findings.detail, '') not like '%result of dynamic SQL%'
    -- One function serves four events: each branch reads the transition table of its own.
    and not (
        calls.function_oid::regprocedure::text like '%update_aggregate_summaries()'
        and findings.message ~ '^relation "(old|new)_weeks" does not exist$'
    )
"""

STATEMENTS_FROM_PARTS = f"""
{CHECKED}
select distinct functions.proname::text
from calls
inner join pg_proc as functions on calls.function_oid = functions.oid
cross join lateral plpgsql_check_function_tb(
    calls.function_oid, calls.table_oid, security_warnings => true, extra_warnings => false,
    oldtable => calls.old_table, newtable => calls.new_table
) as findings
where findings.level = 'security'
"""


@pytest.fixture(scope="module")
def checker(server: Connection, request: pytest.FixtureRequest) -> psycopg.Connection[Any]:
    """The database with everything that functions refer to, and with plpgsql_check."""
    with psycopg.connect(**server.libpq()) as connection:
        available = "select from pg_available_extensions where name = 'plpgsql_check'"
        if connection.execute(available).fetchone() is None:
            pytest.skip(WITHOUT_CHECKER)
    found: psycopg.Connection[Any] = request.getfixturevalue("built")
    found.execute("create extension plpgsql_check with schema public")
    return found


def rows(connection: psycopg.Connection[Any], query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()


def test_the_checker_finds_nothing_in_any_function(checker: psycopg.Connection[Any]) -> None:
    assert rows(checker, FINDINGS) == []


def test_every_function_in_plpgsql_is_checked(checker: psycopg.Connection[Any]) -> None:
    """A trigger function is checked with the tables that use it: each of them is used."""
    unchecked = f"""
    {CHECKED}
    select ours.oid::regprocedure::text
    from ours
    inner join pg_language as languages on ours.prolang = languages.oid
    where languages.lanname = 'plpgsql' and ours.oid not in (select function_oid from calls)
    """
    assert rows(checker, unchecked) == []


def test_statements_are_put_together_only_where_it_is_known(
    checker: psycopg.Connection[Any],
) -> None:
    """These quote each part by `format`; the checker does not follow it through a variable."""
    known = {"make_partition", "ensure_partitions", "apply_retention"}
    assert {name for (name,) in rows(checker, STATEMENTS_FROM_PARTS)} <= known


def test_the_checker_would_find_a_fault(checker: psycopg.Connection[Any]) -> None:
    """A column that does not exist, in a function and in a trigger function."""
    with checker.transaction(force_rollback=True):
        checker.execute(
            "create or replace function sqp.check_data_freshness() returns table (table_name text,"
            " latest_period date, days_old integer, is_stale boolean) language plpgsql stable"
            " set search_path = '' as $$ begin return query select ages.table_name::text,"
            " ages.latest_month, 0, true from sqp.data_freshness as ages; end $$"
        )
        checker.execute(
            "create or replace function app.keep_account_ids() returns trigger language plpgsql"
            " set search_path = '' as $$ begin new.no_such_column := 1; return new; end $$"
        )
        found = {row[0]: row[2] for row in rows(checker, FINDINGS)}
    assert {name.split(".")[-1] for name in found} == {
        "check_data_freshness()",
        "keep_account_ids()",
    }
    assert set(found.values()) == {"error"}


FAULTS = {
    "is not explained": f"""
        select ours.oid::regprocedure::text from ({FUNCTIONS}) as ours
        where coalesce(obj_description(ours.oid, 'pg_proc'), '') = ''
    """,
    "does not say where names are looked up": f"""
        select ours.oid::regprocedure::text from ({FUNCTIONS}) as ours
        where not coalesce(ours.proconfig @> array['search_path=pg_catalog, pg_temp'], false)
    """,
    "is asked by a policy and not stable": """
        select distinct functions.oid::regprocedure::text
        from pg_policy as policies
        inner join pg_depend as uses
            on policies.oid = uses.objid and uses.classid = 'pg_policy'::regclass
        inner join pg_proc as functions
            on uses.refobjid = functions.oid and uses.refclassid = 'pg_proc'::regclass
        where functions.provolatile <> 's'
    """,
    "only reads and is called volatile": f"""
        select ours.oid::regprocedure::text from ({FUNCTIONS}) as ours
        where
            ours.provolatile = 'v'
            and ours.prorettype <> 'trigger'::regtype
            and ours.prosrc || coalesce(pg_get_function_sqlbody(ours.oid), '')
            !~* '\\m(insert|update|delete|execute|perform|create_partition|make_partition)\\M'
    """,
    "writes and is not called volatile": f"""
        select ours.oid::regprocedure::text from ({FUNCTIONS}) as ours
        where
            ours.provolatile <> 'v'
            and ours.prosrc || coalesce(pg_get_function_sqlbody(ours.oid), '')
            ~* '\\m(insert\\s+into|update\\s+[a-z_]+|delete\\s+from|truncate)\\M'
    """,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_function(database: Connection, fault: str) -> None:
    with connect(autocommit=True) as connection:
        assert rows(connection, FAULTS[fault]) == [], fault


def test_policies_ask_functions_that_the_catalogue_names(database: Connection) -> None:
    """The check above looks at some: at who the tenant is, and at what is shared with him."""
    with connect(autocommit=True) as connection:
        connection.execute("alter function auth.uid() volatile")
        connection.execute("alter function private.shared_dashboard_ids(text) volatile")
        assert {
            name for (name,) in rows(connection, FAULTS["is asked by a policy and not stable"])
        } == {
            "auth.uid()",
            "private.shared_dashboard_ids(text)",
        }
