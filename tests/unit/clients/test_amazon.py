"""The clients of Amazon's APIs against servers that hold them to the published schemas."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from flows.clients import bodies, lwa
from flows.clients.amazon_ads import AmazonAds
from flows.clients.failures import ApiError, Failure
from flows.clients.http import ApiSession
from flows.clients.paging import Page, read_all
from flows.clients.patience import Patience
from flows.clients.shapes import AdsAccount, Seat, read_items
from flows.settings import Settings
from flows.vocabulary.amc import ApiRegion
from tests.apis import server as faults
from tests.apis.amazon import CLIENT_ID, CLIENT_SECRET, LWA_ERRORS, Amazon, amazon
from tests.apis.worlds import (
    ADVERTISER,
    AMC_ENTITY,
    DSP_PROFILE,
    US_MARKET,
    ads_account,
    fill,
    seat,
)

QUICK = Patience(attempts=2, first_wait=0.01, sync_seconds=10, request_seconds=5, rows=20_000)


@pytest.fixture(scope="module")
def served() -> Iterator[Amazon]:
    with amazon() as servers:
        yield servers


@pytest.fixture
def api(served: Amazon) -> Iterator[Amazon]:
    served.heal()
    fill(served.world)
    served.login.rotates = served.login.omits = False
    yield served
    assert served.violations() == []


class Given:
    """A token of the login."""

    def __init__(self, token: str) -> None:
        self.token = token

    async def current(self) -> str:
        return self.token

    async def instead_of(self, refused: str) -> str:
        raise AssertionError(refused)


def with_ads(api: Amazon, work: Callable[[AmazonAds], Awaitable[Any]], **limits: Any) -> Any:
    """What a client of these servers brings."""

    async def run() -> Any:
        patience = QUICK.model_copy(update=limits)
        async with ApiSession(patience, tokens=Given(api.login.access())) as session:
            hosts = {ApiRegion(region): server.url for region, server in api.regions.items()}
            return await work(AmazonAds(session, CLIENT_ID, hosts))

    return asyncio.run(run())


def with_login(api: Amazon, work: Callable[[ApiSession, lwa.Client], Awaitable[Any]]) -> Any:
    client = lwa.Client(
        CLIENT_ID, SecretStr(CLIENT_SECRET), api.login.url, f"{api.login.url}/ap/oa"
    )

    async def run() -> Any:
        async with ApiSession(QUICK) as session:
            return await work(session, client)

    return asyncio.run(run())


def test_ten_thousand_accounts_come_in_a_hundred_pages(api: Amazon) -> None:
    fill(api.world, 10_000, countries_of=(("US",),))
    found = with_ads(api, lambda ads: ads.ads_accounts())
    assert len(found.good) == 10_000
    assert api.regions["NA"].count("POST /adsAccounts/list") == 100


def test_every_list_is_read_to_its_end(api: Amazon) -> None:
    api.world.largest_page = 2

    async def work(ads: AmazonAds) -> list[int]:
        here = ApiRegion.NORTH_AMERICA
        return [
            len((await ads.ads_accounts()).good),
            len((await ads.profiles(here)).good),
            len((await ads.dsp_advertisers(here, DSP_PROFILE)).good),
            len((await ads.dsp_seats(here, ADVERTISER, DSP_PROFILE)).items.good),
            len((await ads.dsp_seats(here, ADVERTISER, DSP_PROFILE, ["9"])).items.good),
            len((await ads.amc_accounts(here)).good),
            len((await ads.amc_instances(here, AMC_ENTITY, US_MARKET)).good),
        ]

    profiles = len(api.world.profiles["NA"])
    assert with_ads(api, work) == [5, profiles, 3, 5, 1, 1, 2]


def accounts_page(tokens: list[str | None], items: int = 1) -> list[faults.Fault]:
    return [
        faults.changed(
            lambda document, token=token: {
                "adsAccounts": document["adsAccounts"][:items],
                "nextToken": token,
            }
        )
        for token in tokens
    ]


@pytest.mark.parametrize(
    ("pages", "items"),
    [(["page-1"] * 3, 1), (["page-1", "page-2", "page-1", "page-2"], 1), (["page-1"], 0)],
    ids=["the same", "A B A", "an empty page"],
)
def test_pages_in_a_circle_are_no_list(pages: list[str | None], items: int, api: Amazon) -> None:
    api.regions["NA"].spoil("POST /adsAccounts/list", *accounts_page(pages, items))
    with pytest.raises(ApiError) as caught:
        with_ads(api, lambda ads: ads.ads_accounts())
    assert caught.value.failure is Failure.PAGINATION_LOOP


def test_a_list_without_an_end_fails_and_is_not_cut(api: Amazon) -> None:
    api.world.largest_page = 1
    for limits in ({"pages": 3}, {"rows": 3}):
        with pytest.raises(ApiError) as caught:
            with_ads(api, lambda ads: ads.ads_accounts(), **limits)
        assert caught.value.failure is Failure.TOO_MANY_ROWS


@pytest.mark.parametrize(
    "change",
    [
        lambda document: {},
        lambda document: [],
        lambda document: {"adsAccounts": {}},
        lambda document: {"adsAccounts": None},
        lambda document: {"adsAccounts": [{"adsAccount": {}}][0]},
        lambda document: {"adsAccounts": [], "nextToken": 7},
        lambda document: {"errors": []},
    ],
)
def test_an_answer_without_its_list_is_not_an_empty_list(
    change: Callable[[Any], Any], api: Amazon
) -> None:
    api.regions["NA"].always("POST /adsAccounts/list", faults.changed(change))
    with pytest.raises(ApiError) as caught:
        with_ads(api, lambda ads: ads.ads_accounts())
    assert caught.value.failure is Failure.WRONG_SHAPE


def test_ids_are_text_and_what_is_wrong_is_set_aside(api: Amazon) -> None:
    good = ads_account(1)
    wrong = [
        {**ads_account(2), "alternateIds": [{"countryCode": "US", "profileId": 3.8e15}]},
        {**ads_account(3), "adsAccountId": None},
        {**ads_account(4), "countryCodes": "US"},
        "text",
        None,
    ]
    api.world.accounts = [*wrong, good, {**ads_account(5), "brandNew": {"x": 1}}]  # type: ignore[list-item]
    found = with_ads(api, lambda ads: ads.ads_accounts())
    assert [each.ads_account_id[-1] for each in found.good] == ["1", "5"]
    assert found.good[0].alternate_ids[0].profile_id == "3810822000000100"
    assert found.good[1].unknown == {"brandNew": {"x": 1}}
    assert sorted(each.id or "" for each in found.quarantined) == [
        "",
        "",
        ads_account(2)["adsAccountId"],
        ads_account(4)["adsAccountId"],
    ], "the two that are no object are one finding"
    assert all(each.why for each in found.quarantined)


@given(order=st.randoms(use_true_random=False), repeats=st.lists(st.integers(0, 5), max_size=6))
def test_neither_order_nor_repetition_changes_what_is_read(
    order: random.Random, repeats: list[int]
) -> None:
    """Also of two versions of one id it does not matter which came first."""
    items: list[Any] = [ads_account(number) for number in range(4)]
    items += [{**ads_account(1), "status": "DISABLED"}, {"adsAccountId": "broken", "status": 1}]
    expected = read_items(items, AdsAccount, lambda each: each.ads_account_id, "adsAccountId")
    mixed = items + [items[number] for number in repeats]
    order.shuffle(mixed)
    found = read_items(mixed, AdsAccount, lambda each: each.ads_account_id, "adsAccountId")
    assert (found.good, found.quarantined) == (expected.good, expected.quarantined)
    assert found.duplicates == expected.duplicates + sum(number != 5 for number in repeats)


@given(
    st.lists(st.integers(0, 40), max_size=60),
    st.integers(1, 7),
    st.integers(0, 3),
)
def test_any_cut_into_overlapping_pages_gives_the_same_seats(
    numbers: list[int], size: int, overlap: int
) -> None:
    seats = [seat(number % 5, number) for number in numbers]
    starts = list(range(0, len(seats), size)) or [0]

    async def read(token: str | None) -> Page:
        place = int(token or 0)
        after = str(place + 1) if place + 1 < len(starts) else None
        start = max(starts[place] - overlap, 0)
        return Page(seats[start : starts[place] + size], after)

    listing = asyncio.run(read_all("seats", read, QUICK))
    found = read_items(
        listing.items, Seat, lambda each: f"{each.exchange_id} {each.seat_id}", "exchangeId"
    )
    assert {each.seat_id for each in found.good} == {each["dealCreationId"] for each in seats}


def test_seats_of_another_advertiser_are_refused(api: Amazon) -> None:
    other = faults.changed(
        lambda document: {"advertiserSeats": [{"advertiserId": "1", "currentSeats": [seat(1)]}]}
    )
    api.regions["NA"].spoil("POST /dsp/v1/seats/advertisers/current/list", other)
    with pytest.raises(ApiError) as caught:
        with_ads(api, lambda ads: ads.dsp_seats(ApiRegion.NORTH_AMERICA, ADVERTISER, DSP_PROFILE))
    assert caught.value.failure is Failure.WRONG_SHAPE


def test_advertisers_that_are_announced_and_do_not_come_are_missed(api: Amazon) -> None:
    announced = faults.changed(lambda document: {**document, "totalResults": 4})
    api.regions["NA"].always("GET /dsp/advertisers", announced)
    with pytest.raises(ApiError) as caught:
        with_ads(api, lambda ads: ads.dsp_advertisers(ApiRegion.NORTH_AMERICA, DSP_PROFILE))
    assert caught.value.failure is Failure.PAGINATION_LOOP


@pytest.mark.parametrize("name", LWA_ERRORS)
def test_each_error_of_login_with_amazon_is_told_apart(name: str, api: Amazon) -> None:
    api.login.always("POST /auth/o2/token", lambda *_: api.login.error(name))
    with pytest.raises(ApiError) as caught:
        with_login(api, lambda *to: lwa.refresh(*to, SecretStr("Atzr|CANARY")))
    error = caught.value
    gone = name in ("invalid_grant", "invalid_client", "unauthorized_client")
    assert (error.failure is Failure.NEEDS_REAUTHORISATION) == gone
    assert error.is_passing == (name == "ServerError")
    assert error.code == name
    assert "CANARY" not in str(error)
    assert api.login.count("POST /auth/o2/token") == (2 if name == "ServerError" else 1)


def test_a_refresh_brings_a_token_and_its_end(api: Amazon) -> None:
    kept = api.login.grant()
    found = with_login(api, lambda *to: lwa.refresh(*to, SecretStr(kept)))
    assert api.login.is_valid(found.access_token.get_secret_value())
    assert found.refresh_token.get_secret_value() == kept
    assert abs(found.expires_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=5)
    assert "CANARY" not in repr(found)
    api.login.omits = True
    assert with_login(api, lambda *to: lwa.refresh(*to, SecretStr(kept))).refresh_token is None


@pytest.mark.parametrize("without", ["access_token", "expires_in", "token_type"])
def test_half_an_answer_is_no_token(without: str, api: Amazon) -> None:
    api.login.always(
        "POST /auth/o2/token",
        faults.changed(lambda said: {name: said[name] for name in said if name != without}),
    )
    with pytest.raises(ApiError) as caught:
        with_login(api, lambda *to: lwa.refresh(*to, SecretStr(api.login.grant())))
    assert caught.value.failure is Failure.WRONG_SHAPE


def test_a_state_is_valid_ten_minutes_and_once() -> None:
    now = datetime.now(UTC)
    consent = lwa.Consent("http://localhost:1/callback", made_at=now)
    assert not consent.accepts("another", now)
    assert consent.accepts(consent.state, now + timedelta(minutes=9, seconds=59))
    assert not consent.accepts(consent.state, now)
    late = lwa.Consent("http://localhost:1/callback", made_at=now)
    assert not late.accepts(late.state, now + timedelta(minutes=10))
    assert late.state != consent.state
    assert late.state not in repr(late)


@pytest.mark.parametrize(
    ("document", "code", "message"),
    [
        ({"code": "UNAUTHORIZED", "details": "no"}, "UNAUTHORIZED", "no"),
        ({"code": "425", "detail": "twice"}, "425", "twice"),
        ({"errors": [{"errorCode": "E", "errorId": 4, "errorMessage": "m"}]}, "E", "m"),
        (
            {"message": "m", "requestId": "r", "errors": [{"errorType": "T", "message": "n"}]},
            "T",
            "n",
        ),
        ({"error": "invalid_grant", "error_description": "d"}, "invalid_grant", "d"),
        ({"message": "only this"}, None, "only this"),
        ([1], None, "[1]"),
        ({"errors": "odd"}, None, '{"errors": "odd"}'),
    ],
)
def test_errors_of_every_shape_are_read(document: Any, code: str | None, message: str) -> None:
    said = bodies.read_error(json.dumps(document).encode())
    assert (said.code, said.message) == (code, message)


def test_a_token_is_sent_over_https_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://api.amazon.com", "ftp://localhost", "api.amazon.com"):
        monkeypatch.setenv("AMAZON_TOKEN_URL", url)
        with pytest.raises(ValueError, match="https"):
            Settings()
    monkeypatch.setenv("AMAZON_TOKEN_URL", "http://127.0.0.1:1/")
    assert Settings().amazon_token_url == "http://127.0.0.1:1"
