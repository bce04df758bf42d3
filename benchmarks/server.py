"""A server of the benchmarks' own, so that they neither use nor disturb the warehouse."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import sql

from flows.settings import get_settings
from flows.warehouse import migrate
from flows.warehouse.connection import connect
from flows.warehouse.embedded import delete_server, ensure_server
from flows.warehouse.policies import ensure_policies


@contextmanager
def own_server() -> Iterator[None]:
    """An embedded server in a folder of its own, or the one that PGHOST names."""
    if get_settings().uses_external_server:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.environ["WAREHOUSE_HOME"] = str(Path(folder) / ".warehouse")
        get_settings.cache_clear()
        ensure_server(get_settings())
        try:
            os.environ.update(_server_environment())
            get_settings.cache_clear()
            yield
        finally:
            for name in _server_environment():
                del os.environ[name]
            get_settings.cache_clear()
            delete_server(get_settings())
            del os.environ["WAREHOUSE_HOME"]
            get_settings.cache_clear()


@contextmanager
def fresh_database(*, protected: bool = True) -> Iterator[None]:
    """A migrated, empty database that settings and subprocesses use within.

    Args:
        protected: with its policies, grants, triggers and partitions.
    """
    name = f"bench_{uuid.uuid4().hex[:8]}"
    before = os.environ["PGDATABASE"]
    _maintain(sql.SQL("create database {}"), name)
    os.environ["PGDATABASE"] = name
    get_settings.cache_clear()
    try:
        migrate.upgrade()
        if protected:
            ensure_policies()
        yield
    finally:
        os.environ["PGDATABASE"] = before
        get_settings.cache_clear()
        _maintain(sql.SQL("drop database {} with (force)"), name)


def _maintain(statement: sql.SQL, name: str) -> None:
    with connect(autocommit=True) as connection:
        connection.execute(statement.format(sql.Identifier(name)))


def _server_environment() -> dict[str, str]:
    connection = get_settings().connection()
    return connection.environment() if connection else {}
