"""The ads platform's tables at work: jobs that are claimed once, rates that are derived."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
import yaml

from flows.settings import PROJECT_ROOT
from flows.vocabulary.platform import LISTS, JobStatus
from flows.warehouse.connection import connect

SOURCES = PROJECT_ROOT / "dbt_project" / "models" / "sources"


def declared_tables() -> dict[str, dict]:
    """The tables of the ads platform as their YAML declares them."""
    found = {}
    for name in ("platform", "metrics", "system"):
        declared = yaml.safe_load((SOURCES / f"{name}.yml").read_text())
        for source in declared["sources"]:
            found |= {table["name"]: table for table in source["tables"]}
    return found


@pytest.fixture
def admin(database):
    with connect(autocommit=True) as connection:
        yield connection


def add_user(connection) -> UUID:
    (user_id,) = connection.execute(
        "insert into app.users (email, password_hash, first_name, last_name)"
        " values (%s, 'x', 'A', 'B') returning id",
        (f"{uuid4()}@example.com",),
    ).fetchone()
    return user_id


def add_ad(connection, user_id: UUID) -> UUID:
    (ad_id,) = connection.execute(
        "insert into app.ads (user_id, name, unified_data, targeting_data, budget_data)"
        " values (%s, 'Spring', '{}', '{}', '{}') returning id",
        (user_id,),
    ).fetchone()
    return ad_id


def add_campaign(
    connection,
    ad_id: UUID,
    user_id: UUID,
    platform: str = "amazon_ads",
    account: str | None = None,
    platform_id: str | None = None,
) -> UUID:
    (campaign_id,) = connection.execute(
        "insert into app.campaigns (ad_id, user_id, platform, platform_account_id,"
        " platform_campaign_id, campaign_name) values (%s, %s, %s, %s, %s, 'C') returning id",
        (ad_id, user_id, platform, account, platform_id),
    ).fetchone()
    return campaign_id


def add_job(connection, **values: object) -> UUID:
    values = {"job_type": "sync", "job_data": "{}"} | values
    columns, places = ", ".join(values), ", ".join(["%s"] * len(values))
    (job_id,) = connection.execute(
        f"insert into app.background_jobs ({columns}) values ({places}) returning id",
        tuple(values.values()),
    ).fetchone()
    return job_id


def claim(connection, worker: str, lease: str = "5 minutes") -> UUID | None:
    row = connection.execute(
        "select id from app.claim_background_job(%s, %s::interval)", (worker, lease)
    ).fetchone()
    return row[0] if row else None


def job(connection, job_id: UUID) -> dict:
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(
            "select * from app.background_jobs where id = %s", (job_id,)
        ).fetchone()


def let_lease_run_out(connection, job_id: UUID) -> None:
    connection.execute(
        "update app.background_jobs set started_at = now() - interval '1 hour',"
        " lease_until = now() - interval '1 minute' where id = %s",
        (job_id,),
    )


def test_the_types_and_the_enums_list_the_same(admin):
    for place, listed in LISTS.items():
        schema, table, column = place.split(".")
        labels = admin.execute(
            """
            select enums.enumlabel
            from pg_attribute as attributes
            inner join pg_enum as enums on attributes.atttypid = enums.enumtypid
            where attributes.attrelid = %s::regclass and attributes.attname = %s
            order by enums.enumsortorder
            """,
            (f"{schema}.{table}", column),
        ).fetchall()
        assert [label for (label,) in labels] == [str(value) for value in listed], place


def test_every_list_is_told_in_the_docs_as_the_database_holds_it():
    tables = declared_tables()
    for place, listed in LISTS.items():
        _, table, column = place.split(".")
        (told,) = (each for each in tables[table]["columns"] if each["name"] == column)
        (test,) = told["data_tests"]
        assert test["accepted_values"]["arguments"]["values"] == list(listed), place


def test_the_docs_name_each_column_of_each_table(admin):
    for name, table in declared_tables().items():
        held = admin.execute(
            "select attname from pg_attribute"
            " where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            (f"app.{name}",),
        ).fetchall()
        told = [column["name"] for column in table["columns"]]
        assert sorted(told) == sorted(column for (column,) in held), name
        assert all(column["description"] for column in table["columns"])


def test_rates_follow_from_the_metrics_and_are_null_where_they_would_divide_by_zero(admin):
    user_id = add_user(admin)
    campaign_id = add_campaign(admin, add_ad(admin, user_id), user_id)
    admin.execute(
        "insert into app.campaign_metrics (campaign_id, user_id, date, impressions, clicks,"
        " conversions, spend_amount, conversion_value, spend_currency) values"
        " (%(c)s, %(u)s, '2026-03-01', 100000, 3, 0.5, 6, 9, 'EUR'),"
        " (%(c)s, %(u)s, '2026-03-02', 0, 0, 0, 0, null, 'EUR')",
        {"c": campaign_id, "u": user_id},
    )
    rates = admin.execute(
        "select cpc, ctr, conversion_rate, roas, spend_currency from app.campaign_performance"
        " where campaign_id = %s order by date",
        (campaign_id,),
    ).fetchall()
    assert rates[0][:2] == (Decimal(2), Decimal("0.00003"))
    assert rates[0][2] == pytest.approx(Decimal(1) / 6)
    assert rates[0][3:] == (Decimal("1.5"), "EUR")
    assert rates[1] == (None, None, None, None, "EUR")


def test_the_view_shows_its_reader_only_what_he_may_see(admin):
    (options,) = admin.execute(
        "select reloptions from pg_class where oid = 'app.campaign_performance'::regclass"
    ).fetchone()
    assert options == ["security_invoker=true"]


def test_hours_of_half_hour_time_zones_and_the_repeated_hour_are_hours_of_their_own(admin):
    user_id = add_user(admin)
    campaign_id = add_campaign(admin, add_ad(admin, user_id), user_id)
    add_hour = (
        "insert into app.campaign_metrics_hourly (campaign_id, user_id, hour_timestamp)"
        " values (%s, %s, %s)"
    )
    for hour in (
        "2026-11-01 01:00 America/Los_Angeles",
        "2026-11-01 01:00 -07",
        "2026-11-02 10:00 Asia/Kolkata",
    ):
        admin.execute(add_hour, (campaign_id, user_id, hour))
    with pytest.raises(psycopg.errors.CheckViolation, match="starts_an_hour"):
        admin.execute(add_hour, (campaign_id, user_id, "2026-11-01 01:00:03 America/Los_Angeles"))


def test_eight_workers_at_once_get_each_job_once(admin):
    for number in range(80):
        add_job(admin, priority=number % 3)

    def work(number: int) -> list[UUID]:
        mine = []
        with connect(autocommit=True) as connection:
            while job_id := claim(connection, f"worker {number}"):
                mine.append(job_id)
        return mine

    with ThreadPoolExecutor(8) as pool:
        claimed = [job_id for mine in pool.map(work, range(8)) for job_id in mine]
    assert len(claimed) == len(set(claimed)) == 80
    assert admin.execute(
        "select distinct status, attempts from app.background_jobs"
    ).fetchall() == [("running", 1)]


def test_jobs_go_by_priority_then_by_time_and_not_before_it(admin):
    add_job(admin, scheduled_at="2099-01-01", priority=9)
    late = add_job(admin, scheduled_at="2026-01-02", priority=1)
    early = add_job(admin, scheduled_at="2026-01-01", priority=1)
    urgent = add_job(admin, scheduled_at="2026-01-03", priority=2)
    assert [claim(admin, "w") for _ in range(4)] == [urgent, early, late, None]


def test_a_dead_workers_job_is_taken_over_until_its_attempts_are_used_up(admin):
    job_id = add_job(admin, max_attempts=2)
    assert claim(admin, "first") == job_id
    assert claim(admin, "second") is None, "its lease still holds"
    let_lease_run_out(admin, job_id)
    assert claim(admin, "second") == job_id
    state = job(admin, job_id)
    assert (state["locked_by"], state["attempts"]) == ("second", 2)
    assert "attempt 1 of 2: worker first" in state["error_message"]

    let_lease_run_out(admin, job_id)
    assert claim(admin, "third") is None
    state = job(admin, job_id)
    assert state["status"] == JobStatus.FAILED
    assert state["completed_at"] is not None
    assert "attempt 2 of 2: worker second" in state["error_message"]


def test_who_lost_a_job_can_neither_keep_nor_close_it(admin):
    job_id = add_job(admin)
    claim(admin, "first")
    let_lease_run_out(admin, job_id)
    assert claim(admin, "second") == job_id
    for call in (
        "select app.extend_background_job(%s, %s)",
        "select app.complete_background_job(%s, %s)",
        "select app.fail_background_job(%s, %s, 'because')",
    ):
        assert admin.execute(call, (job_id, "first")).fetchone() == (False,), call
    before = job(admin, job_id)
    assert admin.execute(
        "select app.extend_background_job(%s, 'second', '1 hour')", (job_id,)
    ).fetchone() == (True,)
    assert job(admin, job_id)["lease_until"] > before["lease_until"]
    assert admin.execute(
        "select app.complete_background_job(%s, 'second')", (job_id,)
    ).fetchone() == (True,)
    assert job(admin, job_id)["status"] == JobStatus.COMPLETED


def test_a_failed_attempt_waits_and_the_last_one_fails_with_its_reason(admin):
    job_id = add_job(admin, max_attempts=2)
    for wait, status in (("0 seconds", JobStatus.PENDING), ("1 day", JobStatus.FAILED)):
        assert claim(admin, "w") == job_id
        admin.execute(
            "select app.fail_background_job(%s, 'w', 'quota used up', %s::interval)", (job_id, wait)
        )
        assert job(admin, job_id)["status"] == status
    assert job(admin, job_id)["error_message"] == "attempt 2 of 2: quota used up"
    assert claim(admin, "w") is None


def test_a_campaigns_history_follows_its_ad_to_another_tenant(admin):
    first, second = add_user(admin), add_user(admin)
    ad_id = add_ad(admin, first)
    campaign_id = add_campaign(admin, ad_id, first)
    admin.execute(
        "insert into app.campaign_metrics (campaign_id, user_id, date)"
        " values (%s, %s, '2026-03-01')",
        (campaign_id, first),
    )
    admin.execute("update app.ads set user_id = %s where id = %s", (second, ad_id))
    for table in ("campaigns", "campaign_metrics"):
        assert admin.execute(f"select user_id from app.{table}").fetchall() == [(second,)], table


def test_a_deleted_tenants_audit_trail_stays(admin):
    user_id = add_user(admin)
    admin.execute(
        "insert into app.audit_logs (owner_user_id, user_id, actor, entity_type, entity_id, action)"
        " values (%s, %s, 'etl', 'marked', 'x', 'update')",
        (user_id, user_id),
    )
    admin.execute("delete from app.users where id = %s", (user_id,))
    assert admin.execute(
        "select owner_user_id, user_id from app.audit_logs where entity_type = 'marked'"
    ).fetchall() == [(None, None)]
