"""The main job, whole: real files, real Postgres, real dbt, Great Expectations and Prefect."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from flows.errors import Busy, ExitCode, WarehouseError
from flows.settings import PROJECT_ROOT, Connection, get_settings
from flows.sources.sample import write_sample
from flows.sync_sqp import sync_sqp
from flows.warehouse.connection import connect
from flows.warehouse.run_log import SyncType, leased_run
from tests.conftest import RunCli

pytestmark = pytest.mark.usefixtures("prefect_server")

STEPS = (
    "parse",
    "land",
    "bucket_0",
    "mid_copy",
    "check",
    "accept",
    "build",
    "reconcile",
    "finish",
)
"""Where a run can be killed: a named step, between two buckets, in the middle of a COPY."""

BOOKKEEPING = {
    "slice_id",
    "load_id",
    "sync_log_id",
    "last_synced_at",
    "bigquery_sync_id",
    "accepted_load_id",
    "loaded_at",
    "accepted_at",
    "created_at",
    "updated_at",
    "built_at",
    "rejected_at",
    "id",
    "source_file",
    "reject_digest",
}
"""Columns that say which run wrote a row and when, not what it says."""

SUMMARIES = ("sqp.weekly_summary", "sqp.monthly_summary", "sqp.quarterly_summary")


@pytest.fixture
def warehouse(database: Connection) -> Iterator[psycopg.Connection[Any]]:
    with connect(autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def deliveries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample: every format, late, restated, repeated and emptied slices."""
    folder = tmp_path_factory.mktemp("deliveries") / "sample"
    write_sample(folder, asins=3, weeks=5, queries=12, seed=7)
    return folder


def contents(warehouse: psycopg.Connection[Any], table: str) -> list[tuple[Any, ...]]:
    """The rows of a table without bookkeeping, sorted."""
    with warehouse.cursor() as cursor:
        cursor.execute(
            sql.SQL("select * from {} limit 0").format(sql.Identifier(*table.split(".")))
        )
        names = [column.name for column in cursor.description or ()]
        wanted = [sql.Identifier(name) for name in names if name not in BOOKKEEPING]
        rows = cursor.execute(
            sql.SQL("select {} from {}").format(
                sql.SQL(", ").join(wanted), sql.Identifier(*table.split("."))
            )
        ).fetchall()
    return sorted(rows, key=repr)


def snapshot(warehouse: psycopg.Connection[Any]) -> dict[str, list[tuple[Any, ...]]]:
    """What landed and what was built, without bookkeeping."""
    tables = ("landing.sqp_asin", "landing.sqp_brand", "landing.sqp_slices", *SUMMARIES)
    return {table: contents(warehouse, table) for table in tables}


def physical(warehouse: psycopg.Connection[Any]) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table but the log with its place and transaction: equal is untouched."""
    tables = warehouse.execute(
        """
        select schemaname, tablename
        from pg_tables
        where
            schemaname in ('landing', 'sqp', 'app')
            and tablename not in ('sync_log', 'data_quality_checks')
        """
    ).fetchall()
    return {
        f"{schema}.{table}": warehouse.execute(
            sql.SQL("select tableoid, ctid, xmin from {} order by 1, 2").format(
                sql.Identifier(schema, table)
            )
        ).fetchall()
        for schema, table in tables
    }


@pytest.fixture(scope="session")
def clean_run(deliveries: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Filled by `of_clean_run` with what one undisturbed run of the deliveries ends in."""
    return {}


def of_clean_run(
    clean: dict[str, list[tuple[Any, ...]]], warehouse: psycopg.Connection[Any], folder: Path
) -> dict[str, list[tuple[Any, ...]]]:
    """Wipe the warehouse, sync once, and remember the end for the tests that follow."""
    if not clean:
        sync_sqp([str(folder)])
        clean.update(snapshot(warehouse))
        wipe(warehouse)
    return clean


def wipe(warehouse: psycopg.Connection[Any]) -> None:
    """Empty every table of the warehouse."""
    tables = warehouse.execute(
        """
        select namespaces.nspname, tables.relname
        from pg_class as tables
        inner join pg_namespace as namespaces on tables.relnamespace = namespaces.oid
        where
            namespaces.nspname in ('landing', 'sqp')
            and tables.relkind in ('r', 'p')
            and not tables.relispartition
        """
    ).fetchall()
    warehouse.execute(
        sql.SQL("truncate {} cascade").format(
            sql.SQL(", ").join(sql.Identifier(*table) for table in tables)
        )
    )


def test_a_sample_ends_in_summaries_that_can_be_trusted(
    warehouse: psycopg.Connection[Any], deliveries: Path
) -> None:
    report = sync_sqp([str(deliveries)])
    assert report.exit_code == ExitCode.DONE
    assert report.quality.failed == 0
    assert report.quality.passed > 0
    assert report.freshness
    assert {row["sync_type"] for row in report.records} == {"weekly", "monthly", "quarterly"}
    for table in SUMMARIES:
        assert contents(warehouse, table), table
    logged = warehouse.execute(
        "select sync_status, step, completed_at is not null from sqp.sync_log"
    ).fetchall()
    assert logged == [("completed", "finish", True)] * 3


def test_a_second_run_changes_nothing(warehouse: psycopg.Connection[Any], deliveries: Path) -> None:
    sync_sqp([str(deliveries)])
    before = physical(warehouse)
    report = sync_sqp([str(deliveries)])
    assert physical(warehouse) == before
    assert not report.something_new
    assert sum(row["slices_changed"] for row in report.records) == 0


def test_a_dry_run_counts_like_a_real_one_and_leaves_nothing(
    warehouse: psycopg.Connection[Any], deliveries: Path
) -> None:
    before = physical(warehouse)
    rehearsed = sync_sqp([str(deliveries)], dry_run=True)
    assert physical(warehouse) == before
    assert warehouse.execute("select count(*) from sqp.sync_log").fetchone() == (0,)
    assert rehearsed.records == sync_sqp([str(deliveries)]).records


@pytest.mark.parametrize("step", STEPS)
def test_a_run_killed_anywhere_and_one_rerun_equal_a_clean_run(
    step: str,
    warehouse: psycopg.Connection[Any],
    deliveries: Path,
    clean_run: dict[str, list[tuple[Any, ...]]],
    run_cli: RunCli,
) -> None:
    expected = of_clean_run(clean_run, warehouse, deliveries)
    killed = run_cli("sync-sqp", str(deliveries), env={"FAULT_AT": step})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    sync_sqp([str(deliveries)])
    assert snapshot(warehouse) == expected
    assert not list(get_settings().warehouse_home.glob("spool-*")), "the dead run's spool is gone"
    ended = warehouse.execute(
        """
        select sync_status, error_details ->> 'reason', error_message
        from sqp.sync_log
        where run_id = (select run_id from sqp.sync_log order by id limit 1)
        """
    ).fetchall()
    assert {row[:2] for row in ended} == {("failed", "worker_lost")}
    reached = "land" if step in ("bucket_0", "mid_copy") else step
    assert all(f"died in step {reached}" in row[2] for row in ended)
    checked = warehouse.execute(
        """
        select count(*)
        from sqp.data_quality_checks as checks
        inner join sqp.sync_log as sync_log on checks.sync_log_id = sync_log.id
        where sync_log.run_id = (select run_id from sqp.sync_log order by id desc limit 1)
            and checks.check_type = 'sum_validation'
        """
    ).fetchone()
    assert checked != (0,), "what the dead run left unreconciled is reconciled"


@pytest.mark.parametrize("seed", [1, 2])
def test_any_order_repetition_and_splitting_of_files_equals_one_clean_load(
    seed: int,
    warehouse: psycopg.Connection[Any],
    deliveries: Path,
    clean_run: dict[str, list[tuple[Any, ...]]],
) -> None:
    expected = of_clean_run(clean_run, warehouse, deliveries)
    order = random.Random(seed)
    groups = exports_and_files(deliveries)
    arriving = groups + order.choices(groups, k=5)
    order.shuffle(arriving)
    cuts = sorted(order.sample(range(1, len(arriving)), 2))
    for start, stop in zip([0, *cuts], [*cuts, len(arriving)], strict=True):
        sync_sqp([str(path) for group in arriving[start:stop] for path in group])
    assert snapshot(warehouse) == expected


def exports_and_files(folder: Path) -> list[list[Path]]:
    """The deliveries of a folder: single files, and the shards of an export together."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "README.txt":
            stem, _, number = path.name.split(".")[0].rpartition("-")
            is_shard = len(number) == 12 and number.isdigit()
            groups.setdefault(str(path.parent / stem) if is_shard else str(path), []).append(path)
    return list(groups.values())


def test_a_dead_run_does_not_block_and_a_living_one_does(
    warehouse: psycopg.Connection[Any], deliveries: Path, run_cli: RunCli
) -> None:
    with leased_run() as run:
        with pytest.raises(Busy, match=r"server process \d+ runs since"), leased_run():
            pass
        run.begin([SyncType.WEEKLY], source="somebody else's")
        refused = run_cli("sync-sqp", str(deliveries))
        assert refused.returncode == ExitCode.BUSY
        assert "already running" in refused.stderr
        assert run.worker in refused.stderr
        with pytest.raises(Busy, match="runs since"), leased_run():
            pass
        run.complete()
    assert run_cli("sync-sqp", str(deliveries), "--dry-run").returncode == ExitCode.DONE


def flat_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A flat export with just the columns that a row needs."""
    names = list(rows[0])
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def flat_row(asin: str, query: str, **changed: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "Date": "2026-11-01",
        "Child ASIN": asin,
        "Search Query": query,
        "Search Query Score": 1,
        "Search Query Volume": 5000,
        "Total Query Impression Count": 2000,
        "ASIN Impression Count": 100,
        "ASIN Impression Share": 5.0,
    }
    for stage, total, own in (("Click", 400, 20), ("Cart Add", 200, 10), ("Purchase", 100, 5)):
        values |= {
            f"Total {stage} Count": total,
            f"ASIN {stage} Count": own,
            f"ASIN {stage} Share": 5.0,
        }
    return values | changed


GOOD = [flat_row("B000000001", f"query {number}") for number in range(5)]
LYING = [
    flat_row("B000000002", f"query {number}", **{"ASIN Click Share": 55.0}) for number in range(5)
]


def test_a_slice_that_fails_its_checks_is_held_back_and_only_it(
    warehouse: psycopg.Connection[Any], tmp_path: Path, run_cli: RunCli
) -> None:
    path = flat_csv(tmp_path / "US_flat.csv", GOOD + LYING)
    done = run_cli("sync-sqp", str(path), "--json")
    assert done.returncode == ExitCode.PARTIAL, done.stderr
    report = json.loads(done.stdout)
    assert [row["subject"] for row in report["held"]] == ["B000000002"]
    built = warehouse.execute("select distinct asin from sqp.weekly_summary").fetchall()
    assert built == [("B000000001",)]
    failed = warehouse.execute(
        "select count(*) from sqp.data_quality_checks where check_status = 'failed'"
    ).fetchone()
    assert failed != (0,)

    honest = [row | {"ASIN Click Share": 5.0} for row in LYING]
    mended = run_cli("sync-sqp", str(flat_csv(path, GOOD + honest)), "--json")
    assert mended.returncode == ExitCode.DONE, mended.stderr
    built = warehouse.execute("select distinct asin from sqp.weekly_summary order by 1").fetchall()
    assert built == [("B000000001",), ("B000000002",)]


def test_a_bad_restatement_leaves_the_good_week_in_the_summaries(
    warehouse: psycopg.Connection[Any], tmp_path: Path
) -> None:
    path = flat_csv(tmp_path / "US_flat.csv", GOOD)
    sync_sqp([str(path)])
    before = contents(warehouse, "sqp.weekly_summary")
    flat_csv(path, [row | {"ASIN Impression Share": 77.7} for row in GOOD])
    assert sync_sqp([str(path)]).exit_code == ExitCode.PARTIAL
    assert contents(warehouse, "sqp.weekly_summary") == before


def test_bad_rows_are_kept_with_their_reason_and_the_rest_goes_on(
    warehouse: psycopg.Connection[Any], tmp_path: Path
) -> None:
    bad = [
        flat_row("B000000001", "negative", **{"ASIN Click Count": -1}),
        flat_row("B000000001", "more than all", **{"ASIN Purchase Count": 101}),
        flat_row("not an asin", "bad asin"),
    ]
    many = [flat_row("B000000001", f"query {number}") for number in range(60)]
    report = sync_sqp([str(flat_csv(tmp_path / "US_flat.csv", many + bad))])
    (row,) = report.records
    assert (row["processed"], row["inserted"], row["failed"]) == (63, 60, 3)
    refused = warehouse.execute(
        "select reason_code, source_line, delivered_text from landing.rejected_rows order by 2"
    ).fetchall()
    assert [reason for reason, *_ in refused] == ["negative", "own_above_total", "bad_asin"]
    assert [line for _, line, _ in refused] == [62, 63, 64]
    assert "more than all" in refused[1][2]


def test_a_file_nobody_can_read_leaves_the_others_alone(
    warehouse: psycopg.Connection[Any], tmp_path: Path, run_cli: RunCli
) -> None:
    flat_csv(tmp_path / "US_flat.csv", GOOD)
    (tmp_path / "US_broken.json").write_text('{"reportSpecification": {"reportType": "GET_')
    done = run_cli("sync-sqp", str(tmp_path))
    assert done.returncode == ExitCode.PARTIAL, done.stderr
    assert "US_broken.json" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    logged = warehouse.execute(
        "select sync_type, sync_status from sqp.sync_log order by sync_type"
    ).fetchall()
    assert logged == [("unreadable", "failed"), ("weekly", "completed")]


def test_a_wrong_call_is_refused_before_anything_starts(
    warehouse: psycopg.Connection[Any], tmp_path: Path, run_cli: RunCli
) -> None:
    nowhere = flat_csv(tmp_path / "flat.csv", GOOD)
    for arguments, said in (
        (["sync-sqp", str(tmp_path / "missing")], "missing"),
        (["sync-sqp", str(nowhere)], "--marketplace"),
        (["sync-sqp", str(nowhere), "--marketplace", "Atlantis"], "Atlantis"),
        (["sync-sqp"], "PATH"),
    ):
        refused = run_cli(*arguments)
        assert refused.returncode == ExitCode.USAGE, refused.stderr
        assert said in refused.stderr
    assert warehouse.execute("select count(*) from sqp.sync_log").fetchone() == (0,)


def test_two_syncs_at_once_end_as_one(
    warehouse: psycopg.Connection[Any], tmp_path: Path, run_cli: RunCli
) -> None:
    """One does the work; the other comes after it, or leaves with 75 and changes nothing."""
    path = flat_csv(tmp_path / "US_flat.csv", GOOD)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: run_cli("sync-sqp", str(path)), range(2)))
    codes = sorted(done.returncode for done in both)
    assert codes in ([ExitCode.DONE, ExitCode.DONE], [ExitCode.DONE, ExitCode.BUSY]), codes
    (rows,) = warehouse.execute("select count(*) from landing.sqp_asin").fetchone() or (0,)
    assert rows == len(GOOD)
    built = {table: contents(warehouse, table) for table in SUMMARIES}
    assert run_cli("sync-sqp", str(path)).returncode == ExitCode.DONE
    assert {table: contents(warehouse, table) for table in SUMMARIES} == built
    assert len(built["sqp.weekly_summary"]) == len(GOOD)


def test_numbers_that_were_tampered_with_fail_the_run_and_name_test_and_model(
    warehouse: psycopg.Connection[Any], tmp_path: Path
) -> None:
    path = flat_csv(tmp_path / "US_flat.csv", GOOD)
    sync_sqp([str(path)])
    warehouse.execute("update sqp.weekly_summary set total_impressions = 1 where query = 'query 1'")
    flat_csv(path, [*GOOD, flat_row("B000000003", "new")])
    with pytest.raises(WarehouseError) as raised:
        sync_sqp([str(path)])
    assert "test " in raised.value.why
    assert "weekly_summary" in raised.value.why
    assert ".sql" in raised.value.why
    status = warehouse.execute(
        "select sync_status, error_message from sqp.sync_log order by id desc limit 1"
    ).fetchone()
    assert status is not None
    assert status[0] == "failed"
    assert "weekly_summary" in status[1]


def test_the_password_is_in_no_log_and_no_artifact(
    warehouse: psycopg.Connection[Any], deliveries: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    connection = get_settings().connection()
    assert connection is not None
    password = connection.password.get_secret_value()
    if not password:
        pytest.fail("the test server must have a password, or nothing is tested")
    done = run_cli("--debug", "sync-sqp", str(deliveries))
    assert password not in done.stdout + done.stderr
    places = [Path(os.environ["DBT_TARGET_PATH"]), PROJECT_ROOT / "logs", tmp_path]
    for place in places:
        for path in place.rglob("*"):
            if path.is_file():
                assert password.encode() not in path.read_bytes(), path


def test_the_folder_of_the_spool_is_gone_after_a_run(
    warehouse: psycopg.Connection[Any], deliveries: Path
) -> None:
    sync_sqp([str(deliveries)], dry_run=True)
    assert not list(get_settings().warehouse_home.glob("spool-*"))


def test_a_copy_of_the_deliveries_that_kept_its_times_is_the_same(
    warehouse: psycopg.Connection[Any], deliveries: Path, tmp_path: Path
) -> None:
    sync_sqp([str(deliveries)])
    shutil.copytree(deliveries, tmp_path / "copy", copy_function=shutil.copy2)
    report = sync_sqp([str(tmp_path / "copy")])
    assert sum(row["slices_changed"] for row in report.records) == 0
