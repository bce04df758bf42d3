"""The main job from BigQuery, whole: command line, dbt, Great Expectations, a kill, a rerun."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime

import pytest

from flows.settings import Connection
from flows.sources.deliveries import PeriodType
from flows.sources.periods import period_around
from flows.warehouse.connection import connect
from tests.bigquery.engine import PROJECT, Engine
from tests.bigquery.source_table import CLIENT, change, create, insert, row
from tests.conftest import RunCli
from tests.integration.deliveries import asin

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_sync_that_is_killed_is_made_good_by_the_next_and_losses_are_held_back(
    engine: Engine, database: Connection, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in engine.settings().items():
        monkeypatch.setenv(name, value)
    create(engine)
    today = datetime.now(UTC).date()
    this_week = period_around(PeriodType.WEEK, today)[0].toordinal()
    weeks = [today.fromordinal(this_week - 7 * back) for back in (1, 2, 3)]
    insert(
        engine,
        [
            row(asin(n), f"query {q}", 40 + q, week)
            for week in weeks
            for n in (1, 2)
            for q in range(10)
        ],
    )
    sync = ("sync-sqp", "--from", "bigquery", "--json")

    killed = run_cli(*sync, env={"FAULT_AT": "bucket_0"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = run_cli(*sync)
    assert done.returncode == 0, done.stderr
    with connect(autocommit=True) as connection:
        found = connection.execute(
            "select count(*), count(distinct bigquery_sync_id), min(account_id)"
            " from sqp.weekly_summary"
        ).fetchone()
        assert found is not None
        assert found[0] == 60
        assert found[2] == CLIENT
        log = connection.execute(
            "select source_table, sync_metadata from sqp.sync_log"
            " where sync_status = 'completed' order by id desc limit 1"
        ).fetchone()
        assert log is not None
        assert log[0] == f"{PROJECT}.seller.seller-search_query_performance"
        assert log[1]["job_id"].startswith("warehouse_sqp_")
        assert log[1]["estimated_bytes"] > 0
        ids = connection.execute("select distinct bigquery_sync_id from sqp.weekly_summary")
        assert all(each[0].startswith("warehouse_sqp_") for each in ids)

        change(
            engine,
            f"delete from {{table}} where `Date` = '{weeks[1]}' and `Search Query` > 'query 2'",
        )
        clicks = "`ASIN Click Count` = 3, `ASIN Click Share` = round(300 / `Total Click Count`, 2)"
        change(engine, f"update {{table}} set {clicks} where `Date` = '{weeks[0]}'")
        held = run_cli(*sync)
        assert held.returncode == 3, held.stderr
        [told] = json.loads(held.stdout)["unreadable"]
        assert f"the week of {weeks[1]}" in told["what"]
        sums = dict(
            connection.execute(
                "select period_start, count(*) from sqp.weekly_summary group by 1"
            ).fetchall()
        )
        assert sums == dict.fromkeys(weeks, 20)
        summed = connection.execute(
            "select sum(total_clicks) from sqp.weekly_summary where period_start = %s", (weeks[0],)
        ).fetchone()
        assert summed == (60,), "the other weeks went on"
