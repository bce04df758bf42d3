"""What is told about accounts, seats and their syncs: built by dbt from what syncs have stored."""

from __future__ import annotations

from typing import Any

from flows.sync_accounts import sync_accounts
from flows.sync_dsp_seats import sync_dsp_seats
from tests.apis import server as faults
from tests.apis.worlds import ADVERTISER, ALL_COUNTRIES, AMC_ENTITY, seat
from tests.integration.amazon_warehouse import Shop, files_with_canary, open_shop, shop
from tests.integration.test_dbt_models import Dbt, dbt

__all__ = ["dbt", "open_shop", "shop"]

MODELS = ("--select", "path:models/accounts", "path:models/staging/app", "dsp_seats_snapshot")


def health(shop: Shop) -> dict[str, dict[str, Any]]:
    rows = shop.rows("select * from reporting.account_health")
    return {row["amazon_account_id"]: row for row in rows}


def test_accounts_seats_and_syncs_are_told_as_they_are(shop: Shop, dbt: Dbt) -> None:
    shop.connect()
    sync_accounts.fn()
    sync_dsp_seats.fn()
    dbt("build", *MODELS)

    told = health(shop)
    assert len(told) == 11
    assert {row["health"] for row in told.values()} == {"healthy"}
    assert {row["token_state"] for row in told.values()} == {"good"}
    markets = shop.rows(
        "select country_code, profile_id from reporting.account_marketplaces"
        " where amazon_account_id like '%%e00000'"
    )
    assert {row["country_code"] for row in markets} == set(ALL_COUNTRIES)
    assert len(markets) == len(ALL_COUNTRIES) == 17
    related = shop.rows(
        "select distinct entity_id, account_type, related_account_type"
        " from reporting.account_relationships order by 2"
    )
    assert related == [
        {"entity_id": AMC_ENTITY, "account_type": "amc", "related_account_type": "dsp"},
        {"entity_id": AMC_ENTITY, "account_type": "dsp", "related_account_type": "amc"},
    ]
    seats = shop.rows(
        "select seat_id, is_new from reporting.seat_inventory where advertiser_id = %s", ADVERTISER
    )
    assert len(seats) == 5
    assert all(row["is_new"] for row in seats)
    reliable = {
        row["sync_of"]: row for row in shop.rows("select * from reporting.sync_reliability")
    }
    assert (reliable["accounts"]["syncs"], reliable["accounts"]["success_rate"]) == (1, 1)
    assert (reliable["seats"]["syncs"], reliable["seats"]["failures"]) == (4, 0)

    world = shop.amazon.world
    world.seats[ADVERTISER] = [*world.seats[ADVERTISER][1:], seat(7, 77)]
    del world.accounts[1]
    sync_accounts.fn()
    sync_dsp_seats.fn([ADVERTISER])
    shop.amazon.regions["NA"].always("GET /v2/profiles", faults.status(500))
    sync_accounts.fn()
    dbt("build", *MODELS)
    changes = shop.rows(
        "select change_type, seat_id from reporting.seat_changes order by seat_change_id desc"
    )[:2]
    assert {(row["change_type"], row["seat_id"]) for row in changes} == {
        ("new", "deal-7-77"),
        ("removed", "deal-1-0"),
    }
    spans = shop.one(
        "select count(*) filter (where dbt_valid_to is not null) as ended, count(*) as all"
        " from reporting.dsp_seats_snapshot where advertiser_id = %s",
        ADVERTISER,
    )
    assert spans == {"ended": 1, "all": 6}
    told = health(shop)
    gone = told["amzn1.ads-account.g.example00001"]
    assert (gone["health"], gone["account_status"]) == ("disconnected", "disconnected")
    failing = told["amzn1.ads-account.g.example00000"]
    assert failing["health"] == "failing"
    assert "the profiles of NA could not all be read" in failing["last_error"]
    assert failing["next_step"]
    assert told["amzn1.ads-account.g.example00003"]["health"] == "healthy", "in Japan all is well"

    shop.session.execute(
        "update app.oauth_tokens set connection_status = 'needs_reauthorisation';"
        "update app.user_accounts set last_synced_at = now() - interval '3 days'"
    )
    told = health(shop)
    assert told[ADVERTISER]["health"] == "needs_a_person"
    assert "warehouse connect amazon" in told[ADVERTISER]["next_step"]
    shop.session.execute("update app.oauth_tokens set connection_status = 'connected'")
    assert health(shop)[ADVERTISER]["health"] == "stale"
    assert health(shop)[ADVERTISER]["next_step"] == "run warehouse sync-seats"
    (rate,) = shop.rows(
        "select successes, partial_syncs, success_rate from reporting.sync_reliability"
        " where sync_of = 'accounts'"
    )
    assert (rate["successes"], rate["partial_syncs"]) == (2, 1)
    assert files_with_canary(dbt.folder) == []
