"""`warehouse serve` and `warehouse check`: the deployments on this machine, and the nightly one."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from flows import console
from flows.commands.options import AsJson, examples


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog=examples("warehouse serve", "warehouse serve --port 4200"))(serve)
    app.command(epilog=examples("warehouse check", "warehouse check --json | jq .problems"))(check)


def serve(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the Prefect server; 0 takes a free one.")
    ] = 0,
) -> None:
    """Start a Prefect server, a worker and the deployments on this machine; Ctrl-C ends them.

    What runs when is in prefect.yaml. Runs, logs and artifacts are kept for the next time. The site
    is shown beside it; the nightly check writes it anew.
    """
    from flows.serve import serving, watch
    from flows.site.build import FOLDER, INDEX
    from flows.site.serve import served as shown
    from flows.warehouse.ready import ensure_ready

    ensure_ready()
    FOLDER.mkdir(exist_ok=True)
    with (
        shown(FOLDER) as site,
        serving(console.note, port=port, extra={"SITE_URL": site.rstrip("/")}) as served,
    ):
        written = "the site" if (FOLDER / INDEX).exists() else "the site, once `make docs` wrote it"
        console.say_table(
            ("what", "where"),
            [
                (written, site),
                ("Prefect: runs, artifacts, schedules", served.ui_url),
                ("its API", served.api_url),
                ("in another shell", f"export PREFECT_API_URL={served.api_url}"),
                ("run one now", "prefect deployment run 'check-quality/nightly' --watch"),
            ],
        )
        console.note("it runs until Ctrl-C")
        try:
            watch(served)
        except KeyboardInterrupt:
            console.note("server and worker are stopped")


def check(as_json: AsJson = False) -> None:
    """Check everything that is loaded: every data test, freshness of the sources, alerts.

    Exit status 1 if a test failed, 3 if something warns or an alert stands, 75 if a sync runs.
    """
    from flows.warehouse.ready import ensure_ready

    ensure_ready()
    from flows.check_quality import check_quality
    from flows.progress import watched_by

    begun = time.perf_counter()
    with console.step_bars() as bars, watched_by(bars):
        report = check_quality()
    if as_json:
        console.say_json({**report.as_dict(), "exit_code": int(report.exit_code)})
    else:
        if report.problems:
            console.say_table(
                ("status", "check", "of", "found"),
                [(each.status, each.name, each.of, each.message) for each in report.problems],
            )
        for alert in report.alerts:
            console.say(alert.message, style="red")
        console.say(f"{report.story().headline} ({time.perf_counter() - begun:.0f} s)")
    raise typer.Exit(report.exit_code)
