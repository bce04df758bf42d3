"""`warehouse connect amazon` and `warehouse refresh-tokens`: logins and their tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import console
from flows.commands.options import AsJson, examples

connecting = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(connecting, name="connect", help="Connect an account of a remote platform.")
    app.command(
        "refresh-tokens",
        epilog=examples("warehouse refresh-tokens", "warehouse refresh-tokens --retry --json"),
    )(refresh_tokens)


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
