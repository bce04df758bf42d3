"""The core of the clients against a real server that misbehaves in every known way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from flows.clients.failures import ApiError, Failure
from flows.clients.http import Answer, ApiSession, Call, NoLedger
from flows.clients.patience import Patience
from tests.apis import server as faults
from tests.apis.server import Fault, LocalApi, Reply, Request

TOKEN, OTHER = "Atza|CANARY-first", "Atza|CANARY-second"
QUICK = Patience(
    request_seconds=0.6,
    sync_seconds=4,
    attempts=3,
    first_wait=0.01,
    longest_wait=0.02,
    shortest_retry_after=0.05,
    longest_retry_after=0.2,
    body_bytes=1_000_000,
)


class Echo(LocalApi):
    """Answers what it was asked; wants the token `good`."""

    good = TOKEN

    def handle(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {self.good}":
            return Reply(401, {"code": "UNAUTHORIZED", "details": "token expired"})
        return Reply(200, {"path": request.path})


class FixedTokens:
    """One token, and another when the first is refused."""

    renewed = 0

    async def current(self) -> str:
        return TOKEN

    async def instead_of(self, refused: str) -> str:
        assert refused == TOKEN
        self.renewed += 1
        return OTHER


class Heard(NoLedger):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float | None]] = []

    def refused(self, endpoint: str, retry_after: float | None) -> None:
        self.told.append((endpoint, retry_after))


@pytest.fixture(scope="module")
def served() -> Iterator[Echo]:
    with Echo() as api:
        yield api


@pytest.fixture
def api(served: Echo) -> Echo:
    served.heal()
    served.good = TOKEN
    return served


def ask(
    api: LocalApi,
    *,
    patience: Patience = QUICK,
    calls: int = 1,
    tokens: FixedTokens | None = None,
    ledger: Any = None,
) -> tuple[list[Answer | ApiError], ApiSession]:
    """So many requests, one after the other; an error is a result."""

    async def run() -> tuple[list[Answer | ApiError], ApiSession]:
        results: list[Answer | ApiError] = []
        async with ApiSession(patience, tokens=tokens or FixedTokens(), ledger=ledger) as session:
            for _ in range(calls):
                try:
                    results.append(await session.send(Call("GET", api.url, "/thing")))
                except ApiError as error:
                    results.append(error)
        return results, session

    return asyncio.run(run())


PASSING: dict[str, tuple[Fault, Failure]] = {
    **{str(code): (faults.status(code), Failure.SERVER_ERROR) for code in (500, 502, 503, 504)},
    "429": (faults.too_many(), Failure.RATE_LIMITED),
    "reset": (faults.reset, Failure.UNREACHABLE),
    "cut off": (faults.truncated, Failure.UNREACHABLE),
    "half JSON": (faults.half_json, Failure.UNREADABLE),
    "HTML": (faults.html, Failure.UNREADABLE),
    "empty": (faults.empty, Failure.UNREADABLE),
    "NaN": (lambda _, reply: Reply(200, None, b'{"n": NaN}'), Failure.UNREADABLE),
    "deep": (lambda _, reply: Reply(200, None, b"[" * 99_999), Failure.UNREADABLE),
    "deepish": (lambda _, reply: Reply(200, None, b"[" * 90 + b"]" * 90), Failure.UNREADABLE),
    "broken gzip": (
        lambda _, reply: Reply(200, None, b"{}", headers={"Content-Encoding": "gzip"}),
        Failure.UNREADABLE,
    ),
    "another encoding": (
        lambda _, reply: Reply(200, None, b"{}", headers={"Content-Encoding": "br"}),
        Failure.UNREADABLE,
    ),
}
LASTING: dict[str, tuple[Fault, Failure]] = {
    "400": (faults.status(400), Failure.REFUSED),
    "403": (faults.status(403), Failure.FORBIDDEN),
    "404": (faults.status(404), Failure.NOT_FOUND),
    "406": (faults.status(406), Failure.REFUSED),
    "redirect": (faults.redirect("http://localhost:1/steal"), Failure.REDIRECTED),
    "bomb": (faults.gzip_bomb(64), Failure.TOO_LARGE),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again_and_then_told(name: str, api: Echo) -> None:
    fault, failure = PASSING[name]
    api.spoil("GET /thing", fault, fault)
    (answer,), session = ask(api)
    assert isinstance(answer, Answer), answer
    assert answer.document == {"path": "/thing"}
    assert (session.requests, session.retries) == (3, 2)

    api.always("GET /thing", fault)
    (error,), session = ask(api)
    assert isinstance(error, ApiError)
    assert (error.failure, session.requests) == (failure, 3)
    assert "CANARY" not in str(error)
    assert error.next_step


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_told_at_once(name: str, api: Echo) -> None:
    fault, failure = LASTING[name]
    api.spoil("GET /thing", fault)
    (error,), session = ask(api)
    assert isinstance(error, ApiError)
    assert (error.failure, session.requests) == (failure, 1)
    assert "CANARY" not in str(error)


@pytest.mark.parametrize("fault", [faults.slow(0.05), faults.slow(0.05, headers=True)])
def test_a_slow_drip_ends_at_the_deadline(fault: Fault, api: Echo) -> None:
    """Each byte comes long before any time-out of the socket."""
    api.always("GET /thing", fault)
    started = time.monotonic()
    (error,), session = ask(api, patience=QUICK.model_copy(update={"request_seconds": 0.3}))
    assert isinstance(error, ApiError)
    assert error.failure is Failure.TIMED_OUT
    assert session.requests == 3
    assert time.monotonic() - started < 2


def test_the_sync_as_a_whole_has_a_deadline(api: Echo) -> None:
    api.always("GET /thing", faults.hanging(5))
    patience = QUICK.model_copy(update={"sync_seconds": 1.0, "attempts": 50})
    started = time.monotonic()
    (first, second), _ = ask(api, patience=patience, calls=2)
    assert time.monotonic() - started < 2
    assert isinstance(first, ApiError)
    assert isinstance(second, ApiError)
    assert second.failure is Failure.OUT_OF_TIME


def test_a_refused_token_is_replaced_once(api: Echo) -> None:
    api.good = OTHER
    tokens = FixedTokens()
    (answer,), session = ask(api, tokens=tokens)
    assert isinstance(answer, Answer)
    assert (tokens.renewed, session.requests) == (1, 2)

    api.good = "another one"
    (error,), session = ask(api)
    assert isinstance(error, ApiError)
    assert (error.failure, session.requests) == (Failure.UNAUTHORISED, 2)
    assert "connect" in error.next_step


def in_an_hour() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)


@pytest.mark.parametrize(
    ("header", "waits"),
    [
        ("0", 0.05),
        ("-7", 0.05),
        ("0.1", 0.1),
        ("99999", 0.2),
        (in_an_hour, 0.2),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.05),
        ("soon", None),
        ("nan", None),
        (None, None),
    ],
)
def test_retry_after_is_honoured_in_all_its_forms(
    header: str | Callable[[], str] | None, waits: float | None, api: Echo
) -> None:
    api.spoil("GET /thing", faults.too_many(header() if callable(header) else header))
    ledger = Heard()
    started = time.monotonic()
    (answer,), _ = ask(api, ledger=ledger)
    assert isinstance(answer, Answer)
    assert time.monotonic() - started >= (waits or 0)
    assert ledger.told == [("GET /thing", pytest.approx(waits) if waits else None)]


def test_a_wait_beyond_the_deadline_is_not_begun(api: Echo) -> None:
    api.always("GET /thing", faults.too_many("600"))
    patience = QUICK.model_copy(update={"longest_retry_after": 900})
    started = time.monotonic()
    (error,), session = ask(api, patience=patience)
    assert time.monotonic() - started < 1
    assert isinstance(error, ApiError)
    assert session.requests == 1
    assert error.retry_at is not None
    assert error.retry_at - datetime.now(UTC) > timedelta(seconds=590)


def test_a_host_that_only_fails_is_left_be(api: Echo) -> None:
    api.always("GET /thing", faults.status(500))
    patience = QUICK.model_copy(update={"circuit_failures": 4, "circuit_seconds": 60})
    errors, session = ask(api, patience=patience, calls=5)
    assert session.requests == 4
    assert isinstance(errors[-1], ApiError)
    assert errors[-1].failure is Failure.HOST_IS_DOWN


def test_retries_of_a_sync_are_counted_together(api: Echo) -> None:
    api.always("GET /thing", faults.too_many())
    _, session = ask(api, patience=QUICK.model_copy(update={"retry_budget": 3}), calls=4)
    assert (session.retries, session.requests) == (3, 7)


def test_a_compressed_answer_is_read(api: Echo) -> None:
    api.spoil("GET /thing", faults.gzipped)
    (answer,), _ = ask(api)
    assert isinstance(answer, Answer)
    assert answer.document == {"path": "/thing"}


def test_what_postgresql_cannot_hold_is_replaced(api: Echo) -> None:
    api.spoil("GET /thing", lambda *_: Reply(200, None, rb'{"a\u0000": ["\ud800", "\u00fc"]}'))
    (answer,), _ = ask(api)
    assert isinstance(answer, Answer)
    assert answer.document == {"a\ufffd": ["\ufffd", "ü"]}
