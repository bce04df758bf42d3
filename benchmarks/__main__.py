"""Measures everything and writes `benchmarks/RESULTS.md`: `make bench`.

Compare ratios, not seconds: both sides of each were measured in the same run.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import landing, main_job
from benchmarks.server import own_server
from flows import console
from flows.settings import quieten

RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Run the benchmarks and tell their results."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the flat table")
    parser.add_argument("--big", type=int, default=2_000_000, help="rows of the memory test")
    arguments = parser.parse_args()
    quieten()
    with own_server(), tempfile.TemporaryDirectory() as folder:
        console.note("the main job on the default sample, twice")
        job = main_job.run(Path(folder))
        console.note(f"parse and land {arguments.rows:,} rows, and {arguments.big:,} for memory")
        landed = landing.run(Path(folder), arguments.rows, arguments.big)
    text = "\n".join(
        [
            "# Results",
            "",
            f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores,"
            f" Python {platform.python_version()}, the embedded server, fsync on. Compare ratios,"
            " not seconds: both sides of each were measured in the same run.",
            "",
            *landing_lines(landed),
            "",
            *job_lines(job),
        ]
    )
    RESULTS.write_text(text + "\n", encoding="utf-8")
    console.say(text)


def landing_lines(results: list[dict[str, Any]]) -> list[str]:
    """The landing results as a Markdown table."""
    return [
        "## Parse and land, against a bare binary COPY",
        "",
        "The bare COPY streams the same rows, ready-made and in delivered order, into a table with"
        " the columns, month partitions and unique index of `landing.sqp_asin`. *Rows/s of bare* is"
        " our rows per second, from file to rows in force, over the bare COPY's. *Second ÷ first*"
        " is the same file synced again: nothing changes. The first line is the median of"
        f" {landing.ROUNDS} rounds, the others are one round each.",
        "",
        "| format | rows | parse s | land s | bare COPY s | rows/s of bare | second ÷ first"
        " | peak MB |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {each['format']} | {each['rows']:,} | {each['parse_s']:.1f} | {each['land_s']:.1f}"
            f" | {each['bare_copy_s']:.1f} | {each['rows_per_s_of_bare']:.2f}"
            f" | {each['second_of_first']:.2f} | {each['peak_mb']:.0f} |"
            for each in results
        ),
    ]


def job_lines(job: dict[str, Any]) -> list[str]:
    """The main job's seconds by step as a Markdown table."""
    steps = list(job["first"]["steps"])
    lines = [
        "## The main job on the default sample",
        "",
        f"{job['first']['records']:,} records, `warehouse sync-sqp`, packages installed and server"
        " up. *Start-up* is everything outside the steps: Python, and mostly the server that"
        " Prefect starts for a run where none is set.",
        "",
        "| step | first run s | second, unchanged s |",
        "|---|---|---|",
    ]
    for step in [*steps, "start-up"]:
        values = [
            run["steps"].get(step) if step != "start-up" else run["start-up"]
            for run in (job["first"], job["second"])
        ]
        cells = " | ".join("–" if value is None else f"{value:.1f}" for value in values)
        lines.append(f"| {step} | {cells} |")
    lines.append(
        f"| **whole** | **{job['first']['seconds']:.1f}** | **{job['second']['seconds']:.1f}** |"
    )
    imports = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in job["imports"].items())
    return [*lines, "", f"Importing costs a process: {imports}."]


if __name__ == "__main__":
    main()
