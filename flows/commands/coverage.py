"""`warehouse seed-coverage`: where every object of the specifications stands."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows import console
from flows.commands.options import AsJson, examples
from flows.errors import ExitCode


def register(app: typer.Typer) -> None:
    """Add the command `seed-coverage` to the command line."""
    app.command(
        "seed-coverage",
        epilog=examples(
            "warehouse seed-coverage", "warehouse seed-coverage --write docs/seed-coverage.md"
        ),
    )(seed_coverage)


def seed_coverage(
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Also write the whole page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look up every object of the specifications, and say which stand, differ or are missing.

    Exit status 3 if one is missing, or differs without a reason.
    """
    from flows.warehouse.connection import connect
    from flows.warehouse.coverage import State, faults, load_list, look_up, read_catalogue
    from flows.warehouse.coverage import page as page_of
    from flows.warehouse.coverage import summary as summary_of
    from flows.warehouse.ready import ensure_ready

    ensure_ready()
    with connect(role="etl", application="warehouse seed-coverage") as connection:
        standings = look_up(load_list(), read_catalogue(connection))
    found = faults(standings)
    if write:
        write.write_text(page_of(standings), encoding="utf-8")
    if as_json:
        console.say_json(
            {
                "faults": found,
                "objects": [asdict(standing) | {"state": standing.state} for standing in standings],
            }
        )
    else:
        console.say_table(
            ("specification", "objects", *State),
            [
                (title, counts.total(), *(counts[state] for state in State))
                for title, counts in summary_of(standings).items()
            ],
            title="Objects of the specifications",
        )
        for fault in found:
            console.say(fault, style="red")
        if write:
            console.say(f"written: {write}")
    if found:
        raise typer.Exit(ExitCode.PARTIAL)
