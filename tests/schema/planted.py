"""A marked row of each of two tenants in every table that a tenant could have rows in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID, uuid5

import psycopg

from tests.integration.landing_rows import US, Landing, Row, SliceOf, week

NAMES = UUID("6f1c1a52-98f5-4b4d-9d43-6a1f6f0e7c11")
WEEK = date(2025, 1, 5)


@dataclass(frozen=True)
class Tenant:
    """One tenant: the mark is in every row, as text or as the id of something of his."""

    mark: str

    def id(self, what: str) -> UUID:
        """The id of one of the tenant's things, always the same."""
        return uuid5(NAMES, f"{self.mark} {what}")

    @property
    def user_id(self) -> UUID:
        return self.id("user")


ALPHA, BRAVO = Tenant("MARKALPHA"), Tenant("MARKBRAVO")

ROWS = {
    "app.users": (
        "(id, email, password_hash, first_name, last_name) values (%(user)s, %(mark)s::text "
        "|| '@example.com', 'x', %(mark)s, %(mark)s)"
    ),
    "app.user_accounts": (
        "(id, user_id, account_name, amazon_account_id, account_type, status, entity_id, metadata) "
        "values (%(account)s, %(user)s, %(mark)s, %(number)s, 'dsp', 'active', %(mark)s, '{}'), "
        "(%(ads_account)s, %(user)s, %(mark)s, %(mark)s, 'advertising', 'active', null, "
        "jsonb_build_object('marketplaces', jsonb_build_array(jsonb_build_object("
        "'country_code', 'US', 'entity_id', %(mark)s::text))))"
    ),
    "app.oauth_tokens": (
        "(user_id, user_account_id, access_token, refresh_token, key_id, expires_at, scope) "
        "values (%(user)s, %(account)s, 'gAAAAsealed', 'gAAAAsealed', 'key', now(), %(mark)s)"
    ),
    "app.sqp_accounts": "(account_id, user_id) values (%(mark)s, %(user)s)",
    "app.account_sync_history": (
        "(user_id, user_account_id, sync_type, sync_status) values (%(user)s, %(account)s, "
        "'manual', 'started')"
    ),
    "app.rate_limit_tracking": "(user_id, endpoint) values (%(user)s, %(mark)s)",
    "landing.bigquery_slices": (
        "(account_id, source_table, marketplace_id, period_start, subject, row_count, low_sum, "
        "high_sum, job_id) values (%(mark)s, 'p.d.t', 'ATVPDKIKX0DER', '2025-01-05', "
        "'B000000001', 1, 2, 3, 'job')"
    ),
    "landing.slice_loads": (
        "(account_id, slice_id, load_id, source_file, row_count, rejected_count, slice_digest, "
        "delivered_at, loaded_at) values (%(mark)s, 1, 1, %(mark)s, 1, 0, 'd', now(), now())"
    ),
    "app.amc_accounts": (
        "(id, user_id, account_id, marketplace_id, region) values (%(amc)s, %(user)s, "
        "'ENTITY' || %(mark)s::text, 'ATVPDKIKX0DER', 'NA')"
    ),
    "app.amc_instances": (
        "(id, user_id, account_id, instance_id, instance_name, region) values (%(instance)s, "
        "%(user)s, %(amc)s, %(mark)s, %(mark)s, 'NA')"
    ),
    "app.workflows": (
        "(id, user_id, instance_id, workflow_id, name, sql_query) values (%(workflow)s, "
        "%(user)s, %(instance)s, %(mark)s, %(mark)s, 'select 1')"
    ),
    "app.workflow_executions": (
        "(id, user_id, workflow_id, execution_id) values (%(execution)s, %(user)s, "
        "%(workflow)s, %(mark)s)"
    ),
    "app.dsp_seats_sync_log": (
        "(id, user_id, user_account_id, advertiser_id, sync_status) values (%(seats_sync)s, "
        "%(user)s, %(account)s, %(number)s, 'in_progress')"
    ),
    "app.dsp_seats": (
        "(user_id, user_account_id, exchange_id, exchange_name, seat_id) values (%(user)s, "
        "%(account)s, %(mark)s, %(mark)s, %(mark)s)"
    ),
    "app.dsp_seats_history": (
        "(user_id, user_account_id, kept_account_id, advertiser_id, change_type, exchange_id, "
        "seat_id, exchange_name) values (%(user)s, %(account)s, %(account)s::text, "
        "%(number)s, 'new', %(mark)s, %(mark)s, %(mark)s)"
    ),
    "app.user_api_credentials": (
        "(user_id, platform, external_account_id, credentials_encrypted, key_id) values "
        "(%(user)s, 'amazon_ads', %(mark)s, 'gAAAAsealed', 'key')"
    ),
    "app.user_sessions": ("(user_id, token_jti, expires_at) values (%(user)s, %(mark)s, now())"),
    "app.assets": (
        "(id, user_id, filename, original_filename, file_size, mime_type, file_url) values "
        "(%(asset)s, %(user)s, %(mark)s, %(mark)s, 1, 'image/png', "
        "'https://example.com/a.png')"
    ),
    "app.platform_assets": (
        "(asset_id, platform, platform_asset_id) values (%(asset)s, 'amazon_ads', %(mark)s)"
    ),
    "app.ads": (
        "(id, user_id, name, unified_data, targeting_data, budget_data) values (%(ad)s, "
        "%(user)s, %(mark)s, '{}', '{}', '{}')"
    ),
    "app.ad_assets": "(ad_id, asset_id, asset_type) values (%(ad)s, %(asset)s, 'logo')",
    "app.campaigns": (
        "(id, ad_id, platform, campaign_name) values (%(campaign)s, %(ad)s, 'amazon_ads', %(mark)s)"
    ),
    "app.campaign_deployments": (
        "(campaign_id, deployment_type, status, started_at) values (%(campaign)s, 'create', "
        "'pending', now())"
    ),
    "app.campaign_metrics": (
        "(campaign_id, date, impressions) values (%(campaign)s, current_date, 1)"
    ),
    "app.campaign_metrics_hourly": (
        "(campaign_id, hour_timestamp) values (%(campaign)s, date_trunc('hour', now()))"
    ),
    "app.reports": (
        "(id, user_id, name, report_type, configuration) values (%(report)s, %(user)s, "
        "%(mark)s, 'custom', '{}')"
    ),
    "app.report_instances": "(report_id, file_url) values (%(report)s, %(mark)s)",
    "app.api_rate_limits": (
        "(user_id, platform, endpoint, window_start, window_end) values (%(user)s, "
        "'amazon_ads', %(mark)s, now(), now() + interval '1 hour')"
    ),
    "app.background_jobs": "(user_id, job_type, job_data) values (%(user)s, %(mark)s, '{}')",
    "app.dashboards": (
        "(id, dashboard_id, name, user_id) values (%(dashboard)s, %(mark)s, %(mark)s, %(user)s)"
    ),
    "app.dashboard_widgets": (
        "(widget_id, dashboard_id, widget_type, title, data_source, position_config) values "
        "(%(mark)s, %(dashboard)s, 'text', %(mark)s, '{}', '{}')"
    ),
    "app.dashboard_shares": (
        "(dashboard_id, shared_by_user_id, shared_with_user_id) values (%(dashboard)s, "
        "%(user)s, %(guest)s)"
    ),
    "app.report_data_collections": (
        "(id, collection_id, workflow_id, instance_id, user_id, collection_type, "
        "target_weeks, start_date, end_date) values (%(collection)s, %(mark)s, %(workflow)s, "
        "%(instance)s, %(user)s, 'backfill', 1, '2025-01-05', '2025-01-11')"
    ),
    "app.report_data_weeks": (
        "(id, collection_id, week_start_date, week_end_date, error_message) values (%(week)s, "
        "%(collection)s, '2025-01-05', '2025-01-11', %(mark)s)"
    ),
    "app.report_data_rows": (
        "(week_start_date, week_id, row_number, user_id, workflow_id, instance_id, "
        "row_values, row_digest) values ('2025-01-05', %(week)s, 1, %(user)s, %(workflow)s, "
        "%(instance)s, jsonb_build_object('mark', %(mark)s::text), sha256('x'))"
    ),
    "reporting.report_data_aggregates": (
        "(workflow_id, instance_id, user_id, aggregation_type, aggregation_key, metrics, "
        "data_date) values (%(workflow)s, %(instance)s, %(user)s, 'weekly', %(mark)s, '{}', "
        "'2025-01-05')"
    ),
    "app.ai_insights": (
        "(insight_id, user_id, query_text, response_text) values (%(mark)s, %(user)s, "
        "%(mark)s, %(mark)s)"
    ),
}
"""An insert for each table; audit rows come of themselves, from the triggers."""


def telling_weeks(tenant: Tenant) -> list[SliceOf]:
    """Weeks of which every mart has something to say: a year before, a gap, an ASIN that stops."""
    before = [WEEK - timedelta(weeks=number) for number in (52, *range(14, 0, -1))]
    return [
        *(week(start, "B000000RED", tenant.mark) for start in before),
        week(before[-2], "B00000BLUE", tenant.mark),
    ]


def telling_rows(about: SliceOf, tenant: Tenant) -> list[Row]:
    """Many clicks and no purchase; at last a fraction of the clicks of before."""
    fell = WEEK - about.period_start <= timedelta(weeks=4)
    return [
        Row(
            tenant.mark.lower(),
            own_impressions=900,
            own_clicks=4 if fell else 60,
            own_purchases=0,
            purchases=60,
        )
    ]


def plant(connection: psycopg.Connection, tenant: Tenant, guest: UUID) -> None:
    """Insert the tenant's row into every table; `guest` gets a share of his dashboard.

    Args:
        connection: of a role that row security does not bind.
    """
    things = (
        "account ads_account amc instance workflow execution seats_sync asset ad campaign report"
        " dashboard collection week"
    )
    values = {thing: tenant.id(thing) for thing in things.split()} | {
        "user": tenant.user_id,
        "guest": guest,
        "mark": tenant.mark,
        "number": str(int.from_bytes(tenant.mark.encode()[-5:])),
    }
    cursor = psycopg.ClientCursor(connection)  # one value stands for columns of several types
    for table, insert in ROWS.items():
        cursor.execute(f"insert into {table} {insert}", values)
    landing = Landing(connection)
    whole = [
        SliceOf(tenant.mark, US, period_type, start, subject, view)
        for view, subject in (("asin", "B000000RED"), ("brand", tenant.mark))
        for period_type, start in (
            ("WEEK", WEEK),
            ("MONTH", date(2025, 1, 1)),
            ("QUARTER", date(2025, 1, 1)),
        )
    ]
    for about, rows in (
        *((each, telling_rows(each, tenant)) for each in telling_weeks(tenant)),
        *((each, [Row(tenant.mark.lower())]) for each in whole),
    ):
        load_id = landing.deliver(about, rows)
        connection.execute(
            "update sqp.sync_log set account_id = %s, sync_status = 'completed',"
            " completed_at = clock_timestamp(), sync_type = %s where id = %s",
            (tenant.mark, f"{about.period_type.lower()}ly", load_id),
        )
        connection.execute(
            "insert into sqp.data_quality_checks (sync_log_id, check_type, check_name,"
            " check_status, check_message) values (%s, 'volume', %s, 'passed', %s)",
            (load_id, tenant.mark, tenant.mark),
        )
    connection.execute(
        "insert into landing.rejected_rows (reject_digest, load_id, account_id, report_view,"
        " period_type, source_file, source_line, reason_code, reason, delivered_text)"
        " values (%s, %s, %s, 'asin', 'WEEK', 'f', 1, 'negative', 'r', %s)",
        (tenant.mark.encode(), load_id, tenant.mark, tenant.mark),
    )
