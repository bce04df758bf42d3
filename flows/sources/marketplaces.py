"""Amazon's marketplaces: the one list, shared with dbt as its seed `marketplaces`."""

from __future__ import annotations

import csv
from functools import cache
from typing import NamedTuple

from flows.settings import PROJECT_ROOT

SEED = PROJECT_ROOT / "dbt_project" / "seeds" / "marketplaces.csv"


class Marketplace(NamedTuple):
    """One marketplace: Amazon's id, its country and the currency of its prices."""

    marketplace_id: str
    country_code: str
    currency_code: str
    marketplace_name: str


@cache
def all_marketplaces() -> tuple[Marketplace, ...]:
    """Every marketplace of the seed, in its order."""
    with SEED.open(encoding="utf-8", newline="") as lines:
        return tuple(Marketplace(**row) for row in csv.DictReader(lines))


def find_marketplace(name: str) -> Marketplace | None:
    """The marketplace called `name`: its id, or its country code in any case (GB is UK)."""
    wanted = name.strip().upper()
    wanted = {"GB": "UK"}.get(wanted, wanted)
    for marketplace in all_marketplaces():
        if wanted in (marketplace.marketplace_id, marketplace.country_code):
            return marketplace
    return None
