"""The models of both engines give the same rows, and BigQuery's SQL is what BigQuery accepts.

One module builds three rounds of deliveries on Postgres and on the local engine; the tests look at
the rows that came out and at the statements that were sent.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dbt.cli.main import dbtRunner
from google.cloud import bigquery
from google.oauth2.credentials import Credentials
from psycopg.rows import dict_row

from flows.settings import PROJECT_ROOT, Connection, get_settings
from flows.sources.bigquery_client import connect_bigquery
from flows.warehouse.bigquery_tables import SMALL_SUMMARIES, publish_landing, publish_summaries
from tests.bigquery.engine import PROJECT, Engine, engine_or_skip
from tests.conftest import cloned_database
from tests.integration.landing_rows import Landing, Row, week
from tests.integration.test_marts import ASINS, LAST_WEEK, WEEKS, delivered, history

TOLERANCE = Decimal("1e-9")
NOT_COMPARED = {"updated_at"}
EMPTIED_MONTH = [start for start in WEEKS if (start.year, start.month) == (2025, 1)]
TABLES = ("path:models/intermediate", "path:models/sqp/summaries", "path:models/sqp/marts")
FIRST = ("--select", "+path:models/sqp/summaries", *TABLES, "path:models/sqp/views")
AGAIN = ("--select", *TABLES)
ANN, BOB = "ann@example.com", "bob@clients.example.com"
"""Readers: she is a tenant and has an account, he is of a firm that may read and has none."""


@dataclass
class Built:
    """What came of building the same deliveries on both engines."""

    engine: Engine
    postgres: Connection
    landing: Landing
    folder: Path
    keys: dict[str, list[str]] = field(default_factory=dict)
    differences: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    statements: list[dict[str, Any]] = field(default_factory=list)

    def dbt(self, target: str, *arguments: str) -> None:
        folder = self.folder / target
        result = dbtRunner().invoke(
            [
                *arguments,
                *("--target", target, "--quiet"),
                *("--vars", json.dumps({"trend_weeks": 5200})),  # whatever today is
                *("--project-dir", str(PROJECT_ROOT / "dbt_project")),
                *("--profiles-dir", str(PROJECT_ROOT)),
                *("--target-path", str(folder), "--log-path", str(folder)),
            ]
        )
        assert result.success, result.exception or [
            (each.node.name, each.message)
            for each in result.result
            if each.status in ("error", "fail")
        ]

    def round(self, name: str) -> None:
        """Build on both engines, at first with every test and seed, and compare."""
        client = connect_bigquery(get_settings())
        publish_landing(client, self.landing.connection, with_readers=True)
        if not self.differences:
            self.dbt("dev", "run", *FIRST)
            self.dbt("bigquery", "build")
        else:
            self.dbt("dev", "run", *AGAIN)
            self.dbt("bigquery", "run", *AGAIN)
        self.keys = self.keys or grains(self.folder / "bigquery" / "manifest.json")
        self.differences[name] = [
            line for model, key in self.keys.items() for line in self.compare(model, key)
        ]

    def compare(self, model: str, key: list[str]) -> list[str]:
        """What differs in one model, each with its key and both values."""
        with self.landing.connection.cursor(row_factory=dict_row) as cursor:
            here = by_key(cursor.execute(f"select * from sqp.{model}").fetchall(), key)
        there = by_key(
            [dict(row) for row in self.engine.sql(f"select * from `{PROJECT}.sqp.{model}`")], key
        )
        self.rows[model] = self.rows.get(model, 0) + len(here)
        told = [f"{model} {at}: only in Postgres" for at in here.keys() - there.keys()]
        told += [f"{model} {at}: only in BigQuery" for at in there.keys() - here.keys()]
        for at in here.keys() & there.keys():
            assert here[at].keys() == there[at].keys(), f"{model} has other columns"
            told += [
                f"{model} {at}: {name} is {mine!r} in Postgres and {there[at][name]!r} in BigQuery"
                for name, mine in here[at].items()
                if name not in NOT_COMPARED and not equal(mine, there[at][name])
            ]
        return sorted(told)


def by_key(rows: list[dict[str, Any]], key: list[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    keyed = {tuple(row[name] for name in key): row for row in rows}
    assert len(keyed) == len(rows), "two rows of one grain"
    return keyed


def equal(mine: Any, yours: Any) -> bool:
    if isinstance(mine, Decimal) and isinstance(yours, Decimal):
        return abs(mine - yours) <= TOLERANCE
    return bool(mine == yours)


def grains(manifest: Path) -> dict[str, list[str]]:
    """The key of each summary, mart and view, as its grain test says."""
    nodes = json.loads(manifest.read_text())["nodes"].values()
    return {
        node["attached_node"].split(".")[-1]: node["test_metadata"]["kwargs"]["columns"]
        for node in nodes
        if (node.get("test_metadata") or {}).get("name") == "unique_grain"
        and re.search(r"sqp/(summaries|marts|views)/", node["original_file_path"])
    }


@pytest.fixture(scope="module")
def built(
    server: Connection, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Built]:
    """Three rounds: history; late, restated, emptied and a whole month gone; and one thing more."""
    with (
        engine_or_skip() as engine,
        pytest.MonkeyPatch.context() as patch,
        cloned_database(server, template, f"{template}_both", patch) as postgres,
    ):
        environment = engine.settings() | {
            "BIGQUERY_METHOD": "oauth-secrets",
            "BIGQUERY_TOKEN": "no secret",
            "BIGQUERY_READERS": f"user:{ANN}, domain:clients.example.com",
            "BIGQUERY_OPERATORS": "user:local-bigquery@localhost",
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        with psycopg.connect(**postgres.libpq(), autocommit=True) as session:
            session.execute("set time zone 'UTC'")
            landing = Landing(session)
            folder = tmp_path_factory.mktemp("both")
            both = Built(engine, postgres, landing, folder)
            chance = random.Random(11)
            session.execute(
                "with ann as (insert into app.users (email, password_hash, first_name, last_name)"
                " values (%s, 'x', 'Ann', 'Example') returning id)"
                " insert into app.sqp_accounts (account_id, user_id) select 'acme', id from ann",
                (ANN.title(),),
            )
            history(landing, chance)
            both.round("history")
            change(landing, chance)
            both.round("changes")
            landing.deliver(week(WEEKS[6], ASINS[1]), delivered(chance, strange=True))
            both.round("late")
            both.statements = engine.statements()
            yield both
    get_settings.cache_clear()


def change(landing: Landing, chance: random.Random) -> None:
    """Restate one week, empty a slice, take a whole month away, bring a new product."""
    landing.deliver(week(WEEKS[1], ASINS[0]), delivered(chance))
    landing.deliver(week(WEEKS[2], ASINS[1]), [])
    for start in EMPTIED_MONTH:
        for asin in ASINS:
            landing.deliver(week(start, asin), [])
    prices = {"click_price": "3.3333", "own_click_price": "2.6667", "purchase_price": None}
    landing.deliver(
        week(LAST_WEEK, "B00000NEW1"),
        [Row("laces", 1, 1, 1, 0, 3000, 128, 7, 3, None, None, **prices), Row("Ünïcode ☂", 0)],
    )


def test_every_column_of_every_mart_is_equal_after_each_round(built: Built) -> None:
    assert len(built.keys) == 15
    assert all(built.rows.values()), "a mart without rows shows nothing"
    for name, differences in built.differences.items():
        assert not differences, f"after {name}:\n" + "\n".join(differences[:20])


def test_a_difference_is_told_with_its_key_and_both_values(built: Built) -> None:
    connection = built.landing.connection
    with connection.transaction(force_rollback=True):
        connection.execute(
            "update sqp.account_months set avg_ctr = avg_ctr + 0.000001, queries = queries + 1"
            " where period_start = '2025-03-01' and account_id = 'acme'"
        )
        told = built.compare("account_months", built.keys["account_months"])
    assert len(told) == 2
    assert (
        "account_months ('acme', 'ATVPDKIKX0DER', datetime.date(2025, 3, 1)): avg_ctr is" in told[0]
    )
    assert re.search(r"Decimal\(.*in Postgres and Decimal\(.*in BigQuery", told[0])


def test_every_source_that_is_declared_for_bigquery_is_there(built: Built) -> None:
    sources = json.loads((built.folder / "bigquery" / "manifest.json").read_text())["sources"]
    declared = {f"{each['schema']}.{each['identifier']}" for each in sources.values()}
    assert declared >= {"landing.sqp_asin", "sqp.sync_log"}
    assert not any(name.startswith(("app.", "reporting.")) for name in declared)
    client = built.engine.client()
    for name in declared:
        assert client.get_table(f"{PROJECT}.{name}").schema, name


def test_a_month_that_became_empty_is_empty_on_bigquery_too(built: Built) -> None:
    [(weeks,)] = [
        tuple(row.values())
        for row in built.engine.sql(
            f"select count(*) from `{PROJECT}.sqp.monthly_summary`"
            " where period_start = '2025-01-01'"
        )
    ]
    assert weeks == 0


def test_what_is_not_touched_is_neither_loaded_nor_built_again(built: Built) -> None:
    done = publish_landing(connect_bigquery(get_settings()), built.landing.connection)
    assert {each.table: each.parts for each in done if "asin" in each.table} == {
        "landing.sqp_asin": 0
    }


def test_summaries_come_back_into_postgres_and_only_what_differs_is_written(built: Built) -> None:
    client, connection = connect_bigquery(get_settings()), built.landing.connection
    connection.execute("delete from sqp.top_queries where stage = 'click'")
    connection.execute("update sqp.account_months set queries = 99 where account_id = 'other'")
    first = {each.table: each for each in publish_summaries(client, connection)}
    assert set(first) == {f"sqp.{name}" for name in SMALL_SUMMARIES}
    assert first["sqp.top_queries"].parts > 0
    assert first["sqp.account_months"].parts > 0
    assert first["sqp.share_anomalies"].parts == 0
    for name in SMALL_SUMMARIES:
        assert not built.compare(name, built.keys[name])
    assert not any(each.parts for each in publish_summaries(client, connection))


def test_the_analyser_accepts_every_statement_that_dbt_sent(built: Built) -> None:
    pytest.importorskip("zetasql", reason="the analyser of GoogleSQL is not installed")
    from tests.bigquery.googlesql import KINDS, GoogleSql

    client = built.engine.client()
    sources = {}
    for name in (
        "landing.sqp_slices",
        "landing.sqp_asin",
        "landing.sqp_brand",
        "sqp.sync_log",
        "sqp.data_quality_checks",
        "sqp.slice_builds",
        "access.account_readers",
    ):
        schema = client.get_table(f"{PROJECT}.{name}").schema
        sources[f"{PROJECT}.{name}"] = {each.name: KINDS[each.field_type] for each in schema}
    marketplaces = client.get_table(f"{PROJECT}.sqp.marketplaces").schema
    sources[f"{PROJECT}.sqp.marketplaces"] = {e.name: KINDS[e.field_type] for e in marketplaces}
    analyser = GoogleSql(sources)
    assert "Function not found" in analyser.faults(["select bool_and(true)"])[0]
    wrong = ["select 'a' + 1", "select 1::int64", "select x from nothing", "select sum('a')"]
    assert len(analyser.faults(wrong)) == len(wrong)
    sent = [
        each["sql"] for each in built.statements if "information_schema" not in each["sql"].lower()
    ]
    sent = list(dict.fromkeys(re.sub(r"__dbt_tmp\d+", "__dbt_tmp", each) for each in sent))
    assert len(sent) > 150
    faults = analyser.faults(sent)
    assert not faults, f"{len(faults)} faults:\n" + "\n\n".join(faults[:5])


RULES = [
    (
        r"as\s+(?:numeric|bignumeric|string)\s*\(",
        "a cast takes no precision: use `rounded`",
        "select cast(x as numeric(10, 6))",
    ),
    (
        r"\bon\s+(?!false\b)[^;]*?when\s+not\s+matched\s+by\s+source",
        "a merge that looks for missing rows by key reads the whole table: partitions are replaced",
        "merge into t using s on t.id = s.id when not matched by source then delete",
    ),
    (
        r"create\s+(?:or\s+replace\s+)?table[^;]*?partition\s+by\s+(?:timestamp|datetime)_trunc",
        "the period is a DATE: `partition by date_trunc(…, month)` prunes by it",
        "create or replace table t partition by timestamp_trunc(period_start, month)",
    ),
    (
        r"\bgenerate_series\b|\bilike\b|\bdistinct\s+on\b|::",
        "PostgreSQL's own, which BigQuery lacks",
        "select x::int64",
    ),
    (
        r"drop\s+all\s+row\s+access\s+policies",
        "a table without a policy shows all its rows, if only for a moment: policies are replaced",
        "drop all row access policies on t",
    ),
    (
        r"grant\s[^;]*?all(?:authenticated)?users",
        "nobody reads who is not named",
        "create row access policy p on t grant to ('allAuthenticatedUsers') filter using (true)",
    ),
    (
        r"partition\s+by\s+date_trunc\(\w+,\s*day\)",
        "a table has at most 10,000 partitions: months, not days, last for decades",
        "create table t partition by date_trunc(period_start, day)",
    ),
]
"""Rules over the SQL that no local engine enforces: each with its reason and SQL that breaks it."""


def test_the_sql_keeps_the_rules_that_no_local_engine_knows(built: Built) -> None:
    ours = [
        each["sql"]
        for each in built.statements
        if "merge into" not in each["sql"].lower() or "slice_builds" not in each["sql"]
    ]
    for rule, reason, breaks_it in RULES:
        assert re.search(rule, breaks_it, re.IGNORECASE)
        broken = [each for each in ours if re.search(rule, each, re.IGNORECASE)]
        assert not broken, f"{reason}:\n{broken[0][:2000]}"


def test_summaries_replace_partitions_and_every_job_is_bounded_and_labelled(built: Built) -> None:
    merges = [
        each["sql"]
        for each in built.statements
        if "`sqp`.`weekly_summary`" in each["sql"]
        and re.search(r"merge into", each["sql"], re.IGNORECASE)
    ]
    assert merges
    for merge in merges:
        assert re.search(r"on\s+false", merge, re.IGNORECASE)
        assert re.search(r"date_trunc\([^)]*period_start, month\)\s+in\s*\(\s*date '", merge)
    made = [each["sql"].lower() for each in built.statements]
    for summary in ("weekly_summary", "monthly_summary", "quarterly_summary", "query_weeks"):
        [create, *_] = [
            each
            for each in made
            if f"create or replace table `{PROJECT}`.`sqp`.`{summary}`" in each
        ]
        assert "partition by date_trunc(period_start, month)" in create
        assert "cluster by account_id, marketplace_id" in create
    sent_by_dbt = [each for each in built.statements if "dbt_invocation_id" in each["labels"]]
    assert sent_by_dbt
    assert all(each["maximum_bytes_billed"] for each in sent_by_dbt)


def as_seen_by(built: Built, email: str, relation: str) -> dict[str, int]:
    """Rows of each account, or of all, that this Google account sees in a table."""
    claims = base64.urlsafe_b64encode(json.dumps({"email": email}).encode()).decode().rstrip("=")
    client = bigquery.Client(
        project=PROJECT,
        credentials=Credentials(token=f"e30.{claims}.e30"),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": built.engine.endpoint},
    )
    rows = client.query_and_wait(f"select * from `{PROJECT}.{relation}`")
    return dict(Counter(row.get("account_id", "") for row in rows))


def test_a_reader_sees_the_rows_of_his_tenant_and_an_operator_all(built: Built) -> None:
    for summary in ("sqp.weekly_summary", "sqp.monthly_summary", "sqp.account_months"):
        everything = as_seen_by(built, "local-bigquery@localhost", summary)
        assert everything.keys() > {"acme"}
        assert as_seen_by(built, ANN, summary) == {"acme": everything["acme"]}
        assert as_seen_by(built, BOB, summary) == {}
        assert as_seen_by(built, "eve@elsewhere.example.com", summary) == {}
    assert as_seen_by(built, ANN, "intermediate.int_sqp__slices_to_rebuild") == {}
    assert as_seen_by(built, BOB, "sqp.marketplaces")[""] > 5, "reference data is for all readers"


def test_every_table_has_both_policies_and_only_what_tenants_read_is_granted(built: Built) -> None:
    manifest = json.loads((built.folder / "bigquery" / "manifest.json").read_text())
    sent = "\n".join(each["sql"] for each in built.statements)
    seen = set()
    for node in manifest["nodes"].values():
        if node["resource_type"] not in ("model", "seed"):
            continue
        kind = "view" if node["config"]["materialized"] == "view" else "table"
        tenant = node["config"]["meta"]["tenant"]
        seen.add((kind, tenant if isinstance(tenant, str) else "account"))
        relation = f"`{PROJECT}.{node['schema']}.{node['alias']}`"
        granted = re.search(
            rf"grant `roles/bigquery.dataViewer`\s+on {kind} {relation}\s+to 'user:{ANN}'", sent
        )
        assert bool(granted) == (tenant != "none"), relation
        policies = re.findall(
            rf"create or replace row access policy (\w+) on {relation}\s+grant to \((.*?)\)"
            r"\s+filter using \((.*?)\);",
            sent,
            re.DOTALL,
        )
        assert {name for name, *_ in policies} == (
            set() if kind == "view" else {"operators_all", "tenant_select"}
        ), relation
        for name, grantees, condition in policies:
            if name == "operators_all":
                assert (ANN in grantees, condition) == (False, "true")
            else:
                condition = " ".join(condition.split())
                assert {"none": "false", "shared": "true"}.get(
                    str(tenant), "session_user()"
                ) in condition
    assert seen >= {
        ("table", "none"),
        ("table", "shared"),
        ("table", "account"),
        ("view", "account"),
    }


def test_the_documentation_of_bigquery_builds(built: Built) -> None:
    built.dbt("bigquery", "docs", "generate")
    catalog = json.loads((built.folder / "bigquery" / "catalog.json").read_text())
    assert "model.warehouse.top_queries" in catalog["nodes"]


def test_a_first_week_of_a_quarter_belongs_to_it_on_both(built: Built) -> None:
    assert date(2025, 3, 30) == LAST_WEEK
    rows = built.engine.sql(
        f"select distinct period_start from `{PROJECT}.sqp.quarterly_summary`"
        " where account_id = 'acme' and asin = 'B00000NEW1'"
    )
    assert [row["period_start"] for row in rows] == [date(2025, 1, 1)]
