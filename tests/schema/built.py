"""A database with the rows of two tenants in every table, and with everything that dbt builds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from flows.settings import Connection, get_settings
from tests.conftest import cloned_database
from tests.integration.test_dbt_models import Dbt, dbt
from tests.schema.planted import ALPHA, BRAVO, Tenant, plant

__all__ = ["built", "dbt", "manifest"]

SCHEMAS = "('app', 'landing', 'sqp', 'reporting', 'staging', 'intermediate')"


@pytest.fixture(scope="module")
def built(
    server: Connection,
    template: str,
    dbt: Dbt,
) -> Iterator[psycopg.Connection[Any]]:
    """An administrator's connection; what a test changes it takes back."""
    with (
        pytest.MonkeyPatch.context() as patch,
        cloned_database(server, template, f"wh_built_{os.getpid()}", patch) as database,
        psycopg.connect(**database.libpq(), autocommit=True) as connection,
    ):
        connection.execute("set time zone 'UTC'")
        guest = Tenant("MARKGUEST").user_id
        connection.execute(
            "insert into app.users (id, email, password_hash, first_name, last_name)"
            " values (%s, 'guest@example.com', 'x', 'g', 'g')",
            (guest,),
        )
        for tenant in (ALPHA, BRAVO):
            plant(connection, tenant, guest)
        dbt("seed")
        dbt("run", "--vars", json.dumps({"trend_weeks": 5200}))  # what is planted is old
        dbt("snapshot")
        yield connection
    get_settings.cache_clear()


def manifest(dbt: Dbt) -> dict[str, Any]:
    """What dbt has read of the project, as its last command wrote it down."""
    read: dict[str, Any] = json.loads((dbt.folder / "manifest.json").read_text())
    return read


def declared(dbt: Dbt) -> dict[str, dict[str, Any]]:
    """Every source, model, seed and snapshot of the manifest, by schema and name."""
    read = manifest(dbt)
    built_kinds = ("model", "seed", "snapshot")
    nodes = [node for node in read["nodes"].values() if node["resource_type"] in built_kinds]
    return {f"{node['schema']}.{node['alias']}": node for node in nodes} | {
        f"{node['schema']}.{node['identifier']}": node for node in read["sources"].values()
    }
