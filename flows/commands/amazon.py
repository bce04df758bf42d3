"""`warehouse connect amazon`, `refresh-tokens` and `sync-accounts`: logins and what they see."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import console
from flows.commands.options import AsJson, examples
from flows.vocabulary.accounts import AccountSyncType

connecting = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(connecting, name="connect", help="Connect an account of a remote platform.")
    app.command(
        "refresh-tokens",
        epilog=examples("warehouse refresh-tokens", "warehouse refresh-tokens --retry --json"),
    )(refresh_tokens)
    app.command(
        "sync-accounts",
        epilog=examples(
            "warehouse sync-accounts",
            "warehouse sync-accounts --connection 'agency login' --json",
            "warehouse sync-accounts --type scheduled  # those that are due",
        ),
    )(sync_accounts)


@connecting.command(
    "amazon",
    epilog=examples(
        "warehouse connect amazon",
        "warehouse connect amazon --user ann@example.com --name 'agency login'",
    ),
)
def connect_amazon(
    user: Annotated[str | None, typer.Option(help="Address of the tenant whose it is.")] = None,
    name: Annotated[str, typer.Option(help="What the connection is called.")] = "amazon",
    port: Annotated[
        int | None, typer.Option(help="Of http://localhost, that Amazon sends the browser to.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Connect a login of Amazon: open the address that is shown, and allow the access.

    A connection of that name gets new tokens. The state is valid ten minutes and once.
    """
    from flows.connect_amazon import connect_amazon as run
    from flows.warehouse.ready import ensure_ready

    ensure_ready()
    made = run(
        user, name, port, lambda url: console.note(f"open this address in a browser:\n{url}")
    )
    if as_json:
        console.say_json({"connection": name, "id": made})
        return
    console.say(f"the connection {name} is made")
    console.say("next: warehouse sync-accounts")


def refresh_tokens(
    retry: Annotated[
        bool, typer.Option("--retry", help="Ask again where Amazon has refused for good.")
    ] = False,
    connection: Annotated[
        str | None, typer.Option(help="This connection only, by name or id.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Renew the tokens that end within a quarter of an hour.

    Exit status 3 if some could not be renewed, 1 if none could.
    """
    from flows.warehouse.ready import ensure_ready

    ensure_ready()
    from flows.refresh_tokens import refresh_tokens as run

    report = run(retry=retry, connection=connection)
    if as_json:
        console.say_json(report.as_dict())
    elif not report.tokens:
        console.say("no connection has a token to look after")
    else:
        console.say_table(
            ("connection", "tenant", "outcome", "why", "next step"),
            [
                (
                    token.connection,
                    token.tenant,
                    token.outcome,
                    (token.error or {}).get("why"),
                    (token.error or {}).get("next_step"),
                )
                for token in report.tokens
            ],
        )
    raise typer.Exit(report.exit_code)


def sync_accounts(
    connection: Annotated[
        str | None, typer.Option(help="This connection only, by name or id.")
    ] = None,
    sync_type: Annotated[
        AccountSyncType, typer.Option("--type", help="Who asks; `scheduled` syncs what is due.")
    ] = AccountSyncType.MANUAL,
    accept_shrink: Annotated[
        bool,
        typer.Option("--accept-shrink", help="Store the list also if more than half are gone."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the accounts of all connections up to date: sponsored ads, DSP and AMC.

    Exit status 3 if something could not be read, 1 if nothing could, 75 if a sync is at work.
    """
    from flows.warehouse.ready import ensure_ready

    ensure_ready()
    from flows.sync_accounts import sync_accounts as run

    report = run(connection, sync_type, accept_shrink)
    if as_json:
        console.say_json(report.as_dict())
        raise typer.Exit(report.exit_code)
    console.say_table(
        ("connection", "tenant", "status", "found", "new", "changed", "gone", "left", "requests"),
        [
            (
                each.connection,
                each.tenant,
                each.status,
                each.counts.found,
                each.counts.new,
                each.counts.changed,
                each.counts.disconnected,
                each.counts.failed,
                each.requests,
            )
            for each in report.connections
        ],
    )
    for each in report.connections:
        for problem in each.problems:
            console.say(f"{each.connection}: {problem['what']}: {problem['why']}", style="red")
            console.say(f"  next: {problem['next_step']}")
        for text in each.notes:
            console.note(f"{each.connection}: {text}")
    raise typer.Exit(report.exit_code)
