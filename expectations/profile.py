"""What landed, measured: one row per landed slice, made by one pass over its rows.

A measure is a name and the SQL that computes it. To measure something new, add it to
`REGISTER_MEASURES` (from the slice's own row), `ROW_MEASURES` (aggregates over the slice's rows)
or `HISTORY_MEASURES` (against earlier periods); expectations then speak of it by its name.
No measure holds a delivered text, so that no search query reaches a log or a document.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import pandas as pd
import psycopg
import pyarrow as pa
from psycopg import sql

from expectations.thresholds import SHARE_TOLERANCE, VOLUME_PERIODS
from flows.sources.deliveries import PRICE, ROW_SCHEMA, STAGES, ReportView
from flows.warehouse.slice_register import landing_column, landing_table

TOTAL_COUNTS = ("total_query_impression_count", *(f"total_{stage}_count" for stage in STAGES))
OWN_COUNTS = tuple(f"own_{stage}_count" for stage in ("impression", *STAGES))
OWN_SHARES = tuple(f"own_{stage}_share" for stage in ("impression", *STAGES))
RATES = tuple(f"total_{stage}_rate" for stage in STAGES)
PRICES = tuple(f"{side}_median_{stage}_price" for stage in STAGES for side in ("total", "own"))
FILLED = ("search_query", "query")
WELL_FILLED = ("search_query_score", "search_query_volume")
"""Columns that must never, and should not, be empty. Those that the table itself declares NOT NULL
are covered by its schema."""


def _any(conditions: Iterable[str]) -> str:
    return "count(*) filter (where " + " or ".join(conditions) + ")"


def _least(columns: Iterable[str]) -> str:
    return "min(least(" + ", ".join(columns) + "))"


def _greatest(columns: Iterable[str]) -> str:
    return "max(greatest(" + ", ".join(columns) + "))"


def _unless_blank(column: str) -> str:
    return f"nullif({column}, '')" if ROW_SCHEMA.field(column).type == pa.string() else column


SHARE_MISMATCHES = _any(
    f"abs({share} - coalesce({own} / nullif({total}, 0)::double precision, 0)) > {SHARE_TOLERANCE}"
    for share, own, total in zip(OWN_SHARES, OWN_COUNTS, TOTAL_COUNTS, strict=True)
)
RATE_MISMATCHES = _any(
    f"abs({rate} - {total} / nullif(search_query_volume, 0)::double precision) > {SHARE_TOLERANCE}"
    for rate, total in zip(RATES, TOTAL_COUNTS[1:], strict=True)
)
ROWS_FOUND = "count(delivered.slice_id)"

REGISTER_MEASURES = {
    "row_count": "landed.row_count",
    "rejected_count": "landed.rejected_count",
    "delivered_count": "landed.row_count + landed.rejected_count",
    "rejected_share": (
        "landed.rejected_count::double precision"
        " / nullif(landed.row_count + landed.rejected_count, 0)"
    ),
}

ROW_MEASURES = {
    "rows_found": ROWS_FOUND,
    **{
        f"missing_{name}": f"{ROWS_FOUND} - count({_unless_blank(name)})"
        for name in (*FILLED, *WELL_FILLED)
    },
    "missing_shares": _any(
        f"{share} is null and {total} > 0"
        for share, total in zip(OWN_SHARES, TOTAL_COUNTS, strict=True)
    ),
    "missing_currencies": (
        f"count(coalesce({', '.join(PRICES)})) filter (where currency_code is null)"
    ),
    "not_numbers": _any(f"{column} = 'NaN'" for column in (*OWN_SHARES, *RATES, *PRICES)),
    "smallest_count": _least((*TOTAL_COUNTS, *OWN_COUNTS, "search_query_volume")),
    "largest_count": _greatest((*TOTAL_COUNTS, *OWN_COUNTS, "search_query_volume")),
    "smallest_share": _least(OWN_SHARES),
    "largest_share": _greatest(OWN_SHARES),
    "smallest_rate": _least(RATES),
    "smallest_price": f"{_least(PRICES)}::double precision",
    "smallest_score": "min(search_query_score)",
    "largest_excess": _greatest(
        f"{own} - {total}" for own, total in zip(OWN_COUNTS, TOTAL_COUNTS, strict=True)
    ),
    "share_mismatches": SHARE_MISMATCHES,
    "share_mismatch_share": f"{SHARE_MISMATCHES}::double precision / nullif({ROWS_FOUND}, 0)",
    "rate_mismatches": RATE_MISMATCHES,
    "purchases_above_clicks": _any(["own_purchase_count > own_click_count"]),
    "mixed_currencies": "(min(currency_code) < max(currency_code))::integer",
    "misfiled_rows": (
        f"{ROWS_FOUND} - count(*) filter (where"
        " (delivered.account_id, delivered.marketplace_id, delivered.period_type,"
        " delivered.period_end, delivered.subject, delivered.slice_digest)"
        " = (landed.account_id, landed.marketplace_id, landed.period_type,"
        " landed.period_end, landed.subject, landed.slice_digest))"
    ),
}

HISTORY_MEASURES = {
    "recent_median_rows": "history.recent_median_rows",
    "volume_ratio": "landed.row_count / nullif(history.recent_median_rows, 0)",
}

MEASURES = (*REGISTER_MEASURES, *ROW_MEASURES, *HISTORY_MEASURES)

SLICES_QUERY = """
with landed as (
    select *
    from landing.sqp_slices
    where report_view = {view} and {condition}
){more}

select
    landed.slice_id,
    landed.load_id,
    landed.period_type,
    concat_ws(
        ' / ', landed.account_id, landed.marketplace_id,
        landed.period_type || ' ' || landed.period_start, landed.subject
    ) as label,
    {measures}
from landed{joins}
order by landed.slice_id"""

ROWS_CTE = """

delivered as (
    select
        slice_id, load_id, marketplace_id, period_type, slice_digest,
        {renamed}
    from {table}
    where period_start >= (select min(period_start) from landed)
        and period_start <= (select max(period_start) from landed)
),

measured as (
    select
        landed.slice_id,
        {measures}
    from landed
    left join delivered
        on landed.period_start = delivered.period_start
        and landed.slice_id = delivered.slice_id
        and landed.load_id = delivered.load_id
    group by landed.slice_id
)"""

HISTORY_CTE = """

history as (
    select
        landed.slice_id,
        percentile_cont(0.5) within group (order by earlier.accepted_row_count)
            as recent_median_rows
    from landed
    inner join landing.sqp_slices as earlier
        using (account_id, marketplace_id, report_view, period_type, subject)
    where earlier.period_start < landed.period_start
        and earlier.period_start >= landed.period_start - {periods} * case landed.period_type
            when 'WEEK' then interval '7 days'
            when 'MONTH' then interval '1 month'
            else interval '3 months'
        end
    group by landed.slice_id
)"""

STILL_LANDED = sql.SQL("slice_status = 'landed'")


def of_loads(period_type: str, load_ids: Collection[int]) -> sql.Composable:
    """The condition that picks a period type's slices of these loads, before and after they are
    accepted: for queries that someone runs again later."""
    return sql.SQL("period_type = {} and load_id in ({})").format(
        sql.Literal(period_type), sql.SQL(", ").join(map(sql.Literal, sorted(load_ids)))
    )


def profile_query(
    view: ReportView,
    measures: Collection[str] = MEASURES,
    condition: sql.Composable = STILL_LANDED,
) -> sql.Composed:
    """The query that measures the slices of one view that meet the condition.

    It returns `slice_id`, `load_id`, `period_type`, a `label` that names the slice to people, and
    the measures; it reads only what the measures need.
    """
    of_rows = {name: each for name, each in ROW_MEASURES.items() if name in measures}
    ctes, joins = [], []
    if of_rows:
        ctes.append(_rows_cte(view, of_rows))
        joins.append("inner join measured on landed.slice_id = measured.slice_id")
    if not HISTORY_MEASURES.keys().isdisjoint(measures):
        ctes.append(sql.SQL(HISTORY_CTE).format(periods=sql.Literal(VOLUME_PERIODS)))
        joins.append("left join history on landed.slice_id = history.slice_id")
    told = {
        **REGISTER_MEASURES,
        **HISTORY_MEASURES,
        **{name: f"measured.{name}" for name in of_rows},
    }
    return sql.SQL(SLICES_QUERY).format(
        view=sql.Literal(str(view)),
        condition=condition,
        more=sql.SQL("").join(sql.SQL(",") + cte for cte in ctes),
        measures=_named({name: told[name] for name in measures}, indent=4),
        joins=sql.SQL("".join(f"\n{join}" for join in joins)),
    )


def _rows_cte(view: ReportView, measures: dict[str, str]) -> sql.Composed:
    spoken_of = set(re.findall(r"\w+", " ".join(measures.values()))) | {"period_start"}
    return sql.SQL(ROWS_CTE).format(
        renamed=sql.SQL(",\n        ").join(
            sql.SQL("{} as {}").format(
                sql.Identifier(landing_column(name, view)), sql.Identifier(name)
            )
            for name in ROW_SCHEMA.names
            if name in spoken_of
        ),
        table=landing_table(view),
        measures=_named(measures, indent=8),
    )


def _named(measures: dict[str, str], *, indent: int) -> sql.Composed:
    return sql.SQL(",\n" + " " * indent).join(
        sql.SQL(f"{expression} as {name}") for name, expression in measures.items()
    )


def read_profile(connection: psycopg.Connection[Any], view: ReportView) -> pd.DataFrame:
    """Measure every slice of the view that has landed and is not accepted: one row a slice,
    measures as floats, NaN where a slice has nothing to measure."""
    return read_frame(connection, profile_query(view)).astype(dict.fromkeys(MEASURES, "float64"))


POSTGRES_TYPES: dict[pa.DataType, str] = {
    pa.string(): "text",
    pa.date32(): "date",
    pa.binary(): "bytea",
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    PRICE: "numeric(14,4)",
}

ADDED_COLUMNS = {
    "slice_id": "bigint not null",
    "load_id": "bigint not null",
    "marketplace_id": "text not null",
    "period_type": "text not null",
    "slice_digest": "bytea not null",
    "loaded_at": "timestamp with time zone not null",
}
"""What landing adds to a parsed row."""

COLUMNS_QUERY = """
with expected as (
    select *
    from unnest({names}::text[], {types}::text[]) as given (column_name, expected_type)
),

found as (
    select
        attname as column_name,
        regexp_replace(format_type(atttypid, atttypmod), '^character varying.*', 'text')
            || case when attnotnull then ' not null' else '' end as found_type
    from pg_catalog.pg_attribute
    where attrelid = {table}::regclass and attnum > 0 and not attisdropped
)

select column_name as label, expected_type, found_type
from expected
full outer join found using (column_name)
order by column_name"""


def columns_query(view: ReportView) -> sql.Composed:
    """The query that lists a landing table's real columns beside those that sources fill."""
    expected = ADDED_COLUMNS | {
        landing_column(field.name, view): POSTGRES_TYPES[field.type]
        + ("" if field.nullable else " not null")
        for field in ROW_SCHEMA
    }
    return sql.SQL(COLUMNS_QUERY).format(
        names=sql.Literal(list(expected)),
        types=sql.Literal(list(expected.values())),
        table=sql.Literal(f"landing.sqp_{view}"),
    )


def read_columns(connection: psycopg.Connection[Any], view: ReportView) -> pd.DataFrame:
    """A landing table's columns: `label` (the column's name), `expected_type`, `found_type`."""
    return read_frame(connection, columns_query(view))


def read_frame(connection: psycopg.Connection[Any], query: sql.Composed) -> pd.DataFrame:
    """A query's result, named as the query names it."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        assert cursor.description is not None
        return pd.DataFrame(cursor.fetchall(), columns=[each.name for each in cursor.description])
