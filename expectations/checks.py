"""The checks that a sync calls: on what landed before it is accepted, and on what was built of it.

Great Expectations costs seconds to import: it is imported only where there is something to check.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import Composed

from expectations.batches import Batch
from flows.settings import Connection
from flows.sources.deliveries import PeriodType, ReportView

if TYPE_CHECKING:
    from expectations.actions import Recorded


@dataclass(frozen=True)
class CheckSummary:
    """How a round of checks ended.

    Attributes:
        passed, warnings, failed: checks by status; all 0 if there was nothing to check.
        held: why a slice must not be accepted, by `slice_id`: its critical failures.
    """

    passed: int = 0
    warnings: int = 0
    failed: int = 0
    held: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Waiting:
    """The landed slices of one view and period type, and the run that their results belong to."""

    view: ReportView
    period_type: str
    load_ids: list[int]
    slice_ids: list[int]
    sync_log_id: int

    @property
    def table_name(self) -> str:
        return f"landing.sqp_{self.view}"

    @property
    def metadata(self) -> dict[str, Any]:
        return {"report_view": str(self.view), "period_type": self.period_type}


def check_landed(connection: Connection, *, log_ids: Mapping[str, int]) -> CheckSummary:
    """Check every slice that has landed and is neither accepted nor held, whichever run landed it.

    Results go into `sqp.data_quality_checks`, one row per check, view and period type, under the
    period type's run; slices of a type that this run does not have stay with the run that landed
    them. With no slice to check nothing is written. Accepting and holding is the caller's.

    Args:
        log_ids: `sqp.sync_log.id` of this run by period type (`WEEK`, `MONTH`, `QUARTER`).
    """
    with _session(connection) as session:
        waiting = _waiting(session, log_ids)
        if not waiting:
            return CheckSummary()

        from expectations.context import run_suite
        from expectations.suites import landed_slices, landing_columns

        held: dict[int, str] = {}
        recorded: list[Recorded] = []
        measurable: list[_Waiting] = []
        for each in waiting:
            of_table = run_suite(landing_columns(), [_columns_batch(session, each)], session)
            recorded += of_table
            broken = [one.row for one in of_table if one.row.check_status == "failed"]
            if broken:
                reason = "; ".join(row.check_message for row in broken)
                held |= dict.fromkeys(each.slice_ids, f"{each.table_name}: {reason}")
            else:
                measurable.append(each)
        recorded += run_suite(landed_slices(), _slices_batches(session, measurable), session)
        return _summary(recorded, held)


def reconcile(
    connection: Connection, *, log_ids: Mapping[str, int], tables: Sequence[str] | None = None
) -> CheckSummary:
    """Compare source and target of what this run has touched, after the summaries are built.

    Landing in force against `sqp.weekly_summary`, that against the summaries made of it, and the
    rows in landing against those that the run's log counts as good. A difference of more than
    0.1 % in any slice warns, one of more than 1 % fails. Compared are the slices that this run
    loaded, accepted or built, and those of failed runs since the last one that completed; where
    there are none, nothing is compared and nothing is written.

    Args:
        log_ids: `sqp.sync_log.id` of this run by period type.
        tables: the summaries to compare (`weekly_summary` …); all of them by default.
    """
    with _session(connection) as session:
        summaries = list(_comparison_batches(session, log_ids, tables))
        landings = list(_log_batches(session, log_ids))
        if not (summaries or landings):
            return CheckSummary()

        from expectations.context import run_suite
        from expectations.suites import landed_against_log, summary_against_source

        recorded = [
            *run_suite(summary_against_source(), summaries, session),
            *run_suite(landed_against_log(), landings, session),
        ]
        return _summary(recorded, held={})


@contextmanager
def _session(connection: Connection) -> Iterator[psycopg.Connection[Any]]:
    """One transaction for a round of checks: its rows appear together, or not at all."""
    login = make_conninfo(**connection.libpq(), application_name="warehouse checks")
    with psycopg.connect(login) as session:
        session.execute("set role etl")
        session.execute("set time zone 'UTC'")
        session.execute("set work_mem = '64MB'")
        yield session


def _waiting(session: psycopg.Connection[Any], log_ids: Mapping[str, int]) -> list[_Waiting]:
    found = session.execute(
        """
        select report_view, period_type, array_agg(distinct load_id), array_agg(slice_id)
        from landing.sqp_slices
        where slice_status = 'landed'
        group by report_view, period_type
        order by report_view, period_type
        """
    ).fetchall()
    return [
        _Waiting(ReportView(view), period_type, loads, slices, log_ids.get(period_type, max(loads)))
        for view, period_type, loads, slices in found
    ]


def _columns_batch(session: psycopg.Connection[Any], waiting: _Waiting) -> Batch:
    from expectations.profile import columns_query, read_columns

    return Batch(
        frame=read_columns(session, waiting.view),
        noun="column",
        sync_log_id=waiting.sync_log_id,
        table_name=waiting.table_name,
        query=partial(_always, columns_query(waiting.view)),
        metadata=waiting.metadata,
    )


def _slices_batches(
    session: psycopg.Connection[Any], waiting: Sequence[_Waiting]
) -> Iterator[Batch]:
    from expectations.profile import of_loads, profile_query, read_profile

    profiles = {view: read_profile(session, view) for view in {each.view for each in waiting}}
    for each in waiting:
        profile = profiles[each.view]
        yield Batch(
            frame=profile[profile["period_type"] == each.period_type].reset_index(drop=True),
            noun="slice",
            sync_log_id=each.sync_log_id,
            table_name=each.table_name,
            query=partial(
                profile_query, each.view, condition=of_loads(each.period_type, each.load_ids)
            ),
            metadata=each.metadata,
        )


def _comparison_batches(
    session: psycopg.Connection[Any], log_ids: Mapping[str, int], tables: Sequence[str] | None
) -> Iterator[Batch]:
    """The summaries are made of weeks: their results belong to the weekly run, if there is one."""
    from expectations.reconciliation import PAIRS, Scope, query_behind, read_comparison

    scope = Scope.of(session, log_ids.values())
    for pair in [PAIRS[name] for name in (PAIRS if tables is None else tables)]:
        frame = read_comparison(session, pair, scope)
        if frame.empty:
            continue
        yield Batch(
            frame=frame,
            noun="slice",
            sync_log_id=log_ids.get(PeriodType.WEEK, max(log_ids.values(), default=None)),
            table_name=f"sqp.{pair.target}",
            query=partial(query_behind, pair, scope),
            metadata={"source_table": pair.source, "period_type": str(PeriodType.WEEK)},
        )


def _log_batches(session: psycopg.Connection[Any], log_ids: Mapping[str, int]) -> Iterator[Batch]:
    from expectations.reconciliation import landed_counts_query, read_landed_counts

    for period_type, log_id in log_ids.items():
        query = landed_counts_query(log_id)
        frame = read_landed_counts(session, log_id)
        if not frame.empty:
            yield Batch(
                frame=frame,
                noun="run",
                sync_log_id=log_id,
                table_name="landing",
                query=partial(_always, query),
                metadata={"source_table": "sqp.sync_log", "period_type": str(period_type)},
            )


def _always(query: Composed, _columns: Sequence[str]) -> Composed:
    """The one query behind every measure of a small frame."""
    return query


def _summary(recorded: Sequence[Recorded], held: Mapping[int, str]) -> CheckSummary:
    """Count the checks, and put the reasons of each held slice together."""
    reasons: dict[int, list[str]] = {}
    for slice_id, reason in chain(held.items(), *(each.held.items() for each in recorded)):
        reasons.setdefault(slice_id, []).append(reason)
    statuses = Counter(each.row.check_status for each in recorded)
    return CheckSummary(
        passed=statuses["passed"],
        warnings=statuses["warning"],
        failed=statuses["failed"],
        held={slice_id: "; ".join(each) for slice_id, each in sorted(reasons.items())},
    )
