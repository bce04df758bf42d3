"""A tenant's queries under row security, against the same queries with the filter written out.

Both sides run interleaved, each on a connection of its own: the tenant's as `authenticated`, where
only the policies say whose rows they are; the other as a superuser, to whom no policy applies, with
the owner in the WHERE clause. Both return the same rows, which is asserted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any
from uuid import UUID

import psycopg

from benchmarks.server import fresh_database
from flows.warehouse import dbt_build, policies
from flows.warehouse.connection import connect

REPEATS = 301
CAMPAIGNS, DAYS = 10, 100
"""Of each tenant, whose metrics are as many rows as the two multiplied."""
WEEKS, QUERIES, ASINS = 10, 100, 20
"""Of each tenant's one account; each query is of one ASIN."""
ROWS_PER_TENANT = CAMPAIGNS * DAYS

PLANT_TENANTS = """
insert into app.users (id, email, password_hash, first_name, last_name)
select md5('tenant ' || number)::uuid, 'tenant' || number || '@example.com', 'x', 'Ann', 'Tenant'
from generate_series(1, %(tenants)s) as numbers (number)
"""

PLANT_CAMPAIGNS = """
with planted as (
    insert into app.ads (id, user_id, name, unified_data, targeting_data, budget_data)
    select
        md5('ad ' || tenant || ' ' || number)::uuid, md5('tenant ' || tenant)::uuid,
        'Ad ' || number, '{}', '{}', '{}'
    from
        generate_series(1, %(tenants)s) as tenants (tenant),
        generate_series(1, %(campaigns)s) as numbers (number)
    returning id, user_id
)

insert into app.campaigns (id, ad_id, user_id, platform, campaign_name, status)
select id, id, user_id, 'amazon_ads', 'Campaign ' || id, 'active' from planted
"""

PLANT_METRICS = """
insert into app.campaign_metrics (
    campaign_id, user_id, date, impressions, clicks, conversions, spend_amount, conversion_value
)
select
    campaigns.id, campaigns.user_id, current_date - days.number, 1000 + days.number, days.number,
    days.number / 10.0, random() * 100, random() * 1000
from app.campaigns cross join generate_series(%(days)s, 1, -1) as days (number)
order by days.number desc, campaigns.id
"""

PLANT_ACCOUNTS = """
insert into app.sqp_accounts (account_id, user_id)
select 'account ' || id, id from app.users
"""

MAKE_MONTHS = """
select app.create_monthly_partition('sqp.weekly_summary', current_date - 7 * number)
from generate_series(0, %(weeks)s + 1) as numbers (number)
"""

PLANT_SUMMARIES = """
insert into sqp.weekly_summary (
    period_start, period_end, query, asin, account_id, marketplace_id, query_digest,
    search_query_volume, total_impressions, total_clicks, total_purchases, cart_adds,
    total_query_impression_count, total_click_count, total_cart_add_count, total_purchase_count,
    sync_log_id, last_synced_at, updated_at
)
select
    weeks.week,
    weeks.week + 6,
    'query ' || queries.number,
    'B' || lpad((queries.number %% %(asins)s)::text, 9, '0'),
    accounts.account_id,
    'ATVPDKIKX0DER',
    sha256(convert_to('query ' || queries.number, 'utf8')),
    10 * queries.number, 1000, 100, 10, 20, 10000, 1000, 200, 100, 1, now(), now()
from
    app.sqp_accounts as accounts,
    generate_series(1, %(queries)s) as queries (number),
    lateral (
        select date_trunc('week', current_date)::date - 1 - 7 * number as week
        from generate_series(1, %(weeks)s) as numbers (number)
    ) as weeks
order by weeks.week, accounts.account_id
"""


@dataclass(frozen=True)
class Question:
    """A query that a tenant asks; `{own}` stands where the filter goes that a policy replaces."""

    name: str
    table: str
    own: str
    text: str

    def asked(self, *, under_policies: bool) -> str:
        """The SQL; under policies there is no filter, they are it."""
        return self.text.format(own="true" if under_policies else self.own)


OF_USER = "user_id = %(user)s"
OF_ACCOUNT = "account_id = %(account)s"

QUESTIONS = (
    Question(
        "last 28 days by day",
        "app.campaign_metrics",
        OF_USER,
        """
        select date, sum(impressions), sum(clicks), sum(spend_amount)
        from app.campaign_metrics
        where date between %(today)s - 28 and %(today)s and {own}
        group by date
        order by date
        """,
    ),
    Question(
        "one campaign's 90 days",
        "app.campaign_metrics",
        OF_USER,
        """
        select date, impressions, clicks, conversions, spend_amount, conversion_value
        from app.campaign_metrics
        where campaign_id = %(campaign)s and date between %(today)s - 90 and %(today)s and {own}
        order by date
        """,
    ),
    Question(
        "top campaigns of 28 days",
        "app.campaign_metrics",
        OF_USER,
        """
        select campaign_id, spend_currency, sum(spend_amount) as spend
        from app.campaign_metrics
        where date between %(today)s - 28 and %(today)s and {own}
        group by campaign_id, spend_currency
        order by spend desc, campaign_id
        limit 5
        """,
    ),
    Question(
        "top campaigns, with their names",
        "app.campaign_performance",
        OF_USER,
        """
        select campaign_name, spend_currency, sum(spend_amount) as spend
        from app.campaign_performance
        where date between %(today)s - 28 and %(today)s and {own}
        group by campaign_name, spend_currency
        order by spend desc, campaign_name
        limit 5
        """,
    ),
    Question(
        "all weeks by week",
        "sqp.weekly_summary",
        OF_ACCOUNT,
        """
        select period_start, sum(total_impressions), sum(total_clicks), sum(total_purchases)
        from sqp.weekly_summary
        where {own}
        group by period_start
        order by period_start
        """,
    ),
    Question(
        "top queries of the last week",
        "sqp.weekly_summary",
        OF_ACCOUNT,
        """
        select query, sum(search_query_volume) as volume
        from sqp.weekly_summary
        where period_start > %(today)s - 14 and {own}
        group by query
        order by volume desc, query
        limit 20
        """,
    ),
    Question(
        "one ASIN, week by week",
        "sqp.weekly_summary",
        OF_ACCOUNT,
        """
        select period_start, query, total_impressions, total_clicks, total_purchases
        from sqp.weekly_summary
        where asin = 'B000000007' and {own}
        order by period_start, query
        """,
    ),
)


def run(rows: int) -> dict[str, Any]:
    """Measure every question on tables of so many rows each, of tenants with 1,000 rows each."""
    tenants = max(rows // ROWS_PER_TENANT, 2)
    with fresh_database():
        policies.ensure_policies()
        dbt_build.build("sqp_summaries")
        with connect(autocommit=True) as connection:
            plant_campaigns(connection, tenants, CAMPAIGNS)
            connection.execute(PLANT_METRICS, {"days": DAYS})
            connection.execute(PLANT_ACCOUNTS)
            connection.execute(MAKE_MONTHS, {"weeks": WEEKS})
            connection.execute(
                PLANT_SUMMARIES, {"asins": ASINS, "queries": QUERIES, "weeks": WEEKS}
            )
            connection.execute("vacuum (analyze)")
            connection.execute("checkpoint")
        return {
            "rows": tenants * ROWS_PER_TENANT,
            "tenants": tenants,
            "questions": [measure(question) for question in QUESTIONS],
        }


def plant_campaigns(connection: psycopg.Connection[Any], tenants: int, campaigns_each: int) -> None:
    """Make users, and campaigns of each."""
    sizes = {"tenants": tenants, "campaigns": campaigns_each}
    connection.execute(PLANT_TENANTS, sizes)
    connection.execute(PLANT_CAMPAIGNS, sizes)


def measure(question: Question) -> dict[str, Any]:
    """The median of one question on both sides, in milliseconds; each time of another tenant."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with connect(autocommit=True) as explicit, connect(autocommit=True) as secured:
        sides = {False: explicit, True: secured}
        askers = some_tenants(explicit, REPEATS)
        for number, tenant in enumerate(askers):
            answers = []
            for under_policies in (True, False) if number % 2 else (False, True):
                connection = sides[under_policies]
                text = question.asked(under_policies=under_policies)
                with signed_in(connection, tenant["user"] if under_policies else None):
                    started = time.perf_counter()
                    answers.append(connection.execute(text, tenant, prepare=False).fetchall())
                    seconds[under_policies].append(time.perf_counter() - started)
            assert answers[0], question.name
            assert answers[0] == answers[1], question.name
    return {
        "table": question.table,
        "question": question.name,
        "explicit_ms": 1000 * median(seconds[False]),
        "secured_ms": 1000 * median(seconds[True]),
        "ratio": median(seconds[True]) / median(seconds[False]),
    }


def some_tenants(connection: psycopg.Connection[Any], count: int) -> list[dict[str, Any]]:
    """Users, each with its account and one of its campaigns; in turn, if there are too few."""
    found = connection.execute(
        """
        select user_id, account_id, (
            select min(id::text)::uuid from app.campaigns
            where campaigns.user_id = sqp_accounts.user_id
        ), current_date
        from app.sqp_accounts
        order by account_id
        limit %s
        """,
        (count,),
    ).fetchall()
    tenants = [
        {"user": user, "account": account, "campaign": campaign, "today": today}
        for user, account, campaign, today in found
    ]
    return [tenants[number % len(tenants)] for number in range(count)]


@contextmanager
def signed_in(connection: psycopg.Connection[Any], user: UUID | None) -> Iterator[None]:
    """A transaction of a tenant, or without one of the login itself."""
    with connection.transaction():
        if user:
            connection.execute("set local role authenticated")
            connection.execute("select set_config('request.jwt.claim.sub', %s, true)", (str(user),))
        yield
