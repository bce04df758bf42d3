"""Partitions: aligned to UTC, made once whoever asks, and no row without a place.

Errata of the multi-platform specification, whose `create_monthly_partition` let a mid-month date
misalign, took a plain table for the partition, cut long names, followed the session's time zone,
and failed 75 of 90 concurrent calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from threading import Event
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from flows.settings import Connection
from flows.warehouse import upkeep
from flows.warehouse.connection import connect

ZONES = st.sampled_from(
    ["Pacific/Kiritimati", "Pacific/Midway", "America/New_York", "Asia/Kathmandu", "Europe/Berlin"]
)
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def connection(database: Connection) -> Iterator[psycopg.Connection[Any]]:
    with connect(autocommit=True) as connection:
        yield connection


def make_table(
    connection: psycopg.Connection[Any],
    name: str = "app.signals",
    *,
    key_type: str = "timestamptz",
    default: bool = True,
) -> None:
    """A partitioned table of the owner's, as a migration would make it."""
    with connection.transaction():
        connection.execute("set local role app_owner")
        connection.execute(
            f"create table {name} (id bigint not null, at {key_type} not null, note text,"
            " primary key (id, at)) partition by range (at)"
        )
        if default:
            connection.execute(f"create table {name}_default partition of {name} default")


def declare(
    connection: psycopg.Connection[Any], name: str, unit: str, behind: int, ahead: int
) -> None:
    connection.execute(
        """
        insert into app.table_policies (
            relation, declaration, partition_key, partition_unit, partitions_behind,
            partitions_ahead
        )
        values (%s, '{}', 'at', %s, %s, %s)
        """,
        (name, unit, behind, ahead),
    )


def one(connection: psycopg.Connection[Any], query: str, *arguments: Any) -> Any:
    row = connection.execute(query, arguments or None).fetchone()  # type: ignore[call-overload]
    assert row is not None
    return row[0] if len(row) == 1 else row


def bounds(connection: psycopg.Connection[Any], name: str = "app.signals") -> list[Any]:
    return connection.execute(
        """
        select partition_table::text, lower_bound, upper_bound
        from app.partition_bounds(%s::regclass)
        where not is_default
        """,
        (name,),
    ).fetchall()


def first_days(unit: str, day: date) -> tuple[date, date]:
    """The first day of the unit that `day` lies in, and of the next."""
    if unit == "day":
        return day, day + timedelta(days=1)
    first = day.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1)


@given(
    day=st.dates(date(1, 1, 2), date(9999, 11, 30)),
    zone=ZONES,
    unit=st.sampled_from(["monthly", "daily"]),
)
def test_bounds_are_the_units_first_instants_in_utc_whatever_the_session_says(
    database: Connection, day: date, zone: str, unit: str
) -> None:
    first, next_first = first_days({"monthly": "month", "daily": "day"}[unit], day)
    with connect(autocommit=True) as connection, connection.transaction(force_rollback=True):
        make_table(connection, default=False)
        connection.execute("select set_config('timezone', %s, false)", (zone,))
        connection.execute("set datestyle = 'German'")
        name = one(connection, f"select app.create_{unit}_partition('signals', %s)", day)
        connection.execute("set time zone 'UTC'")
        connection.execute("set datestyle = 'ISO'")
        starts, ends = (datetime(*each.timetuple()[:3], tzinfo=UTC) for each in (first, next_first))
        assert (
            name
            == f"signals_{first.isoformat().replace('-', '_')}"[
                : len("signals_2026_01_01" if unit == "daily" else "signals_2026_01")
            ]
        )
        for instant in (starts, ends - MICROSECOND):
            connection.execute("insert into app.signals values (1, %s)", (instant,))
        for instant in (starts - MICROSECOND, ends):
            with pytest.raises(errors.CheckViolation), connection.transaction():
                connection.execute("insert into app.signals values (1, %s)", (instant,))


@pytest.mark.parametrize("key_type", ["date", "timestamp", "timestamptz"])
def test_any_day_of_a_month_makes_the_same_partition_and_months_never_overlap(
    connection: psycopg.Connection[Any], key_type: str
) -> None:
    make_table(connection, key_type=key_type)
    for month in (3, 1, 2, 12):
        for day in (28, 1, 15):
            name = one(
                connection,
                "select app.create_monthly_partition('signals', %s)",
                date(2026, month, day),
            )
            assert name == f"signals_2026_{month:02}"
    found = bounds(connection)
    assert [lower.date() for _, lower, _ in found] == [date(2026, m, 1) for m in (1, 2, 3, 12)]
    assert found[0][2] == found[1][1]
    assert found[3][2] == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("day", [date(2026, 3, 8), date(2026, 11, 1)])
def test_a_day_of_a_clock_change_has_its_24_hours_of_utc(
    connection: psycopg.Connection[Any], day: date
) -> None:
    make_table(connection)
    connection.execute("set time zone 'America/New_York'")
    name = one(connection, "select app.create_daily_partition('app.signals', %s)", day)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    connection.cursor().executemany(
        "insert into app.signals values (%s, %s)",
        [(hour, midnight + timedelta(hours=hour)) for hour in range(-1, 25)],
    )
    assert one(connection, f"select count(*), min(id), max(id) from app.{name}") == (24, 0, 23)
    local_day = midnight.astimezone(ZoneInfo("America/New_York")).date()
    assert local_day != day, "the test's zone is one whose midnight is another"


@pytest.mark.parametrize(("unit", "names"), [("monthly", 3), ("daily", 30)])
def test_ninety_concurrent_calls_all_succeed(
    connection: psycopg.Connection[Any], unit: str, names: int
) -> None:
    make_table(connection)
    connection.execute(
        "insert into app.signals select id, '2026-01-01' from generate_series(1, 9) as id"
    )

    def ask(number: int) -> str:
        day = date(2026, 1 + number % 3, 1 + number // 3 % 10)
        with connect(autocommit=True, role="etl") as caller:
            return str(one(caller, f"select app.create_{unit}_partition('signals', %s)", day))

    with ThreadPoolExecutor(12) as pool:
        made = list(pool.map(ask, range(90)))
    assert len(made) == 90
    assert len(set(made)) == names == len(bounds(connection))
    assert one(connection, "select count(*) from app.signals") == 9
    assert one(connection, "select count(*) from only app.signals_default") == 0


def test_a_name_without_schema_is_looked_for_where_the_warehouse_has_tables(
    connection: psycopg.Connection[Any],
) -> None:
    make_table(connection, "landing.signals")
    found = "select app.table_named(%s) = %s::regclass"
    assert one(connection, found, "signals", "landing.signals")
    make_table(connection, "app.signals")
    assert one(connection, found, "signals", "app.signals")
    assert one(connection, found, "Landing.Signals", "landing.signals")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (
            "app.create_monthly_partition('public.outside', '2026-01-01')",
            errors.InsufficientPrivilege,
        ),
        (
            "app.create_partition('public.outside', 'day', '2026-01-01')",
            errors.InsufficientPrivilege,
        ),
        ("app.create_default_partition('public.outside')", errors.InsufficientPrivilege),
        ("app.create_monthly_partition('pg_class', '2026-01-01')", errors.UndefinedTable),
        ("app.create_monthly_partition('x\"; drop table y', '2026-01-01')", errors.Error),
        ("app.create_monthly_partition('app.table_policies', '2026-01-01')", errors.Error),
        ("app.create_default_partition('app.table_policies')", errors.Error),
        ("app.create_partition('app.signals', 'week', '2026-01-01')", errors.InvalidParameterValue),
        ("app.create_partition('app.signals', null, '2026-01-01')", errors.InvalidParameterValue),
        ("app.create_monthly_partition('signals', null)", errors.DatetimeFieldOverflow),
        ("app.create_monthly_partition('signals', 'infinity')", errors.DatetimeFieldOverflow),
        ("app.create_monthly_partition('signals', '0044-03-15 BC')", errors.DatetimeFieldOverflow),
        ("app.create_monthly_partition(null, '2026-01-01')", errors.Error),
    ],
)
def test_what_is_no_table_of_ours_or_no_period_is_refused(
    connection: psycopg.Connection[Any], call: str, error: type[psycopg.Error]
) -> None:
    make_table(connection)
    connection.execute("create table public.outside (at date) partition by range (at)")
    with pytest.raises(error, match="outside of the schemas" if "outside" in call else None):
        connection.execute(f"select {call}")
    assert bounds(connection) == []


def test_a_plain_table_with_the_partitions_name_is_refused(
    connection: psycopg.Connection[Any],
) -> None:
    make_table(connection, default=False)
    connection.execute("create table app.signals_2026_01 (x int)")
    connection.execute("create table app.signals_default (x int)")
    with pytest.raises(errors.DuplicateTable, match="not a partition"):
        connection.execute("select app.create_monthly_partition('signals', '2026-01-15')")
    with pytest.raises(errors.DuplicateTable, match="not a partition"):
        connection.execute("select app.create_default_partition('app.signals')")


@pytest.mark.parametrize(("length", "fits"), [(55, True), (56, False)])
def test_a_name_of_more_than_63_bytes_is_refused_not_cut(
    connection: psycopg.Connection[Any], length: int, fits: bool
) -> None:
    name = "t" * length
    make_table(connection, f"app.{name}", default=False)
    call = "select app.create_monthly_partition(%s, '2026-01-15')"
    if fits:
        assert one(connection, call, name) == f"{name}_2026_01"
        with pytest.raises(errors.NameTooLong):
            connection.execute("select app.create_daily_partition(%s, '2027-01-15')", (name,))
    else:
        with pytest.raises(errors.NameTooLong):
            connection.execute(call, (name,))


def test_a_period_that_a_partition_of_another_name_holds_needs_none(
    connection: psycopg.Connection[Any],
) -> None:
    make_table(connection)
    connection.execute("select app.create_monthly_partition('signals', '2026-05-01')")
    connection.execute("alter table app.signals_2026_05 rename to signals_may")
    for unit in ("monthly", "daily"):
        made = one(connection, f"select app.create_{unit}_partition('signals', '2026-05-09')")
        assert made == "signals_may"


def test_a_partition_is_its_parents_owners_and_behind_row_security(
    connection: psycopg.Connection[Any],
) -> None:
    make_table(connection, default=False)
    with connect(autocommit=True, role="etl") as caller:
        with pytest.raises(errors.InsufficientPrivilege):
            caller.execute("create table app.signals_2026_01 (x int)")
        caller.execute("select app.create_monthly_partition('signals', '2026-01-01')")
        caller.execute("select app.create_default_partition('app.signals')")
        caller.execute("select app.create_default_partition('app.signals')")
    found = connection.execute(
        """
        select tables.relname::text, tables.relowner::regrole::text, tables.relrowsecurity,
            tables.relforcerowsecurity, tables.relacl
        from pg_inherits
        inner join pg_class as tables on pg_inherits.inhrelid = tables.oid
        where pg_inherits.inhparent = 'app.signals'::regclass
        order by 1
        """
    ).fetchall()
    assert found == [
        ("signals_2026_01", "app_owner", True, True, None),
        ("signals_default", "app_owner", True, True, None),
    ]


def test_a_table_that_dbt_built_keeps_its_owner(connection: psycopg.Connection[Any]) -> None:
    with connect(autocommit=True, role="dbt") as caller:
        caller.execute("create table sqp.built (day date) partition by range (day)")
        caller.execute("select app.create_monthly_partition('sqp.built', '2026-01-01')")
    owner = "select relowner::regrole::text from pg_class where oid = 'sqp.built_2026_01'::regclass"
    assert one(connection, owner) == "dbt"


def test_entry_points_run_as_a_role_that_nobody_logs_in_as_and_only_for_those_who_load(
    connection: psycopg.Connection[Any],
) -> None:
    found = connection.execute(
        """
        select functions.oid::regprocedure::text
        from pg_proc as functions
        where
            functions.pronamespace = 'app'::regnamespace
            and functions.prosecdef
            and (
                functions.proowner::regrole::text <> 'rls_definer'
                or not 'search_path=pg_catalog, pg_temp' = any (functions.proconfig)
                or has_function_privilege('anon', functions.oid, 'execute')
            )
        """
    ).fetchall()
    assert found == []
    allowed = """
        select array_agg(roles order by roles)
        from unnest(array['anon', 'authenticated', 'backup', 'dbt', 'etl']) as roles
        where has_function_privilege(roles, %s, 'execute')
    """
    for call in (
        "app.create_monthly_partition(text, date)",
        "app.create_daily_partition(text, date)",
        "app.ensure_partitions(text)",
        "app.default_partition_rows()",
    ):
        assert one(connection, allowed, call) == ["dbt", "etl"]
    assert one(connection, allowed, "app.apply_retention(boolean, timestamptz, text)") == ["etl"]


def test_rows_of_a_missing_period_wait_in_the_default_partition_and_move_without_a_trace(
    connection: psycopg.Connection[Any],
) -> None:
    make_table(connection, default=False)
    with connection.transaction():
        connection.execute("set local role app_owner")
        connection.execute("create table app.others_order (note text, at timestamptz not null)")
        connection.execute("alter table app.others_order add column id bigint not null")
        connection.execute("alter table app.signals attach partition app.others_order default")
        connection.execute("create table app.signals_seen (what text)")
        connection.execute(
            "create function app.see() returns trigger language plpgsql as $$ begin"
            " insert into app.signals_seen values (tg_op); return null; end $$"
        )
        connection.execute(
            "create trigger see after insert or delete on app.signals"
            " for each row execute function app.see()"
        )
    edges = [
        datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 2, 1, tzinfo=UTC),
        datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 3, 1, tzinfo=UTC),
    ]
    connection.cursor().executemany(
        "insert into app.signals values (%s, %s, %s)",
        [(number, at, f"row {number}") for number, at in enumerate(edges)],
    )
    before = connection.execute("select * from app.signals order by id").fetchall()
    connection.execute("select app.create_monthly_partition('signals', '2026-02-14')")
    assert connection.execute("select * from app.signals order by id").fetchall() == before
    assert connection.execute(
        "select id, relname::text from app.signals"
        " inner join pg_class on signals.tableoid = pg_class.oid order by id"
    ).fetchall() == [
        (0, "others_order"),
        (1, "signals_2026_02"),
        (2, "signals_2026_02"),
        (3, "others_order"),
    ]
    seen = "select count(*), count(*) filter (where what = 'DELETE') from app.signals_seen"
    assert one(connection, seen) == (4, 0), "no trigger saw the rows go"
    connection.execute("delete from app.signals")
    assert one(connection, seen) == (8, 4), "and all see what comes after"


def test_no_write_fails_or_is_lost_while_rows_move(connection: psycopg.Connection[Any]) -> None:
    make_table(connection)
    done = Event()

    def write(writer: int) -> int:
        written = 0
        with connect(autocommit=True, role="etl") as caller:
            while not done.is_set():
                caller.execute(
                    "insert into app.signals select %s, at from generate_series("
                    " '2026-01-01'::timestamptz, '2026-12-31', '7 days') as at",
                    (writer * 1_000_000 + written,),
                )
                written += 1
        return written * 53

    connection.execute("grant insert on app.signals to etl")
    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, writer) for writer in range(3)]
        try:
            for month in range(12):
                connection.execute(
                    "select app.create_monthly_partition('signals', %s)",
                    (date(2026, 12 - month, 9),),
                )
        finally:
            done.set()
        written = sum(writer.result() for writer in writers)
    assert one(connection, "select count(*) from app.signals") == written > 0
    assert one(connection, "select count(*) from app.signals_default") == 0


def test_a_move_that_fails_leaves_every_row_where_it_was(
    connection: psycopg.Connection[Any],
) -> None:
    make_table(connection)
    connection.execute("insert into app.signals values (1, '2026-02-10')")
    connection.execute(
        "create table app.signals_weeks partition of app.signals"
        " for values from ('2026-02-20') to ('2026-03-05')"
    )
    with pytest.raises(errors.InvalidObjectDefinition, match="overlap"):
        connection.execute("select app.create_monthly_partition('signals', '2026-02-14')")
    assert one(connection, "select count(*) from app.signals_default") == 1


def test_ensure_makes_the_declared_horizon_once_and_moves_what_waited(
    connection: psycopg.Connection[Any],
) -> None:
    make_table(connection, default=False)
    declare(connection, "app.signals", "month", 2, 24)
    ensure = "select relation, made, moved_rows from app.ensure_partitions('signals')"
    assert one(connection, ensure) == ("app.signals", 2 + 1 + 24 + 1, 0), "and the default one"
    assert one(connection, ensure) == ("app.signals", 0, 0)
    today = datetime.now(UTC).date()
    found = bounds(connection)
    assert len(found) == 27
    assert found[2][1].date() == today.replace(day=1)
    assert all(before[2] == after[1] for before, after in pairwise(found))

    connection.execute(
        "insert into app.signals select id, at::timestamptz from unnest("
        "array['2001-05-05', '2001-05-06', '2099-01-01', '1066-10-14', 'infinity', '-infinity',"
        " '0044-03-15 BC']) with ordinality as came (at, id)"
    )
    assert one(connection, ensure) == ("app.signals", 3, 4)
    assert one(connection, "select count(*) from app.signals_default") == 3
    assert one(connection, "select count(*) from app.signals") == 7
    assert one(connection, ensure) == ("app.signals", 0, 0)


def test_a_flood_of_old_days_is_taken_up_in_parts(connection: psycopg.Connection[Any]) -> None:
    make_table(connection)
    declare(connection, "app.signals", "day", 0, 1)
    connection.execute(
        "insert into app.signals select day, '2001-01-01'::timestamptz + day * interval '1 day'"
        " from generate_series(1, 410) as day"
    )
    ensure = "select made, moved_rows from app.ensure_partitions('signals')"
    assert one(connection, ensure) == (400, 398)
    assert one(connection, ensure) == (12, 12)
    assert one(connection, "select count(*) from app.signals_default") == 0


def test_a_partition_that_retention_would_drop_at_once_is_not_made(
    connection: psycopg.Connection[Any],
) -> None:
    make_table(connection)
    declare(connection, "app.signals", "day", 30, 2)
    connection.execute(
        "update app.table_policies set retention_key = 'at', retention_keep = '7 days'"
        " where relation = 'app.signals'"
    )
    assert one(connection, "select made from app.ensure_partitions('app.signals')") == 8 + 2
    with connect(autocommit=True, role="etl") as caller:
        caller.execute("select * from app.apply_retention(false, null, 'signals')")
    assert one(connection, "select made from app.ensure_partitions('app.signals')") == 0


def test_a_declared_table_that_does_not_exist_yet_is_passed_over(
    connection: psycopg.Connection[Any],
) -> None:
    declare(connection, "sqp.not_built_yet", "month", 1, 1)
    found = connection.execute("select relation from app.ensure_partitions()").fetchall()
    assert ("sqp.not_built_yet",) not in found
    upkeep.ensure_partitions(connection)


def test_the_upkeep_goes_on_when_a_table_is_in_use(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_table(connection)
    make_table(connection, "app.signals_of_others")
    declare(connection, "app.signals", "month", 0, 0)
    declare(connection, "app.signals_of_others", "month", 0, 0)
    connection.execute("alter function app.ensure_partitions(text) set lock_timeout = '200ms'")
    with connect() as reader:
        reader.execute("select count(*) from app.signals")
        done, in_use = upkeep.ensure_partitions(connection)
    made = {table.relation: table.made for table in done}
    assert made["app.signals"] == 0
    assert made["app.signals_of_others"] == 1
    assert [table.relation for table in in_use] == ["app.signals"]


def test_a_default_partition_that_holds_rows_raises_a_quality_check(
    connection: psycopg.Connection[Any],
) -> None:
    make_table(connection)
    declare(connection, "app.signals", "month", 0, 0)
    connection.execute("insert into app.signals values (1, '2001-05-05'), (2, 'infinity')")

    def newest() -> Any:
        return one(
            connection,
            """
            select check_status, target_value::int
            from sqp.data_quality_checks
            where check_type = 'default_partition' and table_name = 'app.signals'
            order by id desc
            limit 1
            """,
        )

    found = upkeep.record_default_partition_checks(connection)
    assert {table.relation: table.rows for table in found}["app.signals"] == 2
    assert one(
        connection,
        "select count(*) from sqp.data_quality_checks where check_type = 'default_partition'",
    ) == len(found)
    assert newest() == ("warning", 2)
    upkeep.ensure_partitions(connection)
    upkeep.record_default_partition_checks(connection, again=["app.signals"])
    assert newest() == ("failed", 1)
    connection.execute("delete from app.signals where at = 'infinity'")
    upkeep.record_default_partition_checks(connection)
    assert newest() == ("passed", 0)
