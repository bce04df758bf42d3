"""Tokens of connections: renewed in time, by one process, and never lost or shown."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from datetime import timedelta
from http.client import HTTPResponse
from typing import Any

import pytest

from flows.errors import ExitCode
from flows.refresh_tokens import Outcome, RefreshReport, refresh_tokens
from flows.settings import PROJECT_ROOT
from flows.warehouse.amazon_connections import amazon_client
from flows.warehouse.secrets import RowRef, SecretBox
from tests.apis import server as faults
from tests.apis.amazon import CANARY, LWA_ERRORS
from tests.integration.amazon_warehouse import Shop, get_now, open_shop, shop

__all__ = ["open_shop", "shop"]
TOKEN = "POST /auth/o2/token"


def refresh(**arguments: Any) -> RefreshReport:
    report: RefreshReport = refresh_tokens.fn(**arguments)
    return report


def token(shop: Shop, name: str = "agency") -> dict[str, Any]:
    return shop.one("select * from app.oauth_tokens where connection_name = %s", name)


def opened(row: dict[str, Any], column: str) -> str:
    where = RowRef("app.oauth_tokens", column, row["id"], row["user_id"])
    return SecretBox.from_settings().open(row[column], row["key_id"], where).get_secret_value()


def test_a_token_is_renewed_before_it_ends_and_not_sooner(shop: Shop) -> None:
    shop.connect(name="agency")
    shop.connect("bert@example.com", "late", good=False)
    report = refresh()
    assert [(each.connection, each.outcome) for each in report.tokens] == [
        ("agency", Outcome.STILL_GOOD),
        ("late", Outcome.REFRESHED),
    ]
    assert report.exit_code is ExitCode.DONE
    late = token(shop, "late")
    assert (late["refresh_count"], late["refresh_failure_count"]) == (1, 0)
    assert late["last_refresh_at"]
    assert late["expires_at"] > get_now(3500)
    assert shop.amazon.login.is_valid(opened(late, "access_token"))
    assert refresh().tokens[1].outcome is Outcome.STILL_GOOD
    assert shop.amazon.login.count(TOKEN) == 1
    count = shop.one("select endpoint, request_count from app.rate_limit_tracking")
    assert count == {"endpoint": TOKEN, "request_count": 1}


def test_no_time_of_a_sync_is_touched(shop: Shop) -> None:
    connection = shop.connect(good=False)
    shop.session.execute(
        "insert into app.user_accounts (user_id, account_name, amazon_account_id, connection_id)"
        " values (%s, 'x', 'amzn1.x', %s)",
        (shop.anna, connection),
    )
    before = shop.rows("select * from app.user_accounts")
    refresh()
    assert shop.rows("select * from app.user_accounts") == before


def test_only_who_wants_it_is_looked_after(shop: Shop) -> None:
    shop.connect(good=False)
    shop.session.execute("update app.oauth_tokens set proactive_refresh_enabled = false")
    assert refresh().tokens == []
    shop.session.execute(
        "update app.oauth_tokens set proactive_refresh_enabled = true, is_active = false"
    )
    assert refresh().tokens == []


@pytest.mark.parametrize("way", ["the same", "rotated", "omitted"])
def test_the_refresh_token_that_came_is_kept_or_the_one_that_was(way: str, shop: Shop) -> None:
    shop.amazon.login.rotates, shop.amazon.login.omits = way == "rotated", way == "omitted"
    shop.connect(good=False)
    before = opened(token(shop), "refresh_token")
    refresh()
    after = opened(token(shop), "refresh_token")
    assert (after != before) == (way == "rotated")
    shop.session.execute("update app.oauth_tokens set expires_at = now()")
    assert refresh().exit_code is ExitCode.DONE, "and it works again"


@pytest.mark.parametrize("name", ["invalid_grant", "invalid_client", "unauthorized_client"])
def test_what_amazon_refuses_for_good_waits_for_a_person(name: str, shop: Shop) -> None:
    """No retry storm; the others go on; the next step is shown each time."""
    shop.connect(name="agency", good=False)
    shop.connect("bert@example.com", "other", good=False)
    login = shop.amazon.login
    login.spoil(TOKEN, lambda *_: login.error(name))
    report = refresh()
    assert [each.outcome for each in report.tokens] == [
        Outcome.NEEDS_REAUTHORISATION,
        Outcome.REFRESHED,
    ]
    assert report.exit_code is ExitCode.PARTIAL
    row = token(shop)
    assert (row["connection_status"], row["refresh_failure_count"]) == ("needs_reauthorisation", 1)
    assert name in row["last_refresh_error"]
    assert "warehouse connect amazon" in str(report)
    asked = login.count(TOKEN)
    again = refresh().tokens[0]
    assert again.outcome is Outcome.NEEDS_REAUTHORISATION
    assert again.error
    assert "warehouse connect amazon" in again.error["next_step"]
    assert name in again.error["why"]
    assert login.count(TOKEN) == asked, "nobody asks again"
    assert refresh(retry=True).tokens[0].outcome is Outcome.REFRESHED
    assert token(shop)["connection_status"] == "connected"


PASSING: dict[str, faults.Fault] = {
    **{str(code): faults.status(code) for code in (500, 502, 503, 504)},
    "429": faults.too_many("1"),
    "reset": faults.reset,
    "cut off": faults.truncated,
    "html": faults.html,
    "empty": faults.empty,
    "drip": faults.slow(0.2),
    "hang": faults.hanging(2),
    "bomb": faults.gzip_bomb(8),
    "redirect": faults.redirect("http://localhost:1/"),
    "no token": faults.changed(lambda said: {**said, "access_token": None}),
    "no end": faults.changed(lambda said: {**said, "expires_in": "soon"}),
    "invalid_request": lambda *_: faults.Reply(400, {"error": "invalid_request"}),
    "unsupported": lambda *_: faults.Reply(400, {"error": "unsupported_grant_type"}),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_counted_and_tried_again(name: str, shop: Shop) -> None:
    shop.connect(good=False)
    before = token(shop)
    shop.amazon.login.always(TOKEN, PASSING[name])
    (told,) = refresh().tokens
    assert told.outcome is Outcome.FAILED
    row = token(shop)
    assert row["connection_status"] == "connected"
    assert row["refresh_failure_count"] == 1
    assert row["next_refresh_at"]
    assert row["last_refresh_error"]
    same = ("access_token", "refresh_token", "expires_at", "refresh_count", "last_refresh_at")
    assert [row[each] for each in same] == [before[each] for each in same]
    shop.amazon.login.heal()
    shop.session.execute("update app.oauth_tokens set next_refresh_at = now()")
    assert refresh().tokens[0].outcome is Outcome.REFRESHED
    assert token(shop)["refresh_failure_count"] == 0
    assert token(shop)["last_refresh_error"] is None


def test_failures_wait_longer_each_time_and_never_for_good(shop: Shop) -> None:
    shop.connect(good=False)
    shop.session.execute("update app.oauth_tokens set refresh_failure_count = 40")
    shop.amazon.login.always(TOKEN, faults.status(503))
    refresh()
    waits = token(shop)["next_refresh_at"] - get_now()
    assert timedelta(minutes=40) < waits < timedelta(minutes=80)
    asked = shop.amazon.login.count(TOKEN)
    (told,) = refresh().tokens
    assert told.outcome is Outcome.FAILED
    assert "tried again from" in str(told.error)
    assert shop.amazon.login.count(TOKEN) == asked


def test_a_tenant_whose_key_is_lost_stops_no_other(shop: Shop) -> None:
    shop.connect(name="agency", good=False)
    shop.connect("bert@example.com", "other", good=False)
    shop.session.execute(
        "update app.oauth_tokens set key_id = 'gone' where connection_name = 'agency'"
    )
    report = refresh()
    assert [each.outcome for each in report.tokens] == [Outcome.FAILED, Outcome.REFRESHED]
    assert "sealed under key gone" in token(shop)["last_refresh_error"]


def test_two_processes_renew_a_token_with_one_request(shop: Shop) -> None:
    shop.connect(good=False)
    shop.amazon.login.latency = 0.3
    done: list[Outcome] = []
    try:
        threads = [
            threading.Thread(target=lambda: done.append(refresh().tokens[0].outcome))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(done) == [Outcome.REFRESHED, *[Outcome.STILL_GOOD] * 3]

        shop.session.execute("update app.oauth_tokens set expires_at = now()")
        code = "from flows.refresh_tokens import refresh_tokens as r; print(r.fn().tokens[0])"
        children = [
            subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT_ROOT, stdout=-1, text=True)
            for _ in range(2)
        ]
        told = [child.communicate()[0] for child in children]
        assert sum("REFRESHED" in each for each in told) >= 1, told
        assert all(child.returncode == 0 for child in children)
    finally:
        shop.amazon.login.latency = 0
    assert shop.amazon.login.count(TOKEN) == 2
    assert token(shop)["refresh_count"] == 2


def test_death_before_the_answer_is_stored_loses_nothing(shop: Shop) -> None:
    shop.connect(good=False)
    before = token(shop)
    code = "from flows.refresh_tokens import refresh_tokens as r; r.fn()"
    died = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        env={**os.environ, "FAULT_AT": "token_answered"},
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    assert token(shop) == before
    assert refresh().tokens[0].outcome is Outcome.REFRESHED


def open_browser(url: str) -> HTTPResponse:
    """A person who agrees: the consent page, then the address that it sends the browser to."""
    response: HTTPResponse = urllib.request.urlopen(url, timeout=10)
    return response


def test_a_person_connects_and_connects_again(shop: Shop) -> None:
    for round_ in (1, 2):
        with subprocess.Popen(
            [
                *(sys.executable, "-m", "flows.cli", "connect", "amazon"),
                *("--user", "ANNA@example.com", "--name", "agency"),
            ],
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr
            assert process.stdout
            process.stderr.readline()
            url = process.stderr.readline().strip()
            assert url.startswith(shop.amazon.login.url)
            back = re.search(r"redirect_uri=http%3A%2F%2Flocalhost%3A(\d+)%2Fcallback", url)
            assert back
            callback = f"http://localhost:{back[1]}/callback"
            for stranger in ("?code=stolen&state=guessed", "?code=stolen", "/other?state=x"):
                with pytest.raises(urllib.error.HTTPError, match="400"):
                    urllib.request.urlopen(callback + stranger, timeout=5)
            assert b"is connected" in open_browser(url).read()
            said, noise = process.communicate(timeout=60)
        assert process.returncode == 0, noise
        assert "connection agency is made" in said
        assert CANARY not in said + noise
        row = token(shop)
        assert row["user_id"] == shop.anna
        assert row["user_account_id"] is None
        assert opened(row, "refresh_token") in shop.amazon.login.refresh_tokens
        if round_ == 1:
            shop.session.execute(
                "update app.oauth_tokens set connection_status = 'needs_reauthorisation',"
                " refresh_failure_count = 3, last_refresh_error = 'x'"
            )
    assert row["connection_status"] == "connected"
    assert (row["refresh_failure_count"], row["last_refresh_error"]) == (0, None)


def test_who_declines_is_told_what_to_do(shop: Shop) -> None:
    from flows.connect_amazon import Listener

    with Listener(0) as listener:
        address = (
            f"{listener.consent.redirect_uri}?error=access_denied&state={listener.consent.state}"
        )
        visitor = threading.Thread(
            target=lambda: urllib.request.urlopen(address, timeout=10).read()
        )
        visitor.start()
        with pytest.raises(Exception, match=r"access_denied.*connect amazon"):
            listener.wait()
        visitor.join()


def test_a_client_that_is_not_set_is_a_usage_error(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.errors import UsageError
    from flows.settings import get_settings

    monkeypatch.delenv("AMAZON_CLIENT_SECRET")
    get_settings.cache_clear()
    with pytest.raises(UsageError, match="AMAZON_CLIENT_SECRET"):
        amazon_client()
    assert set(LWA_ERRORS) >= {"invalid_grant"}
