"""The seats of a DSP advertiser in the database: one sync at a time, compared, swapped, ended.

A seat that is only seen again is not written: for one that is there, `last_synced_at` of the
account says when it was last seen. `seats_metadata` is written when something has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from flows.clients.amazon_ads import SeatsFound
from flows.errors import UsageError, WarehouseError
from flows.vocabulary.dsp import SeatsSyncStatus
from flows.warehouse.accounts import (
    ATTEMPT_FAILED,
    HeldBack,
    backoff,
    next_sync,
    record_volume,
)
from flows.warehouse.faults import die_here_if_asked
from flows.warehouse.one_at_a_time import one_at_a_time


@dataclass(frozen=True)
class DspAccount:
    """A DSP advertiser of a tenant, and through which connection it is seen."""

    id: UUID
    user_id: UUID
    advertiser_id: str
    account_name: str
    tenant: str
    profile_id: str | None
    region: str
    connection_id: UUID | None
    is_due: bool


@dataclass(frozen=True)
class SeatCounts:
    """What a sync found, and what of it was not so before."""

    seats: int = 0
    exchanges: int = 0
    new: int = 0
    changed: int = 0
    removed: int = 0

    @property
    def changes(self) -> int:
        """Seats that are not as they were."""
        return self.new + self.changed + self.removed


@dataclass
class SeatSync:
    """A sync that holds the lock of its account."""

    session: psycopg.Connection[Any]
    account: DspAccount
    log_id: UUID

    def swap(
        self, found: SeatsFound, response: Mapping[str, Any], *, accept_shrink: bool
    ) -> tuple[SeatsSyncStatus, SeatCounts]:
        """Compare, store what differs, and end the sync, in one transaction.

        A seat that could not be read makes the sync partial: then no seat counts as removed.

        Raises:
            HeldBack: there were seats, and now there is none.
        """
        seats, is_whole = found.items.good, not found.items.quarantined
        status = SeatsSyncStatus.SUCCESS if is_whole else SeatsSyncStatus.PARTIAL
        held = self._held()
        self._record_volume(held, len(seats), failed=held > 0 and not seats and not accept_shrink)
        if held and not seats and not accept_shrink:
            raise HeldBack(
                "the list of seats is held back",
                f"it is empty, and there were {held:,} seats",
                "look at Amazon's console; if they are really gone, run"
                f" `warehouse sync-seats {self.account.advertiser_id} --accept-shrink`",
            )
        with self.session.transaction():
            # The planner cannot know how many rows a document holds.
            self.session.execute("set local enable_nestloop = off")
            self.session.execute(
                SWAP,
                {
                    "rows": Jsonb(
                        [
                            {
                                "exchange_id": seat.exchange_id,
                                "exchange_name": seat.exchange_name,
                                "seat_id": seat.seat_id,
                                "deal_creation_id": seat.deal_creation_id,
                                "spend_tracking_id": seat.spend_tracking_id,
                            }
                            for seat in seats
                        ]
                    ),
                    "user": self.account.user_id,
                    "account": self.account.id,
                    "log": self.log_id,
                    "whole": is_whole,
                },
            )
            changes = self._changes()
            counts = SeatCounts(
                len(seats),
                len({seat.exchange_id for seat in seats}),
                changes.get("new", 0),
                changes.get("changed", 0),
                changes.get("removed", 0),
            )
            die_here_if_asked("seats_in_swap")
            self._note_on_account(status, is_changed=bool(changes))
            self._end(status, counts, None, response)
        return status, counts

    def fail(self, error: WarehouseError, response: Mapping[str, Any]) -> None:
        """End the sync as failed: seats and document stay as they were."""
        with self.session.transaction():
            self.session.execute(
                f"update app.user_accounts set {ATTEMPT_FAILED} where id = %(account)s",  # noqa: S608
                {"account": self.account.id, "why": str(error), **backoff(error.retry_at)},
            )
            self._end(SeatsSyncStatus.FAILED, SeatCounts(), str(error), response)

    def _held(self) -> int:
        row = self.session.execute(
            "select count(*) from app.dsp_seats"
            " where user_account_id = %s and user_id = %s and removed_at is null",
            (self.account.id, self.account.user_id),
        ).fetchone()
        assert row is not None
        return int(row[0])

    def _changes(self) -> dict[str, int]:
        """How many seats are new, changed and removed, as the history has just recorded."""
        return dict(
            self.session.execute(
                "select change_type, count(*) from app.dsp_seats_history"
                " where sync_log_id = %s and user_id = %s group by change_type",
                (self.log_id, self.account.user_id),
            ).fetchall()
        )

    def _note_on_account(self, status: SeatsSyncStatus, *, is_changed: bool) -> None:
        """The times of the account, and its document where that says something else now."""
        is_success = status is SeatsSyncStatus.SUCCESS
        self.session.execute(
            """
            update app.user_accounts
            set
                seats_metadata = case
                    when %(changed)s or seats_metadata ->> 'sync_status' <> %(status)s
                        then app.seats_metadata_of(id, %(status)s, clock_timestamp())
                    else seats_metadata
                end,
                last_sync_attempt_at = clock_timestamp(),
                last_synced_at = case
                    when %(success)s then clock_timestamp() else last_synced_at
                end,
                sync_status = case when %(success)s then 'completed' else 'partial' end,
                sync_error_message = case
                    when not %(success)s then 'some seats could not be read: see the sync log'
                end,
                sync_retry_count = case when %(success)s then 0 else sync_retry_count + 1 end,
                next_sync_at = %(next)s
            where id = %(account)s
            """,
            {
                "changed": is_changed,
                "status": status,
                "success": is_success,
                "account": self.account.id,
                "next": next_sync(),
            },
        )

    def _end(
        self,
        status: SeatsSyncStatus,
        counts: SeatCounts,
        message: str | None,
        response: Mapping[str, Any],
    ) -> None:
        changes = {"new": counts.new, "changed": counts.changed, "removed": counts.removed}
        self.session.execute(
            """
            update app.dsp_seats_sync_log
            set
                sync_status = %s,
                completed_at = greatest(clock_timestamp(), created_at),
                seats_retrieved = %s,
                exchanges_count = %s,
                error_message = %s,
                response_metadata = %s
            where id = %s
            """,
            (
                status,
                counts.seats,
                counts.exchanges,
                message,
                Jsonb({**response, "changes": changes}),
                self.log_id,
            ),
        )

    def _record_volume(self, before: int, after: int, *, failed: bool) -> None:
        record_volume(
            self.session,
            check=f"seats_volume {self.account.id}",
            table="app.dsp_seats",
            failed=failed,
            before=before,
            after=after,
            message="all seats would go" if failed else None,
            about={"dsp_seats_sync_log_id": str(self.log_id)},
        )


def find_dsp_accounts(
    session: psycopg.Connection[Any], advertiser_ids: list[str] | None = None
) -> list[DspAccount]:
    """DSP advertisers that are connected, or those of these ids.

    Raises:
        UsageError: an id is none of an account's.
    """
    with session.cursor(row_factory=class_row(DspAccount)) as cursor:
        found = cursor.execute(
            """
            select
                accounts.id, accounts.user_id, accounts.amazon_account_id as advertiser_id,
                accounts.account_name, users.email as tenant, accounts.profile_id,
                coalesce(accounts.metadata ->> 'region', 'NA') as region,
                accounts.connection_id,
                coalesce(accounts.next_sync_at <= clock_timestamp(), true) as is_due
            from app.user_accounts as accounts
            inner join app.users on accounts.user_id = users.id
            where
                accounts.account_type = 'dsp'
                and accounts.deleted_at is null
                and (
                    case
                        when %(ids)s::text[] is null then accounts.status <> 'disconnected'
                        else accounts.amazon_account_id = any(%(ids)s)
                    end
                )
            order by users.email, accounts.amazon_account_id
            """,
            {"ids": advertiser_ids},
        ).fetchall()
    missing = sorted(set(advertiser_ids or ()) - {each.advertiser_id for each in found})
    if missing:
        raise UsageError(
            f"there is no DSP advertiser {', '.join(missing)}",
            "no connected account has that id",
            "run `warehouse sync-accounts`, or look into app.user_accounts",
        )
    return found


@contextmanager
def seat_sync(
    session: psycopg.Connection[Any], account: DspAccount, request: Mapping[str, Any]
) -> Iterator[SeatSync]:
    """The one sync of an account's seats; what a dead one left is closed.

    Args:
        session: in autocommit mode, as `etl`; it holds the lock.
        request: what is asked for, without credentials.

    Raises:
        Busy: another sync of the account is at work.
    """
    with one_at_a_time(
        session,
        f"warehouse.sync_dsp_seats.{account.id}",
        of=f"the seats of {account.advertiser_id}",
        log="app.dsp_seats_sync_log",
    ):
        session.execute(
            """
            update app.dsp_seats_sync_log
            set
                sync_status = 'failed',
                completed_at = greatest(clock_timestamp(), created_at),
                error_message = 'the sync was broken off: its process is gone'
                    ' → nothing to do: this sync does its work again'
            where user_account_id = %s and sync_status in ('pending', 'in_progress')
            """,
            (account.id,),
        )
        begun = session.execute(
            """
            insert into app.dsp_seats_sync_log (
                user_id, user_account_id, advertiser_id, sync_status, request_metadata
            )
            values (%s, %s, %s, 'in_progress', %s)
            returning id
            """,
            (account.user_id, account.id, account.advertiser_id, Jsonb(dict(request))),
        ).fetchone()
        assert begun is not None
        die_here_if_asked("seats_begun")
        yield SeatSync(session, account, begun[0])


@dataclass(frozen=True)
class SeatsView:
    """What the warehouse knows of an advertiser's seats.

    Attributes:
        seats: those that are there, and those that went with the last change; `state` says which
            are `new`, `changed` or `gone` since that change.
        history: the newest changes.
        syncs: the newest attempts.
    """

    account: dict[str, Any]
    seats: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    syncs: list[dict[str, Any]] = field(default_factory=list)


def view_seats(session: psycopg.Connection[Any], account: DspAccount, limit: int) -> SeatsView:
    """The seats of an account with what is new, changed and gone, and the history."""
    values = {"account": account.id, "limit": limit}
    with session.cursor(row_factory=dict_row) as cursor:
        about = cursor.execute(ABOUT, values).fetchone()
        return SeatsView(
            about or {},
            cursor.execute(SEATS, values).fetchall(),
            cursor.execute(HISTORY, values).fetchall(),
            cursor.execute(SYNCS, values).fetchall(),
        )


SWAP = """
with delivered as materialized (
    select *
    from jsonb_to_recordset(%(rows)s::jsonb) as each (
        exchange_id text, exchange_name text, seat_id text, deal_creation_id text,
        spend_tracking_id text
    )
),

removed as (
    update app.dsp_seats
    set
        removed_at = clock_timestamp(),
        last_seen_at = greatest(dsp_seats.last_seen_at, user_accounts.last_synced_at),
        sync_log_id = %(log)s
    from app.user_accounts
    where
        %(whole)s
        and user_accounts.id = %(account)s
        and dsp_seats.user_account_id = %(account)s
        and dsp_seats.removed_at is null
        and not exists (
            select
            from delivered
            where
                delivered.exchange_id = dsp_seats.exchange_id
                and delivered.seat_id = dsp_seats.seat_id
        )
)

insert into app.dsp_seats as held (
    user_id, user_account_id, sync_log_id, exchange_id, exchange_name, seat_id,
    deal_creation_id, spend_tracking_id
)
select
    %(user)s, %(account)s, %(log)s, delivered.exchange_id, delivered.exchange_name,
    delivered.seat_id, delivered.deal_creation_id, delivered.spend_tracking_id
from delivered
order by delivered.exchange_id, delivered.seat_id
on conflict (user_account_id, exchange_id, seat_id) do update
set
    exchange_name = excluded.exchange_name,
    deal_creation_id = excluded.deal_creation_id,
    spend_tracking_id = excluded.spend_tracking_id,
    last_seen_at = greatest(clock_timestamp(), held.first_seen_at),
    removed_at = null,
    sync_log_id = excluded.sync_log_id
where
    held.removed_at is not null
    or (held.exchange_name, held.deal_creation_id, held.spend_tracking_id)
    is distinct from (
        excluded.exchange_name, excluded.deal_creation_id, excluded.spend_tracking_id
    )
"""

ABOUT = """
select
    amazon_account_id as advertiser_id, account_name, status, sync_status, sync_error_message,
    last_sync_attempt_at, last_synced_at, last_sync_change_at, next_sync_at
from app.user_accounts
where id = %(account)s
"""

SEATS = """
with last_change as (
    select sync_log_id
    from app.dsp_seats_history
    where user_account_id = %(account)s
    order by id desc
    limit 1
)

select
    seats.exchange_id, seats.exchange_name, seats.seat_id, seats.deal_creation_id,
    seats.spend_tracking_id,
    case changes.change_type when 'removed' then 'gone' else changes.change_type end as state,
    seats.first_seen_at,
    case
        when seats.removed_at is null then greatest(seats.last_seen_at, accounts.last_synced_at)
        else seats.last_seen_at
    end as last_seen_at,
    seats.removed_at
from app.dsp_seats as seats
inner join app.user_accounts as accounts on seats.user_account_id = accounts.id
left join app.dsp_seats_history as changes
    on
        seats.user_account_id = changes.user_account_id
        and seats.exchange_id = changes.exchange_id
        and seats.seat_id = changes.seat_id
        and changes.sync_log_id = (select sync_log_id from last_change)
where
    seats.user_account_id = %(account)s
    and (seats.removed_at is null or changes.change_type = 'removed')
order by seats.exchange_name, seats.exchange_id, seats.seat_id
"""

HISTORY = """
select
    observed_at, change_type, exchange_name, seat_id, previous_exchange_name,
    previous_spend_tracking_id, spend_tracking_id
from app.dsp_seats_history
where user_account_id = %(account)s
order by id desc
limit %(limit)s
"""

SYNCS = """
select created_at, sync_status, seats_retrieved, exchanges_count, error_message
from app.dsp_seats_sync_log
where user_account_id = %(account)s
order by created_at desc
limit %(limit)s
"""
