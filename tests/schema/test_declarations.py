"""Every relation is declared, the declarations are what the database is, and applying them again
changes nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psycopg
import yaml
from dbt.cli.main import dbtRunner

from flows.settings import PROJECT_ROOT
from tests.schema.built import SCHEMAS, Dbt, built, dbt, declared  # noqa: F401

Session = psycopg.Connection[Any]


def relations(connection: Session) -> set[str]:
    """Every table and view of the warehouse, without partitions."""
    found = connection.execute(
        f"""
        select namespaces.nspname || '.' || relations.relname
        from pg_class as relations
        inner join pg_namespace as namespaces on relations.relnamespace = namespaces.oid
        where
            namespaces.nspname in {SCHEMAS}
            and relations.relkind in ('r', 'p', 'v', 'm', 'f')
            and not relations.relispartition
        """
    ).fetchall()
    return {name for (name,) in found}


def columns(connection: Session) -> dict[str, list[tuple[str, str]]]:
    """The columns of every relation with their comments, in alphabetical order."""
    found = connection.execute(
        f"""
        select
            namespaces.nspname || '.' || relations.relname,
            columns.attname,
            coalesce(col_description(relations.oid, columns.attnum), '')
        from pg_class as relations
        inner join pg_namespace as namespaces on relations.relnamespace = namespaces.oid
        inner join pg_attribute as columns on relations.oid = columns.attrelid
        where
            namespaces.nspname in {SCHEMAS}
            and relations.relkind in ('r', 'p', 'v', 'm', 'f')
            and columns.attnum > 0
            and not columns.attisdropped
        order by 1, 2
        """
    ).fetchall()
    by_relation: dict[str, list[tuple[str, str]]] = {}
    for relation, column, comment in found:
        by_relation.setdefault(relation, []).append((column, comment))
    return by_relation


def undeclared(connection: Session, dbt: Dbt) -> set[str]:  # noqa: F811
    """What is in the database and says nowhere whose its rows are."""
    return relations(connection) - {
        relation for relation, node in declared(dbt).items() if "tenant" in node["config"]["meta"]
    }


def test_every_relation_is_declared(built: Session, dbt: Dbt) -> None:  # noqa: F811
    assert undeclared(built, dbt) == set()
    assert relations(built) == set(declared(dbt)), "what is declared exists"


def test_a_relation_without_a_declaration_is_found(built: Session, dbt: Dbt) -> None:  # noqa: F811
    with built.transaction(force_rollback=True):
        built.execute("create table app.forgotten (id int)")
        built.execute("create view reporting.forgotten as select 1 as one")
        built.execute("create materialized view sqp.forgotten as select 1 as one")
        assert undeclared(built, dbt) == {
            "app.forgotten",
            "reporting.forgotten",
            "sqp.forgotten",
        }


def test_each_declaration_names_the_columns_that_there_are(built: Session, dbt: Dbt) -> None:  # noqa: F811
    held = columns(built)
    wrong = {
        relation: sorted(node["columns"].keys() ^ {name for name, _ in held.get(relation, [])})
        for relation, node in declared(dbt).items()
    }
    assert {relation: names for relation, names in wrong.items() if names} == {}


def test_everything_is_described(dbt: Dbt, built: Session) -> None:  # noqa: F811
    silent = [
        f"{relation} {column}".rstrip()
        for relation, node in declared(dbt).items()
        for column, description in [
            ("", node["description"]),
            *((name, column["description"]) for name, column in node["columns"].items()),
        ]
        if not description.strip()
    ]
    assert silent == []


def test_the_comments_in_the_database_are_the_descriptions(built: Session, dbt: Dbt) -> None:  # noqa: F811
    held = columns(built)
    comments = dict(
        built.execute(
            f"""
            select
                namespaces.nspname || '.' || relations.relname,
                coalesce(obj_description(relations.oid, 'pg_class'), '')
            from pg_class as relations
            inner join pg_namespace as namespaces on relations.relnamespace = namespaces.oid
            where namespaces.nspname in {SCHEMAS} and not relations.relispartition
            """
        ).fetchall()
    )
    wrong = []
    for relation, node in declared(dbt).items():
        if comments[relation] != node["description"]:
            wrong.append(relation)
        wrong += [
            f"{relation}.{name}"
            for name, comment in held[relation]
            if comment != node["columns"][name]["description"]
        ]
    assert wrong == []


GENERATED = {
    "row security": """
        select relations.oid::regclass::text, relrowsecurity, relforcerowsecurity, reloptions
        from pg_class as relations
        where relnamespace::regnamespace::text in {schemas} and relkind in ('r', 'p', 'v')
    """,
    "policies": """
        select policies::text
        from pg_policies as policies
        where schemaname in {schemas}
    """,
    "triggers": """
        select
            pg_get_triggerdef(triggers.oid), triggers.tgenabled::text,
            obj_description(triggers.oid, 'pg_trigger')
        from pg_trigger as triggers
        inner join pg_class as relations on triggers.tgrelid = relations.oid
        where not tgisinternal and relnamespace::regnamespace::text in {schemas}
    """,
    "grants": """
        select relations.oid::regclass::text, '', grants::text
        from pg_class as relations
        cross join lateral aclexplode(relacl) as grants
        where relnamespace::regnamespace::text in {schemas}
        union all
        select relations.oid::regclass::text, attname::text, grants::text
        from pg_class as relations
        inner join pg_attribute as columns on relations.oid = columns.attrelid
        cross join lateral aclexplode(attacl) as grants
        where relnamespace::regnamespace::text in {schemas}
    """,
    "partitions": """
        select
            inhparent::regclass::text, inhrelid::regclass::text,
            pg_get_expr(relpartbound, relations.oid)
        from pg_inherits
        inner join pg_class as relations on inhrelid = relations.oid
        where relnamespace::regnamespace::text in {schemas} and relkind in ('r', 'p')
    """,
    "comments": """
        select objoid::regclass::text, objsubid, description
        from pg_description
        inner join pg_class as relations on objoid = relations.oid
        where classoid = 'pg_class'::regclass
            and relnamespace::regnamespace::text in {schemas}
    """,
    "register": "select to_jsonb(held) from app.table_policies as held",
}


def snapshot(connection: Session) -> dict[str, list[str]]:
    """Everything that is made from the declarations."""
    return {
        what: sorted(map(str, connection.execute(query.format(schemas=SCHEMAS)).fetchall()))
        for what, query in GENERATED.items()
    }


def test_applying_again_mends_what_was_changed_by_hand_and_nothing_else(
    built: Session,  # noqa: F811
    dbt: Dbt,  # noqa: F811
) -> None:
    """An operator's hold stays, also where the declaration is another one than before."""
    dbt("run-operation", "apply_table_policies")
    built.execute("select app.hold_retention('audit_logs', 'a legal request')")
    before = snapshot(built)
    assert all(before.values())

    dbt("run-operation", "apply_table_policies")
    assert snapshot(built) == before

    built.execute("drop policy tenant_select on app.ads")
    built.execute("alter policy tenant_update on app.ads using (true)")
    built.execute("alter table app.workflows no force row level security")
    built.execute("drop trigger audit_ads on app.ads")
    built.execute("grant all on app.oauth_tokens, sqp.weekly_summary, app.slow_queries to anon")
    built.execute("grant select (password_hash) on app.users to authenticated")
    built.execute("alter view sqp.sync_status set (security_invoker = false)")
    built.execute("comment on column app.ads.name is 'x'")
    built.execute("drop table app.campaign_metrics_" + f"{month_ahead(built):%Y_%m}")
    built.execute(
        "update app.table_policies set declaration = '{}', retention_keep = '1 day',"
        " partitions_ahead = 0 where relation = 'app.audit_logs'"
    )
    built.execute(
        "insert into app.table_policies (relation, declaration) values ('app.gone', '{}')"
    )
    changed = snapshot(built)
    assert [what for what in before if changed[what] != before[what]] == list(GENERATED)

    dbt("run-operation", "apply_table_policies")
    after = snapshot(built)
    assert [row for row in after.pop("register") if "audit_logs" not in row] == [
        row for row in before.pop("register") if "audit_logs" not in row
    ]
    assert after == before
    held = built.execute(
        "select retention_hold, retention_hold_reason, retention_keep::text, partitions_ahead"
        " from app.table_policies where relation = 'app.audit_logs'"
    ).fetchone()
    assert held == (True, "a legal request", "2 years", 24)


def month_ahead(connection: Session) -> Any:
    row = connection.execute("select current_date + interval '20 months'").fetchone()
    assert row is not None
    return row[0]


def test_a_table_that_does_not_say_whose_its_rows_are_stops_everything(
    built: Session,  # noqa: F811
    tmp_path: Path,
) -> None:
    project = tmp_path / "dbt_project"
    shutil.copytree(
        PROJECT_ROOT / "dbt_project",
        project,
        ignore=shutil.ignore_patterns("target", "logs", "dbt_packages"),
    )
    (file,) = (
        path
        for path in project.glob("models/sources/*.yml")
        if "\n      - name: ads\n" in path.read_text()
    )
    told = yaml.safe_load(file.read_text())
    (table,) = (
        table for source in told["sources"] for table in source["tables"] if table["name"] == "ads"
    )
    del table["config"]["meta"]["tenant"]
    file.write_text(yaml.safe_dump(told))

    before = snapshot(built)
    done = dbtRunner().invoke(
        [
            *("run-operation", "apply_table_policies"),
            *("--project-dir", str(project)),
            *("--profiles-dir", str(PROJECT_ROOT)),
            *("--target-path", str(tmp_path / "target")),
            *("--log-path", str(tmp_path)),
            "--quiet",
        ]
    )
    assert not done.success
    (result,) = done.result.results
    said = str(done.exception or result.message)
    assert "source.warehouse.app.ads does not say whose its rows are" in said
    assert snapshot(built) == before
