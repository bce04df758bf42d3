"""The tenants, the Amazon accounts that they have connected, and the tokens of these accounts."""

from migrations.operations import roll_back, run_as_owner

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# A violated CHECK shows the failing row in the server's log; a violated domain shows no value.
UPGRADE = """
create type app.user_role as enum ('admin', 'user', 'viewer');
create type app.subscription_tier as enum ('free', 'starter', 'professional', 'enterprise');

create domain app.fernet_token as text
    constraint fernet_token_is_sealed check (value ~ '^gAAAA[A-Za-z0-9_-]+={0,2}$');
comment on domain app.fernet_token is
    'A credential as the warehouse seals it. Anything else, a plain token above all, is refused'
    ' without its value being shown in the error or the log.';

create table app.users (
    id uuid primary key default gen_random_uuid(),
    email varchar(255) not null
        constraint users_email_is_an_address check (email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    password_hash varchar(255) not null check (password_hash <> ''),
    first_name varchar(100) not null,
    last_name varchar(100) not null,
    role app.user_role not null default 'user',
    subscription_tier app.subscription_tier not null default 'free',
    email_verified boolean not null default false,
    last_login_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz
);
create unique index users_one_per_email on app.users (lower(email)) where deleted_at is null;
create index idx_users_email on app.users (email) where deleted_at is null;
create index idx_users_role on app.users (role) where deleted_at is null;

create table app.user_accounts (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references app.users (id) on delete restrict,
    account_name varchar(255) not null check (account_name <> ''),
    amazon_account_id varchar(255) not null check (amazon_account_id <> ''),
    marketplace_id varchar(50) check (marketplace_id <> ''),
    account_type varchar(50) not null default 'advertising'
        check (account_type in ('advertising', 'dsp', 'amc')),
    is_default boolean not null default false,
    status varchar(50) not null default 'pending' check (status in (
        'active', 'inactive', 'suspended', 'pending', 'disabled', 'partial', 'disconnected'
    )),
    connected_at timestamptz not null default clock_timestamp(),
    last_synced_at timestamptz,
    metadata jsonb not null default '{}'
        check (jsonb_typeof(metadata) = 'object' and pg_column_size(metadata) < 262144),
    profile_id varchar(255) check (profile_id ~ '^[0-9]+$'),
    entity_id varchar(255) check (entity_id <> ''),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    constraint user_accounts_one_per_amazon_account unique (user_id, amazon_account_id),
    constraint user_accounts_of_one_user unique (id, user_id),
    constraint user_accounts_dsp_advertiser_is_numeric
        check (account_type <> 'dsp' or amazon_account_id ~ '^[0-9]+$')
) with (fillfactor = 70);
create unique index user_accounts_one_default_per_user on app.user_accounts (user_id)
where is_default and deleted_at is null;

create table app.oauth_tokens (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    user_account_id uuid not null,
    access_token app.fernet_token not null,
    refresh_token app.fernet_token not null,
    key_id varchar(32) not null check (key_id <> ''),
    token_type varchar(50) not null default 'bearer' check (token_type <> ''),
    expires_at timestamptz not null,
    scope text,
    last_refresh_at timestamptz,
    refresh_count bigint not null default 0 check (refresh_count between 0 and 1e15),
    is_active boolean not null default true,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint oauth_tokens_of_an_account_of_the_user foreign key (user_account_id, user_id)
        references app.user_accounts (id, user_id) on update cascade on delete cascade
);
create unique index oauth_tokens_one_active_per_account on app.oauth_tokens (user_account_id)
where is_active;
create index idx_oauth_tokens_account on app.oauth_tokens (user_account_id, user_id);
create index idx_oauth_tokens_user on app.oauth_tokens (user_id);

create table app.sqp_accounts (
    account_id varchar(255) primary key check (account_id <> ''),
    user_id uuid not null references app.users (id) on delete restrict,
    user_account_id uuid,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint sqp_accounts_of_an_account_of_the_user foreign key (user_account_id, user_id)
        references app.user_accounts (id, user_id)
        on update cascade on delete set null (user_account_id)
);
create index idx_sqp_accounts_user on app.sqp_accounts (user_id, account_id);
create index idx_sqp_accounts_account on app.sqp_accounts (user_account_id, user_id);
"""

DOWNGRADE = """
drop table app.sqp_accounts;
drop table app.oauth_tokens;
drop table app.user_accounts;
drop table app.users;
drop domain app.fernet_token;
drop type app.subscription_tier;
drop type app.user_role;
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
