"""Lists that come in pages: read to the end, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from flows.clients.failures import ApiError, Failure
from flows.clients.patience import Patience


@dataclass(frozen=True)
class Page:
    """A page: its items as they came, and where the next one begins."""

    items: list[Any]
    next_token: str | None


@dataclass(frozen=True)
class Listing:
    """A whole list: its items as they came, and in how many pages."""

    items: list[Any]
    pages: int


async def read_all(
    what: str, read: Callable[[str | None], Awaitable[Page]], patience: Patience
) -> Listing:
    """Every item of a list.

    Args:
        what: the list's name in messages.
        read: fetches the page of a token; None is the first.

    Raises:
        ApiError: a page fails, the pages run in a circle, or there are more than `patience` allows;
            never a list that is cut.
    """
    items: list[Any] = []
    seen: set[str] = set()
    token: str | None = None
    for number in range(1, patience.pages + 1):
        page = await read(token)
        items += page.items
        if len(items) > patience.rows:
            raise ApiError(
                Failure.TOO_MANY_ROWS,
                f"{what} has no end",
                f"more than {patience.rows:,} rows came",
            )
        token = page.next_token
        if not token:
            return Listing(items, number)
        if token in seen or not page.items:
            why = "a page names one that came before" if token in seen else "a page is empty"
            raise ApiError(
                Failure.PAGINATION_LOOP, f"{what} has no end", f"{why}, and promises another"
            )
        seen.add(token)
    raise ApiError(
        Failure.TOO_MANY_ROWS, f"{what} has no end", f"more than {patience.pages:,} pages came"
    )


def list_of(document: Any, name: str, what: str) -> list[Any]:
    """The list under a name of an answer.

    Raises:
        ApiError: there is none: then the list is not empty, it is unknown.
    """
    found = document.get(name) if isinstance(document, dict) else None
    if not isinstance(found, list):
        raise ApiError(
            Failure.WRONG_SHAPE, f"{what} cannot be read", f"the answer has no list `{name}`"
        )
    return found


def token_of(document: Any, what: str) -> str | None:
    """The token of the next page; null and an empty one are none.

    Raises:
        ApiError: it is something else than text.
    """
    token = document.get("nextToken")
    if token is not None and not isinstance(token, str):
        raise ApiError(Failure.WRONG_SHAPE, f"{what} cannot be read", "its `nextToken` is not text")
    return token or None
