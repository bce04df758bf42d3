"""Measures everything and writes `benchmarks/RESULTS.md`: `make bench`.

Compare ratios, not seconds: both sides of each were measured in the same run. One part alone, say
`python -m benchmarks schema`, is told and not written.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import (
    accounts,
    bigquery,
    dashboards,
    full_refresh,
    isolation,
    landing,
    main_job,
    migrations,
    partitions,
    site,
    summaries,
)
from benchmarks.server import own_server
from flows import console
from flows.settings import quieten

RESULTS = Path(__file__).parent / "RESULTS.md"


PARTS = ("landing", "job", "schema", "summaries", "dashboards", "accounts", "bigquery", "site")


def main() -> None:
    """Run the benchmarks and tell their results."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="measure this part alone")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the flat table")
    parser.add_argument("--big", type=int, default=2_000_000, help="rows of the memory test")
    parser.add_argument(
        "--tenant-rows", type=int, default=1_000_000, help="rows under row security"
    )
    parser.add_argument(
        "--metric-rows", type=int, default=5_000_000, help="rows loaded into monthly partitions"
    )
    parser.add_argument(
        "--weeks", type=int, default=summaries.LONG, help="weeks of the long history of summaries"
    )
    parser.add_argument(
        "--bigquery-rows", type=int, default=5_000_000, help="rows of the table in BigQuery"
    )
    arguments = parser.parse_args()
    with own_server(), tempfile.TemporaryDirectory() as folder:
        quieten()  # in the server's own folder, where Prefect puts its database
        sections = measure(arguments, Path(folder))
    text = "\n".join(
        [
            "# Results",
            "",
            f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores,"
            f" Python {platform.python_version()}, the embedded server, fsync on. Compare ratios,"
            " not seconds: both sides of each were measured in the same run.",
            *(line for section in sections for line in ("", *section)),
        ]
    )
    if arguments.part is None:
        RESULTS.write_text(text + "\n", encoding="utf-8")
    console.say(text)


def measure(arguments: argparse.Namespace, folder: Path) -> list[list[str]]:
    """Run each part that is asked for; its results in the order in which they are told."""
    sections: dict[str, list[list[str]]] = {}
    if arguments.part in (None, "job"):
        console.note("the main job on the default sample, twice")
        sections["job"] = [job_lines(main_job.run(folder))]
    if arguments.part in (None, "landing"):
        console.note(f"parse and land {arguments.rows:,} rows, and {arguments.big:,} for memory")
        sections["landing"] = [landing_lines(landing.run(folder, arguments.rows, arguments.big))]
    if arguments.part in (None, "schema"):
        console.note("a whole migration from nothing")
        migrated = migrations_lines(migrations.run())
        console.note(f"tenants' queries on {arguments.tenant_rows:,} rows")
        isolated = isolation_lines(isolation.run(arguments.tenant_rows))
        console.note(f"load {arguments.metric_rows:,} rows into monthly partitions")
        loaded = partitions_lines(partitions.run(folder, arguments.metric_rows))
        sections["schema"] = [isolated, loaded, migrated]
    if arguments.part in (None, "summaries"):
        console.note(f"a week into summaries, after {summaries.SHORT} and {arguments.weeks} weeks")
        measured = summaries.run(arguments.weeks)
        console.note(f"all of {full_refresh.WEEKS} weeks anew, beside DuckDB")
        anew = full_refresh.run()
        sections["summaries"] = [[*summaries_lines(measured), "", *full_refresh.lines(anew)]]
    if arguments.part in (None, "dashboards"):
        console.note(f"{dashboards.WEEKS} weeks of marts, asked by {dashboards.CLIENTS} clients")
        sections["dashboards"] = [dashboards.lines(dashboards.run())]
    if arguments.part in (None, "accounts"):
        console.note(f"sync {accounts.SMALL:,} and {accounts.LARGE:,} accounts")
        sections["accounts"] = [accounts_lines(accounts.run())]
    if arguments.part in (None, "bigquery"):
        console.note(f"{arguments.bigquery_rows:,} rows out of BigQuery")
        sections["bigquery"] = [bigquery.lines(bigquery.run(folder, arguments.bigquery_rows))]
    if arguments.part in (None, "site"):
        console.note(f"the site of the default sample, and {site.CHECKS:,} checks on a page")
        sections["site"] = [site.lines(site.run(folder))]
    return [section for part in PARTS for section in sections.get(part, [])]


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


def isolation_lines(results: dict[str, Any]) -> list[str]:
    """The tenants' queries as a Markdown table."""
    return [
        "## Row security, against an explicit filter",
        "",
        f"A tenant's queries on {results['rows']:,} rows of {results['tenants']:,} tenants, as"
        " `authenticated`, against the same queries by a superuser with `where user_id = …` or"
        f" `account_id = …`. Each is the median of {isolation.REPEATS} queries of as many tenants,"
        " planned anew each time, both sides in turn.",
        "",
        "| table | query | explicit filter ms | row security ms | ratio |",
        "|---|---|---|---|---|",
        *(
            f"| `{each['table']}` | {each['question']} | {each['explicit_ms']:.2f}"
            f" | {each['secured_ms']:.2f} | {each['ratio']:.2f} |"
            for each in results["questions"]
        ),
    ]


def partitions_lines(results: dict[str, Any]) -> list[str]:
    """Loading and removing months as two Markdown tables."""
    deleted = results["removals"][-1]["seconds"]
    return [
        f"## {partitions.MONTHS} monthly partitions, against one table",
        "",
        f"Binary COPY of the same {results['rows']:,} rows by `etl` into `app.campaign_metrics`,"
        " and into one table with the same columns, checks, keys, foreign key, indexes and"
        " triggers: the median of the rounds, both in turn.",
        "",
        "| rows come | rounds | one table s | partitions s | ratio |",
        "|---|---|---|---|---|",
        *(
            f"| {each['order']} | {each['rounds']} | {each['twin_s']:.1f}"
            f" | {each['partitioned_s']:.1f} | {each['ratio']:.2f} |"
            for each in results["loads"]
        ),
        "",
        "To be rid of one month of these rows, the oldest that is left. *Given back* is what the"
        " table and its indexes shrank by.",
        "",
        "| way | rows | s | of DELETE from one table | given back MB | VACUUM s | given back"
        " after it MB |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {each['way']} | {each['rows']:,} | {each['seconds']:.3f}"
            f" | {each['seconds'] / deleted:.3f} | {megabytes(each['bytes_at_once'])}"
            f" | {'–' if each['vacuum_s'] is None else format(each['vacuum_s'], '.2f')}"
            f" | {megabytes(each['bytes_after_vacuum'])} |"
            for each in results["removals"]
        ),
    ]


def megabytes(size: int) -> str:
    """Bytes as megabytes; a table that VACUUM lets grow by a page gives nothing back."""
    return f"{max(size, 0) / 1e6:.1f}"


def migrations_lines(results: dict[str, Any]) -> list[str]:
    """The seconds of a whole migration."""
    return [
        "## A whole migration",
        "",
        f"From nothing to migration {results['revision']} with its {results['tables']} tables, the"
        f" new database included: **{results['upgrade_s']:.1f} s**. Applying the declarations"
        f" (row security, triggers, partitions, grants, comments), with dbt's parsing:"
        f" {results['policies_s']:.1f} s. Both are the median of {migrations.ROUNDS} rounds.",
    ]


def summaries_lines(results: dict[str, Any]) -> list[str]:
    """What weeks cost the summaries, as two Markdown tables."""
    short, long = results["short"], results["long"]
    new, new_long = short["new week"], long["new week"]

    def row(what: str, over: str, one: dict[str, Any], other: dict[str, Any], bar: str) -> str:
        return (
            f"| {what} | {over} | {one['sql_s'] / other['sql_s']:.3g}"
            f" | {one['wal_mb'] / other['wal_mb']:.3g} | {bar} |"
        )

    costs = {
        "the specification's row trigger, with quarters": short["seed"],
        "bare sorted insert of the week": short["bare"],
        "only writing the finished rows of week, month and quarter": short["least"],
        "dbt's delete+insert of week, month and quarter": short["stock"],
        "dbt, one new week": new,
        "the triggers, the same week": short["trigger"],
        "dbt, one restated slice": short["one slice"],
        "dbt, the week again with 2 % changed": short["restated week"],
        "dbt, nothing new": short["nothing new"],
        "dbt, nothing new, not after a checkpoint": short["nothing new, again"],
        "dbt, full refresh": short["full refresh"],
        f"after {long['weeks']} weeks: dbt, one new week": new_long,
        f"after {long['weeks']} weeks: dbt, one restated slice": long["one slice"],
        f"after {long['weeks']} weeks: dbt, full refresh": long["full refresh"],
    }
    return [
        "## Weeks into months and quarters",
        "",
        f"{short['rows']:,} rows a week, after {short['weeks']} weeks of history but where it says"
        " otherwise. The time is that of the statements on the server, in all sessions; the log is"
        " counted from a checkpoint on.",
        "",
        "| what | ÷ | time | log | wished |",
        "|---|---|---|---|---|",
        row("one new week", "the specification's trigger", new, short["seed"], "0.35, log 0.45"),
        row("one new week", "bare sorted insert of the week", new, short["bare"], "5"),
        row(
            "only writing the finished rows",
            "the specification's trigger",
            short["least"],
            short["seed"],
            "the floor",
        ),
        row(
            "one new week",
            "dbt's delete+insert of week, month and quarter",
            new,
            short["stock"],
            "–",
        ),
        row(
            f"one new week after {long['weeks']}", f"after {short['weeks']}", new_long, new, "1.15"
        ),
        row("the triggers", "the specification's trigger", short["trigger"], short["seed"], "0.6"),
        row(
            "the week again, 2 % changed",
            "dbt's delete+insert",
            short["restated week"],
            short["stock"],
            "0.15, log 0.15",
        ),
        row(
            f"one restated slice after {long['weeks']}",
            "one new week",
            long["one slice"],
            new_long,
            "0.02",
        ),
        "",
        "| what | seconds of SQL | MB of log |",
        "|---|---|---|",
        *(
            f"| {what} | {each['sql_s']:.2f} | {each['wal_mb']:.1f} |"
            for what, each in costs.items()
        ),
        "",
        "The longest read of the current month while a new week came in took"
        f" {1000 * short['longest wait of a reader']:.0f} ms after {short['weeks']} weeks,"
        f" {1000 * long['longest wait of a reader']:.0f} ms after {long['weeks']}; while only the"
        " finished rows were written,"
        f" {1000 * short['longest wait of a reader beside the least']:.0f} ms (wished: 20).",
        "",
        f"Of the new week's {new['sql_s']:.1f} s, {new['computing_s']:.1f} are what computes its"
        " rows, those of its month and those of its quarter, and the rest what compares and writes"
        " them.",
    ]


def accounts_lines(results: dict[str, Any]) -> list[str]:
    """Syncs of accounts as a Markdown table."""
    return [
        "## Accounts, against the requests that nobody can avoid",
        "",
        f"`sync-accounts` against local servers that take {1000 * accounts.LATENCY:.0f} ms for each"
        " answer: the flow's body, without the start of Python and Prefect. *Unavoidable* is the"
        " longest sequence of requests of which each needs the answer before it, sent by a bare"
        " httpx client. *Database* is all time of an unchanged sync before its first request and"
        " after the last answer, our own code's included; of it *login* is what a connection takes"
        " that is opened and closed. *Grown* is what later syncs of a process added to the peak of"
        " its first.",
        "",
        "| accounts | requests | unavoidable s | first sync s | unchanged sync s | of unavoidable"
        " | database s | login s | without login, of the sync | peak MB | grown MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {each['accounts']:,} | {each['requests']} | {each['bare_s']:.3f}"
            f" | {each['first_s']:.2f} | {each['unchanged_s']:.3f}"
            f" | {each['unchanged_s'] / each['bare_s']:.2f} | {each['database_s']:.3f}"
            f" | {each['login_s']:.3f}"
            f" | {(each['database_s'] - each['login_s']) / each['unchanged_s']:.1%}"
            f" | {each['peak_mb']:.0f} | {each['grown_mb']:.0f} |"
            for each in results.values()
        ),
    ]


if __name__ == "__main__":
    main()
