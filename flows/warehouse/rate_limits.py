"""Requests counted in `app.rate_limit_tracking`, and the waits that all processes keep.

A request is counted in memory and never waits for the database: counts are written in batches, from
a thread that holds nothing a request could need. What another process was asked to wait is read on
the way.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from flows.warehouse.connection import connect

SHARE_SECONDS = 0.25
"""How old the knowledge of other processes may be while requests are sent."""
APPLICATION = "warehouse rate limits"


@dataclass
class Count:
    """What happened to an endpoint since the last batch was written."""

    requests: int = 0
    refusals: int = 0
    refused_at: datetime | None = None
    retry_after: float | None = None


class RateLimits:
    """The ledger of one tenant's requests: one row per endpoint and hour (UTC)."""

    def __init__(self, user_id: UUID) -> None:
        self.user_id = user_id
        self._counts: dict[tuple[str, datetime], Count] = {}
        self._free_at: dict[str, float] = {}
        self._news = asyncio.Event()
        self._stops = False

    def wait_seconds(self, endpoint: str) -> float:
        """How long to wait before the next request to the endpoint."""
        return max(self._free_at.get(endpoint, 0.0) - time.monotonic(), 0.0)

    def sent(self, endpoint: str) -> None:
        """A request is about to be sent."""
        self._count(endpoint).requests += 1

    def refused(self, endpoint: str, retry_after: float | None) -> None:
        """The API has answered 429; where it says for how long, everybody waits."""
        count = self._count(endpoint)
        count.refusals += 1
        count.refused_at, count.retry_after = datetime.now(UTC), retry_after
        if retry_after is not None:
            self._wait_until(endpoint, retry_after)
        self._news.set()

    def exchange(self, connection: psycopg.Connection[Any]) -> None:
        """Write what was counted, and read what others were asked to wait.

        A batch that cannot be written is kept for the next one, and the error is raised.
        """
        self.settle(connection)
        self._read(connection)

    def settle(self, connection: psycopg.Connection[Any]) -> None:
        """Write what was counted, when no further request is to be sent."""
        batch, self._counts = self._counts, {}
        if not batch:
            return
        try:
            self._write(connection, batch)
        except BaseException:
            for key, count in self._counts.items():
                batch.setdefault(key, Count())
                batch[key] = _sum(batch[key], count)
            self._counts = batch
            raise

    def rehearse(self, connection: psycopg.Connection[Any]) -> None:
        """Write nothing: whatever a new session does once, it has then done before `settle`."""
        self._write(connection, {})

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Keep the database and the other processes informed for as long as requests are sent."""
        self._stops = False
        task = asyncio.create_task(self._share())
        try:
            yield
        finally:
            self._stops = True
            self._news.set()
            await task

    async def _share(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        try:
            while not self._stops:
                with suppress(TimeoutError):
                    async with asyncio.timeout(SHARE_SECONDS):
                        await self._news.wait()
                self._news.clear()
                if self._stops:
                    break
                # A batch that was not written is written by the next one; requests go on.
                with suppress(psycopg.Error):
                    if connection is None or connection.closed:
                        connection = await asyncio.to_thread(_open)
                    await asyncio.to_thread(self.exchange, connection)
        finally:
            if connection is not None:
                connection.close()

    def _count(self, endpoint: str) -> Count:
        window = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        return self._counts.setdefault((endpoint, window), Count())

    def _wait_until(self, endpoint: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._free_at[endpoint] = max(self._free_at.get(endpoint, 0.0), until)

    def _write(
        self, connection: psycopg.Connection[Any], batch: dict[tuple[str, datetime], Count]
    ) -> None:
        counted = [
            (
                endpoint,
                window,
                count.requests,
                count.refusals,
                count.refused_at,
                None if count.retry_after is None else math.ceil(count.retry_after),
            )
            for (endpoint, window), count in sorted(batch.items())
        ]
        connection.execute(
            """
            insert into app.rate_limit_tracking as held (
                user_id, endpoint, window_start, request_count, limit_hit_count, last_limit_hit,
                retry_after_seconds
            )
            select %s, counted.*
            from unnest(
                %s::text[], %s::timestamptz[], %s::bigint[], %s::bigint[], %s::timestamptz[],
                %s::bigint[]
            ) as counted (
                endpoint, window_start, request_count, limit_hit_count, last_limit_hit,
                retry_after_seconds
            )
            order by counted.endpoint, counted.window_start
            on conflict (user_id, endpoint, window_start) do update
            set
                request_count = held.request_count + excluded.request_count,
                limit_hit_count = held.limit_hit_count + excluded.limit_hit_count,
                last_limit_hit = greatest(held.last_limit_hit, excluded.last_limit_hit),
                retry_after_seconds = case
                    when excluded.last_limit_hit is null
                        or held.last_limit_hit > excluded.last_limit_hit
                        then held.retry_after_seconds
                    else excluded.retry_after_seconds
                end
            """,
            (self.user_id, *([row[column] for row in counted] for column in range(6))),
        )

    def _read(self, connection: psycopg.Connection[Any]) -> None:
        waits = connection.execute(
            """
            select
                endpoint,
                max(
                    extract(
                        epoch from last_limit_hit + make_interval(secs => retry_after_seconds)
                        - clock_timestamp()
                    )
                )::double precision
            from app.rate_limit_tracking
            where
                user_id = %s
                and last_limit_hit + make_interval(secs => retry_after_seconds) > clock_timestamp()
                and window_start > clock_timestamp() - interval '3 hours'
            group by endpoint
            """,
            (self.user_id,),
        )
        for endpoint, seconds in waits:
            self._wait_until(endpoint, seconds)


def _sum(first: Count, second: Count) -> Count:
    """Two batches of one endpoint and hour as one; the later refusal tells how long to wait."""
    later = second if second.refused_at else first
    return Count(
        first.requests + second.requests,
        first.refusals + second.refusals,
        later.refused_at,
        later.retry_after,
    )


def _open() -> psycopg.Connection[Any]:
    connection = connect(autocommit=True, application=APPLICATION, role="etl")
    connection.execute("set lock_timeout = '2s'")
    connection.execute("set statement_timeout = '5s'")
    return connection
