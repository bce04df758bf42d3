"""A warehouse with two tenants beside Amazon's local servers, shared by the tests of a module."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg import sql
from psycopg.rows import dict_row
from pydantic import SecretStr

from flows.clients.lwa import TokenSet
from flows.settings import Connection, get_settings
from flows.warehouse.amazon_connections import store_connection
from flows.warehouse.connection import connect
from flows.warehouse.secrets import SecretBox
from tests.apis.amazon import CANARY, Amazon, amazon
from tests.apis.worlds import fill
from tests.conftest import cloned_database

QUICK = {
    "attempts": 2,
    "first_wait": 0.01,
    "longest_wait": 0.02,
    "request_seconds": 0.5,
    "sync_seconds": 5,
    "token_seconds": 2,
    "shortest_retry_after": 0.05,
    "longest_retry_after": 600,
    "body_bytes": 2_000_000,
    "circuit_failures": 50,
}
TABLES = (
    "app.account_sync_history, app.dsp_seats, app.dsp_seats_history, app.dsp_seats_sync_log,"
    " app.amc_instances, app.amc_accounts, app.user_accounts, app.oauth_tokens,"
    " app.rate_limit_tracking, app.audit_logs, sqp.data_quality_checks"
)
TIMES = {
    "created_at",
    "updated_at",
    "connected_at",
    "first_seen_at",
    "last_seen_at",
    "removed_at",
    "observed_at",
    "last_synced_at",
    "last_sync_attempt_at",
    "last_sync_change_at",
    "next_sync_at",
    "sync_log_id",
    "connection_id",
    "user_account_id",
    "kept_account_id",
    "account_id",
}
"""What differs between two runs that say the same; ids follow from the rows that they name."""


@dataclass
class Shop:
    """The database, as its administrator, and Amazon."""

    database: Connection
    session: psycopg.Connection[Any]
    amazon: Amazon
    anna: UUID
    bert: UUID

    def reset(self) -> None:
        """Nothing connected, nothing synced; Amazon as it is."""
        self.session.execute(f"truncate {TABLES} cascade")
        self.amazon.heal()
        self.amazon.login.rotates = self.amazon.login.omits = False
        self.amazon.login.lifetime = 3600
        fill(self.amazon.world)

    def connect(
        self, email: str = "anna@example.com", name: str = "agency", *, good: bool = True
    ) -> UUID:
        """A connection of a tenant; one that is not `good` has an access token that has ended."""
        login = self.amazon.login
        access = login.access() if good else f"Atza|{CANARY}old"
        tokens = TokenSet(
            SecretStr(access), SecretStr(login.grant()), "bearer", get_now(3600 if good else -60)
        )
        with connect(autocommit=True, role="etl") as session:
            return store_connection(
                session, SecretBox.from_settings(), email=email, name=name, tokens=tokens
            )

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        with self.session.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query, values).fetchall()

    def one(self, query: str, *values: object) -> dict[str, Any]:
        (row,) = self.rows(query, *values)
        return row

    def contents(self, *tables: str) -> dict[str, list[str]]:
        """What tables say, without what tells one run from another."""
        found = {}
        for table in tables:
            rows = self.rows(f"select * from {table}")
            found[table] = sorted(
                repr({name: row[name] for name in row if name not in TIMES | {"id"}})
                for row in rows
            )
        return found

    def leaks(self) -> list[str]:
        """Every table that shows a canary; sealed columns do not, and so are looked at as well."""
        tables = self.rows(
            "select schemaname, tablename from pg_tables where schemaname in"
            " ('app', 'sqp', 'landing', 'reporting')"
        )
        return [
            f"{table['schemaname']}.{table['tablename']}"
            for table in tables
            if self.session.execute(
                sql.SQL("select from {} as held where held::text like %s limit 1").format(
                    sql.Identifier(table["schemaname"], table["tablename"])
                ),
                (f"%{CANARY}%",),
            ).fetchone()
        ]


def files_with_canary(*folders: Path) -> list[str]:
    """Every file below the folders that shows a canary: logs, artifacts, Prefect's database."""
    return [
        str(path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and CANARY.encode() in path.read_bytes()
    ]


def get_now(seconds: float = 0) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def open_shop(
    server: Connection, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """The one database and the servers of a module."""
    home: Path = tmp_path_factory.mktemp("shop")
    with amazon() as servers, pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAREHOUSE_HOME", str(home / ".warehouse"))
        patch.setenv("WAREHOUSE_SECRET_KEYS", Fernet.generate_key().decode())
        patch.setenv("AMAZON_PATIENCE", json.dumps(QUICK))
        for variable, value in servers.environment().items():
            patch.setenv(variable, value)
        with (
            cloned_database(server, template, f"wh_shop_{os.getpid()}", patch) as database,
            psycopg.connect(**database.libpq(), autocommit=True) as session,
        ):
            session.execute("set time zone 'UTC'")
            anna, bert = (
                session.execute(
                    "insert into app.users (email, password_hash, first_name, last_name)"
                    " values (%s, 'x', 'A', 'B') returning id",
                    (f"{who}@example.com",),
                ).fetchone()[0]  # type: ignore[index]
                for who in ("anna", "bert")
            )
            yield Shop(database, session, servers, anna, bert)
    get_settings.cache_clear()


@pytest.fixture
def shop(open_shop: Shop) -> Iterator[Shop]:
    """The shop as it opens; afterwards nothing secret may be anywhere."""
    open_shop.reset()
    yield open_shop
    assert open_shop.leaks() == []
    assert open_shop.amazon.violations() == []
