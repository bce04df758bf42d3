"""The seats of DSP advertisers: each seat, its history, the syncs, and the document of an account.

A seat is a row of `dsp_seats`. `user_accounts.seats_metadata` holds the same as one document, which
is written when a sync has changed something, and not for each step of a sync.
"""

from migrations.operations import roll_back, run_as_owner, run_sql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

NEW_COLUMN = """
alter table app.user_accounts add column seats_metadata jsonb not null default '{}';
"""

# Row security is forced for the owner of the tables as well, so that this role would find no rows.
BACKFILL = """
set local role rls_definer;
update app.user_accounts
set
    seats_metadata = jsonb_build_object(
        'exchanges', '[]'::jsonb,
        'last_seats_sync', null,
        'total_seats', 0,
        'sync_status', 'pending'
    )
where account_type = 'dsp';
set local role none;
"""

# The type is part of the keys, so that a DSP account with seats or syncs stays one.
NEW_TABLES = """
alter table app.user_accounts
    add constraint user_accounts_of_one_user_and_type unique (id, user_id, account_type),
    add constraint user_accounts_seats_are_an_object check (
        jsonb_typeof(seats_metadata) = 'object' and pg_column_size(seats_metadata) < 8388608
    ),
    add constraint user_accounts_seats_are_as_documented check (
        account_type <> 'dsp'
        or coalesce(jsonb_typeof(seats_metadata -> 'exchanges') = 'array', false)
        and seats_metadata ?& array['last_seats_sync', 'total_seats', 'sync_status']
        and seats_metadata ->> 'sync_status' in ('pending', 'success', 'partial', 'failed')
        and not jsonb_path_exists(
            seats_metadata,
            '$.exchanges[*] ? (!(exists (@.exchange_id)) || !(exists (@.exchange_name)))'
        )
    );
create index idx_user_accounts_seats_metadata on app.user_accounts using gin (seats_metadata);

create table app.dsp_seats_sync_log (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references app.users (id) on delete restrict,
    user_account_id uuid,
    account_type varchar(50) not null default 'dsp'
        constraint dsp_seats_sync_log_is_of_a_dsp_account check (account_type = 'dsp'),
    kept_account_id varchar(36),
    advertiser_id varchar(255) not null
        constraint dsp_seats_sync_log_advertiser_is_numeric check (advertiser_id ~ '^[0-9]+$'),
    sync_status varchar(50) not null
        check (sync_status in ('pending', 'in_progress', 'success', 'partial', 'failed')),
    seats_retrieved bigint not null default 0 check (seats_retrieved between 0 and 1e15),
    exchanges_count bigint not null default 0 check (exchanges_count between 0 and 1e15),
    error_message text,
    request_metadata jsonb not null default '{}' check (
        jsonb_typeof(request_metadata) = 'object' and pg_column_size(request_metadata) < 262144
    ),
    response_metadata jsonb not null default '{}' check (
        jsonb_typeof(response_metadata) = 'object' and pg_column_size(response_metadata) < 262144
    ),
    created_at timestamptz not null default clock_timestamp(),
    completed_at timestamptz,
    constraint dsp_seats_sync_log_of_one_user unique (id, user_id),
    constraint dsp_seats_sync_log_ends_after_its_start check (completed_at >= created_at),
    constraint dsp_seats_sync_log_runs_without_end
        check (sync_status not in ('pending', 'in_progress') or completed_at is null),
    constraint dsp_seats_sync_log_of_a_dsp_account_of_the_user
        foreign key (user_account_id, user_id, account_type)
        references app.user_accounts (id, user_id, account_type)
        on update cascade on delete set null (user_account_id)
);
create index idx_dsp_seats_sync_user_account
on app.dsp_seats_sync_log (user_account_id, user_id, account_type);
create index idx_dsp_seats_sync_advertiser
on app.dsp_seats_sync_log (advertiser_id, created_at desc);
create index idx_dsp_seats_sync_created on app.dsp_seats_sync_log (created_at desc);
create index idx_dsp_seats_sync_user
on app.dsp_seats_sync_log (user_id, advertiser_id, created_at desc);
create unique index dsp_seats_sync_log_one_running_per_account
on app.dsp_seats_sync_log (user_account_id)
where sync_status in ('pending', 'in_progress');

create table app.dsp_seats (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    user_account_id uuid not null,
    account_type varchar(50) not null default 'dsp'
        constraint dsp_seats_is_of_a_dsp_account check (account_type = 'dsp'),
    sync_log_id uuid,
    exchange_id varchar(255) not null check (exchange_id <> ''),
    exchange_name varchar(255) not null check (exchange_name <> ''),
    seat_id varchar(255) not null,
    deal_creation_id varchar(255) check (deal_creation_id <> ''),
    spend_tracking_id varchar(255) check (spend_tracking_id <> ''),
    first_seen_at timestamptz not null default clock_timestamp(),
    last_seen_at timestamptz not null default clock_timestamp(),
    removed_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint dsp_seats_one_per_account_exchange_and_seat
        unique (user_account_id, exchange_id, seat_id),
    constraint dsp_seats_seat_id_is_the_most_telling
        check (seat_id = coalesce(deal_creation_id, spend_tracking_id, exchange_id)),
    constraint dsp_seats_last_seen_after_first check (last_seen_at >= first_seen_at),
    constraint dsp_seats_removed_after_first_seen check (removed_at >= first_seen_at),
    constraint dsp_seats_of_a_dsp_account_of_the_user
        foreign key (user_account_id, user_id, account_type)
        references app.user_accounts (id, user_id, account_type)
        on update cascade on delete cascade,
    constraint dsp_seats_of_a_sync_of_the_user foreign key (sync_log_id, user_id)
        references app.dsp_seats_sync_log (id, user_id)
        on update cascade on delete set null (sync_log_id)
);
create index idx_dsp_seats_account on app.dsp_seats (user_account_id, user_id, account_type);
create index idx_dsp_seats_user on app.dsp_seats (user_id, exchange_id);
create index idx_dsp_seats_sync on app.dsp_seats (sync_log_id, user_id);

create table app.dsp_seats_history (
    id bigint generated by default as identity primary key,
    user_id uuid not null references app.users (id) on delete restrict,
    user_account_id uuid,
    kept_account_id varchar(36) not null,
    advertiser_id varchar(255) not null check (advertiser_id ~ '^[0-9]+$'),
    sync_log_id uuid,
    change_type varchar(20) not null check (change_type in ('new', 'changed', 'removed')),
    exchange_id varchar(255) not null,
    seat_id varchar(255) not null,
    exchange_name varchar(255) not null,
    deal_creation_id varchar(255),
    spend_tracking_id varchar(255),
    previous_exchange_name varchar(255),
    previous_spend_tracking_id varchar(255),
    observed_at timestamptz not null default clock_timestamp(),
    constraint dsp_seats_history_of_an_account_of_the_user
        foreign key (user_account_id, user_id) references app.user_accounts (id, user_id)
        on update cascade on delete set null (user_account_id),
    constraint dsp_seats_history_of_a_sync_of_the_user foreign key (sync_log_id, user_id)
        references app.dsp_seats_sync_log (id, user_id)
        on update cascade on delete set null (sync_log_id)
);
create index idx_dsp_seats_history_account on app.dsp_seats_history (user_account_id, user_id);
create index idx_dsp_seats_history_user on app.dsp_seats_history (user_id, observed_at desc);
create index idx_dsp_seats_history_sync on app.dsp_seats_history (sync_log_id, user_id);
"""

FUNCTIONS = """
create function app.fill_seats_metadata()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
begin
    new.seats_metadata := jsonb_build_object(
        'exchanges', '[]'::jsonb,
        'last_seats_sync', null,
        'total_seats', 0,
        'sync_status', 'pending'
    );
    return new;
end;
$function$;
comment on function app.fill_seats_metadata() is
    'Before a DSP account is written without a seats document: gives it the default one.';

create function app.update_seats_sync_timestamp()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
begin
    if old.seats_metadata is not distinct from new.seats_metadata then
        return new;
    end if;
    case new.seats_metadata ->> 'sync_status'
        when 'success' then
            new.last_synced_at := clock_timestamp();
            new.last_sync_attempt_at := new.last_synced_at;
        when 'partial', 'failed' then
            new.last_synced_at := old.last_synced_at;
            new.last_sync_attempt_at := clock_timestamp();
        else
            new.last_synced_at := old.last_synced_at;
    end case;
    if old.seats_metadata -> 'exchanges' is distinct from new.seats_metadata -> 'exchanges' then
        new.last_sync_change_at := clock_timestamp();
    end if;
    return new;
end;
$function$;
comment on function app.update_seats_sync_timestamp() is
    'Before a DSP account with another seats document is written: a success is the last sync, a'
    ' failed or partial one is only the last attempt, and other seats are the last change.';

create function app.seats_metadata_of(
    p_user_account_id uuid, p_sync_status text, p_synced_at timestamptz
)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
begin atomic
    select jsonb_build_object(
        'exchanges', coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'exchange_id', dsp_seats.exchange_id,
                    'exchange_name', dsp_seats.exchange_name,
                    'deal_creation_id', dsp_seats.deal_creation_id,
                    'spend_tracking_id', dsp_seats.spend_tracking_id,
                    'added_at', dsp_seats.first_seen_at
                )
                order by dsp_seats.exchange_id, dsp_seats.seat_id
            ),
            '[]'::jsonb
        ),
        'last_seats_sync', p_synced_at,
        'total_seats', count(*),
        'sync_status', p_sync_status,
        'next_token', null,
        'has_more_pages', false
    )
    from app.dsp_seats
    where dsp_seats.user_account_id = p_user_account_id and dsp_seats.removed_at is null;
end;
comment on function app.seats_metadata_of(uuid, text, timestamptz) is
    'The seats document of an account under its documented keys, from the seats that it has now.';
grant execute on function app.seats_metadata_of(uuid, text, timestamptz) to etl;

create function app.record_seat_change()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
declare
    change text;
begin
    if tg_op = 'INSERT' then
        change := 'new';
    elsif old.removed_at is null and new.removed_at is not null then
        change := 'removed';
    elsif old.removed_at is not null and new.removed_at is null then
        change := 'new';
    elsif (old.exchange_name, old.deal_creation_id, old.spend_tracking_id)
        is distinct from (new.exchange_name, new.deal_creation_id, new.spend_tracking_id)
    then
        change := 'changed';
    else
        return null;
    end if;
    insert into app.dsp_seats_history (
        user_id, user_account_id, kept_account_id, advertiser_id, sync_log_id, change_type,
        exchange_id, seat_id, exchange_name, deal_creation_id, spend_tracking_id,
        previous_exchange_name, previous_spend_tracking_id
    )
    select
        new.user_id, new.user_account_id, user_accounts.id::text,
        user_accounts.amazon_account_id, new.sync_log_id, change,
        new.exchange_id, new.seat_id, new.exchange_name, new.deal_creation_id,
        new.spend_tracking_id,
        case when change = 'changed' then old.exchange_name end,
        case when change = 'changed' then old.spend_tracking_id end
    from app.user_accounts
    where user_accounts.id = new.user_account_id;
    return null;
end;
$function$;
comment on function app.record_seat_change() is
    'After a seat is written: records that it is new, changed or removed. A seat that is only seen'
    ' again is none of these; one that returns is new.';

create function app.keep_dsp_account_id()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
begin
    new.kept_account_id := coalesce(new.kept_account_id, new.user_account_id::text);
    return new;
end;
$function$;
comment on function app.keep_dsp_account_id() is
    'Before a sync of seats is inserted: writes down in text which account it is of, which stays'
    ' when the account is deleted.';
"""

DOWNGRADE = """
drop function app.keep_dsp_account_id();
drop function app.record_seat_change();
drop function app.seats_metadata_of(uuid, text, timestamptz);
drop function app.update_seats_sync_timestamp();
drop function app.fill_seats_metadata();
drop table app.dsp_seats_history;
drop table app.dsp_seats;
drop table app.dsp_seats_sync_log;
alter table app.user_accounts
    drop column seats_metadata,
    drop constraint user_accounts_of_one_user_and_type;
"""


def upgrade() -> None:
    run_as_owner(NEW_COLUMN)
    run_sql(BACKFILL)
    run_as_owner(NEW_TABLES)
    run_as_owner(FUNCTIONS)


def downgrade() -> None:
    roll_back(DOWNGRADE)
