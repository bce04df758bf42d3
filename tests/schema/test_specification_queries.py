"""The example queries of the five specifications run, and answer what is so.

Where a query is as its specification has it, it is written in capitals, as there: names without a
schema are found on the search path. The statements of the accounts specification are migrations
and policies; `test_accounts` and `test_isolation` are about them.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from flows.settings import Connection
from flows.warehouse.connection import connect
from flows.warehouse.migrate import SEARCH_PATH, SETTINGS
from tests.schema.built import built, dbt  # noqa: F401
from tests.schema.planted import ALPHA, BRAVO
from tests.schema.test_isolation import as_tenant

Session = psycopg.Connection[Any]


@pytest.fixture
def session(built: Session) -> Any:  # noqa: F811
    """The planted database; what the test changes is taken back."""
    with built.transaction(force_rollback=True):
        yield built


def rows(session: Session, query: str, *values: object) -> list[tuple[Any, ...]]:
    return session.execute(query, values or None).fetchall()


def one(session: Session, query: str, *values: object) -> Any:
    ((value,),) = rows(session, query, *values)
    return value


def test_names_without_a_schema_are_looked_up_where_the_tables_are(database: Connection) -> None:
    with connect(autocommit=True) as connection:
        assert one(connection, "select current_setting('search_path')") == SEARCH_PATH
        assert one(connection, "select to_regclass('users')::oid = 'app.users'::regclass")
        roles = rows(
            connection,
            "select rolname, rolconfig from pg_roles"
            " where rolname in ('etl', 'dbt', 'authenticated', 'anon')",
        )
        assert len(roles) == 4
        for role, settings in roles:
            assert f"search_path={SEARCH_PATH}" in settings, role
            connection.execute(f"set role {role}")
            assert one(connection, "select current_setting('search_path')") == SEARCH_PATH
            connection.execute("reset role")


def test_every_session_starts_with_the_settings_of_the_database(database: Connection) -> None:
    with connect(autocommit=True) as connection:
        for name, value in SETTINGS.items():
            assert one(connection, "select current_setting(%s)", name) == value


class TestAdvertiserSeats:
    SEATS_ON_AN_EXCHANGE = """
        SELECT * FROM user_accounts
        WHERE account_type = 'dsp'
        AND seats_metadata @> '{"exchanges": [{"exchange_name": "Google Ad Manager"}]}';
    """
    RECENT_SYNCS = """
        SELECT * FROM dsp_seats_sync_log
        WHERE advertiser_id = $1
        ORDER BY created_at DESC
        LIMIT 10;
    """

    def test_accounts_with_seats_on_an_exchange(self, session: Session) -> None:
        seat = {"exchange_id": "1", "exchange_name": "Google Ad Manager"}
        other = {"exchange_id": "2", "exchange_name": "Index Exchange"}
        for tenant, exchanges in ((ALPHA, [other, seat]), (BRAVO, [other])):
            session.execute(
                "update app.user_accounts set seats_metadata = seats_metadata || %s where id = %s",
                (Jsonb({"exchanges": exchanges, "total_seats": 1}), tenant.id("account")),
            )
        found = session.cursor(row_factory=psycopg.rows.dict_row)
        assert [row["id"] for row in found.execute(self.SEATS_ON_AN_EXCHANGE)] == [
            ALPHA.id("account")
        ]
        for tenant, count in ((ALPHA, 1), (BRAVO, 0)):
            with as_tenant(session, tenant.user_id):
                assert len(rows(session, self.SEATS_ON_AN_EXCHANGE)) == count

    def test_recent_syncs_of_an_advertiser(self, session: Session) -> None:
        number = one(
            session,
            "select amazon_account_id from app.user_accounts where id = %s",
            ALPHA.id("account"),
        )
        for minute in range(12):
            session.execute(
                "insert into dsp_seats_sync_log (user_account_id, advertiser_id, sync_status,"
                " seats_retrieved, created_at)"
                " values (%s, %s, 'success', %s, now() + make_interval(mins => %s))",
                (ALPHA.id("account"), number, minute, minute),
            )
        raw = psycopg.RawCursor(session, row_factory=psycopg.rows.dict_row)
        newest = raw.execute(self.RECENT_SYNCS, (number,)).fetchall()
        assert [row["seats_retrieved"] for row in newest] == list(range(11, 1, -1))
        with as_tenant(session, BRAVO.user_id):
            assert raw.execute(self.RECENT_SYNCS, (number,)).fetchall() == []


OLD_HOURS = "FROM campaign_metrics_hourly WHERE hour_timestamp < NOW() - INTERVAL '7 days'"
OLD_SESSIONS = "FROM user_sessions WHERE expires_at < NOW() - INTERVAL '30 days'"
OLD_AUDITS = "FROM audit_logs WHERE created_at < NOW() - INTERVAL '2 years'"
OLD_JOBS = (
    "FROM background_jobs WHERE status IN ('completed', 'failed', 'cancelled')"
    " AND completed_at < NOW() - INTERVAL '30 days'"
)
REMOVED = {
    OLD_HOURS: (
        "insert into campaign_metrics_hourly (campaign_id, hour_timestamp)"
        " select %(campaign)s, date_trunc('hour', now()) - make_interval(days => days, hours => 1)"
        " from generate_series(0, 9) as days (days)",
        (3, 2),
    ),
    OLD_SESSIONS: (
        "insert into user_sessions (user_id, token_jti, created_at, expires_at)"
        " select %(user)s, 'j' || days, now() - interval '1 year',"
        " now() - make_interval(days => days)"
        " from unnest(array[-1, 0, 29, 30, 31, 90]) as days (days)",
        (2, 2),
    ),
    OLD_AUDITS: (
        "insert into audit_logs (owner_user_id, actor, entity_type, entity_id, action,"
        " created_at) select %(user)s, 'a', 'planted', days, 'create',"
        " now() - make_interval(days => days)"
        " from unnest(array[0, 700, 725, 740, 900]) as days (days)",
        (2, 2),
    ),
    OLD_JOBS: (
        "insert into background_jobs (user_id, job_type, job_data, status, started_at,"
        " completed_at) select %(user)s, 'planted', '{}', status::job_status,"
        " now() - interval '1 year', now() - make_interval(days => days)"
        " from unnest(array['completed', 'failed', 'cancelled']) as statuses (status)"
        " cross join unnest(array[29, 31]) as days (days)",
        (3, 3),
    ),
}
"""Rows around the age of each statement: how many it would delete, how many are gone at least."""


class TestAds:
    """The platform's partitions, migrations, clean-up and monitoring."""

    PARTITIONS = """
        DO $$
        DECLARE
            i INTEGER;
            partition_date DATE;
        BEGIN
            FOR i IN 0..23 LOOP
                partition_date := (CURRENT_DATE + (i || ' months')::INTERVAL)::DATE;
                partition_date := date_trunc('month', partition_date)::DATE;
                PERFORM create_monthly_partition('campaign_metrics', partition_date);
                PERFORM create_monthly_partition('audit_logs', partition_date);
            END LOOP;
        END $$;
    """
    """Without campaign_metrics_hourly: 24 months of days are more than one transaction locks."""

    @pytest.mark.parametrize("role", ["etl", None])
    def test_partitions_of_the_next_24_months(self, session: Session, role: str | None) -> None:
        names = (
            "select relname from pg_inherits inner join pg_class on pg_class.oid = inhrelid"
            " where inhparent = any(array['app.campaign_metrics', 'app.audit_logs']::regclass[])"
            " order by 1"
        )
        before = rows(session, names)
        for table in ("campaign_metrics", "audit_logs"):
            month = one(session, "select to_char(now() + interval '20 months', 'YYYY_MM')")
            session.execute(f"drop table app.{table}_{month}")
        assert len(rows(session, names)) == len(before) - 2
        if role:
            session.execute(f"set local role {role}")
        session.execute(self.PARTITIONS)
        assert rows(session, names) == before
        session.execute(self.PARTITIONS)
        assert rows(session, names) == before

    def test_a_month_of_a_table_with_days_is_made_of_its_days(self, session: Session) -> None:
        names = (
            "select relname from pg_inherits inner join pg_class on pg_class.oid = inhrelid"
            " where inhparent = 'app.campaign_metrics_hourly'::regclass"
            " and relname like '%2031%' order by 1"
        )
        ask = "SELECT create_monthly_partition('campaign_metrics_hourly', '2031-02-11')"
        made = [(f"campaign_metrics_hourly_2031_02_{day:02}",) for day in range(1, 29)]
        for _ in range(2):
            assert one(session, ask) == made[0][0]
            assert rows(session, names) == made

    def test_a_migration_is_recorded_with_its_rollback(self, session: Session) -> None:
        session.execute(
            """
            INSERT INTO schema_migrations (version, rollback_sql) VALUES
            ('001_add_tiktok_platform', 'BEGIN; /* rollback commands here */ COMMIT;');
            """
        )
        assert one(
            session,
            "select applied_at between now() - interval '1 minute' and clock_timestamp()"
            " from app.schema_migrations where version = '001_add_tiktok_platform'",
        )

    @pytest.mark.parametrize("old", REMOVED)
    def test_the_upkeep_removes_what_the_statements_would_delete(
        self, session: Session, old: str
    ) -> None:
        """As corrected: cancelled jobs too, and hours and audits by whole partitions.

        What one DELETE finds is gone, and the rest is there.
        """
        insert, (expected, most) = REMOVED[old]
        values = {"campaign": ALPHA.id("campaign"), "user": ALPHA.user_id}
        table = old.split()[1]
        everything = f"select count(*) from {table}"
        session.execute(insert, values)
        before, found = one(session, everything), one(session, f"SELECT count(*) {old}")
        assert found == expected

        session.execute("set local role etl")
        told = rows(
            session,
            "select rows_before, rows_removed, rows_after"
            " from apply_retention(false, p_table => %s)",
            table,
        )
        session.execute("reset role")
        left = one(session, f"SELECT count(*) {old}")
        assert found - left >= most, "a day that is old in part stays until it is old"
        assert one(session, everything) == before - (found - left)
        assert told == [(before, found - left, before - (found - left))]

    def test_the_slowest_queries(self, built: Session) -> None:  # noqa: F811
        """As corrected: total_exec_time, mean_exec_time."""
        built.execute("select count(*) as marked_for_the_slow_queries from app.users")
        slowest = (
            "SELECT query, calls, total_exec_time, mean_exec_time, rows"
            " FROM slow_queries ORDER BY total_exec_time DESC LIMIT 10"
        )
        counted = one(
            built, "select count(*) from pg_extension where extname = 'pg_stat_statements'"
        )
        found = rows(built, slowest)
        assert len(found) == 10 * counted
        assert [row[2] for row in found] == sorted((row[2] for row in found), reverse=True)
        marked = rows(
            built,
            "SELECT calls, rows FROM slow_queries WHERE query LIKE '%marked_for_the_slow_queries%'"
            " AND query NOT LIKE '%LIKE%'",
        )
        assert marked == [(1, 1)] * counted

    def test_the_sizes_of_tables(self, session: Session) -> None:
        """As corrected: another schema, and a partitioned table is as big as its partitions."""
        plain = dict(
            rows(
                session,
                """
                SELECT tablename,
                       pg_size_pretty(pg_total_relation_size(schemaname||'.'||tablename)) as size
                FROM pg_tables
                WHERE schemaname = 'app'
                ORDER BY pg_total_relation_size(schemaname||'.'||tablename) DESC;
                """,
            )
        )
        found = rows(
            session,
            "SELECT table_name, total_size, total_bytes, partitions FROM table_sizes"
            " WHERE schema_name = 'app'",
        )
        assert [row[2] for row in found] == sorted((row[2] for row in found), reverse=True)
        sizes = {name: (size, count) for name, size, _, count in found}
        assert sizes["users"] == (plain["users"], 0)
        assert plain["campaign_metrics"] == "0 bytes"
        assert sizes["campaign_metrics"][0] != "0 bytes"
        assert sizes["campaign_metrics"][1] > 24

    def test_the_use_of_indexes(self, built: Session) -> None:  # noqa: F811
        """As corrected: relname, indexrelname."""
        usage = (
            "SELECT sum(idx_scan), sum(idx_tup_read), sum(idx_tup_fetch) FROM index_usage"
            " WHERE schema_name = 'app' AND table_name = 'ads'"
        )
        ((before, *_),) = rows(built, usage)
        built.execute("set enable_seqscan = off; set enable_bitmapscan = off")
        for _ in range(3):
            built.execute("select name from app.ads where id = %s", (ALPHA.id("ad"),))
        built.execute("reset enable_seqscan; reset enable_bitmapscan")
        built.execute("select pg_stat_force_next_flush()")
        ((scans, read, fetched),) = rows(built, usage)
        assert scans == before + 3
        assert read >= 3
        assert fetched >= 3
        ordered = rows(built, "SELECT idx_scan FROM index_usage")
        assert ordered == sorted(ordered, reverse=True)

    def test_indexes_that_are_not_used_or_not_there(self, session: Session) -> None:
        unused = {name for (name,) in rows(session, "SELECT index_name FROM unused_indexes")}
        assert "idx_ai_insights_type" in unused
        assert not unused & {"users_pkey", "ads_pkey"}
        assert rows(session, "SELECT * FROM missing_indexes WHERE reason = 'foreign key'") == []
        session.execute("drop index app.idx_ai_insights_dashboard_id cascade")
        missing = rows(
            session,
            "SELECT table_name, column_names[1] FROM missing_indexes WHERE reason = 'foreign key'",
        )
        assert missing == [("ai_insights", "dashboard_id")]


class TestReports:
    def test_the_tables_are_listed(self, session: Session) -> None:
        """As corrected: they are in the schemas app and reporting."""
        listed = rows(
            session,
            """
            SELECT table_name FROM information_schema.tables
            WHERE table_schema IN ('app', 'reporting')
            AND table_name IN (
                'dashboards',
                'dashboard_widgets',
                'report_data_collections',
                'report_data_weeks',
                'report_data_aggregates',
                'ai_insights',
                'dashboard_shares'
            );
            """,
        )
        assert sorted(name for (name,) in listed) == [
            "ai_insights",
            "dashboard_shares",
            "dashboard_widgets",
            "dashboards",
            "report_data_aggregates",
            "report_data_collections",
            "report_data_weeks",
        ]


class TestSync:
    """The functions of the SQP sync, as the dashboard calls them."""

    STATUS = (
        "SELECT last_sync_time, last_sync_status, records_processed, next_sync_due"
        " FROM sqp.get_latest_sync_status()"
    )
    FRESHNESS = "SELECT * FROM sqp.check_data_freshness()"

    @staticmethod
    def attempt(
        session: Session, hours_ago: int, status: str, sync_type: str = "weekly", processed: int = 0
    ) -> datetime | None:
        """Record an attempt of ten minutes; when it ended."""
        ended: datetime | None = one(
            session,
            "insert into sqp.sync_log (run_id, worker, step, lease_until, account_id, source_table,"
            " target_table, sync_type, sync_status, records_processed, records_inserted,"
            " started_at, completed_at)"
            " values (gen_random_uuid(), 'w', 'find', now(), 'MARKALPHA', 's', 't', %s, %s, %s, %s,"
            " now() - make_interval(hours => %s),"
            " case when %s <> 'started' then now() - make_interval(hours => %s, mins => -10) end)"
            " returning completed_at",
            *(sync_type, status, processed, processed, hours_ago, status, hours_ago),
        )
        return ended

    @pytest.fixture
    def log(self, session: Session) -> Session:
        """A log without a run."""
        session.execute("truncate sqp.sync_log cascade")
        return session

    def test_a_sync_that_ended_well(self, log: Session) -> None:
        self.attempt(log, 50, "failed")
        ended = self.attempt(log, 30, "completed", processed=7)
        self.attempt(log, 1, "completed", "monthly", processed=9)
        assert ended
        assert rows(log, self.STATUS) == [(ended, "completed", 7, ended + timedelta(days=1))]
        assert one(log, "SELECT records_processed FROM sqp.get_latest_sync_status('monthly')") == 9

    @pytest.mark.parametrize("later", ["started", "failed"])
    def test_a_later_attempt_does_not_hide_the_last_success(self, log: Session, later: str) -> None:
        """The specification's own query shows the attempt alone, and a sync as due at once."""
        ended = self.attempt(log, 5, "completed", processed=7)
        self.attempt(log, 1, later, processed=3)
        assert ended
        assert rows(log, self.STATUS) == [(ended, later, 3, ended + timedelta(days=1))]
        attempted, changed = rows(
            log, "SELECT last_attempt_at, last_change_at FROM sqp.get_latest_sync_status()"
        )[0]
        assert attempted > ended
        assert changed is None

    def test_without_a_success_a_sync_is_due_now(self, log: Session) -> None:
        for _ in range(2):
            ((ended, status, _, due),) = rows(log, self.STATUS)
            assert ended is None
            assert status in (None, "failed")
            assert abs(due - one(log, "select now()")) < timedelta(minutes=5)
            self.attempt(log, 5, "failed")
        assert rows(log, "SELECT * FROM sqp.get_latest_sync_status('hourly')") == []

    def test_summaries_without_rows_are_stale_and_have_no_age(self, session: Session) -> None:
        for summary in ("weekly", "monthly", "quarterly"):
            session.execute(f"delete from sqp.{summary}_summary")
        assert sorted(rows(session, self.FRESHNESS)) == [
            (f"{summary}_summary", None, None, True)
            for summary in ("monthly", "quarterly", "weekly")
        ]

    @pytest.mark.parametrize(
        ("summary", "days"),
        [("weekly_summary", 14), ("monthly_summary", 45), ("quarterly_summary", 106)],
    )
    def test_a_summary_is_stale_when_its_latest_period_is_too_old(
        self, session: Session, summary: str, days: int
    ) -> None:
        """The specification's EXTRACT(DAY FROM date - date) is an error at every call."""
        today: date = one(session, "select current_date")
        for age, told, stale in ((days, days, False), (days + 1, days + 1, True), (-3, 0, False)):
            latest = today - timedelta(days=age)
            session.execute(
                f"update sqp.{summary} set period_end = %s where account_id = %s",
                (latest, ALPHA.mark),
            )
            found = {row[0]: row for row in rows(session, self.FRESHNESS)}
            assert found[summary] == (summary, latest, told, stale)
