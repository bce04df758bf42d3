"""From BigQuery into Postgres, against the local engine, which speaks the real protocols.

The client alone reads the same streams and throws the rows away; beside it the whole way into
landing, the same over REST, and a sync in which one week of 52 changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from google.cloud import bigquery

from benchmarks.landing import bare_copy
from benchmarks.server import fresh_database
from flows.settings import get_settings
from flows.sources.bigquery_contract import contract
from flows.sources.flat_table import normalise_heading
from flows.sources.sample import write_flat_parquet
from flows.warehouse.landing import LANES
from tests.bigquery.engine import Engine, running_engine
from tests.bigquery.source_table import NAME

ASINS, QUERIES, WEEKS, SEED = 1_000, 40_000, 52, 1
TABLE = f"warehouse-test.seller.{NAME}"
LONG_AGO = "2000-01-02"


def run(folder: Path, rows: int) -> dict[str, Any]:
    """Measure each way, in processes of their own."""
    with running_engine(str(-(-rows // 4))) as engine:
        before = dict(os.environ)
        os.environ.update(engine.settings() | {"BIGQUERY_RETRY_SECONDS": "600"})
        get_settings.cache_clear()
        try:
            _fill(engine, folder / "bigquery.parquet", rows)
            [[newest]] = engine.sql(f"select max(`Date`) from `{TABLE}`")  # noqa: S608 - ours
            with fresh_database():
                os.environ["BIGQUERY_STORAGE_API"] = "false"
                over_rest = _once("sync", str(newest.date()))
            with fresh_database():
                os.environ["BIGQUERY_STORAGE_API"] = "true"
                alone = _once("alone")
                first = _once("sync", LONG_AGO)
                assert first["rows"] == alone["rows"] == rows, (first, alone)
                bare = {"rows": rows, "seconds": bare_copy(folder / "rows.bin", LANES)}
                engine.sql(
                    f"update `{TABLE}` set `ASIN Impression Count` = 0"  # noqa: S608 - a name of ours
                    f" where `Date` = '{newest}'"
                )
                week = _once("sync", LONG_AGO)
        finally:
            os.environ.clear()
            os.environ.update(before)
            get_settings.cache_clear()
    return {
        "rows": rows,
        "alone": alone,
        "bare": bare,
        "first": first,
        "rest": over_rest,
        "week": week,
    }


def _fill(engine: Engine, path: Path, rows: int) -> None:
    """The flat table of so many rows, a partition each day."""
    write_flat_parquet(path, rows=rows, asins=ASINS, queries=QUERIES, seed=SEED, weeks=WEEKS)
    spaced = {normalise_heading(name): name for name in contract()}
    delivered = path.with_suffix(".spaced")
    with pq.ParquetFile(path) as file:
        names = [spaced[normalise_heading(name)] for name in file.schema_arrow.names]
        writer = None
        for batch in file.iter_batches():
            renamed = batch.rename_columns(names).select(list(contract()))
            writer = writer or pq.ParquetWriter(delivered, renamed.schema)
            writer.write_batch(renamed)
        assert writer is not None
        writer.close()
    config = bigquery.LoadJobConfig(
        source_format="PARQUET", time_partitioning=bigquery.TimePartitioning(field="Date")
    )
    with delivered.open("rb") as file:
        engine.client().load_table_from_file(file, TABLE, job_config=config).result()


def _once(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bigquery_once", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return dict(json.loads(done.stdout))


def lines(results: dict[str, Any]) -> list[str]:
    """The results as Markdown."""
    first, week = results["first"], results["week"]
    alone, bare, landed, rest = (
        results[each]["rows"] / results[each]["seconds"]
        for each in ("alone", "bare", "first", "rest")
    )
    return [
        "## From BigQuery",
        "",
        f"{results['rows']:,} rows of {WEEKS} weeks in the local engine, over HTTP and gRPC, which"
        f" shares the machine's cores; over REST one week, {results['rest']['rows']:,} rows."
        " *Landed* is from the first request for rows to rows in force: read, judged row by row,"
        " compared, copied.",
        "",
        "| what | rows/s | ratio | wished |",
        "|---|---|---|---|",
        f"| the client alone reads the streams | {alone:,.0f} | | |",
        f"| bare binary COPY of them, ready-made, {LANES} at a time | {bare:,.0f}"
        f" | {bare / alone:.2f} of the client | the limit |",
        f"| Storage API → landed | {landed:,.0f} | {landed / alone:.2f} of the client | 0.5 |",
        f"| REST → landed | {rest:,.0f} | {landed / rest:.1f} × by Storage | 10 |",
        "",
        f"A sync in which 1 of {WEEKS} weeks changed, each of its rows, took"
        f" {week['seconds'] + week['compare_s']:.1f} s and read"
        f" **{week['bytes'] / first['table_bytes']:.1%}** of the table's bytes (wished: under 3 %):"
        f" {week['compared_bytes'] / first['table_bytes']:.2%} to count what is there, and once"
        f" the week. The first sync held at most {first['peak_mb']:.0f} MB of memory (wished: under"
        f" 600): {first['compared_mb']:.0f} once it had compared {WEEKS * ASINS:,} slices,"
        f" {first['parsed_mb']:.0f} once it had read; the client alone"
        f" {results['alone']['peak_mb']:.0f} MB.",
        "",
        "The client alone throws away what it reads. The bare COPY is by as many sessions as land"
        " rows, into a table like `landing.sqp_asin` with its unique index, and nothing else runs.",
    ]
