"""Ads on several platforms: credentials, sessions, assets, ads, campaigns and their deployments."""

from migrations.operations import roll_back, run_as_owner

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TYPES = """
create type app.platform_type as enum (
    'google_ads', 'facebook_ads', 'microsoft_ads', 'tiktok_ads', 'amazon_ads'
);
create type app.ad_status as enum ('draft', 'active', 'paused', 'completed', 'archived');
create type app.campaign_status as enum ('pending', 'active', 'paused', 'error', 'completed');
create type app.deployment_type as enum ('create', 'update', 'pause', 'resume', 'delete');
create type app.deployment_status as enum ('pending', 'in_progress', 'completed', 'failed');
create type app.asset_type as enum (
    'primary_image', 'secondary_image', 'logo', 'video', 'document'
);
"""

ACCESS = """
create table app.user_api_credentials (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references app.users (id) on delete cascade,
    platform app.platform_type not null,
    external_account_id varchar(255) check (external_account_id <> ''),
    credentials_encrypted app.fernet_token not null,
    key_id varchar(32) not null check (key_id <> ''),
    is_active boolean not null default true,
    last_validated_at timestamptz,
    expires_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint user_api_credentials_one_per_account
        unique nulls not distinct (user_id, platform, external_account_id)
);
create index idx_api_credentials_user_platform on app.user_api_credentials (user_id, platform);
create index idx_api_credentials_active on app.user_api_credentials (is_active) where is_active;

create table app.user_sessions (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references app.users (id) on delete cascade,
    token_jti varchar(255) not null unique check (token_jti <> ''),
    refresh_token_hash varchar(255) check (refresh_token_hash <> ''),
    expires_at timestamptz not null,
    last_used_at timestamptz not null default clock_timestamp(),
    ip_address inet,
    user_agent text,
    created_at timestamptz not null default clock_timestamp()
);
create index idx_sessions_user_id on app.user_sessions (user_id);
create index idx_sessions_expires on app.user_sessions (expires_at);
"""

ADS = """
create table app.assets (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references app.users (id) on delete cascade,
    filename varchar(255) not null,
    original_filename varchar(255) not null,
    file_size bigint not null check (file_size between 0 and 1000000000000000),
    mime_type varchar(100) not null check (mime_type <> ''),
    file_url text not null check (file_url <> ''),
    thumbnail_url text,
    width integer check (width > 0),
    height integer check (height > 0),
    duration integer check (duration >= 0),
    metadata jsonb
        check (jsonb_typeof(metadata) = 'object' and pg_column_size(metadata) < 262144),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    unique (id, user_id)
);
create index idx_assets_user_id on app.assets (user_id) where deleted_at is null;
create index idx_assets_user_created on app.assets (user_id, created_at desc);

-- The index of the same name in the specification repeats the unique key: it is the key.
create table app.platform_assets (
    id uuid primary key default gen_random_uuid(),
    asset_id uuid not null,
    user_id uuid not null,
    platform app.platform_type not null,
    platform_asset_id varchar(255) not null check (platform_asset_id <> ''),
    platform_url text,
    platform_metadata jsonb check (
        jsonb_typeof(platform_metadata) = 'object' and pg_column_size(platform_metadata) < 262144
    ),
    created_at timestamptz not null default clock_timestamp(),
    constraint idx_platform_assets_asset_platform unique (asset_id, platform),
    foreign key (asset_id, user_id) references app.assets (id, user_id)
        on update cascade on delete cascade
);
create index idx_platform_assets_asset on app.platform_assets (asset_id, user_id);
create index idx_platform_assets_user on app.platform_assets (user_id, platform);

create table app.ads (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references app.users (id) on delete cascade,
    name varchar(255) not null,
    description text,
    status app.ad_status not null default 'draft',
    unified_data jsonb not null
        check (jsonb_typeof(unified_data) = 'object' and pg_column_size(unified_data) < 262144),
    targeting_data jsonb not null
        check (jsonb_typeof(targeting_data) = 'object' and pg_column_size(targeting_data) < 262144),
    budget_data jsonb not null
        check (jsonb_typeof(budget_data) = 'object' and pg_column_size(budget_data) < 262144),
    schedule_data jsonb
        check (jsonb_typeof(schedule_data) = 'object' and pg_column_size(schedule_data) < 262144),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    unique (id, user_id)
);
create index idx_ads_user_id on app.ads (user_id) where deleted_at is null;
create index idx_ads_status on app.ads (status) where deleted_at is null;
create index idx_ads_created_at on app.ads (created_at desc) where deleted_at is null;
create index idx_ads_user_created on app.ads (user_id, created_at desc);

create table app.ad_assets (
    id uuid primary key default gen_random_uuid(),
    ad_id uuid not null,
    asset_id uuid not null,
    user_id uuid not null,
    asset_type app.asset_type not null,
    order_index integer not null default 0 check (order_index >= 0),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    constraint ad_assets_once_per_role unique (ad_id, asset_id, asset_type),
    foreign key (ad_id, user_id) references app.ads (id, user_id)
        on update cascade on delete cascade,
    foreign key (asset_id, user_id) references app.assets (id, user_id)
        on update cascade on delete cascade
);
create index idx_ad_assets_ad on app.ad_assets (ad_id, user_id);
create index idx_ad_assets_asset on app.ad_assets (asset_id, user_id);
create index idx_ad_assets_user on app.ad_assets (user_id);
"""

CAMPAIGNS = """
create table app.campaigns (
    id uuid primary key default gen_random_uuid(),
    ad_id uuid not null,
    user_id uuid not null,
    platform app.platform_type not null,
    platform_account_id varchar(255) check (platform_account_id <> ''),
    platform_campaign_id varchar(255) check (platform_campaign_id <> ''),
    campaign_name varchar(255) not null,
    status app.campaign_status not null default 'pending',
    platform_data jsonb
        check (jsonb_typeof(platform_data) = 'object' and pg_column_size(platform_data) < 262144),
    error_message text,
    last_sync_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    unique (id, user_id),
    foreign key (ad_id, user_id) references app.ads (id, user_id)
        on update cascade on delete cascade
);
create unique index campaigns_one_per_ad_and_account
on app.campaigns (ad_id, platform, platform_account_id) nulls not distinct
where deleted_at is null;
create unique index campaigns_one_per_platform_id
on app.campaigns (platform, platform_account_id, platform_campaign_id) nulls not distinct
where platform_campaign_id is not null;
create index idx_campaigns_ad_id on app.campaigns (ad_id, user_id);
create index idx_campaigns_platform on app.campaigns (platform);
create index idx_campaigns_status on app.campaigns (status);
create index idx_campaigns_sync on app.campaigns (last_sync_at desc) where status = 'active';
create index idx_user_campaigns_performance on app.campaigns (user_id, status, created_at desc)
include (platform, platform_campaign_id);

create table app.campaign_deployments (
    id uuid primary key default gen_random_uuid(),
    campaign_id uuid not null,
    user_id uuid not null,
    deployment_type app.deployment_type not null,
    status app.deployment_status not null,
    started_at timestamptz not null,
    completed_at timestamptz,
    error_details jsonb
        check (jsonb_typeof(error_details) = 'object' and pg_column_size(error_details) < 262144),
    platform_response jsonb check (
        jsonb_typeof(platform_response) = 'object' and pg_column_size(platform_response) < 262144
    ),
    created_at timestamptz not null default clock_timestamp(),
    constraint campaign_deployments_end_after_start check (completed_at >= started_at),
    foreign key (campaign_id, user_id) references app.campaigns (id, user_id)
        on update cascade on delete cascade
);
create index idx_campaign_deployments_campaign on app.campaign_deployments (campaign_id, user_id);
create index idx_campaign_deployments_user on app.campaign_deployments (user_id, started_at desc);
"""

UPGRADE = TYPES + ACCESS + ADS + CAMPAIGNS

DOWNGRADE = """
drop table app.campaign_deployments;
drop table app.campaigns;
drop table app.ad_assets;
drop table app.ads;
drop table app.platform_assets;
drop table app.assets;
drop table app.user_sessions;
drop table app.user_api_credentials;
drop type app.asset_type;
drop type app.deployment_status;
drop type app.deployment_type;
drop type app.campaign_status;
drop type app.ad_status;
drop type app.platform_type;
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
