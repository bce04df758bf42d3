"""Months and quarters follow the weeks, whoever writes them, in any order and however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from psycopg import sql

from flows.settings import PROJECT_ROOT, Connection
from tests.integration.landing_rows import (
    Landing,
    Row,
    SliceOf,
    expected_weekly,
    week,
)
from tests.integration.test_dbt_models import (
    BLUE,
    DECEMBER_22,
    DECEMBER_29,
    JANUARY_5,
    JANUARY_12,
    MODELS,
    RED,
    SUMMARIES,
    Dbt,
    assert_summaries_are_exact,
    assert_summaries_hold,
    database,
    dbt,
    delivered_rows,
    landing,
    query,
    versions,
)

__all__ = ["database", "dbt", "landing"]

WEEKS = (DECEMBER_22, DECEMBER_29, JANUARY_5, JANUARY_12)
ASINS = (RED, BLUE)
SLICES = st.builds(
    week,
    st.sampled_from(WEEKS),
    st.sampled_from(ASINS),
    account=st.sampled_from(["acme", "other"]),
)


Statement = tuple[sql.Composable, list[Any]]


class Write:
    """One statement on `sqp.weekly_summary`, and what it leaves there."""

    def __init__(self, about: SliceOf, rows: list[Row] | None) -> None:
        self.about, self.rows = about, rows

    def __repr__(self) -> str:
        return f"Write({self.about}, {self.rows})"

    def statements(self, weekly: dict[SliceOf, list[Row]]) -> list[Statement]:
        """The slice's rows as they are to be: changed in place, added, deleted."""
        wanted = {row["query"]: row for row in as_summary(self.about, self.rows or [])}
        held = {row["query"]: row for row in as_summary(self.about, weekly.get(self.about, []))}
        where = sql.SQL(
            "account_id = %s and marketplace_id = %s and period_start = %s and asin = %s"
        )
        key = [self.about.account_id, self.about.marketplace_id, self.about.period_start]
        key.append(self.about.subject)
        done: list[Statement] = []
        gone = [text for text in held if text not in wanted]
        if gone:
            done.append(
                (
                    sql.SQL("delete from sqp.weekly_summary where {} and query = any(%s)").format(
                        where
                    ),
                    [*key, gone],
                )
            )
        for text, row in wanted.items():
            if text in held:
                done.append(
                    (
                        sql.SQL(
                            "update sqp.weekly_summary set ({}) = row({}) where {} and query = %s"
                        ).format(names(row), holes(row), where),
                        [*row.values(), *key, text],
                    )
                )
            else:
                done.append(
                    (
                        sql.SQL("insert into sqp.weekly_summary ({}) values ({})").format(
                            names(row), holes(row)
                        ),
                        list(row.values()),
                    )
                )
        return done


def names(row: dict[str, Any]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, row))


def holes(row: dict[str, Any]) -> sql.Composable:
    return sql.SQL(", ").join([sql.Placeholder()] * len(row))


class Held:
    """What stands in the weekly summary, as the reference reads it."""

    def __init__(self, weekly: dict[SliceOf, list[Row]]) -> None:
        self.in_force = {about: (0, rows) for about, rows in weekly.items()}


def as_summary(about: SliceOf, rows: list[Row]) -> list[dict[str, Any]]:
    """The rows as somebody would write them into `sqp.weekly_summary` by hand."""
    return [
        {**row, "sync_log_id": 1, "last_synced_at": "2025-02-01", "updated_at": "2025-02-01"}
        for row in expected_weekly(Held({about: rows}))
    ]


WRITES = st.builds(Write, SLICES, st.none() | delivered_rows())


class Summaries(RuleBasedStateMachine):
    """Deliveries, builds, direct writes and deaths, in any order."""

    landing: ClassVar[Landing]
    connection: ClassVar[Connection]
    dbt: ClassVar[Dbt]

    delivered = Bundle("delivered")

    @initialize()
    def nothing_is_there(self) -> None:
        self.landing.reset()
        self.weekly: dict[SliceOf, list[Row]] = {}
        self.waits: set[SliceOf] = set()

    @rule(target=delivered, about=SLICES, rows=delivered_rows())
    def a_slice_arrives(self, about: SliceOf, rows: list[Row]) -> SliceOf:
        """New, late, restated, partly deleted or emptied."""
        self.landing.deliver(about, rows)
        self.waits.add(about)
        return about

    @rule(about=delivered)
    def it_arrives_again(self, about: SliceOf) -> None:
        self.landing.deliver(about, self.landing.in_force[about][1])
        self.waits.add(about)

    @rule(about=delivered, weeks=st.integers(1, 5))
    def it_moves(self, about: SliceOf, weeks: int) -> None:
        rows = self.landing.in_force[about][1]
        self.landing.deliver(about, [])
        moved = about._replace(period_start=about.period_start + timedelta(weeks=weeks))
        self.landing.deliver(moved, rows)
        self.waits |= {about, moved}

    @rule(about=SLICES, rows=delivered_rows())
    def it_is_held_back(self, about: SliceOf, rows: list[Row]) -> None:
        self.landing.deliver(about, rows, held=True)

    @rule()
    def dbt_runs(self) -> None:
        self.dbt.run()
        self.took_in_what_waits()
        before = versions(self.landing)
        self.dbt.run()
        assert versions(self.landing) == before

    @rule()
    def dbt_rebuilds_all(self) -> None:
        self.dbt.run("--full-refresh")
        self.weekly = {}
        self.waits = set(self.landing.in_force)
        self.took_in_what_waits()

    @rule(at=st.sampled_from(SUMMARIES), full=st.booleans())
    def dbt_is_killed(self, at: str, full: bool) -> None:
        """Kill -9 while it waits for a table; the months and quarters are caught up by the next."""
        flags = ["--full-refresh"] if full else []
        with self.session() as session:
            session.execute("begin")
            session.execute(sql.SQL("lock table sqp.{} in share mode").format(sql.Identifier(at)))
            run = start(self.dbt, *flags)
            while run.poll() is None and not self.somebody_waits_for(at):
                time.sleep(0.05)
            run.send_signal(signal.SIGKILL)
            run.wait()
        self.until_alone()
        if full:
            self.dbt_rebuilds_all()
        else:
            self.dbt_runs()

    @rule(write=WRITES)
    def somebody_writes(self, write: Write) -> None:
        with self.session() as session:
            self.perform(session, write)

    @rule(one=WRITES, two=WRITES)
    def two_sessions_write_at_once(self, one: Write, two: Write) -> None:
        """The second waits for the first's end, whichever slices the two of them write."""
        if one.about == two.about:
            return
        with self.session() as first:
            first.execute("begin")
            self.perform(first, one)
            second = threading.Thread(target=self.write_alone, args=[two])
            second.start()
            time.sleep(0.02)
            first.execute("commit")
            second.join(timeout=60)
            assert not second.is_alive()

    @rule(write=WRITES)
    def somebody_thinks_better_of_it(self, write: Write) -> None:
        before = dict(self.weekly)
        with self.session() as session:
            session.execute("begin")
            self.perform(session, write)
            session.execute("rollback")
        self.weekly = before

    @rule()
    def the_sync_keeps_its_books(self) -> None:
        kept = {key: row for key, row in versions(self.landing).items() if key[0] != SUMMARIES[0]}
        with self.session() as session:
            session.execute(
                "update sqp.weekly_summary"
                " set bigquery_sync_id = 'job_1', sync_log_id = 7, last_synced_at = now()"
            )
        after = {key: row for key, row in versions(self.landing).items() if key[0] != SUMMARIES[0]}
        assert after == kept

    @rule()
    def everything_is_truncated(self) -> None:
        with self.session() as session:
            session.execute("truncate sqp.weekly_summary")
        self.weekly = {}

    def teardown(self) -> None:
        """Whatever was played: what is in force is what the next full refresh gives."""
        if hasattr(self, "weekly"):
            self.dbt.run("--full-refresh")
            assert_summaries_are_exact(self.landing)

    @invariant()
    def the_summaries_hold(self) -> None:
        assert_summaries_hold(self.landing, Held(self.weekly))

    def took_in_what_waits(self) -> None:
        for about in self.waits:
            self.weekly[about] = self.landing.in_force[about][1]
        self.waits = set()

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(**self.connection.libpq(), autocommit=True) as session:
            yield session

    def perform(self, session: psycopg.Connection[Any], write: Write) -> None:
        session.execute(
            "select app.create_monthly_partition('sqp.weekly_summary', %s)",
            [write.about.period_start],
        )
        for statement, parameters in write.statements(self.weekly):
            session.execute(statement, parameters)
        self.weekly[write.about] = write.rows or []

    def write_alone(self, write: Write) -> None:
        with self.session() as session:
            self.perform(session, write)

    def somebody_waits_for(self, summary: str) -> bool:
        return bool(
            self.landing.value(
                "select count(*) from pg_locks where not granted and relation = %s::regclass",
                [f"sqp.{summary}"],
            )
        )

    def until_alone(self) -> None:
        """Wait until the server has noticed that whoever was killed is gone."""
        while self.landing.value(
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
            " and backend_type = 'client backend'"
        ):
            self.landing.connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
                " and backend_type = 'client backend'"
            )
            time.sleep(0.05)


def start(dbt: Dbt, *flags: str) -> subprocess.Popen[bytes]:
    """dbt as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dbt.cli.main", *dbt.arguments("run", *MODELS, *flags)],
        cwd=PROJECT_ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture
def machine(landing: Landing, database: Connection, dbt: Dbt) -> type[Summaries]:
    """The machine on this test's database, in which the summaries stand, empty."""
    dbt.run()
    return type("Here", (Summaries,), {"landing": landing, "connection": database, "dbt": dbt})


def test_each_event_leaves_the_summaries_exact(machine: type[Summaries]) -> None:
    """Every rule once, on rows that it must take into account: chance may never meet some."""
    red, blue = week(JANUARY_5, RED), week(JANUARY_5, BLUE)
    both, trail = [query("red shoe"), query("trail shoe", clicks=300)], [query("trail shoe")]
    played = machine()
    played.nothing_is_there()
    events: list[Callable[[], Any]] = [
        lambda: played.a_slice_arrives(red, both),
        lambda: played.a_slice_arrives(blue, trail),
        played.dbt_runs,
        lambda: played.somebody_writes(Write(red, [query("red shoe", own_clicks=1)])),
        lambda: played.somebody_writes(Write(blue, [*both, *[query("blue shoe")]])),
        lambda: played.somebody_writes(Write(blue, None)),
        lambda: played.somebody_writes(Write(week(DECEMBER_22, BLUE), both)),
        lambda: played.two_sessions_write_at_once(Write(red, both), Write(blue, trail)),
        lambda: played.somebody_thinks_better_of_it(Write(red, None)),
        played.the_sync_keeps_its_books,
        lambda: played.it_moves(red, 1),
        lambda: played.it_arrives_again(blue),
        lambda: played.it_is_held_back(blue, both),
        lambda: played.dbt_is_killed("monthly_summary", False),
        lambda: played.a_slice_arrives(blue, [query("red shoe")]),
        played.dbt_runs,
        lambda: played.dbt_is_killed("quarterly_summary", True),
        played.everything_is_truncated,
        played.dbt_rebuilds_all,
    ]
    for event in events:
        event()
        played.the_summaries_hold()
    played.teardown()


def test_whatever_is_played_the_summaries_are_exact(machine: type[Summaries]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("EXACT_EXAMPLES", "4")),
            stateful_step_count=10,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
