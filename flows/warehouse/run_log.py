"""The record of runs in `sqp.sync_log`: one run at a time, alive as long as it says so.

A run holds an advisory lock on the session that writes, so that the lock ends with its writer,
and keeps a heartbeat in its log rows. Who gets the lock closes the rows that dead runs left.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from flows.errors import Busy
from flows.settings import get_settings
from flows.sources.deliveries import PeriodType
from flows.warehouse.connection import connect
from flows.warehouse.dbt_build import BuildSummary
from flows.warehouse.faults import die_here_if_asked

LOCK_NAME = "warehouse.sync_sqp"
BESIDE_LOCK_NAME = "warehouse.sync_sqp beside"
"""Held in common by the sessions that write beside a run's own."""


class SyncType(StrEnum):
    """What `sqp.sync_log.sync_type` may say; the last one is of files nobody could read."""

    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"
    UNREADABLE = "unreadable"


class SyncStatus(StrEnum):
    """What `sqp.sync_log.sync_status` may say."""

    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"


SYNC_TYPES = {
    PeriodType.WEEK: SyncType.WEEKLY,
    PeriodType.MONTH: SyncType.MONTHLY,
    PeriodType.QUARTER: SyncType.QUARTERLY,
}

TARGET_TABLES = {
    SyncType.WEEKLY: "sqp.weekly_summary",
    SyncType.MONTHLY: "sqp.native_monthly_asin",
    SyncType.QUARTERLY: "sqp.native_quarterly_asin",
    SyncType.UNREADABLE: "none",
}


@dataclass
class Run:
    """One run that holds the lock.

    Attributes:
        connection: the session that holds the lock and writes.
        worker: host and process of the run.
        log_ids: the `sqp.sync_log.id` of each sync type it has begun.
        step: where it is.
        seconds: how long each step took.
        built: what the dbt build did, once it did.
    """

    run_id: uuid.UUID
    connection: psycopg.Connection[Any]
    worker: str
    log_ids: dict[SyncType, int] = field(default_factory=dict)
    step: str = "find"
    seconds: dict[str, float] = field(default_factory=dict)
    built: BuildSummary | None = None

    def begin(
        self, sync_types: Iterable[SyncType], *, source: str, account: str | None = None
    ) -> None:
        """Open the log rows of these sync types, where the run has none yet."""
        with self.connection.transaction():
            for sync_type in sorted(set(sync_types) - set(self.log_ids)):
                row = self.connection.execute(
                    """
                    insert into sqp.sync_log (
                        run_id, account_id, sync_type, source_table, target_table, step, worker,
                        lease_until
                    )
                    values (
                        %s, %s, %s, %s, %s, %s, %s,
                        clock_timestamp() + make_interval(secs => %s)
                    )
                    returning id
                    """,
                    (
                        self.run_id,
                        account,
                        sync_type,
                        source[:255],
                        TARGET_TABLES[sync_type],
                        self.step,
                        self.worker,
                        get_settings().lease_seconds,
                    ),
                ).fetchone()
                assert row is not None
                self.log_ids[sync_type] = row[0]

    def load_ids(self) -> dict[str, int]:
        """The log ids by period type: the `load_id` of the rows that this run lands."""
        return {
            str(period_type): self.log_ids[sync_type]
            for period_type, sync_type in SYNC_TYPES.items()
            if sync_type in self.log_ids
        }

    def first_log_id(self) -> int | None:
        """The log row that stands for the run where one row must."""
        return min(self.log_ids.values(), default=None)

    def candidate_types(self) -> set[SyncType]:
        """The sync types of slices that landed, in this run or a dead one, and await checks."""
        rows = self.connection.execute(
            "select distinct period_type from landing.sqp_slices where slice_status = 'landed'"
        ).fetchall()
        return {SYNC_TYPES[PeriodType(period_type)] for (period_type,) in rows}

    def follows_a_failure(self) -> bool:
        """Whether the run before this one did not get to its end, so that work may be left."""
        row = self.connection.execute(
            """
            select exists (
                select
                from sqp.sync_log
                where
                    sync_status = 'failed'
                    and coalesce(error_details ->> 'reason', '') not in ('unreadable', 'refused')
                    and run_id = (
                        select run_id
                        from sqp.sync_log
                        where run_id <> %s
                        order by id desc
                        limit 1
                    )
            )
            """,
            (self.run_id,),
        ).fetchone()
        return row is not None and bool(row[0])

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Take back, at the end, everything that is written within."""
        with self.connection.transaction(force_rollback=True):
            yield
        self.log_ids.clear()

    def at(self, step: str) -> None:
        """Say which step begins; with `FAULT_AT` set to it, die here."""
        self.step = step
        if self.log_ids:
            with self.connection.transaction():
                self.connection.execute(
                    """
                    update sqp.sync_log
                    set step = %s
                    where run_id = %s and sync_status = 'started'
                    """,
                    (step, self.run_id),
                )
        die_here_if_asked(step)

    def count_held(self) -> None:
        """Write down how many of the slices that this run landed are held back."""
        self.connection.execute(
            """
            update sqp.sync_log
            set slices_held = (
                select count(*)
                from landing.sqp_slices as slices
                where slices.load_id = sync_log.id and slices.slice_status = 'held'
            )
            where run_id = %s
            """,
            (self.run_id,),
        )

    def end(
        self,
        sync_type: SyncType,
        status: SyncStatus,
        *,
        message: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Close one log row; a row that is closed already stays as it is."""
        with self.connection.transaction():
            self.connection.execute(
                """
                update sqp.sync_log
                set
                    sync_status = %s,
                    completed_at = greatest(clock_timestamp(), started_at),
                    error_message = %s,
                    error_details = %s
                where id = %s and sync_status = 'started'
                """,
                (
                    status,
                    message,
                    Jsonb(dict(details)) if details else None,
                    self.log_ids[sync_type],
                ),
            )

    def complete(self) -> None:
        """Close every row that is still open as completed."""
        for sync_type in self.log_ids:
            self.end(sync_type, SyncStatus.COMPLETED)

    def fail(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        """Close every row that is still open as failed, with the reason."""
        for sync_type in self.log_ids:
            self.end(sync_type, SyncStatus.FAILED, message=message, details=details)


@contextmanager
def leased_run() -> Iterator[Run]:
    """The one run of the sync: the lock, a heartbeat, and the leftovers of dead runs closed.

    Raises:
        Busy: while another run holds the lock; it names that run and since when it runs.
    """
    connection = connect(autocommit=True, application="warehouse sync-sqp", role="etl")
    try:
        if not _locked(connection):
            raise _busy(connection)
        try:
            _await_sessions_of_dead_runs(connection)
            close_dead_runs(connection)
            run = Run(uuid.uuid4(), connection, f"{socket.gethostname()}:{os.getpid()}")
            with _heartbeat(run.run_id):
                try:
                    yield run
                except BaseException as error:
                    # A lost connection closes no row: the next run does, and the error is told.
                    with suppress(psycopg.Error):
                        run.fail(f"{type(error).__name__}: {error}", {"step": run.step})
                    raise
        finally:
            # A session that is closed keeps its lock until its server process has noticed.
            with suppress(psycopg.Error):
                connection.execute(
                    "select pg_advisory_unlock(hashtextextended(%s, 0))", (LOCK_NAME,)
                )
    finally:
        connection.close()


@contextmanager
def beside_the_run() -> Iterator[psycopg.Connection[Any]]:
    """Another session that writes for a run; the next run waits until it is gone.

    For a run that is killed loses its lock while the server may still be at work for this one.
    """
    connection = connect(autocommit=True, application="warehouse sync-sqp beside", role="etl")
    try:
        connection.execute(
            "select pg_advisory_lock_shared(hashtextextended(%s, 0))", (BESIDE_LOCK_NAME,)
        )
        yield connection
    finally:
        connection.close()


def _await_sessions_of_dead_runs(connection: psycopg.Connection[Any]) -> None:
    for function in ("pg_advisory_lock", "pg_advisory_unlock"):
        connection.execute(
            sql.SQL("select {}(hashtextextended(%s, 0))").format(sql.Identifier(function)),
            (BESIDE_LOCK_NAME,),
        )


def close_dead_runs(connection: psycopg.Connection[Any]) -> int:
    """Close the open rows of runs that are gone; the caller holds the lock, so none of them lives.

    Returns:
        how many rows were closed.
    """
    with connection.transaction():
        return connection.execute(
            """
            update sqp.sync_log
            set
                sync_status = 'failed',
                completed_at = greatest(clock_timestamp(), started_at),
                error_message = format(
                    'worker lost: %%s died in step %%s, last heard of at %%s UTC',
                    worker, step, to_char(heartbeat_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
                ),
                error_details = jsonb_build_object('reason', 'worker_lost', 'step', step)
            where sync_status = 'started'
            """,
            (),
        ).rowcount


def _locked(connection: psycopg.Connection[Any]) -> bool:
    with connection.transaction():
        row = connection.execute(
            "select pg_try_advisory_lock(hashtextextended(%s, 0))", (LOCK_NAME,)
        ).fetchone()
    return row is not None and bool(row[0])


def _busy(connection: psycopg.Connection[Any]) -> Busy:
    """Who holds the lock: from its log rows or, before it wrote any, from its session.

    Since when a session lives is told to its own login, which the role for loading is not.
    """
    connection.execute("reset role")
    row = connection.execute(
        """
        select
            coalesce(sync_log.worker, 'server process ' || activity.pid),
            coalesce(sync_log.started_at, activity.backend_start),
            coalesce(sync_log.step, 'find')
        from pg_locks as locks
        inner join pg_stat_activity as activity on locks.pid = activity.pid
        left join sqp.sync_log as sync_log on sync_log.sync_status = 'started'
        where
            locks.locktype = 'advisory'
            and locks.granted
            and locks.database = (select oid from pg_database where datname = current_database())
            and (locks.classid::bigint << 32) | locks.objid::bigint = hashtextextended(%s, 0)
        order by sync_log.started_at desc nulls last
        limit 1
        """,
        (LOCK_NAME,),
    ).fetchone()
    if row:
        worker, since, step = row
        known = f" since {since:%Y-%m-%d %H:%M:%S} UTC" if since else ""
        who = f"{worker} runs{known} and is at step `{step}`"
    else:
        who = "it ended this moment"
    return Busy(
        "a sync is already running", who, "wait for it; `warehouse status` shows how far it is"
    )


@contextmanager
def _heartbeat(run_id: uuid.UUID) -> Iterator[None]:
    """Renew the lease of a run from a thread and a session of its own."""
    settings = get_settings()
    done = threading.Event()

    def beat() -> None:
        while not done.wait(settings.heartbeat_seconds):
            # A beat that fails is made good by the next; the lock, not the lease, guards writes.
            with (
                suppress(psycopg.Error),
                connect(
                    autocommit=True, application="warehouse heartbeat", role="etl"
                ) as connection,
            ):
                connection.execute(
                    """
                    update sqp.sync_log
                    set
                        heartbeat_at = clock_timestamp(),
                        lease_until = clock_timestamp() + make_interval(secs => %s)
                    where run_id = %s and sync_status = 'started'
                    """,
                    (settings.lease_seconds, run_id),
                )

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)
