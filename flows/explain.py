"""Why a number is what it is: the deliveries behind it, and what became of each.

A summary's number is the sum of slices (an account's, marketplace's, ASIN's week), and each slice
is as its load in force says. So a number changes when a slice gets another load, and only then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import psycopg
from psycopg import sql

from flows.errors import UsageError
from flows.sources.deliveries import PeriodType
from flows.sources.marketplaces import find_marketplace
from flows.sources.normalise import normalise_query
from flows.sources.periods import period_around, possible_days
from flows.warehouse.connection import connect
from flows.warehouse.rows import Row, is_there, rows

SUMMARIES = {
    PeriodType.WEEK: "weekly_summary",
    PeriodType.MONTH: "monthly_summary",
    PeriodType.QUARTER: "quarterly_summary",
}

_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)
_QUARTER = re.compile(r"(\d{4})-?[Qq]([1-4])", re.ASCII)


@dataclass(frozen=True)
class Question:
    """Which number is meant; without ASIN, query or marketplace, all of them together."""

    account_id: str
    period_type: PeriodType
    period_start: date
    period_end: date
    marketplace_id: str | None = None
    asin: str | None = None
    query: str | None = None

    @property
    def summary(self) -> str:
        """The table that the number stands in."""
        return f"sqp.{SUMMARIES[self.period_type]}"


@dataclass(frozen=True)
class Explanation:
    """What stands in the summary, and where it comes from.

    Attributes:
        now: the sums of the own counts in the summary, and when its rows changed last.
        loads: every load of the slices behind it, the newest first; `outcome` says what became of
            it, `before_…` are the counts of the load that was in force before.
        rows: with a query, its rows of the loads in force, with file and line.
        refused: rows of these slices that were refused.
        missing: weeks of the period that ended and of which an ASIN that was delivered has none.
        not_built: slices whose load in force the weekly summary does not hold yet.
    """

    question: Question
    now: Row
    loads: list[Row]
    rows: list[Row]
    refused: list[Row]
    missing: list[Row]
    not_built: int

    def as_dict(self) -> Row:
        """For machines."""
        return asdict(self)


def ask(
    period: str,
    account: str = "default",
    marketplace: str | None = None,
    asin: str | None = None,
    query: str | None = None,
) -> Question:
    """Understand which number is meant.

    Args:
        period: a day of a week (`2026-10-04`), a month (`2026-10`) or a quarter (`2026-Q4`).

    Raises:
        UsageError: the period is none, or the marketplace is unknown.
    """
    known = find_marketplace(marketplace) if marketplace else None
    if marketplace and not known:
        raise UsageError(
            f"the marketplace {marketplace!r} is unknown",
            "it is neither a country code nor an id of Amazon's",
            "name one such as US or UK, or leave it out",
        )
    period_type, (start, end) = _period(period)
    return Question(
        account_id=account,
        period_type=period_type,
        period_start=start,
        period_end=end,
        marketplace_id=known.marketplace_id if known else None,
        asin=asin.strip().upper() if asin else None,
        query=normalise_query(query) if query else None,
    )


def _period(text: str) -> tuple[PeriodType, tuple[date, date]]:
    if found := _QUARTER.fullmatch(text.strip()):
        kind, day = PeriodType.QUARTER, f"{found[1]}-{int(found[2]) * 3}-1"
    elif _MONTH.fullmatch(text.strip()):
        kind, day = PeriodType.MONTH, f"{text.strip()}-1"
    else:
        kind, day = PeriodType.WEEK, text
    if not (days := possible_days(day)):
        raise UsageError(
            f"{text!r} is no period",
            "a period is a day of a week, a month or a quarter",
            "write it like 2026-10-04, 2026-10 or 2026-Q4",
        )
    return kind, period_around(kind, days[0])


def explain(question: Question) -> Explanation:
    """Look up where a number comes from; nothing is changed.

    Raises:
        UsageError: nothing was ever delivered of what is asked for.
    """
    asked = asdict(question)
    with connect(autocommit=True, application="warehouse explain") as connection:
        loads = rows(connection, LOADS, asked)
        refused = rows(connection, REFUSED, asked)
        if not loads and not refused:
            raise UsageError(
                "nothing was delivered of this",
                f"{question.account_id} has no slice and no refused row of"
                f" {question.period_start} to {question.period_end}{_narrowed(question)}",
                _who_has_something(connection),
            )
        return Explanation(
            question=question,
            now=_now(connection, question, asked),
            loads=loads,
            rows=rows(connection, ROWS_IN_FORCE, asked) if question.query else [],
            refused=refused,
            missing=rows(connection, MISSING, asked),
            not_built=rows(connection, NOT_BUILT, asked)[0]["slices"],
        )


def _narrowed(question: Question) -> str:
    """Which ASIN and marketplace were asked for, as the end of a sentence."""
    parts = (question.asin, question.marketplace_id)
    return "".join(f", {part}" for part in parts if part)


def _who_has_something(connection: psycopg.Connection[Any]) -> str:
    """The next step: which accounts and periods there are."""
    found = rows(connection, ACCOUNTS, {})
    if not found:
        return "load a delivery first: warehouse sync-sqp PATH…"
    known = ", ".join(f"{row['account_id']} ({row['first']} to {row['last']})" for row in found)
    return f"name an account and period that there are: {known}"


def _now(connection: psycopg.Connection[Any], question: Question, asked: Row) -> Row:
    """The sums in the summary; empty where it was never built."""
    if not is_there(connection, question.summary):
        return {}
    return rows(connection, IN_SUMMARY[question.period_type], asked)[0]


_ASKED = sql.SQL(
    """
    account_id = %(account_id)s
    and period_start between %(period_start)s and %(period_end)s
    and (%(marketplace_id)s::text is null or marketplace_id = %(marketplace_id)s)
"""
)
_SLICES = sql.SQL(
    """
    select *
    from landing.sqp_slices
    where report_view = 'asin' and period_type = 'WEEK' and{asked}
    and (%(asin)s::text is null or subject = %(asin)s)
"""
).format(asked=_ASKED)

IN_SUMMARY: Mapping[PeriodType, sql.Composed] = {
    period_type: sql.SQL(
        """
    select
        count(*) as rows,
        sum(total_impressions)::bigint as impressions,
        sum(total_clicks)::bigint as clicks,
        sum(cart_adds)::bigint as cart_adds,
        sum(total_purchases)::bigint as purchases,
        max(updated_at) as changed_at
    from {summary}
    where {asked}
    and (%(asin)s::text is null or asin = %(asin)s)
    and (%(query)s::text is null or query = %(query)s)
"""
    ).format(summary=sql.Identifier("sqp", summary), asked=_ASKED)
    for period_type, summary in SUMMARIES.items()
}

LOADS = sql.SQL(
    """
    with slices as ({slices}),

    loads as (
        select
            slices.marketplace_id,
            slices.period_start,
            slices.subject as asin,
            slices.load_id as last_load_id,
            slices.accepted_load_id,
            loads.*,
            lead(loads.accepted_at) over later as replaced_at,
            max(loads.load_id) filter (where loads.accepted_at is not null) over earlier
                as before_load_id
        from slices
        inner join landing.slice_loads as loads using (account_id, slice_id)
        window
            later as (
                partition by loads.slice_id, loads.accepted_at is null order by loads.load_id
            ),
            earlier as (
                partition by loads.slice_id order by loads.load_id
                rows between unbounded preceding and 1 preceding
            )
    )

    select
        loads.marketplace_id,
        loads.period_start,
        loads.asin,
        loads.load_id,
        sync_log.run_id::text as run_id,
        loads.source_file,
        loads.delivered_at,
        loads.loaded_at,
        case
            when loads.load_id = loads.accepted_load_id then 'in force'
            when loads.accepted_at is not null then 'replaced'
            when loads.held_reason is not null then 'held back'
            when loads.load_id = loads.last_load_id then 'not checked yet'
            else 'replaced before it was checked'
        end as outcome,
        loads.accepted_at,
        loads.replaced_at,
        loads.held_reason,
        loads.row_count as rows,
        loads.rejected_count as refused,
        loads.own_impressions as impressions,
        loads.own_clicks as clicks,
        loads.own_cart_adds as cart_adds,
        loads.own_purchases as purchases,
        before.load_id as before_load_id,
        before.row_count as before_rows,
        before.own_impressions as before_impressions,
        before.own_clicks as before_clicks,
        before.own_cart_adds as before_cart_adds,
        before.own_purchases as before_purchases
    from loads
    left join landing.slice_loads as before
        on
            loads.account_id = before.account_id
            and loads.slice_id = before.slice_id
            and loads.before_load_id = before.load_id
    left join sqp.sync_log as sync_log on loads.load_id = sync_log.id
    order by loads.loaded_at desc, loads.period_start desc, loads.marketplace_id, loads.asin
"""
).format(slices=_SLICES)

ROWS_IN_FORCE = sql.SQL(
    """
    with slices as ({slices})

    select
        slices.marketplace_id,
        slices.period_start,
        slices.subject as asin,
        loads.source_file,
        delivered.source_line,
        delivered.asin_impression_count as impressions,
        delivered.asin_click_count as clicks,
        delivered.asin_cart_add_count as cart_adds,
        delivered.asin_purchase_count as purchases,
        delivered.total_query_impression_count as market_impressions,
        delivered.total_purchase_count as market_purchases
    from slices
    inner join landing.sqp_asin as delivered
        on
            slices.period_start = delivered.period_start
            and slices.slice_id = delivered.slice_id
            and slices.accepted_load_id = delivered.load_id
    left join landing.slice_loads as loads
        on
            slices.account_id = loads.account_id
            and slices.slice_id = loads.slice_id
            and slices.accepted_load_id = loads.load_id
    where delivered.query = %(query)s
    order by slices.period_start, slices.marketplace_id, slices.subject
"""
).format(slices=_SLICES)

REFUSED = sql.SQL(
    """
    select
        marketplace_id, period_start, subject as asin, load_id, source_file, source_line,
        reason_code, reason, rejected_at
    from landing.rejected_rows
    where report_view = 'asin' and period_type = 'WEEK' and{asked}
    and (%(asin)s::text is null or subject = %(asin)s)
    order by rejected_at desc, source_file, source_line
"""
).format(asked=_ASKED)

MISSING = sql.SQL(
    """
    with slices as ({slices}),

    weeks as (
        select day::date as period_start
        from generate_series(
            %(period_start)s::date
            + (7 - extract(dow from %(period_start)s::date)::integer) %% 7,
            %(period_end)s::date,
            interval '7 days'
        ) as days (day)
        where day + interval '6 days' < current_date
    ),

    delivered as (
        select distinct marketplace_id, subject
        from slices
    )

    select delivered.marketplace_id, weeks.period_start, delivered.subject as asin
    from delivered
    cross join weeks
    where not exists (
        select
        from slices
        where
            slices.marketplace_id = delivered.marketplace_id
            and slices.subject = delivered.subject
            and slices.period_start = weeks.period_start
            and slices.accepted_load_id is not null
    )
    order by weeks.period_start, delivered.marketplace_id, delivered.subject
"""
).format(slices=_SLICES)

NOT_BUILT = sql.SQL(
    """
    with slices as ({slices})

    select count(*) as slices
    from slices
    inner join sqp.slice_builds as builds on slices.slice_id = builds.slice_id
    where builds.wanted_load_id is distinct from builds.load_id
"""
).format(slices=_SLICES)

ACCOUNTS = sql.SQL(
    """
    select account_id, min(period_start)::text as first, max(period_end)::text as last
    from landing.sqp_slices
    group by account_id
    order by account_id
    limit 10
"""
)
