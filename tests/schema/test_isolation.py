"""No tenant sees or changes a row of another, in whatever relation the catalogue knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors, sql

from tests.integration.test_dbt_models import Dbt
from tests.schema.built import built, dbt  # noqa: F401
from tests.schema.catalogue import FAULTS, OURS
from tests.schema.planted import ALPHA, BRAVO, Tenant

GUEST = Tenant("MARKGUEST")
READABLE_BY_ALL = {"sqp.marketplaces", "sqp.time_spine_daily"}
NOT_OF_A_TENANT = {
    "app.alembic_version",
    "app.applied_declarations",
    "app.schema_migrations",
    "app.table_policies",
    "app.retention_log",
    "sqp.changed_queries",
    "sqp.slice_builds",
    "intermediate.int_sqp__queries_to_rebuild",
    "intermediate.int_sqp__slices_to_rebuild",
}
ABOUT_THE_SERVER = {
    "app.slow_queries",
    "app.table_sizes",
    "app.index_usage",
    "app.unused_indexes",
    "app.missing_indexes",
    "app.partition_overview",
}


@pytest.fixture(scope="module")
def planted(built: psycopg.Connection[Any]) -> psycopg.Connection[Any]:  # noqa: F811
    """Two tenants with a row of each in every relation, and a guest with nothing."""
    return built


@contextmanager
def as_tenant(connection: psycopg.Connection, user_id: UUID | None) -> Iterator[None]:
    """A transaction of a signed-in tenant, or of an anonymous visitor; rolled back at the end."""
    with connection.transaction(force_rollback=True):
        connection.execute(f"set local role {'authenticated' if user_id else 'anon'}")
        if user_id:
            connection.execute(
                "select set_config('request.jwt.claim.sub', %s, true)", (str(user_id),)
            )
        yield


def relations(connection: psycopg.Connection) -> dict[str, bool]:
    """Every relation by schema and name, and whether it is a partition."""
    found = connection.execute(
        f"""
        select namespaces.nspname || '.' || relations.relname, relations.relispartition
        from pg_class as relations
        inner join pg_namespace as namespaces on relations.relnamespace = namespaces.oid
        where namespaces.nspname in {OURS} and relations.relkind in ('r', 'p', 'v', 'm')
        order by 1
        """
    ).fetchall()
    return dict(found)


def rows_with(
    connection: psycopg.Connection, relation: str, tenant: Tenant, columns: str = "*"
) -> int | None:
    """How many rows of a relation hold the tenant's mark or id; None without the right to read."""
    parts = sql.Identifier(*relation.split("."))
    try:
        with connection.transaction():
            row = connection.execute(
                sql.SQL(
                    "select count(*) from (select {} from {}) as visible"
                    " where lower(visible::text) like any (%s)"
                ).format(sql.SQL(columns), parts),
                ([f"%{tenant.mark.lower()}%", f"%{tenant.user_id}%"],),
            ).fetchone()
    except errors.InsufficientPrivilege:
        return None
    assert row is not None
    return int(row[0])


def readable_columns(connection: psycopg.Connection, relation: str) -> str:
    found = connection.execute(
        "select string_agg(quote_ident(attname), ', ') from pg_attribute"
        " where attrelid = %s::regclass"
        " and attnum > 0 and not attisdropped"
        " and has_column_privilege('authenticated', attrelid, attnum, 'select')",
        (relation,),
    ).fetchone()
    return (found and found[0]) or "*"


def test_a_tenant_reads_his_own_rows_and_no_other(planted: psycopg.Connection) -> None:
    leaks, without_a_row, unseen = [], [], []
    for relation, is_partition in relations(planted).items():
        columns = readable_columns(planted, relation)
        for_all = relation in READABLE_BY_ALL | NOT_OF_A_TENANT | ABOUT_THE_SERVER
        aggregated = relation in {"sqp.data_freshness", "sqp.sync_alerts", "sqp.sync_status"}
        if not (for_all or aggregated or is_partition or rows_with(planted, relation, ALPHA)):
            without_a_row.append(relation)
        for reader, other in ((ALPHA, BRAVO), (BRAVO, ALPHA)):
            with as_tenant(planted, reader.user_id):
                if rows_with(planted, relation, other, columns):
                    leaks.append((relation, reader.mark))
                own = rows_with(planted, relation, reader, columns)
            behind_views = relation.startswith("staging.")
            if not (for_all or aggregated or is_partition or behind_views or own):
                unseen.append((relation, reader.mark))
            if (is_partition or relation in NOT_OF_A_TENANT) and own is not None:
                leaks.append((relation, "may be read at all"))
        with as_tenant(planted, None):
            leaks += [
                (relation, "anon")
                for tenant in (ALPHA, BRAVO)
                if rows_with(planted, relation, tenant)
            ]
    assert without_a_row == [], "a relation without a planted row is not tested: plant one"
    assert leaks == []
    assert unseen == [], "the tenant does not see what is his"


def test_what_is_aggregated_tells_each_tenant_only_of_his_own(planted: psycopg.Connection) -> None:
    questions = (
        "select * from sqp.check_data_freshness() order by 1",
        "select * from sqp.get_latest_sync_status('weekly')",
    )

    def asked_by(tenant: Tenant) -> list[list[tuple[Any, ...]]]:
        with as_tenant(planted, tenant.user_id):
            return [planted.execute(question).fetchall() for question in questions]

    with planted.transaction(force_rollback=True):
        before = {tenant: asked_by(tenant) for tenant in (ALPHA, BRAVO)}
        planted.execute(
            "update sqp.weekly_summary set period_end = current_date where account_id = %s",
            (BRAVO.mark,),
        )
        planted.execute(
            "update sqp.sync_log set sync_status = 'failed' where account_id = %s", (BRAVO.mark,)
        )
        assert asked_by(ALPHA) == before[ALPHA]
        assert asked_by(BRAVO)[0] != before[BRAVO][0]
        assert asked_by(BRAVO)[1] != before[BRAVO][1]
        assert {(row[1], row[3]) for row in asked_by(GUEST)[0]} == {(None, True)}


def test_no_function_that_a_tenant_may_call_returns_another_tenants_rows(
    planted: psycopg.Connection,
) -> None:
    callable_by_tenants = planted.execute(
        f"""
        select functions.oid::regprocedure::text, functions.pronargs, functions.proretset
        from pg_proc as functions
        inner join pg_namespace as namespaces on functions.pronamespace = namespaces.oid
        where
            namespaces.nspname in {OURS}
            and functions.prorettype <> 'trigger'::regtype
            and has_function_privilege('authenticated', functions.oid, 'execute')
        """
    ).fetchall()
    calls = {
        "sqp.get_latest_sync_status(character varying)": "sqp.get_latest_sync_status('weekly')",
        "sqp.check_data_freshness()": "sqp.check_data_freshness()",
        "private.shared_dashboard_ids(text)": "private.shared_dashboard_ids('view')",
        "app.json_digest(jsonb)": "app.json_digest('{}')",
    }
    names = {
        name if "." in name else f"{'sqp' if 'sync' in name or 'fresh' in name else 'app'}.{name}"
        for name, _, _ in callable_by_tenants
    }
    assert names == set(calls), "a function that tenants may call is called here"
    with as_tenant(planted, BRAVO.user_id):
        for call in calls.values():
            found = planted.execute(f"select result::text from {call} as result").fetchall()
            assert not [
                row for row in found if ALPHA.mark in row[0] or str(ALPHA.id("dashboard")) in row[0]
            ]


HOSTILE = {
    "take over a row": "update app.ads set user_id = %(me)s where id = %(ad)s",
    "give a row away": "update app.ads set user_id = %(them)s where user_id = %(me)s",
    "change another's row": "update app.ads set name = 'mine' where user_id = %(them)s",
    "delete another's row": "delete from app.ads where user_id = %(them)s",
    "insert for another": "insert into app.ads (user_id, name, unified_data, targeting_data,"
    " budget_data) values (%(them)s, 'x', '{}', '{}', '{}')",
    "hang a child on another's parent": "insert into app.ad_assets (ad_id, asset_id, asset_type)"
    " values (%(ad)s, %(asset)s, 'video')",
    "hang a child of mine on another's parent": "insert into app.ad_assets (ad_id, asset_id,"
    " asset_type, user_id) values (%(ad)s, %(asset)s, 'video', %(me)s)",
    "forge the audit": "insert into app.audit_logs (owner_user_id, actor, entity_type, entity_id,"
    " action) values (%(me)s, 'x', 'ads', '1', 'create')",
    "erase the audit": "delete from app.audit_logs where owner_user_id = %(me)s",
    "rewrite the history of syncs": "update app.account_sync_history set sync_status = 'success'",
    "reset a rate limit": "update app.api_rate_limits set requests_count = 0",
    "share another's dashboard with me": "insert into app.dashboard_shares (dashboard_id,"
    " shared_by_user_id, shared_with_user_id) values (%(dashboard)s, %(them)s, %(me)s)",
    "share another's dashboard in my name": "insert into app.dashboard_shares (dashboard_id,"
    " shared_by_user_id, shared_with_user_id, user_id)"
    " values (%(dashboard)s, %(me)s, %(them)s, %(me)s)",
    "leave without a trace": "delete from app.users where id = %(me)s",
    "raise my own role": "update app.users set role = 'admin' where id = %(me)s",
    "read a secret": "select refresh_token from app.oauth_tokens",
    "read a password": "select password_hash from app.users",
    "write into a partition": "insert into app.campaign_metrics_default (campaign_id, user_id,"
    " date) values (%(campaign)s, %(me)s, '2001-01-01')",
    "claim another's account": "update app.sqp_accounts set user_id = %(me)s",
    "truncate": "truncate app.ads cascade",
    "change a summary": "update sqp.weekly_summary set total_clicks = 0",
    "change the schema": "create table app.mine (id int)",
    "slip a type under a function": "create domain pg_temp.uuid as pg_catalog.uuid",
    "slip a table under a function": "create temporary table audit_logs (id int)",
    "delete what has a history": "delete from app.ads where user_id = %(me)s",
    "read the files of the server": "select pg_read_file('PG_VERSION')",
}
REFUSED = (
    errors.InsufficientPrivilege,
    errors.ForeignKeyViolation,
    errors.NotNullViolation,
    errors.CheckViolation,
)


@pytest.mark.parametrize("attack", HOSTILE)
@pytest.mark.parametrize("attacker", [BRAVO, None], ids=["tenant", "anonymous"])
def test_a_hostile_statement_is_refused_or_finds_no_row(
    planted: psycopg.Connection, attack: str, attacker: Tenant | None
) -> None:
    things = ("ad", "asset", "dashboard", "campaign")
    values = {thing: ALPHA.id(thing) for thing in things} | {
        "me": BRAVO.user_id,
        "them": ALPHA.user_id,
    }
    changed = 0
    with suppress(*REFUSED), as_tenant(planted, attacker and attacker.user_id):
        changed = planted.execute(HOSTILE[attack], values).rowcount
    assert changed == 0


def test_a_tenant_cannot_switch_row_security_off(planted: psycopg.Connection) -> None:
    with as_tenant(planted, BRAVO.user_id):
        planted.execute("set local row_security = off")
        with pytest.raises(errors.InsufficientPrivilege):
            planted.execute("select * from app.ads")


def test_a_viewer_reads_and_an_editor_edits_exactly_the_shared_dashboard(
    planted: psycopg.Connection,
) -> None:
    shared, other = ALPHA.id("dashboard"), uuid4()

    def try_to(statement: str) -> int | str:
        with suppress(*REFUSED), as_tenant(planted, GUEST.user_id):
            return planted.execute(statement, {"shared": shared, "me": GUEST.user_id}).rowcount
        return "refused"

    see = "select * from app.dashboards where user_id <> %(me)s"
    see_widgets = "select * from app.dashboard_widgets where dashboard_id = %(shared)s"
    rename = "update app.dashboards set name = 'new'"
    retitle = "update app.dashboard_widgets set title = 'new'"
    add = (
        "insert into app.dashboard_widgets (widget_id, dashboard_id, widget_type, title,"
        " data_source, position_config) values ('w2', %(shared)s, 'text', 't', '{}', '{}')"
    )
    remove = "delete from app.dashboard_widgets"
    publish = "update app.dashboards set is_public = true where id = %(shared)s"
    take = "update app.dashboards set user_id = %(me)s where id = %(shared)s"
    delete = "delete from app.dashboards where id = %(shared)s"
    share_on = "update app.dashboard_shares set permission_level = 'edit'"

    with planted.transaction(force_rollback=True):
        planted.execute(
            "insert into app.dashboards (id, dashboard_id, name, user_id)"
            " values (%s, 'not shared', 'x', %s)",
            (other, ALPHA.user_id),
        )
        planted.execute("delete from app.dashboard_shares where user_id = %s", (BRAVO.user_id,))
        everything = (
            see,
            see_widgets,
            rename,
            retitle,
            add,
            remove,
            publish,
            take,
            delete,
            share_on,
        )
        assert [try_to(each) for each in everything] == [
            *[1, 1, 0, 0, "refused", 0, 0, "refused", 0, 0]
        ]
        planted.execute("update app.dashboard_shares set permission_level = 'edit'")
        assert [try_to(each) for each in everything] == [
            *[1, 1, 1, 1, 1, 1, "refused", "refused", 0, 0]
        ]
        planted.execute("update app.dashboards set is_public = true where id = %s", (other,))
        planted.execute("delete from app.dashboard_shares")
        assert [try_to(each) for each in (see, see_widgets, rename)] == [1, 0, 0]


def test_the_tenant_of_a_transaction_is_gone_after_it(planted: psycopg.Connection) -> None:
    with as_tenant(planted, ALPHA.user_id):
        assert planted.execute("select auth.uid()").fetchone() == (ALPHA.user_id,)
    assert planted.execute("select auth.uid()").fetchone() == (None,)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_catalogue_knows_no(planted: psycopg.Connection, fault: str) -> None:
    assert planted.execute(FAULTS[fault]).fetchall() == []


@pytest.mark.parametrize(
    "command", [("run", "--full-refresh"), ("run",), ("seed", "--full-refresh")]
)
def test_after_every_dbt_command_what_it_built_is_protected(
    planted: psycopg.Connection,
    dbt: Dbt,  # noqa: F811
    command: tuple[str, ...],
) -> None:
    before = protection_of_built(planted)
    dbt(*command)
    assert protection_of_built(planted) == before
    for fault, query in FAULTS.items():
        assert planted.execute(query).fetchall() == [], fault


def test_a_rebuilt_table_gets_its_protection_in_the_same_transaction(
    planted: psycopg.Connection,
    dbt: Dbt,  # noqa: F811
) -> None:
    before = protection_of_built(planted)
    for relation in ("sqp.weekly_summary", "sqp.monthly_summary"):
        planted.execute(f"drop table {relation} cascade")
    dbt("run", "--full-refresh")
    assert protection_of_built(planted) == before


def protection_of_built(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Everything that guards what dbt builds, and its indexes, without the names dbt makes up."""
    return connection.execute(
        """
        select
            relations.oid::regclass::text,
            relations.relrowsecurity,
            relations.relforcerowsecurity,
            relations.reloptions,
            (
                select array_agg(grants::text order by grants::text)
                from aclexplode(relations.relacl) as grants
            ),
            (
                select array_agg(policies::text order by policies.policyname)
                from pg_policies as policies
                where
                    policies.schemaname = namespaces.nspname
                    and policies.tablename = relations.relname
            ),
            (
                select array_agg(definition order by definition)
                from (
                    select regexp_replace(pg_get_indexdef(indexrelid), 'INDEX .* ON', 'ON')
                    from pg_index
                    where indrelid = relations.oid
                ) as indexes (definition)
            )
        from pg_class as relations
        inner join pg_namespace as namespaces on relations.relnamespace = namespaces.oid
        where relations.relowner = 'dbt'::regrole and relations.relkind in ('r', 'p', 'v')
        order by 1
        """
    ).fetchall()
