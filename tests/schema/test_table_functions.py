"""The trigger functions that tables share: updated_at, owner from parent, audit, append-only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from flows.settings import Connection
from flows.warehouse.connection import connect

ALICE = UUID(int=1)
BOB = UUID(int=2)


@pytest.fixture
def connection(database: Connection) -> Iterator[psycopg.Connection[Any]]:
    """Two users, and a table of things with every trigger."""
    with connect(autocommit=True) as connection:
        with connection.transaction():
            for user, name in ((ALICE, "alice"), (BOB, "bob")):
                connection.execute(
                    "insert into app.users (id, email, password_hash, first_name, last_name)"
                    " values (%s, %s, 'x', %s, 'x')",
                    (user, f"{name}@example.com", name),
                )
            connection.execute("set local role app_owner")
            connection.execute(
                """
                create table app.things (
                    id bigint primary key,
                    user_id uuid not null references app.users (id) on delete cascade,
                    name text,
                    password text,
                    settings jsonb,
                    updated_at timestamptz not null default clock_timestamp()
                );
                create trigger set_updated_at before update on app.things
                for each row when (old.* is distinct from new.*)
                execute function app.update_updated_at_column();
                create trigger write_audit after insert or update or delete on app.things
                for each row execute function app.write_audit_log('user_id', 'id', 'password');
                create table app.parts (
                    id bigint primary key, thing_id bigint, user_id uuid not null
                );
                create trigger fill_owner before insert on app.parts
                for each row when (new.user_id is null)
                execute function app.fill_owner_from_parent('user_id', 'thing_id', 'app.things');
                grant select, insert, update, delete on app.things, app.parts to authenticated;
                """
            )
        yield connection


def audited(connection: psycopg.Connection[Any], columns: str) -> list[Any]:
    return connection.execute(
        f"select {columns} from app.audit_logs where entity_type = 'things' order by created_at"
    ).fetchall()


def add_thing(connection: psycopg.Connection[Any], **values: Any) -> None:
    row = {"id": 1, "user_id": ALICE, "name": "lamp", "password": "hunter2"} | values
    connection.execute(
        f"insert into app.things ({', '.join(row)}) values ({', '.join(['%s'] * len(row))})",
        list(row.values()),
    )


def test_updated_at_moves_only_when_the_row_differs(connection: psycopg.Connection[Any]) -> None:
    add_thing(connection)
    stamp = "select updated_at from app.things"
    first = connection.execute(stamp).fetchone()
    connection.execute("update app.things set name = name")
    assert connection.execute(stamp).fetchone() == first
    with connection.transaction():
        began = connection.execute("select now(), pg_sleep(0.01)").fetchone()
        connection.execute("update app.things set name = 'desk'")
        moved = connection.execute(stamp).fetchone()
    assert first is not None
    assert began is not None
    assert moved is not None
    assert moved[0] > began[0] > first[0], "the clock of the change, not of the transaction"


def test_a_change_is_told_by_its_changed_columns_with_secrets_masked(
    connection: psycopg.Connection[Any],
) -> None:
    add_thing(connection, settings=Jsonb({"a": 1, "b": [1, 2]}))
    connection.execute("update app.things set name = name")
    connection.execute("update app.things set name = null, password = 'hunter3'")
    connection.execute("update app.things set settings = %s", (Jsonb({"b": [1, 2], "a": 1}),))
    connection.execute("update app.things set updated_at = '2020-01-01'")
    connection.execute("update app.things set password = null")
    connection.execute("delete from app.things")
    rows = audited(connection, "action::text, entity_id, owner_user_id, old_values, new_values")
    assert [(row[:3]) for row in rows] == [
        (action, "1", ALICE) for action in ("create", "update", "update", "delete")
    ]
    created, changed, emptied, deleted = [row[3:] for row in rows]
    assert created[0] is None
    assert created[1]["settings"] == {"a": 1, "b": [1, 2]}
    assert created[1]["password"] == "***"
    assert {**changed[0], "updated_at": 0} == {"name": "lamp", "password": "***", "updated_at": 0}
    assert {**changed[1], "updated_at": 0} == {
        "name": None,
        "password": "*** (changed)",
        "updated_at": 0,
    }
    assert emptied[0]["password"] == "***"
    assert emptied[1]["password"] is None
    assert deleted[0]["id"] == 1
    assert deleted[1] is None
    everything = connection.execute("select string_agg(audit_logs::text, '') from app.audit_logs")
    assert "hunter" not in str(everything.fetchone())


def test_who_acted_and_from_where_is_written(connection: psycopg.Connection[Any]) -> None:
    add_thing(connection)
    with connection.transaction():
        connection.execute("set local role authenticated")
        connection.execute("select set_config('request.jwt.claim.sub', %s, true)", (str(ALICE),))
        connection.execute(
            "select set_config('request.headers', %s, true)",
            ('{"x-forwarded-for": "203.0.113.9, 10.0.0.1", "user-agent": "Browser/1"}',),
        )
        connection.execute("update app.things set name = 'desk'")
    assert audited(connection, "user_id, actor, host(ip_address), user_agent") == [
        (None, who(connection), None, "warehouse"),
        (ALICE, f"{who(connection)} as authenticated", "203.0.113.9", "Browser/1"),
    ]


def who(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("select session_user::text").fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize(
    "headers",
    [
        "{",
        "[]",
        "7",
        '"x"',
        '{"x-forwarded-for": "not an address"}',
        '{"x-forwarded-for": 7}',
        "{}",
        '{"user-agent": {"a": "\\u0000"}}',
        '{"x-forwarded-for": ""}',
        "null",
    ],
)
def test_a_malformed_header_never_fails_the_write(
    connection: psycopg.Connection[Any], headers: str
) -> None:
    with connection.transaction():
        connection.execute("select set_config('request.headers', %s, true)", (headers,))
        add_thing(connection)
    assert audited(connection, "action::text, ip_address") == [("create", None)]


def test_a_user_who_goes_leaves_the_trail_without_a_name(
    connection: psycopg.Connection[Any],
) -> None:
    add_thing(connection)
    add_thing(connection, id=2, user_id=BOB)
    with connection.transaction():
        connection.execute("select set_config('request.jwt.claim.sub', %s, true)", (str(ALICE),))
        connection.execute("delete from app.users where id = %s", (ALICE,))
    assert audited(connection, "action::text, entity_id, owner_user_id, user_id") == [
        ("create", "1", None, None),
        ("create", "2", BOB, None),
        ("delete", "1", None, None),
    ]


def test_a_child_takes_its_parents_owner(connection: psycopg.Connection[Any]) -> None:
    add_thing(connection, user_id=BOB)
    connection.execute("insert into app.parts (id, thing_id) values (1, 1)")
    connection.execute("insert into app.parts values (2, 1, %s)", (ALICE,))
    found = connection.execute("select id, thing_id, user_id from app.parts order by id").fetchall()
    assert found == [(1, 1, BOB), (2, 1, ALICE)]
    for thing in (99, None):
        with pytest.raises(errors.ForeignKeyViolation):
            connection.execute("insert into app.parts (id, thing_id) values (3, %s)", (thing,))


def test_a_parent_that_row_security_hides_cannot_be_named(
    connection: psycopg.Connection[Any],
) -> None:
    add_thing(connection, user_id=BOB)
    with connection.transaction():
        connection.execute("set local role app_owner")
        connection.execute(
            "alter table app.things enable row level security, force row level security;"
            "create policy own on app.things to authenticated"
            " using (user_id = (select auth.uid()))"
        )
    with connection.transaction(force_rollback=True):
        connection.execute("set local role authenticated")
        connection.execute("select set_config('request.jwt.claim.sub', %s, true)", (str(ALICE),))
        with pytest.raises(errors.ForeignKeyViolation):
            connection.execute("insert into app.parts (id, thing_id) values (1, 1)")


@pytest.mark.parametrize(
    "statement",
    ["update app.diary set note = 'x'", "delete from app.diary", "truncate app.diary"],
)
def test_what_only_grows_is_changed_by_its_owner_alone(
    connection: psycopg.Connection[Any], statement: str
) -> None:
    with connection.transaction():
        connection.execute("set local role app_owner")
        connection.execute(
            """
            create table app.diary (note text);
            create trigger refuse before update or delete on app.diary
            for each row execute function app.refuse_change();
            create trigger refuse_truncate before truncate on app.diary
            for each statement execute function app.refuse_change();
            grant select, insert, update, delete, truncate on app.diary to etl;
            insert into app.diary values ('first');
            """
        )
    with connection.transaction(force_rollback=True):
        connection.execute("set local role etl")
        with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
            connection.execute(statement)
    for role in ("app_owner", "rls_definer"):
        with connection.transaction(force_rollback=True):
            connection.execute(f"set local role {role}")
            connection.execute(statement)
            left = connection.execute("select count(*) from app.diary where note = 'first'")
            assert left.fetchone() == (0,)
