"""Where a number comes from: loads, what each replaced, what was held back, refused, missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from flows.commands.explain import tell
from flows.errors import UsageError
from flows.explain import Explanation, ask, explain
from flows.settings import Connection
from flows.sources.deliveries import PeriodType
from flows.warehouse import dbt_build
from flows.warehouse.connection import connect
from tests.conftest import RunCli
from tests.integration.deliveries import Parcel, Slice, asin, sync

LONG_AGO = -60
ONE = Slice(asin(1), LONG_AGO, {"red shoe": 100, "blue shoe": 50})
RESTATED = Slice(asin(1), LONG_AGO, {"red shoe": 140})
BAD = Slice(asin(1), LONG_AGO, {"red shoe": 1})
OTHER = Slice(asin(2), LONG_AGO, {"red shoe": 30})
LATER = Slice(asin(2), LONG_AGO + 1, {"red shoe": 31})
WEEK = ONE.period_start


@pytest.fixture
def warehouse(database: Connection) -> Iterator[psycopg.Connection[Any]]:
    with connect(autocommit=True) as connection:
        yield connection


def about(period: str | date, **narrowed: str) -> Explanation:
    return explain(ask(str(period), **narrowed))


def outcomes(found: Explanation) -> list[tuple[str, str, str]]:
    return [(load["asin"], load["source_file"], load["outcome"]) for load in found.loads]


@pytest.mark.parametrize(
    ("text", "period_type", "start", "end"),
    [
        ("2026-10-06", PeriodType.WEEK, date(2026, 10, 4), date(2026, 10, 10)),
        ("2026-10", PeriodType.MONTH, date(2026, 10, 1), date(2026, 10, 31)),
        ("2026-Q4", PeriodType.QUARTER, date(2026, 10, 1), date(2026, 12, 31)),
        ("2026q1", PeriodType.QUARTER, date(2026, 1, 1), date(2026, 3, 31)),
    ],
)
def test_a_period_is_a_day_a_month_or_a_quarter(
    text: str, period_type: PeriodType, start: date, end: date
) -> None:
    question = ask(text)
    assert (question.period_type, question.period_start, question.period_end) == (
        period_type,
        start,
        end,
    )


@pytest.mark.parametrize("text", ["october", "2026-13", "2026-Q5", ""])
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no period"):
        ask(text)


def test_an_unknown_marketplace_is_refused() -> None:
    with pytest.raises(UsageError, match="the marketplace 'XX' is unknown"):
        ask("2026-10", marketplace="XX")


def test_a_restatement_tells_what_it_replaced(warehouse: psycopg.Connection[Any]) -> None:
    sync([Parcel([ONE, OTHER], name="first")])
    sync([Parcel([RESTATED], hour=1, name="second")])
    found = about(WEEK, asin=ONE.asin.lower())
    assert outcomes(found) == [(ONE.asin, "second", "in force"), (ONE.asin, "first", "replaced")]
    new, old = found.loads
    assert (new["impressions"], new["before_impressions"]) == (140, 150)
    assert (new["rows"], new["before_rows"]) == (1, 2)
    assert (new["clicks"], new["cart_adds"], new["purchases"]) == (70, 35, 17)
    assert new["before_load_id"] == old["load_id"]
    assert old["before_load_id"] is None
    assert old["replaced_at"] == new["accepted_at"]
    assert len(about(WEEK).loads) == 3


def test_what_is_held_back_says_why_and_replaces_nothing(
    warehouse: psycopg.Connection[Any],
) -> None:
    sync([Parcel([ONE], name="good")])
    sync([Parcel([BAD], hour=1, name="bad")], held={ONE.asin: "too few rows"})
    assert outcomes(found := about(WEEK)) == [
        (ONE.asin, "bad", "held back"),
        (ONE.asin, "good", "in force"),
    ]
    assert found.loads[0]["held_reason"] == "too few rows"
    sync([Parcel([RESTATED], hour=2, name="mended")])
    mended, held, good = about(WEEK).loads
    assert (mended["outcome"], held["outcome"], good["outcome"]) == (
        "in force",
        "held back",
        "replaced",
    )
    assert mended["before_load_id"] == good["load_id"], "compared with what was in force"


def test_a_query_leads_to_its_line_in_the_file(warehouse: psycopg.Connection[Any]) -> None:
    sync([Parcel([ONE, OTHER], name="report.json")])
    (row,) = about(WEEK, asin=ONE.asin, query="  Blue  SHOE ").rows
    assert (row["source_file"], row["source_line"]) == ("report.json", 2)
    assert (row["impressions"], row["market_impressions"]) == (50, 507)
    assert len(about(WEEK, query="red shoe").rows) == 2


def test_refused_rows_and_missing_weeks_are_named(warehouse: psycopg.Connection[Any]) -> None:
    sync([Parcel([ONE, OTHER, LATER], refused=[OTHER], name="file")])
    quarter = f"{WEEK.year}-Q{(WEEK.month + 2) // 3}"
    found = about(quarter, asin=OTHER.asin)
    assert [(row["asin"], row["source_line"]) for row in found.refused] == [(OTHER.asin, 1)]
    missing = [row["period_start"] for row in found.missing]
    assert WEEK not in missing
    assert WEEK + timedelta(weeks=1) not in missing
    assert all(day.weekday() == 6 for day in missing)
    assert len(missing) == 11, "a quarter of 13 weeks has two of them"


def test_other_accounts_and_marketplaces_stay_out(warehouse: psycopg.Connection[Any]) -> None:
    foreign = Slice(ONE.asin, LONG_AGO, {"red shoe": 9}, account="acme")
    sync([Parcel([ONE, foreign])])
    assert len(about(WEEK, account="acme", marketplace="US").loads) == 1
    with pytest.raises(UsageError, match=r"nothing was delivered of this.*acme \(.*default \("):
        about(WEEK, marketplace="UK")
    with pytest.raises(UsageError, match="nothing was delivered"):
        about("2020-01")


def test_nothing_at_all_leads_to_a_first_sync(warehouse: psycopg.Connection[Any]) -> None:
    with pytest.raises(UsageError, match="load a delivery first"):
        about("2026-10")


def test_the_number_stands_beside_its_loads(
    warehouse: psycopg.Connection[Any], run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    sync([Parcel([ONE, OTHER], name="first")])
    before = about(WEEK)
    assert before.now == {}, "never built"
    dbt_build.make("sqp_summaries")
    built = about(WEEK)
    assert (built.now["impressions"], built.now["purchases"]) == (180, 21)
    assert (built.now["rows"], built.not_built) == (3, 0)
    sync([Parcel([RESTATED], hour=1, name="second")])
    waiting = about(WEEK)
    assert waiting.not_built == 1
    tell(waiting)
    told = capsys.readouterr().out
    assert "180 impressions" in told
    assert "140 (-10)" in told
    assert "1 of these slices are not in the summary yet" in told
    month = run_cli("explain", f"{WEEK:%Y-%m}", "--asin", ONE.asin, "--json")
    assert month.returncode == 0, month.stderr
    found = json.loads(month.stdout)
    assert found["question"]["period_type"] == "MONTH"
    assert found["now"]["impressions"] == 150
    assert [load["source_file"] for load in found["loads"]] == ["second", "first"]
