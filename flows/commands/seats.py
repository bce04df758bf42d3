"""`warehouse seats` and `warehouse sync-seats`: the seats of DSP advertisers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows import console
from flows.commands.options import AsJson, examples
from flows.vocabulary.accounts import AccountSyncType

Advertiser = Annotated[str, typer.Argument(metavar="ADVERTISER", help="Id of the advertiser.")]
Exchange = Annotated[
    list[str] | None,
    typer.Option("--exchange", help="On this exchange only, by id; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(
        epilog=examples(
            "warehouse seats 590000000000000001",
            "warehouse seats 590000000000000001 --history 50 --json",
            "warehouse seats 590000000000000001 --exchange 1  # asks Amazon, stores nothing",
        )
    )(seats)
    app.command(
        "sync-seats",
        epilog=examples("warehouse sync-seats", "warehouse sync-seats 590000000000000001 --json"),
    )(sync_seats)


def seats(
    advertiser: Advertiser,
    exchange: Exchange = None,
    history: Annotated[int, typer.Option(help="So many changes and syncs.", min=1)] = 10,
    as_json: AsJson = False,
) -> None:
    """Show the seats of a DSP advertiser: what is new, changed and gone, and the history.

    With --exchange Amazon is asked for these exchanges now: that is shown and never stored.
    """
    from flows.warehouse.ready import ensure_ready

    ensure_ready()
    if exchange:
        from flows.sync_dsp_seats import read_exchanges

        found = read_exchanges(advertiser, exchange)
        if as_json:
            console.say_json({"advertiser_id": advertiser, "seats": found, "stored": False})
        else:
            columns: tuple[str, ...] = (
                "exchange_id",
                "exchange_name",
                "deal_creation_id",
                "spend_tracking_id",
            )
            _table(columns, found, "Seats at Amazon now (not stored)")
        return
    from flows.warehouse.connection import connect
    from flows.warehouse.seats import find_dsp_accounts, view_seats

    with connect(autocommit=True, application="warehouse seats", role="etl") as session:
        views = [
            view_seats(session, account, history)
            for account in find_dsp_accounts(session, [advertiser])
        ]
    if as_json:
        console.say_json([vars(view) for view in views])
        return
    for view in views:
        about = view.account
        console.say(f"{about['account_name']} ({about['advertiser_id']}): {about['status']}")
        console.say(
            f"last attempt {_when(about['last_sync_attempt_at'])}, last success"
            f" {_when(about['last_synced_at'])}, last change {_when(about['last_sync_change_at'])}"
        )
        if about["sync_error_message"]:
            console.say(about["sync_error_message"], style="red")
        columns = (
            "exchange_name",
            "seat_id",
            "spend_tracking_id",
            "state",
            "first_seen_at",
            "last_seen_at",
        )
        _table(columns, view.seats, "Seats")
        columns = (
            "observed_at",
            "change_type",
            "exchange_name",
            "seat_id",
            "previous_exchange_name",
            "previous_spend_tracking_id",
        )
        _table(columns, view.history, "Changes")
        columns = (
            "created_at",
            "sync_status",
            "seats_retrieved",
            "exchanges_count",
            "error_message",
        )
        _table(columns, view.syncs, "Syncs")


def sync_seats(
    advertisers: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ADVERTISER…]", help="Ids; without any, all that are connected."),
    ] = None,
    sync_type: Annotated[
        AccountSyncType, typer.Option("--type", help="Who asks; `scheduled` syncs what is due.")
    ] = AccountSyncType.MANUAL,
    accept_shrink: Annotated[
        bool, typer.Option("--accept-shrink", help="Store an empty list also if there were seats.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the seats of DSP advertisers up to date.

    Exit status 3 if some could not be read, 1 if none could, 75 if a sync of it is at work.
    """
    from flows.warehouse.ready import ensure_ready

    ensure_ready()
    from flows.sync_dsp_seats import sync_dsp_seats as run

    report = run(advertisers or None, sync_type, accept_shrink)
    if as_json:
        console.say_json(report.as_dict())
        raise typer.Exit(report.exit_code)
    console.say_table(
        ("advertiser", "name", "tenant", "status", "seats", "exchanges", "new", "changed", "gone"),
        [
            (
                each.advertiser_id,
                each.account_name,
                each.tenant,
                each.status,
                each.counts.seats,
                each.counts.exchanges,
                each.counts.new,
                each.counts.changed,
                each.counts.removed,
            )
            for each in report.advertisers
        ],
    )
    for each in report.advertisers:
        if each.error:
            console.say(
                f"{each.advertiser_id}: {each.error['what']}: {each.error['why']}", style="red"
            )
            console.say(f"  next: {each.error['next_step']}")
    raise typer.Exit(report.exit_code)


def _table(columns: tuple[str, ...], rows: list[dict[str, Any]], title: str) -> None:
    console.say_table(
        [column.replace("_", " ") for column in columns],
        [
            [_when(row[name]) if name.endswith("_at") else row[name] for name in columns]
            for row in rows
        ],
        title=title,
    )


def _when(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "–"
