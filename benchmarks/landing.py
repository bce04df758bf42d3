"""Parse and land a million rows, against a bare binary COPY of the same rows.

The bare COPY streams ready-made binary rows, in delivered order, into a table with the columns,
month partitions and unique index of `landing.sqp_asin`: no file is parsed, nothing is checked,
sorted, compared or registered.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.server import fresh_database
from flows.sources.sample import write_flat_csv, write_flat_parquet, write_report_json
from flows.warehouse.connection import connect
from flows.warehouse.threads import share_out

ROUNDS = 3
DELIVERED_ORDER = """
copy (
    select * from landing.sqp_asin where source_line % {sessions} = {session} order by source_line
) to stdout (format binary)
"""

ASINS, QUERIES, WEEKS, SEED = 2_000, 80_000, 5, 1

BARE_TABLE = """
drop table if exists landing.bench_bare;
create table landing.bench_bare (like landing.sqp_asin including defaults including constraints)
partition by range (period_start);
alter table landing.bench_bare owner to app_owner;
create unique index on landing.bench_bare (period_start, slice_id, load_id, query_digest);
select app.create_monthly_partition('landing.bench_bare', day)
from (select distinct period_start as day from landing.sqp_asin) as days
"""


def run(folder: Path, rows: int, big: int) -> list[dict[str, Any]]:
    """Measure each format, first and second sync, beside the bare COPY of the same rows.

    Args:
        rows: of the flat table; JSON, far bulkier a row, gets a tenth.
        big: of a second flat Parquet, to show that memory does not grow with the rows.
    """
    cases = [
        ("flat Parquet", write_flat_parquet, "US_flat.parquet", rows),
        ("flat Parquet, more rows", write_flat_parquet, "US_more.parquet", big),
        ("flat CSV", write_flat_csv, "US_flat.csv", rows),
        ("SP-API JSON", write_report_json, "US_reports", rows // 10),
    ]
    return [
        measure(name, write, folder / file, count, rounds=ROUNDS if name == cases[0][0] else 1)
        for name, write, file, count in cases
    ]


def measure(
    name: str, write: Callable[..., object], path: Path, rows: int, *, rounds: int
) -> dict[str, Any]:
    """One format: the first sync, the bare COPY of what it landed, and the sync again.

    Each round has a database of its own; of several rounds each figure is the median.
    """
    write(path, rows=rows, asins=ASINS, queries=QUERIES, seed=SEED, weeks=WEEKS)
    measured = [one_round(path) for _ in range(rounds)]
    return {"format": name} | {
        figure: median(each[figure] for each in measured) for figure in measured[0]
    }


def one_round(path: Path) -> dict[str, float]:
    """The figures of one round."""
    with fresh_database():
        first = sync_once(path)
        bare = bare_copy(path.parent / "rows.bin")
        second = sync_once(path)
    assert second["records"] == {"unchanged": first["records"]["inserted"]}, second
    return {
        "rows": first["records"]["inserted"],
        "parse_s": first["parse"],
        "land_s": first["land"],
        "bare_copy_s": bare,
        "rows_per_s_of_bare": bare / first["seconds"],
        "second_of_first": second["seconds"] / first["seconds"],
        "peak_mb": max(first["peak_mb"], second["peak_mb"]),
    }


def sync_once(path: Path) -> dict[str, Any]:
    """Parse and land a file in a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sync_once", str(path)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return dict(json.loads(done.stdout))


def bare_copy(dump: Path, sessions: int = 1) -> float:
    """Seconds of a binary COPY of what lies in `landing.sqp_asin` into a table just like it.

    Args:
        sessions: so many copy at the same time, each its part of the rows.
    """
    dumps = [dump.with_suffix(f".{session}") for session in range(sessions)]
    with connect(autocommit=True) as connection:
        for session, part in enumerate(dumps):
            statement = DELIVERED_ORDER.format(sessions=sessions, session=session)
            with (
                part.open("wb") as file,
                connection.cursor() as cursor,
                cursor.copy(statement.encode()) as copy,
            ):
                file.writelines(copy)
        connection.execute(BARE_TABLE)
        connection.execute("checkpoint")
        started = time.perf_counter()
        share_out((part for part in dumps), [_copy_in] * sessions)
        seconds = time.perf_counter() - started
        connection.execute("drop table landing.bench_bare")
        connection.execute("checkpoint")
    for part in dumps:
        part.unlink()
    return seconds


def _copy_in(dump: Path) -> None:
    with (
        connect(autocommit=True) as connection,
        dump.open("rb") as file,
        connection.cursor() as cursor,
        cursor.copy("copy landing.bench_bare from stdin (format binary)") as copy,
    ):
        while block := file.read(1 << 18):
            copy.write(block)
