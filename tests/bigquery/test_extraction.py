"""Extraction from BigQuery, over real HTTP and gRPC against the local engine."""

from __future__ import annotations

import logging
from datetime import date
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from flows.errors import UnreadableDelivery, UsageError
from flows.settings import get_settings
from flows.sources.bigquery_client import BigQueryError
from flows.sources.bigquery_request import BigQueryRequest
from tests.bigquery.engine import Engine
from tests.bigquery.source_table import (
    SUNDAY,
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


def test_only_changed_slices_are_read_and_the_end_is_as_if_all_had_been(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    insert(engine, [r for week in range(4) for n in (1, 2, 3) for r in rows_of(asin(n), week, 20)])
    first = extract()
    assert first.tally.records["inserted"] == 240
    assert first.metadata["read_through"] == "storage"
    assert first.metadata["read_streams"] > 1
    assert first.metadata["rows_read"] == 240
    assert first.metadata["estimated_bytes"] > 0
    job_ids = {r[0] for r in warehouse.execute("select source_file from landing.sqp_slices")}
    assert job_ids == {first.comparison.job_id}
    price = warehouse.execute(
        "select max(total_median_click_price), max(asin_impression_share) from landing.sqp_asin"
    ).fetchone()
    assert price is not None
    assert price[0] == Decimal("19.9900")
    assert price[1] < 0.1, "percent became fractions"

    engine.faults()
    again = extract()
    assert again.comparison.job_id == "unchanged"
    assert not [each for each in engine.asked() if "jobs" in each or "queries" in each]

    # One restated, one emptied, one late, one that only its price tells apart.
    change(
        engine,
        "update {table} set `ASIN Impression Count` = 1 where `Child ASIN` ="
        f" '{asin(1)}' and `Date` = '{sunday(2)}' and `Search Query` = 'query 3'",
    )
    change(
        engine, f"delete from {{table}} where `Child ASIN` = '{asin(2)}' and `Date` = '{sunday(1)}'"
    )
    change(
        engine,
        "update {table} set `ASIN Median Click Price Amount` = 17.25 where"
        f" `Child ASIN` = '{asin(3)}' and `Date` = '{SUNDAY}'",
    )
    insert(engine, rows_of(asin(9), 6, 5))
    engine.faults()
    third = extract()
    assert set(third.comparison.changed()) == {
        ("Acme", sunday(2), asin(1)),
        ("Acme", SUNDAY, asin(3)),
        ("Acme", sunday(6), asin(9)),
    }
    assert third.metadata["rows_read"] == 45, "and no row beyond the changed slices"
    assert third.tally.records == {"inserted": 5, "updated": 21, "unchanged": 19, "deleted": 20}
    [asked] = asked_for_rows(engine)
    assert asin(2) not in asked
    assert f"`Date` >= date '{sunday(2)}'" in asked
    contents = in_force(warehouse)
    assert contents[asin(2), str(sunday(1))] == []
    assert ("query 3", 1) in contents[asin(1), str(sunday(2))]

    engine.faults()
    assert not extract().comparison.changed()

    # From nothing the same comes out.
    warehouse.execute(
        "truncate landing.sqp_slices, landing.sqp_asin, landing.bigquery_slices cascade"
    )
    extract()
    assert {key: rows for key, rows in contents.items() if rows} == in_force(warehouse)


@pytest.mark.parametrize(
    ("date_type", "number"), [("DATETIME", "NUMERIC"), ("TIMESTAMP", "BIGNUMERIC")]
)
def test_dates_and_numbers_of_every_kind_mean_the_same(
    engine: Engine, warehouse: psycopg.Connection[Any], date_type: str, number: str
) -> None:
    create(engine, date_type=date_type, number=number)
    insert(engine, [*rows_of(asin(1), 0, 3), row(asin(1), "late", 50, date(2026, 11, 14))])
    done = extract()
    assert not done.tally.records["failed"]
    assert in_force(warehouse) == {
        (asin(1), str(SUNDAY)): [("query 0", 40), ("query 1", 41), ("query 2", 42)],
        (asin(1), str(sunday(1))): [("late", 50)],
    }
    share = warehouse.execute(
        "select asin_impression_share from landing.sqp_asin where query = 'query 0'"
    ).fetchone()
    assert share == (0.0983,)
    engine.faults()
    insert(engine, rows_of(asin(2), 0, 2))
    assert set(extract().comparison.changed()) == {("Acme", SUNDAY, asin(2))}


def test_rows_that_are_there_twice_do_not_hide_a_restatement(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    insert(engine, rows_of(asin(1), 0, 2) * 2)
    assert extract().tally.records["inserted"] == 2
    change(engine, "update {table} set `ASIN Impression Count` = 5 where true")
    assert extract().tally.records["updated"] == 2


def test_bad_rows_are_refused_and_the_others_go_on(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    wrong = [row("short", "x", 40, SUNDAY), row(asin(1), "midweek", 40, date(2026, 11, 18))]
    undated = row(asin(1), "undated", 40, SUNDAY) | {"Date": None}
    insert(engine, [*rows_of(asin(1), 0, 2), *wrong, undated])
    done = extract()
    assert done.tally.records == {"inserted": 2, "failed": 2}
    assert done.metadata["rows_without_date"] == 1
    checks = warehouse.execute("select check_status, source_value from sqp.data_quality_checks")
    assert checks.fetchall() == [("warning", 1)]
    engine.faults()
    assert not extract().comparison.changed()


def test_the_window_rolls_stretches_and_is_asked_for(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    insert(engine, [r for week in (0, 7, 12, 13, 40) for r in rows_of(asin(1), week, 2)])
    assert sorted({name.period_start for name in extract().comparison.found}) == [
        sunday(12),
        sunday(7),
        SUNDAY,
    ], "the first load takes 90 days"
    change(engine, "update {table} set `ASIN Impression Count` = 5 where true")
    assert {n.period_start for n in extract().comparison.changed()} == {SUNDAY, sunday(7)}
    assert {n.period_start for n in extract(BigQueryRequest(weeks=52)).comparison.changed()} == {
        sunday(40),
        sunday(13),
        sunday(12),
    }
    warehouse.execute("delete from landing.bigquery_slices where period_start > %s", (sunday(12),))
    with compared() as (_, comparison):
        assert comparison.first_day == sunday(12), "after a pause the window leaves no gap"
    with compared(BigQueryRequest(since=date(2026, 11, 4))) as (_, comparison):
        assert comparison.first_day == date(2026, 11, 1)


def test_a_table_suddenly_empty_and_a_week_that_lost_most_are_held_back(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    insert(engine, [r for week in range(3) for r in rows_of(asin(1), week, 10)])
    with pytest.raises(UnreadableDelivery, match="no row from"):
        create_empty_and_extract(engine)
    insert(engine, [r for week in range(3) for r in rows_of(asin(1), week, 10)])
    extract()
    before = in_force(warehouse)

    change(
        engine, f"delete from {{table}} where `Date` = '{sunday(1)}' and `Search Query` > 'query 3'"
    )
    insert(engine, [row(asin(2), "new", 40, SUNDAY)])
    held = extract()
    assert [loss.period_start for loss in held.comparison.losses] == [sunday(1)]
    [told] = held.comparison.held_back()
    assert f"the week of {sunday(1)}" in told.what
    assert "had 10 rows and has 4" in told.why
    assert in_force(warehouse) == before | {(asin(2), str(SUNDAY)): [("new", 40)]}
    assert warehouse.execute(
        "select check_type, check_status, source_value, target_value, difference,"
        " check_metadata ->> 'period_start' from sqp.data_quality_checks"
    ).fetchall() == [("volume", "failed", 10, 4, -6, str(sunday(1)))]

    change(engine, "delete from {table} where true")
    emptied = extract()
    assert [loss.period_start for loss in emptied.comparison.losses] == [None]
    assert "the whole window" in emptied.comparison.held_back()[0].what
    assert in_force(warehouse) == before | {(asin(2), str(SUNDAY)): [("new", 40)]}

    extract(BigQueryRequest(accept_losses=True))
    assert not any(in_force(warehouse).values())


def create_empty_and_extract(engine: Engine) -> None:
    create(engine)
    extract()


def test_exactly_half_of_a_week_is_no_loss(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    insert(engine, rows_of(asin(1), 0, 10))
    extract()
    change(engine, "delete from {table} where `Search Query` > 'query 4'")
    assert not extract().comparison.losses


def test_a_table_that_breaks_the_contract_is_not_read(
    engine: Engine, warehouse: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    insert(engine, rows_of(asin(1), 0, 2))
    extract()
    change(engine, "alter table {table} add column `Extra` string")
    with caplog.at_level(logging.WARNING):
        extract()
    assert "a new column `Extra`" in caplog.text

    change(engine, "alter table {table} rename column `ASIN Click Count` to `ASIN Clicks Count`")
    change(engine, "alter table {table} drop column `Date`")
    change(engine, "alter table {table} add column `Date` string")
    engine.faults()
    with pytest.raises(BigQueryError) as caught:
        extract()
    why = caught.value.why
    assert "`ASIN Click Count` is missing, perhaps renamed to `ASIN Clicks Count`" in why
    assert "`Date` is STRING (expected DATE or DATETIME or TIMESTAMP)" in why
    assert not [each for each in engine.asked() if "jobs" in each], "no query was run"


FORBIDDEN = {"code": "PERMISSION_DENIED", "message": "no bigquery.readsessions.create"}


def test_rest_is_the_fallback_and_says_so(
    engine: Engine,
    warehouse: psycopg.Connection[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    insert(engine, [r for week in range(3) for r in rows_of(asin(1), week, 20)])
    engine.faults({"at": "CreateReadSession", **FORBIDDEN})
    with caplog.at_level(logging.WARNING):
        done = extract()
    assert "read over REST" in caplog.text
    assert "no bigquery.readsessions.create" in caplog.text
    assert (done.metadata["read_through"], done.metadata["rows_read"]) == ("rest", 60)
    over_rest = in_force(warehouse)

    warehouse.execute(
        "truncate landing.sqp_slices, landing.sqp_asin, landing.bigquery_slices cascade"
    )
    assert extract().metadata["read_through"] == "storage"
    assert in_force(warehouse) == over_rest

    insert(engine, rows_of(asin(3), 0, 2))
    of_a_view = "request failed: non-table entities cannot be read with the storage API"
    engine.faults({"at": "CreateReadSession", "code": "INVALID_ARGUMENT", "message": of_a_view})
    assert extract().metadata["read_through"] == "rest", "a view has no other way"

    monkeypatch.setenv("BIGQUERY_STORAGE_API", "false")
    get_settings.cache_clear()
    insert(engine, rows_of(asin(2), 0, 2))
    caplog.clear()
    assert extract().metadata["read_through"] == "rest"
    assert "switched off" in caplog.text


def test_what_would_cost_too_much_is_not_asked(
    engine: Engine, warehouse: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(engine, rows_of(asin(1), 0, 2))
    monkeypatch.setenv("BIGQUERY_MAXIMUM_BYTES_BILLED", "100")
    get_settings.cache_clear()
    engine.faults()
    with pytest.raises(BigQueryError, match="would cost more than it may") as caught:
        extract()
    assert "at most 100" in caught.value.why
    assert "--since" in caught.value.next_step
    assert len([each for each in engine.asked() if "POST" in each]) == 1, "the dry run alone"


def test_a_table_that_changes_while_it_is_read_is_not_loaded(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    insert(engine, rows_of(asin(1), 0, 5))
    with compared() as (_, comparison):
        insert(engine, [row(asin(1), "meanwhile", 40, SUNDAY)])
        with pytest.raises(BigQueryError, match="5 rows were promised and 6 came"):
            list(comparison.open_batches())


def test_settings_that_cannot_mean_anything_are_refused(
    engine: Engine, warehouse: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="is not known"):
        extract(BigQueryRequest(marketplace="ZZ"))
    monkeypatch.delenv("BIGQUERY_DATASET")
    get_settings.cache_clear()
    with pytest.raises(UsageError, match="BIGQUERY_DATASET is not set"):
        extract()


def test_an_account_that_is_named_has_a_memory_of_its_own(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    insert(engine, rows_of(asin(1), 0, 3))
    extract()
    renamed = extract(BigQueryRequest(account="other"))
    assert renamed.tally.records["inserted"] == 3
    assert not renamed.comparison.gone(), "the rows of Acme were not deleted"
