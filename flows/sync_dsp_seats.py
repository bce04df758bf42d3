"""The seats of DSP advertisers brought up to date, and looked at.

page to the end → compare → swap → end, for each advertiser by itself. A read of some exchanges is
shown and never stored: it would pass for the whole.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg

from flows.clients.amazon_ads import SEATS_PAGE, AmazonAds, SeatsFound
from flows.clients.failures import ApiError
from flows.clients.http import ApiSession
from flows.clients.lwa import Client
from flows.errors import BUSY, Busy, ExitCode, UsageError, WarehouseError, exit_code_of
from flows.runs import Story, warehouse_flow
from flows.settings import get_settings
from flows.vocabulary.accounts import AccountSyncType
from flows.vocabulary.amc import ApiRegion
from flows.vocabulary.dsp import SeatsSyncStatus
from flows.warehouse.amazon_connections import TokenKeeper, amazon_client
from flows.warehouse.connection import connect
from flows.warehouse.faults import die_here_if_asked
from flows.warehouse.rate_limits import RateLimits
from flows.warehouse.seats import DspAccount, SeatCounts, SeatSync, find_dsp_accounts, seat_sync
from flows.warehouse.secrets import SecretBox

APPLICATION = "warehouse sync-seats"


@dataclass
class AdvertiserSync:
    """What came of one advertiser; `status` as in the log, or `busy`."""

    advertiser_id: str
    account_name: str
    tenant: str
    status: str
    counts: SeatCounts = field(default_factory=SeatCounts)
    requests: int = 0
    error: dict[str, str] | None = None


@dataclass(frozen=True)
class SeatsReport:
    """What came of each advertiser."""

    advertisers: list[AdvertiserSync]

    @property
    def exit_code(self) -> ExitCode:
        """The one status of all advertisers, or PARTIAL."""
        return exit_code_of(each.status for each in self.advertisers)

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)

    def story(self) -> Story:
        """Each advertiser's counts, and what could not be read."""
        return Story(
            headline=f"{len(self.advertisers)} advertisers looked at,"
            f" {sum(each.counts.changes for each in self.advertisers)} seats new, changed or gone",
            changes=[
                {
                    "advertiser": each.advertiser_id,
                    "name": each.account_name,
                    "tenant": each.tenant,
                    "status": each.status,
                    **asdict(each.counts),
                }
                for each in self.advertisers
            ],
            problems=[
                {**each.error, "what": f"{each.advertiser_id}: {each.error['what']}"}
                for each in self.advertisers
                if each.error
            ],
        )


@warehouse_flow("sync-dsp-seats")
def sync_dsp_seats(
    advertisers: list[str] | None = None,
    sync_type: str = AccountSyncType.MANUAL,
    accept_shrink: bool = False,
) -> SeatsReport:
    """Bring the seats of advertisers up to date.

    Args:
        advertisers: ids of DSP advertisers; without any, all that are connected.
        sync_type: who asks; a `scheduled` sync leaves out who is not due.
        accept_shrink: store an empty list also where there were seats.

    Raises:
        UsageError: no account has such an id, or our client is not set (exit 2).
    """
    client, box, kind = amazon_client(), SecretBox.from_settings(), AccountSyncType(sync_type)
    with connect(autocommit=True, application=APPLICATION, role="etl") as session:
        chosen = find_dsp_accounts(session, advertisers)
        if kind is AccountSyncType.SCHEDULED:
            chosen = [each for each in chosen if each.is_due]
        return SeatsReport([_sync(session, each, client, box, accept_shrink) for each in chosen])


def read_exchanges(advertiser: str, exchange_ids: list[str]) -> list[dict[str, Any]]:
    """The seats on some exchanges as Amazon has them now; nothing is stored.

    Raises:
        ApiError: they cannot be read.
    """
    client, box = amazon_client(), SecretBox.from_settings()
    with connect(autocommit=True, application=APPLICATION, role="etl") as session:
        account = find_dsp_accounts(session, [advertiser])[0]
        found, _ = _read(session, account, client, box, exchange_ids)
    return [seat.model_dump() | {"seat_id": seat.seat_id} for seat in found.items.good]


def _sync(
    session: psycopg.Connection[Any],
    account: DspAccount,
    client: Client,
    box: SecretBox,
    accept_shrink: bool,
) -> AdvertiserSync:
    """One advertiser from begin to end; whatever happens to it is told and stops no other."""
    report = AdvertiserSync(
        account.advertiser_id, account.account_name, account.tenant, SeatsSyncStatus.FAILED
    )
    request = {
        "endpoint": "POST /dsp/v1/seats/advertisers/current/list",
        "region": account.region,
        "profile_id": account.profile_id,
        "max_results": SEATS_PAGE,
    }
    try:
        with seat_sync(session, account, request) as sync:
            _sync_locked(sync, client, box, report, accept_shrink)
    except Busy as error:
        report.status, report.error = BUSY, error.as_dict()
    return report


def _sync_locked(
    sync: SeatSync, client: Client, box: SecretBox, report: AdvertiserSync, accept_shrink: bool
) -> None:
    response: dict[str, Any] = {}
    try:
        found, report.requests = _read(sync.session, sync.account, client, box, ())
        die_here_if_asked("seats_fetched")
        response = {
            "pages": found.pages,
            "requests": report.requests,
            "duplicates": found.items.duplicates,
            "quarantined": [asdict(each) for each in found.items.quarantined[:100]],
        }
        report.status, report.counts = sync.swap(found, response, accept_shrink=accept_shrink)
        die_here_if_asked("seats_swapped")
    except WarehouseError as error:
        if isinstance(error, ApiError):
            response |= {"status": error.status, "code": error.code, "request": error.request_id}
        sync.fail(error, response)
        report.error = error.as_dict()
        return
    except BaseException as error:
        if not sync.session.closed:
            told = WarehouseError(
                "the sync was broken off", type(error).__name__, "run it again with --debug"
            )
            sync.fail(told, response)
        raise
    if report.status == SeatsSyncStatus.PARTIAL:
        report.error = {
            "what": f"{len(found.items.quarantined)} seats could not be read",
            "why": found.items.quarantined[0].why,
            "next_step": "they stay as they were; update the warehouse if it comes again",
        }


def _read(
    session: psycopg.Connection[Any],
    account: DspAccount,
    client: Client,
    box: SecretBox,
    exchange_ids: list[str] | tuple[()],
) -> tuple[SeatsFound, int]:
    """The seats that Amazon has, and how many requests that took."""
    if account.connection_id is None:
        raise UsageError(
            f"the advertiser {account.advertiser_id} has no connection",
            "no login is known that sees it",
            "run `warehouse connect amazon`, then `warehouse sync-accounts`",
        )
    patience = get_settings().amazon_patience
    keeper = TokenKeeper(account.connection_id, box, client, patience)
    keeper.begin(session)
    ledger = RateLimits(account.user_id)
    ledger.exchange(session)

    async def read() -> tuple[SeatsFound, int]:
        api = ApiSession(patience, tokens=keeper, ledger=ledger)
        async with ledger.shared(), api:
            ads = AmazonAds(api, client.client_id, get_settings().amazon_ads_hosts)
            region = ApiRegion(account.region)
            found = await ads.dsp_seats(
                region, account.advertiser_id, account.profile_id, exchange_ids
            )
        return found, api.requests

    try:
        return asyncio.run(read())
    finally:
        ledger.settle(session)
