"""A new connection: a person consents in the browser, Amazon sends it back to us with a code.

The answer comes to `http://localhost:PORT/callback`, on this machine only. A state is valid ten
minutes and once, and the code is of use only with the verifier, which never leaves this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from flows.clients import lwa
from flows.clients.bodies import redact
from flows.clients.http import ApiSession
from flows.clients.lwa import Client, Consent, TokenSet
from flows.errors import WarehouseError
from flows.settings import get_settings
from flows.warehouse.amazon_connections import amazon_client, find_tenant, store_connection
from flows.warehouse.connection import connect
from flows.warehouse.secrets import SecretBox

CALLBACK = "/callback"
DONE = "The account is connected. You can close this window."
AGAIN = "This answer does not belong to the connection that is being made. Begin again."


class Listener(HTTPServer):
    """Waits on loopback for the one answer that belongs to a consent."""

    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Answer)
        self.timeout = 1
        self.consent = Consent(f"http://localhost:{self.server_port}{CALLBACK}")
        self.code: str | None = None
        self.error: str | None = None

    def wait(self) -> str:
        """The code.

        Raises:
            WarehouseError: the person declined, or ten minutes have passed.
        """
        while self.code is None:
            if self.error is not None:
                raise WarehouseError(
                    "Amazon has not connected the account",
                    redact(self.error),
                    "run `warehouse connect amazon` again and allow the access",
                )
            if not self.consent.valid_at(datetime.now(UTC)):
                raise WarehouseError(
                    "nobody has consented",
                    f"no answer came within {lwa.STATE_VALID // timedelta(minutes=1)} minutes",
                    "run `warehouse connect amazon` again",
                )
            self.handle_request()
        return self.code


class _Answer(BaseHTTPRequestHandler):
    server: Listener
    timeout = 5

    def do_GET(self) -> None:
        """Take the answer if its state is ours; say so to the person either way."""
        parts = urlsplit(self.path)
        given = {name: values[0] for name, values in parse_qs(parts.query).items()}
        ours = parts.path == CALLBACK and self.server.consent.accepts(
            given.get("state", ""), datetime.now(UTC)
        )
        if ours and "code" in given:
            self.server.code = given["code"]
        elif ours:
            said = given.get("error_description") or given.get("error") or "it gave no code"
            self.server.error = said[:200]
        text = DONE if self.server.code and ours else AGAIN
        self.send_response(200 if ours else 400)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text.encode())))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing: the request holds the code."""


def connect_amazon(
    email: str | None, name: str, port: int | None, show: Callable[[str], None]
) -> UUID:
    """Let a person consent, and store the tokens.

    Args:
        email: whose connection it is; None is the only tenant.
        name: what it is called; one of that name gets the new tokens.
        port: of the answer, instead of the setting's; 0 is any that is free.
        show: is given the address to open.

    Raises:
        WarehouseError: the person declines, time passes, or Amazon refuses the code.
    """
    client, box = amazon_client(), SecretBox.from_settings()
    with connect(autocommit=True, application="warehouse connect", role="etl") as connection:
        find_tenant(connection, email)  # a wrong address costs nobody a visit to Amazon
    tokens = _consented(client, port, show)
    with connect(autocommit=True, application="warehouse connect", role="etl") as connection:
        return store_connection(connection, box, email=email, name=name, tokens=tokens)


def _consented(client: Client, port: int | None, show: Callable[[str], None]) -> TokenSet:
    settings = get_settings()
    wanted = settings.amazon_redirect_port if port is None else port
    try:
        listener = Listener(wanted)
    except OSError as error:
        raise WarehouseError(
            f"port {wanted} of this machine cannot be listened to",
            error.strerror or "it is in use",
            "name another with --port; it must be among your client's allowed return URLs",
        ) from error
    with listener:
        show(listener.consent.url(client))
        code, consent = listener.wait(), listener.consent

    async def exchange() -> TokenSet:
        patience = settings.amazon_patience
        async with ApiSession(patience, seconds=patience.token_seconds) as session:
            return await lwa.exchange_code(
                session, client, code, consent.redirect_uri, consent.verifier
            )

    return asyncio.run(exchange())
