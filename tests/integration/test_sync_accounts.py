"""Accounts of every kind stay in sync, whatever Amazon answers, and nothing is pretended."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.errors import ExitCode
from flows.settings import PROJECT_ROOT
from flows.sync_accounts import AccountsReport, ConnectionSync, sync_accounts
from flows.warehouse.connection import connect
from flows.warehouse.rate_limits import RateLimits
from tests.apis import server as faults
from tests.apis.amazon import CANARY
from tests.apis.worlds import (
    ADVERTISER,
    ALL_COUNTRIES,
    AMC_ENTITY,
    DSP_PROFILE,
    US_MARKET,
    ads_account,
    advertiser,
    fill,
    instance,
)
from tests.conftest import RunCli
from tests.integration.amazon_warehouse import (
    Shop,
    files_with_canary,
    get_now,
    open_shop,
    shop,
)

__all__ = ["open_shop", "shop"]

LIST, PROFILES = "POST /adsAccounts/list", "GET /v2/profiles"
DSP, AMC, INSTANCES = "GET /dsp/advertisers", "GET /amc/accounts", "GET /amc/instances"
TOKEN = "POST /auth/o2/token"
HELD = ("app.user_accounts", "app.amc_accounts", "app.amc_instances")
ATTEMPT = {"sync_status", "sync_error_message", "sync_retry_count"}
"""What a failed attempt may write to an account: nothing that the account is."""


def sync(**arguments: Any) -> AccountsReport:
    report: AccountsReport = sync_accounts.fn(**arguments)
    return report


def only(report: AccountsReport) -> ConnectionSync:
    (found,) = report.connections
    return found


def history(shop: Shop) -> dict[str, Any]:
    return shop.rows("select * from app.account_sync_history order by started_at desc")[0]


def stand(shop: Shop) -> dict[str, Any]:
    """What the accounts are, without how the last attempt went."""
    accounts = {
        row["amazon_account_id"]: {
            name: row[name]
            for name in row
            if name
            not in ATTEMPT
            | {
                "id",
                "updated_at",
                "created_at",
                "connected_at",
                "last_sync_attempt_at",
                "last_synced_at",
                "next_sync_at",
                "last_sync_change_at",
                "connection_id",
            }
        }
        for row in shop.rows("select * from app.user_accounts")
    }
    return {"accounts": accounts} | shop.contents("app.amc_accounts", "app.amc_instances")


def test_all_kinds_of_accounts_are_found(shop: Shop) -> None:
    connection = shop.connect()
    report = sync()
    found = only(report)
    assert (found.status, report.exit_code) == ("success", ExitCode.DONE)
    assert (found.counts.found, found.counts.new, found.counts.failed) == (11, 11, 0)
    kinds = shop.rows("select account_type, count(*) from app.user_accounts group by 1 order by 1")
    assert kinds == [
        {"account_type": "advertising", "count": 5},
        {"account_type": "amc", "count": 2},
        {"account_type": "dsp", "count": 4},
    ]
    big = shop.one("select * from app.user_accounts where amazon_account_id like '%%e00000'")
    markets = big["metadata"]["marketplaces"]
    assert len(markets) == len(ALL_COUNTRIES) == 17
    assert {each["country_code"] for each in markets} == set(ALL_COUNTRIES)
    assert all(each["profile_id"].isdigit() and each["entity_id"] for each in markets)
    assert {each["currency_code"] for each in markets} == {"USD", "EUR"}
    assert (big["status"], big["marketplace_id"], big["connection_id"]) == (
        "active",
        None,
        connection,
    )
    one = shop.one("select * from app.user_accounts where amazon_account_id like '%%e00001'")
    assert (one["profile_id"], one["entity_id"], one["marketplace_id"]) == (
        "3810822000000100",
        "ENTITY1X0",
        "MARKETUS",
    )
    assert one["sync_status"] == "completed"
    assert one["last_synced_at"]
    assert one["last_sync_attempt_at"]
    assert one["last_sync_change_at"]
    assert 0.89 * 3600 < (one["next_sync_at"] - get_now()).total_seconds() < 1.11 * 3600
    dsp = shop.one("select * from app.user_accounts where amazon_account_id = %s", ADVERTISER)
    assert (dsp["profile_id"], dsp["entity_id"], dsp["sync_status"]) == (
        DSP_PROFILE,
        AMC_ENTITY,
        "pending",
    )
    assert dsp["last_synced_at"] is None, "its seats were not synced"
    amc = shop.rows("select entity_id, status from app.user_accounts where account_type = 'amc'")
    assert {row["entity_id"] for row in amc} == {AMC_ENTITY}
    instances = shop.rows(
        "select instances.status, accounts.account_id from app.amc_instances as instances"
        " inner join app.amc_accounts as accounts on instances.account_id = accounts.id"
        " order by 1"
    )
    assert instances == [
        {"status": "active", "account_id": AMC_ENTITY},
        {"status": "pending", "account_id": AMC_ENTITY},
    ]
    row = history(shop)
    assert (row["sync_type"], row["sync_status"], row["accounts_synced"]) == (
        "manual",
        "success",
        11,
    )
    assert any("no DSP" in note for note in row["metadata"]["notes"]), "403 is normal, and said"
    assert row["error_details"] is None
    counted = shop.one("select sum(request_count) as n from app.rate_limit_tracking")
    assert counted["n"] == row["metadata"]["requests"] == found.requests


def test_an_unchanged_list_changes_times_and_nothing_else(shop: Shop) -> None:
    shop.connect()
    sync()
    before, audited = stand(shop), shop.rows("select count(*) from app.audit_logs")
    changes = shop.rows("select last_sync_change_at from app.user_accounts order by id")
    shop.session.execute("update app.user_accounts set account_name = 'My own', is_default = false")
    before = stand(shop)
    audited = shop.rows("select count(*) from app.audit_logs")
    found = only(sync())
    assert (found.counts.new, found.counts.changed, found.counts.disconnected) == (0, 0, 0)
    assert stand(shop) == before, "the tenant's own name stays, too"
    assert shop.rows("select count(*) from app.audit_logs") == audited
    assert shop.rows("select last_sync_change_at from app.user_accounts order by id") == changes


def test_what_changes_and_what_goes(shop: Shop) -> None:
    shop.connect()
    sync()
    world = shop.amazon.world
    world.accounts[1] = {
        **ads_account(1, status="PARTIALLY_CREATED"),
        "errors": {"US": [{"errorId": 1, "errorCode": "E", "errorMessage": "m"}]},
    }
    world.accounts[3]["status"] = "BRAND_NEW_WORD"
    del world.accounts[2]
    del world.advertisers[DSP_PROFILE][2]
    world.instances[AMC_ENTITY, US_MARKET] = [instance(1), instance(2)]
    found = only(sync())
    assert (found.status, found.counts.changed, found.counts.disconnected) == ("success", 3, 2)
    status = {
        row["amazon_account_id"][-5:]: row["status"]
        for row in shop.rows("select amazon_account_id, status from app.user_accounts")
    }
    assert (status["00001"], status["00002"], status["00003"]) == (
        "partial",
        "disconnected",
        "active",
    ), "an unknown word changes no status"
    one = shop.one("select * from app.user_accounts where amazon_account_id like '%%e00001'")
    assert one["metadata"]["errors"]["US"][0]["error_code"] == "E"
    odd = shop.one("select * from app.user_accounts where amazon_account_id like '%%e00003'")
    assert odd["metadata"]["api_status"] == "BRAND_NEW_WORD"
    assert shop.one("select count(*) from app.user_accounts")["count"] == 11
    fill(world)
    assert only(sync()).counts.new == 0
    back = shop.one("select * from app.user_accounts where amazon_account_id like '%%e00002'")
    assert back["status"] == "active"


ANY: dict[str, faults.Fault] = faults.ANYWHERE | {
    "429 until": faults.too_many("Fri, 01 Jan 2100 00:00:00 GMT"),
    "a list of nothing known": faults.changed(lambda _: ["x", 1]),
}
NORMAL = {(AMC, "403")}
"""No access to AMC is no fault, unless there was some."""


@pytest.fixture(scope="module")
def clean(open_shop: Shop) -> dict[str, Any]:
    """What an undisturbed sync ends in."""
    open_shop.reset()
    open_shop.connect()
    sync()
    return stand(open_shop)


@pytest.mark.parametrize("fault", ANY)
@pytest.mark.parametrize("endpoint", [LIST, PROFILES, DSP, AMC, INSTANCES, "everything"])
def test_any_fault_anywhere_leaves_each_account_as_before_or_as_after(
    endpoint: str, fault: str, shop: Shop, clean: dict[str, Any]
) -> None:
    """First on an empty warehouse, then where the accounts were known; one more run is clean."""
    shop.connect()
    targets = [LIST, PROFILES, DSP, AMC, INSTANCES] if endpoint == "everything" else [endpoint]

    def spoil() -> None:
        shop.amazon.heal()
        for server in shop.amazon.regions.values():
            for target in targets:
                server.always(target, ANY[fault])

    for known in (False, True):
        if known:
            shop.amazon.heal()
            shop.session.execute(
                "update app.oauth_tokens set next_refresh_at = null;"
                " truncate app.rate_limit_tracking"
            )
            assert only(sync()).status == "success"
            shop.amazon.world.accounts[1]["status"] = "DISABLED"
        before = stand(shop)["accounts"]
        spoil()
        report = only(sync())
        after = stand(shop)["accounts"]
        normal = fault == "403" and endpoint in (DSP, AMC) and not known
        row = history(shop)
        assert row["sync_status"] == report.status
        assert row["completed_at"]
        assert report.status in (("success",) if normal else ("partial", "failed"))
        if endpoint == "everything":
            assert report.status == "failed"
        if not normal:
            assert report.problems
            assert all(each["next_step"] and each["why"] for each in report.problems)
            assert "next_step" in json.dumps(row["error_details"])
        for name, account in after.items():
            wanted = clean["accounts"][name]
            allowed = [wanted, before.get(name)]
            if known and name.endswith("e00001"):
                disabled = {**wanted["metadata"], "api_status": "DISABLED"}
                allowed.append({**wanted, "status": "disabled", "metadata": disabled})
            assert account in allowed, name
        assert set(before) <= set(after), "nothing is ever deleted"
        shown = [each["status"] for each in after.values()]
        assert "disconnected" not in shown, "a fault proves no absence"
        if known and report.status == "failed":
            why = shop.rows(
                "select sync_error_message, sync_retry_count, next_sync_at"
                " from app.user_accounts where account_type <> 'dsp'"
            )
            assert all(each["sync_error_message"] and each["sync_retry_count"] for each in why)
            if fault in ("429 for long", "429 until"):
                assert all((each["next_sync_at"] - get_now()).total_seconds() > 400 for each in why)
    fill(shop.amazon.world)
    shop.amazon.heal()
    shop.session.execute(
        "update app.oauth_tokens set next_refresh_at = null; truncate app.rate_limit_tracking"
    )
    assert only(sync()).status == "success"
    assert stand(shop) == clean
    failed = shop.rows("select from app.user_accounts where sync_error_message is not null")
    assert failed == []


@pytest.mark.parametrize("name", ["invalid_grant", "invalid_client", "unauthorized_client"])
def test_a_connection_that_needs_a_person_stops_no_other(name: str, shop: Shop) -> None:
    login = shop.amazon.login
    shop.connect(name="agency", good=False)
    shop.connect("bert@example.com", "other", good=False)
    login.spoil(TOKEN, lambda *_: login.error(name))
    report = sync()
    assert [each.status for each in report.connections] == ["failed", "success"]
    assert report.exit_code is ExitCode.PARTIAL
    assert "warehouse connect amazon" in report.connections[0].problems[0]["next_step"]
    assert shop.one("select count(*) from app.user_accounts where user_id = %s", shop.anna) == {
        "count": 0
    }
    row = shop.one("select * from app.account_sync_history where user_id = %s", shop.anna)
    assert row["error_details"]["code"] == name
    asked = login.count(TOKEN)
    assert sync().connections[0].status == "failed"
    assert login.count(TOKEN) == asked, "no retry storm"


def test_an_access_token_that_ends_on_the_way_is_renewed_once(shop: Shop) -> None:
    shop.connect()
    shop.amazon.login.expire_all()
    assert only(sync()).status == "success"
    assert shop.amazon.login.count(TOKEN) == 1


def test_items_that_cannot_be_read_are_set_aside(
    shop: Shop, subtests: pytest.Subtests, clean: dict[str, Any]
) -> None:
    shop.connect()
    sync()
    world = shop.amazon.world
    for name, wrong in (
        ("a changed type", {**ads_account(1), "countryCodes": "US"}),
        (
            "a float for an id",
            {**ads_account(1), "alternateIds": [{"countryCode": "US", "profileId": 3.8e15}]},
        ),
        ("no id", {"accountName": "x"}),
        ("text", "x"),
    ):
        with subtests.test(name):
            world.accounts = [*[each for each in world.accounts if each != ads_account(1)], wrong]  # type: ignore[list-item]
            found = only(sync())
            assert found.status == "partial"
            assert found.problems[0]["why"]
            assert history(shop)["error_details"]["quarantined_count"] == 1
            kept = shop.one(
                "select status from app.user_accounts where amazon_account_id like '%%e00001'"
            )
            assert kept["status"] == "active", "what may be it is not missing"
            fill(world)
    world.accounts = [{**each, "brandNew": [1]} for each in world.accounts]
    assert only(sync()).status == "success"
    one = shop.one("select * from app.user_accounts where amazon_account_id like '%%e00001'")
    assert one["metadata"]["further"] == {"brandNew": [1]}


def test_duplicates_and_overlapping_pages_change_nothing(shop: Shop, clean: dict[str, Any]) -> None:
    shop.connect()
    world = shop.amazon.world
    world.largest_page = 2
    world.accounts = [*world.accounts, *reversed(world.accounts)]
    world.profiles["EU"] = world.profiles["EU"] * 2
    assert only(sync()).status == "success"
    assert stand(shop) == clean
    assert history(shop)["metadata"]["duplicates"] > 5


@settings(max_examples=8)
@given(
    page=st.integers(1, 6),
    repeats=st.lists(st.integers(0, 4), max_size=4),
    passing=st.lists(
        st.sampled_from((LIST, PROFILES, DSP, AMC, INSTANCES)), max_size=4, unique=True
    ),
    order=st.randoms(use_true_random=False),
)
def test_any_pages_order_repetition_and_retries_end_in_the_same_accounts(
    open_shop: Shop, page: int, repeats: list[int], passing: list[str], order: random.Random
) -> None:
    """A second sync, of another order and other pages, then finds nothing that is new."""
    open_shop.reset()
    open_shop.connect()
    assert only(sync()).status == "success"
    clean = stand(open_shop)
    open_shop.reset()
    open_shop.connect()
    world = open_shop.amazon.world
    for _ in range(2):
        world.largest_page = page
        world.accounts += [world.accounts[number] for number in repeats]
        for listed in (world.accounts, *world.profiles.values(), *world.advertisers.values()):
            order.shuffle(listed)
        for endpoint in passing:
            for server in open_shop.amazon.regions.values():
                server.spoil(
                    endpoint, order.choice((faults.reset, faults.status(503), faults.html))
                )
        report = only(sync())
        assert report.status == "success", report.problems
        assert stand(open_shop) == clean
        page = 7 - page
    assert report.counts.changes == 0


def test_a_list_that_shrinks_by_more_than_half_is_held_back(shop: Shop) -> None:
    shop.connect()
    sync()
    before = stand(shop)
    shop.amazon.world.accounts = shop.amazon.world.accounts[:2]
    report = sync()
    assert (only(report).status, report.exit_code) == ("failed", ExitCode.FAILED)
    assert "--accept-shrink" in only(report).problems[0]["next_step"]
    assert stand(shop) == before
    check = shop.rows("select * from sqp.data_quality_checks order by id desc")[0]
    assert (check["check_type"], check["check_status"]) == ("volume", "failed")
    assert only(sync(accept_shrink=True)).counts.disconnected == 3
    check = shop.rows("select * from sqp.data_quality_checks order by id desc")[0]
    assert check["check_status"] == "passed"


def test_no_account_at_all_is_no_success(shop: Shop) -> None:
    shop.connect()
    shop.amazon.world.__init__()  # type: ignore[misc]
    report = sync()
    assert only(report).status == "failed"
    assert "no account" in only(report).problems[0]["what"]
    fill(shop.amazon.world)


def test_access_that_was_there_and_is_not_is_a_problem(shop: Shop) -> None:
    shop.connect()
    sync()
    del shop.amazon.world.advertisers[DSP_PROFILE]
    found = only(sync())
    assert found.status == "partial"
    assert found.counts.failed == 3
    assert f"DSP of profile {DSP_PROFILE}" in [each["where"] for each in found.problems]


def test_two_syncs_of_a_connection_exclude_each_other(shop: Shop) -> None:
    shop.connect()
    for server in shop.amazon.regions.values():
        server.latency = 0.2
    reports: list[AccountsReport] = []
    threads = [threading.Thread(target=lambda: reports.append(sync())) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for server in shop.amazon.regions.values():
            server.latency = 0
    assert sorted(only(each).status for each in reports) == ["busy", "success"]
    assert {each.exit_code for each in reports} == {ExitCode.DONE, ExitCode.BUSY}
    assert len(shop.rows("select from app.account_sync_history")) == 1


def test_a_scheduled_sync_takes_what_is_due(shop: Shop) -> None:
    shop.connect()
    assert only(sync(sync_type="scheduled")).status == "success"
    assert sync(sync_type="scheduled").connections == []
    shop.session.execute("update app.user_accounts set next_sync_at = now()")
    assert only(sync(sync_type="scheduled")).status == "success"
    assert history(shop)["sync_type"] == "scheduled"


def test_a_wait_that_one_process_was_told_is_kept_by_all(shop: Shop) -> None:
    shop.connect()
    shop.connect("bert@example.com", "other")
    first, stranger = RateLimits(shop.anna), RateLimits(shop.bert)
    first.sent("GET EU /v2/profiles")
    first.refused("GET EU /v2/profiles", 1.2)
    with connect(autocommit=True, role="etl") as session:
        first.exchange(session)
        stranger.exchange(session)
    assert stranger.wait_seconds("GET EU /v2/profiles") == 0
    started = time.monotonic()
    assert only(sync(connection="agency")).status == "success"
    assert time.monotonic() - started > 0.8
    row = shop.one(
        "select * from app.rate_limit_tracking where user_id = %s and endpoint like '%% EU /v2%%'",
        shop.anna,
    )
    assert (row["request_count"], row["limit_hit_count"], row["retry_after_seconds"]) == (2, 1, 2)
    assert row["last_limit_hit"]


def test_a_429_is_shared_while_requests_are_still_sent(shop: Shop) -> None:
    """The writer must never wait for who waits: a sync that was refused shares it at once."""
    shop.connect()
    shop.amazon.regions["EU"].spoil(PROFILES, faults.too_many("1"))
    seen: list[bool] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            seen.append(bool(shop_rows(shop)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    report = only(sync())
    seen_while_running = any(seen)
    stop.set()
    watcher.join()
    assert report.status == "success"
    assert seen_while_running
    row = shop.one("select * from app.rate_limit_tracking where limit_hit_count > 0")
    assert (row["request_count"], row["endpoint"]) == (2, "GET EU /v2/profiles")


def shop_rows(shop: Shop) -> list[Any]:
    with connect(autocommit=True) as session:
        return session.execute(
            "select 1 from app.rate_limit_tracking where limit_hit_count > 0"
        ).fetchall()


@pytest.mark.parametrize(
    "step", ["accounts_begun", "accounts_fetched", "accounts_in_swap", "accounts_swapped"]
)
def test_death_at_any_step_and_one_rerun_is_one_clean_run(
    step: str, shop: Shop, clean: dict[str, Any]
) -> None:
    shop.connect()
    code = "from flows.sync_accounts import sync_accounts as s; s.fn()"
    died = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        env={**os.environ, "FAULT_AT": step},
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    open_rows = shop.rows("select sync_status from app.account_sync_history")
    assert len(open_rows) == 1
    assert only(sync()).status == "success"
    assert stand(shop) == clean
    rows = shop.rows("select * from app.account_sync_history order by started_at")
    assert [row["sync_status"] for row in rows] == [
        "success" if step == "accounts_swapped" else "failed",
        "success",
    ]
    if step != "accounts_swapped":
        assert rows[0]["error_details"]["failure"] == "worker_lost"


def test_the_command_says_what_is_what_and_nothing_secret(
    shop: Shop,
    run_cli: RunCli,
    prefect_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Nor in Prefect's database and log, the server's log, or anything else that is left behind."""
    shop.connect()
    shop.amazon.regions["EU"].always(PROFILES, faults.html)
    done = run_cli("sync-accounts")
    assert done.returncode == ExitCode.PARTIAL, done.stderr
    assert "GET EU /v2/profiles has failed" in done.stdout
    assert "next: " in done.stdout
    assert "that is normal" in done.stderr
    assert CANARY not in done.stdout + done.stderr
    shop.amazon.heal()
    done = run_cli("sync-accounts", "--json", "--debug")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert json.loads(done.stdout)["connections"][0]["status"] == "success"
    assert CANARY not in done.stdout + done.stderr
    assert files_with_canary(tmp_path_factory.getbasetemp()) == []
    if shop.database.is_socket:
        logs = list(Path(shop.database.host).parent.rglob("server.log"))
        assert logs
        assert not any(CANARY.encode() in log.read_bytes() for log in logs)
    assert run_cli("sync-accounts", "--connection", "nobody").returncode == ExitCode.USAGE
    assert advertiser(0)["advertiserId"] == ADVERTISER
