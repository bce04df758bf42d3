"""What a sync tells at its end, and what `warehouse status` tells at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg

from flows.errors import ExitCode, UnreadableDelivery
from flows.runs import Story
from flows.warehouse.landing import Landing
from flows.warehouse.rows import Row, is_there, rows
from flows.warehouse.run_log import SYNC_TYPES, Run
from flows.warehouse.tally import Tally

TOP_QUERIES = 10
TOP_QUERY_PURCHASES = 10
"""How many market-wide purchases a query needs before its share says something."""

PROBLEMS_SHOWN = 10
PERIOD_TYPES = {str(sync_type): str(period) for period, sync_type in SYNC_TYPES.items()}


@dataclass(frozen=True)
class Quality:
    """The verdict of the newest run that was checked, and what was not right.

    `verdict` is passed, warning, failed, or unknown where no check ran: that is not green.
    """

    verdict: str
    passed: int = 0
    warnings: int = 0
    failed: int = 0
    checked_at: str | None = None
    problems: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class SyncReport:
    """What one sync did, found and left."""

    run_id: str
    dry_run: bool
    something_new: bool
    records: list[Row]
    unreadable: list[dict[str, str]]
    refused: list[Row]
    held: list[Row]
    quality: Quality
    freshness: list[Row]
    top_queries: list[Row]
    seconds: dict[str, float]

    @property
    def exit_code(self) -> ExitCode:
        """Done, or partial where a file or a slice stayed behind, or failed where all did."""
        if self.unreadable and not any(row["slices_seen"] for row in self.records):
            return ExitCode.FAILED
        if any(row["processed"] and row["processed"] == row["failed"] for row in self.records):
            return ExitCode.PARTIAL
        return ExitCode.PARTIAL if self.unreadable or self.held else ExitCode.DONE

    def as_dict(self) -> Row:
        """For machines: plain values only."""
        return {**asdict(self), "exit_code": int(self.exit_code)}

    def story(self) -> Story:
        """What changed, whether the numbers can be used, and what a person has to do."""
        changed = sum(row["slices_changed"] for row in self.records)
        if self.dry_run:
            done = f"{changed:,} slices would change"
        elif self.something_new:
            done = f"{changed:,} slices changed"
        else:
            done = "nothing changed"
        return Story(
            headline=f"{done}; quality {self.quality.verdict}",
            changes=[
                {
                    "sync": row["sync_type"],
                    "new": row["inserted"],
                    "changed": row["updated"],
                    "unchanged": row["unchanged"],
                    "removed": row["deleted"],
                    "rejected": row["failed"],
                    "slices held back": sum(
                        str(held["period_type"]) == PERIOD_TYPES[row["sync_type"]]
                        for held in self.held
                    ),
                    "restated": row["restated"],
                }
                for row in self.records
            ],
            problems=[
                *self.unreadable,
                *(_held_problem(held) for held in self.held[:PROBLEMS_SHOWN]),
                *(
                    {
                        "what": f"{problem['check_name']} on {problem['table_name']}"
                        f" ({problem['check_status']})",
                        "why": problem["check_message"],
                        "next_step": "see the quality page, or sqp.data_quality_checks",
                    }
                    for problem in self.quality.problems[:PROBLEMS_SHOWN]
                ),
            ],
            pages={"quality.html": "the quality page", "plots.html": "the plots"},
        )


def make_report(
    run: Run,
    landing: Landing,
    unreadable: Sequence[UnreadableDelivery],
    *,
    something_new: bool = True,
    dry_run: bool = False,
) -> SyncReport:
    """Gather what a person wants to know after a run."""
    connection = run.connection
    return SyncReport(
        run_id=str(run.run_id),
        dry_run=dry_run,
        something_new=something_new,
        records=[_records(period_type, tally) for period_type, tally in landing.tallies.items()],
        unreadable=[error.as_dict() for error in unreadable],
        refused=refused_rows(connection, list(run.log_ids.values())),
        held=held_slices(connection),
        quality=newest_quality(connection),
        freshness=freshness(connection),
        top_queries=top_queries(connection),
        seconds={name: round(seconds, 2) for name, seconds in run.seconds.items()},
    )


def refused_rows(connection: psycopg.Connection[Any], log_ids: Sequence[int]) -> list[Row]:
    """Rows refused for the first time in these runs, by file and reason."""
    return rows(
        connection,
        """
        select source_file, reason_code, count(*) as rows, min(source_line) as first_line,
            (array_agg(reason order by source_line))[1] as first_reason
        from landing.rejected_rows
        where load_id = any(%s)
        group by source_file, reason_code
        order by count(*) desc, source_file, reason_code
        """,
        (list(log_ids),),
    )


def held_slices(connection: psycopg.Connection[Any]) -> list[Row]:
    """Every slice whose newest load is kept out of the summaries, and why."""
    return rows(
        connection,
        """
        select account_id, marketplace_id, period_type, period_start::text, subject, held_reason
        from landing.sqp_slices
        where slice_status = 'held'
        order by period_start, account_id, marketplace_id, subject
        """,
    )


def newest_quality(connection: psycopg.Connection[Any]) -> Quality:
    """The verdict over all checks of the newest run that was checked."""
    checks = rows(
        connection,
        """
        with newest as (
            select sync_log.run_id
            from sqp.data_quality_checks as checks
            inner join sqp.sync_log as sync_log on checks.sync_log_id = sync_log.id
            order by checks.id desc
            limit 1
        )

        select
            checks.check_status, checks.check_type, checks.check_name, checks.table_name,
            checks.check_message, checks.source_value, checks.target_value,
            to_char(checks.created_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') as checked_at
        from newest
        inner join sqp.sync_log as sync_log on newest.run_id = sync_log.run_id
        inner join sqp.data_quality_checks as checks on sync_log.id = checks.sync_log_id
        order by checks.check_status, checks.id
        """,
    )
    if not checks:
        return Quality("unknown")
    by_status = {
        status: [check for check in checks if check["check_status"] == status]
        for status in ("passed", "warning", "failed")
    }
    verdict = next(status for status in ("failed", "warning", "passed") if by_status[status])
    return Quality(
        verdict=verdict,
        passed=len(by_status["passed"]),
        warnings=len(by_status["warning"]),
        failed=len(by_status["failed"]),
        checked_at=max(check["checked_at"] for check in checks),
        problems=[
            {
                name: check[name]
                for name in ("check_status", "check_name", "table_name", "check_message")
            }
            for check in by_status["failed"] + by_status["warning"]
        ],
    )


def freshness(connection: psycopg.Connection[Any]) -> list[Row]:
    """How old the newest period of each summary is; nothing before the first build."""
    if not is_there(connection, "sqp.data_freshness"):
        return []
    return rows(
        connection,
        """
        select table_name, latest_period::text, days_old, is_stale
        from sqp.data_freshness
        order by table_name
        """,
    )


def top_queries(connection: psycopg.Connection[Any]) -> list[Row]:
    """The queries of the newest month of which we have the largest share of purchases."""
    if not is_there(connection, "sqp.monthly_summary"):
        return []
    return rows(
        connection,
        """
        select
            period_start::text as month, marketplace_id, asin, query, total_purchases,
            total_purchase_count, purchase_share::float8
        from sqp.monthly_summary
        where
            period_start = (select max(period_start) from sqp.monthly_summary)
            and total_purchase_count >= %s
            and purchase_share is not null
        order by purchase_share desc, total_purchases desc, query, asin
        limit %s
        """,
        (TOP_QUERY_PURCHASES, TOP_QUERIES),
    )


def last_syncs(connection: psycopg.Connection[Any]) -> list[Row]:
    """Of each sync type: the last attempt, the last success, the last change."""
    return rows(
        connection,
        """
        select
            sync_type,
            (array_agg(sync_status order by id desc))[1] as last_status,
            to_char(max(started_at) at time zone 'UTC', 'YYYY-MM-DD HH24:MI') as last_attempt,
            to_char(
                max(completed_at) filter (where sync_status = 'completed') at time zone 'UTC',
                'YYYY-MM-DD HH24:MI'
            ) as last_success,
            to_char(
                max(completed_at) filter (
                    where sync_status = 'completed' and slices_changed > 0
                ) at time zone 'UTC',
                'YYYY-MM-DD HH24:MI'
            ) as last_change,
            (array_agg(step order by id desc) filter (
                where sync_status = 'started' and lease_until >= clock_timestamp()
            ))[1] as running_step,
            (array_agg(step order by id desc) filter (
                where sync_status = 'started' and lease_until < clock_timestamp()
            ))[1] as died_in_step,
            (array_agg(error_message order by id desc))[1] as last_error
        from sqp.sync_log
        where
            sync_type <> 'unreadable'
            or run_id = (select run_id from sqp.sync_log order by id desc limit 1)
        group by sync_type
        order by min(id)
        """,
    )


def _held_problem(held: Row) -> Row:
    """A slice that is held back, as a problem with its next step."""
    return {
        "what": f"{held['period_type']} {held['period_start']} of {held['subject']}"
        f" ({held['account_id']}, {held['marketplace_id']}) is held back",
        "why": held["held_reason"],
        "next_step": "look at its delivery; a good one releases it",
    }


def _records(period_type: str, tally: Tally) -> Row:
    counted = ("inserted", "updated", "unchanged", "skipped", "failed", "deleted")
    return {
        "sync_type": str(
            next(sync_type for period, sync_type in SYNC_TYPES.items() if period == period_type)
        ),
        "slices_seen": tally.period_start is not None,
        "slices_changed": tally.slices_changed,
        "slices_unchanged": tally.slices_unchanged,
        "processed": tally.processed,
        **{name: tally.records[name] for name in counted},
        "superseded": tally.superseded_records,
        "older": tally.older_records,
        "restated": [str(day) for day in sorted(tally.restated)],
        "period_start": str(tally.period_start or ""),
        "period_end": str(tally.period_end or ""),
    }
