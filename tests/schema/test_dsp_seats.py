"""Seats of DSP advertisers: the documents, the syncs, the seats and what became of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from alembic import command
from psycopg import errors
from psycopg.types.json import Jsonb

from flows.settings import Connection
from flows.warehouse import migrate
from flows.warehouse.connection import connect
from tests.schema.test_accounts import add_account, add_user, one, tenant

DEFAULT: dict[str, object] = {
    "exchanges": [],
    "last_seats_sync": None,
    "total_seats": 0,
    "sync_status": "pending",
}
ADVERTISER = "9007199254740993"
"""An id that a double would round: it is beyond 2^53."""


@pytest.fixture
def session(database: Connection) -> Iterator[psycopg.Connection[Any]]:
    with connect(autocommit=True) as session:
        yield session


@pytest.fixture
def user(session: psycopg.Connection[Any]) -> UUID:
    return add_user(session)


@pytest.fixture
def account(session: psycopg.Connection[Any], user: UUID) -> UUID:
    return add_account(session, user, ADVERTISER, "dsp")


def add_sync(
    session: psycopg.Connection[Any],
    account: UUID | None,
    status: str = "success",
    advertiser: str = ADVERTISER,
) -> UUID:
    """As the specification inserts it: without the tenant."""
    return one(
        session,
        "insert into app.dsp_seats_sync_log (user_account_id, advertiser_id, sync_status)"
        " values (%s, %s, %s) returning id",
        account,
        advertiser,
        status,
    )


def add_seat(session: psycopg.Connection[Any], account: UUID, deal: str = "d1") -> UUID:
    return one(
        session,
        "insert into app.dsp_seats"
        " (user_account_id, exchange_id, exchange_name, seat_id, deal_creation_id)"
        " values (%s, '1', 'Google Ad Manager', %s, %s) returning id",
        account,
        deal,
        deal,
    )


def write_document(session: psycopg.Connection[Any], account: UUID, **changed: object) -> None:
    session.execute(
        "update app.user_accounts set seats_metadata = seats_metadata || %s where id = %s",
        (Jsonb(changed), account),
    )


def times(
    session: psycopg.Connection[Any], account: UUID
) -> tuple[datetime | None, datetime | None, datetime | None]:
    """Last attempt, last success, last change."""
    (row,) = session.execute(
        "select last_sync_attempt_at, last_synced_at, last_sync_change_at"
        " from app.user_accounts where id = %s",
        (account,),
    ).fetchall()
    return row


def test_dsp_accounts_from_before_the_migration_get_the_default_document(
    session: psycopg.Connection[Any],
) -> None:
    command.downgrade(migrate.alembic_config(), "0008")
    user = add_user(session)
    before = add_account(session, user, "1", "dsp"), add_account(session, user, "a")
    session.execute("update app.user_accounts set last_synced_at = '2026-01-05Z'")
    migrate.upgrade()
    after = dict(session.execute("select id, seats_metadata from app.user_accounts").fetchall())
    assert after == {before[0]: DEFAULT, before[1]: {}}
    assert one(session, "select bool_and(last_synced_at = '2026-01-05Z') from app.user_accounts"), (
        "the migration is no sync"
    )


def test_new_dsp_accounts_get_the_default_document(
    session: psycopg.Connection[Any], user: UUID
) -> None:
    """Erratum: new DSP accounts get `{}`."""
    add_account(session, user, "1", "dsp")
    add_account(session, user, "2", "dsp", seats_metadata=None)
    changed = add_account(session, user, "3")
    assert one(session, "select seats_metadata from app.user_accounts where id = %s", changed) == {}
    session.execute("update app.user_accounts set account_type = 'dsp' where id = %s", (changed,))
    found = session.execute("select seats_metadata, last_synced_at from app.user_accounts")
    assert found.fetchall() == [(DEFAULT, None)] * 3


def test_a_failed_attempt_is_no_sync(session: psycopg.Connection[Any], account: UUID) -> None:
    """Erratum: the trigger set last_synced_at whenever the document changed."""
    assert times(session, account) == (None, None, None)
    write_document(session, account, sync_status="failed")
    tried, synced, changed = times(session, account)
    assert tried
    assert (synced, changed) == (None, None)

    seat = {"exchange_id": "1", "exchange_name": "Google Ad Manager"}
    write_document(session, account, sync_status="success", exchanges=[seat], total_seats=1)
    success = times(session, account)
    assert None not in success
    assert success[0] == success[1]

    write_document(session, account, last_seats_sync="2026-01-05T00:00:00Z")
    again = times(session, account)
    assert again[1] is not None
    assert success[1] is not None
    assert again[1] > success[1], "a sync that finds the same is a success"
    assert again[2] == success[2], "and no change"

    for status in ("partial", "pending", "failed"):
        write_document(session, account, sync_status=status)
        session.execute("update app.user_accounts set account_name = 'no sync at all'")
        assert times(session, account)[1:] == again[1:]


def test_a_document_that_the_search_would_miss_is_refused(
    session: psycopg.Connection[Any], account: UUID, subtests: pytest.Subtests
) -> None:
    """Erratum: documented keys are snake_case, the API sends camelCase."""
    documents: list[dict[str, object]] = [
        {"exchanges": [{"exchangeId": "1", "exchangeName": "Google Ad Manager"}]},
        {"exchanges": [{"exchange_id": "1"}]},
        {"exchanges": "none"},
        {"exchanges": ["1"]},
        {"sync_status": "completed"},
    ]
    for document in documents:
        with (
            subtests.test(str(document)),
            pytest.raises(errors.CheckViolation, match="seats_are_as_documented"),
        ):
            write_document(session, account, **document)


def test_the_example_queries_of_the_specification(
    session: psycopg.Connection[Any], user: UUID, account: UUID
) -> None:
    add_account(session, user, "2", "dsp")
    add_seat(session, account)
    session.execute(
        "update app.user_accounts"
        " set seats_metadata = app.seats_metadata_of(id, 'success', '2026-01-05 10:00Z')"
        " where id = %s",
        (account,),
    )
    for _ in range(11):
        add_sync(session, account)
    with session.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        found = cursor.execute(
            """
            SELECT * FROM user_accounts
            WHERE account_type = 'dsp'
            AND seats_metadata @> '{"exchanges": [{"exchange_name": "Google Ad Manager"}]}';
            """
        ).fetchall()
        assert [row["id"] for row in found] == [account]
        document = found[0]["seats_metadata"]
        assert (document["total_seats"], document["sync_status"]) == (1, "success")
        assert document["last_seats_sync"] == "2026-01-05T10:00:00+00:00"
        assert set(document["exchanges"][0]) == {
            "exchange_id",
            "exchange_name",
            "deal_creation_id",
            "spend_tracking_id",
            "added_at",
        }
        newest = cursor.execute(
            """
            SELECT * FROM dsp_seats_sync_log
            WHERE advertiser_id = %s
            ORDER BY created_at DESC
            LIMIT 10;
            """,
            (ADVERTISER,),
        ).fetchall()
    assert len(newest) == 10
    assert [row["created_at"] for row in newest] == sorted(
        (row["created_at"] for row in newest), reverse=True
    )


@pytest.mark.parametrize("running", ["pending", "in_progress"])
def test_a_sync_in_progress_is_recorded_and_excludes_a_second(
    session: psycopg.Connection[Any], user: UUID, account: UUID, running: str
) -> None:
    """Erratum: success, failed and partial only."""
    add_sync(session, account, "failed")
    first = add_sync(session, account, running)
    with pytest.raises(errors.UniqueViolation, match="one_running_per_account"):
        add_sync(session, account, "pending")
    add_sync(session, add_account(session, user, "2", "dsp"), running, "2")
    session.execute(
        "update app.dsp_seats_sync_log set sync_status = 'success', completed_at = now()"
        " where id = %s",
        (first,),
    )
    add_sync(session, account, running)


def test_other_states_of_a_sync_are_refused(
    session: psycopg.Connection[Any], account: UUID
) -> None:
    for status in ("completed", "started", ""):
        with pytest.raises(errors.CheckViolation):
            add_sync(session, account, status)


def test_seats_are_of_numeric_advertisers_and_dsp_accounts_only(
    session: psycopg.Connection[Any], user: UUID, account: UUID
) -> None:
    """Erratum: both rules were enforced nowhere."""
    with pytest.raises(errors.CheckViolation, match="advertiser_is_numeric"):
        add_sync(session, account, advertiser="ENTITY1")
    other = add_account(session, user, "a")
    with pytest.raises(errors.ForeignKeyViolation):
        add_sync(session, other)
    with pytest.raises(errors.ForeignKeyViolation):
        add_seat(session, other)


@pytest.mark.parametrize("add", [add_sync, add_seat])
def test_a_dsp_account_with_syncs_or_seats_stays_one(
    session: psycopg.Connection[Any], account: UUID, add: Any
) -> None:
    change = "update app.user_accounts set account_type = 'advertising'"
    with session.transaction(force_rollback=True):
        session.execute(change)
    add(session, account)
    with pytest.raises(errors.CheckViolation, match="is_of_a_dsp_account"):
        session.execute(change)


def test_a_deleted_account_leaves_its_syncs_and_its_seats_history(
    session: psycopg.Connection[Any], user: UUID, account: UUID
) -> None:
    """Erratum: ON DELETE CASCADE erases the audit trail."""
    add_sync(session, account, "in_progress")
    add_seat(session, account)
    kept = [(user, None, str(account), ADVERTISER)]
    session.execute("delete from user_accounts")
    with tenant(session, user):
        for table in ("dsp_seats_sync_log", "dsp_seats_history"):
            found = session.execute(
                f"select user_id, user_account_id, kept_account_id, advertiser_id from {table}"
            )
            assert found.fetchall() == kept
        assert one(session, "select count(*) from dsp_seats") == 0


def test_the_history_tells_new_changed_and_removed_seats(
    session: psycopg.Connection[Any], account: UUID
) -> None:
    """Erratum: one document, written over, cannot show what changed."""
    seat = add_seat(session, account)
    for assignment in (
        "last_seen_at = clock_timestamp()",
        "spend_tracking_id = 's1'",
        "spend_tracking_id = 's2', exchange_name = 'Google'",
        "removed_at = clock_timestamp()",
        "removed_at = null",
    ):
        session.execute(f"update app.dsp_seats set {assignment} where id = %s", (seat,))
    told = session.execute(
        "select change_type, spend_tracking_id, previous_spend_tracking_id, previous_exchange_name"
        " from app.dsp_seats_history order by id"
    ).fetchall()
    assert told == [
        ("new", None, None, None),
        ("changed", "s1", None, "Google Ad Manager"),
        ("changed", "s2", "s1", "Google Ad Manager"),
        ("removed", "s2", None, None),
        ("new", "s2", None, None),
    ]
    with pytest.raises(errors.UniqueViolation, match="one_per_account_exchange_and_seat"):
        add_seat(session, account)
    with pytest.raises(errors.CheckViolation, match="seat_id_is_the_most_telling"):
        session.execute("update app.dsp_seats set seat_id = 'other'")


def test_the_steps_of_a_sync_do_not_write_five_thousand_seats_again(
    session: psycopg.Connection[Any], user: UUID, account: UUID
) -> None:
    """Erratum: 20 status flips of 5,000 seats wrote 17 MB of WAL."""
    session.execute(
        """
        insert into app.dsp_seats (
            user_id, user_account_id, exchange_id, exchange_name, seat_id, deal_creation_id
        )
        select
            %s, %s, (number %% 50)::text, 'Exchange ' || number %% 50, 'd' || number, 'd' || number
        from generate_series(1, 5000) as numbers (number)
        """,
        (user, account),
    )
    session.execute(
        "update app.user_accounts"
        " set seats_metadata = app.seats_metadata_of(id, 'success', clock_timestamp())"
    )
    session.execute("checkpoint")
    before = one(session, "select pg_current_wal_insert_lsn()")
    for status in ("in_progress", "completed") * 10:
        session.execute("update app.user_accounts set sync_status = %s", (status,))
    written = one(session, "select pg_current_wal_insert_lsn() - %s::pg_lsn", before)
    assert written < 1_000_000
    assert one(session, "select seats_metadata -> 'total_seats' from app.user_accounts") == 5000


def test_tenants_read_their_own_seats_and_write_none(
    session: psycopg.Connection[Any], user: UUID, account: UUID
) -> None:
    other = add_account(session, add_user(session, "bert"), "2", "dsp")
    for owned in (account, other):
        add_sync(session, owned)
        add_seat(session, owned)
    for table in ("dsp_seats_sync_log", "dsp_seats", "dsp_seats_history"):
        with tenant(session, user):
            assert session.execute(f"select user_id from {table}").fetchall() == [(user,)]
        for hostile in (f"delete from {table}", f"update {table} set user_id = user_id"):
            with pytest.raises(errors.InsufficientPrivilege), tenant(session, user):
                session.execute(hostile)
    with pytest.raises(errors.InsufficientPrivilege), tenant(session, user):
        session.execute("update user_accounts set seats_metadata = '{}'")
