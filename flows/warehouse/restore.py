"""Restores: the embedded server as it was at a point in time, or a dump into a new database.

A point in time is restored beside what is there: a copy of the newest base backup before it
replays the archived log on a private socket, is verified and stopped. Only then may it take the
place of the data in use.
"""

from __future__ import annotations

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
    contents,
    count_rows,
    read_catalogue,
    read_dump,
    run_client,
    step,
)
from flows.warehouse.base_backup import BaseBackup, base_backups, take_base_backup, verify_base
from flows.warehouse.embedded import (
    DATABASE,
    ensure_server,
    as_warehouse_error,
    is_alive,
    log_in,
    log_since,
    read_password,
    read_postmaster,
    reason,
    render_config,
    replace_data,
    run_program,
    stop_places,
    system_identifier,
)
from flows.warehouse.embedded_places import Places, find_places, make_places
from flows.warehouse.env_block import replace_file
from flows.warehouse.migrate import settle_database

APPLICATION = "warehouse restore"
REPLAY_HOURS = 24
HOME = ".warehouse"
LAST_CHANGE = re.compile(r"last completed transaction was at log time ([-0-9:. ]+[-+]\d+)")
ENDED_EARLY = "recovery ended before configured recovery target was reached"


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
        folder = into or live.base / f"restored-{target:%Y%m%dT%H%M%SZ}"
        if folder.exists():
            raise UsageError(
                f"{folder} is there already",
                "a restore makes a folder of its own",
                "delete it or name another with --into",
            )
        home = (folder / HOME).resolve()
        home.mkdir(parents=True)
        for made in (folder, home):
            made.chmod(live.home.stat().st_mode & 0o777 if live.home.exists() else 0o700)
        try:
            copied = _copy(live, base, home)
            _end_log(live)
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
        anew = take_base_backup(get_settings())
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
    with _session(where) as connection:
        contents(path, where)
        made_roles = _make_roles(connection, Path(path.with_suffix(".roles.sql")))
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
            found = _load(where.model_copy(update={"database": database}), path)
            if (found.objects, found.rows) != (dump.objects, dump.rows):
                raise _differs(found, dump.objects, dump.rows)
        except BaseException:
            connection.execute(sql.SQL("drop database {} with (force)").format(name))
            raise
    return RestoredDump(
        path=str(path),
        database=database,
        tables=found.count("TABLE"),
        policies=found.count("POLICY"),
        made_roles=made_roles,
        rows=found.rows,
    )
