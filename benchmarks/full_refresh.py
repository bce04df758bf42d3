"""All months and quarters of a year anew: by dbt on Postgres, and by DuckDB from Parquet.

Both run the SQL that dbt compiled of the one definition. DuckDB reads the same weeks from a Parquet
file and writes tables of the same columns into a file of its own, without an index.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import psycopg

from benchmarks import search_weeks
from benchmarks.dbt_runs import run_dbt
from benchmarks.server import fresh_database
from benchmarks.summaries import NEW_WEEK, SELECTED, count_statements, measured
from flows import console
from flows.warehouse.connection import connect

WEEKS = 52
SUMMARIES = ("monthly_summary", "quarterly_summary")

OF_POSTGRES = {
    "cast(bit_or(": "(bit_or(",
    " as bit(13))": ")",
    "statement_timestamp()": "current_timestamp",
}
"""What DuckDB spells in another way."""

TOTALS = """
select
    count(*), sum(total_clicks), sum(total_click_count), sum(active_weeks), sum(market_weeks),
    sum(search_query_volume), count(asin_median_click_price)
from {}
"""


def run() -> dict[str, Any]:
    """Build a year on Postgres, then in DuckDB, and see that both say the same."""
    with fresh_database(), tempfile.TemporaryDirectory() as name, connect(autocommit=True) as own:
        folder = Path(name)
        count_statements(own)
        search_weeks.prepare(own)
        first_days = search_weeks.weeks_before(NEW_WEEK, WEEKS)
        for number, first_day in enumerate(first_days, start=1):
            search_weeks.deliver_week(own, first_day)
            console.note(f"  week {number} of {WEEKS} delivered")
        run_dbt(folder, "--select", "+weekly_summary")
        of_postgres = measured(own, lambda: run_dbt(folder, *SELECTED, "--threads", "1"))
        with duckdb.connect(str(folder / "weeks.duckdb")) as other:
            _hand_over(own, other, folder)
            told = {}
            for summary in SUMMARIES:
                started = time.perf_counter()
                other.execute(f"create table {summary} as {_in_duckdb(folder, summary)}")
                told[summary] = time.perf_counter() - started
                here = own.execute(TOTALS.format(f"sqp.{summary}")).fetchone()
                there = other.execute(TOTALS.format(summary)).fetchone()
                assert here == there, (summary, here, there)
        return {
            "weeks": WEEKS,
            "postgres_s": of_postgres["sql_s"],
            "duckdb_s": sum(told.values()),
        }


def _hand_over(
    own: psycopg.Connection[Any], other: duckdb.DuckDBPyConnection, folder: Path
) -> None:
    """Write the weeks as Parquet, with their types, for DuckDB to read."""
    text, parquet = folder / "weeks.csv", folder / "weeks.parquet"
    columns = own.execute(
        """
        select attname, format_type(atttypid, atttypmod)
        from pg_attribute
        where attrelid = 'sqp.weekly_summary'::regclass and attnum > 0 and not attisdropped
        order by attnum
        """
    ).fetchall()
    with (
        text.open("wb") as file,
        own.cursor().copy("copy (select * from sqp.weekly_summary) to stdout (format csv)") as rows,
    ):
        for block in rows:
            file.write(block)
    types = {name: "varchar" if kind == "bytea" else kind for name, kind in columns}
    wanted = ", ".join(
        f"unhex(substr({name}, 3)) as {name}" if kind == "bytea" else name for name, kind in columns
    )
    other.execute(
        f"copy (select {wanted} from read_csv(?, header = false, columns = {types}))"  # noqa: S608
        f" to '{parquet}' (format parquet)",
        [str(text)],
    )
    text.unlink()
    other.execute(f"create view weekly_summary as select * from '{parquet}'")  # noqa: S608


def _in_duckdb(folder: Path, summary: str) -> str:
    """The model as dbt compiled it, in DuckDB's words."""
    (file,) = folder.glob(f"compiled/**/{summary}.sql")
    statement = file.read_text(encoding="utf-8")
    for theirs, ours in OF_POSTGRES.items():
        statement = statement.replace(theirs, ours)
    database = statement.split('"."sqp"."weekly_summary"')[0].rsplit('"', 1)[1]
    return statement.replace(f'"{database}"."sqp"."weekly_summary"', "weekly_summary")


def lines(results: dict[str, Any]) -> list[str]:
    """The results as a paragraph of Markdown."""
    return [
        f"All months and quarters of {results['weeks']} weeks anew, by the same SQL: dbt on"
        f" Postgres {results['postgres_s']:.0f} s of statements, logged and with their indexes;"
        f" DuckDB from Parquet {results['duckdb_s']:.1f} s, into tables without an index:"
        f" **{results['postgres_s'] / results['duckdb_s']:.1f} times**. Both say the same.",
    ]
