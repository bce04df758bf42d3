"""From BigQuery into Postgres, against the local engine, which speaks the real protocols.

The client alone reads the same streams and throws the rows away; beside it the whole way into
landing, the same over REST, and a sync in which one week of 52 changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from google.cloud import bigquery

from benchmarks.server import fresh_database
from flows.settings import get_settings
from flows.sources.bigquery_client import connect_bigquery
from flows.sources.bigquery_contract import contract
from flows.sources.bigquery_rows import Restriction, open_rows
from flows.sources.flat_table import normalise_heading
from flows.sources.sample import write_flat_parquet
from tests.bigquery.engine import Engine, running_engine
from tests.bigquery.source_table import NAME

ASINS, QUERIES, WEEKS, SEED = 500, 20_000, 52, 1
TABLE = f"warehouse-test.seller.{NAME}"


def run(folder: Path, rows: int) -> dict[str, Any]:
    """Measure each way; REST, far slower, gets a twentieth of the rows."""
    with running_engine("100000") as engine:
        before = dict(os.environ)
        os.environ.update(engine.settings() | {"BIGQUERY_RETRY_SECONDS": "600"})
        get_settings.cache_clear()
        try:
            over_rest = _one(engine, folder, rows // 20, storage=False)
            return {"rows": rows, "rest": over_rest} | _one(engine, folder, rows, storage=True)
        finally:
            os.environ.clear()
            os.environ.update(before)
            get_settings.cache_clear()


def _one(engine: Engine, folder: Path, rows: int, *, storage: bool) -> dict[str, Any]:
    os.environ["BIGQUERY_STORAGE_API"] = str(storage).lower()
    get_settings.cache_clear()
    _fill(engine, folder / "bigquery.parquet", rows)
    with fresh_database():
        alone = _client_alone(rows)
        first = _sync()
        assert first["rows"] == rows, first
        if not storage:
            return first | {"alone_s": alone}
        engine.sql(
            f"update `{TABLE}` set `ASIN Impression Count` = 0"  # noqa: S608 - a name of ours
            f" where `Date` = (select max(`Date`) from `{TABLE}`)"
        )
        second = _sync()
        return {"alone_s": alone, "first": first, "one_week": second}


def _fill(engine: Engine, path: Path, rows: int) -> None:
    """The flat table of so many rows, in place of what was there."""
    write_flat_parquet(path, rows=rows, asins=ASINS, queries=QUERIES, seed=SEED, weeks=WEEKS)
    table = pq.read_table(path)
    spaced = {normalise_heading(name): name for name in contract()}
    table = table.rename_columns([spaced[normalise_heading(name)] for name in table.column_names])
    pq.write_table(table.select(list(contract())), path)
    client = engine.client()
    config = bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_TRUNCATE")
    client.delete_table(TABLE, not_found_ok=True)
    with path.open("rb") as file:
        client.load_table_from_file(file, TABLE, job_config=config).result()


def _client_alone(rows: int) -> float:
    """Seconds to read every row and do nothing with it."""
    from datetime import date

    class Everything(Restriction):
        def sql(self) -> str:
            return "true"

    client = connect_bigquery(get_settings())
    started = time.perf_counter()
    for _ in open_rows(
        client,
        Everything("DATE", {date(2020, 1, 5): None}),
        list(contract()),
        expected_rows=rows,
        as_of=None,
        metadata={},
    ):
        pass
    return time.perf_counter() - started


def _sync() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bigquery_once"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return dict(json.loads(done.stdout))


def lines(results: dict[str, Any]) -> list[str]:
    """The results as Markdown."""
    first, rest, week = results["first"], results["rest"], results["one_week"]
    rows = results["rows"]
    alone, landed = rows / results["alone_s"], rows / first["land_s"]
    rest_landed = rest["rows"] / rest["land_s"]
    return [
        "## From BigQuery",
        "",
        f"{rows:,} rows of {WEEKS} weeks in the local engine, over HTTP and gRPC; over REST a"
        " twentieth of them. *Landed* is from the first request for rows to rows in force: read,"
        " judged row by row, compared, copied.",
        "",
        "| what | rows/s | ratio | wished |",
        "|---|---|---|---|",
        f"| the client alone reads the streams | {alone:,.0f} | | |",
        f"| Storage API → landed | {landed:,.0f} | {landed / alone:.2f} of the client | 0.5 |",
        f"| REST → landed | {rest_landed:,.0f} | {landed / rest_landed:.1f} × by Storage | 10 |",
        "",
        f"A sync in which 1 of {WEEKS} weeks changed read **{week['bytes'] / first['bytes']:.1%}**"
        f" of the table's bytes (wished: under 3 %) after {week['compare_s']:.1f} s of comparing;"
        f" the first held at most {first['peak_mb']:.0f} MB of memory (wished: under 600).",
    ]
