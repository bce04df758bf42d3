"""The Prefect automations of the warehouse: what a Prefect server watches, and what it then does.

They are defined here and created, or brought up to date, by `warehouse automations`.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.alerts import EVENT_PREFIX, FLOW_PREFIX, AlertRule, AlertThresholds, thresholds
from flows.runs import PARTIAL

FAILED_IN_A_ROW = "warehouse: failures in a row"
LONG_RUN = "warehouse: a run takes too long"
LATE_RUN = "warehouse: a run is late"
ZOMBIE_RUN = "warehouse: a run is gone without a word"

FLOWS = (
    "sync-sqp",
    "check-quality",
    "keep-tables",
    "refresh-tokens",
    "sync-accounts",
    "sync-dsp-seats",
)
OF_OURS = {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)}
RUNS = {"prefect.resource.id": "prefect.flow-run.*"}
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = {
    f"prefect.flow-run.{state}"
    for state in (
        *("Completed", PARTIAL, "Cached", "Failed", "Crashed", "Cancelled", "TimedOut"),
        *("Paused", "Suspended"),
    )
}
"""What a run does that has no process any more, for the time being or for good."""
RETRY = "prefect.flow-run.AwaitingRetry"
RUNNING = "prefect.flow-run.Running"


def definitions(
    limits: AlertThresholds | None = None, notification_block: UUID | None = None
) -> list[AutomationCore]:
    """The automations.

    Args:
        limits: when to alert; without them, what dbt_project.yml says.
        notification_block: the Prefect block that a notification is sent by; without one an alert
            is an event that the server keeps, and nothing more.
    """
    limits = limits or thresholds()
    run = "{{ flow_run.name }}"
    return [
        AutomationCore(
            name=FAILED_IN_A_ROW,
            description=f"{limits.failures_in_a_row} syncs of a type, or runs of a flow, in a row"
            " have failed.",
            trigger=EventTrigger(
                expect={
                    f"{prefix}{AlertRule.FAILED_IN_A_ROW}" for prefix in (EVENT_PREFIX, FLOW_PREFIX)
                },
                match={"prefect.resource.id": [f"{EVENT_PREFIX}*", f"{FLOW_PREFIX}*"]},
                for_each={"prefect.resource.id"},
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[action(notification_block, "{{ event.payload.message }}")],
        ),
        AutomationCore(
            name=LONG_RUN,
            description=f"A run has not ended after {limits.run_limit}.",
            trigger=_silence(after={RUNNING}, expect={RETRY, *ENDS}, within=limits.run_limit),
            actions=[
                action(
                    notification_block,
                    f"{run} has not ended after {limits.run_limit}:"
                    " `warehouse status` says at which step a sync is.",
                )
            ],
        ),
        AutomationCore(
            name=LATE_RUN,
            description=f"No worker has begun a run {limits.late_after} after it was found late.",
            trigger=_silence(
                after={"prefect.flow-run.Late"},
                expect={"prefect.flow-run.Pending", RUNNING, *ENDS},
                within=limits.late_after,
            ),
            actions=[
                action(
                    notification_block,
                    f"{run} waits for a worker: is one running, and is another run of its"
                    " deployment still at work?",
                )
            ],
        ),
        AutomationCore(
            name=ZOMBIE_RUN,
            description=f"A run has given no sign of life for {limits.silent_after}: it is closed.",
            trigger=_silence(
                after={RUNNING, HEARTBEAT}, expect={HEARTBEAT, *ENDS}, within=limits.silent_after
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED,
                    message=f"no sign of life for {limits.silent_after}: its process or its"
                    " machine is gone. The next sync takes up what this one had landed.",
                ),
                action(
                    notification_block,
                    f"{run} is gone without a word and was closed: is its machine up?",
                ),
            ],
        ),
    ]


def _silence(*, after: set[str], expect: set[str], within: timedelta) -> EventTrigger:
    """A run of ours that does none of what it is expected to do in time."""
    return EventTrigger(
        after=after,
        expect=expect,
        match=RUNS,
        match_related=OF_OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=within,
    )


def action(notification_block: UUID | None, body: str) -> ActionTypes:
    """What an automation does when it fires."""
    if notification_block is None:
        return DoNothing()
    return SendNotification(
        block_document_id=notification_block, subject="{{ automation.name }}", body=body
    )


def install(automations: list[AutomationCore]) -> dict[str, str]:
    """Create each automation on the Prefect server, or bring the one of its name up to date.

    Returns:
        by name, `created` or `updated`.
    """
    outcome = {}
    with get_client(sync_client=True) as client:
        for automation in automations:
            found = client.read_automations_by_name(automation.name)
            if found:
                client.update_automation(found[0].id, automation)
            else:
                client.create_automation(automation)
            outcome[automation.name] = "updated" if found else "created"
    return outcome
