"""What ads achieve and what the platform records: metrics, reports, rate limits, audit, jobs."""

from migrations.operations import roll_back, run_as_owner

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TYPES = """
create type app.report_type as enum ('performance', 'conversion', 'audience', 'custom');
create type app.report_instance_status as enum ('pending', 'generating', 'completed', 'failed');
create type app.audit_action as enum ('create', 'update', 'delete', 'login', 'logout');
create type app.job_status as enum ('pending', 'running', 'completed', 'failed', 'cancelled');
"""

# The specification's indexes on (campaign_id, time) repeat the primary keys: they are the keys.
METRICS = """
create table app.campaign_metrics (
    campaign_id uuid not null,
    user_id uuid not null,
    date date not null,
    impressions bigint not null default 0 check (impressions between 0 and 1000000000000000),
    clicks bigint not null default 0 check (clicks between 0 and 1000000000000000),
    conversions numeric(18, 4) not null default 0
        check (conversions between 0 and 10000000000000),
    spend_amount numeric(15, 4) not null default 0 check (spend_amount between 0 and 100000000000),
    conversion_value numeric(18, 4) check (conversion_value between 0 and 10000000000000),
    spend_currency varchar(3) not null default 'USD' check (spend_currency ~ '^[A-Z]{3}$'),
    platform_metrics jsonb check (
        jsonb_typeof(platform_metrics) = 'object' and pg_column_size(platform_metrics) < 262144
    ),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint idx_metrics_campaign_date primary key (campaign_id, date),
    foreign key (campaign_id, user_id) references app.campaigns (id, user_id)
        on update cascade on delete cascade
) partition by range (date);
create table app.campaign_metrics_default partition of app.campaign_metrics default;
create index idx_metrics_date on app.campaign_metrics (date desc);
create index idx_metrics_multi_platform on app.campaign_metrics (user_id, date desc, campaign_id)
include (impressions, clicks, spend_amount, spend_currency);

create table app.campaign_metrics_hourly (
    campaign_id uuid not null,
    user_id uuid not null,
    hour_timestamp timestamptz not null
        constraint campaign_metrics_hourly_starts_an_hour
        check (extract(epoch from hour_timestamp) % 900 = 0),
    impressions bigint not null default 0 check (impressions between 0 and 1000000000000000),
    clicks bigint not null default 0 check (clicks between 0 and 1000000000000000),
    conversions numeric(18, 4) not null default 0
        check (conversions between 0 and 10000000000000),
    spend_amount numeric(15, 4) not null default 0 check (spend_amount between 0 and 100000000000),
    spend_currency varchar(3) not null default 'USD' check (spend_currency ~ '^[A-Z]{3}$'),
    platform_metrics jsonb check (
        jsonb_typeof(platform_metrics) = 'object' and pg_column_size(platform_metrics) < 262144
    ),
    created_at timestamptz not null default clock_timestamp(),
    constraint idx_hourly_metrics_campaign_hour primary key (campaign_id, hour_timestamp),
    foreign key (campaign_id, user_id) references app.campaigns (id, user_id)
        on update cascade on delete cascade
) partition by range (hour_timestamp);
create table app.campaign_metrics_hourly_default
partition of app.campaign_metrics_hourly default;
create index idx_hourly_metrics_user_hour
on app.campaign_metrics_hourly (user_id, hour_timestamp desc);

create view app.campaign_performance with (security_invoker = true) as
select
    metrics.campaign_id,
    metrics.user_id,
    campaigns.ad_id,
    campaigns.platform_account_id,
    campaigns.platform_campaign_id,
    campaigns.campaign_name,
    campaigns.platform,
    metrics.spend_currency,
    metrics.impressions,
    metrics.clicks,
    metrics.conversions,
    metrics.spend_amount,
    metrics.conversion_value,
    metrics.spend_amount / nullif(metrics.clicks, 0) as cpc,
    metrics.clicks::numeric / nullif(metrics.impressions, 0) as ctr,
    metrics.conversions / nullif(metrics.clicks, 0) as conversion_rate,
    metrics.conversion_value / nullif(metrics.spend_amount, 0) as roas,
    metrics.date
from app.campaign_metrics as metrics
inner join app.campaigns as campaigns
    on metrics.campaign_id = campaigns.id and metrics.user_id = campaigns.user_id;
"""

REPORTS = """
create table app.reports (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references app.users (id) on delete cascade,
    name varchar(255) not null,
    description text,
    report_type app.report_type not null,
    configuration jsonb not null
        check (jsonb_typeof(configuration) = 'object' and pg_column_size(configuration) < 262144),
    schedule jsonb
        check (jsonb_typeof(schedule) = 'object' and pg_column_size(schedule) < 262144),
    is_scheduled boolean not null default false,
    last_generated_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    unique (id, user_id)
);
create index idx_reports_user on app.reports (user_id, created_at desc);

create table app.report_instances (
    id uuid primary key default gen_random_uuid(),
    report_id uuid not null,
    user_id uuid not null,
    status app.report_instance_status not null default 'pending',
    file_url text,
    file_size bigint check (file_size between 0 and 1000000000000000),
    generated_at timestamptz,
    error_message text,
    metadata jsonb
        check (jsonb_typeof(metadata) = 'object' and pg_column_size(metadata) < 262144),
    created_at timestamptz not null default clock_timestamp(),
    foreign key (report_id, user_id) references app.reports (id, user_id)
        on update cascade on delete cascade
);
create index idx_report_instances_report on app.report_instances (report_id, user_id);
create index idx_report_instances_user on app.report_instances (user_id, created_at desc);
"""

SYSTEM = """
create table app.api_rate_limits (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references app.users (id) on delete cascade,
    platform app.platform_type not null,
    endpoint varchar(255) not null check (endpoint <> ''),
    requests_count bigint not null default 0
        check (requests_count between 0 and 1000000000000000),
    window_start timestamptz not null,
    window_end timestamptz not null,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint api_rate_limits_one_per_window
        unique (user_id, platform, endpoint, window_start),
    constraint api_rate_limits_end_after_start check (window_end > window_start)
);

create table app.audit_logs (
    id uuid not null default gen_random_uuid(),
    owner_user_id uuid references app.users (id) on delete set null,
    user_id uuid references app.users (id) on delete set null,
    actor text not null,
    entity_type varchar(100) not null,
    entity_id text not null,
    action app.audit_action not null,
    old_values jsonb check (jsonb_typeof(old_values) = 'object'),
    new_values jsonb check (jsonb_typeof(new_values) = 'object'),
    ip_address inet,
    user_agent text,
    created_at timestamptz not null default clock_timestamp(),
    primary key (id, created_at)
) partition by range (created_at);
create table app.audit_logs_default partition of app.audit_logs default;
create index idx_audit_logs_user_entity on app.audit_logs (user_id, entity_type, entity_id);
create index idx_audit_logs_owner on app.audit_logs (owner_user_id, created_at desc);
create index idx_audit_logs_created_at on app.audit_logs (created_at desc);

create table app.background_jobs (
    id uuid primary key default gen_random_uuid(),
    user_id uuid references app.users (id) on delete cascade,
    job_type varchar(100) not null check (job_type <> ''),
    job_data jsonb not null
        check (jsonb_typeof(job_data) = 'object' and pg_column_size(job_data) < 262144),
    status app.job_status not null default 'pending',
    priority integer not null default 0,
    attempts integer not null default 0,
    max_attempts integer not null default 3 check (max_attempts between 1 and 100),
    locked_by varchar(255) check (locked_by <> ''),
    lease_until timestamptz,
    scheduled_at timestamptz not null default clock_timestamp(),
    started_at timestamptz,
    completed_at timestamptz,
    error_message text,
    created_at timestamptz not null default clock_timestamp(),
    constraint background_jobs_attempts_in_range check (attempts between 0 and max_attempts),
    constraint background_jobs_pending_may_try check (
        status <> 'pending' or attempts < max_attempts
    ),
    constraint background_jobs_running_is_leased check (
        (status = 'running') = (locked_by is not null)
        and (status = 'running') = (lease_until is not null)
    ),
    constraint background_jobs_lease_ends_after_start check (lease_until > started_at),
    constraint background_jobs_finished_says_when check (
        (status in ('completed', 'failed', 'cancelled')) = (completed_at is not null)
    ),
    constraint background_jobs_end_after_start check (completed_at >= started_at)
);
create index idx_jobs_status_priority
on app.background_jobs (status, priority desc, scheduled_at);
create index idx_jobs_type_status on app.background_jobs (job_type, status);
create index idx_jobs_lease on app.background_jobs (lease_until) where status = 'running';
create index idx_jobs_completed on app.background_jobs (completed_at)
where completed_at is not null;
create index idx_jobs_user on app.background_jobs (user_id, created_at desc);
"""

JOBS = """
create function app.claim_background_job(p_worker text, p_lease interval default '5 minutes')
returns setof app.background_jobs
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
begin
    with dead as (
        select jobs.id
        from app.background_jobs as jobs
        where jobs.status = 'running' and jobs.lease_until <= clock_timestamp()
        for update skip locked
    )
    update app.background_jobs as jobs
    set
        status = case when jobs.attempts < jobs.max_attempts then 'pending' else 'failed' end
            ::app.job_status,
        completed_at = case
            when jobs.attempts >= jobs.max_attempts
                then greatest(clock_timestamp(), jobs.started_at)
        end,
        error_message = format(
            'attempt %s of %s: worker %s did not finish before its lease ran out at %s UTC',
            jobs.attempts, jobs.max_attempts, jobs.locked_by,
            to_char(jobs.lease_until at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
        ),
        locked_by = null,
        lease_until = null
    from dead
    where jobs.id = dead.id;

    return query
    update app.background_jobs as jobs
    set
        status = 'running',
        attempts = jobs.attempts + 1,
        locked_by = p_worker,
        lease_until = clock_timestamp() + p_lease,
        started_at = clock_timestamp()
    where jobs.id = (
        select waiting.id
        from app.background_jobs as waiting
        where waiting.status = 'pending' and waiting.scheduled_at <= clock_timestamp()
        order by waiting.priority desc, waiting.scheduled_at
        limit 1
        for update skip locked
    )
    returning jobs.*;
end;
$function$;
comment on function app.claim_background_job(text, interval) is
    'Gives the worker the waiting job of highest priority that is due, or no row. Jobs whose lease'
    ' ran out wait again before that, or have failed if that was their last attempt. The name of a'
    ' worker must be its own: it is what a job is held by.';

create function app.extend_background_job(
    p_job uuid, p_worker text, p_lease interval default '5 minutes'
)
returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $function$
    with extended as (
        update app.background_jobs
        set lease_until = clock_timestamp() + p_lease
        where id = p_job and status = 'running' and locked_by = p_worker
        returning id
    )
    select exists (select from extended);
$function$;
comment on function app.extend_background_job(uuid, text, interval) is
    'Lets the worker keep its job for longer. False: the job is not its own any more.';

create function app.complete_background_job(p_job uuid, p_worker text)
returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $function$
    with completed as (
        update app.background_jobs
        set
            status = 'completed',
            completed_at = greatest(clock_timestamp(), started_at),
            error_message = null,
            locked_by = null,
            lease_until = null
        where id = p_job and status = 'running' and locked_by = p_worker
        returning id
    )
    select exists (select from completed);
$function$;
comment on function app.complete_background_job(uuid, text) is
    'Closes the worker''s job as completed. False: the job is not its own any more.';

create function app.fail_background_job(
    p_job uuid, p_worker text, p_reason text, p_retry_after interval default '1 minute'
)
returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $function$
    with failed as (
        update app.background_jobs
        set
            status = case when attempts < max_attempts then 'pending' else 'failed' end
                ::app.job_status,
            scheduled_at = case
                when attempts < max_attempts then clock_timestamp() + p_retry_after
                else scheduled_at
            end,
            completed_at = case
                when attempts >= max_attempts then greatest(clock_timestamp(), started_at)
            end,
            error_message = format('attempt %s of %s: %s', attempts, max_attempts, p_reason),
            locked_by = null,
            lease_until = null
        where id = p_job and status = 'running' and locked_by = p_worker
        returning id
    )
    select exists (select from failed);
$function$;
comment on function app.fail_background_job(uuid, text, text, interval) is
    'Says why the worker''s job failed: it waits for its next attempt, or has failed if that was'
    ' its last. False: the job is not its own any more.';

grant execute on function app.claim_background_job(text, interval) to etl;
grant execute on function app.extend_background_job(uuid, text, interval) to etl;
grant execute on function app.complete_background_job(uuid, text) to etl;
grant execute on function app.fail_background_job(uuid, text, text, interval) to etl;
"""

UPGRADE = TYPES + METRICS + REPORTS + SYSTEM + JOBS

DOWNGRADE = """
drop function app.fail_background_job(uuid, text, text, interval);
drop function app.complete_background_job(uuid, text);
drop function app.extend_background_job(uuid, text, interval);
drop function app.claim_background_job(text, interval);
drop table app.background_jobs;
drop table app.audit_logs;
drop table app.api_rate_limits;
drop table app.report_instances;
drop table app.reports;
drop view app.campaign_performance;
drop table app.campaign_metrics_hourly;
drop table app.campaign_metrics;
drop type app.job_status;
drop type app.audit_action;
drop type app.report_instance_status;
drop type app.report_type;
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
