"""`warehouse backup` and `warehouse restore`: proved copies, and the way back from them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows import console
from flows.commands.options import AsJson
from flows.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the commands `backup` and `restore` to the command line."""
    app.command(
        epilog="\b\nExamples:\n"
        "  warehouse backup --keep 14\n"
        "  warehouse backup --to /mnt/backups\n"
        "  warehouse backup --base --keep 2"
    )(backup)
    app.command(
        epilog="\b\nExamples:\n"
        "  warehouse restore --to '2026-11-24 10:00:00+00'\n"
        "  warehouse restore --to '2026-11-24 10:00:00+00' --replace\n"
        "  warehouse restore --dump warehouse_20261124.dump --into-database as_of_24"
    )(restore)


def backup(
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Where the dump goes; made if needed."),
    ] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="How many stay, this one included; else all.")
    ] = None,
    base: Annotated[
        bool,
        typer.Option(
            "--base", help="Copy the embedded server whole, and archive its log from now."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Dump the database of today, or take a base backup to restore any later time from.

    Both are read again and compared before they count. The keys of stored credentials are in
    neither: keep a copy of them elsewhere.
    """
    if base and to:
        raise UsageError(
            "a base backup stays beside the embedded server",
            "--to is for dumps",
            "leave one of --base and --to away",
        )
    from flows.progress import watched_by
    from flows.settings import get_settings

    with console.step_bars() as bars, watched_by(bars):
        if base:
            from flows.warehouse.base_backup import take_base_backup

            taken = take_base_backup(get_settings(), keep)
        else:
            from flows.warehouse.backup import back_up

            dump = back_up(get_settings(), to, keep)
    if base:
        if as_json:
            console.say_json(asdict(taken))
            return
        console.say(f"base backup {taken.path}: {taken.bytes / 1e6:,.0f} MB, verified")
        console.say(f"any time from {taken.finished_at:%F %T%z} on can be restored")
        return
    if as_json:
        console.say_json(dump.as_dict())
        return
    console.say(
        f"{dump.path}: {sum(dump.rows.values()):,} rows of {len(dump.rows)} tables in"
        f" {dump.bytes / 1e6:,.1f} MB, verified"
    )


def restore(
    to: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="The time, with its zone.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--into", metavar="DIR", help="The folder to make for it.")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Let it take the place of the data in use, which is kept."),
    ] = False,
    dump: Annotated[
        Path | None, typer.Option("--dump", metavar="FILE", help="A dump instead of a time.")
    ] = None,
    into_database: Annotated[
        str | None, typer.Option("--into-database", metavar="NAME", help="Made for the dump.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before replacing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Restore the embedded server as of a time, beside what is there, or a dump.

    Verified before it counts: the time reached, every table and index read, checksums of all
    pages. Without --replace nothing that is in use is touched.
    """
    _refuse_odd_call(to, into, replace, dump, into_database)
    from flows.progress import watched_by
    from flows.settings import get_settings
    from flows.warehouse.restore import parse_time, restore_dump, restore_to

    if dump and into_database:
        with console.step_bars() as bars, watched_by(bars):
            loaded = restore_dump(get_settings(), dump, into_database)
        if as_json:
            console.say_json(asdict(loaded))
            return
        console.say(
            f"{loaded.path} is now the database {loaded.database}: {sum(loaded.rows.values()):,}"
            f" rows of {loaded.tables} tables, {loaded.policies} policies, as they were dumped"
        )
        if loaded.made_roles:
            names = ", ".join(loaded.made_roles)
            console.note(f"roles made, without passwords: {names}")
        return
    target = parse_time(to or "")
    if replace and not yes:
        from flows.cli import ask

        ask(f"Replace the data in use by that of {target:%F %T%z}, cutting off who uses it?")
    with console.step_bars() as bars, watched_by(bars):
        found = restore_to(get_settings(), target, into, in_place=replace)
    if as_json:
        console.say_json(asdict(found))
        return
    rows = f"{sum(found.rows.values()):,} rows of {found.tables} tables"
    console.say(
        f"restored as of {target:%F %T%z}: {rows}, {found.policies} policies, {found.roles} roles;"
        f" the last change is of {found.last_change or found.base_backup}"
    )
    if found.home:
        console.say(f"to look at it: WAREHOUSE_HOME={found.home} warehouse psql")
        console.say(f"to delete it: WAREHOUSE_HOME={found.home} warehouse down --delete-data")
    else:
        console.say(f"it is in use; the data before is in {found.old_data}: delete it when sure")


def _refuse_odd_call(
    to: str | None,
    into: Path | None,
    replace: bool,
    dump: Path | None,
    into_database: str | None,
) -> None:
    """Either a time, with --into or --replace, or a dump with its new database."""
    example = "see `warehouse restore --help` for examples"
    if (to is None) == (dump is None):
        raise UsageError("restore what?", "give either --to TIME or --dump FILE", example)
    if (dump is None) != (into_database is None):
        raise UsageError("restore a dump where?", "--dump and --into-database go together", example)
    if dump and (into or replace):
        raise UsageError(
            "a dump goes into a new database", "--into and --replace are for --to TIME", example
        )
    if into and replace:
        raise UsageError(
            "where shall it be?", "--into leaves it beside, --replace puts it into use", example
        )
