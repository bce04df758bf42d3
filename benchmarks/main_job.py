"""The main job on the default sample, step by step, and what each tool's start-up costs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.server import fresh_database
from flows.sources.sample import write_sample

IMPORTS = {
    "dbt": "from dbt.cli.main import dbtRunner",
    "Great Expectations": "import great_expectations",
    "Prefect": "import prefect",
    "pyarrow": "import pyarrow",
}


def run(folder: Path) -> dict[str, Any]:
    """Sync the default sample twice in fresh processes; seconds by step, and the whole."""
    sample = folder / "sample"
    write_sample(sample)
    with fresh_database():
        first = sync(sample)
        second = sync(sample)
    return {"first": first, "second": second, "imports": import_seconds()}


def sync(sample: Path) -> dict[str, Any]:
    """One `warehouse sync-sqp` in a process of its own."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "sync-sqp", str(sample), "--json"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    whole = time.perf_counter() - started
    report = json.loads(done.stdout)
    return {
        "seconds": whole,
        "steps": report["seconds"],
        "start-up": whole - sum(report["seconds"].values()),
        "something_new": report["something_new"],
        "records": sum(row["processed"] for row in report["records"]),
    }


def import_seconds() -> dict[str, float]:
    """What importing each tool costs a process, over that of Python itself."""
    bare = _seconds("pass")
    return {name: _seconds(statement) - bare for name, statement in IMPORTS.items()}


def _seconds(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started
