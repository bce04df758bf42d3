"""The main job: Search Query Performance deliveries in, trusted summaries out.

find → parse → land → check → build → reconcile → report, under one run id. A run that dies
anywhere is closed by the next one, which takes up what it had landed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from expectations import checks
from flows.alerts import after_sync
from flows.errors import UnreadableDelivery, WarehouseError
from flows.progress import progress
from flows.report import SyncReport, make_report
from flows.runs import step, warehouse_flow
from flows.settings import get_settings
from flows.sources.bigquery_request import BigQueryRequest
from flows.sources.deliveries import Delivery, PeriodType
from flows.sources.find import find_deliveries
from flows.sources.read import read_delivery
from flows.warehouse import dbt_build, slice_register
from flows.warehouse.connection import current_connection
from flows.warehouse.landing import Landing
from flows.warehouse.run_log import SYNC_TYPES, Run, SyncStatus, SyncType, leased_run
from flows.warehouse.spool import Spool
from flows.warehouse.threads import one_ahead

if TYPE_CHECKING:
    from flows.sources.bigquery import Comparison

SELECTOR = "sqp_summaries"
SPOOL_FOLDER = "spool-"


@warehouse_flow(
    "sync-sqp",
    steps=6,
    on_completion=[after_sync],
    on_failure=[after_sync],
    on_crashed=[after_sync],
)
def sync_sqp(
    paths: list[str],
    marketplace: str | None = None,
    account: str | None = None,
    dry_run: bool = False,
    allow_older: bool = False,
    bigquery: BigQueryRequest | None = None,
) -> SyncReport:
    """Load deliveries and bring the summaries up to date.

    Args:
        paths: files, folders and globs; none with `bigquery`.
        marketplace: where the files do not say: an Amazon marketplace id or a country code.
        account: whose deliveries these are; without it the flat table's `Client Name`, or
            `default`.
        dry_run: read and compare everything, and leave the warehouse as it was.
        allow_older: let a delivery replace a slice that was delivered later.
        bigquery: read what changed in the table in BigQuery, instead of files.

    Raises:
        UsageError: the paths hold nothing, or a file's marketplace is unknown (exit 2).
        Busy: another sync runs (exit 75).
        WarehouseError: a step failed; its log rows say so (exit 1).
    """
    with leased_run() as run, _spool() as spool:
        comparison = compare(run, bigquery) if bigquery else None
        if comparison:
            deliveries, unreadable = [comparison.delivery()], comparison.held_back()
        else:
            deliveries, unreadable = find(run, paths, marketplace, account)
        with run.rehearsal() if dry_run else nullcontext():
            run.begin(
                {SYNC_TYPES[delivery.period_type] for delivery in deliveries},
                source=comparison.bigquery.table if comparison else ", ".join(paths),
                account=account,
            )
            landing = Landing(
                run.connection,
                deliveries,
                run.load_ids(),
                spool,
                allow_older=allow_older,
            )
            broken = parse(run, landing)
            land(run, landing, set(broken))
            unreadable += broken.values()
            if comparison and not broken:
                remember(run, comparison)
            if dry_run:
                return make_report(run, landing, unreadable, dry_run=True)
            note_unreadable(run, unreadable)
        something_new = bool(run.candidate_types()) or run.follows_a_failure()
        if something_new:
            check(run)
            build(run)
            reconcile(run)
        finish(run, landing, set(broken))
        return make_report(run, landing, unreadable, something_new=something_new)


@step
def find(
    run: Run,  # noqa: ARG001
    paths: list[str],
    marketplace: str | None,
    account: str | None,
) -> tuple[list[Delivery], list[UnreadableDelivery]]:
    """Tell every file apart by its content; those nobody understands are put aside."""
    return find_deliveries(paths, marketplace=marketplace, account=account)


@step
def compare(run: Run, request: BigQueryRequest) -> Comparison:
    """Find which slices of the table in BigQuery are not as they were loaded."""
    # Google's libraries take seconds to load, and a sync of files needs none of them.
    from flows.sources import bigquery
    from flows.sources.bigquery_client import connect_bigquery
    from flows.warehouse.bigquery_slices import LoadedSlices

    client = connect_bigquery(get_settings())
    marketplace_id = bigquery.marketplace_of(request, get_settings())
    source = bigquery.source_of(client, request.account)
    loaded = LoadedSlices(run.connection, source, marketplace_id)
    return bigquery.compare(client, request, loaded, get_settings())


def remember(run: Run, comparison: Comparison) -> None:
    """Note what is landed of the table in BigQuery, what it cost, and what is held back."""
    from flows.warehouse import bigquery_slices

    log_id = run.log_ids[SyncType.WEEKLY]
    bigquery_slices.remember(run.connection, comparison)
    bigquery_slices.write_metadata(run.connection, log_id, comparison)
    bigquery_slices.write_checks(run.connection, log_id, comparison)


@step
def parse(run: Run, landing: Landing) -> dict[int, UnreadableDelivery]:
    """Read every delivery into the spool, and keep its refused rows.

    Returns:
        the deliveries that broke while they were read, by number: nothing of them is kept.
    """
    broken: dict[int, UnreadableDelivery] = {}
    for number, delivery in enumerate(landing.deliveries):
        landing.spool.declare(delivery, number)
        try:
            with run.connection.transaction():
                for batch in one_ahead(read_delivery(delivery)):
                    landing.spool.add(delivery, number, batch.rows)
                    landing.refuse(number, batch.rejected)
                    progress().advance("parse", batch.rows.num_rows + len(batch.rejected))
        except UnreadableDelivery as error:
            broken[number] = error
    return broken


@step
def land(run: Run, landing: Landing, broken: set[int]) -> None:  # noqa: ARG001
    """Replace the slices that changed, each in one transaction."""
    landing.land(broken)


@step
def check(run: Run) -> None:
    """Check what landed; what fails critically is held back, the rest comes into force."""
    run.begin(run.candidate_types(), source="slices landed by a run that died")
    summary = checks.check_landed(current_connection(), log_ids=run.load_ids())
    run.at("accept")
    slice_register.accept_and_hold(run.connection, summary.held)
    run.count_held()


@step
def build(run: Run) -> None:
    """Rebuild what the new slices touch, and test it."""
    run.built = dbt_build.build(SELECTOR, sync_log_id=run.first_log_id())


@step
def reconcile(run: Run) -> None:
    """Compare what is in force with what the summaries say."""
    summary = checks.reconcile(current_connection(), log_ids=run.load_ids())
    if summary.failed:
        raise WarehouseError(
            "the summaries do not agree with what was delivered",
            f"{summary.failed} of {summary.passed + summary.warnings + summary.failed}"
            " comparisons failed",
            "see `warehouse status`, or select from sqp.data_quality_checks",
        )


def note_unreadable(run: Run, unreadable: list[UnreadableDelivery]) -> None:
    """Write down which files, or weeks of the table, stayed out, whatever becomes of the others."""
    if not unreadable:
        return
    run.begin([SyncType.UNREADABLE], source="what could not be read or is held back")
    run.end(
        SyncType.UNREADABLE,
        SyncStatus.FAILED,
        message=f"{len(unreadable)} could not be read or are held back",
        details={"reason": "unreadable", "files": [error.as_dict() for error in unreadable]},
    )


def finish(run: Run, landing: Landing, broken: set[int]) -> None:
    """Close the run's log rows, each with its own outcome."""
    run.at("finish")
    for period_type, tally in landing.tallies.items():
        numbers = {
            number
            for number, delivery in enumerate(landing.deliveries)
            if delivery.period_type == period_type
        }
        if tally.processed and tally.processed == tally.records["failed"]:
            reason, message = "refused", "every row was refused; see landing.rejected_rows"
        elif numbers <= broken:
            reason, message = "unreadable", "none of its files could be read to the end"
        else:
            continue
        run.end(
            SYNC_TYPES[PeriodType(period_type)],
            SyncStatus.FAILED,
            message=message,
            details={"reason": reason},
        )
    run.complete()


@contextmanager
def _spool() -> Iterator[Spool]:
    """A spool in a folder of the warehouse, which goes with it; those of dead runs go first."""
    home = get_settings().warehouse_home
    home.mkdir(parents=True, exist_ok=True)
    for leftover in home.glob(f"{SPOOL_FOLDER}*"):
        if not Path("/proc", leftover.name.split("-")[1]).exists():
            shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{SPOOL_FOLDER}{os.getpid()}-", dir=home) as folder:
        yield Spool(Path(folder))
