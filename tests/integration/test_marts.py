"""What dashboards read is exact, whatever happens to the deliveries, and costs what changed."""

from __future__ import annotations

import random
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import yaml

from flows.settings import PROJECT_ROOT
from tests.integration.landing_rows import UK, Landing, Row, week
from tests.integration.mart_reference import MARTS, Rows, Thresholds
from tests.integration.test_dbt_models import Dbt, database, dbt, landing, rows_of

__all__ = ["database", "dbt", "landing"]

ASINS = ("B000000RED", "B00000BLUE")
QUERIES = ("red shoes", "blue shoes", "laces", "polish")
LAST_WEEK = date(2025, 3, 30)
WEEKS = [LAST_WEEK - timedelta(weeks=number) for number in range(17)]
A_YEAR_BEFORE = [date(2024, 2, 4), date(2024, 2, 11), date(2024, 3, 3), date(2024, 12, 1)]
TABLES = (
    "query_weeks",
    "query_months",
    "account_months",
    "top_queries",
    "year_over_year_queries",
    "bleeding_queries",
    "ctr_deterioration",
    "share_anomalies",
)
MODELS = ("--select", "+path:models/sqp/marts", "path:models/sqp/views")


def thresholds() -> Thresholds:
    """The vars of dbt_project.yml."""
    project = yaml.safe_load((PROJECT_ROOT / "dbt_project/dbt_project.yml").read_text())
    return Thresholds(
        **{each.name: project["vars"][each.name] for each in fields(Thresholds)},
    )


def delivered(chance: random.Random, *, strange: bool = False) -> list[Row]:
    """A slice's rows: steady shares, or now and then some that stand out."""
    rows = []
    for query in chance.sample(QUERIES, chance.randint(2, len(QUERIES))):
        clicks = chance.randint(100, 400)
        own_clicks = chance.randint(15, 25) if not strange else chance.choice((0, 1, 90))
        purchases = chance.choice((0, 8, 60, 70))
        rows.append(
            Row(
                query,
                impressions=chance.randint(3000, 6000),
                clicks=clicks,
                cart_adds=clicks // 2,
                purchases=purchases,
                own_impressions=chance.choice((90, 400, 500)),
                own_clicks=own_clicks,
                own_cart_adds=min(own_clicks, chance.randint(0, 9)),
                own_purchases=min(purchases, chance.choice((0, 0, 1, 4))),
                volume=chance.choice((None, 700)),
            )
        )
    return rows


def history(landing: Landing, chance: random.Random) -> None:
    """Four months of weeks and some of the year before, with a gap and an account beside."""
    for start in (*WEEKS, *A_YEAR_BEFORE):
        if start == WEEKS[6]:
            continue
        for asin in ASINS:
            landing.deliver(week(start, asin), delivered(chance, strange=start == LAST_WEEK))
        if start in WEEKS[:3]:
            landing.deliver(week(start, ASINS[0], "other", UK), delivered(chance))


def comparable(rows: Rows) -> list[tuple[Any, ...]]:
    """Rows in an order of their own, each with its columns in order."""
    return sorted(tuple(sorted(row.items(), key=lambda item: item[0])) for row in map(plain, rows))


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: repr(value.normalize() + 0 if hasattr(value, "normalize") else value)
        for name, value in row.items()
        if name != "updated_at"
    }


def assert_exact(landing: Landing) -> dict[str, int]:
    """Every row and column of every mart, against the reference; how many rows each has."""
    limits = thresholds()
    counts = {}
    for mart, reference in MARTS.items():
        held, expected = rows_of(landing, f"sqp.{mart}"), reference(landing, limits)
        assert comparable(held) == comparable(expected), mart
        counts[mart] = len(held)
    return counts


def versions(landing: Landing) -> dict[str, Any]:
    """Where each row is and which transaction wrote it."""
    return {
        mart: sorted(
            (str(row["ctid"]), row["xmin"])
            for row in rows_of(landing, f"sqp.{mart}", "ctid, xmin::text")
        )
        for mart in TABLES
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_marts_are_exact_after_every_step(dbt: Dbt, landing: Landing, seed: int) -> None:
    chance = random.Random(seed)
    history(landing, chance)
    dbt("seed")
    dbt("run", *MODELS)
    first = assert_exact(landing)
    assert min(first.values()) > 0, first

    before = versions(landing)
    dbt("run", *MODELS)
    assert versions(landing) == before, "a second run rewrote rows"

    new, old = LAST_WEEK + timedelta(weeks=1), chance.choice(WEEKS[8:])
    landing.deliver(week(new, ASINS[0]), delivered(chance, strange=True))
    landing.deliver(week(old, ASINS[1]), delivered(chance, strange=True))
    dbt("run", *MODELS)
    assert_exact(landing)

    landing.deliver(week(chance.choice(WEEKS[:5]), ASINS[0]), [])
    landing.deliver(week(WEEKS[6], ASINS[0]), delivered(chance))
    landing.deliver(week(A_YEAR_BEFORE[0], ASINS[0]), [])
    dbt("run", *MODELS)
    assert_exact(landing)

    for start in (WEEKS[0], new):
        for asin in ASINS:
            landing.deliver(week(start, asin), [])
    landing.deliver(week(WEEKS[1], ASINS[1]), delivered(chance))
    dbt("run", *MODELS)
    assert_exact(landing)
    kept = versions(landing)
    dbt("run", *MODELS, "--full-refresh")
    assert_exact(landing)
    assert versions(landing) == kept, "a full refresh rewrote rows that did not change"


def test_a_mart_that_was_left_out_catches_up(dbt: Dbt, landing: Landing) -> None:
    chance = random.Random(3)
    history(landing, chance)
    dbt("seed")
    dbt("run", *MODELS)
    landing.deliver(week(WEEKS[2], ASINS[0]), delivered(chance, strange=True))
    dbt("run", "--select", "+monthly_summary")
    dbt("run", "--select", "top_queries", "share_anomalies")  # before what they read is built
    dbt("run", *MODELS)
    assert_exact(landing)


def test_a_change_that_no_build_made_is_taken_up(dbt: Dbt, landing: Landing) -> None:
    chance = random.Random(4)
    history(landing, chance)
    dbt("seed")
    dbt("run", *MODELS)
    held = rows_of(landing, "sqp.query_weeks", "period_start, total_clicks")
    assert {row["period_start"] for row in held} >= {WEEKS[3]}
    landing.connection.execute(
        "update sqp.weekly_summary set total_clicks = total_clicks + 1000"
        " where period_start = %s and account_id = 'acme'",
        (WEEKS[3],),
    )
    dbt("run", "--select", "path:models/sqp/marts")
    changed = landing.value(
        "select count(*) from sqp.query_weeks where period_start = %s and total_clicks >= 1000",
        [WEEKS[3]],
    )
    assert changed == landing.value(
        "select count(distinct query) from sqp.weekly_summary"
        " where period_start = %s and account_id = 'acme'",
        [WEEKS[3]],
    )
    assert (
        landing.value(
            "select count(*) from sqp.changed_queries where model_name <> 'quarterly_summary'"
        )
        == 0
    )


def test_a_new_week_reads_and_writes_its_own_periods(dbt: Dbt, landing: Landing) -> None:
    chance = random.Random(5)
    history(landing, chance)
    dbt("seed")
    dbt("run", *MODELS)
    before = versions(landing)
    old = {
        mart: {
            row["ctid"]
            for row in rows_of(landing, f"sqp.{mart}", "ctid, period_start")
            if row["period_start"] < date(2025, 3, 1)
        }
        for mart in TABLES
    }
    landing.deliver(week(LAST_WEEK + timedelta(weeks=1), ASINS[0]), delivered(chance))
    dbt("run", *MODELS)
    after = versions(landing)
    for mart in TABLES:
        kept = {place for place, _ in after[mart]} & {place for place, _ in before[mart]}
        assert {str(place) for place in old[mart]} <= kept, mart


def test_a_trend_has_every_week_and_compares_neighbours_only(dbt: Dbt, landing: Landing) -> None:
    today = datetime.now(UTC).date()
    this_sunday = today - timedelta(days=(today.weekday() + 1) % 7)
    clicks = {-54: 70, -53: 60, -52: 50, -51: 40, -3: 10, -2: 20, 0: 30}
    for number, own_clicks in clicks.items():
        landing.deliver(
            week(this_sunday + timedelta(weeks=number), ASINS[0]),
            [Row("laces", clicks=100, own_clicks=own_clicks)],
        )
    dbt("seed")
    dbt("run", "--select", "+weekly_summary", "query_trends")
    trend = sorted(rows_of(landing, "sqp.query_trends"), key=lambda row: row["period_start"])
    assert trend[0]["period_start"] == this_sunday - timedelta(weeks=52)
    assert [float(row["click_share"]) for row in trend] == [0.5, 0.4, 0.1, 0.2, 0.3]
    assert [row["click_share_change"] and float(row["click_share_change"]) for row in trend] == [
        -0.1,
        -0.1,
        None,
        0.1,
        None,
    ]
    assert [row["is_after_gap"] for row in trend] == [False, False, True, False, True]
