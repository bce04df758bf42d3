"""The dbt models on a real Postgres: whatever happens to slices, the summaries are exact."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dbt.cli.main import dbtRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.rows import dict_row

from flows.errors import Busy
from flows.settings import PROJECT_ROOT, Connection
from flows.warehouse import dbt_build
from tests.conftest import cloned_database
from tests.integration.landing_rows import (
    UK,
    US,
    Landing,
    Row,
    SliceOf,
    Weeks,
    expected_period,
    expected_weekly,
    first_day,
    last_day,
    week,
)

SUMMARIES = ("weekly_summary", "monthly_summary", "quarterly_summary")
MODELS = ("--select", "+weekly_summary", "+monthly_summary", "+quarterly_summary")
KEY = ("account_id", "period_start", "marketplace_id", "asin", "query_digest")

DECEMBER_22, DECEMBER_29 = date(2024, 12, 22), date(2024, 12, 29)
JANUARY_5, JANUARY_12 = date(2025, 1, 5), date(2025, 1, 12)
RED, BLUE = "B000000RED", "B00000BLUE"


class Dbt:
    """dbt in this process, as `dbt …` from the project's root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def arguments(self, *arguments: str) -> list[str]:
        return [
            *arguments,
            *("--project-dir", str(PROJECT_ROOT / "dbt_project")),
            *("--profiles-dir", str(PROJECT_ROOT)),
            *("--target-path", str(self.folder)),
            *("--log-path", str(self.folder)),
            "--quiet",
        ]

    def invoke(self, *arguments: str) -> Any:
        return dbtRunner().invoke(self.arguments(*arguments))

    def __call__(self, *arguments: str) -> Any:
        result = self.invoke(*arguments)
        assert result.success, result.exception or [
            (each.node.name, each.message)
            for each in result.result
            if each.status in ("error", "fail")
        ]
        return result.result

    def run(self, *flags: str) -> None:
        """The summaries and what is upstream of them."""
        self("run", *MODELS, *flags)


@pytest.fixture
def database(
    server: Connection, template: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connection]:
    """A migrated, empty database of the same name for each test.

    The name is part of what dbt has parsed: with another one it would parse the project again.
    """
    with cloned_database(server, template, f"wh_dbt_{os.getpid()}", monkeypatch) as connection:
        yield connection


@pytest.fixture(scope="session")
def dbt(tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    return Dbt(tmp_path_factory.mktemp("dbt"))


@pytest.fixture
def landing(database: Connection) -> Iterator[Landing]:
    with psycopg.connect(**database.libpq(), autocommit=True) as connection:
        connection.execute("set time zone 'UTC'")
        yield Landing(connection)


def rows_of(landing: Landing, relation: str, columns: str = "*") -> list[dict[str, Any]]:
    with landing.connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(f"select {columns} from {relation}").fetchall()


def by_key(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    keyed = {tuple(row[column] for column in KEY): row for row in rows}
    assert len(keyed) == len(rows), "two rows of one grain"
    return keyed


def assert_summaries_are_exact(landing: Landing) -> None:
    """The three summaries say what is in force, and nothing is left to rebuild."""
    assert_summaries_hold(landing, landing)
    assert {
        row["wanted_load_id"]: row["load_id"]
        for row in rows_of(landing, "sqp.slice_builds", "wanted_load_id, load_id")
    } == {
        load_id: load_id
        for about, (load_id, _) in landing.in_force.items()
        if about.period_type == "WEEK" and about.report_view == "asin"
    }


def assert_summaries_hold(landing: Landing, weeks: Weeks) -> None:
    """Every row and every column of the three summaries, against the reference."""
    expected = {
        "weekly_summary": expected_weekly(weeks),
        "monthly_summary": expected_period(weeks, "month"),
        "quarterly_summary": expected_period(weeks, "quarter"),
    }
    for summary, rows in expected.items():
        held = rows_of(landing, f"sqp.{summary}")
        for row in held:
            assert row.pop("updated_at") <= datetime.now(UTC)
            if summary == "weekly_summary":
                assert row.pop("sync_log_id")
                assert row.pop("last_synced_at")
                row.pop("bigquery_sync_id")
        assert by_key(held) == by_key(rows), summary
    waiting = {row["model_name"] for row in rows_of(landing, "sqp.changed_queries", "model_name")}
    assert not waiting & set(SUMMARIES)


def versions(landing: Landing) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Where and when each summary row was written: changes when a row is rewritten."""
    return {
        (summary, *(row[column] for column in KEY)): (row["ctid"], row["xmin"], row["updated_at"])
        for summary in SUMMARIES
        for row in rows_of(
            landing, f"sqp.{summary}", "tableoid, ctid, xmin::text, updated_at, " + ", ".join(KEY)
        )
    }


def query(text: str, **values: Any) -> Row:
    return replace(Row(text), **values)


def test_every_change_of_a_slice_gives_what_a_full_rebuild_gives(
    landing: Landing, dbt: Dbt
) -> None:
    red = week(DECEMBER_29, RED)

    def rebuilt(what: str) -> None:
        dbt.run()
        try:
            assert_summaries_are_exact(landing)
        except AssertionError as error:
            raise AssertionError(f"after: {what}\n{error}") from error

    landing.deliver(red, [query("red shoe"), query("running shoe", own_impressions=0, clicks=0)])
    landing.deliver(week(JANUARY_5, RED), [query("red shoe", impressions=3000, volume=None)])
    landing.deliver(week(JANUARY_12, RED), [query("red shoe", click_price="12.34", clicks=7)])
    rebuilt("the first deliveries")

    landing.deliver(week(JANUARY_5, BLUE), [query("red shoe", impressions=3100, score=None)])
    landing.deliver(week(JANUARY_12, BLUE), [query("blue shoe", own_click_price=None)])
    rebuilt("another ASIN with the same query widens its market")

    landing.deliver(week(JANUARY_5, RED, account="other"), [query("red shoe", clicks=99)])
    landing.deliver(week(JANUARY_5, RED, marketplace=UK), [query("red shoe", currency="GBP")])
    rebuilt("another account and marketplace, with markets of their own")

    landing.deliver(red, [query("red shoe", own_clicks=9), query("trail shoe")])
    rebuilt("a restated week: one row changed, one vanished, one new")

    landing.deliver(week(JANUARY_5, BLUE), [])
    rebuilt("an emptied slice")

    landing.deliver(week(JANUARY_12, RED, marketplace=UK), [query("red shoe", currency="EUR")])
    rebuilt("two currencies in one period, whose prices are not mixed")

    landing.deliver(week(JANUARY_12, BLUE), [])
    landing.deliver(week(JANUARY_12, BLUE, marketplace=UK), [query("blue shoe", currency="EUR")])
    rebuilt("a slice that moved to another marketplace")

    landing.deliver(red, [query("green shoe")], held=True)
    rebuilt("a held slice, of which the version in force before stays")
    landing.accept(red)
    rebuilt("the held slice accepted after all")

    landing.deliver(week(DECEMBER_22, BLUE), [query("red shoe")], held=True)
    rebuilt("a new slice that was never accepted")

    landing.deliver(SliceOf("acme", US, "MONTH", date(2025, 1, 1), RED), [query("red shoe")])
    landing.deliver(SliceOf("acme", US, "WEEK", JANUARY_5, "Shoes", "brand"), [query("red shoe")])
    rebuilt("Amazon's own month and a brand's week, which are no part of the sums")

    dbt.run("--full-refresh")
    assert_summaries_are_exact(landing)


def test_a_full_refresh_builds_with_its_unit_tests(landing: Landing, dbt: Dbt) -> None:
    landing.deliver(week(JANUARY_5, RED), [query("red shoe")])
    dbt.run()
    results = dbt("build", *MODELS, "--full-refresh", "--exclude-resource-type", "test")
    assert {str(each.status) for each in results} <= {"success", "pass"}
    assert [each for each in results if each.node.resource_type == "unit_test"]


def test_a_rate_takes_sums_and_differences(database: Connection, dbt: Dbt) -> None:
    [shown] = dbt("show", "--inline", "select {{ ratio('7 - 4', '2 + 4') }} as rate")
    assert shown.agate_table.columns["rate"][0] == Decimal("0.5")


def test_purchases_far_above_clicks_are_no_rate(landing: Landing, dbt: Dbt) -> None:
    """A ratio that numeric(10, 6) cannot hold is left out instead of failing every slice."""
    landing.deliver(week(JANUARY_5, RED), [query("red shoe", own_clicks=1, own_purchases=20_000)])
    dbt.run()
    assert rows_of(landing, "sqp.weekly_summary", "avg_cvr, total_purchases") == [
        {"avg_cvr": None, "total_purchases": 20_000}
    ]


def test_only_rows_that_differ_are_written(landing: Landing, dbt: Dbt) -> None:
    landing.deliver(week(JANUARY_5, RED), [query("red shoe"), query("trail shoe")])
    landing.deliver(week(JANUARY_12, BLUE), [query("blue shoe"), query("trail shoe")])
    dbt.run()
    first = versions(landing)
    first_load = landing.in_force[week(JANUARY_5, RED)][0]

    dbt.run()
    assert versions(landing) == first, "a second run with nothing new"
    dbt.run("--full-refresh")
    assert versions(landing) == first, "a full refresh with nothing new"

    second_load = landing.deliver(
        week(JANUARY_5, RED), [query("red shoe"), query("trail shoe", own_clicks=9)]
    )
    dbt.run()
    changed = {key for key, version in versions(landing).items() if version != first[key]}
    assert {(key[0], key[4]) for key in changed} == {(summary, RED) for summary in SUMMARIES}, (
        "market totals did not change, so the other ASIN's rows stay"
    )
    assert {key[5] for key in changed} == {query("trail shoe").digest}
    assert {
        (row["query"], row["sync_log_id"])
        for row in rows_of(landing, "sqp.weekly_summary", "*")
        if row["asin"] == RED
    } == {("red shoe", first_load), ("trail shoe", second_load)}
    assert_summaries_are_exact(landing)


def test_full_refresh_keeps_the_tables_and_removes_what_does_not_belong(
    landing: Landing, dbt: Dbt
) -> None:
    for start in (DECEMBER_29, JANUARY_5):
        landing.deliver(week(start, RED), [query("red shoe"), query("trail shoe")])
    dbt.run()
    landing.connection.execute("grant select on sqp.monthly_summary to pg_read_all_data")
    before, untouched = shape(landing), versions(landing)

    landing.connection.execute(
        "insert into sqp.weekly_summary select period_start, period_end, 'ghost', 'B0000GHOST',"
        " 1, 1, 1, 0, 0, 0, 0, 0, account_id, marketplace_id, '\\x00', 1, 1, 1, 1, 1, 1, 1, 0, 0,"
        " 1, 1, 1, 1, 1, 1, 'USD', sync_log_id, bigquery_sync_id, last_synced_at, updated_at"
        " from sqp.weekly_summary limit 1"
    )
    landing.connection.execute(
        "update sqp.quarterly_summary set total_clicks = 4711 where query = 'red shoe'"
    )
    landing.connection.execute("delete from sqp.monthly_summary where query = 'trail shoe'")
    dbt.run("--full-refresh")

    assert_summaries_are_exact(landing)
    assert shape(landing) == before
    assert all(
        version == untouched[key]
        for key, version in versions(landing).items()
        if key[0] == "weekly_summary"
    )


def shape(landing: Landing) -> dict[str, Any]:
    """The tables' identity, kind, partitions, indexes, constraints and grants."""
    tables = rows_of(
        landing,
        "pg_class where relnamespace = 'sqp'::regnamespace and relname like '%ly_summary%'",
        "oid, relname, relkind, relispartition, relacl::text, relnatts",
    )
    kinds = {row["relname"]: row["relkind"] for row in tables if not row["relispartition"]}
    parents = {name: kind for name, kind in kinds.items() if name in SUMMARIES}
    assert parents == dict.fromkeys(SUMMARIES, "p")
    indexes = rows_of(
        landing, "pg_indexes where schemaname = 'sqp'", "tablename, indexname, indexdef"
    )
    for summary in SUMMARIES:
        definitions = [row["indexdef"] for row in indexes if row["tablename"] == summary]
        assert any(
            row.startswith("CREATE UNIQUE INDEX")
            and set(row[row.rindex("(") + 1 : -1].split(", ")) == set(KEY)
            for row in definitions
        ), definitions
    return {"tables": sorted(map(str, tables)), "indexes": sorted(map(str, indexes))}


def test_the_unique_index_is_the_guard(landing: Landing, dbt: Dbt) -> None:
    landing.deliver(week(JANUARY_5, RED), [query("red shoe")])
    dbt.run()
    for summary in SUMMARIES:
        with pytest.raises(psycopg.errors.UniqueViolation):
            landing.connection.execute(f"insert into sqp.{summary} select * from sqp.{summary}")


def test_an_empty_build_touches_nothing(landing: Landing, dbt: Dbt) -> None:
    landing.deliver(week(JANUARY_5, RED), [query("red shoe")])
    dbt.run("--empty")
    assert rows_of(landing, "sqp.weekly_summary") == []
    assert rows_of(landing, "sqp.slice_builds", "load_id") == [{"load_id": None}]
    dbt.run()
    assert_summaries_are_exact(landing)

    before = versions(landing)
    landing.deliver(week(JANUARY_5, RED), [query("blue shoe")])
    dbt.run("--empty")
    dbt.run("--empty", "--full-refresh")
    assert versions(landing) == before
    dbt.run()
    assert_summaries_are_exact(landing)


def test_a_model_that_fails_takes_up_its_slices_in_the_next_run(landing: Landing, dbt: Dbt) -> None:
    landing.deliver(week(JANUARY_5, RED), [query("red shoe"), query("trail shoe")])
    dbt.run()
    landing.connection.execute(
        "alter table sqp.monthly_summary add constraint broken check (query <> 'blue shoe')"
    )
    landing.deliver(week(JANUARY_5, RED), [query("red shoe"), query("blue shoe")])
    assert not dbt.invoke("run", *MODELS).success
    assert {row["query"] for row in rows_of(landing, "sqp.monthly_summary", "query")} == {
        "red shoe",
        "trail shoe",
    }

    landing.connection.execute("alter table sqp.monthly_summary drop constraint broken")
    landing.deliver(week(JANUARY_5, RED), [query("red shoe", own_clicks=1)])
    dbt.run()
    assert_summaries_are_exact(landing)


def test_within_a_build_the_triggers_stand_aside(landing: Landing, dbt: Dbt) -> None:
    """A month is not computed by the triggers and then by its model: its model alone does it."""
    landing.deliver(week(JANUARY_5, RED), [query("red shoe")])
    dbt.run()
    before = rows_of(landing, "sqp.monthly_summary")
    landing.deliver(week(JANUARY_12, RED), [query("red shoe")])
    dbt("run", "--select", "+weekly_summary")
    assert rows_of(landing, "sqp.monthly_summary") == before
    dbt.run()
    assert_summaries_are_exact(landing)


def test_a_dropped_summary_is_built_again(landing: Landing, dbt: Dbt) -> None:
    landing.deliver(week(JANUARY_5, RED), [query("red shoe")])
    dbt.run()
    for flags in ([], ["--empty"]):
        landing.connection.execute("drop table sqp.monthly_summary, sqp.weekly_summary cascade")
        dbt.run(*flags)
        dbt.run()
        assert_summaries_are_exact(landing)


def test_a_view_is_replaced_only_where_it_says_something_else(landing: Landing, dbt: Dbt) -> None:
    """What has its name makes room for it, whatever it is; a view that says the same stays."""
    landing.deliver(week(JANUARY_5, RED), [query("red shoe")])
    dbt.run()
    views = (
        "select oid from pg_class where relkind = 'v' and relnamespace = 'staging'::regnamespace"
    )
    before = set(landing.connection.execute(views))
    dbt.run()
    assert before
    assert set(landing.connection.execute(views)) == before

    name = "staging.stg_landing__sqp_slices"
    for other in ("view", "materialized view", "table"):
        landing.connection.execute(
            f"drop view {name} cascade; create {other} {name} as select 1 as one"
        )
        landing.deliver(week(JANUARY_12, RED), [query("red shoe", own_clicks=len(other))])
        dbt.run()
        assert_summaries_are_exact(landing)
    relations = "select oid from pg_class where relname like '%\\_\\_dbt\\_%'"
    assert not list(landing.connection.execute(relations))


def test_two_runs_at_once_end_in_one_truth(landing: Landing, dbt: Dbt, tmp_path: Path) -> None:
    weeks = [JANUARY_5 + timedelta(weeks=number) for number in range(3)]
    for start in weeks:
        landing.deliver(week(start, RED), [query("red shoe"), query("trail shoe")])
    dbt.run()
    for start in weeks:
        landing.deliver(week(start, RED), [query("red shoe", own_clicks=1), query("new shoe")])

    others = [Dbt(shutil.copytree(dbt.folder, tmp_path / name)) for name in ("one", "two")]
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "dbt.cli.main", *other.arguments("run", *MODELS)],
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for other in others
    ]
    said = [run.communicate()[0] for run in runs]
    assert any(run.returncode == 0 for run in runs), "\n".join(said)
    dbt.run()
    assert_summaries_are_exact(landing)


def test_a_build_beside_another_leaves_as_busy_and_its_rest_is_taken_up(
    landing: Landing, dbt: Dbt
) -> None:
    landing.deliver(week(JANUARY_5, RED), [query("red shoe")])
    dbt.run()
    landing.deliver(week(JANUARY_5, RED), [query("red shoe", own_clicks=1)])
    dbt("run", "--select", "+weekly_summary", "int_sqp__queries_to_rebuild")
    before = versions(landing)

    refused = dbt.invoke("run", "--select", "monthly_summary")  # what to rebuild, another froze
    assert isinstance(dbt_build.failure(list(refused.result)), Busy)
    assert versions(landing) == before
    dbt.run()
    assert_summaries_are_exact(landing)


@pytest.mark.parametrize(
    "change",
    [
        "avg_ctr = 'NaN'",
        "asin_median_click_price = 'NaN'",
        "total_clicks = null",
        "total_clicks = -1",
        "total_query_impression_count = 1000000000001",
        "impression_share = 'Infinity'",
    ],
)
def test_nothing_that_is_no_number_enters_a_summary(
    landing: Landing, dbt: Dbt, change: str
) -> None:
    landing.deliver(week(JANUARY_5, RED), [query("red shoe", clicks=10**12 - 1, own_clicks=7)])
    dbt.run()
    for summary in SUMMARIES:
        if summary != "weekly_summary" and "1000000000001" in change:
            continue  # a quarter of weeks may have as many
        with pytest.raises((psycopg.errors.IntegrityError, psycopg.errors.DataError)):
            landing.connection.execute(f"update sqp.{summary} set {change}")
    assert_summaries_are_exact(landing)


def test_one_restated_slice_reads_and_writes_its_own_periods(landing: Landing, dbt: Dbt) -> None:
    """Whatever the history: partitions of other months and quarters are not even looked at."""
    starts = [JANUARY_5 + timedelta(weeks=number) for number in range(40)]
    for start in starts:
        for asin in (RED, BLUE):
            landing.deliver(week(start, asin), [query("red shoe"), query(f"shoe {start}")])
    dbt.run()
    restated = starts[20]
    landing.deliver(week(restated, RED), [query("red shoe", own_clicks=1)])
    versions_before = versions(landing)
    read_before = rows_read(landing)
    log_before = landing.value("select pg_current_wal_insert_lsn() - '0/0'")
    dbt.run()
    log = landing.value("select pg_current_wal_insert_lsn() - '0/0'") - log_before
    read = rows_read(landing)
    touched = {name for name in read if read[name] != read_before[name]}
    month, quarter = f"{restated:%Y_%m}", first_day(restated, "quarter")
    weeks_of_quarter = {
        f"weekly_summary_{quarter.year}_{quarter.month + number:02}" for number in range(3)
    }
    assert touched - weeks_of_quarter == {
        f"monthly_summary_{month}",
        f"quarterly_summary_{quarter:%Y_%m}",
    }
    after = versions(landing)
    changed = {
        key for key in versions_before.keys() | after if versions_before.get(key) != after.get(key)
    }
    assert {(key[0], key[2]) for key in changed} == {
        ("weekly_summary", restated),
        ("monthly_summary", first_day(restated, "month")),
        ("quarterly_summary", quarter),
    }
    assert log < 1_500_000, "bytes of write-ahead log, most of it dbt's own tables"
    months_of_quarter = {name.replace("weekly", "monthly") for name in weeks_of_quarter}
    assert planned(landing, dbt, "monthly_summary") == {f"weekly_summary_{month}"}
    assert planned(landing, dbt, "quarterly_summary") <= weeks_of_quarter | months_of_quarter
    assert_summaries_are_exact(landing)


def planned(landing: Landing, dbt: Dbt, summary: str) -> set[str]:
    """The partitions that the plan of a summary's last build reads."""
    compiled = dbt.folder / f"compiled/warehouse/models/sqp/summaries/{summary}.sql"
    [[plan]] = landing.connection.execute(
        f"explain (format json) {compiled.read_text('utf-8')}"  # type: ignore[arg-type]
    ).fetchall()
    return {name for name in relations(plan) if re.search(r"ly_summary_\d", name)}


def relations(plan: Any) -> Iterator[str]:
    """Every relation that a plan reads."""
    if isinstance(plan, list):
        for part in plan:
            yield from relations(part)
    elif isinstance(plan, dict):
        if "Relation Name" in plan:
            yield plan["Relation Name"]
        for part in plan.values():
            yield from relations(part)


def rows_read(landing: Landing) -> dict[str, int]:
    """Rows read of each partition of the summaries, as the server counts them."""
    landing.connection.execute("select pg_stat_force_next_flush()")
    landing.connection.execute("select pg_stat_clear_snapshot()")
    return {
        row["relname"]: row["rows_read"]
        for row in rows_of(
            landing,
            "pg_stat_user_tables where schemaname = 'sqp' and relname ~ 'ly_summary_[0-9]'",
            "relname, seq_tup_read + coalesce(idx_tup_fetch, 0) as rows_read",
        )
    }


QUERIES = ("red shoe", "blue shoe", "trail shoe")
COUNTS = st.integers(0, 20)


@st.composite
def delivered_rows(draw: st.DrawFn) -> list[Row]:
    rows = []
    for text in draw(st.lists(st.sampled_from(QUERIES), unique=True)):
        own = [draw(COUNTS) for _ in range(4)]
        total = [own_count + draw(COUNTS) for own_count in own]
        names = ("impressions", "clicks", "cart_adds", "purchases")
        rows.append(
            Row(
                text,
                **{f"own_{name}": count for name, count in zip(names, own, strict=True)},
                **dict(zip(names, total, strict=True)),
                score=draw(st.none() | st.integers(1, 100)),
                volume=draw(st.none() | st.integers(0, 1000)),
                click_price=draw(st.sampled_from([None, "9.99", "0.3333", "120"])),
                own_click_price=draw(st.sampled_from([None, "8.01", "15.5"])),
            )
        )
    return rows


DELIVERIES = st.lists(
    st.tuples(
        st.builds(
            week,
            st.sampled_from([DECEMBER_22, DECEMBER_29, JANUARY_5]),
            st.sampled_from([RED, BLUE]),
            account=st.sampled_from(["acme", "other"]),
        ),
        delivered_rows(),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@settings(
    max_examples=8,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(runs=st.lists(DELIVERIES, min_size=1, max_size=3))
def test_any_sequence_of_deliveries_gives_what_the_last_ones_say(
    landing: Landing, dbt: Dbt, runs: list[list[tuple[SliceOf, list[Row], bool]]]
) -> None:
    landing.reset()
    for deliveries in runs:
        for about, rows, held in deliveries:
            landing.deliver(about, rows, held=held)
        dbt.run()
        assert_summaries_are_exact(landing)


def test_a_whole_build_passes_and_its_test_results_are_rows(
    landing: Landing, dbt: Dbt, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.deliver(week(JANUARY_5, RED), [query("red shoe", own_purchases=12, purchases=40)])
    landing.deliver(SliceOf("acme", US, "MONTH", date(2025, 1, 1), RED), [query("red shoe")])
    landing.deliver(SliceOf("acme", US, "QUARTER", date(2025, 1, 1), RED), [query("red shoe")])
    landing.deliver(SliceOf("acme", US, "WEEK", JANUARY_5, "Shoes", "brand"), [query("red shoe")])
    sync_log_id = landing.start_load()

    monkeypatch.setenv("WAREHOUSE_SYNC_LOG_ID", str(sync_log_id))
    results = dbt("build")

    tests = {each.node.name: each for each in results if each.node.resource_type.endswith("test")}
    checks = {row["check_name"]: row for row in rows_of(landing, "sqp.data_quality_checks")}
    assert set(checks) == set(tests)
    assert {row["sync_log_id"] for row in checks.values()} == {sync_log_id}
    assert {row["check_type"] for row in checks.values()} == {"dbt_test"}
    not_passed = [row for row in checks.values() if row["check_status"] != "passed"]
    assert [
        (row["check_name"], row["check_status"], row["source_value"], row["target_value"])
        for row in not_passed
    ] == [("weekly_summary_purchases_within_clicks", "warning", 0, 1)]
    warning = not_passed[0]
    assert warning["table_name"] == "sqp.weekly_summary"
    assert "total_purchases <= total_clicks" in warning["check_query"]
    assert Path(PROJECT_ROOT, warning["check_metadata"]["compiled_path"]).exists()
    assert checks["not_null_data_freshness_is_stale"]["column_name"] == "is_stale"

    for view, period_end in (
        ("native_monthly_asin", last_day(JANUARY_5, "month")),
        ("native_quarterly_asin", last_day(JANUARY_5, "quarter")),
        ("brand_weekly", JANUARY_5 + timedelta(days=6)),
    ):
        (row,) = rows_of(landing, f"sqp.{view}")
        assert (row["period_end"], row["total_clicks"], str(row["click_share"])) == (
            period_end,
            8,
            "0.080000",
        )
    assert not landing.value("select to_regnamespace('model_without_a_folder') is not null")
    assert landing.value("select obj_description('sqp.weekly_summary'::regclass)").startswith(
        "One row per account"
    )


def test_a_failing_test_is_recorded_word_for_word(landing: Landing, dbt: Dbt) -> None:
    dbt.run()
    said = 'it\'s {{ 1 / 0 }} %s \\u0000 "é" \\ $$; drop table sqp.slice_builds; --'
    landing.connection.execute(
        "create function public.says() returns bytea language plpgsql as $body$"
        f" begin raise exception using message = {sql.Literal(said).as_string()};"
        " end $body$"
    )
    landing.connection.execute("drop view if exists staging.stg_landing__sqp_brand cascade")
    landing.connection.execute(
        "create view staging.stg_landing__sqp_brand as select public.says() as query_digest;"
        "alter view staging.stg_landing__sqp_brand owner to dbt"
    )
    assert not dbt.invoke("test", "--select", "stg_landing__sqp_brand").success
    (check,) = rows_of(landing, "sqp.data_quality_checks")
    assert check["check_status"] == "failed"
    assert said in check["check_message"]
    assert check["target_value"] is None
    assert check["sync_log_id"] is None


def test_nothing_is_recorded_by_commands_that_test_nothing(landing: Landing, dbt: Dbt) -> None:
    dbt.run()
    dbt("compile")
    dbt("docs", "generate")
    assert rows_of(landing, "sqp.data_quality_checks") == []


def test_freshness_and_sync_status(landing: Landing, dbt: Dbt) -> None:
    dbt("run")
    freshness = rows_of(landing, "sqp.data_freshness")
    assert {row["table_name"] for row in freshness} == set(SUMMARIES)
    assert all(row["is_stale"] and row["days_old"] is None for row in freshness)
    status = {row["sync_type"]: row for row in rows_of(landing, "sqp.sync_status")}
    assert set(status) == {"weekly", "monthly", "quarterly"}
    assert all(row["is_due"] and row["last_attempt_at"] is None for row in status.values())

    today = datetime.now(UTC).date()
    sunday = today - timedelta(days=(today.weekday() + 1) % 7 + 21)
    landing.deliver(week(sunday, RED), [query("red shoe")])
    landing.connection.execute(
        "update sqp.sync_log set sync_status = 'completed', slices_changed = 1,"
        " started_at = now() - interval '3 hours', completed_at = now() - interval '2 hours'"
    )
    failed = landing.start_load()
    landing.connection.execute(
        "update sqp.sync_log set sync_status = 'failed', completed_at = now(),"
        " error_message = 'gone' where id = %s",
        [failed],
    )
    dbt.run()

    freshness = {row["table_name"]: row for row in rows_of(landing, "sqp.data_freshness")}
    weekly = freshness["weekly_summary"]
    assert weekly["latest_period"] == sunday + timedelta(days=6)
    assert weekly["days_old"] == (today - weekly["latest_period"]).days
    assert weekly["is_stale"] == (weekly["days_old"] > 14)
    assert not freshness["monthly_summary"]["is_stale"]
    assert not freshness["quarterly_summary"]["is_stale"]
    weekly = {row["sync_type"]: row for row in rows_of(landing, "sqp.sync_status")}["weekly"]
    assert (weekly["last_sync_log_id"], weekly["last_attempt_status"]) == (failed, "failed")
    assert weekly["last_attempt_error"] == "gone"
    assert not weekly["is_due"], "the success two hours ago still counts"
    assert weekly["next_sync_due"] - weekly["last_success_at"] == timedelta(days=1)
    assert weekly["last_change_at"] == weekly["last_success_at"] < weekly["last_attempt_at"]


def test_each_account_shows_how_fresh_and_how_complete_it_is(landing: Landing, dbt: Dbt) -> None:
    today = datetime.now(UTC).date()
    sunday = today - timedelta(days=(today.weekday() + 1) % 7 + 21)
    rows, globex = [query("red shoe")], {"account": "globex", "marketplace": UK}
    for about in (
        week(sunday - timedelta(weeks=4), RED),
        week(sunday, RED),
        week(sunday - timedelta(weeks=1), RED, **globex),
        week(sunday - timedelta(weeks=1), BLUE, **globex),
        week(sunday, RED, **globex),
    ):
        landing.deliver(about, rows)
    landing.deliver(week(sunday, BLUE, **globex), rows, held=True)
    landing.deliver(week(sunday, RED, account="held"), rows, held=True)
    dbt("run", "--select", *MODELS[1:], "account_freshness", "week_gaps", "incomplete_weeks")

    loads = landing.connection.execute(
        "select account_id, max(loaded_at),"
        " max(loaded_at) filter (where slice_status = 'accepted'), max(accepted_at)"
        " from landing.sqp_slices group by account_id"
    ).fetchall()
    fresh = {
        (row["account_id"], row["table_name"]): row
        for row in rows_of(landing, "sqp.account_freshness")
    }
    assert len(fresh) == 3 * len(loads) == 9
    for account, attempt, success, change in loads:
        first = sunday - timedelta(weeks={"acme": 4, "globex": 1}.get(account, 0))
        for table, period, days in zip(
            SUMMARIES, ("week", "month", "quarter"), (14, 45, 106), strict=True
        ):
            row = fresh[account, table]
            times = (row["last_attempt_at"], row["last_success_at"], row["last_change_at"])
            assert times == (attempt, success, change)
            if account == "held":
                assert (row["first_period"], row["latest_period"], row["days_old"]) == (None,) * 3
                assert row["is_stale"]
                assert row["is_due"]
                continue
            if period == "week":
                assert row["first_period"] == first
                assert row["latest_period"] == sunday + timedelta(days=6)
            else:
                assert row["first_period"] == first_day(first, period)
                assert row["latest_period"] == last_day(sunday, period)
            age = (today - row["latest_period"]).days
            assert (row["days_old"], row["is_stale"]) == (max(age, 0), age > days)
            assert not row["is_due"]
            assert row["next_sync_due"] == success + timedelta(days=1)

    assert [
        (
            row["account_id"],
            row["missing_weeks"],
            row["first_missing_week"],
            row["last_missing_week"],
        )
        for row in rows_of(landing, "sqp.week_gaps")
    ] == [("acme", 3, sunday - timedelta(weeks=3), sunday - timedelta(weeks=1))]
    (incomplete,) = rows_of(landing, "sqp.incomplete_weeks")
    assert {name: incomplete[name] for name in ("account_id", "period_start", "missing_asins")} == {
        "account_id": "globex",
        "period_start": sunday,
        "missing_asins": 1,
    }
    assert (incomplete["delivered_asins"], incomplete["first_missing_asin"]) == (1, BLUE)
    assert incomplete["is_overdue"]


def test_quality_verdicts_say_what_newly_fails(landing: Landing, dbt: Dbt) -> None:
    dbt("run", "--select", "quality_verdicts")

    def check(name: str, *statuses: str) -> None:
        run = landing.start_load()
        for status in statuses:
            landing.connection.execute(
                "insert into sqp.data_quality_checks (sync_log_id, check_type, check_name,"
                " check_status) values (%s, 'range', %s, %s)",
                [run, name, status],
            )

    check("newly", "passed", "warning")
    check("newly", "passed", "failed")
    check("still", "failed")
    check("still", "failed", "passed")
    check("fixed", "failed")
    check("fixed", "passed")
    check("first", "failed")
    verdicts = {row["check_name"]: row for row in rows_of(landing, "sqp.quality_verdicts")}
    assert {
        name: (row["previous_verdict"], row["verdict"], row["is_newly_failing"])
        for name, row in verdicts.items()
    } == {
        "newly": ("warning", "failed", True),
        "still": ("failed", "failed", False),
        "fixed": ("failed", "passed", False),
        "first": (None, "failed", True),
    }
    assert (verdicts["still"]["results"], verdicts["still"]["failed_results"]) == (2, 1)


COMMENTS = """
    pg_description
    where objoid in ('sqp.weekly_summary'::regclass, 'sqp.query_weeks'::regclass)
    order by objoid, objsubid
"""


def test_comments_are_written_where_they_differ_and_nowhere_else(
    landing: Landing, dbt: Dbt
) -> None:
    dbt("run", "--select", "+query_weeks")
    first = rows_of(landing, COMMENTS, "xmin::text, objsubid, description")
    assert len(first) > 40
    landing.connection.execute("comment on column sqp.weekly_summary.asin is 'something else'")
    landing.connection.execute("comment on column sqp.query_weeks.query is null")
    landing.connection.execute("comment on table sqp.query_weeks is 'it''s $$another$$'")
    dbt("run", "--select", "+query_weeks")
    second = rows_of(landing, COMMENTS, "xmin::text, objsubid, description")
    assert [row["description"] for row in second] == [row["description"] for row in first]
    untouched = [row for row in second if row in first]
    assert len(untouched) == len(first) - 3


def test_the_columns_that_are_described_are_those_that_there_are(
    landing: Landing, dbt: Dbt
) -> None:
    dbt("run")
    manifest = json.loads((dbt.folder / "manifest.json").read_text())
    ours = [
        *(
            node
            for node in manifest["nodes"].values()
            if node["resource_type"] in ("model", "seed")
        ),
        *manifest["sources"].values(),
    ]
    for node in ours:
        columns = {
            row["attname"]
            for row in rows_of(
                landing,
                f"pg_attribute where attrelid = to_regclass('{node['schema']}.{node['name']}')"
                " and attnum > 0 and not attisdropped",
                "attname",
            )
        }
        if columns:
            assert columns == set(node["columns"]), node["name"]
