"""The site: all of it on the default sample, and the quality page alone with many checks."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.main_job import sync
from benchmarks.server import fresh_database
from flows.site.build import build_site
from flows.site.pages import Site
from flows.site.quality import write_quality
from flows.site.rows import reading
from flows.sources.sample import write_sample
from flows.warehouse.connection import connect

CHECKS = 10_000
ROUNDS = 5

RUNS = """
insert into sqp.sync_log (
    run_id, sync_type, source_table, target_table, lease_until, sync_status,
    started_at, completed_at, records_processed, records_inserted
)
select
    gen_random_uuid(), 'weekly', 'bench', 'bench', now(), 'completed',
    now() - make_interval(hours => 1 + %(runs)s - number),
    now() - make_interval(hours => 1 + %(runs)s - number) + interval '40 seconds', 30000, 30000
from generate_series(1, %(runs)s) as numbers (number)
order by number
returning id
"""

RESULTS = """
insert into sqp.data_quality_checks (
    sync_log_id, check_type, check_name, check_status, source_value, target_value, difference,
    difference_pct, table_name, check_query, check_message, check_metadata, created_at
)
select
    (%(runs)s::bigint[])[1 + number / %(each)s], 'sum_validation', 'check_' || number %% %(each)s,
    case number %% 50 when 0 then 'failed' when 1 then 'warning' else 'passed' end,
    1000000 + number, 1000000 + number - (number %% 50 < 2)::int, -(number %% 50 < 2)::int,
    0.0001 * (number %% 50 < 2)::int,
    (array['landing.sqp_asin', 'sqp.weekly_summary', 'sqp.monthly_summary'])[
        1 + number %% %(each)s %% 3
    ],
    repeat('select ', 200),
    'the sums differ by at most 0.1 %% between source and target: so for all of 3,700 slices',
    jsonb_build_object(
        'failing', (number %% 50 < 2)::int, 'report_view', 'asin', 'period_type', 'WEEK',
        'failing_slices',
        jsonb_build_array('acme / ATVPDKIKX0DER / WEEK 2026-11-01 / B000000001')
    ),
    now() - make_interval(hours => 1 + cardinality(%(runs)s::bigint[]) - number / %(each)s)
from generate_series(0, %(checks)s - 1) as numbers (number)
"""


def run(folder: Path) -> dict[str, Any]:
    """Seconds of the whole site, and seconds and bytes of the quality page in both shapes."""
    sample = folder / "site-sample"
    write_sample(sample)
    with fresh_database():
        sync(sample)
        before = os.times()
        report = build_site(folder / "site")
        after = os.times()
        shapes = {"of one run": 1, "of 40 runs": 40}
        return {
            "site_s": report.seconds,
            "cpu_s": sum(after[:4]) - sum(before[:4]),
            "pages": report.pages,
            "quality": {shape: quality(folder, runs) for shape, runs in shapes.items()},
        }


def quality(folder: Path, runs: int) -> dict[str, Any]:
    """The quality page of so many checks that belong to so many runs, from row to file."""
    with connect(autocommit=True) as connection:
        connection.execute("truncate sqp.data_quality_checks")
        plant(connection, runs)
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with reading() as session:
            page, _ = write_quality(Site(folder / "quality"), session)
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds), "bytes": page.stat().st_size}


def plant(connection: psycopg.Connection[Any], runs: int) -> None:
    """Write the runs and their checks, one in 25 of which does not pass."""
    ids = [row[0] for row in connection.execute(RUNS, {"runs": runs}).fetchall()]
    connection.execute(RESULTS, {"runs": ids, "checks": CHECKS, "each": CHECKS // runs})


def lines(results: dict[str, Any]) -> list[str]:
    """The site as a Markdown section."""
    return [
        "## The site",
        "",
        f"All {results['pages']} pages on the default sample, dbt's included, with nothing parsed"
        f" before: **{results['site_s']:.1f} s**, {results['cpu_s']:.1f} s of it at work on a"
        " processor (at most 30 are allowed).",
        "",
        f"The quality page of {CHECKS:,} checks, read, judged and written: the median of {ROUNDS}"
        " rounds in a running process. At most 2 s and 2 MB are allowed.",
        "",
        "| checks | s | MB |",
        "|---|---|---|",
        *(
            f"| {CHECKS:,} {shape} | {each['seconds']:.2f} | {each['bytes'] / 1e6:.2f} |"
            for shape, each in results["quality"].items()
        ),
    ]
