"""Tenants, their connected accounts, tokens and syncs: what the database holds and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from alembic import command
from cryptography.fernet import Fernet
from psycopg import errors

from flows.settings import Connection
from flows.warehouse import migrate
from flows.warehouse.connection import connect

SEALED = Fernet(Fernet.generate_key()).encrypt(b"a token").decode()


def add_user(session: psycopg.Connection[Any], name: str = "anna") -> UUID:
    """A tenant with the address `name@example.com`."""
    return one(
        session,
        "insert into app.users (email, password_hash, first_name, last_name)"
        " values (%s, 'hash', %s, 'Example') returning id",
        f"{name}@example.com",
        name,
    )


def add_account(
    session: psycopg.Connection[Any],
    user: UUID,
    amazon_account_id: str = "amzn1.ads-account.g.1",
    account_type: str = "advertising",
    **further: object,
) -> UUID:
    """A connected account of the tenant; `further` sets columns."""
    row = {
        "user_id": user,
        "account_name": "An account",
        "amazon_account_id": amazon_account_id,
        "account_type": account_type,
        **further,
    }
    return one(
        session,
        f"insert into app.user_accounts ({', '.join(row)})"
        f" values ({', '.join(['%s'] * len(row))}) returning id",
        *row.values(),
    )


def one(session: psycopg.Connection[Any], query: str, *values: object) -> Any:
    """The first column of the only row."""
    (row,) = session.execute(query, values).fetchall()
    return row[0]


@contextmanager
def tenant(session: psycopg.Connection[Any], user: UUID) -> Iterator[None]:
    """Be that tenant for a transaction, which is rolled back."""
    with session.transaction(force_rollback=True):
        session.execute("set local role authenticated")
        session.execute("select set_config('request.jwt.claim.sub', %s, true)", (str(user),))
        yield


@pytest.fixture
def session(database: Connection) -> Iterator[psycopg.Connection[Any]]:
    with connect(autocommit=True) as session:
        yield session


def test_an_address_is_free_again_when_its_tenant_is_closed(
    session: psycopg.Connection[Any],
) -> None:
    """Erratum: users.email UNIQUE with soft delete; 'a@X' is 'A@x'."""
    first = add_user(session, "anna")
    with pytest.raises(errors.UniqueViolation):
        add_user(session, "ANNA")
    session.execute("update app.users set deleted_at = now() where id = %s", (first,))
    add_user(session, "ANNA")


def test_a_tenant_edits_the_own_name_and_nothing_else_of_the_own_row(
    session: psycopg.Connection[Any],
) -> None:
    anna, bert = add_user(session, "anna"), add_user(session, "bert")
    with tenant(session, anna):
        assert session.execute("select id from users").fetchall() == [(anna,)]
        session.execute("update users set first_name = 'Ann'")
    for forbidden in (
        "select password_hash from users",
        "update users set role = 'admin'",
        "update users set subscription_tier = 'enterprise'",
        "update users set email = 'other@example.com'",
    ):
        with pytest.raises(errors.InsufficientPrivilege), tenant(session, anna):
            session.execute(forbidden)
    assert one(session, "select first_name from app.users where id = %s", bert) == "bert"


def test_an_account_id_that_does_not_fit_is_refused(
    session: psycopg.Connection[Any], subtests: pytest.Subtests
) -> None:
    user = add_user(session)
    for kind, amazon_account_id in (
        ("dsp", "A123"),
        ("dsp", "12 3"),
        ("dsp", ""),
        ("advertising", ""),
        ("sponsored", "1"),
    ):
        with (
            subtests.test(f"{kind} {amazon_account_id}"),
            pytest.raises(errors.CheckViolation),
        ):
            add_account(session, user, amazon_account_id, kind)


def test_an_account_is_connected_once_per_tenant_and_one_is_the_default(
    session: psycopg.Connection[Any],
) -> None:
    anna, bert = add_user(session, "anna"), add_user(session, "bert")
    add_account(session, anna, "a1", is_default=True)
    add_account(session, bert, "a1", is_default=True)
    with pytest.raises(errors.UniqueViolation, match="idx_user_accounts_user_amazon"):
        add_account(session, anna, "a1")
    with pytest.raises(errors.UniqueViolation, match="one_default_per_user"):
        add_account(session, anna, "a2", is_default=True)


def add_token(session: psycopg.Connection[Any], account: UUID, **changed: object) -> UUID:
    row = {
        "user_id": one(session, "select user_id from app.user_accounts where id = %s", account),
        "user_account_id": account,
        "access_token": SEALED,
        "refresh_token": SEALED,
        "key_id": "k1",
        "expires_at": "2030-01-01Z",
        **changed,
    }
    return one(
        session,
        f"insert into app.oauth_tokens ({', '.join(row)})"
        f" values ({', '.join(['%s'] * len(row))}) returning id",
        *row.values(),
    )


def test_a_plain_token_is_refused_and_not_repeated_in_the_error(
    session: psycopg.Connection[Any],
) -> None:
    account = add_account(session, add_user(session))
    for column in ("access_token", "refresh_token"):
        with pytest.raises(errors.CheckViolation, match="fernet_token_is_sealed") as refused:
            add_token(session, account, **{column: "Atza|CANARY"})
        told = [getattr(refused.value.diag, part) for part in dir(refused.value.diag)]
        assert "CANARY" not in f"{refused.value} {told}"


def test_tokens_are_of_an_account_of_their_tenant_and_one_set_is_active(
    session: psycopg.Connection[Any],
) -> None:
    anna, bert = add_user(session, "anna"), add_user(session, "bert")
    account = add_account(session, anna)
    with pytest.raises(errors.ForeignKeyViolation):
        add_token(session, account, user_id=bert)
    add_token(session, account, user_id=None)
    with pytest.raises(errors.UniqueViolation, match="one_active_per_account"):
        add_token(session, account)
    add_token(session, account, is_active=False)
    with tenant(session, anna):
        assert one(session, "select count(*) from oauth_tokens") == 2
    with tenant(session, bert):
        assert one(session, "select count(*) from oauth_tokens") == 0
    for column in ("access_token", "refresh_token"):
        with pytest.raises(errors.InsufficientPrivilege), tenant(session, anna):
            session.execute(f"select {column} from oauth_tokens")


def test_the_migration_says_how_accounts_from_before_stand(
    session: psycopg.Connection[Any],
) -> None:
    """Erratum: `WHERE sync_status IS NULL` after a DEFAULT finds no row."""
    command.downgrade(migrate.alembic_config(), "0006")
    user = add_user(session)
    before = {
        status: add_account(session, user, f"a-{status}", status=status, last_synced_at=synced)
        for status, synced in {
            "active": "2026-01-05Z",
            "pending": None,
            "suspended": None,
            "disconnected": "2026-01-06Z",
        }.items()
    }
    migrate.upgrade()
    after = {
        row[0]: row[1:]
        for row in session.execute(
            """
            select
                id,
                sync_status,
                next_sync_at between now() + interval '50 minutes' and now() + interval '1 hour',
                last_sync_attempt_at is not distinct from last_synced_at,
                last_sync_change_at
            from app.user_accounts
            """
        )
    }
    assert after == {
        before["active"]: ("completed", True, True, None),
        before["pending"]: ("pending", True, True, None),
        before["suspended"]: ("failed", True, True, None),
        before["disconnected"]: ("failed", True, True, None),
    }


def test_requests_of_a_window_are_counted_by_an_upsert(session: psycopg.Connection[Any]) -> None:
    """Erratum: rate_limit_tracking without a unique key."""
    user = add_user(session)
    for _ in range(3):
        session.execute(
            """
            insert into app.rate_limit_tracking as held (
                user_id, endpoint, request_count, window_start
            )
            values (%s, 'POST /adsAccounts/list', 1, '2026-01-05 10:00Z')
            on conflict (user_id, endpoint, window_start) do update
            set request_count = held.request_count + excluded.request_count
            """,
            (user,),
        )
    assert one(session, "select request_count from app.rate_limit_tracking") == 3


def test_a_sync_record_that_cannot_be_is_refused(
    session: psycopg.Connection[Any], subtests: pytest.Subtests
) -> None:
    """Erratum: "check constraints ensure only valid states", and there were none."""
    account = add_account(session, add_user(session))
    add_sync(session, account)
    for wrong in (
        {"sync_type": "hourly"},
        {"sync_status": "completed"},
        {"accounts_synced": -1},
        {"accounts_failed": -1},
        {"completed_at": "2026-01-04Z"},
        {"completed_at": None},
        {"sync_status": "started"},
        {"metadata": "[]"},
        {"error_details": '"text"'},
    ):
        with subtests.test(str(wrong)), pytest.raises(errors.CheckViolation):
            add_sync(session, account, **wrong)


def add_sync(session: psycopg.Connection[Any], account: UUID | None, **changed: object) -> UUID:
    row = {
        "user_account_id": account,
        "sync_type": "manual",
        "sync_status": "success",
        "started_at": "2026-01-05Z",
        "completed_at": "2026-01-05 00:01Z",
        **changed,
    }
    return one(
        session,
        f"insert into app.account_sync_history ({', '.join(row)})"
        f" values ({', '.join(['%s'] * len(row))}) returning id",
        *row.values(),
    )


def test_a_deleted_account_leaves_its_history_and_says_whose_it_was(
    session: psycopg.Connection[Any],
) -> None:
    user = add_user(session)
    account = add_account(session, user, "a1")
    add_sync(session, account)
    session.execute("delete from user_accounts")
    with tenant(session, user):
        assert session.execute(
            "select user_id, user_account_id, kept_account_id, amazon_account_id"
            " from account_sync_history"
        ).fetchall() == [(user, None, str(account), "a1")]


def test_a_sync_of_the_whole_list_belongs_to_a_tenant(session: psycopg.Connection[Any]) -> None:
    add_sync(session, None, user_id=add_user(session))
    with pytest.raises(errors.IntegrityError):
        add_sync(session, None)


def test_tenants_read_their_own_history_and_limits_and_write_neither(
    session: psycopg.Connection[Any],
) -> None:
    """Erratum: FOR ALL lets a tenant forge history and reset the own rate limit."""
    users = add_user(session, "anna"), add_user(session, "bert")
    for user in users:
        add_sync(session, add_account(session, user))
        session.execute(
            "insert into app.rate_limit_tracking (user_id, endpoint) values (%s, '/x')", (user,)
        )
    for table in ("account_sync_history", "rate_limit_tracking"):
        with tenant(session, users[0]):
            assert session.execute(f"select user_id from {table}").fetchall() == [(users[0],)]
        for hostile in (
            f"delete from {table}",
            f"update {table} set created_at = now()",
            f"insert into {table} (user_id) values ('{users[0]}')",
        ):
            with pytest.raises(errors.InsufficientPrivilege), tenant(session, users[0]):
                session.execute(hostile)


INDEXES = [
    "idx_users_email",
    "idx_users_role",
    "idx_oauth_tokens_expires_at",
    "idx_user_accounts_user_amazon",
    "idx_user_accounts_metadata",
    "idx_sync_history_account",
    "idx_sync_history_status",
    "idx_sync_history_started",
    "idx_rate_limit_user",
    "idx_rate_limit_endpoint",
    "idx_rate_limit_window",
    "idx_user_accounts_seats_metadata",
    "idx_dsp_seats_sync_user_account",
    "idx_dsp_seats_sync_advertiser",
    "idx_dsp_seats_sync_created",
]


def test_the_indexes_of_the_specifications_exist(session: psycopg.Connection[Any]) -> None:
    """Errata: the base tables are assumed; INDEX inside CREATE TABLE is a syntax error."""
    found = session.execute(
        "select indexname from pg_indexes where schemaname = 'app' and indexname = any(%s)",
        (INDEXES,),
    )
    assert {name for (name,) in found} == set(INDEXES)


def test_no_migration_copies_secrets_into_a_backup_table(session: psycopg.Connection[Any]) -> None:
    """Erratum: "backup tables" as the backup step."""
    assert one(session, r"select count(*) from pg_class where relname like '%%\_backup'") == 0


def test_an_sqp_label_belongs_to_one_tenant(session: psycopg.Connection[Any]) -> None:
    anna, bert = add_user(session, "anna"), add_user(session, "bert")
    account = add_account(session, anna)
    insert = "insert into app.sqp_accounts (account_id, user_id, user_account_id) values (%s,%s,%s)"
    session.execute(insert, ("Acme", anna, account))
    with pytest.raises(errors.UniqueViolation):
        session.execute(insert, ("Acme", bert, None))
    with pytest.raises(errors.ForeignKeyViolation):
        session.execute(insert, ("Other", bert, account))
    session.execute("delete from app.user_accounts")
    assert session.execute("select user_id, user_account_id from app.sqp_accounts").fetchall() == [
        (anna, None)
    ]


def test_a_tenant_with_accounts_is_not_deleted_by_a_slip(session: psycopg.Connection[Any]) -> None:
    add_account(session, user := add_user(session))
    with pytest.raises(errors.IntegrityError):
        session.execute("delete from app.users where id = %s", (user,))
