"""Stored credentials: rotated row by row, and nowhere to be read but through the key."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
import traceback
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
import typer
from psycopg import sql
from typer.testing import CliRunner

from flows.commands import secrets as commands
from flows.errors import Busy, ExitCode
from flows.settings import get_settings
from flows.warehouse import secrets
from flows.warehouse.connection import connect
from flows.warehouse.embedded import program
from flows.warehouse.secrets import (
    SEALED_COLUMNS,
    DoesNotOpen,
    RowRef,
    SecretBox,
    add_key,
    keys_file,
    rotate,
    rows_by_key,
)

TOKENS, CREDENTIALS = SEALED_COLUMNS


@pytest.fixture
def admin(database):
    """A connection that may do everything; the database has no key and no credential yet."""
    with connect(autocommit=True) as connection:
        yield connection


@pytest.fixture
def etl(admin):
    """A connection with the rights of a flow."""
    with connect(role="etl", autocommit=True) as connection:
        yield connection


@pytest.fixture
def box(database) -> SecretBox:
    """The box of a new key file."""
    return another_key()


def another_key() -> SecretBox:
    add_key(get_settings())
    return SecretBox.from_settings()


def newest_only(box: SecretBox) -> SecretBox:
    return SecretBox([box._current])


def add_tenant(admin) -> tuple[UUID, UUID]:
    """A user with an account: their ids."""
    user_id = uuid4()
    admin.execute(
        "insert into app.users (id, email, password_hash, first_name, last_name)"
        " values (%s, %s, 'hash', 'A', 'Tenant')",
        (user_id, f"{user_id}@example.com"),
    )
    (account_id,) = admin.execute(
        "insert into app.user_accounts"
        " (user_id, account_name, amazon_account_id, marketplace_id, account_type)"
        " values (%s, 'Brand', %s, 'ATVPDKIKX0DER', 'advertising') returning id",
        (user_id, f"amzn1.ads-account.g.{user_id}"),
    ).fetchone()
    return user_id, account_id


def store_tokens(connection, box: SecretBox, tenant: tuple[UUID, UUID], **values: str) -> UUID:
    """One row of `app.oauth_tokens` with an access and a refresh token; its id."""
    row_id = uuid4()
    sealed = {
        column: box.seal(values[column], where=RowRef(TOKENS, column, row_id, tenant[0]))
        for column in SEALED_COLUMNS[TOKENS]
    }
    connection.execute(
        "insert into app.oauth_tokens"
        " (id, user_id, user_account_id, access_token, refresh_token, key_id, expires_at)"
        " values (%s, %s, %s, %s, %s, %s, now() + interval '1 hour')",
        (
            row_id,
            *tenant,
            sealed["access_token"].ciphertext,
            sealed["refresh_token"].ciphertext,
            box.current_key_id,
        ),
    )
    return row_id


def store_credentials(connection, box: SecretBox, user_id: UUID, value: str) -> UUID:
    """One row of `app.user_api_credentials`; its id."""
    row_id = uuid4()
    where = RowRef(CREDENTIALS, "credentials_encrypted", row_id, user_id)
    connection.execute(
        "insert into app.user_api_credentials"
        " (id, user_id, platform, credentials_encrypted, key_id)"
        " values (%s, %s, 'tiktok_ads', %s, %s)",
        (row_id, user_id, *box.seal(value, where=where)),
    )
    return row_id


def opened(connection, box: SecretBox) -> dict[tuple[str, UUID, str], str]:
    """Every stored credential in plain text."""
    found = {}
    for table, columns in SEALED_COLUMNS.items():
        for column in columns:
            rows = connection.execute(
                sql.SQL("select id, user_id, key_id, {} from {}").format(
                    sql.Identifier(column), sql.Identifier(*table.split("."))
                )
            ).fetchall()
            for row_id, user_id, key_id, ciphertext in rows:
                where = RowRef(table, column, row_id, user_id)
                value = box.open(ciphertext, key_id, where)
                found[table, row_id, column] = value.get_secret_value()
    return found


def store_many(admin, etl, box: SecretBox, tenants: int = 5) -> dict[tuple[str, UUID, str], str]:
    """A row per tenant in each table."""
    for number in range(tenants):
        tenant = add_tenant(admin)
        store_tokens(etl, box, tenant, access_token=f"a{number}", refresh_token=f"r{number}")
        store_credentials(etl, box, tenant[0], f"c{number}")
    return opened(etl, box)


def invoke(*arguments: str):
    app = typer.Typer()
    app.callback()(lambda: None)
    commands.register(app)
    return CliRunner().invoke(app, ["secrets", *arguments])


def test_every_column_that_takes_only_tokens_is_rotated(admin):
    """The tables' CHECKs and `SEALED_COLUMNS` name the same columns; their tables have the ids."""
    found = admin.execute(
        """
        select nspname || '.' || relname, attname::text
        from pg_catalog.pg_attribute
        inner join pg_catalog.pg_class on pg_class.oid = attrelid and relkind in ('r', 'p')
        inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
        inner join pg_catalog.pg_constraint
            on (conrelid = attrelid and attnum = any(conkey)) or contypid = atttypid
        where contype = 'c' and pg_get_constraintdef(pg_constraint.oid) like '%''^gAAAA%'
        """
    ).fetchall()
    declared = {(table, column) for table, columns in SEALED_COLUMNS.items() for column in columns}
    assert set(found) == declared
    for table in SEALED_COLUMNS:
        types = dict(
            admin.execute(
                "select attname::text, format_type(atttypid, atttypmod)"
                " from pg_catalog.pg_attribute where attrelid = %s::regclass and attnum > 0",
                (table,),
            ).fetchall()
        )
        assert (types["id"], types["user_id"]) == ("uuid", "uuid")
        assert types["key_id"] == "character varying(32)"


@pytest.mark.parametrize("role", ["authenticated", "anon", "dbt"])
def test_no_tenant_and_no_model_reads_what_is_sealed(role, admin):
    readable = [
        (table, column)
        for table, columns in SEALED_COLUMNS.items()
        for column in columns
        if admin.execute(
            "select has_column_privilege(%s, %s, %s, 'select')", (role, table, column)
        ).fetchone()
        != (False,)
    ]
    assert readable == []


def test_a_rotation_brings_all_under_the_new_key_and_the_second_changes_nothing(admin, etl, box):
    before = store_many(admin, etl, box)
    newer = another_key()
    first = rotate(etl, newer, batch_rows=2)
    assert [(table.rows_checked, table.rows_resealed) for table in first.tables] == [(5, 5)] * 2
    assert not first.broken
    assert opened(etl, newest_only(newer)) == before
    assert rows_by_key(etl) == [(table, newer.current_key_id, 5) for table in SEALED_COLUMNS]
    told = json.loads(invoke("status", "--json").stdout)
    assert told["keys"] == list(newer.key_ids)
    assert [(row["rows"], row["known"]) for row in told["rows"]] == [(5, True)] * 2
    versions = row_versions(admin)
    second = rotate(etl, newer, batch_rows=2)
    assert [(table.rows_checked, table.rows_resealed) for table in second.tables] == [(5, 0)] * 2
    assert row_versions(admin) == versions


def row_versions(admin) -> list[tuple[str, ...]]:
    """Where each row lies, who wrote it and who locked it: any touch shows."""
    return [
        row
        for table in SEALED_COLUMNS
        for row in admin.execute(
            f"select ctid::text, xmin::text, xmax::text from {table} order by id"
        ).fetchall()
    ]


def test_a_column_left_under_the_old_key_is_found(admin, etl, box):
    """The access token was renewed alone, and the key id of the row with it."""
    tenant = add_tenant(admin)
    row_id = store_tokens(etl, box, tenant, access_token="a", refresh_token="r")
    newer = another_key()
    renewed = newer.seal("a2", where=RowRef(TOKENS, "access_token", row_id, tenant[0]))
    etl.execute("update app.oauth_tokens set access_token = %s, key_id = %s", renewed)
    assert rotate(etl, newer).tables[0].rows_resealed == 1
    assert sorted(opened(etl, newest_only(newer)).values()) == ["a2", "r"]


def test_a_ciphertext_moved_to_another_tenant_does_not_open(admin, etl, box):
    """Whole rows given away, and values swapped between two rows of two tenants."""
    (mine, _), (theirs, _) = add_tenant(admin), add_tenant(admin)
    row_id = store_credentials(etl, box, mine, "secret")
    other_id = store_credentials(etl, box, theirs, "other")
    etl.execute(
        """
        update app.user_api_credentials as credentials
        set credentials_encrypted = others.credentials_encrypted
        from app.user_api_credentials as others
        where credentials.id <> others.id
        """
    )
    with pytest.raises(DoesNotOpen, match="another row, column or user"):
        opened(etl, box)
    broken = rotate(etl, another_key()).broken
    assert {value.row_id for value in broken} == {row_id, other_id}
    etl.execute("delete from app.user_api_credentials")
    third = store_credentials(etl, box, mine, "secret")
    assert opened_one(etl, box, third) == "secret"
    etl.execute("update app.user_api_credentials set user_id = %s where id = %s", (theirs, third))
    with pytest.raises(DoesNotOpen, match=str(third)):
        opened_one(etl, box, third)


def opened_one(connection, box: SecretBox, row_id: UUID) -> str:
    row = connection.execute(
        "select credentials_encrypted, key_id, user_id from app.user_api_credentials where id = %s",
        (row_id,),
    ).fetchone()
    where = RowRef(CREDENTIALS, "credentials_encrypted", row_id, row[2])
    return box.open(row[0], row[1], where).get_secret_value()


def test_a_broken_row_is_named_and_the_others_go_on(admin, etl, box):
    before = store_many(admin, etl, box, tenants=3)
    (_, broken_id, _), *_ = [key for key in before if key[0] == TOKENS]
    etl.execute(
        "update app.oauth_tokens set refresh_token = 'gAAAAA' || substr(refresh_token, 8)"
        " where id = %s",
        (broken_id,),
    )
    newer = another_key()
    ended = invoke("rotate", "--json")
    assert ended.exit_code == ExitCode.PARTIAL
    told = json.loads(ended.stdout)
    assert [(value["table"], value["column"], value["row_id"]) for value in told["broken"]] == [
        (TOKENS, "refresh_token", str(broken_id))
    ]
    assert [table["rows_resealed"] for table in told["tables"]] == [2, 3]
    assert rows_by_key(etl) == sorted(
        [
            (TOKENS, box.current_key_id, 1),
            (TOKENS, newer.current_key_id, 2),
            (CREDENTIALS, newer.current_key_id, 3),
        ],
        key=lambda row: (row[0] != TOKENS, row[1]),
    )
    for_people = invoke("rotate")
    assert for_people.exit_code == ExitCode.PARTIAL
    assert f"{TOKENS} {broken_id}, refresh_token: it was changed" in for_people.output


def test_a_row_whose_key_is_lost_is_named_by_its_key(admin, etl, box):
    store_many(admin, etl, box, tenants=1)
    keys_file(get_settings()).unlink()
    newer = another_key()
    rotation = rotate(etl, newer)
    assert len(rotation.broken) == 3
    assert all(f"under key {box.current_key_id}" in value.why for value in rotation.broken)
    ended = invoke("status", "--json")
    assert ended.exit_code == ExitCode.FAILED
    told = json.loads(ended.stdout)
    assert told["keys"] == [told["current"]] == [newer.current_key_id]
    assert told["rows"] == [
        {"table": table, "key_id": box.current_key_id, "rows": 1, "known": False}
        for table in SEALED_COLUMNS
    ]


def test_a_rotation_that_meets_a_lock_goes_on_where_it_stopped(admin, etl, box, monkeypatch):
    monkeypatch.setattr(secrets, "LOCK_TIMEOUT", "100ms")
    before = store_many(admin, etl, box, tenants=4)
    last = max(row_id for table, row_id, _ in before if table == TOKENS)
    newer = another_key()
    with connect() as writer:
        writer.execute("select from app.oauth_tokens where id = %s for update", (last,))
        with pytest.raises(Busy, match=f"a row of {TOKENS}"):
            rotate(etl, newer, batch_rows=1)
    done = rotate(etl, newer, batch_rows=1)
    assert [table.rows_resealed for table in done.tables] == [1, 4]
    assert opened(etl, newest_only(newer)) == before


def test_what_a_writer_stores_meanwhile_is_not_lost(admin, etl, box):
    tenant = add_tenant(admin)
    row_id = store_tokens(etl, box, tenant, access_token="old", refresh_token="r")
    newer = another_key()
    done = []
    with connect() as writer:
        renewed = box.seal("new", where=RowRef(TOKENS, "access_token", row_id, tenant[0]))
        writer.execute("update app.oauth_tokens set access_token = %s", (renewed.ciphertext,))
        thread = threading.Thread(target=lambda: done.append(rotate(etl, newer)))
        thread.start()
        wait_for_lock(admin)
    thread.join()
    assert done[0].tables[0].rows_resealed == 1
    assert sorted(opened(etl, newest_only(newer)).values()) == ["new", "r"]


def wait_for_lock(admin) -> None:
    give_up = time.monotonic() + 5
    waiting = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = %s"
    while admin.execute(waiting, (admin.info.dbname,)).fetchone() is None:
        assert time.monotonic() < give_up, "the rotation waits for nobody"
        time.sleep(0.02)


def test_rotating_without_a_key_says_what_to_do(database):
    ended = invoke("rotate")
    assert "there is no key for stored credentials" in str(ended.exception)


def test_nothing_leaves_a_secret_behind(admin, etl, database, capfd):
    """Canaries go in, are rotated and come out; then every place where text is left is searched."""
    admin.execute(
        sql.SQL("alter database {} set log_statement = 'all'").format(
            sql.Identifier(database.database)
        )
    )
    log = server_log(admin)
    log_start = log.stat().st_size
    canaries = [f"CANARY-{uuid4()}" for _ in range(3)]
    told = [invoke("new-key").output]
    box = SecretBox.from_settings()
    with connect(role="etl", autocommit=True) as watched:
        tenant = add_tenant(admin)
        row_id = store_tokens(
            watched, box, tenant, access_token=canaries[0], refresh_token=canaries[1]
        )
        seen = admin.execute(
            "select query from pg_stat_activity where pid = %s", (watched.info.backend_pid,)
        ).fetchone()
        assert "insert into app.oauth_tokens" in seen[0]
        assert "gAAAA" not in seen[0]
        store_credentials(watched, box, tenant[0], canaries[2])
        told.append(invoke("new-key", "--json").output)
        told += [invoke("rotate", *options).output for options in ((), ("--json",))]
        told += [invoke("status", *options).output for options in ((), ("--json",))]
        newer = SecretBox.from_settings()
        assert sorted(opened(watched, newer).values()) == sorted(canaries)
        try:
            newer.open(
                newer.seal(canaries[0], where=RowRef(TOKENS, "access_token", row_id, tenant[0]))[0],
                newer.current_key_id,
                RowRef(TOKENS, "access_token", row_id, uuid4()),
            )
        except DoesNotOpen as error:
            told += [str(error), "".join(traceback.format_exception(error))]
        try:
            watched.execute(
                "update app.oauth_tokens set access_token = 'x' || %s",
                (
                    newer.seal(canaries[0], where=RowRef(TOKENS, "access_token", row_id, uuid4()))[
                        0
                    ],
                ),
            )
        except psycopg.errors.CheckViolation as error:
            told += [str(error), "".join(traceback.format_exception(error))]
    assert len(told) == 10
    said = capfd.readouterr()
    told += [said.out, said.err]

    dump = subprocess.run(
        [program("pg_dump"), "--inserts"],
        env=os.environ | database.environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    holders = {
        line.split()[2]
        for line in dump.splitlines()
        if line.startswith("INSERT") and re.search(r"'gAAAA[\w-]{20}", line)
    }
    assert holders == set(SEALED_COLUMNS), "tokens are in their own tables and in no other"
    with log.open(errors="replace") as file:
        file.seek(log_start)
        logged = file.read()
    statements = [line for line in logged.splitlines() if re.search(r"LOG:\s+(exec|stat)", line)]
    assert any("update" in line and "oauth_tokens" in line for line in statements)
    assert not any("gAAAA" in line for line in statements)
    keys = keys_file(get_settings()).read_text().split()
    assert len(keys) == 2
    for place, text in {
        "dump": dump,
        "server log": logged,
        "what we said": "\n".join(told),
    }.items():
        for secret in (*canaries, *keys):
            assert secret not in text, place


def server_log(admin) -> Path:
    """The file that the test's server writes its messages to."""
    (data,) = admin.execute("show data_directory").fetchone()
    for path in (Path(data) / "server.log", Path(data).parent / "server.log"):
        if path.exists():
            return path
    pytest.skip("the server's log is not on this machine")


@pytest.mark.parametrize(
    ("table", "column"),
    [(table, column) for table, columns in SEALED_COLUMNS.items() for column in columns],
)
def test_plain_text_is_refused_by_the_tables_and_not_shown(table, column, admin, etl, box):
    tenant = add_tenant(admin)
    store_tokens(etl, box, tenant, access_token="a", refresh_token="r")
    store_credentials(etl, box, tenant[0], "c")
    canary = f"CANARY-{uuid4()}"
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        etl.execute(f"update {table} set {column} = %s", (canary,))
    assert canary not in "".join(traceback.format_exception(caught.value))
