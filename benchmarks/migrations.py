"""A whole migration from nothing, and the policies that the tables' declarations ask for."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from benchmarks.server import fresh_database
from flows.warehouse import policies
from flows.warehouse.connection import connect
from flows.warehouse.migrate import current_revision

ROUNDS = 3


def run() -> dict[str, Any]:
    """Seconds of an empty database's making and upgrade, and of applying the declarations."""
    upgrades, declared = [], []
    revision, tables = None, 0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with fresh_database(protected=False):
            upgrades.append(time.perf_counter() - started)
            started = time.perf_counter()
            policies.ensure_policies()
            declared.append(time.perf_counter() - started)
            revision, tables = current_revision(), count_tables()
    return {
        "revision": revision,
        "tables": tables,
        "upgrade_s": median(upgrades),
        "policies_s": median(declared),
    }


def count_tables() -> int:
    """How many tables there are, without partitions."""
    with connect(autocommit=True) as connection:
        row = connection.execute(
            """
            select count(*)
            from pg_class as tables
            inner join pg_namespace as namespaces on tables.relnamespace = namespaces.oid
            where
                tables.relkind in ('r', 'p')
                and not tables.relispartition
                and namespaces.nspname in ('app', 'landing', 'sqp', 'reporting')
            """
        ).fetchone()
    assert row is not None
    return int(row[0])
