"""Connections to the warehouse's Postgres: one place that logs in."""

from __future__ import annotations

from typing import Any, Literal

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from flows.errors import WarehouseError
from flows.settings import Connection, get_settings

Role = Literal["etl", "dbt"]


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


def connect(
    *, autocommit: bool = False, application: str = "warehouse", role: Role | None = None
) -> psycopg.Connection:
    """Log in; times are UTC, and the server ends our statement when we are gone.

    Args:
        role: the role of least privilege to work in, for as long as the connection lives; without
            one the login itself works, which only migrations, status and repairs need.

    Raises:
        WarehouseError: the login is refused, or may not take the role.
    """
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
    if role:
        take_role(connection, role)
    connection.autocommit = autocommit
    return connection


def take_role(connection: psycopg.Connection[Any], role: Role) -> None:
    """Work in a role of least privilege from here on; the connection must be in autocommit.

    Raises:
        WarehouseError: the login is not a member of the role; the connection is closed.
    """
    try:
        connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    except psycopg.Error as error:
        connection.close()
        login = current_connection().user
        raise WarehouseError(
            f"{login} may not work as the role {role}",
            str(error).strip().splitlines()[0],
            f"run `warehouse up`, or let an administrator run: grant {role} to {login}",
        ) from error


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
