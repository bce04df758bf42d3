"""`warehouse upkeep` and the retention commands: partitions, and what is old enough to go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flows import console
from flows.commands.options import AsJson
from flows.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from flows.upkeep import UpkeepReport
    from flows.warehouse.upkeep import InUse, Removal

APPLICATION = "warehouse retention"


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog="\b\nExamples:\n  warehouse upkeep\n  warehouse upkeep --apply-retention")(
        upkeep
    )
    app.command(epilog="\b\nExamples:\n  warehouse retention\n  warehouse retention --apply")(
        retention
    )
    app.command(
        "retention-hold",
        epilog="\b\nExamples:\n"
        "  warehouse retention-hold audit_logs --reason 'legal request of 3 March'\n"
        "  warehouse retention-hold audit_logs --release",
    )(retention_hold)


def upkeep(
    apply_retention: Annotated[
        bool,
        typer.Option("--apply-retention", help="Also remove what is older than its retention."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check default partitions, make the partitions that are missing, and look at retention.

    Exit status 3 if a table was in use or rows stay in a default partition, 75 if another upkeep
    runs.
    """
    from flows.warehouse.ready import ensure_ready

    ensure_ready()
    from flows.progress import watched_by
    from flows.upkeep import keep_tables

    with console.step_bars() as bars, watched_by(bars):
        report = keep_tables(apply_retention)
    if as_json:
        console.say_json(report.as_dict())
    else:
        _tell_upkeep(report)
    raise typer.Exit(report.exit_code)


def retention(
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove; without this, only count.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is older than its table's retention; with --apply, remove it.

    Exit status 3 if a table was in use, 75 if an upkeep runs.
    """
    from flows.warehouse.connection import connect
    from flows.warehouse.ready import ensure_ready
    from flows.warehouse.upkeep import apply_retention, upkeep_lock

    ensure_ready()
    with (
        connect(role="etl", autocommit=True, application=APPLICATION) as connection,
        upkeep_lock(connection),
    ):
        removals, in_use = apply_retention(connection, apply=apply)
    if as_json:
        console.say_json(
            {
                "applied": apply,
                "removals": [asdict(removal) for removal in removals],
                "in_use": [asdict(table) for table in in_use],
            }
        )
    else:
        _tell_removals(removals, applied=apply)
        _tell_in_use(in_use)
    if in_use:
        raise typer.Exit(ExitCode.PARTIAL)


def retention_hold(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="The table, with or without schema.")
    ],
    reason: Annotated[
        str | None, typer.Option(help="Why nothing may be removed until further notice.")
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="Let retention go on.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep every row of a table, however old, until the hold is released."""
    if release == bool(reason and reason.strip()):
        raise UsageError(
            "a hold needs a reason, a release none",
            "both were given" if release else "no --reason was given",
            "add --reason TEXT to hold, or --release alone to let go",
        )
    from flows.warehouse.connection import connect
    from flows.warehouse.ready import ensure_ready
    from flows.warehouse.upkeep import hold_retention

    ensure_ready()
    with connect(role="etl", autocommit=True, application=APPLICATION) as connection:
        relation = hold_retention(connection, table, None if release else reason)
    if as_json:
        console.say_json({"relation": relation, "held": not release, "reason": reason})
    elif release:
        console.say(f"the retention of {relation} goes on")
    else:
        console.say(f"the retention of {relation} is held: {reason}")


def _tell_upkeep(report: UpkeepReport) -> None:
    rows_in_default = {table.relation: table.rows for table in report.defaults}
    console.say_table(
        ("table", "partitions made", "rows in default before", "rows moved"),
        [
            (done.relation, done.made, rows_in_default.get(done.relation), done.moved_rows)
            for done in report.partitions
        ],
        title="Partitions",
    )
    for table in report.left:
        if table.rows:
            console.say(
                f"{table.rows:,} rows stay in the default partition of {table.relation}: see"
                " sqp.data_quality_checks",
                style="red",
            )
    _tell_removals(report.removals, applied=report.applied)
    _tell_in_use(report.in_use)


def _tell_removals(removals: Sequence[Removal], *, applied: bool) -> None:
    console.say_table(
        ("table", "older than (UTC)", "held", "partitions", "rows before", "removed", "rows after"),
        [
            (
                removal.relation,
                f"{removal.cutoff:%Y-%m-%d %H:%M}",
                "held" if removal.held else None,
                len(removal.partitions_dropped),
                removal.rows_before,
                removal.rows_removed,
                removal.rows_after,
            )
            for removal in removals
        ],
        title="Retention" if applied else "Retention (dry run: nothing was removed)",
    )
    if not applied and any(removal.rows_removed for removal in removals):
        console.say("next: warehouse retention --apply")


def _tell_in_use(in_use: Sequence[InUse]) -> None:
    for table in in_use:
        console.say(
            f"{table.relation} was in use: its {table.what} was left for the next time",
            style="yellow",
        )
