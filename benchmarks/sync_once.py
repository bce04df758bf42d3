"""Parse and land one file in a process of its own; prints seconds, counts, peak memory as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from flows.sources.find import find_deliveries
from flows.sources.read import read_delivery
from flows.warehouse.landing import Landing
from flows.warehouse.run_log import SyncType, leased_run
from flows.warehouse.slice_register import accept_and_hold
from flows.warehouse.spool import Spool
from flows.warehouse.threads import one_ahead


def main(path: str) -> None:
    """Do what the steps find, parse, land and accept of a sync do."""
    started = time.perf_counter()
    with leased_run() as run, tempfile.TemporaryDirectory() as folder:
        deliveries, unreadable = find_deliveries([path], marketplace="US", account="bench")
        assert not unreadable, unreadable
        run.begin([SyncType.WEEKLY], source=path)
        landing = Landing(run.connection, deliveries, run.load_ids(), Spool(Path(folder)))
        for number, delivery in enumerate(deliveries):
            for batch in one_ahead(read_delivery(delivery)):
                landing.spool.add(delivery, number, batch.rows)
                landing.refuse(number, batch.rejected)
        parsed = time.perf_counter()
        landing.land(set())
        accept_and_hold(run.connection, {})
        landed = time.perf_counter()
        run.complete()
    print(
        json.dumps(
            {
                "parse": parsed - started,
                "land": landed - parsed,
                "seconds": landed - started,
                "records": landing.tallies["WEEK"].records,
                "peak_mb": peak_megabytes(),
            }
        )
    )


def peak_megabytes() -> float:
    """The most memory this process has held; `getrusage` would count its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(sys.argv[1])
