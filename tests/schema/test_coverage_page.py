"""Every object of the specifications stands, differences have reasons, and the page says so."""

from __future__ import annotations

import dataclasses
import json

import pytest
import typer
from typer.testing import CliRunner

from flows.commands import coverage as command
from flows.errors import ExitCode, WarehouseError
from flows.settings import PROJECT_ROOT
from flows.warehouse.connection import connect
from flows.warehouse.coverage import (
    COMMAND,
    Kind,
    State,
    faults,
    load_list,
    look_up,
    page,
    read_catalogue,
)

PAGE = PROJECT_ROOT / "docs/seed-coverage.md"

app = typer.Typer()
command.register(app)
app.command("other")(lambda: None)


def found(changes: str | None = None):
    """The standing of each object, after changes that are taken back."""
    with connect() as connection:
        if changes:
            connection.execute(changes)
        standings = look_up(load_list(), read_catalogue(connection))
        connection.rollback()
    return standings


def test_nothing_is_missing_and_each_difference_has_a_reason_that_is_not_stale(database):
    assert faults(found()) == []


def test_the_page_is_what_the_command_writes(database, tmp_path):
    written = tmp_path / "page.md"
    result = CliRunner().invoke(app, ["seed-coverage", "--write", str(written)])
    assert result.exit_code == ExitCode.DONE, result.output
    assert PAGE.read_text() == written.read_text(), f"the page is old: run `{COMMAND}`"


GONE = {
    "drop index app.idx_ads_status": (Kind.INDEX, "idx_ads_status"),
    "drop table app.rate_limit_tracking": (Kind.TABLE, "rate_limit_tracking"),
    "alter table app.ads drop column name": (Kind.COLUMN, "ads.name"),
    "drop trigger update_dashboards_updated_at on app.dashboards": (
        Kind.TRIGGER,
        "dashboards.update_dashboards_updated_at",
    ),
    "drop policy tenant_select on app.account_sync_history": (
        Kind.POLICY,
        "account_sync_history.account_sync_history_policy",
    ),
    "alter table app.ai_insights drop constraint ai_insights_dashboard_id_fkey": (
        Kind.FOREIGN_KEY,
        "ai_insights (dashboard_id)",
    ),
    "drop function sqp.check_data_freshness()": (Kind.FUNCTION, "sqp.check_data_freshness"),
    "alter table app.dashboards drop constraint dashboards_template_type_check": (
        Kind.LIST,
        "dashboards.template_type",
    ),
    "drop view app.slow_queries": (Kind.QUERY, "Query performance monitoring"),
    "update app.table_policies set retention_key = null, retention_keep = null"
    " where relation = 'app.user_sessions'": (Kind.RETENTION, "user_sessions"),
}

CHANGED = {
    "alter table app.ads alter column description type varchar(10)": "ads.description",
    "alter table app.ads alter column name drop not null": "ads.name",
    "alter table app.users alter column role set default 'viewer'": "users.role",
    "drop index app.idx_ads_status; create index idx_ads_status on app.ads (status)": (
        "idx_ads_status"
    ),
    "alter type app.ad_status add value 'lost'": "ad_status",
    "alter table app.ai_insights drop constraint ai_insights_dashboard_id_fkey,"
    " add foreign key (dashboard_id) references app.dashboards (id) on delete cascade": (
        "ai_insights (dashboard_id)"
    ),
}


def test_what_is_gone_is_missing(database):
    for change, (kind, name) in GONE.items():
        missing = {
            (standing.specified.kind, standing.specified.name)
            for standing in found(change)
            if standing.state is State.MISSING
        }
        assert (kind, name) in missing, change


def test_what_differs_without_a_reason_is_a_fault(database):
    for change, name in CHANGED.items():
        assert [fault for fault in faults(found(change)) if f"{name}: differs" in fault], change


def test_a_difference_that_has_a_reason_changes_the_page_when_it_changes(database):
    standings = found("alter table app.campaign_metrics alter impressions set default 1")
    assert faults(standings) == []
    assert page(standings) != PAGE.read_text()


def test_a_reason_for_what_does_not_differ_is_stale(database):
    with connect() as connection:
        catalogue = read_catalogue(connection)
    same = next(entry for entry in load_list() if entry.name == "ads.description")
    standings = look_up([dataclasses.replace(same, instead=("Once it did.",))], catalogue)
    (fault,) = faults(standings)
    assert "nothing differs" in fault


def test_what_is_held_by_a_test_that_is_gone_is_missing(database):
    with connect() as connection:
        catalogue = read_catalogue(connection)
    held = next(entry for entry in load_list() if entry.held_by)
    gone = dataclasses.replace(held, held_by=("tests/schema/test_accounts.py::test_of_yesterday",))
    assert look_up([gone], catalogue)[0].state is State.MISSING


def test_the_command_tells_what_is_missing_and_fails(database):
    with connect(autocommit=True) as connection:
        connection.execute("drop index app.idx_ads_status")
    result = CliRunner().invoke(app, ["seed-coverage", "--json"])
    assert result.exit_code == ExitCode.PARTIAL
    told = json.loads(result.output)
    assert told["faults"] == ["Multi-platform ad management, indexes, idx_ads_status: missing"]


@pytest.mark.parametrize(
    "entry",
    ["{name: users, is_now: table}", "users\n        - users"],
    ids=["unknown key", "listed twice"],
)
def test_a_list_with_a_slip_is_refused(tmp_path, entry):
    path = tmp_path / "objects.yml"
    path.write_text(
        "reasons: {}\nspecifications:\n  - title: A\n    objects:\n      tables:\n"
        f"        - {entry}\n"
    )
    with pytest.raises(WarehouseError):
        load_list(path)
