"""How the syncs of the connected accounts go: states, times, their history and rate limits."""

from migrations.operations import roll_back, run_as_owner, run_sql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NEW_COLUMNS = """
alter table app.oauth_tokens
    add column refresh_failure_count bigint not null default 0
        check (refresh_failure_count between 0 and 1e15),
    add column last_refresh_error text,
    add column proactive_refresh_enabled boolean not null default true;
create index idx_oauth_tokens_expires_at on app.oauth_tokens (expires_at)
where proactive_refresh_enabled;

alter table app.user_accounts
    add column sync_status varchar(50) not null default 'pending' check (
        sync_status in ('pending', 'in_progress', 'completed', 'partial', 'failed')
    ),
    add column sync_error_message text,
    add column sync_retry_count bigint not null default 0
        check (sync_retry_count between 0 and 1e15),
    add column next_sync_at timestamptz,
    add column last_sync_attempt_at timestamptz,
    add column last_sync_change_at timestamptz;
"""

# Row security is forced for the owner of the tables as well, so that this role would find no rows.
BACKFILL = """
set local role rls_definer;
update app.user_accounts
set
    sync_status = case
        when status = 'active' then 'completed'
        when status = 'pending' then 'pending'
        else 'failed'
    end,
    next_sync_at = clock_timestamp() + interval '1 hour',
    last_sync_attempt_at = last_synced_at;
set local role none;
"""

# The specification's index is the one of the unique constraint on the same columns.
NEW_TABLES = """
alter table app.user_accounts
    rename constraint user_accounts_one_per_amazon_account to idx_user_accounts_user_amazon;
create index idx_user_accounts_metadata on app.user_accounts using gin (metadata);

create table app.account_sync_history (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references app.users (id) on delete restrict,
    user_account_id uuid,
    kept_account_id varchar(36),
    amazon_account_id varchar(255) check (amazon_account_id <> ''),
    sync_type varchar(50) not null check (sync_type in ('manual', 'scheduled', 'webhook')),
    sync_status varchar(50) not null
        check (sync_status in ('started', 'success', 'partial', 'failed')),
    started_at timestamptz not null default clock_timestamp(),
    completed_at timestamptz,
    accounts_synced bigint not null default 0 check (accounts_synced between 0 and 1e15),
    accounts_failed bigint not null default 0 check (accounts_failed between 0 and 1e15),
    error_details jsonb
        check (jsonb_typeof(error_details) = 'object' and pg_column_size(error_details) < 262144),
    metadata jsonb
        check (jsonb_typeof(metadata) = 'object' and pg_column_size(metadata) < 262144),
    created_at timestamptz not null default clock_timestamp(),
    constraint account_sync_history_ends_after_its_start check (completed_at >= started_at),
    constraint account_sync_history_ends
        check ((sync_status = 'started') = (completed_at is null)),
    constraint account_sync_history_of_an_account_of_the_user
        foreign key (user_account_id, user_id) references app.user_accounts (id, user_id)
        on update cascade on delete set null (user_account_id)
);
create index idx_sync_history_account on app.account_sync_history (user_account_id, user_id);
create index idx_sync_history_status on app.account_sync_history (sync_status);
create index idx_sync_history_started on app.account_sync_history (started_at desc);
create index idx_sync_history_user on app.account_sync_history (user_id, started_at desc);

create table app.rate_limit_tracking (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references app.users (id) on delete cascade,
    endpoint varchar(255) not null check (endpoint <> ''),
    request_count bigint not null default 0 check (request_count between 0 and 1e15),
    limit_hit_count bigint not null default 0 check (limit_hit_count between 0 and 1e15),
    last_limit_hit timestamptz,
    retry_after_seconds bigint check (retry_after_seconds between 0 and 1e15),
    window_start timestamptz not null default clock_timestamp(),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint rate_limit_tracking_one_per_window unique (user_id, endpoint, window_start)
);
create index idx_rate_limit_user on app.rate_limit_tracking (user_id);
create index idx_rate_limit_endpoint on app.rate_limit_tracking (endpoint);
create index idx_rate_limit_window on app.rate_limit_tracking (window_start);

create function app.keep_account_ids()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
begin
    select
        coalesce(new.kept_account_id, user_accounts.id::text),
        coalesce(new.amazon_account_id, user_accounts.amazon_account_id)
    into new.kept_account_id, new.amazon_account_id
    from app.user_accounts
    where user_accounts.id = new.user_account_id;
    return new;
end;
$function$;
comment on function app.keep_account_ids() is
    'Before a record of a sync is inserted: writes down whose it is in text, which stays when the'
    ' account is deleted.';
"""

DOWNGRADE = """
drop function app.keep_account_ids();
drop table app.rate_limit_tracking;
drop table app.account_sync_history;
drop index app.idx_user_accounts_metadata;
alter table app.user_accounts
    rename constraint idx_user_accounts_user_amazon to user_accounts_one_per_amazon_account;
alter table app.user_accounts
    drop column sync_status,
    drop column sync_error_message,
    drop column sync_retry_count,
    drop column next_sync_at,
    drop column last_sync_attempt_at,
    drop column last_sync_change_at;
alter table app.oauth_tokens
    drop column refresh_failure_count,
    drop column last_refresh_error,
    drop column proactive_refresh_enabled;
"""


def upgrade() -> None:
    run_as_owner(NEW_COLUMNS)
    run_sql(BACKFILL)
    run_as_owner(NEW_TABLES)


def downgrade() -> None:
    roll_back(DOWNGRADE)
