"""What the warehouse remembers of a table in BigQuery: the fingerprint of each slice it loaded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from flows.sources.bigquery import Comparison, Fingerprint, SliceName
from flows.sources.bigquery_partitions import Compared
from flows.warehouse.slice_register import columns_of

Connection = psycopg.Connection[Any]


class LoadedSlices:
    """The memory of one table and marketplace, as `flows.sources.bigquery.Memory` asks for it."""

    def __init__(self, connection: Connection, source: str, marketplace_id: str) -> None:
        self._connection = connection
        self._key = (source, marketplace_id)

    def newest_week(self) -> date | None:
        """The first day of the newest week that was loaded."""
        row = self._connection.execute(
            """
            select max(period_start)
            from landing.bigquery_slices
            where source_table = %s and marketplace_id = %s
            """,
            self._key,
        ).fetchone()
        return row[0] if row else None

    def slices_since(self, first_day: date) -> Mapping[SliceName, Fingerprint]:
        """What was loaded of each slice."""
        rows = self._connection.execute(
            """
            select account_id, period_start, subject, row_count, low_sum, high_sum
            from landing.bigquery_slices
            where source_table = %s and marketplace_id = %s and period_start >= %s
            """,
            (*self._key, first_day),
        ).fetchall()
        return {SliceName(*row[:3]): Fingerprint(*row[3:]) for row in rows}

    def last_comparison(self) -> Compared | None:
        """What the last sync knew of the table, if that came through."""
        row = self._connection.execute(
            """
            select sync_status = 'completed', sync_metadata
            from sqp.sync_log
            where
                sync_metadata ->> 'slices_of' = %s
                and sync_metadata ->> 'marketplace_id' = %s
            order by id desc
            limit 1
            """,
            self._key,
        ).fetchone()
        if row is None or not row[0]:
            return None
        known = row[1]
        modified, whole_on = known["table_modified"], known.get("compared_whole_on")
        return Compared(
            first_day=date.fromisoformat(known["compared_from"]),
            is_whole=not known["weeks_held_back"],
            table_modified=datetime.fromisoformat(modified) if modified else None,
            partitions=known.get("partitions"),
            held_weeks=frozenset(map(date.fromisoformat, known.get("held_weeks", ()))),
            whole_on=date.fromisoformat(whole_on) if whole_on else date.min,
        )


def remember(connection: Connection, comparison: Comparison) -> None:
    """Note that what changed is landed, and forget what is gone; one transaction.

    A run that dies before reads the same slices again, and landing finds them as they are.
    """
    key = (comparison.source, comparison.marketplace_id)
    gone = comparison.gone()
    loaded = [(*name, *print_) for name, print_ in comparison.changed().items()]
    with connection.transaction():
        if gone:
            connection.execute(
                """
                delete from landing.bigquery_slices as slices
                using unnest(%s::text[], %s::date[], %s::text[])
                    as gone (account_id, period_start, subject)
                where
                    slices.source_table = %s and slices.marketplace_id = %s
                    and slices.account_id = gone.account_id
                    and slices.period_start = gone.period_start
                    and slices.subject = gone.subject
                """,
                (*columns_of(gone), *key),
            )
        if loaded:
            connection.execute(
                """
                insert into landing.bigquery_slices (
                    source_table, marketplace_id, job_id, account_id, period_start, subject,
                    row_count, low_sum, high_sum
                )
                select %s, %s, %s, came.*
                from unnest(
                    %s::text[], %s::date[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[]
                ) as came
                on conflict (account_id, source_table, marketplace_id, period_start, subject)
                do update set
                    row_count = excluded.row_count,
                    low_sum = excluded.low_sum,
                    high_sum = excluded.high_sum,
                    job_id = excluded.job_id,
                    read_at = clock_timestamp()
                """,
                (*key, comparison.job_id, *columns_of(loaded)),
            )


def write_metadata(connection: Connection, log_id: int, comparison: Comparison) -> None:
    """Write down what was compared and read, and what that cost."""
    with connection.transaction():
        connection.execute(
            """
            update sqp.sync_log
            set sync_metadata = coalesce(sync_metadata, '{}') || %s
            where id = %s
            """,
            (Jsonb(comparison.metadata), log_id),
        )


def write_checks(connection: Connection, log_id: int, comparison: Comparison) -> None:
    """Record weeks that are held back as failed checks, and rows without a date as a warning."""
    checks: list[tuple[str, str, str, int, int, str, str | None]] = [
        (
            "volume",
            "bigquery_rows_kept",
            "failed",
            loss.rows_before,
            loss.rows_now,
            f"{error.what}: {error.why}",
            str(loss.period_start) if loss.period_start else None,
        )
        for loss, error in zip(comparison.losses, comparison.held_back(), strict=True)
    ]
    if undated := comparison.metadata.get("rows_without_date"):
        told = f"{undated:,} rows have no Date: they belong to no week and are not read"
        checks.append(("null_check", "bigquery_date_is_filled", "warning", undated, 0, told, None))
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into sqp.data_quality_checks (
                sync_log_id, check_type, check_name, check_status, source_value, target_value,
                difference, table_name, check_message, check_metadata
            )
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            [
                (
                    log_id,
                    check_type,
                    check_name,
                    status,
                    source,
                    target,
                    target - source,
                    comparison.bigquery.table[:255],
                    message,
                    Jsonb({"period_start": week, "job_id": comparison.job_id}),
                )
                for check_type, check_name, status, source, target, message, week in checks
            ],
        )
