"""The answers of Amazon's APIs: what we need of them, typed; what we do not know is kept.

Ids are strings of a kind each, however they are sent: an id beyond 2^53 is no float. An item that
is not of its shape is set aside with the reason: it is not guessed at, and stops no other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
)
from pydantic.alias_generators import to_camel


def _id_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Digits = Annotated[
    str, BeforeValidator(_id_as_text), StringConstraints(pattern=r"^[0-9]{1,38}$", strict=True)
]
"""An id of digits, which JSON may bring as a number or as text."""
Id = Annotated[
    str,
    BeforeValidator(_id_as_text),
    StringConstraints(min_length=1, max_length=255, strict=True),
]
"""An id of any characters."""
AdsAccountId = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9.\-]+$", max_length=255, strict=True)
]
EntityId = Annotated[str, StringConstraints(pattern=r"^ENTITY.", max_length=255, strict=True)]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$", strict=True)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255, strict=True)]

LONGEST_ITEM = 200_000
"""Characters of an item's JSON; a column of the database holds no more."""


class Shape(BaseModel):
    """Part of an answer, with Amazon's names in camelCase; unknown fields are kept."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True
    )

    @property
    def unknown(self) -> dict[str, Any]:
        """The fields that we do not know, as they came."""
        return dict(self.model_extra or {})


class AlternateId(Shape):
    """An id of an ads account in one country: its profile's or its entity's."""

    country_code: Country
    entity_id: Id | None = None
    profile_id: Digits | None = None


class AccountIssue(Shape):
    """What Amazon says is wrong with an ads account in a country."""

    error_id: int | None = None
    error_code: str | None = None
    error_message: str | None = None


class AdsAccount(Shape):
    """A sponsored-ads account over all its countries."""

    ads_account_id: AdsAccountId
    account_name: str | None = None
    status: str | None = None
    country_codes: list[Country] | None = None
    alternate_ids: list[AlternateId] | None = None
    errors: dict[str, list[AccountIssue]] | None = None


class ProfileAccount(Shape):
    """Whose a profile is."""

    id: Id
    type: str
    name: str | None = None
    marketplace_string_id: str | None = None
    sub_type: str | None = None


class Profile(Shape):
    """An advertising profile: one account in one country."""

    profile_id: Digits
    country_code: Country
    currency_code: str | None = None
    timezone: str | None = None
    account_info: ProfileAccount

    @property
    def is_dsp_entity(self) -> bool:
        """Whether DSP advertisers may be under it."""
        return self.account_info.type == "agency" and (
            self.account_info.sub_type != "AMAZON_ATTRIBUTION"
        )


class DspAdvertiser(Shape):
    """An advertiser of a DSP entity."""

    advertiser_id: Digits
    name: str | None = None
    currency: str | None = None
    url: str | None = None
    country: str | None = None
    timezone: str | None = None


class Seat(Shape):
    """A seat of an advertiser on an exchange."""

    exchange_id: Id
    exchange_name: Name
    deal_creation_id: Id | None = None
    spend_tracking_id: Id | None = None

    @property
    def seat_id(self) -> str:
        """What tells it from the exchange's other seats."""
        return self.deal_creation_id or self.spend_tracking_id or self.exchange_id


class AmcAccount(Shape):
    """An account of Amazon Marketing Cloud in a marketplace."""

    account_id: EntityId
    account_name: Name | None = None
    marketplace_id: Annotated[str, StringConstraints(min_length=1, max_length=50, strict=True)]


class AmcInstance(Shape):
    """An instance of Amazon Marketing Cloud."""

    instance_id: Id
    instance_name: Name
    instance_type: str | None = None
    customer_canonical_name: str | None = None
    creation_status: Annotated[str, StringConstraints(max_length=50, strict=True)] | None = None
    entities: list[str] | None = None
    advertiser_types: list[str] | None = None


S = TypeVar("S", bound=Shape)


@dataclass(frozen=True)
class Quarantined:
    """An item that could not be read; its id where at least that could."""

    kind: str
    id: str | None
    why: str


@dataclass(frozen=True)
class Items(Generic[S]):
    """The items of a list, each id once, in the order of their ids.

    Attributes:
        duplicates: items that came again, equal or not.
    """

    good: list[S]
    quarantined: list[Quarantined]
    duplicates: int


def read_items(
    raw: Iterable[Any], shape: type[S], key: Callable[[S], str], id_name: str
) -> Items[S]:
    """Type the items of a list, whatever their order and however often each came.

    Of two items with one id and other content the one whose JSON sorts last stays: which it is
    depends on what they say, and not on when they came.

    Args:
        key: what tells items apart.
        id_name: the field that names an item that cannot be read.
    """
    chosen: dict[str, tuple[str, S]] = {}
    quarantined: dict[tuple[str | None, str], Quarantined] = {}
    duplicates = 0
    for item in raw:
        text = json.dumps(item, sort_keys=True, ensure_ascii=True)
        try:
            if len(text) > LONGEST_ITEM:
                raise ValueError(f"it is longer than {LONGEST_ITEM:,} characters")
            typed = shape.model_validate(item)
        except ValueError as error:
            bad = Quarantined(shape.__name__, _legible_id(item, id_name), _why(error))
            quarantined[bad.id, bad.why] = bad
            continue
        before = chosen.get(key(typed))
        duplicates += before is not None
        if before is None or text > before[0]:
            chosen[key(typed)] = (text, typed)
    good = [chosen[name][1] for name in sorted(chosen)]
    bad_items = sorted(quarantined.values(), key=lambda each: (each.id or "", each.why))
    # An id that also came in a form that can be read is not in doubt.
    return Items(good, [each for each in bad_items if each.id not in chosen], duplicates)


def _legible_id(item: Any, name: str) -> str | None:
    value = _id_as_text(item.get(name)) if isinstance(item, dict) else None
    return value if isinstance(value, str) and 0 < len(value) <= 255 else None


def _why(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'the item'}: {each['msg']}" for each in found[:3]
    )
