"""Landing: slices replaced whole, unchanged ones left alone, counts that add up."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from flows.settings import PROJECT_ROOT, Connection
from flows.warehouse.connection import connect
from flows.warehouse.copying import copy_into
from flows.warehouse.run_log import beside_the_run, leased_run
from tests.integration.deliveries import Contents, Parcel, Slice, asin, in_force, row, sync

ONE = Slice(asin(1), 0, {"red shoe": 100, "blue shoe": 50, "shoe": 10})
OTHER = Slice(asin(2), 0, {"red shoe": 30})


@pytest.fixture
def warehouse(database: Connection) -> Iterator[psycopg.Connection[Any]]:
    with connect(autocommit=True) as connection:
        yield connection


def stored_rows(warehouse: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Every landed row with its physical place: equal before and after means untouched."""
    return [
        *warehouse.execute("select tableoid, ctid, xmin, * from landing.sqp_asin order by 1, 2"),
        *warehouse.execute("select ctid, xmin, * from landing.sqp_slices order by 1"),
        *warehouse.execute("select ctid, xmin, * from landing.rejected_rows order by 1"),
    ]


def test_a_delivery_replaces_its_slice_whole(warehouse: psycopg.Connection[Any]) -> None:
    sync([Parcel([ONE, OTHER])])
    restated = Slice(ONE.asin, 0, {"red shoe": 101, "blue shoe": 50, "new shoe": 1})
    tally = sync([Parcel([restated], hour=1)])
    assert in_force(warehouse)["default", ONE.asin, ONE.period_start] == dict(restated.queries)
    assert in_force(warehouse)["default", OTHER.asin, OTHER.period_start] == dict(OTHER.queries)
    assert tally.records == {"inserted": 1, "updated": 1, "unchanged": 1, "deleted": 1}
    stored = warehouse.execute("select count(*) from landing.sqp_asin").fetchone()
    assert stored == (4,), "no row of the replaced load stays behind"


def test_an_unchanged_slice_is_not_touched(warehouse: psycopg.Connection[Any]) -> None:
    parcels = [Parcel([ONE, OTHER], refused=[ONE])]
    sync(parcels)
    before = stored_rows(warehouse)
    tally = sync(parcels)
    assert stored_rows(warehouse) == before
    assert tally.records == {"unchanged": 4, "failed": 1}
    assert (tally.slices_changed, tally.slices_unchanged) == (0, 2)


def test_a_slice_that_was_asked_for_and_has_no_rows_is_emptied(
    warehouse: psycopg.Connection[Any],
) -> None:
    sync([Parcel([ONE])])
    tally = sync([Parcel([], hour=1, declares=[ONE])])
    assert in_force(warehouse) == {("default", ONE.asin, ONE.period_start): {}}
    assert tally.records == {"deleted": 3}


def test_a_slice_whose_rows_were_all_refused_keeps_what_it_had(
    warehouse: psycopg.Connection[Any],
) -> None:
    sync([Parcel([ONE])])
    sync([Parcel([], hour=1, declares=[ONE], refused=[ONE])])
    assert in_force(warehouse)["default", ONE.asin, ONE.period_start] == dict(ONE.queries)


def test_a_refused_slice_does_not_hide_an_earlier_file_of_the_same_run(
    warehouse: psycopg.Connection[Any],
) -> None:
    refused = Parcel([], hour=1, name="later", declares=[ONE], refused=[ONE])
    sync([Parcel([ONE], name="earlier"), refused])
    assert in_force(warehouse)["default", ONE.asin, ONE.period_start] == dict(ONE.queries)


def test_nothing_of_a_file_that_broke_is_landed(warehouse: psycopg.Connection[Any]) -> None:
    sync([Parcel([ONE])])
    half = Slice(ONE.asin, 0, {"red shoe": 1})
    tally = sync([Parcel([half], hour=1, broken=True), Parcel([OTHER], name="good")])
    assert in_force(warehouse)["default", ONE.asin, ONE.period_start] == dict(ONE.queries)
    assert in_force(warehouse)["default", OTHER.asin, OTHER.period_start] == dict(OTHER.queries)
    assert tally.records == {"inserted": 1}


def test_a_held_slice_keeps_the_load_in_force_until_a_good_one_comes(
    warehouse: psycopg.Connection[Any],
) -> None:
    sync([Parcel([ONE])])
    bad = Slice(ONE.asin, 0, {"red shoe": 1})
    sync([Parcel([bad], hour=1)], held={ONE.asin: "too few rows"})
    assert in_force(warehouse)["default", ONE.asin, ONE.period_start] == dict(ONE.queries)
    again = sync([Parcel([bad], hour=1)])
    assert again.slices_unchanged == 1, "a held load that comes again is not checked again"
    good = Slice(ONE.asin, 0, {"red shoe": 90, "blue shoe": 50, "shoe": 10})
    tally = sync([Parcel([good], hour=2)])
    assert in_force(warehouse)["default", ONE.asin, ONE.period_start] == dict(good.queries)
    assert tally.records == {"updated": 1, "unchanged": 2}, "compared with the load in force"
    assert warehouse.execute("select count(*) from landing.sqp_asin").fetchone() == (3,)


def test_a_mended_file_is_checked_again_though_its_good_rows_are_the_same(
    warehouse: psycopg.Connection[Any],
) -> None:
    sync([Parcel([ONE], refused=[ONE])], held={ONE.asin: "too many refused"})
    assert in_force(warehouse) == {}
    sync([Parcel([ONE], hour=1)])
    assert in_force(warehouse) == contents([ONE])


def test_an_older_file_may_take_the_place_of_a_held_one_with_nothing_in_force(
    warehouse: psycopg.Connection[Any],
) -> None:
    bad = Slice(ONE.asin, 0, {"red shoe": 1})
    early = Parcel([ONE], name="early")
    late = Parcel([bad], hour=5, name="late")
    sync([early, late], held={ONE.asin: "lies"})
    assert in_force(warehouse) == {}
    sync([early])
    assert in_force(warehouse) == contents([ONE])


def test_refused_rows_of_a_file_that_broke_do_not_count(
    warehouse: psycopg.Connection[Any],
) -> None:
    tally = sync([Parcel([ONE], refused=[ONE], broken=True), Parcel([OTHER], name="good")])
    assert tally.records == {"inserted": 1}


def test_identical_rows_count_as_skipped_and_conflicting_ones_as_failed(
    warehouse: psycopg.Connection[Any],
) -> None:
    twice = row(ONE.asin, ONE.period_start, "red shoe", 100, 7)
    another = row(ONE.asin, ONE.period_start, "blue shoe", 51, 8)
    other_spelling = {**twice, "search_query": "RED shoe", "source_line": 9}
    tally = sync([Parcel([ONE], extra_rows=[twice, another, other_spelling])])
    assert tally.records == {"inserted": 2, "skipped": 2, "failed": 2}
    assert in_force(warehouse)["default", ONE.asin, ONE.period_start] == {
        "red shoe": 100,
        "shoe": 10,
    }
    refused = warehouse.execute(
        "select source_line, reason_code from landing.rejected_rows order by source_line"
    ).fetchall()
    assert refused == [(2, "conflicting_duplicate"), (8, "conflicting_duplicate")]


def test_of_two_files_in_one_run_the_later_one_holds(warehouse: psycopg.Connection[Any]) -> None:
    restated = Slice(ONE.asin, 0, {"red shoe": 7})
    tally = sync([Parcel([restated], hour=5, name="late"), Parcel([ONE], hour=1, name="early")])
    assert in_force(warehouse)["default", ONE.asin, ONE.period_start] == {"red shoe": 7}
    assert tally.superseded_records == 3
    assert tally.records == {"inserted": 1, "skipped": 3}


def test_an_older_file_is_skipped_unless_it_is_wanted(warehouse: psycopg.Connection[Any]) -> None:
    restated = Slice(ONE.asin, 0, {"red shoe": 7})
    sync([Parcel([restated], hour=5)])
    assert sync([Parcel([ONE], hour=1)]).older_records == 3
    assert in_force(warehouse)["default", ONE.asin, ONE.period_start] == {"red shoe": 7}
    sync([Parcel([ONE], hour=1)], allow_older=True)
    assert in_force(warehouse)["default", ONE.asin, ONE.period_start] == dict(ONE.queries)


def test_two_accounts_do_not_meet(warehouse: psycopg.Connection[Any]) -> None:
    theirs = Slice(ONE.asin, 0, {"red shoe": 1}, account="other")
    sync([Parcel([ONE, theirs])])
    assert in_force(warehouse)["default", ONE.asin, ONE.period_start] == dict(ONE.queries)
    assert in_force(warehouse)["other", ONE.asin, ONE.period_start] == {"red shoe": 1}


def test_many_rows_go_through_the_spool_on_disk_and_out_again_in_parts(
    warehouse: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.warehouse.spool.MEMORY_BYTES", 4_000)
    monkeypatch.setattr("flows.warehouse.spool.PART_ROWS", 50)
    slices = [
        Slice(asin(number), week, {f"query {q}": number + q for q in range(20)})
        for number in range(30)
        for week in range(6)
    ]
    shuffled = [values for each in slices for values in each.rows()]
    random.Random(1).shuffle(shuffled)
    tally = sync([Parcel([], extra_rows=shuffled)], batch_rows=100)
    assert tally.records == {"inserted": 3600}
    assert in_force(warehouse) == contents(slices)


LARGE = [
    Slice(asin(number), week, {f"query {q}": number + q for q in range(20)})
    for number in range(30)
    for week in range(6)
]
"""More rows than `large_is_little` lets one session land."""


@pytest.fixture
def large_is_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are many: they are landed in parts, side by side."""
    monkeypatch.setattr("flows.warehouse.spool.PART_ROWS", 50)


def restated() -> Parcel:
    """`LARGE` again: slices with other numbers, without a query, with contradictory rows, gone."""
    kept = LARGE[:-10]
    other = [
        replace(each, queries=dict.fromkeys(list(each.queries)[number % 2 :], 1))
        for number, each in enumerate(kept[:60])
    ]
    contradictory = [
        values | {"total_query_impression_count": values["total_query_impression_count"] + 1}
        for each in kept[60:70]
        for values in each.rows()[:2]
    ]
    return Parcel(other + kept[60:], hour=1, declares=LARGE[-10:], extra_rows=contradictory)


@pytest.mark.usefixtures("large_is_little")
@pytest.mark.parametrize("lanes", [2, 3])
def test_however_many_land_side_by_side_it_comes_to_the_same(
    warehouse: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, lanes: int
) -> None:
    def landed() -> list[Any]:
        warehouse.execute(
            "truncate landing.sqp_asin, landing.sqp_slices, landing.slice_loads,"
            " landing.rejected_rows"
        )
        tallies = [sync([Parcel(LARGE)]), sync([restated()])]
        logged = warehouse.execute(
            """
            select
                records_inserted, records_updated, records_unchanged, records_failed,
                records_deleted, slices_changed, slices_unchanged, period_start, period_end
            from sqp.sync_log
            order by id desc
            limit 2
            """
        ).fetchall()
        return [tallies, logged, in_force(warehouse)]

    monkeypatch.setattr("flows.warehouse.landing.LANES", 1)
    alone = landed()
    assert alone[0][1].records.keys() >= {"updated", "unchanged", "deleted", "failed"}
    assert alone[1][0][-2:] == (LARGE[0].period_start, LARGE[-1].period_start + timedelta(days=6))
    monkeypatch.setattr("flows.warehouse.landing.LANES", lanes)
    assert landed() == alone


@pytest.mark.usefixtures("large_is_little")
def test_when_one_of_two_sessions_fails_the_log_counts_what_is_there(
    warehouse: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = count()

    def fail_in_the_fifth(*arguments: Any) -> None:
        copy_into(*arguments)
        if next(copies) == 4:
            raise ConnectionError("the network is down")

    monkeypatch.setattr("flows.warehouse.lane.copy_into", fail_in_the_fifth)
    with pytest.raises(ConnectionError, match="network"):
        sync([Parcel(LARGE)])
    there = warehouse.execute("select count(*) from landing.sqp_asin").fetchone()
    logged = warehouse.execute(
        "select records_inserted, sync_status from sqp.sync_log order by id desc limit 1"
    ).fetchone()
    assert there
    assert 0 < there[0] < 3600
    assert logged == (there[0], "failed")
    monkeypatch.undo()
    tally = sync([Parcel(LARGE)])
    assert tally.records == {"inserted": 3600 - there[0], "unchanged": there[0]}
    assert in_force(warehouse) == contents(LARGE)


KILLED = """
import flows.warehouse.spool
flows.warehouse.spool.PART_ROWS = 50
from tests.integration.deliveries import Parcel, sync
from tests.integration.test_landing import LARGE
sync([Parcel(LARGE)])
"""


@pytest.mark.parametrize("where", ["bucket_5", "mid_copy"])
def test_a_run_that_is_killed_while_two_sessions_land_leaves_whole_slices(
    warehouse: psycopg.Connection[Any], where: str
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=PROJECT_ROOT, env=os.environ | {"FAULT_AT": where}
    )
    assert killed.returncode == -signal.SIGKILL
    with leased_run():
        # Nobody writes for the dead run any more.
        [[there, logged]] = warehouse.execute(
            """
            select
                (select count(*) from landing.sqp_asin),
                (select records_inserted from sqp.sync_log order by id desc limit 1)
            """
        ).fetchall()
    assert there == logged
    tally = sync([Parcel(LARGE)])
    assert tally.records == Counter(inserted=3600 - there) + Counter(unchanged=there)
    assert in_force(warehouse) == contents(LARGE)


@pytest.mark.usefixtures("warehouse")
def test_the_next_run_waits_for_a_session_that_still_writes_for_a_dead_one() -> None:
    begun = threading.Event()

    def run() -> None:
        with leased_run():
            begun.set()

    following = threading.Thread(target=run)
    with beside_the_run():
        following.start()
        assert not begun.wait(1)
    assert begun.wait(10)
    following.join()


def test_the_counts_of_every_log_row_add_up(warehouse: psycopg.Connection[Any]) -> None:
    sync([Parcel([ONE, OTHER], refused=[ONE])])
    logged = warehouse.execute(
        """
        select records_processed, records_inserted, records_failed, slices_changed, sync_status
        from sqp.sync_log
        """
    ).fetchone()
    assert logged == (5, 4, 1, 2, "completed")
    with pytest.raises(psycopg.errors.CheckViolation):
        warehouse.execute("update sqp.sync_log set records_inserted = records_inserted + 1")


def contents(slices: list[Slice]) -> Contents:
    return {(each.account, each.asin, each.period_start): dict(each.queries) for each in slices}


versions = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.integers(0, 2),
        st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 50), max_size=4),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(versions=versions, order=st.randoms(use_true_random=False))
def test_any_order_repetition_and_grouping_of_deliveries_ends_in_the_same(
    warehouse: psycopg.Connection[Any],
    versions: list[tuple[int, int, dict[str, int]]],
    order: random.Random,
) -> None:
    """The end is what the latest delivery of each slice says, whatever the way there."""
    wipe(warehouse)
    parcels = []
    latest: dict[tuple[str, int], Slice] = {}
    for hour, (number, week, queries) in enumerate(versions):
        delivered = Slice(asin(number), week, queries)
        parcels.append(Parcel([delivered], hour=hour, name=f"file {hour}", declares=[delivered]))
        latest[delivered.asin, week] = delivered
    arriving = parcels + order.choices(parcels, k=3)
    order.shuffle(arriving)
    while arriving:
        cut = order.randint(1, len(arriving))
        sync(arriving[:cut])
        arriving = arriving[cut:]
    assert in_force(warehouse) == contents(list(latest.values()))


def wipe(warehouse: psycopg.Connection[Any]) -> None:
    tables = ("landing.sqp_slices", "landing.sqp_asin", "landing.rejected_rows", "sqp.sync_log")
    warehouse.execute(
        sql.SQL("truncate {} cascade").format(
            sql.SQL(", ").join(sql.Identifier(*table.split(".")) for table in tables)
        )
    )
