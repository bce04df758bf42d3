"""The Amazon Ads API, as far as accounts go: accounts, profiles, DSP advertisers, seats, and AMC.

Three hosts, one a region; ads accounts are the same on each. Every list is read to its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.clients.failures import ApiError, Failure
from flows.clients.http import ApiSession, Call
from flows.clients.paging import Listing, Page, list_of, read_all, token_of
from flows.clients.shapes import (
    AdsAccount,
    AmcAccount,
    AmcInstance,
    DspAdvertiser,
    Items,
    Profile,
    Seat,
    read_items,
)
from flows.vocabulary.amc import ApiRegion

CLIENT_ID = "Amazon-Advertising-API-ClientId"
SCOPE = "Amazon-Advertising-API-Scope"
ADS_ACCOUNT_ID = "Amazon-Ads-AccountId"
AMC_ADVERTISER = "Amazon-Advertising-API-AdvertiserId"
AMC_MARKETPLACE = "Amazon-Advertising-API-MarketplaceId"

ACCOUNTS_TYPE = "application/vnd.listaccountsresource.v1+json"
AMC_ACCOUNTS_TYPE = "application/vnd.amcaudiencesconnections.v1+json"
AMC_INSTANCES_TYPE = "application/vnd.amcinstances.v1+json"

PAGE = 100
SEATS_PAGE = 200
MAX_PROFILES = 5000
LAST_START_INDEX = 29_900
"""The documented limits of the lists."""


@dataclass(frozen=True)
class SeatsFound:
    """The seats of an advertiser: each once, and how they came."""

    items: Items[Seat]
    pages: int


@dataclass(frozen=True)
class AmazonAds:
    """The API as one login sees it.

    Attributes:
        hosts: scheme and host of each region.
        page: items asked for at a time, at most 100.
    """

    session: ApiSession
    client_id: str
    hosts: Mapping[ApiRegion, str]
    page: int = PAGE

    async def ads_accounts(self) -> Items[AdsAccount]:
        """The sponsored-ads accounts of all countries."""
        what = "the list of ads accounts"

        async def read(token: str | None) -> Page:
            body = {"maxResults": self.page} | ({"nextToken": token} if token else {})
            call = self._call(
                "POST",
                ApiRegion.NORTH_AMERICA,
                "/adsAccounts/list",
                media_type=ACCOUNTS_TYPE,
                json=body,
            )
            answer = (await self.session.send(call)).document
            return Page(list_of(answer, "adsAccounts", what), token_of(answer, what))

        found = await read_all(what, read, self.session.patience)
        return read_items(found.items, AdsAccount, lambda each: each.ads_account_id, "adsAccountId")

    async def profiles(self, region: ApiRegion) -> Items[Profile]:
        """The profiles of a region."""
        answer = (await self.session.send(self._call("GET", region, "/v2/profiles"))).document
        if not isinstance(answer, list):
            raise ApiError(
                Failure.WRONG_SHAPE,
                f"the profiles of {region} cannot be read",
                "the answer is not a list",
            )
        if len(answer) >= MAX_PROFILES:
            raise ApiError(
                Failure.TOO_MANY_ROWS,
                f"the profiles of {region} may be cut off",
                f"{len(answer):,} came, and Amazon sends no more than {MAX_PROFILES:,}",
            )
        return read_items(answer, Profile, lambda each: each.profile_id, "profileId")

    async def dsp_advertisers(self, region: ApiRegion, profile_id: str) -> Items[DspAdvertiser]:
        """The DSP advertisers under an agency's profile."""
        what = f"the list of DSP advertisers of profile {profile_id}"

        async def read(token: str | None) -> Page:
            start = int(token or 0)
            call = self._call(
                "GET",
                region,
                "/dsp/advertisers",
                headers={SCOPE: profile_id},
                query={"startIndex": str(start), "count": str(self.page)},
            )
            answer = (await self.session.send(call)).document
            items = list_of(answer, "response", what)
            total = answer.get("totalResults")
            if not isinstance(total, int) or isinstance(total, bool) or total < 0:
                raise ApiError(
                    Failure.WRONG_SHAPE, f"{what} cannot be read", "`totalResults` is no number"
                )
            after = start + len(items)
            if after < total and after > LAST_START_INDEX:
                raise ApiError(
                    Failure.TOO_MANY_ROWS,
                    f"{what} has no end",
                    f"Amazon shows no more than {LAST_START_INDEX + PAGE:,} of {total:,}",
                )
            return Page(items, str(after) if after < total else None)

        found = await read_all(what, read, self.session.patience)
        return read_items(
            found.items, DspAdvertiser, lambda each: each.advertiser_id, "advertiserId"
        )

    async def dsp_seats(
        self,
        region: ApiRegion,
        advertiser_id: str,
        profile_id: str | None,
        exchange_ids: Sequence[str] = (),
    ) -> SeatsFound:
        """The seats that an advertiser has now.

        Args:
            profile_id: the entity's profile, which Amazon asks for beside the advertiser.
            exchange_ids: on these exchanges only; without any, on all.
        """
        what = f"the list of seats of advertiser {advertiser_id}"
        headers = {ADS_ACCOUNT_ID: advertiser_id} | ({SCOPE: profile_id} if profile_id else {})

        async def read(token: str | None) -> Page:
            body = {
                "maxResults": SEATS_PAGE,
                **({"exchangeIdFilter": list(exchange_ids)} if exchange_ids else {}),
                **({"nextToken": token} if token else {}),
            }
            path = "/dsp/v1/seats/advertisers/current/list"
            call = self._call("POST", region, path, headers=headers, json=body)
            answer = (await self.session.send(call)).document
            items = []
            for group in list_of(answer, "advertiserSeats", what):
                if not isinstance(group, dict) or str(group.get("advertiserId")) != advertiser_id:
                    raise ApiError(
                        Failure.WRONG_SHAPE,
                        f"{what} cannot be read",
                        "it holds seats of another advertiser, or of none",
                    )
                items += list_of(group, "currentSeats", what)
            return Page(items, token_of(answer, what))

        found: Listing = await read_all(what, read, self.session.patience)
        items = read_items(
            found.items, Seat, lambda each: f"{each.exchange_id} {each.seat_id}", "exchangeId"
        )
        return SeatsFound(items, found.pages)

    async def amc_accounts(self, region: ApiRegion) -> Items[AmcAccount]:
        """The AMC accounts of a region."""
        what = f"the list of AMC accounts of {region}"

        async def read(token: str | None) -> Page:
            call = self._call(
                "GET",
                region,
                "/amc/accounts",
                media_type=AMC_ACCOUNTS_TYPE,
                query={"nextToken": token} if token else None,
            )
            answer = (await self.session.send(call)).document
            return Page(list_of(answer, "amcAccounts", what), token_of(answer, what))

        found = await read_all(what, read, self.session.patience)
        return read_items(
            found.items,
            AmcAccount,
            lambda each: f"{each.account_id} {each.marketplace_id}",
            "accountId",
        )

    async def amc_instances(
        self, region: ApiRegion, account_id: str, marketplace_id: str
    ) -> Items[AmcInstance]:
        """The instances of an AMC account in a marketplace."""
        what = f"the list of AMC instances of {account_id}"

        async def read(token: str | None) -> Page:
            call = self._call(
                "GET",
                region,
                "/amc/instances",
                headers={AMC_ADVERTISER: account_id, AMC_MARKETPLACE: marketplace_id},
                media_type=AMC_INSTANCES_TYPE,
                query={"limit": str(self.page)} | ({"nextToken": token} if token else {}),
            )
            answer = (await self.session.send(call)).document
            return Page(list_of(answer, "instances", what), token_of(answer, what))

        found = await read_all(what, read, self.session.patience)
        return read_items(found.items, AmcInstance, lambda each: each.instance_id, "instanceId")

    def _call(
        self,
        method: str,
        region: ApiRegion,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        media_type: str = "application/json",
        json: object = None,
        query: Mapping[str, str] | None = None,
    ) -> Call:
        return Call(
            method,
            self.hosts[region],
            path,
            place=str(region),
            headers={CLIENT_ID: self.client_id, **(headers or {})},
            media_type=media_type,
            json=json,
            query=query,
        )
