"""The register of slices: which load of a slice came last, and which one is in force.

A slice's newest load is a *candidate* until its checks are done: `accept` puts it in force and
removes the load before, `hold` leaves the load before in force. What each load was, and what became
of it, stays in `landing.slice_loads`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from flows.sources.deliveries import ReportView, SliceKey

Connection = psycopg.Connection[Any]


class KnownSlice(NamedTuple):
    """What the register holds of a slice."""

    slice_id: int
    slice_digest: bytes
    load_id: int
    accepted_load_id: int | None
    delivered_at: datetime
    source_file: str
    slice_status: str
    rejected_count: int

    @property
    def is_all_there_is_and_held(self) -> bool:
        """Whether nothing is in force, and what came last is held back."""
        return self.accepted_load_id is None and self.slice_status == "held"


class SliceLoad(NamedTuple):
    """One load of a slice, as its landing table keys it."""

    report_view: str
    period_type: str
    period_start: date
    slice_id: int
    load_id: int


class OwnCounts(NamedTuple):
    """A slice's own counts, summed over its queries: what a restatement changed shows in them."""

    impressions: int
    clicks: int
    cart_adds: int
    purchases: int


class NewLoad(NamedTuple):
    """A load to put into the register as a slice's candidate."""

    key: SliceKey
    load_id: int
    slice_digest: bytes
    row_count: int
    rejected_count: int
    source_file: str
    delivered_at: datetime
    own_counts: OwnCounts


def landing_table(report_view: str) -> sql.Identifier:
    """The table that holds the rows of one report view."""
    return sql.Identifier("landing", f"sqp_{ReportView(report_view)}")


def look_up(connection: Connection, keys: Sequence[SliceKey]) -> dict[SliceKey, KnownSlice]:
    """What the register holds of these slices; unknown ones are absent."""
    if not keys:
        return {}
    found = connection.execute(
        """
        select wanted.position, slices.slice_id, slices.slice_digest, slices.load_id,
            slices.accepted_load_id, slices.delivered_at, slices.source_file,
            slices.slice_status, slices.rejected_count
        from unnest(
            %s::text[], %s::text[], %s::text[], %s::text[], %s::date[], %s::date[], %s::text[]
        ) with ordinality as wanted (
            account_id, marketplace_id, report_view, period_type, period_start, period_end,
            subject, position
        )
        inner join landing.sqp_slices as slices using (
            account_id, marketplace_id, report_view, period_type, period_start, subject
        )
        """,
        columns_of(keys),
    ).fetchall()
    return {keys[position - 1]: KnownSlice(*values) for position, *values in found}


def register(connection: Connection, loads: Sequence[NewLoad]) -> dict[SliceKey, int]:
    """Make each load its slice's candidate; returns the slices' ids, new ones in given order."""
    found = connection.execute(
        """
        with came as materialized (
            select *
            from unnest(
                %s::text[], %s::text[], %s::text[], %s::text[], %s::date[], %s::date[], %s::text[],
                %s::bigint[], %s::bytea[], %s::bigint[], %s::bigint[], %s::text[],
                %s::timestamptz[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]
            ) as came (
                account_id, marketplace_id, report_view, period_type, period_start, period_end,
                subject, load_id, slice_digest, row_count, rejected_count, source_file,
                delivered_at, own_impressions, own_clicks, own_cart_adds, own_purchases
            )
        ),

        registered as (
            insert into landing.sqp_slices (
                account_id, marketplace_id, report_view, period_type, period_start, period_end,
                subject, load_id, slice_digest, row_count, rejected_count, source_file,
                delivered_at, loaded_at
            )
            select
                account_id, marketplace_id, report_view, period_type, period_start, period_end,
                subject, load_id, slice_digest, row_count, rejected_count, source_file,
                delivered_at, clock_timestamp()
            from came
            on conflict on constraint sqp_slices_key do update set
                load_id = excluded.load_id,
                slice_digest = excluded.slice_digest,
                row_count = excluded.row_count,
                rejected_count = excluded.rejected_count,
                source_file = excluded.source_file,
                delivered_at = excluded.delivered_at,
                loaded_at = excluded.loaded_at,
                slice_status = 'landed',
                held_reason = null
            returning slice_id, account_id, marketplace_id, report_view, period_type,
                period_start, period_end, subject, loaded_at
        ),

        noted as (
            insert into landing.slice_loads (
                account_id, slice_id, load_id, source_file, row_count, rejected_count,
                own_impressions, own_clicks, own_cart_adds, own_purchases, slice_digest,
                delivered_at, loaded_at
            )
            select
                came.account_id, registered.slice_id, came.load_id, came.source_file,
                came.row_count, came.rejected_count, came.own_impressions, came.own_clicks,
                came.own_cart_adds, came.own_purchases, came.slice_digest, came.delivered_at,
                registered.loaded_at
            from came
            inner join registered using (
                account_id, marketplace_id, report_view, period_type, period_start, subject
            )
        )

        select slice_id, account_id, marketplace_id, report_view, period_type, period_start,
            period_end, subject
        from registered
        """,
        columns_of([(*load.key, *load[1:-1], *load.own_counts) for load in loads]),
    ).fetchall()
    return {SliceKey(*key): slice_id for slice_id, *key in found}


def note_arrivals(connection: Connection, arrivals: Sequence[tuple[int, datetime, str]]) -> None:
    """Move `delivered_at` of slices that came again unchanged: (slice id, when, file)."""
    if arrivals:
        connection.execute(
            """
            update landing.sqp_slices as slices
            set delivered_at = came.delivered_at, source_file = came.source_file
            from unnest(%s::bigint[], %s::timestamptz[], %s::text[])
                as came (slice_id, delivered_at, source_file)
            where slices.slice_id = came.slice_id
            """,
            columns_of(arrivals),
        )


def compare_loads(
    connection: Connection, loads: Sequence[tuple[SliceLoad, int]], columns: Sequence[str]
) -> list[tuple[str, str, int]]:
    """Compare, row by row, each load with the one before it of its slice.

    Args:
        loads: each new load, with the id of the load it is compared with.
        columns: the landing columns that make up a row's content, named with `own_`.

    Returns:
        (period type, outcome, rows), the outcome being inserted, updated, unchanged or deleted.
    """
    counted: list[tuple[str, str, int]] = []
    for view in ReportView:
        mine = [(*load, before) for load, before in loads if load.report_view == view]
        if not mine:
            continue
        names = [sql.Identifier(landing_column(name, view)) for name in columns]
        query = sql.SQL(
            """
            with compared as (
                select period_type, period_start, slice_id, load_id, load_before
                from unnest(
                    %s::text[], %s::text[], %s::date[], %s::bigint[], %s::bigint[], %s::bigint[]
                ) as given (
                    report_view, period_type, period_start, slice_id, load_id, load_before
                )
            ),

            delivered as (
                select stored.*
                from compared
                inner join {table} as stored
                    on
                        compared.period_start = stored.period_start
                        and compared.slice_id = stored.slice_id
                        and compared.load_id = stored.load_id
            ),

            before as (
                select stored.*
                from compared
                inner join {table} as stored
                    on
                        compared.period_start = stored.period_start
                        and compared.slice_id = stored.slice_id
                        and compared.load_before = stored.load_id
            )

            select
                coalesce(delivered.period_type, before.period_type) as period_type,
                case
                    when before.slice_id is null then 'inserted'
                    when delivered.slice_id is null then 'deleted'
                    when ({delivered}) is distinct from ({before}) then 'updated'
                    else 'unchanged'
                end as outcome,
                count(*) as records
            from delivered
            full outer join before
                on
                    delivered.slice_id = before.slice_id
                    and delivered.query_digest = before.query_digest
            group by coalesce(delivered.period_type, before.period_type), outcome
            """
        ).format(
            table=landing_table(view),
            delivered=sql.SQL(", ").join(sql.SQL("delivered.{}").format(name) for name in names),
            before=sql.SQL(", ").join(sql.SQL("before.{}").format(name) for name in names),
        )
        counted += connection.execute(query, columns_of(mine)).fetchall()
    return counted


def delete_loads(connection: Connection, loads: Sequence[SliceLoad]) -> None:
    """Remove the rows of loads that are not in force any more, or never were."""
    for view in ReportView:
        mine = [load for load in loads if load.report_view == view]
        if mine:
            connection.execute(
                sql.SQL(
                    """
                    delete from {table} as stored
                    using unnest(%s::text[], %s::text[], %s::date[], %s::bigint[], %s::bigint[])
                        as gone (report_view, period_type, period_start, slice_id, load_id)
                    where
                        gone.period_start = stored.period_start
                        and gone.slice_id = stored.slice_id
                        and gone.load_id = stored.load_id
                    """
                ).format(table=landing_table(view)),
                columns_of(mine),
            )


def accept_and_hold(connection: Connection, held: Mapping[int, str]) -> int:
    """End the checks: candidates in `held` wait with their reason, all others come into force.

    One transaction: readers see each slice's old load or its new one.

    Returns:
        how many candidates came into force.
    """
    with connection.transaction():
        if held:
            connection.execute(
                """
                with held as (
                    update landing.sqp_slices as slices
                    set slice_status = 'held', held_reason = checked.reason
                    from unnest(%s::bigint[], %s::text[]) as checked (slice_id, reason)
                    where slices.slice_id = checked.slice_id and slices.slice_status = 'landed'
                    returning
                        slices.account_id, slices.slice_id, slices.load_id, slices.held_reason
                )

                update landing.slice_loads as loads
                set held_reason = held.held_reason
                from held
                where
                    loads.account_id = held.account_id
                    and loads.slice_id = held.slice_id
                    and loads.load_id = held.load_id
                """,
                (list(held), list(held.values())),
            )
        replaced = connection.execute(
            """
            select report_view, period_type, period_start, slice_id, accepted_load_id
            from landing.sqp_slices
            where slice_status = 'landed' and accepted_load_id <> load_id
            """
        ).fetchall()
        accepted = connection.execute(
            """
            with accepted as (
                update landing.sqp_slices
                set
                    slice_status = 'accepted',
                    accepted_load_id = load_id,
                    accepted_digest = slice_digest,
                    accepted_row_count = row_count,
                    accepted_at = clock_timestamp()
                where slice_status = 'landed'
                returning account_id, slice_id, load_id, accepted_at
            ),

            noted as (
                update landing.slice_loads as loads
                set accepted_at = accepted.accepted_at
                from accepted
                where
                    loads.account_id = accepted.account_id
                    and loads.slice_id = accepted.slice_id
                    and loads.load_id = accepted.load_id
            )

            select count(*)
            from accepted
            """
        ).fetchone()
        delete_loads(connection, [SliceLoad(*values) for values in replaced])
    return int(accepted[0]) if accepted else 0


def landing_column(name: str, report_view: str) -> str:
    """A landing table's name for a column of `ROW_SCHEMA`: `own_…` is `asin_…` or `brand_…`."""
    return {"subject": report_view}.get(name) or name.replace("own_", f"{report_view}_", 1)


def columns_of(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Rows turned into one array a column, for `unnest`."""
    return [list(column) for column in zip(*rows, strict=True)]
