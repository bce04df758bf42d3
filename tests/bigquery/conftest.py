"""What the tests of BigQuery share: one engine a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bigquery.engine import Engine, engine_or_skip

SMALL_STREAMS = "40"
"""Rows from which on the engine offers another stream."""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The local engine that stands in for BigQuery; skips where it cannot be had."""
    with engine_or_skip(SMALL_STREAMS) as running:
        yield running
