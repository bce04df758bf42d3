"""Alerts of syncs: the rules on what the log says, their rows, and Prefect's automations."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from prefect import flow
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventNameFilter

from flows import alerts, automations
from flows.alerts import AlertRule, AlertThresholds
from flows.settings import Connection
from tests.conftest import RunCli
from tests.integration.test_dbt_models import Dbt, database, dbt

__all__ = ["database", "dbt"]


@pytest.fixture
def warehouse(database: Connection, dbt: Dbt) -> Iterator[psycopg.Connection[Any]]:
    """A warehouse with the view of alerts, and nothing in its log."""
    dbt("run", "--select", "sync_alerts")
    with psycopg.connect(**database.libpq(), autocommit=True) as connection:
        yield connection


def synced(
    connection: psycopg.Connection[Any], *outcomes: str, sync_type: str = "weekly", minutes: int = 1
) -> None:
    """Syncs one after the other, each of so many minutes; `started` is one that runs."""
    for outcome in outcomes:
        connection.execute(
            """
            insert into sqp.sync_log (
                run_id, sync_type, sync_status, source_table, target_table, started_at,
                completed_at, lease_until
            )
            values (
                gen_random_uuid(), %(type)s, %(status)s, 'test', 'sqp.weekly_summary',
                clock_timestamp() - make_interval(mins => %(minutes)s),
                case when %(ended)s then clock_timestamp() end, clock_timestamp()
            )
            """,
            {
                "type": sync_type,
                "status": outcome,
                "ended": outcome != "started",
                "minutes": minutes,
            },
        )


def rules(connection: psycopg.Connection[Any]) -> set[tuple[str, str]]:
    return {(each.sync_type, each.alert_rule) for each in alerts.broken_rules(connection)}


FAILED = ("weekly", AlertRule.FAILED_IN_A_ROW)
LONG = ("weekly", AlertRule.LONG_RUN)


@pytest.mark.parametrize(
    ("outcomes", "broken"),
    [
        ((), set()),
        (("failed",), set()),
        (("failed", "failed"), {FAILED}),
        (("failed", "completed", "failed"), set()),
        (("completed", "failed", "failed"), {FAILED}),
        (("failed", "failed", "started"), {FAILED}),
        (("failed", "failed", "completed"), set()),
        (("failed", "started", "failed"), {FAILED}),
    ],
)
def test_failures_in_a_row(
    warehouse: psycopg.Connection[Any], outcomes: tuple[str, ...], broken: set[tuple[str, str]]
) -> None:
    synced(warehouse, *outcomes)
    synced(warehouse, "failed", "completed", sync_type="monthly")
    assert rules(warehouse) == broken


@pytest.mark.parametrize(
    ("minutes", "outcome", "broken"),
    [
        (14, "started", set()),
        (16, "started", {LONG}),
        (16, "completed", {LONG}),
        (14, "completed", set()),
    ],
)
def test_a_run_over_fifteen_minutes(
    warehouse: psycopg.Connection[Any], minutes: int, outcome: str, broken: set[tuple[str, str]]
) -> None:
    synced(warehouse, outcome, minutes=minutes)
    assert rules(warehouse) == broken
    synced(warehouse, "completed")
    assert rules(warehouse) == set()


def test_an_alert_is_one_quality_row_and_the_command_tells_it(
    warehouse: psycopg.Connection[Any], run_cli: RunCli
) -> None:
    assert run_cli("alerts").returncode == 0
    synced(warehouse, "failed", "failed")
    for _ in range(2):
        told = run_cli("alerts", "--json")
        assert told.returncode == 3, told.stderr
    [alert] = json.loads(told.stdout)
    assert (alert["alert_rule"], alert["observed"], alert["threshold"]) == (
        "failed_in_a_row",
        2,
        2,
    )
    rows = warehouse.execute(
        "select sync_log_id, check_name, check_status, source_value, target_value, check_message"
        " from sqp.data_quality_checks where check_type = 'alert'"
    ).fetchall()
    assert rows == [(alert["sync_log_id"], "failed_in_a_row", "failed", 2, 2, alert["message"])]
    synced(warehouse, "failed")
    run_cli("alerts")
    count = "select count(*) from sqp.data_quality_checks where check_type = 'alert'"
    assert warehouse.execute(count).fetchone() == (2,), "a third failure is told again"


def test_without_a_server_automations_are_a_usage_error(run_cli: RunCli) -> None:
    told = run_cli("automations", env={"PREFECT_API_URL": None})
    assert told.returncode == 2
    assert "PREFECT_API_URL" in told.stderr


NAMES = (
    automations.FAILED_IN_A_ROW,
    automations.LONG_RUN,
    automations.LATE_RUN,
    automations.ZOMBIE_RUN,
)


def test_the_command_creates_the_automations_once(prefect_server: str, run_cli: RunCli) -> None:
    environment: dict[str, str | None] = {"PREFECT_API_URL": prefect_server}
    for outcome in ("created", "updated"):
        told = run_cli("automations", "--json", env=environment)
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout) == dict.fromkeys(NAMES, outcome)
    with get_client(sync_client=True) as client:
        for name in NAMES:
            assert len(client.read_automations_by_name(name)) == 1
    trigger = Automation.read(name=automations.LONG_RUN).trigger
    assert trigger.within == timedelta(minutes=15)


def fired(names: set[str], seconds: float) -> list[tuple[str, str]]:
    """Which automations fired, and for which resource; waits for `names`, so long."""
    found: list[tuple[str, str]] = []
    ends = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while time.monotonic() < ends:
            # A filter ends with the moment in which it is made.
            wanted = EventFilter(event=EventNameFilter(name=["prefect.automation.triggered"]))
            answer = client._client.post(
                "/events/filter",
                json={"filter": wanted.model_dump(mode="json"), "limit": 50},
            ).raise_for_status()
            found = [
                (
                    event["resource"]["prefect.resource.name"],
                    event["payload"]["triggering_labels"].get("prefect.resource.id", ""),
                )
                for event in answer.json()["events"]
            ]
            if names <= {name for name, _ in found}:
                break
            time.sleep(0.5)
    return found


def test_the_automations_fire_on_a_real_server(
    prefect_server: str, warehouse: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = AlertThresholds(
        failures_in_a_row=2,
        run_limit=timedelta(seconds=10),
        late_after=timedelta(minutes=10),
        silent_after=timedelta(minutes=10),
    )
    automations.install(automations.definitions(brief))
    synced(warehouse, "failed", "failed")

    @flow(name="sync-sqp", on_failure=[alerts.after_sync])
    def slow_and_failing() -> None:
        time.sleep(16)
        raise RuntimeError("the delivery is late")

    @flow(name="something-else")
    def slow_elsewhere() -> None:
        emit_event("warehouse.other", {"prefect.resource.id": "warehouse.other"})

    slow_elsewhere()
    with pytest.raises(RuntimeError):
        slow_and_failing()
    found = fired({automations.FAILED_IN_A_ROW, automations.LONG_RUN}, 180)
    assert {name for name, _ in found} == {automations.FAILED_IN_A_ROW, automations.LONG_RUN}
    assert (automations.FAILED_IN_A_ROW, "warehouse.sync.weekly") in found
    assert warehouse.execute(
        "select check_name from sqp.data_quality_checks where check_type = 'alert'"
    ).fetchall() == [("failed_in_a_row",)]
