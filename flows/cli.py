"""The command line `warehouse`: each command a few lines, the work imported where it is done.

Exit status: 0 done, 1 failed, 2 usage, 3 partly done, 75 busy, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import asdict
from typing import Annotated

import typer

from flows import console
from flows.errors import ExitCode, WarehouseError

INTERRUPTED = 130
DEBUG = "--debug"

app = typer.Typer(
    name="warehouse",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, for a machine.")]


def examples(*lines: str) -> str:
    """The examples at the end of a command's help."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


@app.callback(epilog=examples("warehouse up", "warehouse sync-sqp deliveries/", "warehouse status"))
def frame(
    _debug: Annotated[
        bool, typer.Option(DEBUG, help="Show tracebacks; may also stand after the command.")
    ] = False,
) -> None:
    """Search-query reports in, trusted summaries out.

    Exit status: 0 done, 1 failed, 2 usage, 3 partly done, 75 busy.
    """
    from flows.settings import quieten

    quieten()


@app.command(epilog=examples("warehouse up", "warehouse up --json", "PGHOST=db warehouse up"))
def up(as_json: AsJson = False) -> None:
    """Start the embedded PostgreSQL and migrate the database.

    With PGHOST set, in the environment or in .env, that server is used and none is started.
    """
    from flows.settings import get_settings
    from flows.warehouse import migrate
    from flows.warehouse.embedded import ensure_server, server_status

    was_running = server_status(get_settings()).running
    ensure_server(get_settings())
    applied = migrate.upgrade()
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
    if delete_data and not (yes or settings.uses_external_server):
        typer.confirm(f"Delete the database in {settings.warehouse_home}?", abort=True)
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


def main() -> None:
    """Run the command that `sys.argv` names, and end the process with its exit status."""
    arguments, debug = split_debug(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(arguments, prog_name="warehouse")
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
