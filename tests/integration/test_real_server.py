"""A server of one's own: PgBouncer in transaction mode in front, a streaming replica behind.

Debian's PostgreSQL 15 and PgBouncer on the loopback address, as docs/runbooks/real-server.md sets
them up. PgBouncer is installed if that can be done here.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from flows.settings import Connection
from tests.debian_server import MISSING, PROGRAMS, debian_postgres, is_installed

APT_SECONDS = 180
START_SECONDS = 30
PGBOUNCER_CONFIG = """\
[databases]
postgres = host={host} port={port} pool_size=1

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {pool_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
server_reset_query_always = {reset_always}
ignore_startup_parameters = extra_float_digits
pidfile = {folder}/pid
logfile = {folder}/log
"""
PROGRAM_PATHS = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)


@pytest.fixture(scope="module")
def pgbouncer_program() -> str:
    """PgBouncer's path, installed with apt where that is allowed."""
    found = shutil.which("pgbouncer", path=PROGRAM_PATHS)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ["apt-get", "install", "-y", "--no-install-recommends", "pgbouncer"],
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=APT_SECONDS,
            )
        found = shutil.which("pgbouncer", path=PROGRAM_PATHS)
    if found is None:
        pytest.skip("PgBouncer is not installed: Debian and Ubuntu have it as `pgbouncer`")
    return found


@pytest.fixture(scope="module")
def primary() -> Iterator[Connection]:
    """A server whose log a replica may stream."""
    with debian_postgres(wal_level="replica", hot_standby="on") as connection:
        yield connection


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that belongs to the account that servers run as."""
    made = Path(tempfile.mkdtemp(prefix="wh-real-", dir="/tmp"))
    made.chmod(0o711)
    own(made)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def pool(primary: Connection, pgbouncer_program: str, folder: Path) -> Iterator[Connection]:
    """The primary through a pool of one server connection."""
    with pgbouncer(primary, pgbouncer_program, folder) as connection:
        yield connection


@pytest.fixture
def replica(primary: Connection, folder: Path) -> Iterator[Connection]:
    """A streaming copy of the primary, made with one command."""
    data = folder / "replica"
    run("pg_basebackup", "-R", "-X", "stream", "-c", "fast", "-D", data, server=primary)
    with (data / "postgresql.conf").open("a") as config:
        config.write(f"port = {free_port()}\nunix_socket_directories = '{folder}'\n")
    port = int(re.findall(r"^port = (\d+)", (data / "postgresql.conf").read_text(), re.M)[-1])
    run("pg_ctl", "start", "-D", data, "-l", folder / "replica.log", "--wait")
    yield primary.model_copy(update={"host": str(folder), "port": port})
    run("pg_ctl", "stop", "-D", data, "--mode=immediate", "--wait")


def test_a_claim_of_one_transaction_does_not_reach_the_next_client(pool):
    tenant = str(uuid4())
    with client(pool) as first, client(pool) as second:
        with first.transaction():
            first.execute("select set_config('request.jwt.claim.sub', %s, true)", (tenant,))
            assert claim(first) == tenant
        assert claim(second) is None
        with first.transaction(force_rollback=True):
            first.execute("select set_config('request.jwt.claim.sub', %s, true)", (tenant,))
        assert claim(second) is None


def test_a_claim_of_a_session_leaks_to_the_next_client(pool):
    tenant = str(uuid4())
    with client(pool) as first, client(pool) as second:
        first.execute(f"set request.jwt.claim.sub = '{UUID(tenant)}'")
        assert claim(second) == tenant, "PgBouncer has learnt to keep sessions apart: say so"


def test_a_reset_after_every_transaction_stops_the_leak(primary, pgbouncer_program, folder):
    with (
        pgbouncer(primary, pgbouncer_program, folder, reset_always=True) as pool,
        client(pool) as first,
        client(pool) as second,
    ):
        first.execute(f"set request.jwt.claim.sub = '{uuid4()}'")
        assert claim(second) is None
        assert claim(first) is None


def test_session_locks_through_the_pool_exclude_nobody(pool):
    with client(pool) as first, client(pool) as second:
        assert try_lock(first)
        assert try_lock(second), "both are told that they hold the lock: it is the same session"


def test_a_session_lock_outlives_the_client_that_took_it(primary, pool):
    with client(pool) as gone:
        assert try_lock(gone)
    with client(primary) as direct:
        assert not try_lock(direct)


def test_session_locks_on_direct_connections_exclude_and_end(primary):
    with client(primary) as second:
        with client(primary) as first:
            assert try_lock(first)
            assert not try_lock(second)
        wait_until(lambda: try_lock(second))


def test_transaction_locks_work_through_the_pool(primary, pool):
    with client(pool) as first, client(primary) as second:
        with first.transaction():
            assert try_lock(first, "xact_")
            assert not try_lock(second, "xact_")
        with second.transaction():
            assert try_lock(second, "xact_")


def test_a_replica_serves_reads_refuses_writes_and_shows_its_lag(primary, replica):
    with client(primary) as writer, client(replica) as reader:
        writer.execute("drop table if exists public.streamed")
        writer.execute("create table public.streamed as select 42 as answer")
        written = one(writer, "select pg_current_wal_lsn()::text")
        wait_until(lambda: one(reader, f"select pg_last_wal_replay_lsn() >= '{written}'"))
        assert one(reader, "select answer from public.streamed") == 42
        assert one(reader, "select pg_is_in_recovery()") is True
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            reader.execute("insert into public.streamed values (43)")
        wait_until(
            lambda: one(
                writer,
                "select count(*) from pg_stat_replication"
                " where state = 'streaming' and replay_lsn is not null",
            )
        )

        reader.execute("select pg_wal_replay_pause()")
        writer.execute("insert into public.streamed values (44)")
        behind = "select pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) from pg_stat_replication"
        assert wait_until(lambda: one(writer, behind))
        assert one(reader, "select count(*) from public.streamed") == 1
        time.sleep(0.5)
        lag = "select extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())"
        assert one(reader, lag) > 0.5
        reader.execute("select pg_wal_replay_resume()")
        wait_until(lambda: one(reader, "select count(*) from public.streamed") == 2)


@contextmanager
def pgbouncer(
    server: Connection, program: str, folder: Path, *, reset_always: bool = False
) -> Iterator[Connection]:
    """PgBouncer in transaction mode, stopped by its process at the end."""
    pool_port = free_port()
    password = server.password.get_secret_value()
    (folder / "users").write_text(f'"{server.user}" "{password}"\n')
    (folder / "config").write_text(
        PGBOUNCER_CONFIG.format(
            host=server.host,
            port=server.port,
            pool_port=pool_port,
            folder=folder,
            reset_always=int(reset_always),
        )
    )
    for path in (folder / "users", folder / "config"):
        path.chmod(0o600)
        own(path)
    running = subprocess.Popen(
        [program, "--quiet", folder / "config"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        **as_nobody(),
    )
    pool = server.model_copy(update={"host": "127.0.0.1", "port": pool_port})
    try:
        wait_until(lambda: answers(pool) or running.poll() is not None)
        assert running.poll() is None, (folder / "log").read_text()
        yield pool
    finally:
        running.terminate()
        running.wait(START_SECONDS)


def client(server: Connection) -> psycopg.Connection:
    """A session in autocommit; prepared statements do not outlive a transaction in a pool."""
    return psycopg.connect(**server.libpq(), autocommit=True, prepare_threshold=None)


def claim(session: psycopg.Connection) -> str | None:
    return one(session, "select nullif(current_setting('request.jwt.claim.sub', true), '')")


def try_lock(session: psycopg.Connection, kind: str = "") -> bool:
    return one(session, f"select pg_try_advisory_{kind}lock(42)")


def one(session: psycopg.Connection, query: str):
    row = session.execute(query).fetchone()
    assert row is not None
    return row[0]


def answers(server: Connection) -> bool:
    try:
        client(server).close()
    except psycopg.OperationalError:
        return False
    return True


def wait_until(condition):
    """The condition's value once it is true; fails after a while."""
    give_up = time.monotonic() + START_SECONDS
    while not (found := condition()):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return found


def run(program: str, *arguments: str | Path, server: Connection | None = None) -> None:
    """Run one of Debian's PostgreSQL programs as the account that servers run as."""
    subprocess.run(
        [PROGRAMS / program, *arguments],
        env={"PATH": os.defpath, "LC_ALL": "C", **(server.environment() if server else {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        check=True,
        **as_nobody(),
    )


def as_nobody() -> dict:
    if os.geteuid() != 0:
        return {}
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


def own(path: Path) -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
