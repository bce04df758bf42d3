# ruff: noqa: S608 - the questions are put together of parts of this module
"""The questions of dashboards, asked by 32 clients at once of two years of marts.

pgbench asks: each client the same question again and again, of another query, product or month each
time, as fast as it is answered. The same question put to the weekly rows, without any mart, is what
the marts are compared with.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import search_weeks
from benchmarks.dbt_runs import run_dbt
from benchmarks.server import fresh_database
from flows import console
from flows.settings import get_settings
from flows.warehouse.connection import connect
from flows.warehouse.embedded import program

WEEKS, ASINS = 104, 100
CLIENTS, SECONDS = 32, 10
WEEKLY_SECONDS = 20
NEWEST = date(2026, 11, 15)

MONTH = "date_trunc('month', date '2026-11-01' - make_interval(months => 1 + :number % 12))::date"
OF_ACCOUNT = "account_id = 'acme' and marketplace_id = 'ATVPDKIKX0DER'"
OF_QUERY = (
    f"{OF_ACCOUNT} and query_digest = (select digest from bench.asked where number = :number)"
)
OF_PAIR = f"{OF_QUERY} and asin = (select asin from bench.asked where number = :number)"

QUESTIONS = {
    "top 20 queries of a month by click share": (
        f"""
        select query, share, share_change
        from sqp.top_queries
        where {OF_ACCOUNT} and period_start = {MONTH} and stage = 'click' and share_rank <= 20
        order by share_rank
        """,
        f"""
        select query, sum(own) / nullif(sum(market), 0) as share
        from (
            select
                query, period_start, sum(total_clicks) as own, max(total_click_count) as market
            from sqp.weekly_summary
            where
                {OF_ACCOUNT}
                and period_start >= {MONTH} and period_start < {MONTH} + interval '1 month'
            group by query, period_start
        ) as weeks
        group by query
        having sum(market) >= 10
        order by share desc
        limit 20
        """,
    ),
    "52 weeks of a query and ASIN": (
        f"""
        select period_start, click_share, click_share_change
        from sqp.query_trends
        where {OF_PAIR} and period_start >= '2025-11-16'
        order by period_start
        """,
        f"""
        select
            period_start,
            click_share,
            click_share - lag(click_share) over (order by period_start) as click_share_change
        from sqp.weekly_summary
        where {OF_PAIR} and period_start >= '2025-11-16'
        order by period_start
        """,
    ),
    "funnel of the account in a month": (
        f"""
        select step, own_drop, market_drop
        from sqp.account_funnels
        where {OF_ACCOUNT} and period_start = {MONTH}
        order by step_number
        """,
        f"""
        select sum(impressions), sum(clicks), sum(cart_adds), sum(purchases), sum(market)
        from (
            select
                sum(total_impressions) as impressions,
                sum(total_clicks) as clicks,
                sum(cart_adds) as cart_adds,
                sum(total_purchases) as purchases,
                max(total_query_impression_count) as market
            from sqp.weekly_summary
            where
                {OF_ACCOUNT}
                and period_start >= {MONTH} and period_start < {MONTH} + interval '1 month'
            group by query_digest, period_start
        ) as queries
        """,
    ),
    "a query against the year before": (
        f"""
        select total_purchases, previous_purchases, purchases_change
        from sqp.year_over_year_queries
        where {OF_QUERY} and period_start = {MONTH}
        """,
        f"""
        select date_trunc('year', period_start), sum(total_purchases)
        from sqp.weekly_summary
        where
            {OF_QUERY}
            and (
                period_start >= {MONTH} and period_start < {MONTH} + interval '1 month'
                or period_start >= {MONTH} - interval '1 year'
                and period_start < {MONTH} - interval '11 months'
            )
        group by 1
        """,
    ),
    "20 queries that lose most purchases in a month": (
        f"""
        select asin, query, lost_purchases
        from sqp.bleeding_queries
        where {OF_ACCOUNT} and period_start = {MONTH}
        order by lost_purchases desc
        limit 20
        """,
        f"""
        select asin, query, sum(total_clicks), sum(total_purchases)
        from sqp.weekly_summary
        where
            {OF_ACCOUNT}
            and period_start >= {MONTH} and period_start < {MONTH} + interval '1 month'
        group by asin, query
        having sum(total_clicks) >= 20
        order by
            sum(total_clicks) * sum(total_purchase_count) / nullif(sum(total_click_count), 0)
            - sum(total_purchases) desc
        limit 20
        """,
    ),
    "20 largest share anomalies of the newest week": (
        f"""
        select query, share, median_share, robust_score
        from sqp.share_anomalies
        where {OF_ACCOUNT} and period_start = '2026-11-15' and stage = 'click'
        order by absolute_score desc
        limit 20
        """,
        None,
    ),
}


def run() -> dict[str, Any]:
    """Build two years of marts, and ask."""
    with fresh_database(), tempfile.TemporaryDirectory() as folder, connect(autocommit=True) as own:
        search_weeks.prepare(own, asins=ASINS)
        weeks = [*search_weeks.weeks_before(NEWEST, WEEKS - 1), NEWEST]
        for number, first_day in enumerate(weeks, start=1):
            search_weeks.deliver_week(own, first_day, asins=ASINS)
            if number % 26 == 0:
                console.note(f"  week {number} of {WEEKS} delivered")
        run_dbt(Path(folder), "--select", "path:models/sqp", "+path:models/sqp")
        own.execute("vacuum (analyze)")
        own.execute(
            """
            create table bench.asked as
            select row_number() over () as number, asin, query_digest as digest
            from (
                select asin, query_digest
                from sqp.weekly_summary
                where period_start = '2026-11-15'
                order by md5(asin || query)
                limit 1000
            ) as drawn;
            create unique index on bench.asked (number) include (asin, digest);
            analyze bench.asked;
            """
        )
        rows = own.execute("select count(*) from sqp.weekly_summary").fetchone()
        assert rows is not None
        answers = []
        for question, (of_mart, of_weeks) in QUESTIONS.items():
            console.note(f"  {question}")
            mart = ask(of_mart, Path(folder), SECONDS)
            weekly = ask(of_weeks, Path(folder), WEEKLY_SECONDS) if of_weeks else None
            answers.append({"question": question, "mart": mart, "weekly": weekly})
        return {"rows": rows[0], "answers": answers}


def ask(question: str, folder: Path, seconds: int) -> dict[str, float]:
    """Latencies in milliseconds, at their middle and at 95 of 100, of all clients together."""
    script, log = folder / "question.sql", folder / "latency"
    script.write_text(f"\\set number random(1, 1000)\n{question.strip()};\n", encoding="utf-8")
    connection = get_settings().connection()
    assert connection is not None
    subprocess.run(
        [
            program("pgbench"),
            *("--no-vacuum", "--client", str(CLIENTS), "--jobs", "1", "--protocol", "prepared"),
            *("--time", str(seconds), "--file", str(script), "--log", "--log-prefix", str(log)),
        ],
        env={**os.environ, **connection.environment()},
        check=True,
        capture_output=True,
    )
    taken = []
    for file in folder.glob("latency.*"):
        with file.open(encoding="ascii") as lines:
            taken += [int(line.split()[2]) / 1000 for line in lines]
        file.unlink()
    taken.sort()
    return {
        "p50": taken[len(taken) // 2],
        "p95": taken[len(taken) * 95 // 100],
        "per_second": len(taken) / seconds,
    }


def lines(results: dict[str, Any]) -> list[str]:
    """The results as a Markdown table."""
    return [
        f"## Dashboards: {CLIENTS} clients on {WEEKS} weeks",
        "",
        f"pgbench, {CLIENTS} clients without a pause on this machine's cores, {results['rows']:,}"
        f" weekly rows ({ASINS} ASINs of 100 queries each week). *Weekly rows* is the same question"
        " asked of `sqp.weekly_summary`.",
        "",
        "| question | p50 ms | p95 ms | answers/s | weekly rows p95 ms | p95 of weekly rows |",
        "|---|---|---|---|---|---|",
        *(_line(each) for each in results["answers"]),
    ]


def _line(answer: dict[str, Any]) -> str:
    mart, weekly = answer["mart"], answer["weekly"]
    compared = f"{weekly['p95']:.0f} | {mart['p95'] / weekly['p95']:.4f}" if weekly else "– | –"
    return (
        f"| {answer['question']} | {mart['p50']:.2f} | {mart['p95']:.2f}"
        f" | {mart['per_second']:,.0f} | {compared} |"
    )
