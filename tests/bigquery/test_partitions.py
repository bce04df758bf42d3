"""A table that is partitioned by its date: what nobody wrote to is neither compared nor read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.settings import get_settings
from flows.sources.bigquery_client import BigQueryError
from flows.sources.bigquery_partitions import Compared, weeks_written_to, within
from flows.sources.bigquery_request import BigQueryRequest
from tests.bigquery.engine import Engine
from tests.bigquery.source_table import (
    SUNDAY,
    TODAY,
    Extracted,
    asked_for_rows,
    change,
    compared,
    create,
    extract,
    in_force,
    insert,
    row,
    rows_of,
    sunday,
)
from tests.integration.deliveries import asin

EVERYTHING = BigQueryRequest(weeks=52)
ANY = "`ASIN Impression Count` = `ASIN Impression Count` + 1"


def fill(engine: Engine, weeks: int = 8, partition_by: str = "`Date`") -> None:
    """A table of so many weeks and three products."""
    create(engine, partition_by=partition_by)
    insert(engine, [r for w in range(weeks) for n in (1, 2, 3) for r in rows_of(asin(n), w, 5)])


def of_one_week(engine: Engine, week: date, what: str = ANY) -> None:
    change(engine, f"update {{table}} set {what} where `Date` = '{week}'")


def hashed(engine: Engine) -> list[str]:
    """The queries so far that hashed rows."""
    return [each["sql"] for each in engine.statements() if "farm_fingerprint" in each["sql"]]


def compared_weeks(done: Extracted) -> int | None:
    return done.metadata.get("weeks_written_to")


def test_one_week_of_52_costs_less_than_three_percent(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    fill(engine, weeks=52)
    first = extract(EVERYTHING)
    table_bytes = first.metadata["read_estimated_bytes"]
    assert first.metadata["bytes_processed"] == table_bytes
    of_one_week(engine, sunday(3))
    insert(engine, rows_of(asin(9), 3, 2))
    change(
        engine,
        f"delete from {{table}} where `Date` = '{sunday(3)}' and `Child ASIN` = '{asin(2)}'",
    )
    before = len(hashed(engine))
    done = extract(EVERYTHING)
    read = done.metadata["bytes_processed"] + done.metadata["read_estimated_bytes"]
    assert 0.015 < read / table_bytes < 0.03
    assert compared_weeks(done) == 1
    assert len(hashed(engine)) == before, "nothing was hashed"
    assert done.tally.records == {"inserted": 2, "updated": 10, "deleted": 5}
    contents = in_force(warehouse)
    assert contents[asin(1), str(sunday(3))][0] == ("query 0", 41)
    assert contents[asin(2), str(sunday(3))] == []

    engine.faults()
    again = extract(EVERYTHING)
    assert again.comparison.job_id == "unchanged"
    assert not asked_for_rows(engine)

    # From nothing the same comes out.
    warehouse.execute(
        "truncate landing.sqp_slices, landing.sqp_asin, landing.bigquery_slices cascade"
    )
    extract(EVERYTHING)
    assert {key: rows for key, rows in contents.items() if rows} == in_force(warehouse)


def test_weeks_that_come_late_are_restated_or_lose_their_partition_arrive(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    fill(engine, weeks=6)
    extract()
    insert(engine, rows_of(asin(1), 7, 4))
    late = extract()
    assert set(late.comparison.changed()) == {("Acme", sunday(7), asin(1))}
    # Of a slice that was read whole no sums are known: counting tells nothing, reading does.
    of_one_week(engine, sunday(7))
    restated = extract()
    assert restated.tally.records == {"updated": 4}

    change(engine, f"delete from {{table}} where `Date` = '{sunday(7)}'")
    held = extract()
    assert [loss.period_start for loss in held.comparison.losses] == [sunday(7)]
    again = extract()
    assert [loss.period_start for loss in again.comparison.losses] == [sunday(7)], "still held"
    extract(BigQueryRequest(accept_losses=True))
    assert in_force(warehouse)[asin(1), str(sunday(7))] == []


def test_of_a_table_that_was_filled_anew_only_what_changed_is_read(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    fill(engine)
    extract()
    fill(engine)
    of_one_week(engine, SUNDAY)
    engine.faults()
    done = extract()
    assert compared_weeks(done) == 8
    assert {name.period_start for name in done.comparison.changed()} == {SUNDAY}
    assert len(asked_for_rows(engine)) == 1


def test_the_window_is_compared_whole_now_and_then(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    fill(engine)
    assert compared_weeks(extract()) is None
    of_one_week(engine, SUNDAY)
    assert compared_weeks(extract()) == 1
    warehouse.execute(
        "update sqp.sync_log set sync_metadata = sync_metadata"
        " || jsonb_build_object('compared_whole_on', %s::text)",
        (str(TODAY - timedelta(days=28)),),
    )
    of_one_week(engine, SUNDAY)
    whole = extract()
    assert compared_weeks(whole) is None
    assert whole.tally.records == {"updated": 15}
    of_one_week(engine, sunday(1))
    assert compared_weeks(extract()) == 1


def test_months_are_partitions_too_and_a_wider_window_is_compared_where_it_is_wider(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    fill(engine, weeks=20, partition_by="date_trunc(`Date`, month)")
    extract()
    of_one_week(engine, SUNDAY)
    done = extract()
    assert set(done.comparison.changed()) == {("Acme", SUNDAY, asin(n)) for n in (1, 2, 3)}
    assert compared_weeks(done) == 5, "all weeks of November"
    of_one_week(engine, sunday(19))
    wide = extract(BigQueryRequest(weeks=30))
    assert {n.period_start for n in wide.comparison.changed()} == {
        sunday(back) for back in range(9, 20)
    } - {n.period_start for n in wide.comparison.known}


def test_a_table_without_partitions_is_compared_row_by_row(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    create(engine)
    insert(engine, [r for week in range(4) for r in rows_of(asin(1), week, 5)])
    extract()
    of_one_week(engine, SUNDAY)
    before = len(hashed(engine))
    done = extract()
    assert compared_weeks(done) is None
    assert len(hashed(engine)) == before + 1
    assert {name.period_start for name in done.comparison.changed()} == {SUNDAY}


def test_change_times_that_may_not_be_read_are_done_without(
    engine: Engine, warehouse: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    fill(engine, weeks=3)
    denied = {"status": 403, "reason": "accessDenied", "message": "bigquery.tables.list denied"}
    engine.faults({"at": "POST .*jobs", **denied})
    with caplog.at_level(logging.WARNING):
        assert extract().tally.records["inserted"] == 45
    assert "change times of its partitions may not be read" in caplog.text
    assert "bigquery.tables.list denied" in caplog.text
    of_one_week(engine, SUNDAY)
    assert compared_weeks(extract()) is None

    of_one_week(engine, SUNDAY)
    quota = {"status": 403, "reason": "quotaExceeded", "message": "Quota exceeded"}
    engine.faults({"at": "POST .*jobs", **quota})
    with pytest.raises(BigQueryError, match="quota"):
        extract()


def test_rows_without_a_date_are_told_also_where_weeks_alone_are_compared(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    fill(engine, weeks=3)
    extract()
    insert(engine, [row(asin(1), "undated", 40, SUNDAY) | {"Date": None}])
    of_one_week(engine, SUNDAY)
    done = extract()
    assert (compared_weeks(done), done.metadata["rows_without_date"]) == (1, 1)


def test_a_table_that_changed_between_catalogue_and_count_is_looked_at_again(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    fill(engine, weeks=3)
    extract()
    of_one_week(engine, SUNDAY)
    with compared() as (_, comparison):
        of_one_week(engine, SUNDAY)
        assert comparison.read_whole == {SUNDAY}
    assert extract().tally.records == {"updated": 15}
    assert get_settings().bigquery_whole_days == 28


FIRST = date(2026, 9, 27)
DAYS = st.integers(0, 90).map(lambda days: f"{FIRST + timedelta(days=days):%Y%m%d}")
TIMES = st.dictionaries(DAYS, st.sampled_from("abc"), max_size=12)


@given(before=TIMES, now=TIMES, first=st.integers(0, 8), wider=st.integers(0, 4))
def test_every_day_that_was_written_to_lies_in_a_week_that_is_compared(
    before: Mapping[str, str], now: Mapping[str, str], first: int, wider: int
) -> None:
    compared_from = FIRST + timedelta(weeks=first)
    first_day = compared_from - timedelta(weeks=wider)
    last = Compared(compared_from, True, None, before, frozenset(), FIRST)
    weeks = weeks_written_to(now, last, first_day)
    kept = within(before, compared_from)
    assert all((day >= f"{compared_from:%Y%m%d}") == (day in kept) for day in before)
    assert all(week.isoweekday() == 7 and week >= first_day for week in weeks)
    for day_id in before.keys() | now.keys():
        day = datetime.strptime(day_id, "%Y%m%d").date()
        week = day - timedelta(days=day.isoweekday() % 7)
        is_seen = week in weeks
        if week < first_day:
            assert not is_seen
        elif week >= compared_from:
            assert is_seen or before.get(day_id) == now.get(day_id)
        else:
            assert is_seen or day_id not in now


@pytest.mark.parametrize(
    ("partition", "weeks"),
    [
        ("2026", 53),
        ("202611", 5),
        ("202612", 5),
        ("20261121", 1),
        ("2026112123", 1),
        ("__NULL__", 0),
    ],
)
def test_a_partition_of_any_kind_has_its_weeks(partition: str, weeks: int) -> None:
    last = Compared(date(2025, 1, 5), True, None, {}, frozenset(), FIRST)
    assert len(weeks_written_to({partition: "t"}, last, date(2025, 1, 5))) == weeks
