"""Read from BigQuery in a process of its own, `alone` or as a `sync`; prints figures as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.sync_once import peak_megabytes
from flows.settings import get_settings
from flows.sources.bigquery import BigQueryRequest, compare, source_of
from flows.sources.bigquery_client import connect_bigquery
from flows.sources.bigquery_contract import contract
from flows.sources.bigquery_rows import Restriction, open_rows
from flows.sources.marketplaces import find_marketplace
from flows.sources.read import read_delivery
from flows.sync_sqp import remember
from flows.warehouse.bigquery_slices import LoadedSlices
from flows.warehouse.landing import Landing
from flows.warehouse.run_log import SyncType, leased_run
from flows.warehouse.slice_register import accept_and_hold
from flows.warehouse.spool import Spool
from flows.warehouse.threads import one_ahead


class Everything(Restriction):
    """The condition of a read that leaves out nothing."""

    def sql(self) -> str:
        """True of every row."""
        return "true"


def alone() -> dict[str, Any]:
    """Read every row and do nothing with it."""
    client = connect_bigquery(get_settings())
    table = client.rest.get_table(client.table)
    started = time.perf_counter()
    for _ in open_rows(
        client,
        Everything("DATE", {date(2020, 1, 5): None}),
        list(contract()),
        expected_rows=table.num_rows or 0,
        as_of=None,
        metadata={},
    ):
        pass
    return {"seconds": time.perf_counter() - started, "rows": table.num_rows}


def sync(since: str) -> dict[str, Any]:
    """Do what the steps compare, parse, land and accept of a sync do."""
    client = connect_bigquery(get_settings())
    request = BigQueryRequest(since=date.fromisoformat(since))
    marketplace = find_marketplace(get_settings().bigquery_marketplace or "")
    assert marketplace is not None
    with leased_run() as run, tempfile.TemporaryDirectory() as folder:
        known = LoadedSlices(run.connection, source_of(client, None), marketplace.marketplace_id)
        started = time.perf_counter()
        comparison = compare(client, request, known, get_settings())
        compared = time.perf_counter()
        compared_mb = peak_megabytes()
        delivery = comparison.delivery()
        run.begin([SyncType.WEEKLY], source=client.table)
        landing = Landing(run.connection, [delivery], run.load_ids(), Spool(Path(folder)))
        for batch in one_ahead(read_delivery(delivery)):
            landing.spool.add(delivery, 0, batch.rows)
            landing.refuse(0, batch.rejected)
        parsed = time.perf_counter()
        parsed_mb = peak_megabytes()
        landing.land(set())
        remember(run, comparison)
        accept_and_hold(run.connection, {})
        landed = time.perf_counter()
        run.complete()
    told = comparison.metadata
    return {
        "compare_s": compared - started,
        "parse_s": parsed - compared,
        "seconds": landed - compared,
        "compared_mb": compared_mb,
        "parsed_mb": parsed_mb,
        "rows": told.get("rows_read", 0),
        "compared_bytes": told["bytes_processed"],
        "table_bytes": told["bytes_processed"],
        "bytes": told["bytes_processed"] + told["read_estimated_bytes"],
    }


def main() -> None:
    """Do what the arguments say."""
    what, *since = sys.argv[1:]
    figures = alone() if what == "alone" else sync(*since)
    print(json.dumps(figures | {"peak_mb": peak_megabytes()}))


if __name__ == "__main__":
    main()
