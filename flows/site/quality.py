"""The quality page: whether today's numbers can be used, table by table and account by account."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from flows.site.pages import Site
from flows.site.rows import Session, rows, rows_of
from flows.site.verdicts import (
    WATCHED,
    WHOLE_TABLE,
    Cell,
    Change,
    Load,
    Result,
    Verdict,
    latest,
    matrix,
    overall,
    problems,
)
from flows.warehouse.rows import Row

PAGE = "quality.html"
RUNS_SHOWN = 30
HISTORY_DAYS = 90
"""How far back a check's runs count, as the var `quality_history_days` of the models."""

MOST_LISTED = 200
"""How many rows a table of the page has at most: what is left out is counted and said."""

MOST_LETTERS = 300

STATUSES = {
    "passed": Verdict.PASSED,
    "warning": Verdict.WARNING,
    "failed": Verdict.FAILED,
}

HEADLINES = {
    Verdict.PASSED: "Today's numbers can be used",
    Verdict.WARNING: "Today's numbers can be used, with care",
    Verdict.FAILED: "Not all of today's numbers can be used",
    Verdict.UNKNOWN: "Nobody knows whether today's numbers can be used",
}


@dataclass(frozen=True)
class Quality:
    """What the page tells."""

    verdict: Verdict
    reasons: list[str]
    accounts: list[str]
    matrix: dict[str, dict[str, Cell]]
    problems: list[Change]
    compared: list[Result]
    freshness: list[Row]
    held: list[Row]
    runs: list[Row]
    refused: list[Row]
    checks: int

    @property
    def newly_failing(self) -> int:
        """How many checks are worse than the run before."""
        return sum(change.is_new for change in self.problems)

    @property
    def headline(self) -> str:
        """The verdict in a sentence."""
        return HEADLINES[self.verdict]


def write_quality(site: Site, session: Session) -> tuple[Path, Quality]:
    """Read what was recorded, judge it, and write the page."""
    quality = read_quality(session)
    page = site.write(
        PAGE,
        "quality.html",
        title="Quality",
        quality=quality,
        watched=WATCHED,
        most=MOST_LISTED,
        history_days=HISTORY_DAYS,
    )
    return page, quality


def read_quality(session: Session) -> Quality:
    """Everything that the page tells, as it is now."""
    results = read_results(session)
    newest = latest(results)
    loads = _loads(session)
    runs = _runs(session, results)
    covered = _covered(session)
    accounts = sorted({account for account, _ in loads} | set().union(*covered.values()))
    cells = matrix(results, accounts, covered, loads)
    freshness, held = _freshness(session), _held(session)
    amiss = problems(results)
    stale = sum(bool(row["is_stale"]) for row in freshness)
    held_slices = sum(row["slices"] for row in held)
    failed_sync = bool(runs) and runs[0]["status"] == "failed"
    shown = [cell for by_account in cells.values() for cell in by_account.values()]
    verdict = overall(shown, amiss, stale=stale, held=held_slices, failed_sync=failed_sync)
    return Quality(
        verdict=verdict,
        reasons=_reasons(shown, amiss, stale, held_slices, failed_sync),
        accounts=accounts,
        matrix=cells,
        problems=amiss,
        compared=[
            each
            for each in newest
            if each.check_type not in WHOLE_TABLE
            and each.source_value is not None
            and each.target_value is not None
        ],
        freshness=freshness,
        held=held,
        runs=runs,
        refused=_refused(session),
        checks=len(newest),
    )


def _reasons(
    cells: Sequence[Cell], amiss: Sequence[Change], stale: int, held: int, failed_sync: bool
) -> list[str]:
    """Why the verdict is no better, the worst first."""
    statuses = Counter(change.result.status for change in amiss)
    unknown = Counter(cell.why for cell in cells if cell.verdict is Verdict.UNKNOWN)
    said = [
        (statuses[Verdict.FAILED], "of the newest checks fail"),
        *((tables, f"tables of accounts are unknown: {why}") for why, tables in unknown.items()),
        (held, "slices are held back by a critical check; the load before stays in force"),
        (stale, "summaries of accounts are stale"),
        (statuses[Verdict.WARNING], "of the newest checks warn"),
    ]
    return [
        *(["nothing was delivered yet"] if not cells else []),
        *(f"{number:,} {what}" for number, what in said if number),
        *(["the last sync failed: the numbers are those of the sync before"] * failed_sync),
    ]


def read_results(session: Session) -> list[Result]:
    """Every check's results of the last 90 days, oldest first."""
    found = rows(
        session,
        """
        with runs as (
            select
                id,
                run_id::text as run_id,
                max(id) over (partition by run_id) as run
            from sqp.sync_log
        )

        select
            checks.id,
            runs.run,
            coalesce(
                checks.check_metadata ->> 'invocation_id', runs.run_id, checks.id::text
            ) as run_key,
            checks.check_type,
            checks.check_name,
            coalesce(checks.table_name, '') as table_name,
            coalesce(checks.column_name, '') as column_name,
            concat_ws(
                ' ',
                checks.check_metadata ->> 'report_view',
                lower(checks.check_metadata ->> 'period_type')
            ) as scope,
            checks.check_status,
            checks.source_value,
            checks.target_value,
            checks.difference_pct,
            left(coalesce(checks.check_message, ''), %(letters)s) as message,
            coalesce((checks.check_metadata ->> 'failing')::bigint, 0) as failing,
            case
                when checks.check_status <> 'passed' then checks.check_metadata -> 'failing_slices'
            end as named,
            checks.created_at as checked_at
        from sqp.data_quality_checks as checks
        left join runs on checks.sync_log_id = runs.id
        where checks.created_at >= now() - make_interval(days => %(days)s)
        order by checks.id
        """,
        {"days": HISTORY_DAYS, "letters": MOST_LETTERS},
    )
    return [
        Result(
            status=STATUSES[row.pop("check_status")],
            named=tuple(row.pop("named") or ()),
            **row,
        )
        for row in found
    ]


def _loads(session: Session) -> dict[tuple[str, str], Load]:
    """The newest load of each account and report view, in force or waiting."""
    found = rows(
        session,
        """
        with runs as (
            select id, max(id) over (partition by run_id) as run
            from sqp.sync_log
        )

        select
            slices.account_id,
            slices.report_view,
            max(runs.run) as run,
            max(slices.loaded_at) as loaded_at
        from landing.sqp_slices as slices
        inner join runs on slices.load_id = runs.id
        group by slices.account_id, slices.report_view
        """,
    )
    return {
        (row["account_id"], row["report_view"]): Load(row["run"], row["loaded_at"]) for row in found
    }


def _covered(session: Session) -> dict[int, set[str]]:
    """The accounts that each run brought slices of, by the run's last log id.

    A run whose slices have all been replaced since says nothing of today's rows any more.
    """
    found = rows(
        session,
        """
        with runs as (
            select id, account_id, max(id) over (partition by run_id) as run
            from sqp.sync_log
        ),

        loads as (
            select distinct account_id, load_id from landing.sqp_slices
            union
            select distinct account_id, accepted_load_id from landing.sqp_slices
        )

        select runs.run, loads.account_id
        from loads
        inner join runs on loads.load_id = runs.id
        union
        select run, account_id
        from runs
        where account_id is not null
        """,
    )
    covered: dict[int, set[str]] = defaultdict(set)
    for row in found:
        covered[row["run"]].add(row["account_id"])
    return covered


def _freshness(session: Session) -> list[Row]:
    """How old each summary of each account is, with the weeks and ASINs that are missing."""
    return rows_of(
        session,
        "sqp.account_freshness",
        """
        with gaps as (
            select account_id, marketplace_id, sum(missing_weeks) as missing_weeks
            from sqp.week_gaps
            group by account_id, marketplace_id
        ),

        incomplete as (
            select account_id, marketplace_id, count(*) as incomplete_weeks
            from sqp.incomplete_weeks
            where is_overdue
            group by account_id, marketplace_id
        )

        select
            freshness.account_id,
            freshness.marketplace_id,
            coalesce(marketplaces.country_code, freshness.marketplace_id) as country_code,
            freshness.table_name,
            freshness.latest_period,
            freshness.days_old,
            freshness.stale_after_days,
            freshness.is_stale,
            freshness.last_attempt_at,
            freshness.last_success_at,
            freshness.last_change_at,
            coalesce(gaps.missing_weeks, 0) as missing_weeks,
            coalesce(incomplete.incomplete_weeks, 0) as incomplete_weeks
        from sqp.account_freshness as freshness
        left join sqp.marketplaces as marketplaces
            on freshness.marketplace_id = marketplaces.marketplace_id
        left join gaps
            on
                freshness.account_id = gaps.account_id
                and freshness.marketplace_id = gaps.marketplace_id
        left join incomplete
            on
                freshness.account_id = incomplete.account_id
                and freshness.marketplace_id = incomplete.marketplace_id
        order by
            freshness.account_id,
            freshness.marketplace_id,
            array_position(
                array['weekly_summary', 'monthly_summary', 'quarterly_summary'],
                freshness.table_name
            )
        """,
    )


def _held(session: Session) -> list[Row]:
    """The slices that are held back, by account and reason."""
    return rows(
        session,
        """
        select
            account_id,
            marketplace_id,
            left(held_reason, %(letters)s) as held_reason,
            count(*) as slices,
            min(period_start) as first_period,
            max(period_start) as last_period
        from landing.sqp_slices
        where slice_status = 'held'
        group by account_id, marketplace_id, left(held_reason, %(letters)s)
        order by slices desc, account_id, marketplace_id, held_reason
        """,
        {"letters": MOST_LETTERS},
    )


def _refused(session: Session) -> list[Row]:
    """The refused rows by account and reason, each with its newest example."""
    return rows(
        session,
        """
        select
            account_id,
            reason_code,
            count(*) as refused_rows,
            min(rejected_at) as first_at,
            max(rejected_at) as last_at,
            (array_agg(left(reason, %(letters)s) order by id desc))[1] as reason,
            (array_agg(source_file order by id desc))[1] as source_file,
            (array_agg(source_line order by id desc))[1] as source_line
        from landing.rejected_rows
        group by account_id, reason_code
        order by refused_rows desc, account_id, reason_code
        """,
        {"letters": MOST_LETTERS},
    )


def _runs(session: Session, results: Sequence[Result]) -> list[Row]:
    """The newest runs, newest first: what each did, and what its checks came to."""
    found = rows(
        session,
        """
        select
            max(id) as run,
            string_agg(sync_type, ', ' order by id) as sync_types,
            case
                when bool_or(sync_status = 'failed') then 'failed'
                when bool_or(sync_status = 'started') then 'started'
                else 'completed'
            end as status,
            min(started_at) as started_at,
            max(coalesce(completed_at, heartbeat_at)) - min(started_at) as took,
            sum(records_processed) as processed,
            sum(records_inserted) as inserted,
            sum(records_updated) as updated,
            sum(records_deleted) as deleted,
            sum(records_failed) as refused,
            sum(slices_held) as held,
            left(string_agg(error_message, '; ' order by id), %(letters)s) as error
        from sqp.sync_log
        group by run_id
        order by max(id) desc
        limit %(runs)s
        """,
        {"runs": RUNS_SHOWN, "letters": MOST_LETTERS},
    )
    of_runs = sorted((each for each in results if each.run), key=lambda each: each.run or 0)
    statuses = {
        run: Counter(each.status for each in group)
        for run, group in groupby(of_runs, key=lambda each: each.run)
    }
    for row in found:
        counted = statuses.get(row["run"], Counter())
        row |= {status.word: counted[status] for status in STATUSES.values()}
        row["verdict"] = _of_run(row["status"], counted)
    return found


def _of_run(status: str, counted: Counter[Verdict]) -> Verdict:
    if status == "failed" or counted[Verdict.FAILED]:
        return Verdict.FAILED
    if status == "started" or not counted:
        return Verdict.UNKNOWN
    return Verdict.WARNING if counted[Verdict.WARNING] else Verdict.PASSED
