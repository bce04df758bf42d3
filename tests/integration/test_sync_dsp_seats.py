"""Seats of DSP advertisers: whole or not at all, with what is new, changed and gone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.errors import ExitCode, UsageError
from flows.settings import PROJECT_ROOT
from flows.sync_accounts import sync_accounts
from flows.sync_dsp_seats import AdvertiserSync, SeatsReport, read_exchanges, sync_dsp_seats
from tests.apis import server as faults
from tests.apis.amazon import CANARY
from tests.apis.worlds import ADVERTISER, DSP_PROFILE, fill, seat
from tests.conftest import RunCli
from tests.integration.amazon_warehouse import Shop, get_now, open_shop, shop

__all__ = ["open_shop", "shop"]

SEATS = "POST /dsp/v1/seats/advertisers/current/list"


def sync(**arguments: Any) -> SeatsReport:
    report: SeatsReport = sync_dsp_seats.fn(**({"advertisers": [ADVERTISER]} | arguments))
    return report


def only(report: SeatsReport) -> AdvertiserSync:
    (found,) = report.advertisers
    return found


@pytest.fixture
def agency(shop: Shop) -> Shop:
    """A connection whose accounts are known."""
    shop.connect()
    sync_accounts.fn()
    return shop


def account(shop: Shop) -> dict[str, Any]:
    return shop.one("select * from app.user_accounts where amazon_account_id = %s", ADVERTISER)


def log(shop: Shop) -> dict[str, Any]:
    return shop.rows("select * from app.dsp_seats_sync_log order by created_at desc")[0]


def held(shop: Shop) -> list[dict[str, Any]]:
    return shop.rows("select * from app.dsp_seats order by exchange_id, seat_id")


def there(shop: Shop) -> set[tuple[str, str, str | None, str | None]]:
    return {
        (
            row["exchange_id"],
            row["exchange_name"],
            row["deal_creation_id"],
            row["spend_tracking_id"],
        )
        for row in held(shop)
        if row["removed_at"] is None
    }


def at_amazon(shop: Shop) -> set[tuple[str, str, str | None, str | None]]:
    return {
        (
            each["exchangeId"],
            each["exchangeName"],
            each.get("dealCreationId"),
            each.get("spendTrackingId"),
        )
        for each in shop.amazon.world.seats[ADVERTISER]
    }


def test_seats_come_whole_and_as_documented(agency: Shop) -> None:
    fill(agency.amazon.world, seats=450)
    report = sync()
    found = only(report)
    assert (found.status, report.exit_code) == ("success", ExitCode.DONE)
    assert (found.counts.seats, found.counts.exchanges, found.counts.new) == (450, 4, 450)
    assert there(agency) == at_amazon(agency)
    row = account(agency)
    document = row["seats_metadata"]
    assert document["total_seats"] == 450
    assert document["sync_status"] == "success"
    assert set(document["exchanges"][0]) == {
        "exchange_id",
        "exchange_name",
        "deal_creation_id",
        "spend_tracking_id",
        "added_at",
    }
    assert row["sync_status"] == "completed"
    assert row["last_synced_at"]
    found_by_exchange = agency.rows(
        "select from app.user_accounts where account_type = 'dsp' and seats_metadata @>"
        """ '{"exchanges": [{"exchange_name": "Exchange 9"}]}'"""
    )
    assert len(found_by_exchange) == 1
    written = log(agency)
    assert (written["sync_status"], written["seats_retrieved"], written["exchanges_count"]) == (
        "success",
        450,
        4,
    )
    assert written["response_metadata"]["pages"] == 5
    assert written["request_metadata"]["profile_id"] == DSP_PROFILE
    assert written["completed_at"]


def test_an_unchanged_answer_writes_times_and_nothing_else(agency: Shop) -> None:
    sync()
    before = agency.rows("select ctid, xmin, * from app.dsp_seats order by id")
    then = account(agency)
    history = agency.rows("select count(*) from app.dsp_seats_history")
    assert only(sync()).counts.new == 0
    assert agency.rows("select ctid, xmin, * from app.dsp_seats order by id") == before
    assert agency.rows("select count(*) from app.dsp_seats_history") == history
    now = account(agency)
    times = {"last_sync_attempt_at", "last_synced_at", "next_sync_at", "updated_at"}
    assert {name for name in now if now[name] != then[name]} == times


def test_new_changed_gone_and_back(agency: Shop, run_cli: RunCli) -> None:
    sync()
    world = agency.amazon.world
    world.seats[ADVERTISER] = [
        {**seat(1, 0), "exchangeName": "Renamed"},
        *world.seats[ADVERTISER][1:-2],
        seat(9),
        seat(7, 77),
    ]
    found = only(sync())
    assert (found.counts.new, found.counts.changed, found.counts.removed) == (1, 1, 1)
    assert there(agency) == at_amazon(agency)
    (gone,) = [row for row in held(agency) if row["removed_at"]]
    assert gone["first_seen_at"] < gone["last_seen_at"] <= gone["removed_at"]
    told = json.loads(run_cli("seats", ADVERTISER, "--json").stdout)[0]
    states = {each["seat_id"]: each["state"] for each in told["seats"]}
    assert states["deal-7-77"] == "new"
    assert states["deal-1-0"] == "changed"
    assert states[gone["seat_id"]] == "gone"
    assert sum(state is None for state in states.values()) == 3
    assert [each["sync_status"] for each in told["syncs"]] == ["success", "success"]
    text = run_cli("seats", ADVERTISER)
    assert text.returncode == 0, text.stderr
    assert "gone" in text.stdout
    assert "Renamed" in text.stdout
    fill(world)
    assert (only(sync()).counts.new, only(sync()).counts.new) == (1, 0), "one has come back"
    assert there(agency) == at_amazon(agency)


ANY: dict[str, faults.Fault] = faults.ANYWHERE | {
    "422": faults.status(422),
    "no parent": faults.status(
        400, {"code": "NO_PARENT_ENTITY_ID_OR_ADVERTISER_ID_FOR_ADVERTISER_CONTEXT"}
    ),
    "no list": faults.changed(lambda _: {"advertiserSeats": None}),
    "another's": faults.changed(
        lambda _: {"advertiserSeats": [{"advertiserId": "1", "currentSeats": [seat(1)]}]}
    ),
    "all gone": faults.changed(
        lambda _: {"advertiserSeats": [{"advertiserId": ADVERTISER, "currentSeats": []}]}
    ),
    "nothing": faults.changed(lambda _: {"advertiserSeats": []}),
    "the same page": faults.changed(lambda document: {**document, "nextToken": "page-1"}),
}


@pytest.mark.parametrize("second_page", [False, True])
@pytest.mark.parametrize("fault", ANY)
def test_any_fault_leaves_the_seats_as_they_were(
    fault: str, second_page: bool, agency: Shop
) -> None:
    sync()
    world = agency.amazon.world
    world.seats[ADVERTISER] = [seat(5, 5), *world.seats[ADVERTISER][:3]]
    if second_page:
        world.largest_page = 2
    before = agency.rows("select * from app.dsp_seats order by id")
    document = account(agency)["seats_metadata"]
    server = agency.amazon.regions["NA"]
    if second_page and fault in ("all gone", "nothing"):
        pytest.skip("an empty last page is no fault")
    if second_page:
        server.spoil(SEATS, None, *[ANY[fault]] * 6)
    else:
        server.always(SEATS, ANY[fault])
    found = only(sync())
    assert found.status == "failed"
    assert found.error
    assert found.error["next_step"]
    assert agency.rows("select * from app.dsp_seats order by id") == before
    row = account(agency)
    assert row["seats_metadata"] == document
    assert (row["sync_status"], row["sync_retry_count"]) == ("failed", 1)
    assert row["sync_error_message"]
    assert row["last_sync_attempt_at"] > row["last_synced_at"]
    if fault == "429 for long":
        assert (row["next_sync_at"] - get_now()).total_seconds() > 400
    written = log(agency)
    assert written["sync_status"] == "failed"
    assert written["completed_at"]
    assert found.error["next_step"] in written["error_message"]
    server.heal()
    agency.session.execute("truncate app.rate_limit_tracking")
    assert only(sync()).status == "success"
    assert there(agency) == at_amazon(agency)
    assert account(agency)["sync_error_message"] is None


def test_seats_that_all_vanish_are_held_back_until_somebody_says_so(agency: Shop) -> None:
    sync()
    agency.amazon.world.seats[ADVERTISER] = []
    found = only(sync())
    assert found.status == "failed"
    assert found.error
    assert "--accept-shrink" in found.error["next_step"]
    check = agency.rows("select * from sqp.data_quality_checks order by id desc")[0]
    assert (check["check_status"], check["table_name"]) == ("failed", "app.dsp_seats")
    assert only(sync(accept_shrink=True)).counts.removed == 5
    assert account(agency)["seats_metadata"]["total_seats"] == 0


def test_a_seat_that_cannot_be_read_removes_none(agency: Shop) -> None:
    sync()
    world = agency.amazon.world
    world.seats[ADVERTISER] = [{"exchangeId": "4"}, seat(8, 8), *world.seats[ADVERTISER][:2]]
    report = sync()
    found = only(report)
    assert (found.status, report.exit_code) == ("partial", ExitCode.PARTIAL)
    assert (found.counts.new, found.counts.removed) == (1, 0)
    assert sum(row["removed_at"] is None for row in held(agency)) == 6
    assert log(agency)["response_metadata"]["quarantined"][0]["id"] == "4"
    assert account(agency)["sync_status"] == "partial"


def test_a_filtered_read_shows_and_never_stores(agency: Shop, run_cli: RunCli) -> None:
    sync()
    agency.amazon.world.seats[ADVERTISER].append(seat(9, 90))
    tables = ("app.dsp_seats", "app.dsp_seats_sync_log", "app.user_accounts")
    before = [agency.rows(f"select * from {table} order by id") for table in tables]
    shown = read_exchanges(ADVERTISER, ["9"])
    assert [each["seat_id"] for each in shown] == ["9", "deal-9-90"]
    done = run_cli("seats", ADVERTISER, "--exchange", "9")
    assert done.returncode == 0, done.stderr
    assert "deal-9-90" in done.stdout
    assert "not stored" in done.stdout
    assert [agency.rows(f"select * from {table} order by id") for table in tables] == before


def test_a_second_sync_of_one_advertiser_is_refused_and_a_dead_one_taken_over(
    agency: Shop, run_cli: RunCli, prefect_server: str
) -> None:
    server = agency.amazon.regions["NA"]
    server.latency = 0.4
    reports: list[SeatsReport] = []
    threads = [threading.Thread(target=lambda: reports.append(sync())) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        server.latency = 0
    assert sorted(only(each).status for each in reports) == ["busy", "success"]
    assert {each.exit_code for each in reports} == {ExitCode.DONE, ExitCode.BUSY}
    with agency.session.transaction():
        agency.session.execute(
            "select pg_advisory_xact_lock(hashtextextended('warehouse.sync_dsp_seats.' || id, 0))"
            " from app.user_accounts where amazon_account_id = %s",
            (ADVERTISER,),
        )
        done = run_cli("sync-seats", ADVERTISER)
    assert done.returncode == ExitCode.BUSY, done.stderr
    assert "already running" in done.stdout
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.parametrize("step", ["seats_begun", "seats_fetched", "seats_in_swap", "seats_swapped"])
def test_death_at_any_step_and_one_rerun_is_one_clean_run(step: str, agency: Shop) -> None:
    code = f"from flows.sync_dsp_seats import sync_dsp_seats as s; s.fn(['{ADVERTISER}'])"
    died = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        env={**os.environ, "FAULT_AT": step},
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    assert only(sync()).status == "success"
    assert there(agency) == at_amazon(agency)
    statuses = [
        row["sync_status"]
        for row in agency.rows("select * from app.dsp_seats_sync_log order by created_at")
    ]
    assert statuses == ["success" if step == "seats_swapped" else "failed", "success"]
    assert agency.one("select count(*) from app.dsp_seats_history") == {"count": 5}


def test_all_advertisers_and_those_that_are_due(agency: Shop) -> None:
    agency.amazon.regions["EU"].always(SEATS, faults.status(403))
    report = sync(advertisers=None)
    assert [each.status for each in report.advertisers].count("success") == 3
    assert report.exit_code is ExitCode.PARTIAL
    assert sync(advertisers=None, sync_type="scheduled").advertisers == []
    with pytest.raises(UsageError, match="no DSP advertiser 12"):
        sync(advertisers=["12"])


NUMBERS = st.lists(st.integers(0, 12), min_size=1, max_size=20)


@settings(max_examples=15)
@given(NUMBERS, NUMBERS, st.integers(1, 5), st.randoms(use_true_random=False))
def test_any_pages_order_and_repetition_end_in_what_amazon_has(
    open_shop: Shop, first: list[int], second: list[int], page: int, order: random.Random
) -> None:
    """And the history tells exactly how the first became the second."""
    open_shop.reset()
    open_shop.connect()
    sync_accounts.fn()
    world = open_shop.amazon.world
    for numbers in (first, second):
        listed = [
            {**seat(number % 3, number), "exchangeName": f"E{number % 3}"} for number in numbers
        ]
        order.shuffle(listed)
        world.seats[ADVERTISER], world.largest_page = listed, page
        open_shop.amazon.regions["NA"].spoil(SEATS, faults.reset)
        assert only(sync()).status == "success"
        assert there(open_shop) == at_amazon(open_shop)
    counts = open_shop.one(
        "select count(*) filter (where change_type = 'new') as new,"
        " count(*) filter (where change_type = 'removed') as removed from app.dsp_seats_history"
    )
    assert counts == {
        "new": len(set(first) | set(second)),
        "removed": len(set(first) - set(second)),
    }
