"""`warehouse site`: the pages for people who use the numbers, and for those who explain them."""

from __future__ import annotations

import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows import console
from flows.commands.options import AsJson, examples


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(
        epilog=examples(
            "warehouse site",
            "warehouse site --open",
            "warehouse site --to /srv/pages/warehouse",
        )
    )(site)


def site(
    folder: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Where to write; site/ if not given.")
    ] = None,
    open_it: Annotated[
        bool, typer.Option("--open", help="Show it in the browser, until Ctrl-C.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --open: the port; 0 takes a free one.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Write the site: quality, plots, models, Data Docs, runbooks and decisions, as static pages.

    With --open it is shown on this machine alone, at an address that is printed.
    """
    from flows.warehouse.ready import ensure_ready

    ensure_ready()
    from flows.site.build import FOLDER, build_site

    report = build_site(folder or FOLDER)
    if as_json:
        console.say_json(asdict(report) | {"index": report.index})
    else:
        console.say(f"{report.pages} pages in {report.seconds:.0f} s: {report.index}")
        console.say(report.headline)
    if open_it:
        _show(report.folder, port)


def _show(folder: Path, port: int) -> None:
    """Serve the site and point the browser at it; a terminal's own browser is left alone."""
    from flows.site.serve import address_of, server

    with server(folder, port) as serving:
        address = address_of(serving)
        console.say(f"{address} (Ctrl-C ends it)")
        if _has_windows():
            webbrowser.open(address)
        serving.serve_forever()


def _has_windows() -> bool:
    """Whether the browser opens a window, rather than taking over this terminal."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    return type(browser) is not webbrowser.GenericBrowser
