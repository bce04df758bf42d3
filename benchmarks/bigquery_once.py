"""Compare, read, parse and land from BigQuery in a process of its own; prints figures as JSON."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from benchmarks.sync_once import peak_megabytes
from flows.settings import get_settings
from flows.sources.bigquery import BigQueryRequest, compare, source_of
from flows.sources.bigquery_client import connect_bigquery
from flows.sources.marketplaces import find_marketplace
from flows.sources.read import read_delivery
from flows.sync_sqp import remember
from flows.warehouse.bigquery_slices import LoadedSlices
from flows.warehouse.buckets import one_ahead
from flows.warehouse.landing import Landing
from flows.warehouse.run_log import SyncType, leased_run
from flows.warehouse.slice_register import accept_and_hold
from flows.warehouse.spool import Spool


def main() -> None:
    """Do what the steps compare, parse, land and accept of a sync do."""
    client, request = connect_bigquery(get_settings()), BigQueryRequest(weeks=520)
    marketplace = find_marketplace(get_settings().bigquery_marketplace or "")
    assert marketplace is not None
    with leased_run() as run, tempfile.TemporaryDirectory() as folder:
        known = LoadedSlices(run.connection, source_of(client, None), marketplace.marketplace_id)
        started = time.perf_counter()
        comparison = compare(client, request, known, get_settings())
        compared = time.perf_counter()
        delivery = comparison.delivery()
        run.begin([SyncType.WEEKLY], source=client.table)
        landing = Landing(run.connection, [delivery], run.load_ids(), Spool(Path(folder)))
        for batch in one_ahead(read_delivery(delivery)):
            landing.spool.add(delivery, 0, batch.rows)
            landing.refuse(0, batch.rejected)
        landing.land(set())
        remember(run, comparison)
        accept_and_hold(run.connection, {})
        landed = time.perf_counter()
        run.complete()
    print(
        json.dumps(
            {
                "compare_s": compared - started,
                "land_s": landed - compared,
                "rows": comparison.metadata.get("rows_read", 0),
                "bytes": comparison.metadata.get("bytes_read", 0),
                "peak_mb": peak_megabytes(),
            }
        )
    )


if __name__ == "__main__":
    main()
