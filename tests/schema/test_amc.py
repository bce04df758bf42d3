"""AMC accounts, instances, workflows and executions: what the database holds and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors

from flows.settings import Connection
from flows.warehouse.connection import connect
from tests.schema.test_accounts import add_user, one, tenant


@pytest.fixture
def session(database: Connection) -> Iterator[psycopg.Connection[Any]]:
    with connect(autocommit=True) as session:
        yield session


def add_instance(session: psycopg.Connection[Any], user: UUID, instance_id: str = "amcabc") -> UUID:
    account = one(
        session,
        "insert into app.amc_accounts (user_id, account_id, marketplace_id, region)"
        " values (%s, 'ENTITY1', 'ATVPDKIKX0DER', 'NA') returning id",
        user,
    )
    return one(
        session,
        "insert into app.amc_instances (account_id, instance_id, instance_name, region)"
        " values (%s, %s, 'An instance', 'NA') returning id",
        account,
        instance_id,
    )


def add_workflow(session: psycopg.Connection[Any], user: UUID, instance: UUID | None) -> UUID:
    return one(
        session,
        "insert into app.workflows (user_id, instance_id, workflow_id, name, sql_query)"
        " values (%s, %s, 'weekly', 'Weekly', 'select 1') returning id",
        user,
        instance,
    )


def add_execution(session: psycopg.Connection[Any], workflow: UUID, **changed: object) -> UUID:
    row = {"workflow_id": workflow, "execution_id": "e1", **changed}
    return one(
        session,
        f"insert into app.workflow_executions ({', '.join(row)})"
        f" values ({', '.join(['%s'] * len(row))}) returning id",
        *row.values(),
    )


def test_two_tenants_connect_one_instance_and_neither_sees_the_other(
    session: psycopg.Connection[Any],
) -> None:
    """Base table: `instance_id text unique` would refuse the second, and so tell of the first."""
    users = add_user(session, "anna"), add_user(session, "bert")
    for user in users:
        add_execution(session, add_workflow(session, user, add_instance(session, user)))
    for user in users:
        with tenant(session, user):
            for table in ("amc_accounts", "amc_instances", "workflows", "workflow_executions"):
                assert session.execute(f"select user_id from {table}").fetchall() == [(user,)]


def test_a_workflow_runs_on_an_instance_of_its_tenant(session: psycopg.Connection[Any]) -> None:
    anna, bert = add_user(session, "anna"), add_user(session, "bert")
    instance = add_instance(session, anna)
    with pytest.raises(errors.ForeignKeyViolation):
        add_workflow(session, bert, instance)
    with pytest.raises(errors.CheckViolation, match="run_on_an_instance"):
        add_workflow(session, anna, None)


def test_a_workflow_is_not_deleted_while_it_has_executions(
    session: psycopg.Connection[Any],
) -> None:
    """Erratum: ON DELETE CASCADE from workflows erases a year of history."""
    user = add_user(session)
    workflow = add_workflow(session, user, add_instance(session, user))
    add_execution(session, workflow)
    for table in ("workflows", "amc_instances", "amc_accounts"):
        with pytest.raises(errors.IntegrityError):
            session.execute(f"delete from app.{table}")
    with pytest.raises(errors.IntegrityError), tenant(session, user):
        session.execute("delete from workflows")


def test_a_tenant_edits_workflows_and_only_reads_executions(
    session: psycopg.Connection[Any],
) -> None:
    user = add_user(session)
    instance = add_instance(session, user)
    with tenant(session, user):
        session.execute(
            "insert into workflows (user_id, instance_id, workflow_id, name, sql_query)"
            " values (%s, %s, 'mine', 'Mine', 'select 1')",
            (user, instance),
        )
        session.execute("update workflows set name = 'Still mine', deleted_at = now()")
    workflow = add_workflow(session, user, instance)
    add_execution(session, workflow)
    for hostile in (
        "update workflow_executions set status = 'succeeded'",
        "delete from workflow_executions",
        f"insert into workflow_executions (workflow_id, execution_id) values ('{workflow}', 'e2')",
        "update workflows set amc_workflow_id = 'other'",
        "delete from amc_instances",
    ):
        with pytest.raises(errors.InsufficientPrivilege), tenant(session, user):
            session.execute(hostile)


def test_an_execution_that_cannot_be_is_refused(
    session: psycopg.Connection[Any], subtests: pytest.Subtests
) -> None:
    user = add_user(session)
    workflow = add_workflow(session, user, add_instance(session, user))
    for wrong in (
        {"status": "completed"},
        {"status": "succeeded"},
        {"status": "running", "completed_at": "2026-01-05Z"},
        {"status": "failed", "started_at": "2026-01-06Z", "completed_at": "2026-01-05Z"},
        {"attempt": 0},
        {"row_count": -1},
        {"size_bytes": -1},
        {"execution_parameters": "[]"},
    ):
        with subtests.test(str(wrong)), pytest.raises(errors.CheckViolation):
            add_execution(session, workflow, **wrong)


def test_a_word_of_amazon_that_is_not_known_is_kept_and_is_not_running(
    session: psycopg.Connection[Any],
) -> None:
    user = add_user(session)
    workflow = add_workflow(session, user, add_instance(session, user))
    add_execution(session, workflow, status="unknown", remote_status="PUBLISHING")
    found = session.execute("select status, remote_status from app.workflow_executions")
    assert found.fetchall() == [("unknown", "PUBLISHING")]


def test_an_execution_of_amazon_is_recorded_once(session: psycopg.Connection[Any]) -> None:
    user = add_user(session)
    workflow = add_workflow(session, user, add_instance(session, user))
    add_execution(session, workflow, amc_execution_id="x")
    with pytest.raises(errors.UniqueViolation, match="one_per_amc_execution"):
        add_execution(session, workflow, execution_id="e2", amc_execution_id="x")
