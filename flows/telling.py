"""Reports for people: a sync's end and the warehouse's status as tables and one next step."""

from __future__ import annotations

from collections.abc import Sequence

from flows import console
from flows.numbers import percent
from flows.report import Quality, SyncReport
from flows.sources.marketplaces import find_marketplace
from flows.status import Status
from flows.warehouse.rows import Row

SHOWN = 10


def tell_sync(report: SyncReport) -> None:
    """What a sync did, whether its numbers can be used, and where to look next."""
    if report.dry_run:
        console.say("Dry run: what a sync would land; nothing was changed, and no check was run.")
    if report.records:
        _tell_records(report.records)
    _tell_unreadable(report.unreadable)
    _tell_refused(report.refused)
    if not report.dry_run:
        if report.records and not report.something_new:
            console.say("Nothing changed: every slice is as it was, and nothing was rebuilt.\n")
        _tell_held(report.held)
        _tell_quality(report.quality)
        _tell_freshness(report.freshness)
        _tell_top_queries(report.top_queries)
    console.say_table(
        ("step", "seconds"), [(name, f"{took:.1f}") for name, took in report.seconds.items()]
    )
    if not report.dry_run:
        console.say("Where to look next:")
        console.say("  warehouse status                  how the warehouse is, at any time")
        console.say(
            "  warehouse psql                    sqp.weekly_summary, sqp.monthly_summary, …"
        )
        console.say("  make docs                         every table and column explained")
        if report.refused:
            console.say("  landing.rejected_rows             what was refused, with its text")


def tell_status(status: Status) -> None:
    """The server, the last syncs, freshness and the verdict."""
    server = status.server
    if not server.running:
        console.say(f"PostgreSQL ({server.kind}) is not running: run `make up`")
        return
    console.say(f"PostgreSQL {server.version} ({server.kind}) is running")
    if not status.is_migrated:
        console.say(
            f"the database is at migration {status.revision or 'none'}, this version wants"
            f" {status.head}: run `make up`"
        )
        return
    console.say(f"migrations: all applied, at {status.revision}\n")
    if not status.syncs:
        console.say("No sync has run yet: run `make run`, or `warehouse sync-sqp PATH…`")
        return
    console.say_table(
        ("sync", "status", "last attempt", "last success", "last change", "last error"),
        [
            (
                row["sync_type"],
                _state(row),
                row["last_attempt"],
                row["last_success"],
                row["last_change"],
                row["last_error"],
            )
            for row in status.syncs
        ],
        title="Syncs (UTC)",
    )
    _tell_held(status.held)
    _tell_freshness(status.freshness)
    _tell_quality(status.quality)


def _tell_records(records: Sequence[Row]) -> None:
    names = ("processed", "inserted", "updated", "unchanged", "skipped", "failed", "deleted")
    console.say_table(
        ("sync", "periods", "slices changed", "unchanged", "records", *names[1:]),
        [
            (
                row["sync_type"],
                f"{row['period_start']} – {row['period_end']}" if row["period_start"] else None,
                row["slices_changed"],
                row["slices_unchanged"],
                *(row[name] for name in names),
            )
            for row in records
        ],
        title="Slices and records",
    )
    for row in records:
        if row["superseded"]:
            console.say(
                f"{row['superseded']:,} {row['sync_type']} records were superseded by a later"
                " delivery of the same slice in this run"
            )
        if row["older"]:
            console.say(
                f"{row['older']:,} {row['sync_type']} records are older than what is loaded and"
                " were skipped; --allow-older loads them"
            )


def _tell_unreadable(unreadable: Sequence[dict[str, str]]) -> None:
    for error in unreadable[:SHOWN]:
        console.say(f"not read: {error['what']}", style="red")
        console.say(f"     why: {error['why']}")
        console.say(f"    next: {error['next_step']}")
    _tell_more(unreadable, "files were not read")


def _tell_refused(refused: Sequence[Row]) -> None:
    if refused:
        console.say_table(
            ("file", "reason", "rows", "first line", "first reason"),
            [tuple(row.values()) for row in refused[:SHOWN]],
            title="Refused rows, kept in landing.rejected_rows",
        )
        _tell_more(refused, "more kinds of refused rows")


def _tell_held(held: Sequence[Row]) -> None:
    if held:
        console.say_table(
            ("account", "marketplace", "type", "period", "subject", "reason"),
            [
                tuple({**row, "marketplace_id": _country(row["marketplace_id"])}.values())
                for row in held[:SHOWN]
            ],
            title="Held back: not in the summaries until a good delivery comes",
        )
        _tell_more(held, "more slices are held back")


def _tell_quality(quality: Quality) -> None:
    if quality.verdict == "unknown":
        console.say("Quality: unknown, no check has run yet", style="yellow")
        return
    console.say(
        f"Quality: {quality.verdict} – {quality.passed} checks passed, {quality.warnings} warn,"
        f" {quality.failed} failed (checked {quality.checked_at} UTC)",
        style=console.STYLES[quality.verdict],
    )
    if quality.problems:
        console.say_table(
            ("verdict", "check", "table", "what it says"),
            [
                (*list(problem.values())[:-1], _shortened(problem["check_message"] or "", 160))
                for problem in quality.problems[:SHOWN]
            ],
        )
        _tell_more(quality.problems, "more; see sqp.data_quality_checks")


def _tell_freshness(rows: Sequence[Row]) -> None:
    if rows:
        console.say_table(
            ("summary", "newest period ends", "days old", "stale"),
            [
                (
                    row["table_name"],
                    row["latest_period"],
                    row["days_old"],
                    "yes" if row["is_stale"] else "no",
                )
                for row in rows
            ],
            title="Freshness",
        )


def _tell_top_queries(rows: Sequence[Row]) -> None:
    if rows:
        console.say_table(
            ("query", "ASIN", "marketplace", "our purchases", "all purchases", "our share"),
            [
                (
                    _shortened(row["query"], 60),
                    row["asin"],
                    _country(row["marketplace_id"]),
                    row["total_purchases"],
                    row["total_purchase_count"],
                    percent(row["purchase_share"]),
                )
                for row in rows
            ],
            title=f"Top queries by purchase share, month of {rows[0]['month']}",
        )


def _tell_more(rows: Sequence[object], what: str) -> None:
    if len(rows) > SHOWN:
        console.say(f"… and {len(rows) - SHOWN} {what}")


def _state(row: Row) -> str:
    if row["running_step"]:
        return f"running: {row['running_step']}"
    if row["died_in_step"]:
        return f"died in step {row['died_in_step']}; the next sync takes its work up"
    return str(row["last_status"])


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _country(marketplace_id: str) -> str:
    marketplace = find_marketplace(marketplace_id)
    return marketplace.country_code if marketplace else marketplace_id
