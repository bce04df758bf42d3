"""Whose Search Query Performance data it is, how it was synced, and how fresh it is."""

from migrations.operations import roll_back, run_sql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# dbt builds the summaries: where they exist, they get what their next build would not give them,
# the columns with their values for the rows that are there, and the key that begins with the
# account. No figure of a summary changes.
UPGRADE = """
do $do$
declare
    summary text;
    old_key regclass;
begin
    foreach summary in array array['weekly_summary', 'monthly_summary', 'quarterly_summary'] loop
        continue when to_regclass('sqp.' || summary) is null;
        select indexes.indexrelid::regclass
        into old_key
        from pg_catalog.pg_index as indexes
        where
            indexes.indrelid = to_regclass('sqp.' || summary)
            and indexes.indisunique
            and pg_get_indexdef(indexes.indexrelid) like '%(period_start, account_id,%';
        if old_key is not null then
            execute format(
                'create unique index on sqp.%I'
                ' (account_id, period_start, marketplace_id, asin, query_digest)',
                summary
            );
            execute format('drop index %s', old_key);
        end if;
    end loop;

    if to_regclass('sqp.weekly_summary') is not null then
        alter table sqp.weekly_summary rename column load_id to sync_log_id;
        alter table sqp.weekly_summary
        add column bigquery_sync_id text,
        add column last_synced_at timestamptz;
        update sqp.weekly_summary as weeks
        set
            bigquery_sync_id = case
                when slices.load_id = slices.accepted_load_id then left(slices.source_file, 255)
            end,
            last_synced_at = slices.accepted_at
        from landing.sqp_slices as slices
        where
            slices.report_view = 'asin'
            and slices.period_type = 'WEEK'
            and slices.account_id = weeks.account_id
            and slices.marketplace_id = weeks.marketplace_id
            and slices.period_start = weeks.period_start
            and slices.subject = weeks.asin
            and slices.accepted_load_id is not null;
        create index idx_weekly_summary_sync
        on sqp.weekly_summary (last_synced_at, bigquery_sync_id);
    end if;
end;
$do$;

set local role app_owner;
alter table sqp.sync_log
alter column run_id set default gen_random_uuid(),
alter column lease_until set default clock_timestamp() + interval '2 minutes';
alter table sqp.data_quality_checks
drop constraint data_quality_checks_check_type_check,
add constraint data_quality_checks_check_type_check check (check_type in (
    'row_count', 'sum_validation', 'null_check', 'schema', 'range', 'identity', 'volume',
    'rejected_rows', 'dbt_test', 'default_partition'
));

create function sqp.get_latest_sync_status(p_sync_type varchar default 'weekly')
returns table (
    last_sync_time timestamptz,
    last_sync_status varchar(20),
    records_processed bigint,
    next_sync_due timestamptz,
    last_attempt_at timestamptz,
    last_change_at timestamptz
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $function$
begin
    return query
    select
        statuses.last_success_at,
        statuses.last_attempt_status::varchar(20),
        statuses.last_attempt_records_processed,
        statuses.next_sync_due,
        statuses.last_attempt_at,
        statuses.last_change_at
    from sqp.sync_status as statuses
    where statuses.sync_type = p_sync_type;
end;
$function$;
comment on function sqp.get_latest_sync_status(varchar) is
    'When the syncs of a type (weekly, monthly, quarterly) last succeeded, were last tried and last'
    ' changed something, how the last attempt stands, and when one is due. Reads sqp.sync_status.';

create function sqp.check_data_freshness()
returns table (
    table_name text,
    latest_period date,
    days_old integer,
    is_stale boolean
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $function$
begin
    return query
    select
        ages.table_name::text,
        ages.latest_period,
        ages.days_old::integer,
        ages.is_stale
    from sqp.data_freshness as ages;
end;
$function$;
comment on function sqp.check_data_freshness() is
    'Age and staleness of the weekly, monthly and quarterly summaries, as far as the caller may see'
    ' them. Reads sqp.data_freshness.';
grant execute on function sqp.get_latest_sync_status(varchar), sqp.check_data_freshness()
to etl, dbt, authenticated;
set local role none;
"""

DOWNGRADE = """
alter table sqp.sync_log alter column run_id drop default, alter column lease_until drop default;
drop function sqp.check_data_freshness();
drop function sqp.get_latest_sync_status(varchar);
delete from sqp.data_quality_checks where check_type = 'default_partition';
alter table sqp.data_quality_checks
drop constraint data_quality_checks_check_type_check,
add constraint data_quality_checks_check_type_check check (check_type in (
    'row_count', 'sum_validation', 'null_check', 'schema', 'range', 'identity', 'volume',
    'rejected_rows', 'dbt_test'
));
do $do$
begin
    if to_regclass('sqp.weekly_summary') is not null then
        alter table sqp.weekly_summary
        drop column bigquery_sync_id,
        drop column last_synced_at;
        alter table sqp.weekly_summary rename column sync_log_id to load_id;
    end if;
end;
$do$;
"""


def upgrade() -> None:
    run_sql(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
