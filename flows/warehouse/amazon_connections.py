"""Connections to Amazon: tokens that are renewed in time, by one process at a time, and stored.

A connection is a row of `app.oauth_tokens`. Who renews a token holds the row's lock until the new
tokens are committed; who waited for it takes what it finds. No time of a sync is touched.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row
from pydantic import SecretStr

from flows.clients import lwa
from flows.clients.failures import ApiError, Failure
from flows.clients.http import ApiSession
from flows.clients.lwa import Client, TokenSet
from flows.clients.patience import Patience
from flows.errors import UsageError, WarehouseError
from flows.settings import get_settings
from flows.vocabulary.accounts import ConnectionStatus
from flows.warehouse.connection import connect
from flows.warehouse.faults import die_here_if_asked
from flows.warehouse.rate_limits import RateLimits
from flows.warehouse.secrets import RowRef, SecretBox

TABLE = "app.oauth_tokens"
MARGIN = timedelta(seconds=120)
"""A token that ends sooner is renewed before it is used; clocks may differ."""
LONGEST_BACKOFF = 3600.0
"""Seconds: however often a renewal has failed, it is tried again after this time."""


class Outcome(StrEnum):
    """What came of looking after a token."""

    REFRESHED = "refreshed"
    STILL_GOOD = "still good"
    WAITING = "waiting"
    FAILED = "failed"
    NEEDS_REAUTHORISATION = "needs re-authorisation"


@dataclass(frozen=True)
class AmazonConnection:
    """A connection as its row names it."""

    id: UUID
    user_id: UUID
    name: str
    email: str
    status: str
    last_error: str | None


@dataclass(frozen=True)
class Held:
    """A connection's tokens, opened, and how long the access token is good."""

    access_token: SecretStr = field(repr=False)
    refresh_token: SecretStr = field(repr=False)
    expires_at: datetime
    margin: timedelta

    def is_good(self, ahead: timedelta | None = None) -> bool:
        """Whether the access token lasts beyond the margin, or beyond `ahead`."""
        return datetime.now(UTC) + (self.margin if ahead is None else ahead) < self.expires_at


def amazon_client() -> Client:
    """Our client of Login with Amazon, from the settings.

    Raises:
        UsageError: it is not set.
    """
    settings = get_settings()
    if not settings.amazon_client_id or settings.amazon_client_secret is None:
        raise UsageError(
            "there is no client of Login with Amazon",
            "AMAZON_CLIENT_ID and AMAZON_CLIENT_SECRET are not set",
            "set both, in the environment or in .env, from your security profile at Amazon",
        )
    return Client(
        settings.amazon_client_id,
        settings.amazon_client_secret,
        settings.amazon_token_url,
        settings.amazon_authorise_url,
    )


def find_connections(
    connection: psycopg.Connection[Any], name: str | None = None
) -> list[AmazonConnection]:
    """The connections in use, or the one of a name or id.

    Raises:
        UsageError: there is none (of that name).
    """
    rows = connection.execute(
        """
        select
            oauth_tokens.id, oauth_tokens.user_id, oauth_tokens.connection_name, users.email,
            oauth_tokens.connection_status, oauth_tokens.last_refresh_error
        from app.oauth_tokens
        inner join app.users on oauth_tokens.user_id = users.id
        where
            oauth_tokens.is_active
            and users.deleted_at is null
            and (
                %(name)s::text is null
                or oauth_tokens.connection_name = %(name)s
                or oauth_tokens.id::text = %(name)s
            )
        order by users.email, oauth_tokens.connection_name, oauth_tokens.id
        """,
        {"name": name},
    ).fetchall()
    if not rows:
        raise UsageError(
            f"there is no connection {name}" if name else "no account is connected",
            "app.oauth_tokens has no such row in use",
            "run `warehouse connect amazon`",
        )
    return [AmazonConnection(*row) for row in rows]


def store_connection(
    connection: psycopg.Connection[Any],
    box: SecretBox,
    *,
    email: str | None,
    name: str,
    tokens: TokenSet,
) -> UUID:
    """Make a connection, or give the one of that name the tokens of a new authorisation.

    Args:
        connection: in autocommit mode, as `etl`.
        email: whose it is; None is the only tenant that there is.

    Raises:
        UsageError: there is no such tenant, or more than one and none is named.
        WarehouseError: Amazon gave no refresh token.
    """
    if tokens.refresh_token is None:
        raise WarehouseError(
            "Amazon has given no refresh token",
            "the connection would end within the hour",
            "run `warehouse connect amazon` again; if it stays, check the client's settings",
        )
    user_id = find_tenant(connection, email)
    with connection.transaction():
        connection.execute("select from app.users where id = %s for update", (user_id,))
        row = connection.execute(
            """
            select id from app.oauth_tokens
            where
                user_id = %s and connection_name = %s and is_active and user_account_id is null
            """,
            (user_id, name),
        ).fetchone()
        connection_id: UUID = row[0] if row else uuid4()
        sealed = _seal(box, connection_id, user_id, tokens.access_token, tokens.refresh_token)
        values = {
            "id": connection_id,
            "user_id": user_id,
            "name": name,
            "token_type": tokens.token_type,
            "expires_at": tokens.expires_at,
            "scope": lwa.SCOPE,
            **sealed,
        }
        connection.execute(
            """
            insert into app.oauth_tokens (
                id, user_id, connection_name, access_token, refresh_token, key_id, token_type,
                expires_at, scope, last_refresh_at
            )
            values (
                %(id)s, %(user_id)s, %(name)s, %(access_token)s, %(refresh_token)s, %(key_id)s,
                %(token_type)s, %(expires_at)s, %(scope)s, clock_timestamp()
            )
            on conflict (id) do update
            set
                access_token = excluded.access_token,
                refresh_token = excluded.refresh_token,
                key_id = excluded.key_id,
                token_type = excluded.token_type,
                expires_at = excluded.expires_at,
                scope = excluded.scope,
                last_refresh_at = excluded.last_refresh_at,
                connection_status = 'connected',
                refresh_failure_count = 0,
                last_refresh_error = null,
                next_refresh_at = null
            """,
            values,
        )
    return connection_id


def find_tenant(connection: psycopg.Connection[Any], email: str | None) -> UUID:
    """The tenant of an address, or the only one.

    Raises:
        UsageError: there is none, or it is not clear which.
    """
    rows = connection.execute(
        "select id from app.users where deleted_at is null"
        " and (%(email)s::text is null or lower(email) = lower(%(email)s))",
        {"email": email},
    ).fetchall()
    if len(rows) == 1:
        found: UUID = rows[0][0]
        return found
    raise UsageError(
        f"there is no tenant {email}" if email else "it is not clear whose connection it is",
        f"app.users has {len(rows)} such rows",
        "name one with --user; docs/runbooks/tenants.md shows how to make one",
    )


def look_after(
    connection_id: UUID,
    box: SecretBox,
    client: Client,
    patience: Patience,
    *,
    ahead: timedelta | None = None,
    refused: str | None = None,
    retry: bool = False,
) -> tuple[Outcome, Held]:
    """Renew a token unless it is good; one process at a time does, and the others see it.

    Args:
        ahead: renew it if it ends within this time; otherwise within `MARGIN`.
        refused: the access token that Amazon has just refused: it is not good, whatever its end.
        retry: try also where a person should first connect again.

    Raises:
        ApiError: it could not be renewed: recorded, with what to do.
        DoesNotOpen: the stored tokens cannot be read: recorded as well.
    """
    with connect(autocommit=True, application="warehouse tokens", role="etl") as connection:
        wait = int(1000 * (patience.token_seconds + 10))
        connection.execute("select set_config('lock_timeout', %s, false)", (f"{wait}ms",))
        with connection.transaction():
            row = _read(connection, connection_id, lock=True)
            if row["connection_status"] != ConnectionStatus.CONNECTED and not retry:
                raise _gone(row)
            try:
                held = _open(box, row)
            except WarehouseError as error:
                failed: WarehouseError = error
            else:
                if held.is_good(ahead) and held.access_token.get_secret_value() != refused:
                    return Outcome.STILL_GOOD, held
                if row["next_refresh_at"] and row["next_refresh_at"] > datetime.now(UTC):
                    if held.is_good() and refused is None:
                        return Outcome.WAITING, held
                    raise _waiting(row)
                ledger = RateLimits(row["user_id"])
                ledger.exchange(connection)
                try:
                    tokens = asyncio.run(_ask(client, held.refresh_token, patience, ledger))
                except ApiError as error:
                    failed = error
                else:
                    die_here_if_asked("token_answered")
                    ledger.settle(connection)
                    held = _store(connection, box, row, held, tokens)
                    return Outcome.REFRESHED, held
                ledger.settle(connection)
            _record_failure(connection, row, failed, patience)
        raise failed


class TokenKeeper:
    """The access token of a connection for as long as a sync runs; it is asked for in vain once."""

    def __init__(
        self, connection_id: UUID, box: SecretBox, client: Client, patience: Patience
    ) -> None:
        self._connection_id = connection_id
        self._box = box
        self._client = client
        self._patience = patience
        self._one_at_a_time = asyncio.Lock()
        self._held: Held | None = None
        self._failed: WarehouseError | None = None

    def begin(self, connection: psycopg.Connection[Any]) -> None:
        """Take the stored token if it is good, on a connection that is there anyway.

        Raises:
            ApiError: a person must connect again first.
            DoesNotOpen: the stored tokens cannot be read.
        """
        row = _read(connection, self._connection_id)
        if row["connection_status"] != ConnectionStatus.CONNECTED:
            raise _gone(row)
        self._held = _open(self._box, row)

    async def current(self) -> str:
        """An access token that is good."""
        if self._held is None or not self._held.is_good():
            await self._renew(None)
        assert self._held is not None
        return self._held.access_token.get_secret_value()

    async def instead_of(self, refused: str) -> str:
        """Another access token than this one."""
        await self._renew(refused)
        assert self._held is not None
        return self._held.access_token.get_secret_value()

    async def _renew(self, refused: str | None) -> None:
        async with self._one_at_a_time:
            held = self._held
            if held and held.is_good() and held.access_token.get_secret_value() != refused:
                return
            if self._failed is not None:
                raise self._failed
            try:
                _, self._held = await asyncio.to_thread(
                    look_after,
                    self._connection_id,
                    self._box,
                    self._client,
                    self._patience,
                    refused=refused,
                )
            except WarehouseError as error:
                self._failed = error
                raise


async def _ask(
    client: Client, refresh_token: SecretStr, patience: Patience, ledger: RateLimits
) -> TokenSet:
    async with ApiSession(patience, ledger=ledger, seconds=patience.token_seconds) as session:
        return await lwa.refresh(session, client, refresh_token)


def _read(
    connection: psycopg.Connection[Any], connection_id: UUID, *, lock: bool = False
) -> dict[str, Any]:
    statement = """
        select
            id, user_id, connection_name, connection_status, access_token, refresh_token, key_id,
            expires_at, last_refresh_at, next_refresh_at, refresh_failure_count, last_refresh_error
        from app.oauth_tokens
        where id = %s and is_active
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        query = f"{statement} for update" if lock else statement
        row = cursor.execute(query, (connection_id,)).fetchone()
    if row is None:
        raise UsageError(
            f"there is no connection {connection_id}",
            "app.oauth_tokens has no such row in use",
            "run `warehouse connect amazon`",
        )
    return row


def _open(box: SecretBox, row: dict[str, Any]) -> Held:
    access, renewing = (
        box.open(row[column], row["key_id"], RowRef(TABLE, column, row["id"], row["user_id"]))
        for column in ("access_token", "refresh_token")
    )
    since = row["last_refresh_at"]
    lifetime = row["expires_at"] - since if since else 2 * MARGIN
    return Held(access, renewing, row["expires_at"], min(MARGIN, lifetime / 2))


def _seal(
    box: SecretBox, connection_id: UUID, user_id: UUID, access: SecretStr, renewing: SecretStr
) -> dict[str, str]:
    sealed_access = box.seal(access, where=RowRef(TABLE, "access_token", connection_id, user_id))
    sealed = box.seal(renewing, where=RowRef(TABLE, "refresh_token", connection_id, user_id))
    return {
        "access_token": sealed_access.ciphertext,
        "refresh_token": sealed.ciphertext,
        "key_id": sealed.key_id,
    }


def _store(
    connection: psycopg.Connection[Any],
    box: SecretBox,
    row: dict[str, Any],
    held: Held,
    tokens: TokenSet,
) -> Held:
    """Both tokens in one statement, the refresh token that came or the one that was."""
    renewing = tokens.refresh_token or held.refresh_token
    connection.execute(
        """
        update app.oauth_tokens
        set
            access_token = %(access_token)s,
            refresh_token = %(refresh_token)s,
            key_id = %(key_id)s,
            token_type = %(token_type)s,
            expires_at = %(expires_at)s,
            last_refresh_at = clock_timestamp(),
            last_refresh_attempt_at = clock_timestamp(),
            refresh_count = refresh_count + 1,
            refresh_failure_count = 0,
            last_refresh_error = null,
            next_refresh_at = null,
            connection_status = 'connected'
        where id = %(id)s
        """,
        {
            "id": row["id"],
            "token_type": tokens.token_type,
            "expires_at": tokens.expires_at,
            **_seal(box, row["id"], row["user_id"], tokens.access_token, renewing),
        },
    )
    lifetime = tokens.expires_at - datetime.now(UTC)
    return Held(tokens.access_token, renewing, tokens.expires_at, min(MARGIN, lifetime / 2))


def _record_failure(
    connection: psycopg.Connection[Any],
    row: dict[str, Any],
    error: WarehouseError,
    patience: Patience,
) -> None:
    is_gone = isinstance(error, ApiError) and error.failure is Failure.NEEDS_REAUTHORISATION
    backoff = min(
        patience.first_wait * 2.0 ** min(row["refresh_failure_count"], 30), LONGEST_BACKOFF
    )
    until = datetime.now(UTC) + timedelta(seconds=backoff * random.uniform(0.75, 1.25))  # noqa: S311
    if error.retry_at:
        until = max(until, error.retry_at)
    connection.execute(
        """
        update app.oauth_tokens
        set
            refresh_failure_count = refresh_failure_count + 1,
            last_refresh_attempt_at = clock_timestamp(),
            last_refresh_error = %s,
            next_refresh_at = %s,
            connection_status = case when %s then 'needs_reauthorisation' else connection_status end
        where id = %s
        """,
        (str(error), None if is_gone else until, is_gone, row["id"]),
    )


def _gone(row: dict[str, Any]) -> ApiError:
    said = row["last_refresh_error"] or "Amazon no longer takes its refresh token"
    why, _, next_step = said.removeprefix("the connection needs a new authorisation: ").rpartition(
        " → "
    )
    return ApiError(
        Failure.NEEDS_REAUTHORISATION,
        f"the connection {row['connection_name']} needs a new authorisation",
        why or said,
        next_step=next_step if why else None,
    )


def _waiting(row: dict[str, Any]) -> ApiError:
    error = ApiError(
        Failure.HOST_IS_DOWN,
        f"the token of {row['connection_name']} could not be renewed",
        f"{row['refresh_failure_count']} attempts failed, the last: {row['last_refresh_error']}",
        next_step=f"nothing to do: it is tried again from {row['next_refresh_at']:%H:%M:%S} UTC on",
    )
    error.retry_at = row["next_refresh_at"]
    return error
