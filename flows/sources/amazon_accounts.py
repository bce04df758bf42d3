"""The accounts that a login sees: sponsored ads, DSP advertisers and AMC instances, in all regions.

Whatever does not depend on each other's answer is asked for at the same time. What fails is told
beside what was found, together with whose absence then proves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from flows.clients.amazon_ads import AmazonAds
from flows.clients.failures import ApiError, Failure
from flows.clients.shapes import (
    AdsAccount,
    AmcAccount,
    AmcInstance,
    DspAdvertiser,
    Items,
    Profile,
    Quarantined,
)
from flows.sources.marketplaces import find_marketplace
from flows.vocabulary.accounts import AccountStatus, AccountType
from flows.vocabulary.amc import ApiRegion, InstanceStatus

T = TypeVar("T")

COUNTRIES = {
    ApiRegion.NORTH_AMERICA: "US CA MX BR",
    ApiRegion.EUROPE: "GB UK FR IT ES DE NL AE PL TR EG SA SE BE IN ZA IE",
    ApiRegion.FAR_EAST: "JP AU SG",
}
"""Which host knows the profiles of which countries."""
REGION_OF = {country: region for region, text in COUNTRIES.items() for country in text.split()}

STATUS = {
    "CREATED": AccountStatus.ACTIVE,
    "PARTIALLY_CREATED": AccountStatus.PARTIAL,
    "PENDING": AccountStatus.PENDING,
    "DISABLED": AccountStatus.DISABLED,
}
INSTANCE_STATUS = {
    "COMPLETED": (AccountStatus.ACTIVE, InstanceStatus.ACTIVE),
    "SUCCEEDED": (AccountStatus.ACTIVE, InstanceStatus.ACTIVE),
    "REQUESTED": (AccountStatus.PENDING, InstanceStatus.PENDING),
    "SUBMITTED": (AccountStatus.PENDING, InstanceStatus.PENDING),
    "IN_PROGRESS": (AccountStatus.PENDING, InstanceStatus.PENDING),
    "FAILED": (AccountStatus.INACTIVE, InstanceStatus.FAILED),
}
"""Amazon's words and ours. A word that is not here is shown, and changes no status."""


@dataclass(frozen=True)
class Known:
    """An account that the warehouse holds for the connection."""

    amazon_account_id: str
    account_type: str
    status: str
    profile_id: str | None
    entity_id: str | None
    marketplace_id: str | None
    region: str | None


@dataclass(frozen=True)
class Found:
    """An account as it is to be stored; no `status` is one that we do not know."""

    account_type: AccountType
    amazon_account_id: str
    account_name: str
    status: AccountStatus | None
    marketplace_id: str | None
    profile_id: str | None
    entity_id: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True)
class FoundInstance:
    """An AMC instance with the account that it is of."""

    account_id: str
    account_name: str | None
    marketplace_id: str
    region: ApiRegion
    instance_id: str
    instance_name: str
    status: InstanceStatus
    remote_status: str | None


@dataclass(frozen=True)
class Problem:
    """Something that could not be read, and why."""

    where: str
    error: ApiError

    def as_dict(self) -> dict[str, Any]:
        """For reports and log rows."""
        return {"where": self.where, **self.error.details()}


@dataclass
class AccountList:
    """What a login sees.

    Attributes:
        left: ids of accounts that are to stay as they were, because of a problem, and which.
        uncertain: what could not be listed: `advertising`, `dsp <profile>`, `dsp <region>`,
            `amc <region>`, `amc <entity> <marketplace>`; whose absence there proves nothing.
        notes: what is as it should be and still worth saying.
    """

    accounts: dict[str, Found] = field(default_factory=dict)
    instances: dict[str, FoundInstance] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    uncertain: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    duplicates: int = 0
    sources_read: int = 0

    def is_gone(self, account: Known) -> bool:
        """Whether an account that was known is surely not there any more."""
        name = account.amazon_account_id
        if name in self.accounts or name in self.left:
            return False
        places = {
            AccountType.ADVERTISING: {"advertising"},
            AccountType.DSP: {"dsp", f"dsp {account.profile_id}", f"dsp {account.region}"},
            AccountType.AMC: {
                "amc",
                f"amc {account.region}",
                f"amc {account.entity_id} {account.marketplace_id}",
            },
        }[AccountType(account.account_type)]
        return not places & self.uncertain

    def retry_at(self) -> datetime | None:
        """From when another attempt makes sense, where the API said so."""
        return max(filter(None, (each.error.retry_at for each in self.problems)), default=None)

    def has_problems(self) -> bool:
        """Whether something is missing that should be there."""
        return bool(self.problems or self.quarantined)


@dataclass
class _Region:
    """What a region answered."""

    profiles: list[Profile] | None = None
    advertisers: dict[str, list[DspAdvertiser]] = field(default_factory=dict)
    instances: list[tuple[AmcAccount, AmcInstance]] = field(default_factory=list)


async def list_accounts(ads: AmazonAds, known: Sequence[Known]) -> AccountList:
    """Ask for everything that a login sees.

    Args:
        known: what the warehouse holds for it; where DSP or AMC was seen, no access is a problem.

    Raises:
        ApiError: the connection needs a person: nothing else was then worth asking.
    """
    reading = _Reading(ads, known)
    sponsored, *_ = await asyncio.gather(
        reading.attempt("ads accounts", "advertising", ads.ads_accounts()),
        *(reading.read_profiles(region) for region in ApiRegion),
        *(reading.read_amc(region) for region in ApiRegion),
    )
    if reading.stop is not None:
        raise reading.stop
    return reading.put_together(sponsored)


class _Reading:
    def __init__(self, ads: AmazonAds, known: Sequence[Known]) -> None:
        self.ads = ads
        self.result = AccountList()
        self.regions = {region: _Region() for region in ApiRegion}
        self.illegible: set[ApiRegion] = set()
        self.stop: ApiError | None = None
        self.known_dsp = {each.profile_id for each in known if each.account_type == AccountType.DSP}
        self.known_amc = {each.region for each in known if each.account_type == AccountType.AMC}

    async def attempt(
        self, where: str, doubt: str, call: Awaitable[Items[Any]]
    ) -> list[Any] | None:
        """The good items; None where it failed, which is noted and makes `doubt` uncertain."""
        try:
            items = await call
        except ApiError as error:
            if error.failure is Failure.NEEDS_REAUTHORISATION:
                self.stop = self.stop or error
            self.result.problems.append(Problem(where, error))
            self.result.uncertain.add(doubt)
            return None
        self.result.sources_read += 1
        self.result.duplicates += items.duplicates
        for bad in items.quarantined:
            self.result.quarantined.append(bad)
            if bad.id is None or bad.kind in ("Profile", "AmcAccount"):
                self.result.uncertain.add(doubt)
            else:
                self.result.left[bad.id] = f"{where}: {bad.why}"
        return items.good

    async def read_profiles(self, region: ApiRegion) -> None:
        """The profiles of a region, and the DSP advertisers under those of agencies."""
        profiles = await self.attempt(
            f"profiles {region}", f"dsp {region}", self.ads.profiles(region)
        )
        self.regions[region].profiles = profiles
        if profiles is not None and f"dsp {region}" in self.result.uncertain:
            self.illegible.add(region)
        entities = [each.profile_id for each in profiles or [] if each.is_dsp_entity]
        await asyncio.gather(*(self._read_advertisers(region, each) for each in entities))

    async def _read_advertisers(self, region: ApiRegion, profile_id: str) -> None:
        call = self.ads.dsp_advertisers(region, profile_id)
        if profile_id not in self.known_dsp:
            note = f"profile {profile_id} has no DSP, or the login may not see it: that is normal"
            call = self._or_none(call, note)
        listed = await self.attempt(f"DSP of profile {profile_id}", f"dsp {profile_id}", call)
        self.regions[region].advertisers[profile_id] = listed or []

    async def read_amc(self, region: ApiRegion) -> None:
        """The AMC accounts of a region, and the instances of each."""
        call = self.ads.amc_accounts(region)
        if region not in self.known_amc:
            call = self._or_none(call, f"the login sees no AMC in {region}: that is normal")
        accounts = await self.attempt(f"AMC {region}", f"amc {region}", call)
        await asyncio.gather(*(self._read_instances(region, each) for each in accounts or []))

    async def _read_instances(self, region: ApiRegion, account: AmcAccount) -> None:
        place = f"{account.account_id} {account.marketplace_id}"
        call = self.ads.amc_instances(region, account.account_id, account.marketplace_id)
        listed = await self.attempt(f"AMC of {place}", f"amc {place}", call)
        self.regions[region].instances += [(account, each) for each in listed or []]

    async def _or_none(self, call: Awaitable[Items[T]], note: str) -> Items[T]:  # type: ignore[type-var]
        """No items where the login has no access."""
        try:
            return await call
        except ApiError as error:
            if error.failure is not Failure.FORBIDDEN:
                raise
            self.result.notes.append(note)
            return Items([], [], 0)

    def put_together(self, sponsored: Iterable[AdsAccount] | None) -> AccountList:
        """Accounts of all kinds, in an order that does not depend on who answered first."""
        profiles = {
            profile.profile_id: (region, profile)
            for region in ApiRegion
            for profile in self.regions[region].profiles or []
        }
        unread = {region for region in ApiRegion if self.regions[region].profiles is None}

        def doubt(marketplace: dict[str, Any]) -> ApiRegion | None:
            """The region of a profile that is among those that could not be read."""
            region = REGION_OF.get(marketplace["country_code"])
            is_listed = marketplace.get("profile_id") in profiles
            return region if region in unread | self.illegible and not is_listed else None

        named = set()
        for account in sponsored or ():
            found = _sponsored(account, profiles)
            named |= {each.get("profile_id") for each in found.metadata["marketplaces"]}
            missing = sorted(
                {region for each in found.metadata["marketplaces"] if (region := doubt(each))}
            )
            if missing:
                self.result.left[found.amazon_account_id] = (
                    f"the profiles of {', '.join(missing)} could not all be read"
                )
            else:
                self.result.accounts[found.amazon_account_id] = found
        alone = [
            name
            for name, (_, profile) in profiles.items()
            if name not in named and profile.account_info.type != "agency"
        ]
        if alone and sponsored is not None:
            self.result.notes.append(
                f"{len(alone)} profiles belong to no ads account: {', '.join(sorted(alone)[:10])}"
            )
        for profile_id in sorted(profiles):
            region, profile = profiles[profile_id]
            for advertiser in self.regions[region].advertisers.get(profile_id, []):
                dsp = _dsp(advertiser, profile, region)
                self.result.accounts.setdefault(dsp.amazon_account_id, dsp)
        for region in ApiRegion:
            pairs = self.regions[region].instances
            for amc, instance in sorted(pairs, key=lambda pair: pair[0].account_id):
                account_found, instance_found = _amc(amc, instance, region)
                self.result.accounts.setdefault(instance.instance_id, account_found)
                self.result.instances.setdefault(instance.instance_id, instance_found)
        for name in self.result.left:
            self.result.accounts.pop(name, None)
        self.result.problems.sort(key=lambda each: each.where)
        self.result.notes.sort()
        return self.result


def _sponsored(account: AdsAccount, profiles: dict[str, tuple[ApiRegion, Profile]]) -> Found:
    """An ads account with its ids by country: each country comes twice, and is one."""
    by_country: dict[str, tuple[set[str], set[str]]] = {
        country: (set(), set()) for country in account.country_codes or ()
    }
    for each in account.alternate_ids or ():
        profile_ids, entity_ids = by_country.setdefault(each.country_code, (set(), set()))
        profile_ids |= {each.profile_id} if each.profile_id else set()
        entity_ids |= {each.entity_id} if each.entity_id else set()
    marketplaces = [
        _marketplace(country, sorted(profile_ids), sorted(entity_ids), profiles)
        for country, (profile_ids, entity_ids) in sorted(by_country.items())
    ]
    only = marketplaces[0] if len(marketplaces) == 1 else {}
    return Found(
        AccountType.ADVERTISING,
        account.ads_account_id,
        _name(account.account_name, account.ads_account_id),
        STATUS.get(account.status or ""),
        only.get("marketplace_id"),
        only.get("profile_id"),
        only.get("entity_id"),
        _present(
            account_name=account.account_name,
            api_status=account.status,
            unknown_status=None if account.status in STATUS else True,
            marketplaces=marketplaces,
            errors={
                country: [each.model_dump(mode="json", by_alias=False) for each in issues]
                for country, issues in sorted((account.errors or {}).items())
            }
            or None,
            further=account.unknown or None,
        ),
    )


def _marketplace(
    country: str,
    profile_ids: list[str],
    entity_ids: list[str],
    profiles: dict[str, tuple[ApiRegion, Profile]],
) -> dict[str, Any]:
    listed = next((profiles[each][1] for each in profile_ids if each in profiles), None)
    marketplace = find_marketplace(country)
    own = listed.account_info.marketplace_string_id if listed else None
    return _present(
        country_code=country,
        marketplace_id=own or (marketplace.marketplace_id if marketplace else None),
        profile_id=(listed.profile_id if listed else None) or next(iter(profile_ids), None),
        entity_id=next(iter(entity_ids), None),
        further_ids=sorted([*profile_ids[1:], *entity_ids[1:]]) or None,
        currency_code=listed.currency_code if listed else None,
        timezone=listed.timezone if listed else None,
        profile_type=listed.account_info.type if listed else None,
    )


def _dsp(advertiser: DspAdvertiser, profile: Profile, region: ApiRegion) -> Found:
    return Found(
        AccountType.DSP,
        advertiser.advertiser_id,
        _name(advertiser.name, advertiser.advertiser_id),
        AccountStatus.ACTIVE,
        profile.account_info.marketplace_string_id,
        profile.profile_id,
        profile.account_info.id,
        _present(
            account_name=advertiser.name,
            region=str(region),
            country_code=advertiser.country,
            currency_code=advertiser.currency,
            timezone=advertiser.timezone,
            url=advertiser.url or None,
            further=advertiser.unknown or None,
        ),
    )


def _amc(
    account: AmcAccount, instance: AmcInstance, region: ApiRegion
) -> tuple[Found, FoundInstance]:
    remote = instance.creation_status
    status, instance_status = INSTANCE_STATUS.get(remote or "", (None, InstanceStatus.UNKNOWN))
    found = Found(
        AccountType.AMC,
        instance.instance_id,
        instance.instance_name,
        status,
        account.marketplace_id,
        None,
        account.account_id,
        _present(
            account_name=instance.instance_name,
            api_status=remote,
            unknown_status=None if status else True,
            region=str(region),
            instance_type=instance.instance_type,
            customer=instance.customer_canonical_name,
            entities=instance.entities,
            advertiser_types=instance.advertiser_types,
        ),
    )
    return found, FoundInstance(
        account.account_id,
        account.account_name,
        account.marketplace_id,
        region,
        instance.instance_id,
        instance.instance_name,
        instance_status,
        remote,
    )


def _name(name: str | None, otherwise: str) -> str:
    return (name or "").strip()[:255] or otherwise


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def as_rows(accounts: Iterable[Found]) -> list[dict[str, Any]]:
    """Accounts as documents for a statement; theirs, and not copies."""
    return [vars(account) for account in accounts]
