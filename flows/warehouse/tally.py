"""What became of the rows and slices of a run, and its place in `sqp.sync_log`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import psycopg


@dataclass
class Tally:
    """What became of the rows and slices of one period type.

    `records` counts inserted, updated, unchanged, skipped and failed rows, which make up the
    processed ones, and deleted ones, which were loaded before and not delivered again. `restated`
    are the first days of the periods of which something was replaced.
    """

    records: Counter[str] = field(default_factory=Counter)
    slices_changed: int = 0
    slices_unchanged: int = 0
    period_start: date | None = None
    period_end: date | None = None
    superseded_records: int = 0
    older_records: int = 0
    restated: set[date] = field(default_factory=set)

    @property
    def processed(self) -> int:
        """Every delivered row."""
        return self.records.total() - self.records["deleted"]

    def cover(self, period_start: date, period_end: date) -> None:
        """Widen the range of periods by this one."""
        self.period_start = min(self.period_start or period_start, period_start)
        self.period_end = max(self.period_end or period_end, period_end)

    def add(self, other: Tally) -> None:
        """Count what the other has counted as well."""
        self.records.update(other.records)
        self.slices_changed += other.slices_changed
        self.slices_unchanged += other.slices_unchanged
        self.superseded_records += other.superseded_records
        self.older_records += other.older_records
        self.restated |= other.restated
        if other.period_start and other.period_end:
            self.cover(other.period_start, other.period_end)


def add_to_log(
    connection: psycopg.Connection[Any],
    log_ids: Mapping[str, int],
    tallies: Mapping[str, Tally],
) -> None:
    """Add tallies, by period type, to the counts in their rows of `sqp.sync_log`."""
    for period_type, tally in sorted(tallies.items()):
        records = tally.records
        connection.execute(
            """
            update sqp.sync_log
            set
                records_processed = records_processed + %s,
                records_inserted = records_inserted + %s,
                records_updated = records_updated + %s,
                records_unchanged = records_unchanged + %s,
                records_skipped = records_skipped + %s,
                records_failed = records_failed + %s,
                records_deleted = records_deleted + %s,
                slices_changed = slices_changed + %s,
                slices_unchanged = slices_unchanged + %s,
                period_start = least(period_start, %s),
                period_end = greatest(period_end, %s)
            where id = %s
            """,
            (
                tally.processed,
                records["inserted"],
                records["updated"],
                records["unchanged"],
                records["skipped"],
                records["failed"],
                records["deleted"],
                tally.slices_changed,
                tally.slices_unchanged,
                tally.period_start,
                tally.period_end,
                log_ids[period_type],
            ),
        )
