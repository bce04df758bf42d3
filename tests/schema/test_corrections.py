"""What the specifications' own SQL would store wrongly or refuse, where no other test shows it.

Most corrections are shown beside the tables they are about; here are those of the sync of Search
Query Performance, and what holds for all tables at once.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from flows.sources.normalise import normalise_query, query_digest
from tests.integration.deliveries import Parcel, asin, row, sync
from tests.integration.landing_rows import UK, Landing, week
from tests.integration.test_dbt_models import (  # noqa: F401
    DECEMBER_29,
    JANUARY_5,
    JANUARY_12,
    RED,
    SUMMARIES,
    Dbt,
    assert_summaries_are_exact,
    database,
    dbt,
    landing,
    query,
    rows_of,
)
from tests.schema.catalogue import OURS

PERIODS = ("monthly_summary", "quarterly_summary")
PAST_FOUR_BYTES = 2**31 + 5
LONG_QUERY = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(94))[:6000]
"""Without repetition, so that no compression makes it fit into an index."""


@pytest.fixture
def session(landing: Landing) -> psycopg.Connection[Any]:  # noqa: F811
    return landing.connection


def add_run(session: psycopg.Connection[Any], **changed: object) -> int:
    """Record a run in progress; its id."""
    return add(
        session,
        "sync_log",
        {"sync_type": "weekly", "source_table": "s", "target_table": "t"} | changed,
    )


def add_check(session: psycopg.Connection[Any], **changed: object) -> int:
    """Record a check that passed; its id."""
    return add(
        session,
        "data_quality_checks",
        {"check_type": "row_count", "check_name": "rows", "check_status": "passed"} | changed,
    )


def add(session: psycopg.Connection[Any], table: str, values: dict[str, object]) -> int:
    statement = sql.SQL("insert into sqp.{} ({}) values ({}) returning id").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(sql.Placeholder() * len(values)),
    )
    added = session.execute(statement, list(values.values())).fetchone()
    assert added
    return int(added[0])


def test_a_week_counts_once_in_its_month_and_quarter_and_is_gone_when_deleted(
    landing: Landing,  # noqa: F811
    dbt: Dbt,  # noqa: F811
) -> None:
    """A trigger that adds each written row made 4100 of this, and kept it after the deletion.

    The week begins in December and ends in January: it belongs to its first day.
    """
    about = week(DECEMBER_29, RED)

    def held() -> list[tuple[Any, ...]]:
        return [
            (str(each["period_start"]), each["total_impressions"], each["impression_share"])
            for summary in PERIODS
            for each in rows_of(landing, f"sqp.{summary}")
        ]

    landing.deliver(about, [query("red shoe", own_impressions=1000, impressions=5000)])
    dbt.run()
    for _ in range(2):
        landing.connection.execute(
            "update sqp.weekly_summary set last_synced_at = clock_timestamp()"
        )
    first_days = ("2024-12-01", "2024-10-01")
    assert held() == [(day, 1000, Decimal("0.2")) for day in first_days]
    landing.deliver(about, [query("red shoe", own_impressions=1100, impressions=5000)])
    dbt.run()
    assert held() == [(day, 1100, Decimal("0.22")) for day in first_days]
    landing.deliver(about, [])
    dbt.run()
    assert held() == []


def test_long_queries_of_several_owners_and_markets_are_summed_past_four_bytes(
    landing: Landing,  # noqa: F811
    dbt: Dbt,  # noqa: F811
) -> None:
    """An integer overflowed, a long query did not fit the key, and owners shared one key."""
    row_of_a_week = query(
        LONG_QUERY,
        own_impressions=PAST_FOUR_BYTES,
        impressions=2 * PAST_FOUR_BYTES,
        own_clicks=PAST_FOUR_BYTES - 1,
        clicks=PAST_FOUR_BYTES,
        volume=PAST_FOUR_BYTES,
    )
    for start in (JANUARY_5, JANUARY_12):
        landing.deliver(week(start, RED), [row_of_a_week])
    landing.deliver(week(JANUARY_5, RED, account="other"), [row_of_a_week])
    landing.deliver(week(JANUARY_5, RED, marketplace=UK), [row_of_a_week])
    dbt.run()
    assert_summaries_are_exact(landing)
    for summary in PERIODS:
        found = rows_of(landing, f"sqp.{summary}", "query, total_impressions")
        assert sorted(each["total_impressions"] for each in found) == [
            PAST_FOUR_BYTES,
            PAST_FOUR_BYTES,
            2 * PAST_FOUR_BYTES,
        ]
        assert {each["query"] for each in found} == {LONG_QUERY}
    for summary in SUMMARIES:
        with pytest.raises(errors.ProgramLimitExceeded):
            landing.connection.execute(f"create index on sqp.{summary} (query)")


def test_a_query_is_one_however_it_is_written_and_stays_as_it_was_delivered(
    session: psycopg.Connection[Any],
) -> None:
    """The key was the text itself, so that another case was another query."""
    written = ["  Café\tSHOE ", "cafe\u0301 shoe"]
    start = JANUARY_5
    for hour, text in enumerate(written):
        key = normalise_query(text)
        delivered = row(asin(1), start, key, 10 + hour, 1)
        delivered |= {"search_query": text, "query_digest": query_digest(key)}
        sync([Parcel([], hour=hour, name=f"file {hour}", extra_rows=[delivered])])
        stored = session.execute("select search_query, query from landing.sqp_asin").fetchall()
        assert stored == [(text, "café shoe")]


ENDED: dict[str, object] = {"completed_at": "infinity"}
TYPOS: list[tuple[Any, dict[str, object], str]] = [
    (add_run, {"sync_type": "Weekly"}, "sync_type"),
    (add_run, {"sync_type": "daily"}, "sync_type"),
    (add_run, {"sync_status": "success"} | ENDED, "sync_status"),
    (add_run, {"sync_status": "running"} | ENDED, "sync_status"),
    (add_check, {"check_status": "pass"}, "check_status"),
    (add_check, {"check_status": "error"}, "check_status"),
    (add_check, {"check_type": "rowcount"}, "check_type"),
]


@pytest.mark.parametrize(("record", "typo", "column"), TYPOS)
def test_a_word_that_is_not_in_the_list_is_refused(
    session: psycopg.Connection[Any], record: Any, typo: dict[str, object], column: str
) -> None:
    """There was no CHECK on any of these."""
    record(session)
    with pytest.raises(errors.CheckViolation, match=f"{column}_check"):
        record(session, **typo)


@pytest.mark.parametrize("subject", ["B00000001", "B0000000001", "b000000001", "B00000000\n", ""])
def test_a_slice_is_of_an_asin_that_can_be(
    landing: Landing,  # noqa: F811
    subject: str,
) -> None:
    """A varchar(10) refuses only what is longer, and the whole load with it."""
    landing.deliver(week(JANUARY_5, "B000000001"), [])
    with pytest.raises(errors.CheckViolation, match="sqp_slices"):
        landing.deliver(week(JANUARY_5, subject), [])


@pytest.mark.parametrize("percent", ["0.00008", "-0.00000000012", "12345678901234.5", None])
def test_a_small_difference_is_not_rounded_away(
    session: psycopg.Connection[Any], percent: str | None
) -> None:
    """A decimal(10, 2) made 0.00 of the first, and refused the third."""
    value = percent and Decimal(percent)
    add_check(session, source_value=0, target_value=1, difference=1, difference_pct=value)
    found = session.execute("select difference_pct from sqp.data_quality_checks").fetchone()
    assert found == (value,)


def test_a_run_counts_past_four_bytes(session: psycopg.Connection[Any]) -> None:
    """The counters were integers."""
    add_run(session, records_processed=PAST_FOUR_BYTES, records_updated=PAST_FOUR_BYTES)
    found = session.execute("select records_processed, records_updated from sqp.sync_log")
    assert found.fetchall() == [(PAST_FOUR_BYTES, PAST_FOUR_BYTES)]


def test_a_deleted_run_takes_its_checks_along_and_a_run_with_deliveries_stays(
    landing: Landing,  # noqa: F811
) -> None:
    """A run with checks could not be deleted, and the log cannot be partitioned as was said."""
    session = landing.connection
    run = add_run(session)
    add_check(session, sync_log_id=run)
    session.execute("delete from sqp.sync_log where id = %s", (run,))
    assert rows_of(landing, "sqp.data_quality_checks") == []
    landing.deliver(week(JANUARY_5, RED), [query("red shoe")])
    with pytest.raises(errors.ForeignKeyViolation, match="sqp_slices"):
        session.execute("delete from sqp.sync_log")
    kinds = session.execute("select relkind from pg_class where oid = 'sqp.sync_log'::regclass")
    assert kinds.fetchall() == [("r",)]


KEYS_WITH_NULLS = f"""
select distinct format('%s.%s', tables.relname, columns.attname)
from pg_index as indexes
inner join pg_class as tables on indexes.indrelid = tables.oid
inner join pg_namespace as namespaces on tables.relnamespace = namespaces.oid
inner join pg_attribute as columns
    on indexes.indrelid = columns.attrelid and columns.attnum = any(indexes.indkey)
where
    indexes.indisunique
    and not indexes.indnullsnotdistinct
    and indexes.indpred is null
    and not tables.relispartition
    and namespaces.nspname in {OURS}
    and not columns.attnotnull
    and not exists (
        select
        from pg_index as primary_keys
        where
            primary_keys.indrelid = indexes.indrelid
            and primary_keys.indisprimary
            and primary_keys.indkey::int2[] <@ indexes.indkey::int2[]
    )
order by 1
"""
"""Nullable columns of keys in which two NULLs are two values; not of those that hold the primary
key, which are there for foreign keys."""


def test_no_key_counts_two_missing_values_as_two(session: psycopg.Connection[Any]) -> None:
    """A UNIQUE over nullable columns let duplicates in."""
    assert session.execute(KEYS_WITH_NULLS).fetchall() == []
