"""The checks on what landed and on what was built of it, on a real database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from expectations.checks import CheckSummary, check_landed, reconcile
from flows.errors import WarehouseError
from flows.settings import PROJECT_ROOT, Connection

ROWS = 30
SUNDAY = date(2025, 3, 2)
CANARY = "CANARY-0b5e"

LANDED_ROWS = """
insert into landing.sqp_{view} (
    slice_id, load_id, account_id, marketplace_id, period_type, period_start, period_end, {view},
    search_query, query, query_digest, search_query_score, search_query_volume,
    total_query_impression_count, {view}_impression_count, {view}_impression_share,
    total_click_count, total_click_rate, {view}_click_count, {view}_click_share,
    total_cart_add_count, total_cart_add_rate, {view}_cart_add_count, {view}_cart_add_share,
    total_purchase_count, total_purchase_rate, {view}_purchase_count, {view}_purchase_share,
    total_median_click_price, currency_code, source_line, slice_digest, loaded_at
)
select
    slice_id, load_id, account_id, marketplace_id, period_type, period_start, period_end, subject,
    text, text, substring(sha256(text::bytea) from 1 for 16), line, 8000,
    10000, 500, 0.05, 800, 0.1, 40, 0.05, 400, 0.05, 10, 0.025, 80, 0.01, 5, 0.0625,
    12.5, 'USD', line, slice_digest, loaded_at
from landing.sqp_slices
cross join lateral (
    select line, %(canary)s || ' ' || line as text from generate_series(1, %(rows)s) as line
) as delivered
where slice_id = %(slice_id)s
"""


@dataclass
class Warehouse:
    """A database to land slices in by hand."""

    where: Connection
    session: psycopg.Connection[Any]
    logs: dict[str, int] = field(default_factory=dict)
    slices: int = 0

    def begin(self, *period_types: str) -> dict[str, int]:
        """A new run with a log row per period type."""
        types = {"WEEK": "weekly", "MONTH": "monthly", "QUARTER": "quarterly"}
        run_id = self.one("select gen_random_uuid()")
        self.logs = {
            period_type: self.one(
                """
                insert into sqp.sync_log
                    (run_id, sync_type, source_table, target_table, lease_until)
                values (%s, %s, 'files', 'sqp', now())
                returning id
                """,
                run_id,
                types[period_type],
            )
            for period_type in period_types
        }
        return self.logs

    def land(
        self,
        rows: int = ROWS,
        *,
        subject: str | None = None,
        view: str = "asin",
        period_type: str = "WEEK",
        week: int = 0,
        rejected: int = 0,
        accepted: bool = False,
    ) -> int:
        """Land a good slice; its log counts its rows as inserted. Returns its id."""
        self.slices += 1
        start = SUNDAY + timedelta(weeks=week)
        length = {"WEEK": 6, "MONTH": 30, "QUARTER": 90}[period_type]
        load_id = self.logs[period_type]
        slice_id = self.one(
            """
            insert into landing.sqp_slices (
                account_id, marketplace_id, report_view, period_type, period_start, period_end,
                subject, load_id, slice_digest, row_count, rejected_count, source_file,
                delivered_at, loaded_at
            )
            values ('acme', 'ATVPDKIKX0DER', %s, %s, %s, %s, %s, %s, '\\x00', %s, %s, 'f',
                now(), now())
            returning slice_id
            """,
            view,
            period_type,
            start,
            start + timedelta(days=length),
            subject or f"B{self.slices:09}",
            load_id,
            rows,
            rejected,
        )
        self.do("select app.create_monthly_partition(%s, %s)", f"landing.sqp_{view}", start)
        self.session.execute(
            LANDED_ROWS.format(view=view), {"canary": CANARY, "rows": rows, "slice_id": slice_id}
        )
        self.do(
            """
            update sqp.sync_log
            set
                records_processed = records_processed + %s + %s,
                records_inserted = records_inserted + %s,
                records_failed = records_failed + %s
            where id = %s
            """,
            rows,
            rejected,
            rows,
            rejected,
            load_id,
        )
        if accepted:
            self.accept(slice_id)
        return slice_id

    def land_again(self, slice_id: int, rows: int = ROWS) -> None:
        """A restatement: a good candidate beside the load in force."""
        self.do(
            "update landing.sqp_slices set load_id = %s, row_count = %s, slice_status = 'landed'"
            " where slice_id = %s",
            self.logs["WEEK"],
            rows,
            slice_id,
        )
        self.session.execute(
            LANDED_ROWS.format(view="asin"), {"canary": CANARY, "rows": rows, "slice_id": slice_id}
        )

    def accept(self, *slice_ids: int) -> None:
        self.do(
            """
            update landing.sqp_slices
            set
                slice_status = 'accepted',
                accepted_load_id = load_id,
                accepted_row_count = row_count,
                accepted_at = clock_timestamp()
            where slice_id = any(%s)
            """,
            list(slice_ids),
        )

    def alter(self, slice_id: int, change: str, lines: int = ROWS, view: str = "asin") -> None:
        """Set columns in the first lines of a slice."""
        self.do(
            f"update landing.sqp_{view} set {change} where slice_id = %s and source_line <= %s",
            slice_id,
            lines,
        )

    def build_summaries(self) -> None:
        """The columns that reconciliation reads, made of landing in force."""
        self.session.execute(
            """
            create table sqp.weekly_summary as
            select
                slices.account_id, slices.marketplace_id, slices.period_start,
                slices.subject as asin, query_digest, query,
                asin_impression_count as total_impressions, asin_click_count as total_clicks,
                asin_cart_add_count as cart_adds, asin_purchase_count as total_purchases
            from landing.sqp_slices as slices
            inner join landing.sqp_asin as delivered
                on slices.slice_id = delivered.slice_id
                and slices.accepted_load_id = delivered.load_id
            where slices.period_type = 'WEEK';

            create table sqp.monthly_summary as
            select
                account_id, marketplace_id, date_trunc('month', period_start)::date as period_start,
                asin, query_digest, max(query) as query,
                sum(total_impressions) as total_impressions, sum(total_clicks) as total_clicks,
                sum(cart_adds) as cart_adds, sum(total_purchases) as total_purchases
            from sqp.weekly_summary
            group by account_id, marketplace_id, 3, asin, query_digest;

            create table sqp.quarterly_summary as
            select
                account_id, marketplace_id,
                date_trunc('quarter', period_start)::date as period_start,
                asin, query_digest, max(query) as query,
                sum(total_impressions) as total_impressions, sum(total_clicks) as total_clicks,
                sum(cart_adds) as cart_adds, sum(total_purchases) as total_purchases
            from sqp.weekly_summary
            group by account_id, marketplace_id, 3, asin, query_digest;

            grant select on sqp.weekly_summary, sqp.monthly_summary, sqp.quarterly_summary to etl
            """
        )

    def check(self) -> CheckSummary:
        return check_landed(self.where, log_ids=self.logs)

    def reconcile(self, **options: Any) -> CheckSummary:
        return reconcile(self.where, log_ids=self.logs, **options)

    def checks(self, condition: str = "true") -> list[dict[str, Any]]:
        with self.session.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            cursor.execute(f"select * from sqp.data_quality_checks where {condition} order by id")
            return cursor.fetchall()

    def verdicts(self) -> dict[str, str]:
        """The checks that did not pass, with their status."""
        found = self.checks("check_status <> 'passed'")
        return {f"{row['table_name']} {row['check_name']}": row["check_status"] for row in found}

    def do(self, statement: str, *values: Any) -> None:
        self.session.execute(statement, values)

    def one(self, statement: str, *values: Any) -> Any:
        row = self.session.execute(statement, values).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture
def warehouse(database: Connection) -> Iterator[Warehouse]:
    with psycopg.connect(**database.libpq(), autocommit=True) as session:
        warehouse = Warehouse(database, session)
        warehouse.begin("WEEK")
        yield warehouse


WAYS_TO_BREAK: Mapping[str, tuple[str, int, str]] = {
    # way: change of the first n lines, and the check that must find it
    "query blank": ("query = ''", 1, "query_is_filled"),
    "search query blank": ("search_query = ''", 1, "search_query_is_filled"),
    "negative count": ("total_click_count = -5, total_click_rate = null", 1, "counts_not_negative"),
    "incredible count": ("search_query_volume = 2000000000000", 1, "counts_credible"),
    "negative share": ("asin_cart_add_share = -0.1", 1, "shares_not_negative"),
    "percent for fraction": ("asin_click_share = 5", 1, "shares_at_most_one"),
    "NaN": ("asin_click_share = 'NaN'", 1, "values_are_numbers"),
    "NaN price": ("total_median_click_price = 'NaN'", 1, "values_are_numbers"),
    "negative rate": ("total_click_rate = -0.1", 1, "rates_not_negative"),
    "negative price": ("total_median_click_price = -1", 1, "prices_not_negative"),
    "own above total": ("asin_purchase_count = 81", 1, "own_within_total"),
    "shares of another stage": ("asin_cart_add_share = 0.5", 2, "share_is_own_over_total"),
    "two currencies": ("currency_code = 'EUR'", 1, "one_currency"),
    "another account": ("account_id = 'other'", 1, "rows_belong_to_their_slice"),
    "another digest": ("slice_digest = '\\x01'", 1, "rows_belong_to_their_slice"),
}

WAYS_TO_WARN: Mapping[str, tuple[str, int, str]] = {
    "one odd share": ("asin_click_share = 0.06", 1, "share_is_own_over_total"),
    "odd rates": ("total_purchase_rate = 0.5", ROWS, "rate_is_total_over_volume"),
    "late purchases": (
        "asin_purchase_count = 41, asin_purchase_share = 41 / 80.0",
        ROWS,
        "purchases_within_clicks",
    ),
    "no share": ("asin_click_share = null", ROWS, "shares_are_filled"),
    "no currency": ("currency_code = null", ROWS, "prices_have_a_currency"),
    "no volume": ("search_query_volume = null", ROWS, "search_query_volume_is_filled"),
    "no score": ("search_query_score = null", ROWS, "search_query_score_is_filled"),
    "score of 0": ("search_query_score = 0", 1, "score_at_least_one"),
}


@pytest.mark.parametrize("view", ["asin", "brand"])
def test_each_fault_is_found_and_holds_only_its_slice(warehouse: Warehouse, view: str) -> None:
    good = [warehouse.land(view=view) for _ in range(3)]
    broken = {way: warehouse.land(view=view) for way in WAYS_TO_BREAK}
    warned = {way: warehouse.land(view=view) for way in WAYS_TO_WARN}
    for way, (change, lines, _) in {**WAYS_TO_BREAK, **WAYS_TO_WARN}.items():
        slice_id = (broken | warned)[way]
        warehouse.alter(slice_id, change.replace("asin_", f"{view}_"), lines, view)
    short = warehouse.land(view=view)
    warehouse.do(f"delete from landing.sqp_{view} where slice_id = %s and source_line = 1", short)
    rejecting = warehouse.land(18, view=view, rejected=2), warehouse.land(17, view=view, rejected=3)

    summary = warehouse.check()

    assert set(summary.held) == {*broken.values(), short, rejecting[1]}
    found = {
        row["check_name"]: set(row["check_metadata"].get("failing_slice_ids", []))
        for row in warehouse.checks()
    }
    for way, (_, _, check_name) in WAYS_TO_BREAK.items():
        assert broken[way] in found[check_name], way
        assert warehouse.checks(f"check_name = '{check_name}'")[0]["check_status"] == "failed"
    for way, (_, _, check_name) in WAYS_TO_WARN.items():
        assert warned[way] in found[check_name], way
        assert [name for name in found if warned[way] in found[name]] == [check_name]
    assert found["rows_landed"] == {short}
    assert found["rows_rejected"] == set(rejecting)
    assert not [name for name in found if found[name] & set(good)]
    statuses = {row["check_name"]: row["check_status"] for row in warehouse.checks()}
    assert (summary.passed, summary.warnings, summary.failed) == tuple(
        list(statuses.values()).count(status) for status in ("passed", "warning", "failed")
    )
    assert statuses["purchases_within_clicks"] == "warning"


def test_good_slices_pass_and_every_check_is_recorded_with_its_run(warehouse: Warehouse) -> None:
    warehouse.begin("WEEK", "MONTH")
    warehouse.land()
    warehouse.land(period_type="MONTH", view="brand", subject="Acme")

    summary = warehouse.check()

    rows = warehouse.checks()
    assert summary == CheckSummary(passed=len(rows))
    assert {(row["table_name"], row["sync_log_id"]) for row in rows} == {
        ("landing.sqp_asin", warehouse.logs["WEEK"]),
        ("landing.sqp_brand", warehouse.logs["MONTH"]),
    }
    assert {row["check_type"] for row in rows} == {
        *("row_count", "null_check", "schema", "range", "identity", "volume", "rejected_rows")
    }
    assert {row["check_metadata"]["period_type"] for row in rows} == {"WEEK", "MONTH"}


def test_both_sides_carry_what_was_counted(warehouse: Warehouse) -> None:
    warehouse.land(week=0, accepted=True)
    warehouse.begin("WEEK")
    warehouse.land()
    short = warehouse.land(16, rejected=4)
    warehouse.do("delete from landing.sqp_asin where slice_id = %s and source_line < 4", short)

    warehouse.check()

    [landed] = warehouse.checks("check_name = 'rows_landed'")
    assert [landed[side] for side in ("source_value", "target_value", "difference")] == [46, 43, -3]
    assert landed["difference_pct"] == pytest.approx(Decimal(300) / 46)
    assert "1 of 2 slices" in landed["check_message"]
    assert "acme / ATVPDKIKX0DER / WEEK 2025-03-02 / B000000003" in landed["check_message"]
    assert "row_count = 16, rows_found = 13" in landed["check_message"]
    [rejected] = warehouse.checks("check_name = 'rows_rejected'")
    assert (rejected["source_value"], rejected["target_value"]) == (50, 46)
    [share] = warehouse.checks("check_name = 'share_is_own_over_total'")
    assert (share["source_value"], share["target_value"]) == (43, 43)


def test_the_recorded_query_tells_what_was_found_even_after_acceptance(
    warehouse: Warehouse,
) -> None:
    slice_id = warehouse.land()
    warehouse.alter(slice_id, "asin_click_share = 0.5", lines=7)
    warehouse.check()
    warehouse.accept(slice_id)

    [check] = warehouse.checks("check_name = 'share_is_own_over_total'")

    with warehouse.session.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        cursor.execute(check["check_query"])
        [measured] = cursor.fetchall()
    assert (measured["rows_found"], measured["share_mismatches"]) == (ROWS, 7)
    assert check["source_value"] - check["target_value"] == 7


def test_volume_is_compared_with_the_median_of_the_periods_before(warehouse: Warehouse) -> None:
    long_before, after = [400] * 9, [400] * 9
    just_before = [10, -400, 20, -400, -400, 30, -400, -400]  # negative: held, never in force
    for subject in ("B0DROPPED1", "B0STEADY01"):
        for week, rows in enumerate([*long_before, *just_before, 0, *after]):
            if rows:
                warehouse.land(abs(rows), subject=subject, week=week, accepted=rows > 0)
    warehouse.do(
        "update landing.sqp_slices set slice_status = 'held', held_reason = 'x'"
        " where slice_status = 'landed'"
    )
    warehouse.begin("WEEK")
    dropped = warehouse.land(9, subject="B0DROPPED1", week=17)
    warehouse.land(39, subject="B0STEADY01", week=17)
    warehouse.land(500, subject="B0NEWASIN1", week=17)

    assert warehouse.check().held == {}

    [volume] = warehouse.checks("check_type = 'volume'")
    assert volume["check_status"] == "warning"
    assert volume["check_metadata"]["failing_slice_ids"] == [dropped]
    assert volume["check_metadata"]["nothing_to_check"] == 1
    assert (volume["source_value"], volume["target_value"]) == (40, 48)
    assert "B0DROPPED1 (volume_ratio = 0.45)" in volume["check_message"]


def test_an_emptied_slice_passes_with_a_warning_of_its_volume(warehouse: Warehouse) -> None:
    warehouse.land(week=0, subject="B0EMPTIED1", accepted=True)
    warehouse.begin("WEEK")
    warehouse.land(0, week=1, subject="B0EMPTIED1")

    assert warehouse.check().held == {}
    assert warehouse.verdicts() == {"landing.sqp_asin rows_against_recent_median": "warning"}


def test_slices_of_a_dead_run_are_checked_under_the_run_that_landed_them(
    warehouse: Warehouse,
) -> None:
    dead = warehouse.begin("MONTH")
    left_behind = warehouse.land(period_type="MONTH")
    warehouse.alter(left_behind, "asin_click_share = 5")
    live = warehouse.begin("WEEK")
    warehouse.land()

    summary = warehouse.check()

    assert set(summary.held) == {left_behind}
    assert {row["sync_log_id"] for row in warehouse.checks("check_status = 'failed'")} == {
        dead["MONTH"]
    }
    assert warehouse.checks(f"sync_log_id = {live['WEEK']}")


def test_the_candidate_is_checked_and_not_the_load_in_force(warehouse: Warehouse) -> None:
    restated = [warehouse.land(accepted=True) for _ in range(2)]
    warehouse.alter(restated[0], "asin_click_share = 5")
    warehouse.begin("WEEK")
    for slice_id in restated:
        warehouse.land_again(slice_id)
    warehouse.do(
        "update landing.sqp_asin set asin_click_share = 6 where slice_id = %s and load_id = %s",
        restated[1],
        warehouse.logs["WEEK"],
    )

    assert set(warehouse.check().held) == {restated[1]}
    [landed] = warehouse.checks("check_name = 'rows_landed'")
    assert (landed["source_value"], landed["target_value"]) == (2 * ROWS, 2 * ROWS)


def test_only_slices_that_wait_are_checked(warehouse: Warehouse) -> None:
    accepted, held = warehouse.land(accepted=True), warehouse.land()
    warehouse.do(
        "update landing.sqp_slices set slice_status = 'held', held_reason = 'x'"
        " where slice_id = %s",
        held,
    )
    for slice_id in (accepted, held):
        warehouse.alter(slice_id, "asin_click_share = 5")

    assert warehouse.check() == CheckSummary()
    assert warehouse.checks() == []


@pytest.mark.parametrize(
    ("drift", "check_name"),
    [
        ("drop column total_click_rate", "columns_present"),
        ("alter column total_click_count drop not null", "column_types"),
        ("alter column asin_click_share type text", "column_types"),
    ],
)
def test_a_table_that_drifted_holds_its_view_and_no_other(
    warehouse: Warehouse, drift: str, check_name: str
) -> None:
    of_asin = [warehouse.land(), warehouse.land()]
    warehouse.land(view="brand", subject="Acme")
    warehouse.do(f"alter table landing.sqp_asin {drift}")

    summary = warehouse.check()

    assert set(summary.held) == set(of_asin)
    assert warehouse.verdicts() == {f"landing.sqp_asin {check_name}": "failed"}
    assert warehouse.checks("table_name = 'landing.sqp_brand' and check_name = 'rows_landed'")


def test_a_column_that_nobody_fills_only_warns(warehouse: Warehouse) -> None:
    warehouse.land()
    warehouse.do("alter table landing.sqp_asin add column surprise text")

    assert warehouse.check().held == {}
    assert warehouse.verdicts() == {"landing.sqp_asin columns_known": "warning"}


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        (
            "ExpectColumnValuesToBeBetween",
            {"column": "no_such_measure", "max_value": 0},
            r"mistaken could not be evaluated.*no_such_measure",
        ),
        (
            "ExpectColumnMaxToBeBetween",
            {"column": "row_count", "max_value": 0},
            r"mistaken could not be evaluated.*does not judge a column value by value",
        ),
        (
            "ExpectColumnValuesToBeUnique",
            {"column": "row_count"},
            None,
        ),
    ],
)
def test_an_expectation_that_names_no_slices_is_an_error_and_no_verdict(
    warehouse: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, Any],
    complaint: str | None,
) -> None:
    import great_expectations.expectations as gxe
    from great_expectations.core import ExpectationSuite

    from expectations import suites

    mistaken = getattr(gxe, name)(meta=suites.recorded("range", "mistaken"), **options)
    monkeypatch.setattr(
        suites, "landed_slices", lambda: ExpectationSuite("mistaken", expectations=[mistaken])
    )
    slices = {warehouse.land(), warehouse.land()}

    if complaint is None:
        assert set(warehouse.check().held) == slices
        return
    with pytest.raises(WarehouseError, match=complaint):
        warehouse.check()
    assert warehouse.checks() == []


def test_a_summary_that_does_not_exist_is_no_green_result(built: Warehouse) -> None:
    with pytest.raises(KeyError, match="weekly_sumary"):
        built.reconcile(tables=["weekly_sumary"])


CHECK_IN_A_CAGE = """
import json, socket, sys

asked = []

def refuse(*arguments, **options):
    asked.append(repr(arguments))
    raise OSError("no network here")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.gethostbyname = refuse

import logging
logging.basicConfig(level=logging.DEBUG)

from expectations.checks import check_landed, reconcile
assert not {"great_expectations", "pandas"} & set(sys.modules), "imported too early"

from flows.settings import Connection
where = Connection(**json.load(sys.stdin))
print(check_landed(where, log_ids={"WEEK": 1}))
print(reconcile(where, log_ids={"WEEK": 1}))
print("imported" if "great_expectations" in sys.modules else "not imported")
print("asked:", asked)
"""


def in_a_cage(where: Connection, folder: Path) -> str:
    """Run the checks in a process without a network; returns all it says."""
    import json

    told = where.model_dump() | {"password": where.password.get_secret_value()}
    ended = subprocess.run(
        [sys.executable, "-c", CHECK_IN_A_CAGE],
        input=json.dumps(told),
        cwd=folder,
        env={
            "PYTHONPATH": str(PROJECT_ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(folder),
            "TMPDIR": str(folder),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def test_no_network_no_files_no_secrets_and_no_queries(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    secret = warehouse.where.password.get_secret_value() or "CANARY-password"
    where = warehouse.where.model_copy(update={"password": SecretStr(secret)})
    for way in WAYS_TO_BREAK.values():
        warehouse.alter(warehouse.land(), *way[:2])
    warehouse.land(accepted=True)
    warehouse.build_summaries()
    warehouse.do("update sqp.weekly_summary set total_clicks = 0")

    said = in_a_cage(where, tmp_path)

    assert "asked: []" in said
    assert "failed=" in said
    assert list(tmp_path.rglob("*")) == []
    recorded = str(warehouse.checks())
    assert "failing_slice_ids" in recorded
    for hidden in (CANARY, secret):
        assert hidden not in said
        assert hidden not in recorded


def test_nothing_to_check_writes_nothing_and_imports_nothing(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.build_summaries()

    said = in_a_cage(warehouse.where, tmp_path)

    assert said.count("CheckSummary(passed=0, warnings=0, failed=0, held={})") == 2
    assert "\nnot imported\n" in said
    assert warehouse.checks() == []


@pytest.fixture
def built(warehouse: Warehouse) -> Warehouse:
    """Two ASINs in six weeks of March and April 2025, accepted and built into the summaries."""
    for week in range(6):
        for subject in ("B0FIRST001", "B0SECOND01"):
            warehouse.land(subject=subject, week=week, accepted=True)
    warehouse.build_summaries()
    return warehouse


def test_summaries_that_tell_what_landed_pass_with_both_sides(built: Warehouse) -> None:
    summary = built.reconcile()

    rows = built.checks()
    assert summary == CheckSummary(passed=len(rows))
    totals = {
        (row["table_name"], row["check_name"]): (row["source_value"], row["target_value"])
        for row in rows
    }
    assert totals["sqp.weekly_summary", "row_count_matches"] == (12 * ROWS, 12 * ROWS)
    assert totals["sqp.monthly_summary", "row_count_matches"] == (4 * ROWS, 4 * ROWS)
    assert totals["sqp.quarterly_summary", "row_count_matches"] == (4 * ROWS, 4 * ROWS)
    for table in ("weekly", "monthly", "quarterly"):
        assert totals[f"sqp.{table}_summary", "total_clicks_matches"] == (14400, 14400)
        assert totals[f"sqp.{table}_summary", "null_query_matches"] == (0, 0)
    assert totals["landing", "rows_logged_landed"] == (12 * ROWS, 12 * ROWS)
    assert {row["sync_log_id"] for row in rows} == {built.logs["WEEK"]}


def test_what_dbt_builds_is_what_landed(warehouse: Warehouse, tmp_path: Path) -> None:
    for week in range(6):
        for subject in ("B0FIRST001", "B0SECOND01"):
            warehouse.land(subject=subject, week=week, accepted=True)
    command = [Path(sys.executable).with_name("dbt"), "run", "--select", "+sqp.summaries"]
    project = ["--project-dir", PROJECT_ROOT / "dbt_project", "--profiles-dir", PROJECT_ROOT]
    folders = ["--target-path", tmp_path / "target", "--log-path", tmp_path / "logs"]
    built = subprocess.run([*command, *project, *folders], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout

    summary = warehouse.reconcile()

    assert (summary.warnings, summary.failed) == (0, 0), warehouse.verdicts()
    [weekly] = warehouse.checks(
        "table_name = 'sqp.weekly_summary' and column_name = 'cart_adds'"
        " and check_type = 'sum_validation'"
    )
    assert (weekly["source_value"], weekly["target_value"]) == (3600, 3600)

    warehouse.do("update sqp.quarterly_summary set cart_adds = cart_adds + 1")
    assert warehouse.reconcile(tables=["quarterly_summary"]).failed == 1


@pytest.mark.parametrize(
    ("table", "change", "check_name", "status"),
    [
        # 1,200 clicks a week and ASIN, 15,000 impressions
        ("weekly", "total_impressions = 514", "total_impressions_matches", None),
        ("weekly", "total_clicks = 46", "total_clicks_matches", "warning"),
        ("weekly", "total_clicks = 53", "total_clicks_matches", "failed"),
        ("weekly", "total_clicks = 27", "total_clicks_matches", "failed"),
        ("weekly", "cart_adds = 0", "cart_adds_matches", "failed"),
        ("weekly", "total_purchases = 9", "total_purchases_matches", "failed"),
        ("weekly", "query = null", "null_query_matches", "failed"),
        ("monthly", "total_clicks = 0", "total_clicks_matches", "failed"),
        ("quarterly", "total_purchases = 0", "total_purchases_matches", "failed"),
    ],
)
def test_a_difference_in_one_row_of_one_slice_is_judged_by_its_share(
    built: Warehouse, table: str, change: str, check_name: str, status: str | None
) -> None:
    target = f"sqp.{table}_summary"
    built.do(
        f"update {target} set {change} where ctid = (select min(ctid) from {target}"
        " where asin = 'B0FIRST001' and period_start >= '2025-03-01')"
    )

    summary = built.reconcile(tables=[f"{table}_summary"])

    assert built.verdicts() == ({f"{target} {check_name}": status} if status else {})
    assert (summary.failed, summary.warnings) == (status == "failed", status == "warning")
    for row in built.checks("check_status <> 'passed'"):
        assert row["difference"] == row["target_value"] - row["source_value"] != 0
        assert "B0FIRST001 (gap_" in row["check_message"]


def test_missing_values_are_judged_by_their_share_of_the_rows(built: Warehouse) -> None:
    built.begin("WEEK")
    built.do("drop table sqp.weekly_summary, sqp.monthly_summary, sqp.quarterly_summary")
    built.land(500, subject="B0MANYROWS", week=8, accepted=True)
    built.build_summaries()
    built.do(
        "update sqp.weekly_summary set query = null"
        " where ctid = (select max(ctid) from sqp.weekly_summary where asin = 'B0MANYROWS')"
    )

    built.reconcile(tables=["weekly_summary"])

    assert built.verdicts() == {"sqp.weekly_summary null_query_matches": "warning"}
    [missing] = built.checks("check_status = 'warning'")
    assert (missing["source_value"], missing["target_value"]) == (0, 1)
    assert missing["difference_pct"] is None


def test_a_surplus_does_not_hide_a_shortfall(built: Warehouse) -> None:
    built.do("update sqp.weekly_summary set total_clicks = 30 where asin = 'B0FIRST001'")
    built.do("update sqp.weekly_summary set total_clicks = 50 where asin = 'B0SECOND01'")

    assert built.reconcile(tables=["weekly_summary"]).failed == 1

    [clicks] = built.checks("check_status = 'failed'")
    assert clicks["source_value"] == clicks["target_value"] == 14400
    assert clicks["check_metadata"]["observed"]["gap_total_clicks"]["greatest"] == 25
    assert clicks["check_metadata"]["failing"] == 12


@pytest.mark.parametrize(
    "change",
    [
        "delete from sqp.weekly_summary where asin = 'B0FIRST001' and period_start = '2025-03-09'",
        "insert into sqp.weekly_summary select account_id, marketplace_id, period_start,"
        " 'B0GHOST001', query_digest, query, 0, 0, 0, 0 from sqp.weekly_summary limit 1",
    ],
)
def test_a_slice_that_only_one_side_has_fails(built: Warehouse, change: str) -> None:
    built.do(change)

    built.reconcile(tables=["weekly_summary"])

    assert built.verdicts()["sqp.weekly_summary row_count_matches"] == "failed"


def test_only_periods_that_the_run_touched_are_compared(built: Warehouse) -> None:
    built.do("update sqp.weekly_summary set total_clicks = 0 where period_start < '2025-03-30'")
    built.begin("WEEK")
    built.land(subject="B0FIRST001", week=8, accepted=True)
    built.do("drop table sqp.weekly_summary, sqp.monthly_summary, sqp.quarterly_summary")
    built.build_summaries()
    built.do("update sqp.weekly_summary set total_clicks = 0 where period_start < '2025-04-27'")

    assert built.reconcile(tables=["weekly_summary"]).failed == 0

    [rows] = built.checks("check_name = 'row_count_matches'")
    assert rows["source_value"] == ROWS


def test_a_slice_rebuilt_after_another_run_was_killed_is_compared(built: Warehouse) -> None:
    earlier = built.logs["WEEK"]
    built.begin("WEEK")
    rebuilt = "update sqp.slice_builds set load_id = %s, built_at = clock_timestamp()"
    built.do(f"{rebuilt} where slice_id = 1", earlier)
    built.do("update sqp.weekly_summary set total_clicks = 0")

    assert built.reconcile(tables=["weekly_summary"]).failed == 1

    [clicks] = built.checks("check_status = 'failed'")
    assert clicks["source_value"] == 2400


def test_a_comparison_that_failed_is_repeated_until_a_run_completes(built: Warehouse) -> None:
    built.do("update sqp.weekly_summary set total_clicks = 0")
    assert built.reconcile(tables=["weekly_summary"]).failed == 1
    end = "update sqp.sync_log set sync_status = %s, completed_at = clock_timestamp() where id = %s"
    built.do(end, "failed", built.logs["WEEK"])

    built.begin()
    assert built.reconcile(tables=["weekly_summary"]).failed == 1
    built.begin("WEEK")
    assert built.reconcile(tables=["weekly_summary"]).failed == 1
    built.do(end, "completed", built.logs["WEEK"])

    built.begin("WEEK")
    assert built.reconcile(tables=["weekly_summary"]) == CheckSummary()
    assert [row["sync_log_id"] for row in built.checks("check_status = 'failed'")] == [1, None, 2]


def test_a_held_slice_is_compared_by_the_load_in_force(built: Warehouse) -> None:
    first = built.logs["WEEK"]
    built.begin("WEEK")
    built.do(
        "update landing.sqp_slices set load_id = %s, slice_status = 'held', held_reason = 'x'"
        " where slice_id = 1",
        built.logs["WEEK"],
    )
    built.do("update sqp.sync_log set records_inserted = 0, records_processed = 0")

    built.reconcile()

    assert first != built.logs["WEEK"]
    assert built.verdicts() == {}
    assert built.checks("check_name = 'total_clicks_matches'")


@pytest.mark.parametrize(
    ("counters", "status"),
    [
        ("records_inserted = 360", "passed"),
        ("records_inserted = 300, records_updated = 60", "passed"),
        ("records_inserted = 300, records_unchanged = 60", "passed"),
        ("records_inserted = 360, records_unchanged = 9, slices_unchanged = 1", "passed"),
        ("records_inserted = 360, records_unchanged = 9", "failed"),
        ("records_inserted = 362", "warning"),
        ("records_inserted = 400", "failed"),
        ("records_inserted = 300", "failed"),
    ],
)
def test_rows_in_landing_are_those_that_the_log_counts(
    built: Warehouse, counters: str, status: str
) -> None:
    built.do(
        f"update sqp.sync_log set {counters}, records_processed ="
        " (select sum(split_part(part, '=', 2)::int) from unnest(string_to_array(%s, ',')) as part"
        " where part like '%%records%%')",
        counters,
    )

    built.reconcile(tables=[])

    [row] = built.checks()
    assert (row["check_name"], row["check_status"]) == ("rows_logged_landed", status)
    assert row["target_value"] == 360


def test_rows_that_the_log_counts_and_landing_lost_entirely_fail(warehouse: Warehouse) -> None:
    warehouse.land()
    warehouse.do("delete from landing.sqp_asin")
    warehouse.do("delete from landing.sqp_slices")

    assert warehouse.reconcile(tables=[]).failed == 1
    [row] = warehouse.checks()
    assert (row["source_value"], row["target_value"]) == (ROWS, 0)


def test_a_run_that_touched_nothing_compares_nothing(built: Warehouse) -> None:
    built.begin("WEEK")
    built.do("update sqp.weekly_summary set total_clicks = 0")

    assert built.reconcile() == CheckSummary()
    assert built.checks() == []
