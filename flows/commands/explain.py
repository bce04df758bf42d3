"""`warehouse explain`: which deliveries a number of the summaries comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows import console, numbers
from flows.commands.options import AsJson, examples

if TYPE_CHECKING:
    from flows.explain import Explanation
    from flows.warehouse.rows import Row

SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(
        epilog=examples(
            "warehouse explain 2026-10 --account acme --marketplace US",
            "warehouse explain 2026-10-04 --asin B0SYN00002 --query 'water bottle'",
            "warehouse explain 2026-Q4 --asin B0SYN00002 --json | jq .loads",
        )
    )(explain)


def explain(
    period: Annotated[
        str,
        typer.Argument(help="Of a week a day (2026-10-04); 2026-10; 2026-Q4."),
    ],
    account: Annotated[str, typer.Option(help="Whose number it is.")] = "default",
    marketplace: Annotated[
        str | None, typer.Option(help="US, UK, …, or Amazon's marketplace id; else all.")
    ] = None,
    asin: Annotated[str | None, typer.Option(help="One ASIN; else all together.")] = None,
    query: Annotated[str | None, typer.Option(help="One search query; else all together.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a number is what it is: its deliveries, what each replaced, what stayed out.

    For the weekly, monthly and quarterly summary, and for all that is computed from them.
    """
    from flows.explain import ask
    from flows.explain import explain as look_up
    from flows.warehouse.ready import ensure_ready

    question = ask(period, account, marketplace, asin, query)
    ensure_ready()
    found = look_up(question)
    if as_json:
        console.say_json(found.as_dict())
    else:
        tell(found)


def tell(found: Explanation) -> None:
    """The number, then what it is made of, the newest first."""
    _tell_now(found)
    _tell_loads(found.loads)
    _tell_rows(found.rows)
    _tell_refused(found.refused)
    if found.missing:
        named = [f"{row['period_start']} {row['asin']}" for row in found.missing[:SHOWN]]
        console.say(f"Not delivered, or not in force: {', '.join(named)}", style="yellow")
        _tell_more(found.missing, "more")
    if found.not_built:
        console.say(
            f"{found.not_built} of these slices are not in the summary yet: the next sync, or"
            " `dbt build`, takes them in",
            style="yellow",
        )


def _tell_now(found: Explanation) -> None:
    question, now = found.question, found.now
    about = (question.account_id, question.marketplace_id, question.asin, question.query)
    console.say(
        f"{question.summary}, {question.period_start} to {question.period_end}: "
        + ", ".join(part for part in about if part)
    )
    if not now:
        console.say("  the summary was never built")
    elif not now["rows"]:
        console.say("  no row")
    else:
        console.say(
            f"  {now['impressions']:,} impressions, {now['clicks']:,} clicks,"
            f" {now['cart_adds']:,} cart adds, {now['purchases']:,} purchases in"
            f" {now['rows']:,} rows; changed last {numbers.moment(now['changed_at'])}"
        )
    restated = [load for load in found.loads if load["before_load_id"] and load["accepted_at"]]
    held = [load for load in found.loads if load["outcome"] == "held back"]
    console.say(
        f"  loads: {len(found.loads):,}; {len(restated):,} replaced one before,"
        f" {len(held):,} held back, {len(found.refused):,} rows refused\n"
    )


def _tell_loads(loads: Sequence[Row]) -> None:
    console.say_table(
        (
            *("week", "ASIN", "load", "loaded", "file", "what became of it"),
            *("rows", "impressions", "clicks", "purchases"),
        ),
        [
            (
                numbers.day(load["period_start"]),
                load["asin"],
                load["load_id"],
                numbers.moment(load["loaded_at"]),
                load["source_file"],
                _outcome(load),
                *(_change(load, name) for name in ("rows", "impressions", "clicks", "purchases")),
            )
            for load in loads[:SHOWN]
        ],
        title="Loads, the newest first; in brackets the change against the one before",
    )
    _tell_more(loads, "older loads; --json has them all")


def _outcome(load: Row) -> str:
    if load["outcome"] == "held back":
        return f"held back: {load['held_reason']}"
    if load["outcome"] == "replaced":
        return f"in force until {numbers.moment(load['replaced_at'])}"
    return str(load["outcome"])


def _change(load: Row, name: str) -> str | None:
    """A count, and how it differs from the one before: `1,234 (+12)`."""
    now, before = load[name], load[f"before_{name}"]
    if now is None:
        return None
    return f"{now:,}" if before is None else f"{now:,} ({now - before:+,})"


def _tell_rows(rows: Sequence[Row]) -> None:
    if not rows:
        return
    counts = ("impressions", "clicks", "cart_adds", "purchases")
    console.say_table(
        ("week", "ASIN", "file", "line", *counts, "market impressions", "market purchases"),
        [
            (
                numbers.day(row["period_start"]),
                row["asin"],
                row["source_file"],
                row["source_line"],
                *(row[name] for name in (*counts, "market_impressions", "market_purchases")),
            )
            for row in rows[:SHOWN]
        ],
        title="The query's rows in force",
    )
    _tell_more(rows, "more rows; --json has them all")


def _tell_refused(refused: Sequence[Row]) -> None:
    if not refused:
        return
    console.say_table(
        ("week", "ASIN", "load", "file", "line", "reason"),
        [
            (
                numbers.day(row["period_start"]),
                row["asin"],
                row["load_id"],
                row["source_file"],
                row["source_line"],
                row["reason"],
            )
            for row in refused[:SHOWN]
        ],
        title="Refused rows, with their text in landing.rejected_rows",
    )
    _tell_more(refused, "more refused rows; --json has them all")


def _tell_more(rows: Sequence[object], what: str) -> None:
    if len(rows) > SHOWN:
        console.say(f"… and {len(rows) - SHOWN} {what}")
