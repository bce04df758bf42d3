"""Source against target, by real queries on both sides.

Landing in force is compared with `sqp.weekly_summary`, and that with the summaries made of it.
Each comparison is one query that yields one row per (account, marketplace, period, ASIN), so that
one slice's surplus cannot hide another's shortfall; it reads only the periods of the slices that
the run is answerable for (`Scope`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import psycopg
from psycopg import sql

from expectations.profile import read_frame

SUMS = {
    "total_impressions": "asin_impression_count",
    "total_clicks": "asin_click_count",
    "cart_adds": "asin_cart_add_count",
    "total_purchases": "asin_purchase_count",
}
"""The summaries' own counts, and the landing column each one comes from."""

NEVER_NULL = ("query", *SUMS)
"""The summaries' columns whose NULLs are counted on both sides."""

MEASURES = ("row_count", *SUMS, *(f"null_{column}" for column in NEVER_NULL))


@dataclass(frozen=True)
class Pair:
    """Two tables that must tell the same.

    Attributes:
        target, source: their names as people know them.
        period: SQL that turns a row's `period_start` into the target's period.
        source_rows: where the source's rows come from.
        source_row_count: SQL that counts the target rows that the source's rows make.
        length: of the target's period, as an interval.
    """

    target: str
    source: str
    period: str
    source_rows: str
    source_row_count: str
    length: str


IN_FORCE = """(
        select
            slices.account_id,
            slices.marketplace_id,
            slices.period_start,
            slices.subject as asin,
            delivered.query_digest,
            delivered.query,
            {counts}
        from landing.sqp_slices as slices
        inner join landing.sqp_asin as delivered
            on slices.period_start = delivered.period_start
            and slices.slice_id = delivered.slice_id
            and slices.accepted_load_id = delivered.load_id
        where slices.report_view = 'asin' and slices.period_type = 'WEEK'
    )""".format(
    counts=",\n            ".join(f"delivered.{landed} as {name}" for name, landed in SUMS.items())
)

PAIRS = {
    pair.target: pair
    for pair in (
        Pair(
            target="weekly_summary",
            source="landing.sqp_asin",
            period="period_start",
            source_rows=IN_FORCE,
            source_row_count="count(*)",
            length="7 days",
        ),
        Pair(
            target="monthly_summary",
            source="sqp.weekly_summary",
            period="date_trunc('month', period_start)::date",
            source_rows="sqp.weekly_summary",
            source_row_count="count(distinct query_digest)",
            length="1 month",
        ),
        Pair(
            target="quarterly_summary",
            source="sqp.weekly_summary",
            period="date_trunc('quarter', period_start)::date",
            source_rows="sqp.weekly_summary",
            source_row_count="count(distinct query_digest)",
            length="3 months",
        ),
    )
}

TOUCHED = """
        select account_id, marketplace_id, period_start
        from landing.sqp_slices
        inner join (
            select slice_id from landing.sqp_slices where load_id = any({loads}::bigint[])
            union
            select slice_id from landing.sqp_slices where accepted_at >= {since}
            union
            select slice_id from sqp.slice_builds where built_at >= {since}
        ) as slices_of_run using (slice_id)
        where report_view = 'asin' and period_type = 'WEEK'"""

COMPARISON = """
with touched as (
    select distinct account_id, marketplace_id, {period} as period
    from ({touched}
    ) as weeks_of_run
),

source as (
    select account_id, marketplace_id, period, asin,
        {source_measures}
    from (select *, {period} as period from {source_rows} as delivered) as source_rows
    inner join touched using (account_id, marketplace_id, period)
    where {within}
    group by account_id, marketplace_id, period, asin
),

target as (
    select account_id, marketplace_id, period, asin,
        {target_measures}
    from (select *, {period} as period from {target_table}) as target_rows
    inner join touched using (account_id, marketplace_id, period)
    where {within}
    group by account_id, marketplace_id, period, asin
)

select
    concat_ws(' / ', account_id, marketplace_id, period, asin) as label,
    {sides}
from source
full outer join target using (account_id, marketplace_id, period, asin)
order by label"""

WITHIN = """period_start >= (select min(period) from touched)
        and period_start < (select max(period) + {length}::interval from touched)"""

LANDED_COUNTS = """
with logged as (
    select id, sync_type, records_inserted, records_updated, records_unchanged, slices_unchanged
    from sqp.sync_log
    where id = {load}
),

landed as (
    select slices.load_id, count(*) as found
    from landing.sqp_slices as slices
    inner join (
        select period_start, slice_id, load_id from landing.sqp_asin
        union all
        select period_start, slice_id, load_id from landing.sqp_brand
    ) as delivered
        on slices.period_start = delivered.period_start
        and slices.slice_id = delivered.slice_id
        and slices.load_id = delivered.load_id
    where slices.load_id = {load}
    group by slices.load_id
)

select
    logged.sync_type as label,
    logged.records_inserted + logged.records_updated as at_least,
    logged.records_inserted + logged.records_updated + logged.records_unchanged as at_most,
    logged.slices_unchanged,
    coalesce(landed.found, 0) as target_row_count
from logged
left join landed on logged.id = landed.load_id"""


@dataclass(frozen=True)
class Scope:
    """What a run is answerable for: the slices that it loaded, and every slice that was accepted
    or built since it began, or since the first of the failed runs that it follows began."""

    load_ids: list[int]
    since: datetime

    @classmethod
    def of(cls, connection: psycopg.Connection[Any], load_ids: Collection[int]) -> Scope:
        """The scope of the run whose `sqp.sync_log.id` are given: a run that died or failed was
        perhaps never compared, and is made good by the next."""
        row = connection.execute(
            """
            select coalesce(min(started_at), clock_timestamp())
            from sqp.sync_log
            where
                id = any(%(ids)s::bigint[])
                or (
                    sync_status = 'failed'
                    and id > coalesce(
                        (
                            select max(id)
                            from sqp.sync_log
                            where sync_status = 'completed' and id <> all(%(ids)s::bigint[])
                        ),
                        0
                    )
                )
            """,
            {"ids": list(load_ids)},
        ).fetchone()
        assert row is not None
        return cls(sorted(load_ids), row[0])


def comparison_query(pair: Pair, scope: Scope, measures: Sequence[str] = MEASURES) -> sql.Composed:
    """The query that compares a pair over the periods of a scope.

    It returns a `label` that names the summary's slice to people, and for each measure
    `source_…` and `target_…`: rows and sums count 0, and NULLs none, where a side lacks the slice.
    """
    return sql.SQL(COMPARISON).format(
        period=sql.SQL(pair.period),
        touched=sql.SQL(TOUCHED).format(
            loads=sql.Literal(scope.load_ids), since=sql.Literal(scope.since)
        ),
        source_rows=sql.SQL(pair.source_rows),
        source_measures=_measured("source", measures, row_count=pair.source_row_count),
        target_measures=_measured("target", measures, row_count="count(*)"),
        within=sql.SQL(WITHIN).format(length=sql.Literal(pair.length)),
        target_table=sql.Identifier("sqp", pair.target),
        sides=sql.SQL(",\n    ").join(
            sql.SQL(f"coalesce({side}_{name}, 0) as {side}_{name}")
            for name in measures
            for side in ("source", "target")
        ),
    )


def read_comparison(connection: psycopg.Connection[Any], pair: Pair, scope: Scope) -> pd.DataFrame:
    """Compare a pair: one row per slice of the summary, `source_…`, `target_…` and `gap_…` of each
    measure. A gap is in percent of the source; of NULLs, in percent of the source's rows."""
    frame = read_frame(connection, comparison_query(pair, scope))
    sides = [f"{side}_{name}" for side in ("source", "target") for name in MEASURES]
    frame = frame.astype(dict.fromkeys(sides, "float64"))
    for name in MEASURES:
        source, target = frame[f"source_{name}"], frame[f"target_{name}"]
        base = frame["source_row_count"] if name.startswith("null_") else source
        frame[f"gap_{name}"] = gap_percent(source, target, base)
    return frame


def gap_percent(source: pd.Series[float], target: pd.Series[float], base: pd.Series[float]) -> Any:
    """How far target is from source, in percent of base: 0 where they agree, 100 where they do not
    and base is 0."""
    difference = (target - source).abs()
    return np.where(difference == 0, 0.0, np.where(base > 0, 100 * difference / base, 100.0))


def query_behind(pair: Pair, scope: Scope, columns: Iterable[str]) -> sql.Composed:
    """The comparison of only the measures that these columns belong to, such as `gap_row_count`."""
    measures = dict.fromkeys(column.split("_", 1)[1] for column in columns)
    return comparison_query(pair, scope, list(measures))


def landed_counts_query(load_id: int) -> sql.Composed:
    """The query that sets the rows which a run logged against its rows in landing."""
    return sql.SQL(LANDED_COUNTS).format(load=sql.Literal(load_id))


def read_landed_counts(connection: psycopg.Connection[Any], load_id: int) -> pd.DataFrame:
    """One row if the run landed something: rows its log says (`source_row_count`), rows that
    landing has of it (`target_row_count`), and the gap in percent.

    Unchanged rows are in landing under the run's id if another row of their slice changed, and
    under an older id if none did: with unchanged slices the log bounds the count on both sides.
    """
    frame = read_frame(connection, landed_counts_query(load_id))
    found = frame["target_row_count"].astype("float64")
    most = frame["at_most"].astype("float64")
    least = frame["at_least"].astype("float64").where(frame["slices_unchanged"] > 0, most)
    frame["target_row_count"] = found
    frame["source_row_count"] = found.clip(least, most)
    frame["gap_row_count"] = gap_percent(
        frame["source_row_count"], found, frame["source_row_count"]
    )
    return frame[(frame["at_least"] > 0) | (found > 0)]


def _measured(side: str, measures: Sequence[str], *, row_count: str) -> sql.Composed:
    def expression(name: str) -> str:
        if name == "row_count":
            return row_count
        if name.startswith("null_"):
            return f"count(*) - count({name.removeprefix('null_')})"
        return f"sum({name})"

    return sql.SQL(",\n        ").join(
        sql.SQL(f"{expression(name)} as {side}_{name}") for name in measures
    )
