"""`warehouse metrics`: counts, rates and shares by name, as the semantic layer defines them."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(
        epilog="\b\nExamples:\n"
        "  warehouse metrics\n"
        "  warehouse metrics -- query --metrics clicks,click_share"
        " --group-by metric_time__month\n"
        "  warehouse metrics -- query --metrics ctr"
        " --group-by metric_time__sqp_week,query_week__account_id --csv ctr.csv"
    )(metrics)


def metrics(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGS]", help="Given to MetricFlow (mf) as they are."),
    ] = None,
) -> None:
    """List the metrics, or query them with MetricFlow.

    A week is `metric_time__sqp_week`, Sunday to Saturday; MetricFlow's own week begins on Monday.
    """
    from flows.warehouse.ready import ensure_ready

    ensure_ready()
    given = arguments or ["list", "metrics"]
    command = [sys.executable, "-m", "flows.metricflow", *given]
    os.execve(sys.executable, command, dict(os.environ))  # noqa: S606
