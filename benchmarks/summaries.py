"""Weeks into months and quarters: by dbt and by the triggers, against the specification's trigger.

Weeks of 200,000 rows, after a short history and after a long one. The time of dbt is the time of
its statements on the server, as `pg_stat_statements` counts it: what it costs the database. The
write-ahead log is counted from a checkpoint on, the images of whole pages included.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks import search_weeks
from benchmarks.dbt_runs import run_dbt
from benchmarks.server import fresh_database
from flows import console
from flows.warehouse.connection import connect

NEW_WEEK = date(2026, 11, 15)
SHORT, LONG = 8, 104
SEED_TRIGGER = Path(__file__).with_name("seed_trigger.sql")
SUMMARIES = ("weekly_summary", "monthly_summary", "quarterly_summary")
SELECTED = ("--select", *(f"+{summary}" for summary in SUMMARIES))

# What the rows' order costs is the same for both: sorted as the table's unique index is.
BARE = """
create schema bare;
create table bare.weekly_summary (like sqp.weekly_summary including all)
partition by range (period_start);
create table bare.weekly_summary_now partition of bare.weekly_summary
for values from ('2026-11-01') to ('2026-12-01');
insert into bare.weekly_summary
select *
from sqp.weekly_summary
where period_start >= '2026-11-01' and period_start < '2026-11-15';
"""
KEEP_NEW_WEEK = """
create table seed.new_week as
select *
from sqp.weekly_summary
where period_start = '2026-11-15'
order by account_id, period_start, marketplace_id, asin, query_digest
"""
INSERT_NEW_WEEK = "insert into {}.weekly_summary ({}) select {} from seed.new_week"

# What dbt's own strategy does for each summary: the touched periods anew into a temporary table,
# their keys deleted, all of it inserted.
STOCK = """
create temporary table stock_week as
select *
from sqp.weekly_summary
where period_start = '2026-11-15';
delete from stock.weekly_summary using stock_week
where
    stock_week.account_id = weekly_summary.account_id
    and stock_week.period_start = weekly_summary.period_start
    and stock_week.marketplace_id = weekly_summary.marketplace_id
    and stock_week.asin = weekly_summary.asin
    and stock_week.query_digest = weekly_summary.query_digest;
insert into stock.weekly_summary select * from stock_week;
"""
STOCK_PERIOD = """
create temporary table stock_{period} as
select held.*
from (
    select
        account_id,
        marketplace_id,
        query_digest,
        asin,
        sum(total_impressions) as total_impressions,
        sum(total_clicks) as total_clicks,
        sum(cart_adds) as cart_adds,
        sum(total_purchases) as total_purchases,
        count(*) as active_weeks
    from stock.weekly_summary
    where period_start >= date_trunc('{period}', date '2026-11-15') and period_start < '2027-01-01'
    group by account_id, marketplace_id, query_digest, asin
) as summed
inner join sqp.{summary} as held
    on
        held.period_start = date_trunc('{period}', date '2026-11-15')
        and held.account_id = summed.account_id
        and held.marketplace_id = summed.marketplace_id
        and held.query_digest = summed.query_digest
        and held.asin = summed.asin;
delete from stock.{summary} using stock_{period}
where
    stock_{period}.account_id = {summary}.account_id
    and stock_{period}.marketplace_id = {summary}.marketplace_id
    and stock_{period}.query_digest = {summary}.query_digest
    and stock_{period}.asin = {summary}.asin
    and stock_{period}.period_start = {summary}.period_start;
insert into stock.{summary} select * from stock_{period};
"""
STOCK_TWIN = """
create table stock.{summary} (like sqp.{summary} including all);
insert into stock.{summary}
select *
from sqp.{summary}
where period_start >= '2026-10-01'
"""
# What no way can do without: the finished rows of the new week, and of the months and quarters that
# it is in, written once into tables with the same columns and indexes. Nothing is computed.
LEAST_TWIN = """
create schema if not exists finished;
create table finished.{summary} (like sqp.{summary} including all);
create table finished.{summary}_rows as
select *
from sqp.{summary}
where period_start >= date_trunc('{period}', date '2026-11-15') and period_start <= '2026-11-15'
order by account_id, period_start, marketplace_id, asin, query_digest
"""
LEAST = "insert into finished.{summary} select * from finished.{summary}_rows"

READ = """
select query, asin, click_share
from sqp.monthly_summary
where account_id = %s and marketplace_id = %s and period_start = '2026-11-01'
limit 20
"""


def run(long: int = LONG) -> dict[str, Any]:
    """Measure after a short history, against other ways too, and after a long one."""
    return {"short": after(SHORT, others=True), "long": after(long, others=False)}


def after(weeks: int, *, others: bool) -> dict[str, Any]:
    """What the events of a week cost after so many weeks of history."""
    with fresh_database(), tempfile.TemporaryDirectory() as folder, connect(autocommit=True) as own:
        count_statements(own)

        def dbt() -> None:
            # One model after the other: two at once would count each other's waits as their own.
            run_dbt(Path(folder), *SELECTED, "--threads", "1")

        search_weeks.prepare(own)
        for number, first_day in enumerate(search_weeks.weeks_before(NEW_WEEK, weeks), start=1):
            search_weeks.deliver_week(own, first_day)
            console.note(f"  week {number} of {weeks} delivered")
        done: dict[str, Any] = {"weeks": weeks}
        done["full refresh"] = measured(own, dbt)
        own.execute("vacuum (analyze)")
        if others:
            own.execute(SEED_TRIGGER.read_text(encoding="utf-8"))  # type: ignore[arg-type]
            own.execute(BARE)
            own.execute("vacuum (analyze)")
        search_weeks.deliver_week(own, NEW_WEEK)
        own.execute("vacuum (analyze) landing.sqp_asin, landing.sqp_slices, sqp.slice_builds")
        with waits_of_a_reader() as waits:
            done["new week"] = measured(own, dbt)
        done["longest wait of a reader"] = max(waits)
        done["rows"] = own.execute(
            "select count(*) from sqp.weekly_summary where period_start = %s", (NEW_WEEK,)
        ).fetchone()[0]  # type: ignore[index]
        own.execute(
            "vacuum (analyze) sqp.weekly_summary, sqp.monthly_summary, sqp.quarterly_summary"
        )
        done["nothing new"] = measured(own, dbt)
        done["nothing new, again"] = measured(own, dbt, checkpoint=False)
        search_weeks.restate(own, NEW_WEEK, asins=1, share=1)
        done["one slice"] = measured(own, dbt)
        if others:
            done |= other_ways(own)
        search_weeks.restate(own, NEW_WEEK, asins=search_weeks.ASINS, share=0.02)
        own.execute("vacuum (analyze) landing.sqp_asin, landing.sqp_slices, sqp.slice_builds")
        done["restated week"] = measured(own, dbt)
        return done


def other_ways(own: psycopg.Connection[Any]) -> dict[str, Any]:
    """The same week by the other ways, each on twins of the summaries as they were before it."""
    done: dict[str, Any] = {}
    own.execute(KEEP_NEW_WEEK)
    columns = sql.SQL(", ").join(
        sql.Identifier(name)
        for (name,) in own.execute(
            "select attname from pg_attribute"
            " where attrelid = 'seed.new_week'::regclass and attnum > 0 order by attnum"
        )
    )
    for way in ("bare", "seed"):
        statement = sql.SQL(INSERT_NEW_WEEK).format(sql.Identifier(way), columns, columns)
        done[way] = measured(own, lambda statement=statement: own.execute(statement))

    periods = dict(zip(SUMMARIES, ("week", "month", "quarter"), strict=True))
    for summary, period in periods.items():
        # Their week begins on a Monday, ours on a Sunday: it is the day itself.
        begins = "day" if period == "week" else period
        own.execute(LEAST_TWIN.format(summary=summary, period=begins))  # type: ignore[arg-type]
    least = "; ".join(LEAST.format(summary=summary) for summary in SUMMARIES)
    with waits_of_a_reader() as waits:
        done["least"] = measured(own, lambda: own.execute(least))  # type: ignore[arg-type]
    done["longest wait of a reader beside the least"] = max(waits)

    own.execute("create schema stock")
    for summary in SUMMARIES:
        own.execute(STOCK_TWIN.format(summary=summary))  # type: ignore[arg-type]
    own.execute("vacuum (analyze)")
    stock = STOCK + "".join(
        STOCK_PERIOD.format(period=period, summary=summary)
        for period, summary in (("month", SUMMARIES[1]), ("quarter", SUMMARIES[2]))
    )
    done["stock"] = measured(own, lambda: own.execute(stock))  # type: ignore[arg-type]

    # The triggers themselves put the months and quarters back to what they were before the week.
    own.execute("delete from sqp.weekly_summary where period_start = '2026-11-15'")
    own.execute("vacuum (analyze)")
    statement = sql.SQL(INSERT_NEW_WEEK).format(sql.Identifier("sqp"), columns, columns)
    done["trigger"] = measured(own, lambda: own.execute(statement))
    return done


def count_statements(connection: psycopg.Connection[Any]) -> None:
    """Have the server count every statement, `create table … as` too, for `measured`."""
    connection.execute("create extension if not exists pg_stat_statements")
    connection.execute("alter system set pg_stat_statements.track_utility = on")
    connection.execute("select pg_reload_conf()")
    connection.execute("set client_min_messages = warning")


def measured(
    connection: psycopg.Connection[Any], action: Callable[[], Any], *, checkpoint: bool = True
) -> dict[str, Any]:
    """Seconds of the statements on the server, and megabytes of log written.

    After a checkpoint the first change of each page writes it whole into the log: the most that the
    action can write. `computing_s` are those of the statements by which dbt computes new rows,
    before it writes them.
    """
    if checkpoint:
        connection.execute("checkpoint")
    connection.execute("select pg_stat_statements_reset()")
    begun = lsn(connection)
    action()
    wal_mb = (lsn(connection) - begun) / 1e6
    row = connection.execute(
        """
        select
            sum(total_exec_time) / 1000,
            sum(total_exec_time) filter (where query like '%create temporary table%') / 1000
        from pg_stat_statements
        where
            dbid = (select oid from pg_database where datname = current_database())
            and query not like '%pg_stat_statements_reset%'
        """
    ).fetchone()
    assert row is not None
    return {"sql_s": row[0], "computing_s": row[1], "wal_mb": wal_mb}


def lsn(connection: psycopg.Connection[Any]) -> int:
    """Bytes of write-ahead log since the server was made."""
    row = connection.execute("select pg_current_wal_insert_lsn() - '0/0'").fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def waits_of_a_reader() -> Iterator[list[float]]:
    """How long each of many reads of the current month takes, in seconds, while the body runs."""
    waits = [0.0]
    ended = threading.Event()

    def read() -> None:
        asked = (search_weeks.ACCOUNT, search_weeks.MARKETPLACE)
        with connect(autocommit=True) as reader:
            reader.execute(READ, asked)  # what a session does once is no wait for anybody
            while not ended.is_set():
                started = time.perf_counter()
                reader.execute(READ, asked)
                waits.append(time.perf_counter() - started)
                time.sleep(0.005)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield waits
    finally:
        ended.set()
        thread.join()
