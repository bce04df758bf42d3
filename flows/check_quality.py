"""The nightly quality check: everything that is loaded, not only what a sync has touched.

build → test → freshness → alerts → site. Views and the snapshot of accounts and seats are brought
up to date, every data test runs, sources that have not been loaded in time warn, and alerts are
raised. Every result is a row of `sqp.data_quality_checks` under the newest sync.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from flows.alerts import Alert, raise_alerts
from flows.errors import ExitCode
from flows.runs import Story, step, warehouse_flow
from flows.warehouse import dbt_build
from flows.warehouse.dbt_build import Found
from flows.warehouse.run_log import Run, leased_run

VIEWS = "accounts"
TESTS = "data_tests"


@dataclass(frozen=True)
class QualityReport:
    """What a check found.

    Attributes:
        passed, warnings, failed: tests and sources by outcome.
        problems: those that warn or fail, worst first.
        alerts: the rules on syncs that are broken now.
        seconds: how long each step took.
    """

    passed: int
    warnings: int
    failed: int
    problems: list[Found]
    alerts: list[Alert]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """FAILED when a test failed; PARTIAL when something warns or an alert stands."""
        if self.failed:
            return ExitCode.FAILED
        return ExitCode.PARTIAL if self.problems or self.alerts else ExitCode.DONE

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)

    def story(self) -> Story:
        """Whether today's numbers can be used, and what speaks against it."""
        return Story(
            headline=f"{self.passed} checks passed, {self.warnings} warn, {self.failed} failed;"
            f" {len(self.alerts)} alerts",
            changes=[
                {"check": each.name, "of": each.of, "status": each.status, "found": each.message}
                for each in self.problems
            ],
            problems=[
                {
                    "what": f"{each.name} on {each.of} ({each.status})",
                    "why": each.message,
                    "next_step": "see the quality page, or sqp.data_quality_checks",
                }
                for each in self.problems
            ]
            + [
                {
                    "what": f"{each.alert_rule} of the {each.sync_type} sync",
                    "why": each.message,
                    "next_step": "see the runbook of alerts",
                }
                for each in self.alerts
            ],
            pages={"quality.html": "the quality page"},
        )


@warehouse_flow("check-quality", steps=5)
def check_quality(site: str | None = None) -> QualityReport:
    """Check everything that is loaded.

    Args:
        site: the folder that the site is then written to, for everybody to see.

    Raises:
        Busy: a sync is at work (exit 75).
        WarehouseError: dbt could not build or test at all.
    """
    with leased_run() as run:
        newest = newest_log_id(run)
        build(run)
        found = test(run, newest) + freshness(run, newest)
        alerts = alert(run)
        if site:
            write_site(run, site)
    statuses = [each.status for each in found]
    return QualityReport(
        passed=statuses.count("passed"),
        warnings=statuses.count("warning"),
        failed=statuses.count("failed"),
        problems=sorted(
            (each for each in found if each.status != "passed"), key=lambda each: each.status
        ),
        alerts=alerts,
        seconds={name: round(seconds, 2) for name, seconds in run.seconds.items()},
    )


def newest_log_id(run: Run) -> int | None:
    """The sync whose numbers are checked; None before the first."""
    row = run.connection.execute("select max(id) from sqp.sync_log").fetchone()
    return row[0] if row else None


@step
def build(run: Run) -> None:  # noqa: ARG001
    """Bring the views and the snapshot of accounts and seats up to date."""
    dbt_build.make(VIEWS)


@step
def test(run: Run, sync_log_id: int | None) -> list[Found]:  # noqa: ARG001
    """Run every data test; dbt writes down the results itself."""
    return dbt_build.test(TESTS, sync_log_id=sync_log_id)


@step
def freshness(run: Run, sync_log_id: int | None) -> list[Found]:
    """Look at when each source was loaded last, and write that down."""
    found = dbt_build.source_freshness()
    with run.connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into sqp.data_quality_checks (
                sync_log_id, check_type, check_name, check_status, source_value, target_value,
                difference, table_name, check_message, check_metadata
            )
            values (
                %(sync_log_id)s, 'freshness', 'loaded_in_time', %(status)s, %(limit)s, %(age)s,
                %(age)s::numeric - %(limit)s::numeric, %(of)s, %(message)s, %(metadata)s
            )
            """,
            [
                {
                    "sync_log_id": sync_log_id,
                    "status": each.status,
                    "limit": each.limit_seconds,
                    "age": each.age_seconds,
                    "of": each.of,
                    "message": each.message,
                    "metadata": Jsonb({"unit": "seconds"}),
                }
                for each in found
            ],
        )
    return list(found)


@step
def alert(run: Run) -> list[Alert]:  # noqa: ARG001
    """Raise the alerts that stand now."""
    return raise_alerts()


@step
def write_site(run: Run, folder: str) -> None:  # noqa: ARG001
    """Write the pages anew: what was found is among them."""
    from flows.site.build import build_site

    build_site(Path(folder))
