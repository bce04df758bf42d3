"""A sync of accounts in the database: one at a time per connection, begun, swapped, ended.

The swap is one transaction of a few statements, however many accounts there are. The lock of the
session, and not a time stamp, says that a sync lives: what a dead one left is closed by the next.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from flows.errors import WarehouseError
from flows.sources.amazon_accounts import AccountList, Known, as_rows
from flows.vocabulary.accounts import AccountSyncStatus, AccountSyncType, AccountType
from flows.warehouse.amazon_connections import AmazonConnection
from flows.warehouse.faults import die_here_if_asked
from flows.warehouse.one_at_a_time import one_at_a_time

INTERVAL = timedelta(hours=1)
"""How often accounts are synced when all is well."""
LONGEST_BACKOFF = timedelta(hours=6)
MOST_DETAILS = 100
"""How many problems a log row spells out; all are counted."""


@dataclass(frozen=True)
class AccountCounts:
    """What a swap did: `failed` accounts were left as they were."""

    found: int = 0
    new: int = 0
    changed: int = 0
    disconnected: int = 0
    failed: int = 0

    @property
    def changes(self) -> int:
        """Accounts that are not as they were."""
        return self.new + self.changed + self.disconnected


class HeldBack(WarehouseError):
    """What came is not stored, because it would take too much away."""


@dataclass
class AccountSync:
    """A sync that holds the lock of its connection."""

    session: psycopg.Connection[Any]
    connection: AmazonConnection
    history_id: UUID
    known: list[Known]

    def rehearse(self) -> None:
        """Store nothing: whatever a new session does once, it has then done before the swap."""
        with self.session.transaction():
            self._store_accounts(AccountList())
            self._store_instances(AccountList(), [])

    def swap(
        self,
        found: AccountList,
        status: AccountSyncStatus,
        metadata: Mapping[str, Any],
        *,
        accept_shrink: bool,
    ) -> AccountCounts:
        """Store what was found, and end the sync, in one transaction.

        Raises:
            HeldBack: more than half of the known accounts of a kind would go.
        """
        gone = [each for each in self.known if found.is_gone(each)]
        lost = [each.amazon_account_id for each in gone if each.status != "disconnected"]
        kinds = _shrinking(self.known, lost)
        if kinds and not accept_shrink:
            self._record_volume(failed=True, lost=len(lost), kinds=kinds)
            raise HeldBack(
                f"the list of accounts is held back: {', '.join(kinds)}",
                f"{len(lost)} of the accounts that were there would go, more than half of a kind",
                "look at Amazon's console; if they are really gone, run"
                " `warehouse sync-accounts --accept-shrink`",
            )
        with self.session.transaction():
            # The planner cannot know how many rows a document holds.
            self.session.execute("set local enable_nestloop = off")
            new, changed = self._store_accounts(found)
            if found.instances or any(each.account_type == AccountType.AMC for each in gone):
                self._store_instances(found, gone)
            failed = self._mark(found, lost)
            counts = AccountCounts(len(found.accounts), new, changed, len(lost), failed)
            self._record_volume(failed=False, lost=len(lost), kinds=[])
            die_here_if_asked("accounts_in_swap")
            self.end(
                status,
                counts,
                _details(found),
                {**metadata, **asdict(counts)},
            )
        return counts

    def end(
        self,
        status: AccountSyncStatus,
        counts: AccountCounts,
        details: Mapping[str, Any] | None,
        metadata: Mapping[str, Any],
    ) -> None:
        """Close the row of the attempt."""
        self.session.execute(
            """
            update app.account_sync_history
            set
                sync_status = %s,
                completed_at = greatest(clock_timestamp(), started_at),
                accounts_synced = %s,
                accounts_failed = %s,
                error_details = %s,
                metadata = metadata || %s
            where id = %s
            """,
            (
                status,
                counts.found,
                counts.failed,
                Jsonb(details) if details else None,
                Jsonb(dict(metadata)),
                self.history_id,
            ),
        )

    def fail(self, error: WarehouseError, requests: int) -> None:
        """End the sync as failed: no account is changed, each says why it was not synced."""
        with self.session.transaction():
            count = self.session.execute(
                f"""
                update app.user_accounts
                set {ATTEMPT_FAILED}
                where connection_id = %(connection)s and account_type <> 'dsp'
                """,  # noqa: S608
                {"connection": self.connection.id, "why": str(error), **backoff(error.retry_at)},
            ).rowcount
            counts = AccountCounts(failed=count)
            self.end(AccountSyncStatus.FAILED, counts, error.details(), {"requests": requests})

    def _store_accounts(self, found: AccountList) -> tuple[int, int]:
        row = self.session.execute(
            STORE_ACCOUNTS,
            {
                "rows": Jsonb(as_rows(found.accounts.values())),
                "user": self.connection.user_id,
                "connection": self.connection.id,
                "next": next_sync(),
            },
        ).fetchone()
        assert row is not None
        return row[0], row[1]

    def _store_instances(self, found: AccountList, gone: list[Known]) -> None:
        self.session.execute(
            STORE_INSTANCES,
            {
                "rows": Jsonb([asdict(each) for each in found.instances.values()]),
                "user": self.connection.user_id,
                "gone": [
                    each.amazon_account_id for each in gone if each.account_type == AccountType.AMC
                ],
            },
        )

    def _mark(self, found: AccountList, lost: list[str]) -> int:
        """Disconnect what is gone, and say of what was left why; the number of the latter."""
        if lost:
            self.session.execute(
                """
                update app.user_accounts
                set status = 'disconnected', last_sync_change_at = clock_timestamp()
                where user_id = %s and connection_id = %s and amazon_account_id = any(%s)
                """,
                (self.connection.user_id, self.connection.id, lost),
            )
        unsure = {
            each.amazon_account_id: "it could not be listed"
            for each in self.known
            if each.amazon_account_id not in found.accounts
            and each.status != "disconnected"
            and not found.is_gone(each)
        }
        reasons = unsure | found.left
        if not reasons:
            return 0
        self.session.execute(
            f"""
            with left_alone as materialized (
                select * from jsonb_each_text(%(reasons)s) as each (amazon_account_id, reason)
            )
            update app.user_accounts
            set {ATTEMPT_FAILED.replace("%(why)s", "left_alone.reason || %(why)s")}
            from left_alone
            where
                user_accounts.user_id = %(user)s
                and user_accounts.connection_id = %(connection)s
                and user_accounts.amazon_account_id = left_alone.amazon_account_id
                and user_accounts.account_type <> 'dsp'
            """,  # noqa: S608
            {
                "reasons": Jsonb(reasons),
                "user": self.connection.user_id,
                "connection": self.connection.id,
                "why": " → the next sync tries again",
                **backoff(found.retry_at()),
            },
        )
        return len(reasons)

    def _record_volume(self, *, failed: bool, lost: int, kinds: list[str]) -> None:
        """A quality row of each sync: whether the list of accounts is as long as is to be."""
        before = sum(each.status != "disconnected" for each in self.known)
        record_volume(
            self.session,
            check=f"account_list_volume {self.connection.id}",
            table="app.user_accounts",
            failed=failed,
            before=before,
            after=before - lost,
            message=f"more than half would go: {', '.join(kinds)}" if failed else None,
            about={"account_sync_history_id": str(self.history_id)},
        )


@contextmanager
def account_sync(
    session: psycopg.Connection[Any], connection: AmazonConnection, sync_type: AccountSyncType
) -> Iterator[AccountSync]:
    """The one sync of a connection's accounts; what dead ones left is closed.

    Args:
        session: in autocommit mode, as `etl`; it holds the lock.

    Raises:
        Busy: another sync of the connection is at work.
    """
    with one_at_a_time(
        session,
        f"warehouse.sync_accounts.{connection.id}",
        of=connection.name,
        log="app.account_sync_history",
    ):
        begun = session.execute(
            BEGIN,
            {
                "user": connection.user_id,
                "type": sync_type,
                "metadata": Jsonb(
                    {"connection_id": str(connection.id), "connection": connection.name}
                ),
                "connection": str(connection.id),
            },
        ).fetchone()
        assert begun is not None
        die_here_if_asked("accounts_begun")
        with session.cursor(row_factory=class_row(Known)) as cursor:
            known = cursor.execute(KNOWN, (connection.user_id, connection.id)).fetchall()
        yield AccountSync(session, connection, begun[0], known)


def record_volume(
    session: psycopg.Connection[Any],
    *,
    check: str,
    table: str,
    failed: bool,
    before: int,
    after: int,
    message: str | None,
    about: Mapping[str, str],
) -> None:
    """A row of `sqp.data_quality_checks` about how long a list is, and was."""
    session.execute(
        """
        insert into sqp.data_quality_checks (
            check_type, check_name, check_status, source_value, target_value, difference,
            table_name, check_message, check_metadata
        )
        values ('volume', %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            check,
            "failed" if failed else "passed",
            after,
            before,
            after - before,
            table,
            message,
            Jsonb(dict(about)),
        ),
    )


def _shrinking(known: list[Known], lost: list[str]) -> list[str]:
    """The kinds of which more than half would go."""
    gone = set(lost)
    shrinking = []
    for kind in AccountType:
        there = [
            each.amazon_account_id
            for each in known
            if each.account_type == kind and each.status != "disconnected"
        ]
        if 2 * sum(name in gone for name in there) > len(there):
            shrinking.append(str(kind))
    return shrinking


def _details(found: AccountList) -> dict[str, Any] | None:
    if not found.has_problems():
        return None
    return {
        "problems": [each.as_dict() for each in found.problems[:MOST_DETAILS]],
        "problem_count": len(found.problems),
        "quarantined": [asdict(each) for each in found.quarantined[:MOST_DETAILS]],
        "quarantined_count": len(found.quarantined),
        "next_step": "the next sync tries again; a problem says where somebody has to act",
        "left_as_they_were": dict(list(found.left.items())[:MOST_DETAILS]),
    }


def next_sync() -> datetime:
    """When a sync that went well is due again: not all of them at the same time."""
    return datetime.now(UTC) + INTERVAL * random.uniform(0.9, 1.1)  # noqa: S311


def backoff(retry_at: datetime | None) -> dict[str, Any]:
    """When an attempt that failed is tried again: the values of `ATTEMPT_FAILED`."""
    return {
        "retry_at": retry_at,
        "longest": LONGEST_BACKOFF,
        "jitter": random.uniform(0.75, 1.25),  # noqa: S311
    }


ATTEMPT_FAILED = """
    last_sync_attempt_at = clock_timestamp(),
    sync_status = 'failed',
    sync_error_message = %(why)s,
    sync_retry_count = sync_retry_count + 1,
    next_sync_at = greatest(
        clock_timestamp() + %(jitter)s * least(
            interval '1 minute' * power(2, least(sync_retry_count, 20)), %(longest)s::interval
        ),
        %(retry_at)s::timestamptz
    )
"""

BEGIN = """
with dead as (
    update app.account_sync_history
    set
        sync_status = 'failed',
        completed_at = greatest(clock_timestamp(), started_at),
        error_details = jsonb_build_object(
            'what', 'the sync was broken off',
            'why', 'its process is gone',
            'next_step', 'nothing to do: this sync does its work again',
            'failure', 'worker_lost'
        )
    where
        user_id = %(user)s
        and sync_status = 'started'
        and metadata ->> 'connection_id' = %(connection)s
)

insert into app.account_sync_history (user_id, sync_type, sync_status, metadata)
values (%(user)s, %(type)s, 'started', %(metadata)s)
returning id
"""

KNOWN = """
select
    amazon_account_id, account_type, status, profile_id, entity_id, marketplace_id,
    metadata ->> 'region' as region
from app.user_accounts
where user_id = %s and connection_id = %s
order by amazon_account_id
"""

STORE_ACCOUNTS = """
with delivered as materialized (
    select *
    from jsonb_to_recordset(%(rows)s::jsonb) as each (
        account_type text, amazon_account_id text, account_name text, status text,
        marketplace_id text, profile_id text, entity_id text, metadata jsonb
    )
),

stored as (
    insert into app.user_accounts as held (
        user_id, connection_id, account_name, amazon_account_id, account_type, status,
        marketplace_id, profile_id, entity_id, metadata, sync_status, next_sync_at,
        last_sync_attempt_at, last_synced_at, last_sync_change_at
    )
    select
        %(user)s,
        %(connection)s,
        delivered.account_name,
        delivered.amazon_account_id,
        delivered.account_type,
        coalesce(delivered.status, 'pending'),
        delivered.marketplace_id,
        delivered.profile_id,
        delivered.entity_id,
        delivered.metadata,
        case when delivered.account_type = 'dsp' then 'pending' else 'completed' end,
        case when delivered.account_type = 'dsp' then now() else %(next)s end,
        case when delivered.account_type <> 'dsp' then now() end,
        case when delivered.account_type <> 'dsp' then now() end,
        now()
    from delivered
    order by delivered.amazon_account_id
    on conflict (user_id, amazon_account_id) do update
    set
        connection_id = case
            when held.connection_id is null or held.status = 'disconnected'
                then excluded.connection_id
            else held.connection_id
        end,
        status = case
            when excluded.metadata ? 'unknown_status' and held.status <> 'disconnected'
                then held.status
            else excluded.status
        end,
        marketplace_id = excluded.marketplace_id,
        profile_id = excluded.profile_id,
        entity_id = excluded.entity_id,
        metadata = excluded.metadata,
        sync_status = case
            when held.account_type = 'dsp' then held.sync_status else excluded.sync_status
        end,
        sync_error_message = case when held.account_type = 'dsp' then held.sync_error_message end,
        sync_retry_count = case
            when held.account_type = 'dsp' then held.sync_retry_count else 0
        end,
        next_sync_at = case
            when held.account_type = 'dsp' then held.next_sync_at else excluded.next_sync_at
        end,
        last_sync_attempt_at = coalesce(excluded.last_sync_attempt_at, held.last_sync_attempt_at),
        last_synced_at = coalesce(excluded.last_synced_at, held.last_synced_at),
        last_sync_change_at = case
            when
                (held.marketplace_id, held.profile_id, held.entity_id, held.metadata)
                is distinct from (
                    excluded.marketplace_id, excluded.profile_id, excluded.entity_id,
                    excluded.metadata
                )
                or held.status = 'disconnected'
                or held.status <> excluded.status and not excluded.metadata ? 'unknown_status'
                then now()
            else held.last_sync_change_at
        end
    where held.account_type = excluded.account_type
    returning held.created_at >= now() as is_new, held.last_sync_change_at = now() as is_changed
)

select
    count(*) filter (where is_new) as new_accounts,
    count(*) filter (where is_changed and not is_new) as changed_accounts
from stored
"""

STORE_INSTANCES = """
with delivered as materialized (
    select *
    from jsonb_to_recordset(%(rows)s::jsonb) as each (
        account_id text, account_name text, marketplace_id text, region text, instance_id text,
        instance_name text, status text, remote_status text
    )
),

accounts as (
    insert into app.amc_accounts as held (
        user_id, account_id, account_name, marketplace_id, region
    )
    select distinct on (account_id, marketplace_id)
        %(user)s::uuid, account_id, account_name, marketplace_id, region
    from delivered
    order by account_id, marketplace_id, region
    on conflict (user_id, account_id, marketplace_id) do update
    set account_name = excluded.account_name, region = excluded.region
    returning held.id, held.account_id, held.marketplace_id
),

gone as (
    update app.amc_instances
    set status = 'disconnected'
    where user_id = %(user)s and instance_id = any(%(gone)s) and status <> 'disconnected'
)

insert into app.amc_instances as held (
    user_id, account_id, instance_id, instance_name, region, status, remote_status
)
select
    %(user)s::uuid, accounts.id, delivered.instance_id, delivered.instance_name,
    delivered.region, delivered.status, delivered.remote_status
from delivered
inner join accounts
    on
        delivered.account_id = accounts.account_id
        and delivered.marketplace_id = accounts.marketplace_id
order by delivered.instance_id
on conflict (user_id, instance_id) do update
set
    account_id = excluded.account_id,
    instance_name = excluded.instance_name,
    region = excluded.region,
    status = excluded.status,
    remote_status = excluded.remote_status
where
    (held.account_id, held.instance_name, held.region, held.status, held.remote_status)
    is distinct from (
        excluded.account_id, excluded.instance_name, excluded.region, excluded.status,
        excluded.remote_status
    )
"""
