"""The core of every client: one request at a time to its end, with patience and without harm.

Every attempt has a deadline of the wall clock, which a slow drip cannot stretch, and so has the
sync as a whole. A redirect is not followed. What passes is tried again, as `Patience` allows.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from ssl import SSLContext
from types import TracebackType
from typing import Any, Protocol, Self

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from flows.clients import bodies
from flows.clients.failures import ApiError, Failure
from flows.clients.patience import Patience

AGENT = "sqp-warehouse"


class Tokens(Protocol):
    """Where access tokens come from."""

    async def current(self) -> str:
        """A token that is good for some time to come."""
        ...

    async def instead_of(self, refused: str) -> str:
        """Another token than the one that the API has just refused."""
        ...


class Ledger(Protocol):
    """Where requests are counted, and where it is known that an endpoint wants to be left alone."""

    def wait_seconds(self, endpoint: str) -> float:
        """How long to wait before the next request to the endpoint."""
        ...

    def sent(self, endpoint: str) -> None:
        """A request is about to be sent."""
        ...

    def refused(self, endpoint: str, retry_after: float | None) -> None:
        """The API has answered 429, and asked to wait so long."""
        ...


class NoLedger:
    """Counts nothing and never waits."""

    def wait_seconds(self, endpoint: str) -> float:
        """Never."""
        del endpoint
        return 0.0

    def sent(self, endpoint: str) -> None:
        """Forgets."""

    def refused(self, endpoint: str, retry_after: float | None) -> None:
        """Forgets."""


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        base: scheme and host, such as `https://advertising-api.amazon.com`.
        place: what tells hosts of one API apart in messages and counts, such as `EU`.
        media_type: of what is sent and accepted.
        json, form, query: what is sent; at most one of the first two.
        signed: whether it carries an access token.
        secrets: values that no message may show.
    """

    method: str
    base: str
    path: str
    place: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    json: Any = None
    form: Mapping[str, str] | None = field(default=None, repr=False)
    query: Mapping[str, str] | None = None
    signed: bool = True
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def endpoint(self) -> str:
        """Method, place and path: what rate limits are counted by."""
        return " ".join(part for part in (self.method, self.place, self.path) if part)


@dataclass
class Circuit:
    """Whether a host is worth a request: after many failures in a row it is left be for a while."""

    failures: int = 0
    closed_again_at: float = 0.0


@dataclass(frozen=True)
class Answer:
    """A successful answer: the document, and the API's id of the request."""

    document: Any
    request_id: str | None


class ApiSession:
    """The requests of one sync, as an asynchronous context manager.

    Attributes:
        requests: how many were sent, retries included.
        retries: how many of these were retries.
    """

    def __init__(
        self,
        patience: Patience,
        *,
        tokens: Tokens | None = None,
        ledger: Ledger | None = None,
        seconds: float | None = None,
    ) -> None:
        self.patience = patience
        self.requests = 0
        self.retries = 0
        self._tokens = tokens
        self._ledger = ledger or NoLedger()
        self._seconds = seconds or patience.sync_seconds
        self._circuits: dict[str, Circuit] = {}
        self._slots = asyncio.Semaphore(patience.parallel)
        self._ends_at = 0.0
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        self._ends_at = time.monotonic() + self._seconds
        self._client = httpx.AsyncClient(
            verify=_tls(),
            follow_redirects=False,
            timeout=self.patience.request_seconds,
            headers={"User-Agent": AGENT, "Accept-Encoding": "gzip"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def send(self, call: Call) -> Answer:
        """Send a request until it succeeds, fails for good, or patience ends.

        Raises:
            ApiError: with `retry_at` where the API said when to come back.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception(
                lambda error: isinstance(error, ApiError) and error.is_passing
            ),
            wait=self._wait,
            stop=self._gives_up,
            before_sleep=self._count_retry,
            reraise=True,
        )
        try:
            answer: Answer = await retrying(self._signed_attempt, call)
        except ApiError as error:
            if error.retry_after is not None:
                error.retry_at = datetime.now(UTC) + timedelta(seconds=error.retry_after)
            raise
        return answer

    async def _signed_attempt(self, call: Call) -> Answer:
        """One attempt; where an access token is refused, one more with another token."""
        if not call.signed:
            return await self._attempt(call, None)
        assert self._tokens is not None, "a signed call needs tokens"
        token = await self._tokens.current()
        try:
            return await self._attempt(call, token)
        except ApiError as error:
            if error.failure is not Failure.UNAUTHORISED:
                raise
        return await self._attempt(call, await self._tokens.instead_of(token))

    async def _attempt(self, call: Call, token: str | None) -> Answer:
        circuit = self._circuits.setdefault(call.base, Circuit())
        if circuit.closed_again_at > time.monotonic():
            raise _error(
                Failure.HOST_IS_DOWN,
                call,
                f"{call.base} has failed {circuit.failures} times in a row",
            )
        await self._wait_for_the_limit(call)
        try:
            async with self._slots:
                answer = await self._exchange(call, token)
        except ApiError as error:
            if error.failure in (Failure.SERVER_ERROR, Failure.UNREACHABLE, Failure.TIMED_OUT):
                circuit.failures += 1
                if circuit.failures >= self.patience.circuit_failures:
                    circuit.closed_again_at = time.monotonic() + self.patience.circuit_seconds
            raise
        circuit.failures = 0
        return answer

    async def _wait_for_the_limit(self, call: Call) -> None:
        """Wait as long as the API, in whatever process, last asked to."""
        while (wait := self._ledger.wait_seconds(call.endpoint)) > 0:
            if wait > self._left():
                raise _error(
                    Failure.RATE_LIMITED,
                    call,
                    f"Amazon has asked to wait {math.ceil(wait)} s more",
                    status=429,
                    retry_after=wait,
                )
            await asyncio.sleep(wait)

    async def _exchange(self, call: Call, token: str | None) -> Answer:
        assert self._client is not None, "used outside of its context"
        headers = {"Accept": call.media_type, **call.headers}
        if call.json is not None:
            headers["Content-Type"] = call.media_type
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        seconds = min(self.patience.request_seconds, self._left())
        if seconds <= 0:
            raise _error(Failure.OUT_OF_TIME, call, f"the sync has used its {self._seconds:g} s")
        self._ledger.sent(call.endpoint)
        self.requests += 1
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream(
                    call.method,
                    call.base + call.path,
                    headers=headers,
                    params=call.query,
                    json=call.json,
                    data=call.form,
                ) as response,
            ):
                body = await bodies.read_body(
                    response.aiter_raw(),
                    response.headers.get("content-encoding", ""),
                    self.patience.body_bytes,
                )
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _error(
                Failure.TIMED_OUT, call, f"no complete answer within {seconds:.3g} s"
            ) from error
        except bodies.TooLarge as error:
            raise _error(Failure.TOO_LARGE, call, f"the answer: {error}") from error
        except bodies.Unreadable as error:
            raise _error(Failure.UNREADABLE, call, f"the answer: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            why = f"{type(error).__name__}: {str(error) or 'the connection broke'}"
            raise _error(Failure.UNREACHABLE, call, why) from None
        hidden = (*call.secrets, token) if token else call.secrets
        return self._judge(call, response, body, hidden)

    def _judge(
        self, call: Call, response: httpx.Response, body: bytes, hidden: Sequence[str]
    ) -> Answer:
        status = response.status_code
        request_id = next(
            (
                response.headers[name][:100]
                for name in ("x-amzn-requestid", "x-amz-request-id", "x-amz-rid")
                if name in response.headers
            ),
            None,
        )
        if 200 <= status < 300:
            try:
                return Answer(bodies.parse_json(body), request_id)
            except bodies.Unreadable as error:
                kind = response.headers.get("content-type", "no media type")
                begins = f', and begins "{bodies.excerpt(body, hidden)}"' if body.strip() else ""
                raise _error(
                    Failure.UNREADABLE,
                    call,
                    f"the answer ({status}, {kind[:60]}): {error}{begins}",
                    status=status,
                    request_id=request_id,
                ) from error
        if 300 <= status < 400:
            raise _error(
                Failure.REDIRECTED, call, f"it answers {status} and points elsewhere", status=status
            )
        said = bodies.read_error(bodies.without(body, hidden))
        retry_after = self._retry_after(response.headers.get("retry-after"))
        if status == 429:
            self._ledger.refused(call.endpoint, retry_after)
        told = f"{said.code}: {said.message}" if said.code else said.message
        raise _error(
            _failure(status),
            call,
            f"{status} {told}".strip(),
            status=status,
            code=said.code,
            request_id=said.request_id or request_id,
            retry_after=retry_after,
        )

    def _retry_after(self, text: str | None) -> float | None:
        """Seconds to wait, clamped; None where the header is absent or says nothing."""
        if text is None:
            return None
        try:
            seconds = float(text)
        except ValueError:
            try:
                moment = parsedate_to_datetime(text)
            except (ValueError, TypeError, OverflowError):
                return None
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            seconds = (moment - datetime.now(UTC)).total_seconds()
        if not math.isfinite(seconds):
            return None
        return min(
            max(seconds, self.patience.shortest_retry_after), self.patience.longest_retry_after
        )

    def _wait(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: what the API asked, or longer each time; with jitter."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, ApiError) else None
        if asked is not None:
            return asked * random.uniform(1.0, 1.1)  # noqa: S311
        wait = self.patience.first_wait * 2.0 ** (state.attempt_number - 1)
        return min(wait, self.patience.longest_wait) * random.uniform(0.5, 1.0)  # noqa: S311

    def _gives_up(self, state: RetryCallState) -> bool:
        return (
            state.attempt_number >= self.patience.attempts
            or self.retries >= self.patience.retry_budget
            or state.upcoming_sleep >= self._left()
        )

    def _count_retry(self, state: RetryCallState) -> None:
        del state
        self.retries += 1

    def _left(self) -> float:
        """Seconds that the sync still has."""
        return self._ends_at - time.monotonic()


@cache
def _tls() -> SSLContext:
    """Made once a process: reading the certificates takes longer than a request."""
    return httpx.create_ssl_context()


def _failure(status: int) -> Failure:
    if status == 429:
        return Failure.RATE_LIMITED
    if status >= 500 or status in (408, 425):
        return Failure.SERVER_ERROR
    return {
        401: Failure.UNAUTHORISED,
        403: Failure.FORBIDDEN,
        404: Failure.NOT_FOUND,
        410: Failure.NOT_FOUND,
    }.get(status, Failure.REFUSED)


def _error(failure: Failure, call: Call, why: str, **further: Any) -> ApiError:
    """The error of a call, without anything secret."""
    return ApiError(failure, f"{call.endpoint} has failed", bodies.redact(why), **further)
