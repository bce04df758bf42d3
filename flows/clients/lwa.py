"""Login with Amazon: an authorisation code or a refresh token in, an access token out."""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from pydantic import SecretStr

from flows.clients.failures import ApiError, Failure
from flows.clients.http import ApiSession, Call

SCOPE = "advertising::campaign_management"
TOKEN_PATH = "/auth/o2/token"  # noqa: S105
FORM = "application/x-www-form-urlencoded;charset=UTF-8"
STATE_VALID = timedelta(minutes=10)
NO_LONGER_GRANTED = {"invalid_grant", "invalid_client", "unauthorized_client"}
"""The errors after which no retry helps: a person has to act."""
NEXT_STEPS = {
    "invalid_grant": "connect the account again: `warehouse connect amazon`",
    "invalid_client": "put AMAZON_CLIENT_ID and AMAZON_CLIENT_SECRET right, then"
    " `warehouse refresh-tokens --retry`; if they are right, `warehouse connect amazon`",
    "unauthorized_client": "let the client use this grant in Amazon's developer console, then"
    " `warehouse connect amazon`",
}


@dataclass(frozen=True)
class Client:
    """Our client of Login with Amazon.

    Attributes:
        token_base: scheme and host of the token endpoint.
        authorise_url: where a person consents.
    """

    client_id: str
    client_secret: SecretStr
    token_base: str
    authorise_url: str


@dataclass(frozen=True)
class TokenSet:
    """What Amazon gave: times in UTC; no refresh token means that the old one stays."""

    access_token: SecretStr
    refresh_token: SecretStr | None
    token_type: str
    expires_at: datetime


async def refresh(session: ApiSession, client: Client, refresh_token: SecretStr) -> TokenSet:
    """A new access token.

    Raises:
        ApiError: with `needs_reauthorisation` where the grant is no longer good.
    """
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token.get_secret_value()}
    return await _ask(session, client, form, refresh_token.get_secret_value())


async def exchange_code(
    session: ApiSession, client: Client, code: str, redirect_uri: str, verifier: str
) -> TokenSet:
    """The first tokens of a connection, for the code that the browser brought back.

    Raises:
        ApiError: the code is used, too old, or another client's.
    """
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
    }
    return await _ask(session, client, form, code, verifier)


async def _ask(session: ApiSession, client: Client, form: dict[str, str], *hidden: str) -> TokenSet:
    secret = client.client_secret.get_secret_value()
    call = Call(
        "POST",
        client.token_base,
        TOKEN_PATH,
        headers={"Content-Type": FORM},
        form=form | {"client_id": client.client_id, "client_secret": secret},
        signed=False,
        secrets=(secret, *hidden),
    )
    asked_at = datetime.now(UTC)
    try:
        document = (await session.send(call)).document
    except ApiError as error:
        if error.code in NO_LONGER_GRANTED:
            raise ApiError(
                Failure.NEEDS_REAUTHORISATION,
                "the connection needs a new authorisation",
                error.why,
                status=error.status,
                code=error.code,
                request_id=error.request_id,
                next_step=NEXT_STEPS[error.code],
            ) from None
        raise
    return _read(document, asked_at)


def _read(document: object, asked_at: datetime) -> TokenSet:
    fields = document if isinstance(document, dict) else {}
    access, kept = fields.get("access_token"), fields.get("refresh_token")
    lifetime, kind = fields.get("expires_in"), fields.get("token_type")
    if (
        not (isinstance(access, str) and access)
        or not (kept is None or isinstance(kept, str))
        or not (isinstance(lifetime, int | float) and 0 < lifetime < 1e8)
        or not isinstance(kind, str)
    ):
        raise ApiError(
            Failure.WRONG_SHAPE,
            "the answer of Login with Amazon cannot be read",
            "access_token, token_type or expires_in is missing or of another type",
        )
    return TokenSet(
        SecretStr(access),
        SecretStr(kept) if kept else None,
        kind[:50] or "bearer",
        asked_at + timedelta(seconds=lifetime),
    )


@dataclass
class Consent:
    """One attempt to connect: a state that is valid ten minutes and once, and a PKCE verifier."""

    redirect_uri: str
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    state: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(64), repr=False)
    used: bool = False

    def url(self, client: Client) -> str:
        """The page on which a person consents."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        query = {
            "client_id": client.client_id,
            "scope": SCOPE,
            "response_type": "code",
            "redirect_uri": self.redirect_uri,
            "state": self.state,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return f"{client.authorise_url}?{urlencode(query)}"

    def accepts(self, state: str, now: datetime) -> bool:
        """Whether an answer of the browser belongs to this attempt; a second one never does."""
        if self.used or not self.valid_at(now):
            return False
        if not secrets.compare_digest(state.encode(), self.state.encode()):
            return False
        self.used = True
        return True

    def valid_at(self, now: datetime) -> bool:
        """Whether the attempt is young enough."""
        return now - self.made_at < STATE_VALID
