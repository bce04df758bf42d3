"""Tokens renewed before they end: of every connection that is due, each by itself.

A connection that fails stops no other. What Amazon refuses for good waits for a person and is not
asked for again; what passes is tried again later, at growing distances, and never given up.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from flows.clients.failures import ApiError, Failure
from flows.clients.lwa import Client
from flows.errors import ExitCode, UsageError, WarehouseError
from flows.runs import Story, warehouse_flow
from flows.settings import get_settings
from flows.vocabulary.accounts import ConnectionStatus
from flows.warehouse.amazon_connections import (
    AmazonConnection,
    Outcome,
    amazon_client,
    find_connections,
    look_after,
)
from flows.warehouse.connection import connect
from flows.warehouse.secrets import SecretBox

AHEAD_SECONDS = 900
"""How long before its end a token is renewed; the flow runs several times in this time."""


@dataclass(frozen=True)
class Refreshed:
    """What came of one connection's token; `error` says what, why and what to do."""

    connection: str
    tenant: str
    outcome: Outcome
    error: dict[str, str] | None = None


@dataclass(frozen=True)
class RefreshReport:
    """What came of each connection that was due, or that waits for a person."""

    tokens: list[Refreshed]

    @property
    def exit_code(self) -> ExitCode:
        """PARTIAL when some token could not be renewed, FAILED when none could."""
        bad = [token for token in self.tokens if token.error]
        if not bad:
            return ExitCode.DONE
        return ExitCode.FAILED if len(bad) == len(self.tokens) else ExitCode.PARTIAL

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)

    def story(self) -> Story:
        """Each token's outcome, and what a person has to do."""
        outcomes = Counter(str(token.outcome) for token in self.tokens)
        counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        return Story(
            headline=counted or "no token to look after",
            changes=[
                {
                    "connection": token.connection,
                    "tenant": token.tenant,
                    "outcome": str(token.outcome),
                }
                for token in self.tokens
            ],
            problems=[
                {**token.error, "what": f"{token.connection}: {token.error['what']}"}
                for token in self.tokens
                if token.error
            ],
        )


@warehouse_flow("refresh-tokens")
def refresh_tokens(
    ahead_seconds: float = AHEAD_SECONDS, retry: bool = False, connection: str | None = None
) -> RefreshReport:
    """Renew the tokens that end soon.

    Args:
        ahead_seconds: how soon.
        retry: also ask again where Amazon has refused for good, once each.
        connection: this one only, by name or id.

    Raises:
        UsageError: our client of Login with Amazon is not set.
    """
    client, box = amazon_client(), SecretBox.from_settings()
    with connect(autocommit=True, application="warehouse tokens", role="etl") as session:
        try:
            known = find_connections(session, connection)
        except UsageError:
            if connection:
                raise
            return RefreshReport([])
        wanted = {
            row[0]
            for row in session.execute(
                "select id from app.oauth_tokens where is_active and proactive_refresh_enabled"
            )
        }
    ahead = timedelta(seconds=ahead_seconds)
    return RefreshReport(
        [
            _refresh(each, client, box, ahead, retry=retry)
            for each in known
            if connection or each.id in wanted
        ]
    )


def _refresh(
    connection: AmazonConnection, client: Client, box: SecretBox, ahead: timedelta, *, retry: bool
) -> Refreshed:
    patience = get_settings().amazon_patience
    is_gone = connection.status == ConnectionStatus.NEEDS_REAUTHORISATION
    try:
        outcome, _ = look_after(
            connection.id, box, client, patience, ahead=ahead, retry=retry and is_gone
        )
    except WarehouseError as error:
        failure = error.failure if isinstance(error, ApiError) else None
        gone = failure is Failure.NEEDS_REAUTHORISATION
        outcome = Outcome.NEEDS_REAUTHORISATION if gone else Outcome.FAILED
        return Refreshed(connection.name, connection.email, outcome, error.as_dict())
    return Refreshed(connection.name, connection.email, outcome)
