"""What there is at Amazon in the tests and benchmarks: an agency of some size."""

from __future__ import annotations

from typing import Any

from tests.apis.amazon import World

COUNTRIES = {
    "NA": ("US", "CA", "MX", "BR"),
    "EU": ("GB", "FR", "IT", "ES", "DE", "NL", "AE", "PL", "TR", "SE", "BE"),
    "FE": ("JP", "AU"),
}
REGION_OF = {country: region for region, listed in COUNTRIES.items() for country in listed}
ALL_COUNTRIES = tuple(REGION_OF)
"""17 countries."""
DSP_PROFILE, EU_DSP_PROFILE, NO_DSP_PROFILE = (
    "3810822089931999",
    "3810822089932999",
    "3810822089933999",
)
ADVERTISER = "590000000000000001"
AMC_ENTITY = "ENTITY1AMC"
US_MARKET = "ATVPDKIKX0DER"


def ads_account(
    number: int, countries: tuple[str, ...] = ("US",), status: str = "CREATED"
) -> dict[str, Any]:
    """An ads account: each country comes twice, once with its profile and once with its entity."""
    alternates: list[dict[str, Any]] = []
    for place, country in enumerate(countries):
        alternates += [
            {"countryCode": country, "profileId": profile_id(number, place)},
            {"countryCode": country, "entityId": f"ENTITY{number}X{place}"},
        ]
    return {
        "adsAccountId": f"amzn1.ads-account.g.example{number:05d}",
        "accountName": f"Brand {number} ü",
        "status": status,
        "countryCodes": list(countries),
        "alternateIds": alternates,
    }


def profile_id(number: int, place: int) -> int:
    return 3810822000000000 + number * 100 + place


def profile(number: int, place: int, country: str) -> dict[str, Any]:
    return {
        "profileId": profile_id(number, place),
        "countryCode": country,
        "currencyCode": "EUR" if REGION_OF[country] == "EU" else "USD",
        "timezone": "UTC",
        "accountInfo": {
            "marketplaceStringId": f"MARKET{country}",
            "id": f"SELLER{number}",
            "type": "seller",
            "name": f"Brand {number} ü",
            "validPaymentMethod": True,
        },
    }


def agency_profile(profile: str, country: str, entity: str) -> dict[str, Any]:
    return {
        "profileId": int(profile),
        "countryCode": country,
        "currencyCode": "USD",
        "timezone": "UTC",
        "accountInfo": {
            "marketplaceStringId": f"MARKET{country}",
            "id": entity,
            "type": "agency",
            "name": "An agency",
        },
    }


def advertiser(number: int) -> dict[str, Any]:
    return {
        "advertiserId": str(int(ADVERTISER) + number),
        "name": f"DSP advertiser {number}",
        "currency": "USD",
        "url": "",
        "country": "US",
        "timezone": "UTC",
    }


def seat(exchange: int, number: int | None = None) -> dict[str, Any]:
    """A seat; without a number, one of an exchange that names none."""
    plain = {"exchangeId": str(exchange), "exchangeName": f"Exchange {exchange}"}
    if number is None:
        return plain
    return plain | {"dealCreationId": f"deal-{exchange}-{number}", "spendTrackingId": f"s{number}"}


def instance(number: int, status: str = "COMPLETED") -> dict[str, Any]:
    return {
        "instanceId": f"amcinstance{number}",
        "instanceName": f"Instance {number}",
        "instanceType": "STANDARD",
        "customerCanonicalName": "Example",
        "creationStatus": status,
        "creationDatetime": "2024-03-29T08:12:11.572511Z",
        "s3BucketName": "example",
        "awsAccountId": "",
        "entities": ["NA"],
        "dataUploadAwsAccountId": "1",
        "apiEndpoint": "https://advertising-api.amazon.com",
        "acrCollaboration": None,
        "optionalDatasets": [],
        "advertiserTypes": ["DISPLAY"],
    }


def fill(
    world: World,
    accounts: int = 5,
    *,
    seats: int = 5,
    advertisers: int = 3,
    countries_of: tuple[tuple[str, ...], ...] = (
        ALL_COUNTRIES,
        ("US",),
        ("GB", "DE"),
        ("JP",),
        ("US", "CA"),
    ),
) -> None:
    """An agency: accounts in three regions, two DSP entities and one without DSP, AMC in NA."""
    world.largest_page = 100
    world.accounts = [
        ads_account(number, countries_of[number % len(countries_of)]) for number in range(accounts)
    ]
    world.profiles = {region: [] for region in COUNTRIES}
    for number in range(accounts):
        for place, country in enumerate(countries_of[number % len(countries_of)]):
            world.profiles[REGION_OF[country]].append(profile(number, place, country))
    world.profiles["NA"] += [
        agency_profile(DSP_PROFILE, "US", AMC_ENTITY),
        agency_profile(NO_DSP_PROFILE, "CA", "ENTITYNODSP"),
    ]
    world.profiles["EU"].append(agency_profile(EU_DSP_PROFILE, "DE", "ENTITYEUDSP"))
    world.advertisers = {
        DSP_PROFILE: [advertiser(number) for number in range(advertisers)],
        EU_DSP_PROFILE: [advertiser(100_000)],
    }
    world.seats = {
        ADVERTISER: [seat(1 + number % 3, number) for number in range(seats - 1)] + [seat(9)],
        advertiser(1)["advertiserId"]: [seat(1, 1)],
    }
    world.amc_accounts = {
        "NA": [
            {"accountId": AMC_ENTITY, "accountName": "AMC", "marketplaceId": US_MARKET},
        ]
    }
    world.instances = {(AMC_ENTITY, US_MARKET): [instance(1), instance(2, "IN_PROGRESS")]}
