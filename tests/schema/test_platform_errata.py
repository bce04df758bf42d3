"""Where the specification of the ads platform was wrong: each test fails on its own version."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest

from flows.warehouse.connection import connect
from tests.schema.test_platform import (
    add_ad,
    add_campaign,
    add_job,
    add_user,
    declared_tables,
)

TOKEN = "gAAAAABsealed"
PARTITIONED = {
    "campaign_metrics": ["campaign_id", "date"],
    "campaign_metrics_hourly": ["campaign_id", "hour_timestamp"],
    "audit_logs": ["id", "created_at"],
}
TIMES = {"campaign_metrics": "date", "campaign_metrics_hourly": "hour_timestamp"}
EDITED = [
    name
    for name, table in declared_tables().items()
    if table["config"]["meta"].get("access") == "edit"
]


@pytest.fixture
def admin(database):
    with connect(autocommit=True) as connection:
        yield connection


@pytest.fixture
def user_id(admin):
    return add_user(admin)


@pytest.fixture
def campaign_id(admin, user_id):
    return add_campaign(admin, add_ad(admin, user_id), user_id)


def columns_of(connection, table: str) -> dict[str, bool]:
    """Each column of a table, and whether it must have a value."""
    return dict(
        connection.execute(
            "select attname, attnotnull from pg_attribute"
            " where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            (f"app.{table}",),
        ).fetchall()
    )


def index(connection, name: str) -> str:
    (definition,) = connection.execute(
        "select pg_get_indexdef(%s::regclass)", (f"app.{name}",)
    ).fetchone()
    return definition


def test_the_key_of_a_partitioned_table_holds_its_partition_key(admin):
    keys = admin.execute(
        """
        select tables.relname, array_agg(attributes.attname::text order by keys.place)
        from pg_index as indexes
        inner join pg_class as tables on indexes.indrelid = tables.oid and tables.relkind = 'p'
        cross join lateral unnest(indexes.indkey) with ordinality as keys (number, place)
        inner join pg_attribute as attributes
            on indexes.indrelid = attributes.attrelid and keys.number = attributes.attnum
        where indexes.indisprimary and tables.relnamespace = 'app'::regnamespace
        group by tables.relname
        """
    ).fetchall()
    assert dict(keys) | PARTITIONED == dict(keys)


def test_the_index_on_the_end_of_sessions_is_plain(admin):
    assert index(admin, "idx_sessions_expires").endswith("USING btree (expires_at)")


def test_a_campaign_carries_its_ads_tenant_and_no_other(admin, user_id):
    assert "(user_id, status, created_at DESC) INCLUDE (platform, platform_campaign_id)" in index(
        admin, "idx_user_campaigns_performance"
    )
    ad_id = add_ad(admin, user_id)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        add_campaign(admin, ad_id, add_user(admin))
    campaign_id = add_campaign(admin, ad_id, user_id)
    for table in ("campaign_metrics (date,", "campaign_metrics_hourly (hour_timestamp,"):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            admin.execute(
                f"insert into app.{table} campaign_id, user_id) values ('2026-03-01', %s, %s)",
                (campaign_id, add_user(admin)),
            )


def test_history_and_future_have_somewhere_to_go(admin, user_id, campaign_id):
    for table, column in TIMES.items():
        for when in ("2009-02-03 04:00Z", "2099-02-03 04:00Z"):
            admin.execute(
                f"insert into app.{table} (campaign_id, user_id, {column}) values (%s, %s, %s)",
                (campaign_id, user_id, when),
            )
        kept = admin.execute(f"select count(*) from only app.{table}_default").fetchone()
        assert kept == (2,), table


def test_amazon_is_a_platform_and_adding_tiktok_again_changes_nothing(admin):
    admin.execute("alter type app.platform_type add value if not exists 'tiktok_ads'")
    assert admin.execute("select enum_range(null::app.platform_type)::text[]").fetchone() == (
        ["google_ads", "facebook_ads", "microsoft_ads", "tiktok_ads", "amazon_ads"],
    )


def test_an_ad_has_one_campaign_per_platform_and_account(admin, user_id):
    ad_id = add_ad(admin, user_id)
    add_campaign(admin, ad_id, user_id, "google_ads", "account 1", "1")
    add_campaign(admin, ad_id, user_id, "google_ads", "account 2", "1")
    add_campaign(admin, ad_id, user_id, "amazon_ads")
    with pytest.raises(psycopg.errors.UniqueViolation, match="one_per_ad_and_account"):
        add_campaign(admin, ad_id, user_id, "google_ads", "account 1", "2")
    with pytest.raises(psycopg.errors.UniqueViolation, match="one_per_ad_and_account"):
        add_campaign(admin, ad_id, user_id, "amazon_ads")
    admin.execute("update app.campaigns set deleted_at = now() where platform = 'amazon_ads'")
    add_campaign(admin, ad_id, user_id, "amazon_ads")


def test_a_platforms_campaign_belongs_to_one_row(admin, user_id):
    for account in ("account 1", None):
        add_campaign(admin, add_ad(admin, user_id), user_id, "google_ads", account, "1")
        for _ in range(2):
            add_campaign(admin, add_ad(admin, user_id), user_id, "google_ads", account)
        with pytest.raises(psycopg.errors.UniqueViolation, match="one_per_platform_id"):
            add_campaign(admin, add_ad(admin, user_id), user_id, "google_ads", account, "1")


def test_a_number_is_a_number_and_not_endless(admin, user_id, campaign_id):
    for table, time in TIMES.items():
        numbers = {"conversions", "spend_amount", "conversion_value", "impressions", "clicks"}
        for column in numbers & set(columns_of(admin, table)):
            for value in ("NaN", "Infinity", "-1", "1e16"):
                with pytest.raises(
                    (psycopg.errors.CheckViolation, psycopg.DataError, psycopg.NotSupportedError)
                ):
                    admin.execute(
                        f"insert into app.{table} (campaign_id, user_id, {time}, {column})"
                        " values (%s, %s, '2026-03-01', %s::numeric)",
                        (campaign_id, user_id, value),
                    )


def test_sizes_and_counts_pass_two_thousand_million(admin):
    for place in (
        "assets.file_size",
        "report_instances.file_size",
        "api_rate_limits.requests_count",
        "campaign_metrics.impressions",
        "campaign_metrics.clicks",
    ):
        table, column = place.split(".")
        kind = admin.execute(
            "select atttypid::regtype::text from pg_attribute"
            " where attrelid = %s::regclass and attname = %s",
            (f"app.{table}", column),
        ).fetchone()
        assert kind == ("bigint",), place


def add_credentials(connection, user_id, account, token=TOKEN):
    connection.execute(
        "insert into app.user_api_credentials"
        " (user_id, platform, external_account_id, credentials_encrypted, key_id)"
        " values (%s, 'amazon_ads', %s, %s, 'k')",
        (user_id, account, token),
    )


def test_a_tenant_has_credentials_for_several_accounts_of_a_platform(admin, user_id):
    for account in ("1", "2", None):
        add_credentials(admin, user_id, account)
    for account in ("1", None):
        with pytest.raises(psycopg.errors.UniqueViolation, match="one_per_account"):
            add_credentials(admin, user_id, account)


def test_credentials_are_stored_sealed_or_not_at_all(admin, user_id):
    with pytest.raises(psycopg.errors.CheckViolation, match="is_sealed") as refused:
        add_credentials(admin, user_id, "1", token='{"client_secret": "plain"}')
    assert "plain" not in str(refused.value)


def test_rows_with_any_key_can_be_audited_and_each_has_its_time(admin):
    columns = columns_of(admin, "audit_logs")
    assert columns["created_at"]
    assert columns["entity_id"]
    assert columns["actor"]
    admin.execute(
        "insert into app.audit_logs (actor, entity_type, entity_id, action) values"
        " ('etl', 'marked', '9007199254740993', 'delete'), ('etl', 'marked', 'a,b', 'login')"
    )
    assert admin.execute(
        "select count(*) from app.audit_logs where entity_type = 'marked'"
    ).fetchone() == (2,)


def test_a_job_in_an_impossible_state_is_refused(admin):
    for values in (
        {"status": "running", "started_at": "2026-03-01"},
        {"status": "running", "locked_by": "w"},
        {"status": "pending", "locked_by": "w", "lease_until": "2099-01-01"},
        {"status": "completed"},
        {"status": "cancelled", "started_at": "2026-03-02", "completed_at": "2026-03-01"},
        {"attempts": 4},
        {"attempts": 3},
        {"attempts": -1},
        {"max_attempts": 0},
        {"job_data": "[]"},
    ):
        with pytest.raises(psycopg.errors.CheckViolation):
            add_job(admin, **values)


def test_times_are_those_of_the_clock_and_not_of_the_transactions_start(admin):
    for name, table in declared_tables().items():
        if "view" in table["config"]["meta"]:
            continue
        defaults = dict(
            admin.execute(
                """
                select attributes.attname, pg_get_expr(defaults.adbin, defaults.adrelid)
                from pg_attribute as attributes
                inner join pg_attrdef as defaults
                    on
                        attributes.attrelid = defaults.adrelid
                        and attributes.attnum = defaults.adnum
                where
                    attributes.attrelid = %s::regclass
                    and attributes.atttypid = 'timestamptz'::regtype
                """,
                (f"app.{name}",),
            ).fetchall()
        )
        columns = columns_of(admin, name)
        assert set(defaults.values()) <= {"clock_timestamp()"}, name
        for column in {"created_at", "updated_at"} & set(columns):
            assert columns[column], f"{name}.{column} must have a value"
            assert column in defaults, name


def test_tables_that_people_edit_know_when_and_keep_what_was_deleted(admin):
    assert {"ads", "ad_assets", "assets", "campaigns", "reports"} == set(EDITED)
    for name in EDITED:
        assert {"created_at", "updated_at", "deleted_at"} <= set(columns_of(admin, name)), name
        meta = declared_tables()[name]["config"]["meta"]
        assert meta["updated_at"], name
        assert meta["audit"], name
        assert "deleted_at" in meta["editable"], name


def test_logs_and_metrics_are_not_deleted_softly(admin):
    for name in set(declared_tables()) - set(EDITED):
        assert "deleted_at" not in columns_of(admin, name), name


def test_an_update_that_changes_nothing_leaves_updated_at(admin, user_id):
    ad_id = add_ad(admin, user_id)
    (made,) = admin.execute("select updated_at from app.ads").fetchone()
    change = "update app.ads set name = %s where id = %s returning updated_at"
    assert admin.execute(change, ("Spring", ad_id)).fetchone() == (made,)
    (changed,) = admin.execute(change, ("Summer", ad_id)).fetchone()
    assert changed > made


def test_changes_are_audited_and_secrets_masked(admin, user_id):
    add_credentials(admin, user_id, "1")
    admin.execute(
        "update app.user_api_credentials set credentials_encrypted = %s, is_active = false",
        (TOKEN + uuid4().hex,),
    )
    entries = admin.execute(
        "select action, owner_user_id, new_values ->> 'credentials_encrypted',"
        " new_values ->> 'is_active', old_values::text || new_values::text"
        " from app.audit_logs where entity_type = 'user_api_credentials' order by created_at"
    ).fetchall()
    assert [entry[:4] for entry in entries] == [
        ("create", user_id, "***", "true"),
        ("update", user_id, "*** (changed)", "false"),
    ]
    assert not any(TOKEN in (text or "") for *_, text in entries)


def test_rates_are_not_stored_and_spend_has_a_currency(admin, user_id, campaign_id):
    columns = columns_of(admin, "campaign_metrics")
    assert not {"cpc", "ctr", "conversion_rate", "roas"} & set(columns)
    for table, column in TIMES.items():
        assert columns_of(admin, table)["spend_currency"]
        for currency in ("usd", "€", "US", None):
            with pytest.raises(psycopg.errors.IntegrityError):
                admin.execute(
                    f"insert into app.{table} (campaign_id, user_id, {column}, spend_currency)"
                    " values (%s, %s, %s, %s)",
                    (campaign_id, user_id, datetime(2026, 3, 1, tzinfo=UTC), currency),
                )


IMPOSSIBLE = {
    "campaign_deployments (campaign_id, user_id, deployment_type, status, started_at,"
    " completed_at)": "%(campaign)s, %(user)s, 'create', 'failed', '2026-03-02', '2026-03-01'",
    "api_rate_limits (user_id, platform, endpoint, window_start, window_end)": (
        "%(user)s, 'amazon_ads', '/reports', '2026-03-02', '2026-03-02'"
    ),
    "reports (user_id, name, report_type, configuration)": "%(user)s, 'r', 'custom', '\"text\"'",
    "ads (user_id, name, unified_data, targeting_data, budget_data)": (
        "%(user)s, 'a', '{}', '[]', '{}'"
    ),
    "assets (user_id, filename, original_filename, mime_type, file_url, file_size)": (
        "%(user)s, 'f', 'f', 'image/png', 'f', -1"
    ),
}


def test_what_cannot_be_is_refused(admin, user_id, campaign_id):
    for into, values in IMPOSSIBLE.items():
        with pytest.raises(psycopg.errors.CheckViolation):
            admin.execute(
                f"insert into app.{into} values ({values})",
                {"campaign": campaign_id, "user": user_id},
            )
