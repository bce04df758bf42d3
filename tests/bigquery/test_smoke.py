"""A smoke test on a real project, for whoever has one: `BIGQUERY_SMOKE_PROJECT=…`.

Makes a dataset of its own, and drops it again. Reads a few kilobytes.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
from google.cloud import bigquery

from flows.settings import Connection, get_settings
from flows.sources.bigquery_client import connect_bigquery
from tests.bigquery import source_table
from tests.bigquery.source_table import NAME, extract, rows_of
from tests.integration.deliveries import asin

PROJECT = os.environ.get("BIGQUERY_SMOKE_PROJECT")

pytestmark = pytest.mark.skipif(
    not PROJECT, reason="opt in: BIGQUERY_SMOKE_PROJECT names no project to try BigQuery itself on"
)


class RealBigQuery:
    """The real service, used by the tests' helpers as they use the local engine."""

    def __init__(self, client: bigquery.Client) -> None:
        self._client = client

    def sql(self, statement: str) -> list[bigquery.Row]:
        return list(self._client.query_and_wait(statement))


@pytest.fixture
def dataset(database: Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = f"warehouse_smoke_{uuid.uuid4().hex[:8]}"
    for key, value in {
        "BIGQUERY_PROJECT": PROJECT or "",
        "BIGQUERY_DATASET": name,
        "BIGQUERY_MARKETPLACE": "US",
    }.items():
        monkeypatch.setenv(key, value)
    get_settings.cache_clear()
    client = connect_bigquery(get_settings()).rest
    made = bigquery.Dataset(f"{PROJECT}.{name}")
    made.default_table_expiration_ms = int(timedelta(hours=2).total_seconds() * 1000)
    client.create_dataset(made)
    yield name
    client.delete_dataset(made, delete_contents=True)


@pytest.mark.parametrize("partition_by", [None, "`Date`"], ids=["whole", "by_day"])
@pytest.mark.parametrize("storage", ["true", "false"])
def test_bigquery_itself_gives_what_the_local_engine_gives(
    dataset: str, storage: str, partition_by: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_STORAGE_API", storage)
    get_settings.cache_clear()
    monkeypatch.setattr(source_table, "TABLE", f"`{PROJECT}.{dataset}.{NAME}`")
    real = RealBigQuery(connect_bigquery(get_settings()).rest)
    source_table.create(real, partition_by=partition_by)  # type: ignore[arg-type]
    source_table.insert(real, rows_of(asin(1), 0, 5))  # type: ignore[arg-type]
    first = extract()
    assert first.tally.records["inserted"] == 5
    assert first.metadata["read_through"] == ("storage" if storage == "true" else "rest")
    source_table.change(  # type: ignore[arg-type]
        real, "update {table} set `ASIN Impression Count` = 1 where `Search Query` = 'query 1'"
    )
    second = extract()
    assert second.tally.records == {"updated": 1, "unchanged": 4}
    assert second.metadata.get("weeks_written_to") == (1 if partition_by else None)
