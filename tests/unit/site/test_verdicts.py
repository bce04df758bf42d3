"""Verdicts of tables and accounts: green only where checks ran and passed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.site.verdicts import Cell, Load, Result, Verdict, latest, matrix, overall, problems

NOW = datetime(2026, 11, 27, tzinfo=UTC)
ASINS, WEEKS = "landing.sqp_asin", "sqp.weekly_summary"

PASSED = Result(
    id=1,
    run=10,
    run_key="ten",
    check_type="range",
    check_name="counts_credible",
    table_name=ASINS,
    column_name="",
    scope="asin week",
    status=Verdict.PASSED,
    source_value=None,
    target_value=None,
    difference_pct=None,
    message="",
    failing=0,
    named=(),
    checked_at=NOW,
)
FAILED = replace(PASSED, id=2, status=Verdict.FAILED, message="too many")
DBT = replace(PASSED, id=3, check_type="dbt_test", check_name="grain", table_name=WEEKS)
LOADS = {
    ("acme", "asin"): Load(10, NOW - timedelta(hours=1)),
    ("bolt", "asin"): Load(10, NOW - timedelta(hours=1)),
}
COVERED = {10: {"acme", "bolt"}}


def cell(*results: Result, table: str = ASINS, account: str = "acme", **changed) -> Cell:
    given = {"covered": COVERED, "loads": LOADS} | changed
    return matrix(results, ["acme", "bolt"], **given)[table][account]


def test_green_needs_a_check_that_ran() -> None:
    assert cell(PASSED).verdict is Verdict.PASSED
    assert cell().verdict is Verdict.UNKNOWN
    assert cell(PASSED, table=WEEKS).verdict is Verdict.UNKNOWN
    other = replace(PASSED, table_name="landing")
    assert cell(other, table="landing").verdict is Verdict.PASSED
    assert cell(other, table="landing", covered={10: {"bolt"}}).verdict is Verdict.UNKNOWN
    assert cell(other, table="landing", covered={}).verdict is Verdict.UNKNOWN


def test_a_check_from_before_the_newest_load_does_not_count() -> None:
    newer = LOADS | {("acme", "asin"): Load(11, NOW)}
    assert cell(PASSED, loads=newer).verdict is Verdict.UNKNOWN
    assert cell(PASSED, loads=newer, account="bolt").verdict is Verdict.PASSED
    again = replace(PASSED, id=9, run=11, run_key="eleven")
    assert cell(PASSED, again, loads=newer, covered={10: {"acme"}, 11: {"acme"}}).verdict is (
        Verdict.PASSED
    )


def test_a_load_whose_run_died_is_checked_by_the_next_run() -> None:
    dead = {("acme", "asin"): Load(9, NOW)}
    others = {10: {"bolt"}}
    assert cell(PASSED, loads=dead, covered=others).verdict is Verdict.PASSED
    assert cell(FAILED, loads=dead, covered=others).verdict is Verdict.FAILED
    later = replace(FAILED, run=11, run_key="eleven")
    both = others | {11: {"bolt"}}
    assert cell(PASSED, later, loads=dead, covered=both).verdict is Verdict.PASSED
    after = {("acme", "asin"): Load(12, NOW)}
    assert cell(PASSED, later, loads=after, covered=both).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("minutes", "verdict"), [(-1, Verdict.UNKNOWN), (0, Verdict.PASSED), (1, Verdict.PASSED)]
)
def test_a_test_by_hand_counts_from_the_newest_load_on(minutes: int, verdict: Verdict) -> None:
    loaded = LOADS[("acme", "asin")].loaded_at
    by_hand = replace(DBT, run=None, checked_at=loaded + timedelta(minutes=minutes))
    assert cell(by_hand, table=WEEKS).verdict is verdict


def test_what_is_not_delivered_is_no_verdict() -> None:
    assert cell(PASSED, table="landing.sqp_brand").verdict is None
    assert not cell(PASSED, table="landing.sqp_brand").is_amiss
    assert cell().is_amiss


def test_an_account_is_blamed_for_its_own_slices_only() -> None:
    named = replace(FAILED, failing=1, named=("acme / US / WEEK 2026-11-01 / B000000001",))
    assert cell(named).verdict is Verdict.FAILED
    assert cell(named).why == "too many"
    assert cell(named, account="bolt").verdict is Verdict.PASSED


@pytest.mark.parametrize(
    "result",
    [
        replace(FAILED, failing=2, named=("acme / US / WEEK 2026-11-01 / B000000001",)),
        replace(FAILED, failing=1, named=("a_column",)),
        FAILED,
    ],
)
def test_nobody_is_spared_where_it_is_not_said_who_failed(result: Result) -> None:
    assert {cell(result, account=account).verdict for account in ("acme", "bolt")} == {
        Verdict.FAILED
    }


def test_a_test_of_the_whole_table_concerns_every_account() -> None:
    assert cell(DBT, table=WEEKS, covered={}).verdict is Verdict.PASSED
    warning = replace(DBT, status=Verdict.WARNING)
    assert cell(warning, table=WEEKS, covered={}, account="bolt").verdict is Verdict.WARNING


def test_the_newest_run_counts_and_its_worst_result() -> None:
    later = replace(PASSED, id=5, run_key="later")
    assert [each.id for each in latest([FAILED, later])] == [5]
    worse = replace(FAILED, id=4, run_key="later")
    assert [each.id for each in latest([PASSED, worse, later])] == [4]


def test_problems_are_told_with_what_is_new_first() -> None:
    old = [
        replace(FAILED, id=1, check_name="still", run_key="a"),
        replace(PASSED, id=2, check_name="newly", run_key="a"),
        replace(PASSED, id=3, check_name="fixed", run_key="a", status=Verdict.FAILED),
        replace(FAILED, id=4, check_name="softer", run_key="a"),
    ]
    new = [
        replace(FAILED, id=5, check_name="still", run_key="b"),
        replace(FAILED, id=6, check_name="newly", run_key="b"),
        replace(PASSED, id=7, check_name="fixed", run_key="b"),
        replace(FAILED, id=8, check_name="softer", run_key="b", status=Verdict.WARNING),
        replace(FAILED, id=9, check_name="first", run_key="b", status=Verdict.WARNING),
    ]
    assert [
        (each.result.check_name, each.before, each.is_new) for each in problems([*old, *new])
    ] == [
        ("newly", Verdict.PASSED, True),
        ("first", None, True),
        ("still", Verdict.FAILED, False),
        ("softer", Verdict.FAILED, False),
    ]


@pytest.mark.parametrize(
    ("cells", "amiss", "verdict"),
    [
        ([], {}, Verdict.UNKNOWN),
        ([None], {}, Verdict.UNKNOWN),
        ([Verdict.PASSED, None], {}, Verdict.PASSED),
        ([Verdict.PASSED], {"stale": 1}, Verdict.WARNING),
        ([Verdict.PASSED], {"held": 1}, Verdict.WARNING),
        ([Verdict.PASSED], {"failed_sync": True}, Verdict.WARNING),
        ([Verdict.WARNING, Verdict.UNKNOWN], {}, Verdict.UNKNOWN),
        ([Verdict.UNKNOWN, Verdict.FAILED], {"stale": 1}, Verdict.FAILED),
    ],
)
def test_the_verdict_on_it_all_is_the_worst(cells, amiss, verdict) -> None:
    told = {"stale": 0, "held": 0, "failed_sync": False} | amiss
    assert overall([Cell(each, "") for each in cells], [], **told) is verdict


def test_a_check_that_fails_counts_whomever_it_concerns() -> None:
    told = {"stale": 0, "held": 0, "failed_sync": False}
    amiss = problems([FAILED])
    assert overall([Cell(Verdict.PASSED, "")], amiss, **told) is Verdict.FAILED
    assert overall([], amiss, **told) is Verdict.FAILED
    warning = problems([replace(FAILED, status=Verdict.WARNING)])
    assert overall([], warning, **told) is Verdict.UNKNOWN


STATUSES = st.sampled_from([Verdict.PASSED, Verdict.WARNING, Verdict.FAILED])


@given(st.lists(st.tuples(STATUSES, st.integers(1, 4), st.sampled_from("abc")), max_size=12))
def test_green_means_that_every_newest_result_passed(drawn) -> None:
    results = [
        replace(PASSED, id=number, status=status, check_name=name, run=10 + run, run_key=str(run))
        for number, (status, run, name) in enumerate(sorted(drawn, key=lambda each: each[1]))
    ]
    covered = {10 + run: {"acme"} for run in range(5)}
    verdict = cell(*results, covered=covered).verdict
    newest = latest(results)
    if verdict is Verdict.PASSED:
        assert newest
        assert all(each.status is Verdict.PASSED for each in newest)
    else:
        assert not newest or any(each.status is not Verdict.PASSED for each in newest)
