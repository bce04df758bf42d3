"""Restores: the embedded server as it was at a point in time, or a dump into a new database.

A point in time is restored beside what is there: a copy of the newest base backup before it
replays the archived log on a private socket, is verified and stopped. Only then may it take the
place of the data in use.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from flows.errors import UsageError, WarehouseError
from flows.settings import Connection, Settings, get_settings
from flows.warehouse.backup import (
    Catalogue,
    Dump,
    contents,
    count_rows,
    make_passable,
    read_catalogue,
    read_dump,
    run_client,
    step,
)
from flows.warehouse.base_backup import (
    BaseBackup,
    base_backups,
    end_log,
    take_base_backup,
    verify_base,
)
from flows.warehouse.connection import connect
from flows.warehouse.embedded import (
    DATABASE,
    as_warehouse_error,
    ensure_server,
    is_alive,
    log_in,
    log_since,
    read_password,
    read_postmaster,
    reason,
    render_config,
    replace_data,
    run_program,
    server_status,
    stop_places,
    system_identifier,
)
from flows.warehouse.embedded_places import Places, find_places, give, make_places
from flows.warehouse.env_block import replace_file
from flows.warehouse.migrate import settle_database

APPLICATION = "warehouse restore"
REPLAY_SECONDS = 24 * 3600
SOCKET_NUMBER = 5432
"""Of the private socket; no TCP port is opened."""
HOME = ".warehouse"
LAST_CHANGE = re.compile(r"last completed transaction was at log time ([-0-9:. ]+[-+]\d+)")
ENDED_EARLY = "recovery ended before configured recovery target was reached"
STOPPED = "recovery stopping"
ROLE = r'("(?:[^"]|"")+"|[^ ;"]+)'
CREATE_ROLE = re.compile(rf"CREATE ROLE {ROLE};$")
GRANTED_BY = re.compile(rf" GRANTED BY {ROLE}")
DANGLING = """
select 'the policy ' || policies.polname
from pg_catalog.pg_policy as policies
cross join unnest(policies.polroles) as wanted (role_oid)
where
    wanted.role_oid <> 0
    and not exists (select from pg_catalog.pg_roles as roles where roles.oid = wanted.role_oid)
union all
select 'the table ' || tables.relname
from pg_catalog.pg_class as tables
where not exists (select from pg_catalog.pg_roles as roles where roles.oid = tables.relowner)
"""


@dataclass(frozen=True)
class PointInTime:
    """A point in time that has been restored.

    Attributes:
        target: what was asked for: no change after it is in.
        last_change: when the last transaction that is in was committed; None if none is.
        home: the folder to name in WAREHOUSE_HOME; None if the data took the place of the old.
        old_data: where the data that was replaced is now.
        rows: per table of the database `warehouse`.
    """

    target: datetime
    last_change: datetime | None
    base_backup: str
    home: str | None
    old_data: str | None
    new_base_backup: str | None
    tables: int
    policies: int
    roles: int
    rows: dict[str, int]


@dataclass(frozen=True)
class RestoredDump:
    """A dump that is now a database of its own."""

    path: str
    database: str
    tables: int
    policies: int
    made_roles: tuple[str, ...]
    rows: dict[str, int]


def parse_time(text: str) -> datetime:
    """A time with its zone, such as `2026-11-24 10:00:00+00`.

    Raises:
        UsageError: it is no time, has no zone or lies in the future.
    """
    example = "write it as '2026-11-24 10:00:00+00'"
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a time", str(error), example) from None
    if found.tzinfo is None:
        raise UsageError(f"{text!r} could be any zone's time", "it has no zone", example)
    if found > datetime.now(UTC):
        raise UsageError(f"{text} is in the future", "nothing is known of it", example)
    return found.astimezone(UTC)


def restore_to(
    settings: Settings, target: datetime, into: Path | None = None, *, in_place: bool = False
) -> PointInTime:
    """Restore the embedded server as it was at `target`, into a new folder.

    Args:
        into: the folder to make; else one beside the data, named after the time.
        in_place: let the restored data take the place of the data in use, which is kept, and
            begin anew with a base backup.

    Raises:
        UsageError: the server is the user's own, or the folder is there already.
        WarehouseError: the time is before the first base backup or after the end of the log, a
            backup is damaged, or what was restored is not sound.
    """
    if settings.uses_external_server:
        raise UsageError(
            "a point in time is restored for the embedded server",
            "PGHOST names a server of your own",
            "docs/runbooks/real-server.md says how pgBackRest restores that",
        )
    with as_warehouse_error("the restore cannot be written"):
        live = find_places(settings.warehouse_home)
        base = newest_base(live.backups, target)
        name = "replacing" if in_place else "restored"
        folder = into or live.base / f"{name}-{target:%Y%m%dT%H%M%SZ}"
        if folder.exists():
            raise UsageError(
                f"{folder} is there already",
                "a restore makes a folder of its own",
                "delete it or name another with --into",
            )
        home = (folder / HOME).resolve()
        make_passable(folder)
        make_passable(home)
        try:
            copied = _copy(live, base, home)
            _end_log(settings, live)
            found = _replay(copied, live, base, target)
        except BaseException:
            _clear_away(home, folder)
            raise
        if not in_place:
            return replace(found, home=str(home))
        old = replace_data(settings, copied)
        _clear_away(home, folder)
        _archive_history(find_places(settings.warehouse_home), base)
        ensure_server(settings)
        try:
            anew = take_base_backup(get_settings())
        except WarehouseError as error:
            raise WarehouseError(
                f"the data is now that of {target}, but there is no new base backup",
                f"{error.what}: {error.why}",
                f"`warehouse backup --base`; the data before is in {old}",
            ) from error
    return replace(found, old_data=str(old), new_base_backup=anew.path)


def newest_base(backups: Path, target: datetime) -> BaseBackup:
    """The base backup to begin from.

    Raises:
        WarehouseError: there is none that was finished by then.
    """
    found = base_backups(backups)
    if not found:
        raise WarehouseError(
            "there is no base backup to restore from",
            f"none is in {backups}",
            "`warehouse backup --base` makes one; times after it can be restored",
        )
    before = [backup for backup in found if backup.finished_at <= target]
    if not before:
        raise WarehouseError(
            f"{target} is before the first base backup",
            f"that one was finished at {found[0].finished_at}",
            "name a later time, or restore a dump: warehouse restore --dump FILE",
        )
    return before[-1]


def restore_dump(settings: Settings, path: Path, database: str) -> RestoredDump:
    """Restore a dump into a new database of the server in use, all or nothing.

    Roles that the server lacks are made, without passwords.

    Raises:
        UsageError: the database is there already.
        WarehouseError: the dump is damaged or does not restore, or what was restored differs
            from what was dumped; the new database is gone then.
    """
    with step("verify"):
        dump = read_dump(path)
    where = ensure_server(settings)
    contents(path, where)
    try:
        with connect(autocommit=True, application=APPLICATION) as connection:
            made_roles = _make_roles(connection, path.with_suffix(".roles.sql"))
            found, rows = _into_new_database(connection, where, database, dump)
    except psycopg.Error as error:
        raise WarehouseError(
            "the dump cannot be restored",
            str(error).strip().splitlines()[0],
            "the login must be a superuser, or own what it restores; no new database was left",
        ) from error
    return RestoredDump(
        path=str(path),
        database=database,
        tables=found.count("TABLE"),
        policies=found.count("POLICY"),
        made_roles=made_roles,
        rows=rows,
    )


def _into_new_database(
    connection: psycopg.Connection[Any], where: Connection, database: str, dump: Dump
) -> tuple[Catalogue, dict[str, int]]:
    name = sql.Identifier(database)
    try:
        connection.execute(
            sql.SQL("create database {} template template0 encoding 'utf8'").format(name)
        )
    except errors.DuplicateDatabase:
        raise UsageError(
            f"there is a database {database} already",
            "a dump is restored into a new one",
            "name another with --into-database",
        ) from None
    try:
        found, rows = _load(where.model_copy(update={"database": database}), Path(dump.path))
        is_there = {*found.objects, *rows.items()}
        if differing := sorted(is_there ^ {*dump.objects, *dump.rows.items()}, key=str):
            raise WarehouseError(
                f"the restored database differs from what was dumped into {dump.path}",
                f"{len(differing)} differences, the first: {differing[0]}",
                "the new database has been dropped; use another day's dump",
            )
    except BaseException:
        connection.execute(sql.SQL("drop database {} with (force)").format(name))
        raise
    return found, rows


def _copy(live: Places, base: BaseBackup, home: Path) -> Places:
    """Copy the base backup into a home of its own, and see that the copy is whole."""
    places = replace(make_places(home), port=SOCKET_NUMBER)
    with step("copy"):
        shutil.copytree(base.folder, places.data, symlinks=True)
        for path in (places.data, *places.data.rglob("*")):
            give(path, places.account)
    replace_file(places.password, base.password.read_bytes())
    with step("verify"):
        verify_base(live, base, places.data)
    return places


def _end_log(settings: Settings, live: Places) -> None:
    """Let a running server close its log with a commit after the target, which replay looks for."""
    with contextlib.suppress(WarehouseError, psycopg.Error):  # it may be what must be replaced
        if server_status(settings).running:
            with log_in(live, str(live.sockets)) as connection:
                end_log(connection)


def _replay(places: Places, live: Places, base: BaseBackup, target: datetime) -> PointInTime:
    """Start the copy on its private socket, replay up to the target, verify it, and stop it."""
    config = render_config(places) + _recovery_settings(live, base, target)
    replace_file(places.config, config.encode(), places.account)
    signal = places.data / "recovery.signal"
    signal.touch()
    give(signal, places.account)
    log_size = places.log.stat().st_size if places.log.exists() else 0
    with step("replay"):
        run_program(
            places,
            "pg_ctl",
            "start",
            f"--pgdata={places.data}",
            f"--log={places.log}",
            "--options=-c listen_addresses= -c archive_mode=off",
            "--wait",
            f"--timeout={REPLAY_SECONDS}",
            folder=places.base,
        )
        while _in_recovery(places):
            time.sleep(0.2)
    said = log_since(places, log_size)
    postmaster = read_postmaster(places)
    if STOPPED not in said or postmaster is None or not is_alive(postmaster, places):
        raise _not_reached(said, base, target)
    found = _examine(places, said, base, target)
    stop_places(places)
    with step("checksums"):
        checked = run_program(
            places, "pg_checksums", "--check", f"--pgdata={places.data}", folder=places.base
        )
    if checked.returncode != 0:
        raise _unsound(base, reason(checked.stderr))
    return found


def _recovery_settings(live: Places, base: BaseBackup, target: datetime) -> str:
    """How the copy finds the log: in the archive, then where the server has not archived it yet.

    The timeline is that of the base backup: each change of timeline begins with a new one.
    """
    sources = [base.archive]
    with contextlib.suppress(FileNotFoundError):
        if system_identifier(live.data) == base.folder.parent.name:
            sources.append(live.data / "pg_wal")
    folders = [str(folder).replace("%", "%%") for folder in sources]
    command = " || ".join(f'cp "{folder}/%f" "%p"' for folder in folders)
    return (
        f"restore_command = '{command}'\n"
        f"recovery_target_time = '{target.isoformat(sep=' ')}'\n"
        "recovery_target_timeline = 'current'\n"
        "recovery_target_action = 'promote'\n"
    )


def _in_recovery(places: Places) -> bool:
    postmaster = read_postmaster(places)
    if postmaster is None or not is_alive(postmaster, places):
        return False
    try:
        with log_in(places, str(places.sockets)) as connection:
            found = connection.execute("select pg_is_in_recovery()").fetchone()
    except psycopg.OperationalError:
        return True
    return found == (True,)


def _not_reached(said: str, base: BaseBackup, target: datetime) -> WarehouseError:
    if ENDED_EARLY in said:
        last_change = _last_change(said)
        return WarehouseError(
            f"the log does not reach {target}",
            f"its last change is of {last_change or base.finished_at},"
            f" the next piece is not in {base.archive}",
            "name an earlier time; if pieces of the log are kept elsewhere, copy them there",
        )
    return WarehouseError(
        f"the log cannot be replayed up to {target}",
        reason(said) or "the server said nothing",
        f"try an earlier time; the base backup was {base.folder.name}",
    )


def _examine(places: Places, said: str, base: BaseBackup, target: datetime) -> PointInTime:
    """Look at every table and index of the running copy, and count what is there."""
    sockets = str(places.sockets)
    with log_in(places, sockets) as connection:
        databases = [
            name
            for (name,) in connection.execute(
                "select datname from pg_catalog.pg_database"
                " where datallowconn and not datistemplate"
            )
        ]
        (roles,) = connection.execute(
            "select count(*) from pg_catalog.pg_roles where rolname !~ '^pg_'"
        ).fetchone() or (0,)
    with step("check"):
        for database in databases:
            _check_structure(places, base, database)
    with step("count"), log_in(places, sockets, DATABASE) as connection:
        if dangling := connection.execute(DANGLING).fetchall():
            raise _unsound(base, f"{dangling[0][0]} is there without its role")
        catalogue = read_catalogue(connection)
        rows = count_rows(connection, catalogue)
    return PointInTime(
        target=target,
        last_change=_last_change(said),
        base_backup=base.path,
        home=None,
        old_data=None,
        new_base_backup=None,
        tables=catalogue.count("TABLE"),
        policies=catalogue.count("POLICY"),
        roles=roles,
        rows=rows,
    )


def _check_structure(places: Places, base: BaseBackup, database: str) -> None:
    """Let pg_amcheck read every table and index of a database; leaves nothing in it."""
    with log_in(places, str(places.sockets), database) as connection:
        exists = "select from pg_catalog.pg_extension where extname = 'amcheck'"
        was_there = connection.execute(exists).fetchone() is not None
        checked = run_program(
            places,
            "pg_amcheck",
            "--install-missing",
            "--heapallindexed",
            f"--database={database}",
            f"--host={places.sockets}",
            f"--port={places.port}",
            f"--username={connection.info.user}",
            "--no-password",
            folder=places.base,
            password=read_password(places),
        )
        if not was_there:
            connection.execute("drop extension if exists amcheck")
    if checked.returncode != 0:
        raise _unsound(base, reason(checked.stdout + checked.stderr))


def _unsound(base: BaseBackup, why: str) -> WarehouseError:
    return WarehouseError(
        "what was restored is not sound",
        why,
        f"try an earlier time, or delete {base.path}.json so that the base backup before is used",
    )


def _last_change(said: str) -> datetime | None:
    found = LAST_CHANGE.findall(said)
    return datetime.fromisoformat(found[-1].replace(" UTC", "+00")) if found else None


def _archive_history(places: Places, base: BaseBackup) -> None:
    """Archive the history of the new timeline, so that no later restore takes its number."""
    for path in (places.data / "pg_wal").glob("*.history"):
        copy = base.archive / path.name
        if not copy.exists():
            shutil.copyfile(path, copy)
            copy.chmod(0o600)
            give(copy, places.account)


def _clear_away(home: Path, folder: Path) -> None:
    """Take away a restore that failed, or what is left of one that moved in."""
    if home.exists():
        places = find_places(home)
        with contextlib.suppress(WarehouseError):
            stop_places(places)
        for path in places.owned_paths():
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.rmtree(folder)


def _session(where: Connection) -> psycopg.Connection[Any]:
    return psycopg.connect(
        make_conninfo(**where.libpq(), application_name=APPLICATION, connect_timeout="10"),
        autocommit=True,
    )


def _make_roles(connection: psycopg.Connection[Any], path: Path) -> tuple[str, ...]:
    """Make the roles of the file that the server lacks; none becomes a superuser."""
    have = {name for (name,) in connection.execute("select quote_ident(rolname) from pg_roles")}
    lines = path.read_text(encoding="utf-8").splitlines()
    wanted = [found[1] for line in lines if (found := CREATE_ROLE.match(line))]
    missing = [name for name in wanted if name not in have]
    with connection.transaction():
        for line in lines:
            if any(_is_about(line, name) for name in missing):
                statement = GRANTED_BY.sub("", re.sub(r"\bSUPERUSER\b", "NOSUPERUSER", line))
                connection.execute(statement.encode())
    return tuple(missing)


def _is_about(line: str, role: str) -> bool:
    if line.startswith("GRANT "):
        return line.endswith(f" TO {role};") or f" TO {role} " in line
    return line == f"CREATE ROLE {role};" or line.startswith(f"ALTER ROLE {role} ")


def _load(where: Connection, path: Path) -> tuple[Catalogue, dict[str, int]]:
    """Restore into an empty database in one transaction; what is in it now."""
    with step("restore"):
        run_client(
            "pg_restore",
            where,
            "--single-transaction",
            "--exit-on-error",
            f"--dbname={where.database}",
            path,
        )
    with _session(where) as connection, step("count"):
        connection.execute("analyze")
        catalogue = read_catalogue(connection)
        if "TABLE app alembic_version" in catalogue.objects:
            settle_database(connection)
        return catalogue, count_rows(connection, catalogue)
