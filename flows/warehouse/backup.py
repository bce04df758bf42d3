"""Dumps: one file a day that any PostgreSQL can take, and what is needed to prove it complete.

    warehouse_20261124.dump        pg_dump's custom format          …dump.sha256   for sha256sum
    warehouse_20261124.roles.sql   the roles, which no dump holds   …json          what is in it

The rows of each table are counted in the snapshot that the dump is taken in. The JSON file is
written last: a dump without it is not finished.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from flows.errors import Busy, WarehouseError
from flows.progress import progress
from flows.settings import Connection, Settings
from flows.warehouse.connection import connect
from flows.warehouse.embedded import as_warehouse_error, ensure_server, program, reason
from flows.warehouse.embedded_places import find_places
from flows.warehouse.env_block import DRAFT, replace_file

APPLICATION = "warehouse backup"
BACKUP_ROLE = "backup"
LOCK_WAIT_MS = 60_000
COMPRESSION = "gzip:6"

CATALOGUE = """
with relations as (
    select
        tables.oid,
        tables.relkind,
        tables.relrowsecurity,
        tables.relname,
        namespaces.nspname,
        tables.relowner::regrole::text as owner_name
    from pg_catalog.pg_class as tables
    inner join pg_catalog.pg_namespace as namespaces on tables.relnamespace = namespaces.oid
    where
        tables.relkind in ('r', 'p')
        and tables.relpersistence <> 't'
        and namespaces.nspname !~ '^pg_'
        and namespaces.nspname <> 'information_schema'
        and not exists (
            select from pg_catalog.pg_depend as members
            where
                members.classid = 'pg_catalog.pg_class'::regclass
                and members.objid = tables.oid
                and members.deptype = 'e'
        )
)

select 'TABLE' as kind, nspname, relname, relname as tag, relkind = 'r' as holds_rows
from relations
union all
select 'ROW SECURITY', nspname, relname, relname, false
from relations
where relrowsecurity
union all
select 'POLICY', nspname, relname, relname || ' ' || policies.polname, false
from relations
inner join pg_catalog.pg_policy as policies on relations.oid = policies.polrelid
order by kind, nspname, relname, tag
"""


@dataclass(frozen=True)
class Catalogue:
    """What a database consists of, as far as a backup of it is compared.

    Attributes:
        objects: tables, tables under row security and policies, as `TABLE app users`.
        tables: schema and name of those that hold rows themselves.
    """

    objects: tuple[str, ...]
    tables: tuple[tuple[str, str], ...]

    def count(self, kind: str) -> int:
        """How many objects of a kind there are."""
        return sum(name.startswith(f"{kind} ") for name in self.objects)


@dataclass(frozen=True)
class Dump:
    """A finished and verified dump.

    Attributes:
        bytes: size of the dump file.
        rows: per table, `schema.table` to how many.
    """

    path: str
    roles_path: str
    database: str
    server_version: str
    taken_at: datetime
    bytes: int
    sha256: str
    roles_sha256: str
    objects: tuple[str, ...]
    rows: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For machines: without the list of objects."""
        return {name: value for name, value in asdict(self).items() if name != "objects"}


def back_up(settings: Settings, folder: Path | None = None, keep: int | None = None) -> Dump:
    """Dump the database in use into `folder`; a dump of the same day is replaced.

    Args:
        folder: where to; else `backups/dumps` beside the embedded server's data.
        keep: how many dumps of this database stay there; None keeps all.

    Raises:
        WarehouseError: rows would be hidden from the dump, a program failed, or the finished
            file does not hold what the database holds.
        Busy: another backup into the same folder runs.
    """
    where = ensure_server(settings)
    with as_warehouse_error("the backup cannot be written"):
        if folder is None:
            backups = find_places(settings.warehouse_home).backups
            make_passable(backups)
            folder = backups / "dumps"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with only_one(folder):
            try:
                dump = _dump(where, folder)
            except psycopg.Error as error:
                raise WarehouseError(
                    "the database cannot be read for the backup",
                    str(error).strip().splitlines()[0],
                    "nothing that was there has been changed",
                ) from error
            for old in dumps(folder, where.database)[: -keep if keep else 0]:
                for path in _files_of(old):
                    path.unlink(missing_ok=True)
    return dump


def read_catalogue(connection: psycopg.Connection[Any]) -> Catalogue:
    """Tables, row security and policies of the database."""
    rows = connection.execute(CATALOGUE).fetchall()
    return Catalogue(
        objects=tuple(f"{kind} {schema} {tag}" for kind, schema, _, tag, _ in rows),
        tables=tuple((schema, table) for _, schema, table, _, holds_rows in rows if holds_rows),
    )


def count_rows(connection: psycopg.Connection[Any], catalogue: Catalogue) -> dict[str, int]:
    """The exact number of rows of each table."""
    counted = {}
    for schema, table in catalogue.tables:
        query = sql.SQL("select count(*) from only {}").format(sql.Identifier(schema, table))
        (rows,) = connection.execute(query).fetchone() or (0,)
        counted[f"{schema}.{table}"] = rows
        progress().advance("count", rows)
    return counted


def read_dump(path: Path) -> Dump:
    """What a dump holds, once its files are proved to be as they were written.

    Raises:
        WarehouseError: it is unfinished, or has been changed since.
    """
    try:
        found = json.loads(_description(path).read_text(encoding="utf-8"))
        found["path"] = str(path)  # the files may have been moved
        found["roles_path"] = str(path.with_suffix(".roles.sql"))
        dump = Dump(**found | {"objects": tuple(found["objects"]), "taken_at": _time(found)})
        whole = (dump.sha256, dump.roles_sha256) == (digest(path), digest(Path(dump.roles_path)))
    except FileNotFoundError as error:
        raise WarehouseError(
            f"{path} is not a finished dump",
            f"{error.filename} is missing",
            "name a .dump file that `warehouse backup` wrote, with its .json and .roles.sql",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise WarehouseError(
            f"{_description(path)} cannot be read",
            f"{type(error).__name__}: {error}",
            "use another day's dump",
        ) from None
    if not whole:
        raise WarehouseError(
            f"{path} is damaged",
            "its SHA-256, or that of its roles, is not the one of the day it was written",
            "use another copy or another day's dump",
        )
    return dump


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_passable(folder: Path) -> None:
    """Make a folder that holds folders of the server's account, which only root is not."""
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time write backups into a folder."""
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(
                f"{folder} is busy",
                "another backup or restore works there",
                "wait for it, or end it and try again",
            ) from None
        yield


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Tell whoever watches that a step begins, and that it is over."""
    progress().begin(name)
    yield
    progress().end(name)


def run_client(
    name: str, where: Connection, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's client programs against a server.

    Raises:
        WarehouseError: it failed.
    """
    ran = subprocess.run(
        [program(name), *arguments],
        env=_environment(where),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if ran.returncode != 0:
        raise _client_failed(name, ran.stderr)
    return ran


def contents(path: Path, where: Connection) -> list[str]:
    """The lines of a dump's table of contents: `TABLE app users app_owner`."""
    listed = run_client("pg_restore", where, "--list", path).stdout.splitlines()
    return [line.split(maxsplit=3)[3] for line in listed if line and not line.startswith(";")]


def _dump(where: Connection, folder: Path) -> Dump:
    name = f"{where.database}_{datetime.now(UTC):%Y%m%d}"
    path = folder / f"{name}.dump"
    draft = folder / f"{name}.dump{DRAFT}"
    roles_draft = folder / f"{name}.roles.sql{DRAFT}"
    with connect(autocommit=True, application=APPLICATION) as connection:
        role = _see_every_row(connection)
        connection.execute("begin isolation level repeatable read, read only")
        started = connection.execute(
            "select pg_export_snapshot(), clock_timestamp(), current_setting('server_version')"
        ).fetchone()
        assert started is not None
        snapshot, taken_at, version = started
        catalogue = read_catalogue(connection)
        with step("dump"), _dumping(where, draft, snapshot, role), step("count"):
            rows = count_rows(connection, catalogue)
    run_client(
        "pg_dumpall",
        where,
        "--globals-only",
        "--no-role-passwords",
        f"--database={where.database}",
        f"--file={roles_draft}",
    )
    with step("verify"):
        _compare(draft, where, catalogue)
    dump = Dump(
        path=str(path),
        roles_path=str(path.with_suffix(".roles.sql")),
        database=where.database,
        server_version=version,
        taken_at=taken_at,
        bytes=draft.stat().st_size,
        sha256=digest(draft),
        roles_sha256=digest(roles_draft),
        objects=catalogue.objects,
        rows=rows,
    )
    _description(path).unlink(missing_ok=True)
    for written, final in ((draft, path), (roles_draft, path.with_suffix(".roles.sql"))):
        written.chmod(0o600)
        written.replace(final)
    sums = f"{dump.sha256}  {path.name}\n{dump.roles_sha256}  {name}.roles.sql\n"
    replace_file(folder / f"{path.name}.sha256", sums.encode())
    replace_file(_description(path), json.dumps(asdict(dump), default=str, indent=1).encode())
    return dump


def _see_every_row(connection: psycopg.Connection[Any]) -> str | None:
    """The role to dump as, or None for the login; row security must hide nothing from it."""
    found = connection.execute(
        """
        select
            logins.rolname,
            logins.rolsuper
            or (logins.rolbypassrls and pg_has_role('pg_read_all_data', 'usage')),
            exists (
                select from pg_catalog.pg_roles as roles
                where
                    roles.rolname = %s
                    and roles.rolbypassrls
                    and pg_has_role(
                        roles.oid,
                        case when current_setting('server_version_num')::integer >= 160000
                            then 'set' else 'member' end
                    )
            )
        from pg_catalog.pg_roles as logins
        where logins.rolname = current_user
        """,
        (BACKUP_ROLE,),
    ).fetchone()
    assert found is not None
    login, sees_all, may_become = found
    if sees_all:
        return None
    if not may_become:
        raise WarehouseError(
            f"{login} cannot back up every row",
            "row security hides rows from it, so that a dump would be a part that looks whole",
            f"let an administrator run `grant {BACKUP_ROLE} to {login}`, or log in as a superuser",
        )
    connection.execute(sql.SQL("set role {}").format(sql.Identifier(BACKUP_ROLE)))
    return BACKUP_ROLE


@contextlib.contextmanager
def _dumping(where: Connection, draft: Path, snapshot: str, role: str | None) -> Iterator[None]:
    """pg_dump runs while the body does, and has succeeded at the end of it."""
    arguments = [
        "--format=custom",
        f"--compress={COMPRESSION}",
        f"--snapshot={snapshot}",
        f"--lock-wait-timeout={LOCK_WAIT_MS}",
        f"--file={draft}",
        *([f"--role={role}"] if role else []),
    ]
    with subprocess.Popen(
        [program("pg_dump"), *arguments],
        env=_environment(where),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        umask=0o077,
    ) as running:
        try:
            yield
        except BaseException:
            running.kill()
            draft.unlink(missing_ok=True)
            raise
        _, said = running.communicate()
    if running.returncode != 0:
        draft.unlink(missing_ok=True)
        raise _client_failed("pg_dump", said)


def _compare(draft: Path, where: Connection, catalogue: Catalogue) -> None:
    """Read the whole file once, and find in it exactly the tables and policies of the database."""
    run_client("pg_restore", where, "--file=/dev/null", draft)
    held = {line.rsplit(maxsplit=1)[0] for line in contents(draft, where)}
    wanted = {*catalogue.objects, *(f"TABLE DATA {schema} {t}" for schema, t in catalogue.tables)}
    kinds = ("TABLE ", "ROW SECURITY ", "POLICY ")
    attached = ("TABLE ATTACH ",)
    known = {name for name in held if name.startswith(kinds) and not name.startswith(attached)}
    if differing := sorted(wanted ^ known):
        draft.unlink()
        raise WarehouseError(
            "the dump does not hold what the database holds",
            f"{len(differing)} entries differ, the first: {differing[0]}",
            "was the database changed meanwhile? run `warehouse backup` again",
        )


def dumps(folder: Path, database: str) -> list[Path]:
    """The dumps of a database, oldest first."""
    found = []
    for path in folder.glob(f"{database}_*.dump"):
        day = path.stem.removeprefix(f"{database}_")
        with contextlib.suppress(ValueError):
            found.append((time.strptime(day, "%Y%m%d"), path))
    return [path for _, path in sorted(found)]


def _files_of(path: Path) -> tuple[Path, ...]:
    sums = path.with_name(f"{path.name}.sha256")
    return _description(path), path, path.with_suffix(".roles.sql"), sums


def _description(path: Path) -> Path:
    return path.with_suffix(".json")


def _time(found: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(found["taken_at"])


def _environment(where: Connection) -> dict[str, str]:
    return os.environ | where.environment() | {"LC_ALL": "C"}


def _client_failed(name: str, said: str) -> WarehouseError:
    return WarehouseError(
        f"{name} failed",
        reason(said) or "it said nothing",
        "the line above is PostgreSQL's own; nothing that was there has been changed",
    )
