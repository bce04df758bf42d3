"""Rows that were refused: counted by slice, and kept for whoever will mend them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import psycopg

from flows.sources.deliveries import Delivery, RejectedRow, SliceKey


class Refusals:
    """The refused rows of a run.

    Args:
        deliveries: by delivery number.
        log_ids: the `sqp.sync_log.id` of each period type.
    """

    def __init__(self, deliveries: Sequence[Delivery], log_ids: Mapping[str, int]) -> None:
        self._deliveries = deliveries
        self._log_ids = log_ids
        self._counts: Counter[tuple[int, str | None, date | None, str | None]] = Counter()

    def keep(
        self,
        connection: psycopg.Connection[Any],
        delivery_number: int,
        rejected: Sequence[RejectedRow],
    ) -> None:
        """Keep refused rows of a delivery."""
        if not rejected:
            return
        delivery = self._deliveries[delivery_number]
        self._counts.update(
            (delivery_number, row.account_id, row.period_start, row.subject) for row in rejected
        )
        write_rejected_rows(connection, self._log_ids[delivery.period_type], delivery, rejected)

    def of(self, delivery_number: int, key: SliceKey) -> int:
        """How many rows of this slice were refused in that delivery."""
        return self._counts[delivery_number, key.account_id, key.period_start, key.subject]

    def by_period_type(self, failed: Collection[int]) -> Iterator[tuple[str, int]]:
        """Counts of refused rows, without those of deliveries that broke."""
        for (number, *_), count in self._counts.items():
            if number not in failed:
                yield self._deliveries[number].period_type, count


def write_rejected_rows(
    connection: psycopg.Connection[Any],
    load_id: int,
    delivery: Delivery,
    rejected: Sequence[RejectedRow],
) -> None:
    """Store refused rows; a row that was refused before, the same way, is not stored again."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into landing.rejected_rows (
                reject_digest, load_id, account_id, marketplace_id, report_view, period_type,
                period_start, subject, source_file, source_line, reason_code, reason,
                delivered_text
            )
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            on conflict (reject_digest) do nothing
            """,
            [
                (
                    _reject_digest(row),
                    load_id,
                    row.account_id,
                    delivery.marketplace_id,
                    delivery.report_view,
                    delivery.period_type,
                    row.period_start,
                    row.subject,
                    row.source_file,
                    row.line,
                    row.reason_code,
                    row.reason,
                    row.delivered_text,
                )
                for row in rejected
            ],
        )


def _reject_digest(row: RejectedRow) -> bytes:
    parts = (row.source_file, str(row.line), row.reason_code, row.delivered_text)
    return hashlib.sha256("\x1f".join(parts).encode(errors="surrogatepass")).digest()
