"""The Prefect automations of the warehouse: what a Prefect server watches, and what it then does.

They are defined here and created, or brought up to date, by `warehouse automations`.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.events.actions import ActionTypes, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.alerts import EVENT_PREFIX, AlertRule, AlertThresholds, thresholds

FLOW = "sync-sqp"
FAILED_IN_A_ROW = "sync-sqp: failures in a row"
LONG_RUN = "sync-sqp: runs too long"
ENDS = {
    f"prefect.flow-run.{state}"
    for state in ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut")
}


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
    minutes = limits.run_limit / timedelta(minutes=1)
    return [
        AutomationCore(
            name=FAILED_IN_A_ROW,
            description=f"{limits.failures_in_a_row} syncs of a type in a row have failed.",
            trigger=EventTrigger(
                expect={f"{EVENT_PREFIX}{AlertRule.FAILED_IN_A_ROW}"},
                match={"prefect.resource.id": f"{EVENT_PREFIX}*"},
                for_each={"prefect.resource.id"},
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[action(notification_block, "{{ event.payload.message }}")],
        ),
        AutomationCore(
            name=LONG_RUN,
            description=f"A run of {FLOW} has not ended after {minutes:g} minutes.",
            trigger=EventTrigger(
                after={"prefect.flow-run.Running"},
                expect=ENDS,
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related={"prefect.resource.role": "flow", "prefect.resource.name": FLOW},
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=limits.run_limit,
            ),
            actions=[
                action(
                    notification_block,
                    f"A run of {FLOW} has not ended after {minutes:g} minutes:"
                    " `warehouse status` says at which step it is.",
                )
            ],
        ),
    ]


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
