"""Connections to the warehouse's Postgres: one place that logs in."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from flows.errors import WarehouseError
from flows.settings import Connection, get_settings


def current_connection() -> Connection:
    """The server of this process; raises `WarehouseError` while none is up."""
    connection = get_settings().connection()
    if connection is None:
        raise WarehouseError(
            "no warehouse is up",
            "PGHOST is not set and the embedded server has not been started",
            "run `make up`, or set PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE",
        )
    return connection


def connect(*, autocommit: bool = False, application: str = "warehouse") -> psycopg.Connection:
    """Log in; times are UTC, and the server ends our statement when we are gone."""
    where = current_connection()
    try:
        connection = psycopg.connect(
            make_conninfo(**where.libpq(), application_name=application, connect_timeout="10"),
            autocommit=True,
        )
    except psycopg.OperationalError as error:
        raise WarehouseError(
            f"cannot log in to Postgres at {where.host}:{where.port}",
            str(error).strip().splitlines()[-1],
            "run `make up` for the embedded server, or check PGHOST and friends",
        ) from error
    connection.execute("set time zone 'UTC'")
    connection.execute("set client_connection_check_interval = '1s'")
    connection.autocommit = autocommit
    return connection


def sqlalchemy_url() -> URL:
    """The same server for SQLAlchemy (Alembic, Great Expectations)."""
    where = current_connection()
    return URL.create(
        "postgresql+psycopg",
        username=where.user,
        password=where.password.get_secret_value() or None,
        host=None if where.is_socket else where.host,
        port=None if where.is_socket else where.port,
        database=where.database,
        query={"host": where.host, "port": str(where.port)} if where.is_socket else {},
    )
