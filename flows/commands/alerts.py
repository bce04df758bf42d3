"""`warehouse alerts` and `warehouse automations`: what is wrong with syncs, and who is told."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import typer

from flows import console
from flows.commands.options import AsJson, examples
from flows.errors import ExitCode, UsageError


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog=examples("warehouse alerts", "warehouse alerts --json"))(alerts)
    app.command(
        epilog=examples(
            "warehouse automations --notify 6a1d5ea5-3c1e-4f0e-9c83-5a1e4b7f2f10",
            "PREFECT_API_URL=http://127.0.0.1:4200/api warehouse automations",
        )
    )(automations)


def alerts(as_json: AsJson = False) -> None:
    """Say which alert rules are broken now, and record those in sqp.data_quality_checks.

    Exit status 3 if a rule is broken.
    """
    from flows.alerts import raise_alerts
    from flows.warehouse.ready import ensure_ready

    ensure_ready()
    broken = raise_alerts()
    if as_json:
        console.say_json([asdict(alert) | {"message": alert.message} for alert in broken])
    elif broken:
        console.say_table(
            ("sync", "rule", "what"),
            [(alert.sync_type, alert.alert_rule, alert.message) for alert in broken],
        )
    else:
        console.say("no alert: no failures in a row, and no sync that runs too long")
    if broken:
        raise typer.Exit(ExitCode.PARTIAL)


def automations(
    notify: Annotated[
        UUID | None,
        typer.Option(help="Id of the Prefect block that sends notifications, such as Slack's."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create the alerts' automations on your Prefect server, or bring them up to date."""
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise UsageError(
            "no Prefect server is named",
            "PREFECT_API_URL is not set, and a temporary server forgets its automations",
            "set PREFECT_API_URL, say to http://127.0.0.1:4200/api",
        )
    from flows.automations import definitions, install

    outcome = install(definitions(notification_block=notify))
    if as_json:
        console.say_json(outcome)
    else:
        console.say_table(("automation", "outcome"), list(outcome.items()))
