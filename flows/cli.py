"""The command line `warehouse`: each command a few lines, the work imported where it is done.

Exit status: 0 done, 1 failed, 2 usage, 3 partly done, 75 busy, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import console
from flows.commands import (
    alerts,
    amazon,
    backup,
    bigquery,
    coverage,
    metrics,
    seats,
    secrets,
    serve,
    site,
    upkeep,
)
from flows.commands.bigquery import Source
from flows.commands.options import AsJson, examples
from flows.errors import ExitCode, UsageError, WarehouseError

INTERRUPTED = 130
DEBUG = "--debug"

app = typer.Typer(
    name="warehouse",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog=examples("warehouse up", "warehouse sync-sqp deliveries/", "warehouse status"))
def frame(
    context: typer.Context,
    _debug: Annotated[
        bool, typer.Option(DEBUG, help="Show tracebacks; may also stand after the command.")
    ] = False,
) -> None:
    """Search-query reports in, trusted summaries out.

    Exit status: 0 done, 1 failed, 2 usage, 3 partly done, 75 busy.
    """
    from flows.settings import quieten

    quieten(debug=context.obj)


@app.command(epilog=examples("warehouse up", "warehouse up --json", "PGHOST=db warehouse up"))
def up(as_json: AsJson = False) -> None:
    """Start the embedded PostgreSQL and migrate the database.

    With PGHOST set, in the environment or in .env, that server is used and none is started.
    """
    from flows.settings import get_settings
    from flows.warehouse import migrate
    from flows.warehouse.embedded import ensure_server, server_status
    from flows.warehouse.policies import ensure_policies

    was_running = server_status(get_settings()).running
    ensure_server(get_settings())
    applied = migrate.upgrade()
    ensure_policies()
    server = server_status(get_settings())
    if as_json:
        migrations = {"applied": applied, "revision": migrate.head_revision()}
        console.say_json({"server": asdict(server), "migrations": migrations})
        return
    state = "was up already" if was_running else "is up"
    where = server.socket_directory or server.host
    console.say(f"PostgreSQL {server.version} {state}: {where}, port {server.port}")
    done = f"{len(applied)} migrations applied" if applied else "no migration to apply"
    console.say(f"{done}, the database is at {migrate.head_revision()}")
    for text in server.notes:
        console.note(text)


@app.command(
    epilog=examples("warehouse down", "warehouse down --delete-data --yes  # start from nothing")
)
def down(
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Delete the embedded database as well.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop the embedded PostgreSQL; a server of your own (PGHOST) is left alone."""
    from flows.settings import get_settings
    from flows.warehouse.embedded import delete_server, stop_server

    settings = get_settings()
    if delete_data and not yes:
        ask(f"Delete the embedded database in {settings.warehouse_home}?")
    stopped = stop_server(settings)
    if delete_data:
        delete_server(settings)
    if as_json:
        external = settings.uses_external_server
        deleted = delete_data and not external
        console.say_json({"stopped": stopped, "deleted": deleted, "external": external})
    elif settings.uses_external_server:
        console.say("PGHOST names a server of your own: it is left alone")
    else:
        console.say("PostgreSQL has been stopped" if stopped else "PostgreSQL was not running")
        if delete_data:
            console.say("the embedded database has been deleted")


@app.command(epilog=examples("warehouse status", "warehouse status --json | jq .quality"))
def status(as_json: AsJson = False) -> None:
    """Say how the warehouse is: server, migrations, last syncs, freshness, quality."""
    from flows.status import read_status
    from flows.telling import tell_status

    found = read_status()
    if as_json:
        console.say_json(found.as_dict())
    else:
        tell_status(found)


@app.command(
    "sync-sqp",
    epilog=examples(
        "warehouse sync-sqp deliveries/",
        "warehouse sync-sqp 'exports/*.csv' report.json.gz --marketplace UK",
        "warehouse sync-sqp deliveries/ --dry-run",
        "warehouse sync-sqp --from bigquery --marketplace US",
        "warehouse sync-sqp --from bigquery --weeks 52  # once, for the history",
    ),
)
def sync_sqp(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH…", help="Files, folders or globs.")
    ] = None,
    source: Annotated[
        Source, typer.Option("--from", help="Files, or the table that BIGQUERY_* names.")
    ] = Source.FILES,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="BigQuery: compare everything from this day on."),
    ] = None,
    weeks: Annotated[
        int | None, typer.Option(min=1, help="BigQuery: compare so many weeks back.")
    ] = None,
    accept_losses: Annotated[
        bool,
        typer.Option(
            "--accept-losses", help="BigQuery: load weeks also that lost most of their rows."
        ),
    ] = False,
    marketplace: Annotated[
        str | None,
        typer.Option(help="Where the files do not say: US, UK, …, or Amazon's marketplace id."),
    ] = None,
    account: Annotated[str | None, typer.Option(help="Whose deliveries these are.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and compare all, and change nothing.")
    ] = False,
    allow_older: Annotated[
        bool,
        typer.Option("--allow-older", help="Let an older delivery replace a newer one."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Load Search Query Performance deliveries and bring the summaries up to date.

    Exit status 3 if a file could not be read or a slice was held back, 75 if another sync runs.
    """
    from flows.sources.find import find_deliveries
    from flows.warehouse.ready import ensure_ready

    given = paths or []
    request = None
    if source is Source.BIGQUERY:
        request = bigquery.request(given, marketplace, account, since, weeks, accept_losses)
    else:
        bigquery.refuse_options(since=since, weeks=weeks, accept_losses=accept_losses)
        find_deliveries(given, marketplace=marketplace, account=account)  # a typo costs no start-up
    ensure_ready()
    from flows.progress import watched_by
    from flows.sync_sqp import sync_sqp as run
    from flows.telling import tell_sync

    with console.step_bars() as bars, watched_by(bars):
        report = run(given, marketplace, account, dry_run, allow_older, request)
    if as_json:
        console.say_json(report.as_dict())
    else:
        tell_sync(report)
    raise typer.Exit(report.exit_code)


@app.command(
    epilog=examples(
        "warehouse sample sample", "warehouse sample big --asins 200 --weeks 52 --queries 500"
    )
)
def sample(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; made if needed.")],
    asins: Annotated[int | None, typer.Option(help="Products in each marketplace.")] = None,
    weeks: Annotated[int | None, typer.Option(help="Weeks of history.")] = None,
    queries: Annotated[int | None, typer.Option(help="Search queries in each marketplace.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, other numbers.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write synthetic deliveries in every format, the same for the same arguments.

    Without options: three marketplaces, 10 weeks, about 30,000 rows.
    """
    from flows.sources.sample import write_sample

    sizes = {"asins": asins, "weeks": weeks, "queries": queries, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    with console.progress_bars() as bars:
        task = bars.add_task("writing")
        summary = write_sample(
            folder,
            **given,
            on_progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    if as_json:
        console.say_json(asdict(summary))
        return
    console.say(
        f"{summary.rows:,} synthetic rows in {summary.files} files in {summary.folder}:"
        f" {summary.weeks} weeks of {', '.join(summary.marketplaces)}"
    )
    console.say(f"next: warehouse sync-sqp {summary.folder}")


@app.command(
    epilog=examples(
        "warehouse psql",
        "warehouse psql -- -c 'select * from sqp.weekly_summary limit 10'",
        "warehouse psql -- --csv -f report.sql > report.csv",
    )
)
def psql(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS]", help="Given to psql as they are.")
    ] = None,
) -> None:
    """Open psql on the warehouse; the embedded server is started if it is not up."""
    from flows.settings import get_settings
    from flows.warehouse.embedded import ensure_server, program

    environment = os.environ | ensure_server(get_settings()).environment()
    os.execve(program("psql"), ["psql", *(arguments or [])], environment)  # noqa: S606


@app.command(epilog=examples("warehouse doctor", "warehouse doctor --json"))
def doctor(as_json: AsJson = False) -> None:
    """Look for what could go wrong: versions, disk, server, migrations, permissions, leftovers.

    Exit status 1 if a check fails; a warning is none.
    """
    from flows.doctor import Verdict, examine

    checks = examine()
    if as_json:
        console.say_json([asdict(check) for check in checks])
    else:
        console.say_table(
            ("check", "verdict", "found", "next step"),
            [(check.name, check.verdict, check.found, check.next_step) for check in checks],
        )
    if any(check.verdict == Verdict.FAIL for check in checks):
        raise typer.Exit(ExitCode.FAILED)


def ask(question: str) -> None:
    """Go on only after a yes; without a terminal nobody can say it."""
    if not sys.stdin.isatty():
        raise UsageError("this needs a yes", "there is no terminal to ask on", "add --yes")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was done", "the answer was not yes", "answer y, or add --yes")


for commands in (
    *(backup, secrets, upkeep, coverage, metrics),
    *(alerts, serve, amazon, seats, bigquery, site),
):
    commands.register(app)


def main() -> None:
    """Run the command that `sys.argv` names, and end the process with its exit status."""
    arguments, debug = split_debug(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(arguments, prog_name="warehouse", obj=debug)
    except WarehouseError as error:
        if debug:
            traceback.print_exc()
        console.show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if debug:
            traceback.print_exc()
        console.show_error(
            WarehouseError(
                "something went wrong that should not",
                f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0],
                "run the command again with --debug and report what it prints",
            )
        )
        sys.exit(ExitCode.FAILED)


def split_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """Take `--debug` out, wherever it stands before `--`; what follows `--` is not ours."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = [argument for argument in arguments[:end] if argument != DEBUG]
    return ours + arguments[end:], DEBUG in arguments[:end]


if __name__ == "__main__":
    main()
