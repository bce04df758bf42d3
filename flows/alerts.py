"""Alerts of syncs: the broken rules of `sqp.sync_alerts` as quality rows, and as Prefect events.

The rules and their thresholds are the project's (`alert_…` in dbt_project.yml). A row is written
once for each rule, sync type and newest sync that breaks it. Of every flow, also where there is no
database to write to, failures in a row are an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import psycopg
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import emit_event
from prefect.flows import Flow
from prefect.logging import get_logger
from psycopg.rows import class_row

from flows.settings import PROJECT_ROOT
from flows.warehouse.connection import connect

EVENT_PREFIX = "warehouse.sync."
"""The event of an alert is this and the rule; its resource this and the sync type."""
FLOW_PREFIX = "warehouse.flow."
"""The same of a flow's own alerts; their resource is this and the flow's name."""
ENDS = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED]
"""The states that say whether a run did its work; one that was cancelled says nothing."""


class AlertRule(StrEnum):
    """The rules of `sqp.sync_alerts`."""

    FAILED_IN_A_ROW = "failed_in_a_row"
    LONG_RUN = "long_run"


@dataclass(frozen=True)
class Alert:
    """A broken rule.

    Attributes:
        observed: failures since the last success, or seconds of the run.
        threshold: from how many failures, or after how many seconds, it is an alert.
        sync_log_id: the newest sync that broke the rule.
        since: when the first of the failures ended, or the run began (UTC).
    """

    sync_type: str
    alert_rule: str
    observed: int
    threshold: int
    sync_log_id: int
    since: datetime

    @property
    def message(self) -> str:
        """What is wrong and what to do, in one line."""
        when = f"{self.since:%Y-%m-%d %H:%M} UTC"
        if self.alert_rule == AlertRule.LONG_RUN:
            return (
                f"the {self.sync_type} sync that began at {when} has taken"
                f" {timedelta(seconds=self.observed)}: `warehouse status` says at which step it is"
            )
        return (
            f"{self.observed} {self.sync_type} syncs in a row have failed since {when}:"
            " `warehouse status` says why"
        )


@dataclass(frozen=True)
class AlertThresholds:
    """What dbt_project.yml says of alerts.

    Attributes:
        run_limit: how long a run may take.
        late_after: how long after its time a run may wait for a worker.
        silent_after: how long a run may give no sign of life; Prefect's runs give one each 30 s.
    """

    failures_in_a_row: int
    run_limit: timedelta
    late_after: timedelta
    silent_after: timedelta


def thresholds() -> AlertThresholds:
    """The thresholds of the project's vars."""
    project = yaml.safe_load((PROJECT_ROOT / "dbt_project/dbt_project.yml").read_text("utf-8"))
    return AlertThresholds(
        failures_in_a_row=int(project["vars"]["alert_failures_in_a_row"]),
        run_limit=timedelta(minutes=float(project["vars"]["alert_run_minutes"])),
        late_after=timedelta(minutes=float(project["vars"]["alert_late_minutes"])),
        silent_after=timedelta(seconds=float(project["vars"]["alert_silent_seconds"])),
    )


def broken_rules(connection: psycopg.Connection[Any]) -> list[Alert]:
    """The rules that are broken now; none before the first build has made the view."""
    known = connection.execute("select to_regclass('sqp.sync_alerts') is not null").fetchone()
    if not known or not known[0]:
        return []
    with connection.cursor(row_factory=class_row(Alert)) as cursor:
        return cursor.execute(
            """
            select sync_type, alert_rule, observed, threshold, sync_log_id, since
            from sqp.sync_alerts
            order by sync_type, alert_rule
            """
        ).fetchall()


def record(connection: psycopg.Connection[Any], alerts: list[Alert]) -> list[Alert]:
    """Write a failed quality check for each alert that has none yet.

    Returns:
        the alerts that are new.
    """
    return [
        alert
        for alert in alerts
        if connection.execute(
            """
            insert into sqp.data_quality_checks (
                sync_log_id, check_type, check_name, check_status, source_value, target_value,
                difference, table_name, check_message
            )
            select
                %(sync_log_id)s, 'alert', %(rule)s::text, 'failed', %(threshold)s, %(observed)s,
                %(observed)s::bigint - %(threshold)s::bigint, 'sqp.sync_log', %(message)s
            where not exists (
                select
                from sqp.data_quality_checks
                where
                    sync_log_id = %(sync_log_id)s
                    and check_type = 'alert'
                    and check_name = %(rule)s::text
            )
            """,
            {
                "sync_log_id": alert.sync_log_id,
                "rule": alert.alert_rule,
                "threshold": alert.threshold,
                "observed": alert.observed,
                "message": alert.message,
            },
        ).rowcount
    ]


def raise_alerts() -> list[Alert]:
    """Record what is broken now, and tell Prefect of what is new.

    Returns:
        every rule that is broken now.
    """
    with connect(autocommit=True, application="warehouse alerts", role="etl") as connection:
        alerts = broken_rules(connection)
        for alert in record(connection, alerts):
            emit_event(
                event=f"{EVENT_PREFIX}{alert.alert_rule}",
                resource={
                    "prefect.resource.id": f"{EVENT_PREFIX}{alert.sync_type}",
                    "prefect.resource.name": f"{alert.sync_type} sync",
                },
                payload={
                    "message": alert.message,
                    "observed": alert.observed,
                    "threshold": alert.threshold,
                    "sync_log_id": alert.sync_log_id,
                },
            )
    return alerts


def after_sync(
    flow: Flow[..., Any],
    flow_run: FlowRun,  # noqa: ARG001
    state: State[Any],  # noqa: ARG001
) -> None:
    """A hook of the sync's flow, however it ended: alerts never change how a sync ended."""
    try:
        raise_alerts()
    except Exception:
        get_logger("flows").exception("the alerts of %s could not be recorded", flow.name)


def after_failure(
    flow: Flow[..., Any],
    flow_run: FlowRun,
    state: State[Any],  # noqa: ARG001
) -> None:
    """A hook of every flow that failed: an event where the runs before it failed as well."""
    try:
        limit = thresholds().failures_in_a_row
        failures = failures_in_a_row(flow_run, limit)
        if failures < limit:
            return
        emit_event(
            event=f"{FLOW_PREFIX}{AlertRule.FAILED_IN_A_ROW}",
            resource={
                "prefect.resource.id": f"{FLOW_PREFIX}{flow.name}",
                "prefect.resource.name": flow.name,
            },
            payload={
                "message": f"the last {failures} runs of {flow.name} failed: the verdict among the"
                " artifacts of the newest says why and what to do",
                "observed": failures,
                "threshold": limit,
            },
        )
    except Exception:
        get_logger("flows").exception("the failures of %s could not be counted", flow.name)


def failures_in_a_row(flow_run: FlowRun, limit: int) -> int:
    """How many of the newest runs of a run's flow failed, this one included, up to `limit`."""
    with get_client(sync_client=True) as client:
        newest = client.read_flow_runs(
            flow_filter=FlowFilter(id=FlowFilterId(any_=[flow_run.flow_id])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=ENDS))
            ),
            sort=FlowRunSort.END_TIME_DESC,
            limit=limit,
        )
    failed = [run.state_type is not StateType.COMPLETED for run in newest]
    return failed.index(False) if False in failed else len(failed)
