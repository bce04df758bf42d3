"""Dashboards, collections, weeks, result rows, aggregates and insights refuse what cannot be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from flows.vocabulary.reports import LISTS
from flows.warehouse.connection import connect

SUNDAY = date(2025, 9, 7)
CHECKSUM = hashlib.sha256(b"[]").hexdigest()


@dataclass
class World:
    """Two tenants; the first has an instance, a workflow, an execution and a collection."""

    connection: psycopg.Connection[Any]
    owner: UUID
    other: UUID
    instance: UUID
    workflow: UUID
    execution: UUID
    collection: UUID

    def add(self, table: str, **values: Any) -> UUID:
        """Insert one row; its id. Dictionaries are JSON."""
        values = {
            name: Jsonb(value) if isinstance(value, dict | list) else value
            for name, value in values.items()
        }
        statement = sql.SQL("insert into {} ({}) values ({}) returning *").format(
            sql.Identifier(*table.split(".")),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(sql.Placeholder() * len(values)),
        )
        cursor = self.connection.execute(statement, list(values.values()))
        row = cursor.fetchone()
        assert row is not None
        names = [column.name for column in cursor.description or ()]
        return dict(zip(names, row, strict=True)).get("id")

    def one(self, query: str, *values: Any) -> Any:
        """The first value of the first row."""
        row = self.connection.execute(query, values).fetchone()
        return row and row[0]

    def row_of(self, table: str) -> dict[str, Any]:
        """A good row of the table, to be spoilt."""
        return {
            "app.dashboards": {
                "dashboard_id": f"dash_{uuid4()}",
                "name": "Weekly",
                "user_id": self.owner,
            },
            "app.dashboard_widgets": {
                "widget_id": f"w_{uuid4()}",
                "user_id": self.owner,
                "widget_type": "chart",
                "title": "Spend",
                "data_source": {},
                "position_config": {},
            },
            "app.report_data_collections": {
                "collection_id": f"coll_{uuid4()}",
                "workflow_id": self.workflow,
                "instance_id": self.instance,
                "user_id": self.owner,
                "collection_type": "backfill",
                "target_weeks": 52,
                "start_date": SUNDAY,
                "end_date": SUNDAY + timedelta(days=363),
            },
            "app.report_data_weeks": {
                "collection_id": self.collection,
                "week_start_date": SUNDAY,
                "week_end_date": SUNDAY + timedelta(days=6),
            },
            "reporting.report_data_aggregates": {
                "workflow_id": self.workflow,
                "instance_id": self.instance,
                "user_id": self.owner,
                "aggregation_type": "weekly",
                "aggregation_key": "2025-09-07",
                "metrics": {"clicks": 3},
                "data_date": SUNDAY,
            },
            "app.ai_insights": {
                "insight_id": f"ins_{uuid4()}",
                "user_id": self.owner,
                "query_text": "Why?",
                "response_text": "Because.",
            },
        }[table]

    def dashboard(self, **values: Any) -> UUID:
        """A dashboard of the first tenant."""
        return self.add("app.dashboards", **self.row_of("app.dashboards") | values)

    def widget(self, dashboard: UUID, **values: Any) -> UUID:
        """A widget that names no owner."""
        row = self.row_of("app.dashboard_widgets") | {"user_id": None, "dashboard_id": dashboard}
        return self.add("app.dashboard_widgets", **row | values)

    def week(self, **values: Any) -> UUID:
        """A week of the collection, whose dates follow from its start."""
        start = values.get("week_start_date", SUNDAY)
        row = self.row_of("app.report_data_weeks") | {"week_end_date": start + timedelta(days=6)}
        return self.add("app.report_data_weeks", **row | values)

    def aggregate(self, **values: Any) -> UUID:
        """An aggregate of the workflow."""
        table = "reporting.report_data_aggregates"
        return self.add(table, **self.row_of(table) | values)


@pytest.fixture
def world(database) -> Iterator[World]:
    with connect(autocommit=True) as connection:
        nobody = uuid4()
        made = World(connection, nobody, nobody, nobody, nobody, nobody, nobody)
        made.owner, made.other = (
            made.add(
                "app.users",
                email=f"{name}@example.com",
                password_hash="scrypt",
                first_name=name,
                last_name="Example",
            )
            for name in ("owner", "other")
        )
        account = made.add(
            "app.amc_accounts",
            user_id=made.owner,
            account_id="ENTITY1",
            marketplace_id="ATVPDKIKX0DER",
            region="NA",
        )
        made.instance = made.add(
            "app.amc_instances",
            user_id=made.owner,
            account_id=account,
            instance_id="amcexample",
            instance_name="Example",
            region="NA",
        )
        made.workflow = made.add(
            "app.workflows",
            user_id=made.owner,
            instance_id=made.instance,
            workflow_id="weekly_spend",
            name="Weekly spend",
            sql_query="select 1",
        )
        made.execution = made.add(
            "app.workflow_executions",
            user_id=made.owner,
            workflow_id=made.workflow,
            execution_id="run_1",
        )
        table = "app.report_data_collections"
        made.collection = made.add(table, **made.row_of(table))
        yield made


REFUSED: dict[str, list[dict[str, Any]]] = {
    "app.dashboards": [
        {"template_type": "bogus"},
        {"user_id": None},
        {"dashboard_id": ""},
        {"layout_config": []},
        {"layout_config": {"x": "y" * 300_000}},
        {"filter_config": []},
        {"is_public": None},
    ],
    "app.dashboard_widgets": [
        {"widget_type": "bogus"},
        {"chart_type": "bogus"},
        {"widget_id": ""},
        {"data_source": []},
        {"position_config": []},
    ],
    "app.report_data_collections": [
        {"status": "bogus"},
        {"status": "succeeded"},
        {"collection_type": "bogus"},
        {"progress_percentage": 500},
        {"progress_percentage": -1},
        {"target_weeks": -3},
        {"target_weeks": 0},
        {"weeks_completed": -3},
        {"weeks_completed": 53},
        {"end_date": SUNDAY - timedelta(days=1)},
        {"start_date": SUNDAY + timedelta(days=1)},
        {"configuration": []},
        {"workflow_id": None},
        {"instance_id": None},
    ],
    "app.report_data_weeks": [
        {"status": "bogus"},
        {"status": "paused"},
        {"status": "succeeded"},
        {"week_end_date": SUNDAY + timedelta(days=7)},
        {"week_end_date": SUNDAY - timedelta(days=1)},
        {"row_count": -1},
        {"attempts": -1},
        {"attempts": 6},
        {"max_attempts": 0},
        {"status": "running"},
        {"status": "running", "locked_by": "worker 1"},
        {"lease_until": "2025-09-07 00:00+00"},
        {"status": "completed"},
        {"status": "completed", "row_count": 4},
    ],
    "reporting.report_data_aggregates": [
        {"aggregation_type": "bogus"},
        {"aggregation_key": ""},
        {"metrics": []},
        {"dimensions": []},
        {"dimensions": None},
        {"row_count": -1},
    ],
    "app.ai_insights": [
        {"confidence_score": 9.99},
        {"confidence_score": -0.01},
        {"confidence_score": "NaN"},
        {"insight_type": "bogus"},
        {"data_context": []},
    ],
}


@pytest.mark.parametrize("table", REFUSED)
def test_no_list_and_no_range_lets_anything_through(world: World, table: str) -> None:
    """Errata, statuses in comments: each of these was stored."""
    good = world.row_of(table)
    if table == "app.dashboard_widgets":
        good["dashboard_id"] = world.dashboard()
    for spoilt in REFUSED[table]:
        with pytest.raises((errors.CheckViolation, errors.NotNullViolation)):
            world.add(table, **good | spoilt)
    world.add(table, **good)


@pytest.mark.parametrize("place", LISTS)
def test_the_lists_of_the_database_and_of_the_code_are_one(world: World, place: str) -> None:
    """Errata, 'completed' here and 'succeeded' elsewhere: one list of statuses."""
    table, column = place.rsplit(".", 1)
    definition = world.one(
        """
        select pg_get_constraintdef(constraints.oid)
        from pg_constraint as constraints
        inner join pg_attribute as columns
            on
                constraints.conrelid = columns.attrelid
                and constraints.conkey = array[columns.attnum]
        where
            constraints.conrelid = %s::regclass
            and columns.attname = %s
            and pg_get_constraintdef(constraints.oid) like '%%ANY%%'
        """,
        table,
        column,
    )
    words = set(definition.split("'")[1::2])
    assert words == {str(member) for member in LISTS[place]}


def test_a_dashboard_has_an_owner_unless_it_is_a_template(world: World) -> None:
    template = world.dashboard(user_id=None, is_template=True)
    widget = world.widget(template)
    owner_of = "select user_id from app.dashboard_widgets where id = %s"
    assert world.one(owner_of, widget) is None

    own = world.dashboard()
    of_own = world.widget(own)
    assert world.one(owner_of, of_own) == world.owner
    with pytest.raises(errors.ForeignKeyViolation, match="owner_is_the_dashboards"):
        world.widget(own, user_id=world.other)
    with pytest.raises(errors.ForeignKeyViolation):
        world.widget(template, user_id=world.owner)
    with pytest.raises(errors.ForeignKeyViolation):
        world.widget(uuid4())

    world.connection.execute(
        "update app.dashboard_widgets set user_id = null where id = %s", [of_own]
    )
    assert world.one(owner_of, of_own) == world.owner

    world.connection.execute(
        "update app.dashboards set user_id = %s, is_template = false where id = %s",
        [world.other, template],
    )
    assert world.one(owner_of, widget) == world.other
    world.connection.execute(
        "update app.dashboards set user_id = null, is_template = true where id = %s", [template]
    )
    assert world.one(owner_of, widget) is None


def test_a_widget_has_its_name_once_on_a_dashboard(world: World) -> None:
    """Errata, UNIQUE over nullable columns: a widget without dashboard was there twice."""
    first, second = world.dashboard(), world.dashboard()
    world.widget(first, widget_id="spend")
    world.widget(second, widget_id="spend")
    with pytest.raises(errors.UniqueViolation):
        world.widget(first, widget_id="spend")
    with pytest.raises(psycopg.errors.IntegrityError):
        world.widget(None, widget_id="spend")  # type: ignore[arg-type]


def share(world: World, dashboard: UUID, **values: Any) -> UUID:
    row = {
        "dashboard_id": dashboard,
        "shared_by_user_id": world.owner,
        "shared_with_user_id": world.other,
    }
    return world.add("app.dashboard_shares", **row | values)


def test_a_dashboard_is_shared_by_its_owner_with_somebody_else_once(world: World) -> None:
    """Errata, shares with oneself."""
    dashboard = world.dashboard()
    with pytest.raises(errors.CheckViolation, match="not_with_oneself"):
        share(world, dashboard, shared_with_user_id=world.owner)
    with pytest.raises(errors.CheckViolation):
        share(world, dashboard, permission_level="bogus")
    given = share(world, dashboard)
    assert world.one("select user_id from app.dashboard_shares where id = %s", given) == world.owner
    with pytest.raises(errors.UniqueViolation):
        share(world, dashboard, permission_level="edit")
    third = world.add(
        "app.users",
        email="third@example.com",
        password_hash="scrypt",
        first_name="third",
        last_name="Example",
    )
    with pytest.raises(errors.ForeignKeyViolation, match="given_by_the_owner"):
        share(world, dashboard, shared_by_user_id=world.other, shared_with_user_id=third)
    with pytest.raises(errors.ForeignKeyViolation, match="owner_is_the_dashboards"):
        share(world, dashboard, user_id=world.other, shared_with_user_id=third)

    with pytest.raises(errors.CheckViolation, match="not_with_oneself"):
        world.connection.execute("update app.dashboards set user_id = %s", [world.other])
    world.connection.execute("update app.dashboards set user_id = %s", [third])
    assert world.one(
        "select (user_id, shared_by_user_id) = (%s, %s) from app.dashboard_shares", third, third
    )


@settings(max_examples=20)
@given(st.integers(min_value=-4000, max_value=4000))
def test_a_week_is_a_sunday_and_the_six_days_after(world: World, days: int) -> None:
    """Errata, weeks overlap, any weekday."""
    start = SUNDAY + timedelta(days=days)
    with world.connection.transaction(force_rollback=True):
        if start.isoweekday() == 7:
            world.week(week_start_date=start)
        else:
            with pytest.raises(errors.CheckViolation, match="starts_on_a_sunday"):
                world.week(week_start_date=start)


def test_a_collection_has_each_week_once(world: World) -> None:
    """Errata, double counting."""
    world.week()
    world.week(week_start_date=SUNDAY + timedelta(days=7))
    with pytest.raises(errors.UniqueViolation, match="one_per_week"):
        world.week()


def test_a_week_is_leased_tried_again_and_resumed(world: World) -> None:
    """Errata, weeks have no attempts, lease or next retry: stuck for ever."""
    week = world.week()
    run = world.connection.execute
    run(
        "update app.report_data_weeks set status = 'running', attempts = attempts + 1,"
        " locked_by = 'worker 1', lease_until = now() - interval '1 second' where id = %s",
        [week],
    )
    taken_over = run(
        "update app.report_data_weeks set attempts = attempts + 1, locked_by = 'worker 2',"
        " lease_until = now() + interval '10 minutes'"
        " where status = 'running' and lease_until < now() returning attempts"
    )
    assert taken_over.fetchall() == [(2,)]
    run(
        "update app.report_data_weeks set status = 'failed', locked_by = null, lease_until = null,"
        " next_retry_at = now() + interval '1 hour'"
    )
    run("update app.report_data_collections set status = 'paused'")
    run("update app.report_data_weeks set status = 'pending', attempts = max_attempts")
    with pytest.raises(errors.CheckViolation, match="attempts_within_maximum"):
        run("update app.report_data_weeks set attempts = attempts + 1")


def test_a_week_carries_the_tenant_workflow_and_instance_of_its_collection(world: World) -> None:
    week = world.week()
    assert world.one(
        "select (user_id, workflow_id, instance_id) = (%s, %s, %s) from app.report_data_weeks"
        " where id = %s",
        world.owner,
        world.workflow,
        world.instance,
        week,
    )
    with pytest.raises(errors.ForeignKeyViolation):
        world.week(week_start_date=SUNDAY + timedelta(days=7), user_id=world.other)
    with pytest.raises(errors.ForeignKeyViolation):
        world.week(week_start_date=SUNDAY + timedelta(days=7), workflow_id=uuid4())


def store_rows(world: World, week: UUID, count: int, **values: Any) -> None:
    for number in range(1, count + 1):
        content = {"campaign": "A", "clicks": number}
        row = {
            "week_start_date": SUNDAY,
            "week_id": week,
            "row_number": number,
            "user_id": world.owner,
            "workflow_id": world.workflow,
            "instance_id": world.instance,
            "row_values": content,
            "row_digest": hashlib.sha256(json.dumps(content).encode()).digest(),
        }
        world.add("app.report_data_rows", **row | values)


def test_the_collected_rows_are_stored_in_the_partition_of_their_week(world: World) -> None:
    """Errata, no table holds the collected rows."""
    week = world.week()
    store_rows(world, week, 3)
    assert world.one("select count(*) from app.report_data_rows") == 3
    world.connection.execute(
        "select app.create_monthly_partition('report_data_rows', %s)", [SUNDAY]
    )
    assert world.one("select count(*) from app.report_data_rows_2025_09") == 3
    with pytest.raises(errors.UniqueViolation):
        store_rows(world, week, 1)

    for wrong in (
        {"user_id": world.other},
        {"workflow_id": uuid4()},
        {"week_start_date": SUNDAY + timedelta(days=7)},
        {"week_id": uuid4()},
    ):
        with pytest.raises(errors.ForeignKeyViolation, match="report_data_rows_of_the_week"):
            store_rows(world, week, 1, **{"row_number": 9} | wrong)
    for wrong in ({"row_digest": b"short"}, {"row_values": []}, {"row_number": 0}):
        with pytest.raises(errors.CheckViolation):
            store_rows(world, week, 1, **{"row_number": 9} | wrong)

    world.connection.execute("delete from app.report_data_weeks where id = %s", [week])
    assert world.one("select count(*) from app.report_data_rows") == 0


@pytest.mark.parametrize("parent", ["workflows", "amc_instances"])
@pytest.mark.parametrize("child", ["report_data_collections", "report_data_aggregates"])
def test_history_outlives_the_wish_to_delete_its_workflow(
    world: World, parent: str, child: str
) -> None:
    """Errata, ON DELETE CASCADE from workflows: a year of history gone."""
    action = world.one(
        """
        select string_agg(confdeltype::text, '')
        from pg_constraint
        where contype = 'f' and conrelid = to_regclass(%s) and confrelid = to_regclass(%s)
        """,
        child,
        f"app.{parent}",
    )
    assert action == "r"
    key = {"workflows": world.workflow, "amc_instances": world.instance}[parent]
    with pytest.raises(errors.IntegrityError):
        world.connection.execute(
            sql.SQL("delete from app.{} where id = %s").format(sql.Identifier(parent)), [key]
        )


def test_a_week_outlives_its_execution(world: World) -> None:
    week = world.week(workflow_execution_id=world.execution)
    world.connection.execute("delete from app.workflow_executions")
    assert world.one(
        "select workflow_execution_id is null and user_id is not null from app.report_data_weeks"
        " where id = %s",
        week,
    )


def test_campaign_b_does_not_collide_with_campaign_a(world: World) -> None:
    """Errata, the aggregates' key omits dimensions; and keys with NULL are keys."""
    world.aggregate(dimensions={"campaign_id": "A", "asin": "B000000001"})
    world.aggregate(dimensions={"campaign_id": "B", "asin": "B000000001"})
    world.aggregate()
    with pytest.raises(errors.UniqueViolation, match="one_per_period_and_dimensions"):
        world.aggregate(dimensions={"asin": "B000000001", "campaign_id": "A"})
    with pytest.raises(errors.UniqueViolation):
        world.aggregate(dimensions={})

    for nothing in ({"instance_id": None}, {"workflow_id": None, "instance_id": None}):
        world.aggregate(**nothing)
        with pytest.raises(errors.UniqueViolation):
            world.aggregate(**nothing)
    world.aggregate(workflow_id=None, instance_id=None, user_id=world.other)
    with pytest.raises(errors.ForeignKeyViolation, match="workflow_of_the_tenant"):
        world.aggregate(user_id=world.other, dimensions={"campaign_id": "C"}, instance_id=None)


def test_an_aggregate_is_written_again_in_place(world: World) -> None:
    table = world.row_of("reporting.report_data_aggregates")
    upsert = """
        insert into reporting.report_data_aggregates (
            workflow_id, instance_id, aggregation_type, aggregation_key, data_date, metrics
        )
        values (%s, %s, 'weekly', '2025-09-07', %s, %s)
        on conflict (
            user_id, workflow_id, instance_id, aggregation_type, aggregation_key, data_date,
            app.json_digest(dimensions)
        )
        do update set metrics = excluded.metrics
        returning metrics
    """
    for role in ("etl", "dbt"):
        with connect(role=role, autocommit=True) as connection:  # type: ignore[arg-type]
            for clicks in (1, 2):
                metrics = {"clicks": clicks}
                found = connection.execute(
                    upsert, [table["workflow_id"], table["instance_id"], SUNDAY, Jsonb(metrics)]
                )
                assert found.fetchone() == (metrics,)
    assert world.one("select count(*) from reporting.report_data_aggregates") == 1


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@given(st.dictionaries(TEXTS, st.one_of(TEXTS, st.none(), st.lists(TEXTS, max_size=2))), st.data())
def test_the_digest_of_dimensions_does_not_know_their_order(
    world: World, document: dict[str, Any], data: st.DataObject
) -> None:
    shuffled = dict(data.draw(st.permutations(list(document.items()))))
    spaced = json.dumps(shuffled, indent=2)
    assert world.one(
        "select app.json_digest(%s::jsonb) = app.json_digest(%s::jsonb)",
        json.dumps(document),
        spaced,
    )
    assert world.one(
        "select app.json_digest(%s::jsonb) <> app.json_digest(%s::jsonb)",
        json.dumps(document),
        json.dumps(document | {"another key": "value"}),
    )


def test_an_insight_may_be_about_another_tenants_dashboard_and_outlives_it(world: World) -> None:
    dashboard = world.dashboard()
    row = world.row_of("app.ai_insights")
    insight = world.add(
        "app.ai_insights", **row | {"user_id": world.other, "dashboard_id": dashboard}
    )
    world.connection.execute("delete from app.dashboards where id = %s", [dashboard])
    assert world.one("select dashboard_id is null from app.ai_insights where id = %s", insight)


def test_each_table_with_updated_at_has_the_trigger(world: World) -> None:
    """Errata, updated_at triggers on five tables only."""
    rows = world.connection.execute(
        """
        select columns.attrelid::regclass::text
        from pg_attribute as columns
        inner join pg_class as tables on columns.attrelid = tables.oid and tables.relkind = 'r'
        where
            columns.attname = 'updated_at'
            and tables.relname ~ '^(dashboard|report_data_|ai_insights)'
            and not exists (
                select from pg_trigger
                where
                    tgrelid = tables.oid and tgname like 'update_%_updated_at' and tgenabled = 'O'
            )
        """
    ).fetchall()
    assert rows == []
    share(world, world.dashboard())
    stamps = "select updated_at > created_at from app.dashboard_shares"
    world.connection.execute("update app.dashboard_shares set permission_level = 'view'")
    assert not world.one(stamps)
    world.connection.execute("update app.dashboard_shares set permission_level = 'edit'")
    assert world.one(stamps)


SPECIFIED = """
dashboards dashboard_widgets report_data_collections report_data_weeks
report_data_aggregates ai_insights dashboard_shares
idx_dashboards_user_id idx_dashboards_template_type idx_dashboards_is_public
idx_dashboard_widgets_dashboard_id idx_dashboard_widgets_type
idx_report_collections_workflow_id idx_report_collections_instance_id
idx_report_collections_status idx_report_collections_user_id
idx_report_weeks_collection_id idx_report_weeks_date_range idx_report_weeks_status
idx_report_aggregates_workflow_instance idx_report_aggregates_type_date
idx_report_aggregates_key_date
idx_ai_insights_user_id idx_ai_insights_dashboard_id idx_ai_insights_created_at
idx_ai_insights_type idx_dashboard_shares_shared_with
"""


def test_the_migration_made_every_table_and_index_that_the_specification_names(
    world: World,
) -> None:
    """Errata, the migration is comments: green and empty."""
    names = SPECIFIED.split()
    missing = world.connection.execute(
        "select name from unnest(%s::text[]) as names (name)"
        " where coalesce(to_regclass('app.' || name), to_regclass('reporting.' || name)) is null",
        [names],
    )
    assert missing.fetchall() == []
