"""What the tests of BigQuery share: one engine a module, and a warehouse that reads from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from flows.settings import Connection, get_settings
from flows.warehouse.connection import connect
from tests.bigquery.engine import Engine, engine_or_skip
from tests.bigquery.source_table import create

SMALL_STREAMS = "40"
"""Rows from which on the engine offers another stream."""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The local engine that stands in for BigQuery; skips where it cannot be had."""
    with engine_or_skip(SMALL_STREAMS) as running:
        yield running


@pytest.fixture
def warehouse(
    engine: Engine, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg.Connection[Any]]:
    """A warehouse whose settings name the engine, beside an empty source table."""
    for name, value in engine.settings().items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    create(engine)
    engine.faults()
    with connect(autocommit=True) as connection:
        yield connection
