"""Accounts of every connection brought up to date: sponsored ads, DSP advertisers, AMC instances.

read everything → swap → end, for each connection by itself. What could not be read leaves its
accounts as they were; what is no longer there is marked disconnected and never deleted.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

import psycopg

from flows.clients.amazon_ads import AmazonAds
from flows.clients.failures import ApiError, Failure
from flows.clients.http import ApiSession
from flows.clients.lwa import Client
from flows.errors import BUSY, Busy, ExitCode, WarehouseError, exit_code_of
from flows.runs import Story, warehouse_flow
from flows.settings import get_settings
from flows.sources.amazon_accounts import AccountList, list_accounts
from flows.vocabulary.accounts import AccountSyncStatus, AccountSyncType
from flows.warehouse.accounts import AccountCounts, AccountSync, account_sync
from flows.warehouse.amazon_connections import (
    AmazonConnection,
    TokenKeeper,
    amazon_client,
    find_connections,
)
from flows.warehouse.connection import connect
from flows.warehouse.faults import die_here_if_asked
from flows.warehouse.rate_limits import RateLimits
from flows.warehouse.secrets import SecretBox

APPLICATION = "warehouse sync-accounts"


@dataclass
class ConnectionSync:
    """What came of one connection.

    Attributes:
        status: as in `app.account_sync_history`, or `busy`.
        problems: what could not be read, why, and what to do.
        notes: what is as it should be and still worth saying.
        seconds: of the whole, and of what the database took of it.
    """

    connection: str
    tenant: str
    status: str
    counts: AccountCounts = field(default_factory=AccountCounts)
    problems: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    requests: int = 0
    seconds: float = 0.0
    database_seconds: float = 0.0


@dataclass(frozen=True)
class AccountsReport:
    """What came of each connection."""

    connections: list[ConnectionSync]

    @property
    def exit_code(self) -> ExitCode:
        """The one status of all connections, or PARTIAL."""
        return exit_code_of(each.status for each in self.connections)

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)

    def story(self) -> Story:
        """Each connection's counts, and what could not be read of it."""
        return Story(
            headline=f"{len(self.connections)} connections looked at,"
            f" {sum(each.counts.changes for each in self.connections)} accounts new, changed or"
            " gone",
            changes=[
                {
                    "connection": each.connection,
                    "tenant": each.tenant,
                    "status": each.status,
                    **asdict(each.counts),
                    "requests": each.requests,
                }
                for each in self.connections
            ],
            problems=[
                {**problem, "what": f"{each.connection}: {problem['what']}"}
                for each in self.connections
                for problem in each.problems
            ],
        )


@warehouse_flow("sync-accounts")
def sync_accounts(
    connection: str | None = None,
    sync_type: str = AccountSyncType.MANUAL,
    accept_shrink: bool = False,
) -> AccountsReport:
    """Bring the accounts of connections up to date.

    Args:
        connection: this one only, by name or id.
        sync_type: who asks; a `scheduled` sync leaves out connections that are not due.
        accept_shrink: store a list also if more than half of a kind are gone.

    Raises:
        UsageError: nothing is connected, or our client is not set (exit 2).
    """
    client, box, kind = amazon_client(), SecretBox.from_settings(), AccountSyncType(sync_type)
    with connect(autocommit=True, application=APPLICATION, role="etl") as session:
        chosen = find_connections(session, connection)
        if kind is AccountSyncType.SCHEDULED:
            due = _due(session)
            chosen = [each for each in chosen if each.id in due]
        return AccountsReport(
            [_sync(session, each, kind, client, box, accept_shrink) for each in chosen]
        )


def _sync(
    session: psycopg.Connection[Any],
    connection: AmazonConnection,
    kind: AccountSyncType,
    client: Client,
    box: SecretBox,
    accept_shrink: bool,
) -> ConnectionSync:
    """One connection from begin to end; whatever happens to it is told and stops no other."""
    begun = time.perf_counter()
    try:
        with account_sync(session, connection, kind) as sync:
            reading = _Reading(sync, client, box)
            try:
                report = reading.run(accept_shrink)
            except WarehouseError as error:
                sync.fail(error, reading.requests)
                report = reading.report(AccountSyncStatus.FAILED)
                report.problems = [error.as_dict()]
            except BaseException as error:
                if not session.closed:
                    sync.fail(_unexpected(error), reading.requests)
                raise
    except Busy as error:
        return ConnectionSync(connection.name, connection.email, BUSY, problems=[error.as_dict()])
    report.seconds = time.perf_counter() - begun
    report.database_seconds = report.seconds - reading.remote_seconds
    return report


class _Reading:
    """A sync while it runs."""

    def __init__(self, sync: AccountSync, client: Client, box: SecretBox) -> None:
        self.sync = sync
        self.client = client
        self.requests = 0
        self.remote_seconds = 0.0
        patience = get_settings().amazon_patience
        self._patience = patience
        self._keeper = TokenKeeper(sync.connection.id, box, client, patience)
        self._ledger = RateLimits(sync.connection.user_id)

    def run(self, accept_shrink: bool) -> ConnectionSync:
        """Read everything, swap, end."""
        self._keeper.begin(self.sync.session)
        self._ledger.exchange(self.sync.session)
        begun = time.perf_counter()
        try:
            found = asyncio.run(self._read())
        finally:
            self.remote_seconds = time.perf_counter() - begun
            self._ledger.settle(self.sync.session)
        die_here_if_asked("accounts_fetched")
        status = _judge(found, was_empty=not self.sync.known)
        metadata = {
            "requests": self.requests,
            "duplicates": found.duplicates,
            "notes": found.notes[:100],
        }
        report = self.report(status)
        report.counts = self.sync.swap(found, status, metadata, accept_shrink=accept_shrink)
        die_here_if_asked("accounts_swapped")
        report.problems = [each.as_dict() for each in found.problems] + [
            {
                "where": f"{bad.kind} {bad.id or 'without a legible id'}",
                "what": "it could not be read",
                "why": bad.why,
                "next_step": "it stays as it was; update the warehouse if it comes again",
            }
            for bad in found.quarantined
        ]
        report.notes = found.notes
        return report

    async def _read(self) -> AccountList:
        session = ApiSession(self._patience, tokens=self._keeper, ledger=self._ledger)
        try:
            async with self._ledger.shared(), session:
                hosts = get_settings().amazon_ads_hosts
                ads = AmazonAds(session, self.client.client_id, hosts)
                # The database has nothing to do until Amazon has answered.
                rehearsal = asyncio.create_task(asyncio.to_thread(self._rehearse))
                try:
                    return await list_accounts(ads, self.sync.known)
                finally:
                    await rehearsal
        finally:
            self.requests = session.requests

    def _rehearse(self) -> None:
        self.sync.rehearse()
        self._ledger.rehearse(self.sync.session)

    def report(self, status: AccountSyncStatus) -> ConnectionSync:
        """The report of a sync that ended so."""
        connection = self.sync.connection
        return ConnectionSync(connection.name, connection.email, status, requests=self.requests)


def _judge(found: AccountList, *, was_empty: bool) -> AccountSyncStatus:
    """Whether all was read, or part; nothing at all is a failure and no empty list.

    Raises:
        ApiError: nothing could be read, or the login sees no account of any kind.
    """
    if found.problems and not (found.accounts or found.left):
        failed = found.problems[0].error
        failed.retry_at = found.retry_at()
        raise failed
    if was_empty and not (found.accounts or found.quarantined or found.left):
        raise ApiError(
            Failure.NOT_FOUND,
            "Amazon lists no account for this login",
            "ads accounts, DSP advertisers and AMC instances were all read, and all are empty",
            next_step="sign in with a login that has accounts: `warehouse connect amazon`",
        )
    return AccountSyncStatus.PARTIAL if found.has_problems() else AccountSyncStatus.SUCCESS


def _unexpected(error: BaseException) -> WarehouseError:
    return WarehouseError(
        "the sync was broken off",
        type(error).__name__,
        "run it again; if it stays, run it with --debug and report what it prints",
    )


def _due(session: psycopg.Connection[Any]) -> set[UUID]:
    """The connections with an account whose next sync is due, or without any account yet."""
    rows = session.execute(
        """
        select oauth_tokens.id
        from app.oauth_tokens
        left join app.user_accounts
            on
                oauth_tokens.id = user_accounts.connection_id
                and user_accounts.account_type <> 'dsp'
                and user_accounts.status <> 'disconnected'
        where oauth_tokens.is_active
        group by oauth_tokens.id
        having coalesce(min(user_accounts.next_sync_at), '-infinity') <= now()
        """
    )
    return {row[0] for row in rows}
