"""`warehouse secrets`: the keys of stored credentials, and their rotation."""

from __future__ import annotations

from dataclasses import asdict

import typer

from flows import console
from flows.commands.options import AsJson
from flows.errors import ExitCode

APPLICATION = "warehouse secrets"

secrets = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the group `secrets` to the command line."""
    app.add_typer(secrets, name="secrets", help="Keys of stored credentials: make, rotate, look.")


@secrets.command(
    "new-key", epilog="\b\nExamples:\n  warehouse secrets new-key\n  warehouse secrets rotate"
)
def new_key(as_json: AsJson = False) -> None:
    """Make a new current key, in front of the keys that still open what they sealed."""
    from flows.settings import get_settings
    from flows.warehouse.secrets import add_key, keys_file

    path = keys_file(get_settings())
    keys = add_key(get_settings())
    if as_json:
        ids = [key.key_id for key in keys]
        console.say_json({"file": path, "current": ids[0], "keys": ids})
        return
    console.say(f"key {keys[0].key_id} is the current one of {len(keys)} in {path}")
    console.say("keep a copy of the file apart from the backups: without it no credential opens")
    if len(keys) > 1:
        console.say("next: start long-running flows anew, then `warehouse secrets rotate`")


@secrets.command(
    epilog="\b\nExamples:\n  warehouse secrets rotate\n  warehouse secrets rotate --json"
)
def rotate(as_json: AsJson = False) -> None:
    """Bring every stored credential under the current key; safe to repeat and to interrupt.

    Exit status 3 if a credential does not open: it is named and left, the others go on.
    """
    from flows.warehouse.connection import connect
    from flows.warehouse.ready import ensure_ready
    from flows.warehouse.secrets import SecretBox
    from flows.warehouse.secrets import rotate as run

    box = SecretBox.from_settings()
    ensure_ready()
    with connect(role="etl", autocommit=True, application=APPLICATION) as connection:
        rotation = run(connection, box)
    if as_json:
        console.say_json(asdict(rotation))
    else:
        console.say_table(
            ("table", "rows", "re-sealed", "broken"),
            [
                (table.table, table.rows_checked, table.rows_resealed, table.rows_broken)
                for table in rotation.tables
            ],
        )
        for value in rotation.broken:
            console.say(f"{value.table} {value.row_id}, {value.column}: {value.why}")
        if not rotation.broken:
            console.say(f"every stored credential is under key {rotation.key_id}")
    if rotation.broken:
        raise typer.Exit(ExitCode.PARTIAL)


@secrets.command(
    epilog="\b\nExamples:\n  warehouse secrets status\n  warehouse secrets status --json"
)
def status(as_json: AsJson = False) -> None:
    """Say how many rows are sealed under which key, and which keys are known here.

    Exit status 1 if a row's key is not known.
    """
    from flows.settings import get_settings
    from flows.warehouse.connection import connect
    from flows.warehouse.ready import ensure_ready
    from flows.warehouse.secrets import load_keys, rows_by_key

    known = [key.key_id for key in load_keys(get_settings())]
    ensure_ready()
    with connect(role="etl", autocommit=True, application=APPLICATION) as connection:
        found = rows_by_key(connection)
    if as_json:
        rows = [
            {"table": table, "key_id": key_id, "rows": rows, "known": key_id in known}
            for table, key_id, rows in found
        ]
        console.say_json({"current": known[0] if known else None, "keys": known, "rows": rows})
    else:
        for position, key_id in enumerate(known):
            console.say(f"key {key_id}: {'opens only' if position else 'current'}")
        if not known:
            console.say("no key is known here: `warehouse secrets new-key` makes the first one")
        console.say_table(
            ("table", "key", "rows", "key is known"),
            [
                (table, key_id, rows, "ok" if key_id in known else "fail")
                for table, key_id, rows in found
            ],
        )
    if any(key_id not in known for _, key_id, _ in found):
        raise typer.Exit(ExitCode.FAILED)
