"""A sync of one account at a time, across processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from flows.errors import Busy

LOSE_AT_MOST_A_SYNC = "set synchronous_commit = off"
"""A server that crashes may forget the last sync, whole: the next one brings the same again."""


@contextmanager
def one_at_a_time(
    session: psycopg.Connection[Any], lock: str, *, of: str, log: str
) -> Iterator[None]:
    """Hold the lock of this name, until the body or the session ends.

    Args:
        session: in autocommit mode; from here on it does not wait for the disk.
        lock: a name that no other kind of work uses.
        of: what is synced, for the message.
        log: the table that shows since when.

    Raises:
        Busy: another session holds it.
    """
    session.execute(LOSE_AT_MOST_A_SYNC)
    row = session.execute(
        "select pg_try_advisory_lock(hashtextextended(%s, 0))", (lock,)
    ).fetchone()
    if row is None or not row[0]:
        raise Busy(
            f"a sync of {of} is already running",
            "another process holds its lock",
            f"wait for it; {log} shows since when it runs",
        )
    try:
        yield
    finally:
        if not session.closed:
            session.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (lock,))
