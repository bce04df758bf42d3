"""Backups that are proved when they are taken, and restores that are proved before they count."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import typer
from psycopg import sql
from pydantic import SecretStr

from flows.commands import backup as commands
from flows.doctor import Verdict, check_archive
from flows.errors import Busy, UsageError, WarehouseError
from flows.settings import Connection, get_settings
from flows.warehouse import backup as dumps
from flows.warehouse import migrate
from flows.warehouse.backup import back_up, only_one, read_dump
from flows.warehouse.base_backup import base_backups, take_base_backup
from flows.warehouse.connection import connect
from flows.warehouse.embedded import (
    archive_folder,
    delete_server,
    ensure_server,
    server_status,
    stop_server,
)
from flows.warehouse.embedded_places import find_places
from flows.warehouse.policies import ensure_policies
from flows.warehouse.restore import parse_time, restore_dump, restore_to
from tests.conftest import use_home

NOTES = """
create role reader nologin;
create table public.notes (id bigint primary key, words text not null);
alter table public.notes enable row level security;
create policy readers_read on public.notes for select to reader using (true);
grant select on public.notes to reader;
"""


def rows_of(connection: Connection, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(**connection.libpq(), autocommit=True) as session:
        cursor = session.execute(statement)
        return cursor.fetchall() if cursor.description else []


def now(connection: Connection) -> datetime:
    ((found,),) = rows_of(connection, "select clock_timestamp()")
    assert isinstance(found, datetime)
    return found


def flip_a_byte(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


@pytest.fixture
def noted(own_home) -> Connection:
    """An embedded server of the test's own with a small table under row security."""
    connection = ensure_server(get_settings())
    rows_of(connection, NOTES)
    return connection


def test_a_point_in_time_has_what_was_before_and_nothing_after(own_home, monkeypatch):
    live = ensure_server(get_settings())
    migrate.upgrade()
    ensure_policies()
    rows_of(live, NOTES)
    rows_of(live, "insert into public.notes values (1, 'in the base backup')")
    policies = "select polrelid::regclass::text, polname from pg_policy order by 1, 2"
    roles = "select rolname, rolbypassrls, rolcanlogin from pg_roles order by 1"
    before = {query: rows_of(live, query) for query in (policies, roles)}
    take_base_backup(get_settings())
    rows_of(live, "insert into public.notes values (2, 'in the log')")
    target = now(live)
    rows_of(live, "insert into public.notes values (3, 'too late')")
    rows_of(live, "drop table public.notes; drop role reader")

    restored = restore_to(get_settings(), target)

    assert restored.rows["public.notes"] == 2
    assert restored.policies == len(before[policies]) > 50
    assert restored.last_change is not None
    assert restored.last_change <= target
    with pytest.MonkeyPatch.context() as patch:
        use_home(patch, Path(restored.home or ""))
        copy = ensure_server(get_settings())
        try:
            assert copy.port != live.port
            assert rows_of(copy, "select id from public.notes order by id") == [(1,), (2,)]
            assert {query: rows_of(copy, query) for query in before} == before
            assert rows_of(copy, "select count(*) from pg_extension where extname = 'amcheck'") == [
                (0,)
            ]
            with psycopg.connect(**copy.libpq()) as session:
                session.execute("set role reader")
                assert session.execute("select count(*) from public.notes").fetchone() == (2,)
                session.execute("reset role")
                session.execute("set role anon")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute("select from app.users")
        finally:
            delete_server(get_settings())
    use_home(monkeypatch, own_home)
    assert rows_of(live, "select to_regclass('public.notes') is null") == [(True,)]


def test_a_restore_takes_the_place_and_goes_on(noted, own_home):
    take_base_backup(get_settings())
    rows_of(noted, "insert into public.notes values (1, 'good')")
    first = now(noted)
    rows_of(noted, "delete from public.notes")
    regretted = now(noted)
    mistake_undone = restore_to(get_settings(), first, in_place=True)

    live = get_settings().connection()
    assert live is not None
    assert rows_of(live, "select id from public.notes") == [(1,)]
    assert server_status(get_settings()).data_directory == str(own_home / "data")
    assert (Path(mistake_undone.old_data or "") / "PG_VERSION").exists()
    assert not list(own_home.glob("restored-*"))
    assert rows_of(live, "show archive_mode") == [("on",)]

    rows_of(live, "insert into public.notes values (2, 'on the new timeline')")
    second = now(live)
    rows_of(live, "insert into public.notes values (3, 'too late')")
    again = restore_to(get_settings(), second, own_home / "again")
    assert again.rows["public.notes"] == 2
    mistake = restore_to(get_settings(), regretted, own_home / "mistake")
    assert mistake.rows["public.notes"] == 0  # as it was then, on the timeline of then


def test_what_the_server_has_not_archived_is_found_beside_its_data(noted, own_home):
    take_base_backup(get_settings())
    rows_of(noted, "insert into public.notes values (1, 'x')")
    target = now(noted)
    rows_of(noted, "insert into public.notes values (2, 'x')")
    stop_server(get_settings())
    (own_home / "data/base").rename(own_home / "gone")  # the log is all that is left of it
    assert restore_to(get_settings(), target).rows["public.notes"] == 1


def test_backups_outlive_deleted_data_and_another_server_begins_its_own(noted, own_home):
    take_base_backup(get_settings())
    rows_of(noted, "insert into public.notes values (1, 'x')")
    target = now(noted)
    rows_of(noted, "insert into public.notes values (2, 'x')")
    rows_of(noted, "select pg_switch_wal()")
    stop_server(get_settings())
    delete_server(get_settings())

    new = ensure_server(get_settings())
    take_base_backup(get_settings())
    assert len(list((own_home / "backups").glob("*/wal"))) == 2
    restored = restore_to(get_settings(), target, in_place=True)
    assert restored.rows == {"public.notes": 1}
    assert rows_of(get_settings().connection() or new, "select id from public.notes") == [(1,)]


def test_times_that_cannot_be_restored(noted, own_home):
    with pytest.raises(WarehouseError, match="no base backup to restore from"):
        restore_to(get_settings(), now(noted))
    before = now(noted)
    base = take_base_backup(get_settings())
    with pytest.raises(
        WarehouseError, match=f"before the first base backup.*{base.finished_at:%F}"
    ):
        restore_to(get_settings(), before)
    rows_of(noted, "insert into public.notes values (1, 'x')")
    target = now(noted)
    rows_of(noted, "insert into public.notes values (2, 'x'); select pg_switch_wal()")
    stop_server(get_settings())
    (own_home / "data").rename(own_home / "stolen")
    with pytest.raises(WarehouseError, match=r"the log does not reach .* its last change is of 2"):
        restore_to(get_settings(), datetime.now(UTC))
    assert not list(own_home.glob("restored-*"))
    (own_home / "here").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        restore_to(get_settings(), target, own_home / "here")
    (own_home / "stolen").rename(own_home / "data")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("yesterday", "is not a time"),
        ("2026-11-24 10:00:00", "it has no zone"),
        ("2999-01-01T00:00:00+00:00", "in the future"),
    ],
)
def test_what_is_no_time_is_refused(text, why):
    with pytest.raises(UsageError, match=why):
        parse_time(text)


def test_a_damaged_base_backup_is_refused(noted, own_home):
    rows_of(noted, "insert into public.notes select n, 'x' from generate_series(1, 9999) as n")
    ((file,),) = rows_of(noted, "select pg_relation_filepath('public.notes')")
    base = take_base_backup(get_settings())
    target = now(noted)
    flip_a_byte(base.folder / str(file), 20_000)
    with pytest.raises(WarehouseError, match=rf"is damaged.*checksum mismatch.*{file}"):
        restore_to(get_settings(), target)
    flip_a_byte(base.folder / str(file), 20_000)
    (base.folder / "backup_manifest").write_text("{}")
    with pytest.raises(WarehouseError, match="its manifest is not the one"):
        restore_to(get_settings(), target)
    assert not list(own_home.glob("restored-*"))


def test_nothing_is_archived_before_the_first_base_backup(noted, own_home):
    rows_of(noted, "select pg_logical_emit_message(true, 'x', 'x'); select pg_switch_wal()")
    assert not (own_home / "backups").exists()
    take_base_backup(get_settings())
    assert list(archive_folder(find_places(own_home)).iterdir())


def test_a_piece_of_the_log_that_is_there_and_differs_is_never_overwritten(noted, own_home):
    take_base_backup(get_settings())
    ((piece,),) = rows_of(noted, "select pg_walfile_name(pg_current_wal_lsn())")
    there = archive_folder(find_places(own_home)) / str(piece)
    there.write_text("somebody else's")
    there.chmod(0o666)  # its account could overwrite it
    rows_of(noted, "insert into public.notes values (1, 'x'); select pg_switch_wal()")
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    while rows_of(noted, "select failed_count > 0 from pg_stat_archiver") == [(False,)]:
        assert datetime.now(UTC) < deadline
    assert there.read_text() == "somebody else's"
    (told,) = check_archive(server_status(get_settings()))
    assert (told.name, told.verdict) == ("log archive", Verdict.WARN)
    assert str(piece) in told.found
    there.unlink()
    rows_of(noted, "insert into public.notes values (2, 'x'); select pg_switch_wal()")
    while rows_of(noted, "select last_archived_time > last_failed_time from pg_stat_archiver") != [
        (True,)
    ]:
        assert datetime.now(UTC) < deadline + timedelta(seconds=120)
    (told,) = check_archive(server_status(get_settings()))
    assert told.verdict == Verdict.OK


def test_keep_takes_old_base_backups_and_the_log_before_the_kept(noted, own_home):
    archive = archive_folder(find_places(own_home))
    for _ in range(2):
        take_base_backup(get_settings())
        rows_of(noted, "select pg_logical_emit_message(true, 'x', 'x'); select pg_switch_wal()")
    kept = take_base_backup(get_settings(), keep=1)
    assert [found.path for found in base_backups(own_home / "backups")] == [kept.path]
    assert min(path.name for path in archive.iterdir()) >= kept.first_log


def test_a_server_that_does_not_archive_is_told(noted):
    rows_of(noted, "alter system set archive_mode = off")
    stop_server(get_settings())
    ensure_server(get_settings())
    with pytest.raises(WarehouseError, match="does not archive its log"):
        take_base_backup(get_settings())


def test_a_dump_is_restored_with_the_same_rows_and_policies(database, tmp_path):
    with connect(autocommit=True) as connection:
        connection.execute(
            "insert into app.users (email, password_hash, first_name, last_name)"
            " values ('a@example.com', 'x', 'Ada', 'A')"
        )
    dump = back_up(get_settings(), tmp_path / "dumps")
    assert Path(dump.path).name == f"{database.database}_{datetime.now(UTC):%Y%m%d}.dump"
    assert dump.rows["app.users"] == 1
    sums = subprocess.run(["sha256sum", "--check", f"{dump.path}.sha256"], cwd=tmp_path / "dumps")
    assert sums.returncode == 0
    roles = Path(dump.roles_path).read_text()
    assert "CREATE ROLE authenticated;" in roles
    assert "PASSWORD" not in roles

    name = f"{database.database}_restored"
    try:
        restored = restore_dump(get_settings(), Path(dump.path), name)
        assert restored.rows == dump.rows
        assert restored.policies > 50
        copy = database.model_copy(update={"database": name})
        assert rows_of(copy, "show search_path") == rows_of(database, "show search_path")
        with pytest.raises(UsageError, match="already"):
            restore_dump(get_settings(), Path(dump.path), name)
        assert rows_of(copy, "select count(*) from app.users") == [(1,)]
    finally:
        with connect(autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(name)))


def test_a_dump_makes_the_roles_that_another_server_lacks(noted, own_home, monkeypatch):
    rows_of(noted, 'create role "Odd name" nologin bypassrls; grant reader to "Odd name"')
    rows_of(noted, "create role chief superuser; alter table public.notes owner to chief")
    rows_of(noted, "insert into public.notes values (1, 'x')")
    dump = back_up(get_settings())
    other = own_home.parent / "other" / ".warehouse"
    other.parent.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        use_home(patch, other)
        there = ensure_server(get_settings())
        try:
            restored = restore_dump(get_settings(), Path(dump.path), "moved")
            assert restored.made_roles == ('"Odd name"', "chief", "reader")
            moved = there.model_copy(update={"database": "moved"})
            assert rows_of(
                moved,
                "select rolname, rolsuper, rolbypassrls from pg_roles"
                " where rolname in ('Odd name', 'chief', 'reader') order by 1",
            ) == [("Odd name", False, True), ("chief", False, False), ("reader", False, False)]
            assert rows_of(moved, "select pg_has_role('Odd name', 'reader', 'member')") == [(True,)]
        finally:
            delete_server(get_settings())
    use_home(monkeypatch, own_home)


def test_a_damaged_or_unfinished_dump_is_refused(noted):
    rows_of(noted, "insert into public.notes select n, 'x' from generate_series(1, 999) as n")
    path = Path(back_up(get_settings()).path)
    flip_a_byte(path, path.stat().st_size // 2)
    with pytest.raises(WarehouseError, match="is damaged: its SHA-256"):
        restore_dump(get_settings(), path, "never")
    path.with_suffix(".json").unlink()
    with pytest.raises(WarehouseError, match="is not a finished dump"):
        read_dump(path)
    assert rows_of(noted, "select count(*) from pg_database where datname = 'never'") == [(0,)]


def test_a_dump_that_lacks_a_table_is_refused(noted, monkeypatch):
    catalogue = dumps.read_catalogue

    def with_one_more(connection):
        found = catalogue(connection)
        return dumps.Catalogue((*found.objects, "TABLE public hidden"), found.tables)

    monkeypatch.setattr(dumps, "read_catalogue", with_one_more)
    with pytest.raises(WarehouseError, match="the first: TABLE public hidden"):
        back_up(get_settings())
    assert not list(Path(get_settings().warehouse_home).glob("backups/dumps/*.dump*"))


def test_rows_of_another_moment_make_a_dump_fail_and_leave_no_database(noted):
    rows_of(noted, "insert into public.notes values (1, 'x')")
    path = Path(back_up(get_settings()).path)
    described = json.loads(path.with_suffix(".json").read_text())
    described["rows"]["public.notes"] = 2
    path.with_suffix(".json").write_text(json.dumps(described))
    with pytest.raises(WarehouseError, match="differs from what was dumped"):
        restore_dump(get_settings(), path, "never")
    assert rows_of(noted, "select count(*) from pg_database where datname = 'never'") == [(0,)]


def test_a_login_under_row_security_dumps_as_backup_or_not_at_all(noted, own_home, monkeypatch):
    rows_of(noted, "insert into public.notes values (1, 'x')")
    rows_of(
        noted,
        "create role clerk login password 'clerk'; grant select on public.notes to clerk;"
        " create role backup bypassrls; grant pg_read_all_data to backup",
    )
    as_clerk = noted.model_copy(update={"user": "clerk", "password": SecretStr("clerk")})
    for name, value in as_clerk.environment().items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    folder = own_home.parent / "dumps"
    with pytest.raises(WarehouseError, match=r"clerk cannot back up every row.*grant backup to"):
        back_up(get_settings(), folder)
    rows_of(noted, "grant backup to clerk")
    assert back_up(get_settings(), folder).rows == {"public.notes": 1}
    with pytest.raises(UsageError, match="base backup is for the embedded"):
        take_base_backup(get_settings())
    with pytest.raises(UsageError, match="for the embedded server"):
        restore_to(get_settings(), datetime.now(UTC))


def test_keep_takes_older_dumps_and_a_second_backup_waits_its_turn(noted, own_home):
    folder = own_home / "backups" / "dumps"
    first = Path(back_up(get_settings()).path)
    for day in ("20200101", "20200102"):
        for path in folder.glob(f"{first.stem}.*"):
            renamed = path.name.replace(first.stem, f"warehouse_{day}")
            path.with_name(renamed).write_bytes(path.read_bytes())
    (folder / "warehouse_notes.dump").touch()
    back_up(get_settings(), keep=2)
    assert {path.name.split(".")[0] for path in folder.glob("warehouse_*")} == {
        "warehouse_20200102",
        first.stem,
        "warehouse_notes",
    }
    with only_one(folder), pytest.raises(Busy):
        back_up(get_settings())


def test_backups_are_private(noted, own_home):
    back_up(get_settings())
    take_base_backup(get_settings())
    open_to_others = [
        path
        for path in (own_home / "backups").rglob("*")
        if path.is_file() and path.stat().st_mode & 0o077 and path.name != "lock"
    ]
    assert open_to_others == []
    assert (own_home / "backups").stat().st_mode & 0o077 in (0, 0o011)


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    commands.register(made)
    return made


def test_the_commands_say_what_they_did(noted, own_home, app, capsys):
    def run(*arguments: str) -> str:
        app(list(arguments), standalone_mode=False)
        return capsys.readouterr().out

    rows_of(noted, "insert into public.notes values (1, 'x')")
    assert "1 rows of 1 tables" in run("backup", "--keep", "1")
    assert "can be restored" in run("backup", "--base")
    target = now(noted).isoformat()
    rows_of(noted, "insert into public.notes values (2, 'x')")
    told = run("restore", "--to", target)
    assert "1 rows of 1 tables, 1 policies" in told
    assert f"WAREHOUSE_HOME={own_home}/restored-" in told
    replaced = json.loads(run("restore", "--to", target, "--replace", "--yes", "--json"))
    assert replaced["rows"] == {"public.notes": 1}
    (dump,) = (own_home / "backups/dumps").glob("*.dump")
    assert "as they were dumped" in run("restore", "--dump", str(dump), "--into-database", "copy")
    for odd in (
        ["restore"],
        ["restore", "--to", target, "--dump", "x", "--into-database", "y"],
        ["restore", "--dump", "x"],
        ["restore", "--to", target, "--into", "x", "--replace"],
        ["backup", "--base", "--to", "x"],
    ):
        with pytest.raises(UsageError):
            app(odd, standalone_mode=False)


def test_backups_of_data_that_lies_elsewhere_are_found_after_it_is_deleted(short_folder, own_home):
    short_folder.chmod(0o700)
    rows_of(ensure_server(get_settings()), NOTES)
    take_base_backup(get_settings())
    live = ensure_server(get_settings())
    target = now(live)
    rows_of(live, "insert into public.notes values (1, 'x'); select pg_switch_wal()")
    backups = find_places(own_home).backups
    delete_server(get_settings())
    assert find_places(own_home).backups == backups
    try:
        restored = restore_to(get_settings(), target, in_place=True)
        assert restored.rows == {"public.notes": 0}
    finally:
        shutil.rmtree(backups)
