"""Dashboards, the collection of report data week by week, its aggregates, insights and shares."""

from migrations.operations import roll_back, run_as_owner

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# A key of a parent that ends in user_id lets a child carry the tenant and never disagree with it.
# A collection's weeks and rows carry its workflow and instance in the same way.
UPGRADE = """
create function app.json_digest(p_document jsonb)
returns bytea
language sql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $function$
    select sha256(convert_to(p_document::text, 'UTF8'))
$function$;
comment on function app.json_digest(jsonb) is
    'SHA-256 of a jsonb document as PostgreSQL prints it: the order of its keys does not matter.';
grant execute on function app.json_digest(jsonb) to etl, dbt, authenticated;

create table app.dashboards (
    id uuid primary key default gen_random_uuid(),
    dashboard_id varchar(255) not null
        constraint dashboards_dashboard_id_is_unique unique check (dashboard_id <> ''),
    name varchar(255) not null check (name <> ''),
    description text,
    user_id uuid references app.users (id) on delete cascade,
    template_type varchar(100)
        check (template_type in ('performance', 'attribution', 'audience', 'custom')),
    layout_config jsonb not null default '{}'
        check (jsonb_typeof(layout_config) = 'object')
        check (pg_column_size(layout_config) < 262144),
    filter_config jsonb not null default '{}'
        check (jsonb_typeof(filter_config) = 'object')
        check (pg_column_size(filter_config) < 262144),
    is_public boolean not null default false,
    is_template boolean not null default false,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    constraint dashboards_one_per_id_and_owner unique (id, user_id),
    constraint dashboards_only_templates_lack_an_owner check (user_id is not null or is_template)
);
create index idx_dashboards_user_id on app.dashboards (user_id);
create index idx_dashboards_template_type on app.dashboards (template_type);
create index idx_dashboards_is_public on app.dashboards (is_public) where is_public = true;

create table app.dashboard_widgets (
    id uuid primary key default gen_random_uuid(),
    widget_id varchar(255) not null check (widget_id <> ''),
    dashboard_id uuid not null references app.dashboards (id) on delete cascade,
    user_id uuid,
    widget_type varchar(100) not null
        check (widget_type in ('chart', 'table', 'metric_card', 'text')),
    chart_type varchar(100) check (chart_type in ('line', 'bar', 'pie', 'scatter', 'area')),
    title varchar(255) not null,
    data_source jsonb not null
        check (jsonb_typeof(data_source) = 'object')
        check (pg_column_size(data_source) < 262144),
    display_config jsonb not null default '{}'
        check (jsonb_typeof(display_config) = 'object')
        check (pg_column_size(display_config) < 262144),
    position_config jsonb not null
        check (jsonb_typeof(position_config) = 'object')
        check (pg_column_size(position_config) < 262144),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    constraint dashboard_widgets_one_per_widget_id unique (dashboard_id, widget_id),
    constraint dashboard_widgets_owner_is_the_dashboards
        foreign key (dashboard_id, user_id) references app.dashboards (id, user_id)
        on update cascade on delete cascade
);
create index idx_dashboard_widgets_dashboard_id on app.dashboard_widgets (dashboard_id, user_id);
create index idx_dashboard_widgets_type on app.dashboard_widgets (widget_type);
create index idx_dashboard_widgets_user_id on app.dashboard_widgets (user_id, dashboard_id);

create table app.dashboard_shares (
    id uuid primary key default gen_random_uuid(),
    dashboard_id uuid not null,
    user_id uuid not null,
    shared_by_user_id uuid not null,
    shared_with_user_id uuid not null references app.users (id) on delete cascade,
    permission_level varchar(50) not null default 'view'
        check (permission_level in ('view', 'edit')),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint dashboard_shares_one_per_viewer unique (dashboard_id, shared_with_user_id),
    constraint dashboard_shares_not_with_oneself check (shared_by_user_id <> shared_with_user_id),
    constraint dashboard_shares_owner_is_the_dashboards
        foreign key (dashboard_id, user_id) references app.dashboards (id, user_id)
        on update cascade on delete cascade,
    constraint dashboard_shares_given_by_the_owner
        foreign key (dashboard_id, shared_by_user_id) references app.dashboards (id, user_id)
        on update cascade on delete cascade
);
create index idx_dashboard_shares_shared_with on app.dashboard_shares (shared_with_user_id);
create index idx_dashboard_shares_user_id on app.dashboard_shares (user_id, dashboard_id);
create index idx_dashboard_shares_shared_by
on app.dashboard_shares (shared_by_user_id, dashboard_id);

create function app.fill_widget_owner()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
begin
    select dashboards.user_id
    into new.user_id
    from app.dashboards
    where dashboards.id = new.dashboard_id;
    if not found then
        raise exception 'there is no dashboard with the id %', new.dashboard_id
            using errcode = '23503';
    end if;
    return new;
end;
$function$;
comment on function app.fill_widget_owner() is
    'Trigger, before insert or update of a widget without owner: it has its dashboard''s, and none'
    ' only where the dashboard has none. Runs as its caller, who cannot name a hidden dashboard.';

create function app.give_widgets_to_new_owner()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
begin
    update app.dashboard_widgets
    set user_id = new.user_id
    where dashboard_widgets.dashboard_id = new.id and dashboard_widgets.user_id is null;
    return null;
end;
$function$;
comment on function app.give_widgets_to_new_owner() is
    'Trigger, after a template without owner gets one: its widgets get the same. A foreign key'
    ' does not pass on a change from NULL.';

create table app.report_data_collections (
    id uuid primary key default gen_random_uuid(),
    collection_id varchar(255) not null
        constraint report_data_collections_collection_id_is_unique unique
        check (collection_id <> ''),
    workflow_id uuid not null,
    instance_id uuid not null,
    user_id uuid not null references app.users (id) on delete cascade,
    collection_type varchar(100) not null check (collection_type in ('backfill', 'weekly_update')),
    target_weeks integer not null check (target_weeks between 1 and 520),
    start_date date not null
        constraint report_data_collections_starts_on_a_sunday
        check (extract(dow from start_date) = 0),
    end_date date not null,
    status varchar(50) not null default 'pending'
        check (status in ('pending', 'running', 'completed', 'failed', 'paused')),
    progress_percentage integer not null default 0 check (progress_percentage between 0 and 100),
    weeks_completed integer not null default 0,
    error_message text,
    configuration jsonb not null default '{}'
        check (jsonb_typeof(configuration) = 'object')
        check (pg_column_size(configuration) < 262144),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint report_data_collections_end_is_not_before_start check (end_date >= start_date),
    constraint report_data_collections_weeks_completed_within_target
        check (weeks_completed between 0 and target_weeks),
    constraint report_data_collections_one_per_carried_key
        unique (id, user_id, workflow_id, instance_id),
    constraint report_data_collections_workflow_of_the_tenant
        foreign key (workflow_id, user_id) references app.workflows (id, user_id)
        on update cascade on delete restrict,
    constraint report_data_collections_instance_of_the_tenant
        foreign key (instance_id, user_id) references app.amc_instances (id, user_id)
        on update cascade on delete restrict
);
create index idx_report_collections_workflow_id
on app.report_data_collections (workflow_id, user_id);
create index idx_report_collections_instance_id
on app.report_data_collections (instance_id, user_id);
create index idx_report_collections_status on app.report_data_collections (status);
create index idx_report_collections_user_id on app.report_data_collections (user_id);

create table app.report_data_weeks (
    id uuid primary key default gen_random_uuid(),
    collection_id uuid not null,
    user_id uuid not null,
    workflow_id uuid not null,
    instance_id uuid not null,
    workflow_execution_id uuid,
    week_start_date date not null
        constraint report_data_weeks_starts_on_a_sunday
        check (extract(dow from week_start_date) = 0),
    week_end_date date not null,
    status varchar(50) not null default 'pending'
        check (status in ('pending', 'running', 'completed', 'failed', 'skipped')),
    attempts integer not null default 0,
    max_attempts integer not null default 5 check (max_attempts between 1 and 100),
    locked_by varchar(255) check (locked_by <> ''),
    lease_until timestamptz,
    next_retry_at timestamptz,
    execution_date timestamptz,
    row_count bigint check (row_count between 0 and 1000000000000000),
    data_checksum varchar(255) check (data_checksum <> ''),
    restated_at timestamptz,
    error_message text,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint report_data_weeks_ends_on_its_saturday check (week_end_date = week_start_date + 6),
    constraint report_data_weeks_attempts_within_maximum
        check (attempts between 0 and max_attempts),
    constraint report_data_weeks_lease_has_a_holder
        check ((locked_by is null) = (lease_until is null)),
    constraint report_data_weeks_running_is_leased
        check (status <> 'running' or lease_until is not null),
    constraint report_data_weeks_completed_is_counted
        check (status <> 'completed' or (row_count is not null and data_checksum is not null)),
    constraint report_data_weeks_one_per_week unique (collection_id, week_start_date),
    constraint report_data_weeks_one_per_carried_key
        unique (id, week_start_date, user_id, workflow_id, instance_id),
    constraint report_data_weeks_of_the_collection
        foreign key (collection_id, user_id, workflow_id, instance_id)
        references app.report_data_collections (id, user_id, workflow_id, instance_id)
        on update cascade on delete cascade,
    constraint report_data_weeks_execution_of_the_tenant
        foreign key (workflow_execution_id, user_id)
        references app.workflow_executions (id, user_id)
        on update cascade on delete set null (workflow_execution_id)
);
create index idx_report_weeks_collection_id
on app.report_data_weeks (collection_id, user_id, workflow_id, instance_id);
create index idx_report_weeks_date_range on app.report_data_weeks (week_start_date, week_end_date);
create index idx_report_weeks_status on app.report_data_weeks (status);
create index idx_report_weeks_execution
on app.report_data_weeks (workflow_execution_id, user_id);
create index idx_report_weeks_user_id on app.report_data_weeks (user_id, week_start_date);

create function app.fill_week_from_collection()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
begin
    select
        coalesce(new.workflow_id, collections.workflow_id),
        coalesce(new.instance_id, collections.instance_id)
    into new.workflow_id, new.instance_id
    from app.report_data_collections as collections
    where collections.id = new.collection_id;
    return new;
end;
$function$;
comment on function app.fill_week_from_collection() is
    'Trigger, before insert of a week without workflow or instance: it has its collection''s.';

create table app.report_data_rows (
    week_start_date date not null,
    week_id uuid not null,
    row_number bigint not null check (row_number between 1 and 1000000000000000),
    user_id uuid not null,
    workflow_id uuid not null,
    instance_id uuid not null,
    row_values jsonb not null
        check (jsonb_typeof(row_values) = 'object')
        check (pg_column_size(row_values) < 262144),
    row_digest bytea not null check (octet_length(row_digest) = 32),
    created_at timestamptz not null default clock_timestamp(),
    primary key (week_start_date, week_id, row_number),
    constraint report_data_rows_of_the_week
        foreign key (week_id, week_start_date, user_id, workflow_id, instance_id)
        references app.report_data_weeks (id, week_start_date, user_id, workflow_id, instance_id)
        on update cascade on delete cascade
) partition by range (week_start_date);
create index idx_report_data_rows_user_id
on app.report_data_rows (user_id, workflow_id, instance_id, week_start_date, week_id);
create table app.report_data_rows_default partition of app.report_data_rows default;

create table reporting.report_data_aggregates (
    id uuid primary key default gen_random_uuid(),
    workflow_id uuid,
    instance_id uuid,
    user_id uuid not null references app.users (id) on delete cascade,
    aggregation_type varchar(100) not null
        check (aggregation_type in ('weekly', 'monthly', 'quarterly')),
    aggregation_key varchar(255) not null check (aggregation_key <> ''),
    metrics jsonb not null
        check (jsonb_typeof(metrics) = 'object')
        check (pg_column_size(metrics) < 262144),
    dimensions jsonb not null default '{}'
        check (jsonb_typeof(dimensions) = 'object')
        check (pg_column_size(dimensions) < 262144),
    data_date date not null,
    row_count bigint not null default 0 check (row_count between 0 and 1000000000000000),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint report_data_aggregates_workflow_of_the_tenant
        foreign key (workflow_id, user_id) references app.workflows (id, user_id)
        on update cascade on delete restrict,
    constraint report_data_aggregates_instance_of_the_tenant
        foreign key (instance_id, user_id) references app.amc_instances (id, user_id)
        on update cascade on delete restrict
);
create unique index report_data_aggregates_one_per_period_and_dimensions
on reporting.report_data_aggregates (
    user_id, workflow_id, instance_id, aggregation_type, aggregation_key, data_date,
    app.json_digest(dimensions)
) nulls not distinct;
create index idx_report_aggregates_workflow_instance
on reporting.report_data_aggregates (workflow_id, instance_id);
create index idx_report_aggregates_type_date
on reporting.report_data_aggregates (aggregation_type, data_date);
create index idx_report_aggregates_key_date
on reporting.report_data_aggregates (aggregation_key, data_date);
create index idx_report_aggregates_workflow
on reporting.report_data_aggregates (workflow_id, user_id);
create index idx_report_aggregates_instance
on reporting.report_data_aggregates (instance_id, user_id);

create table app.ai_insights (
    id uuid primary key default gen_random_uuid(),
    insight_id varchar(255) not null
        constraint ai_insights_insight_id_is_unique unique check (insight_id <> ''),
    user_id uuid not null references app.users (id) on delete cascade,
    dashboard_id uuid references app.dashboards (id) on delete set null,
    query_text text not null,
    response_text text not null,
    data_context jsonb not null default '{}'
        check (jsonb_typeof(data_context) = 'object')
        check (pg_column_size(data_context) < 262144),
    confidence_score numeric(3, 2)
        constraint ai_insights_confidence_is_a_fraction check (confidence_score between 0 and 1),
    insight_type varchar(100)
        check (insight_type in ('trend_analysis', 'anomaly_detection', 'optimization')),
    related_metrics jsonb not null default '{}'
        check (jsonb_typeof(related_metrics) = 'object')
        check (pg_column_size(related_metrics) < 262144),
    created_at timestamptz not null default clock_timestamp()
);
create index idx_ai_insights_user_id on app.ai_insights (user_id);
create index idx_ai_insights_dashboard_id on app.ai_insights (dashboard_id);
create index idx_ai_insights_created_at on app.ai_insights (created_at);
create index idx_ai_insights_type on app.ai_insights (insight_type);
"""

DOWNGRADE = """
drop table app.ai_insights;
drop table reporting.report_data_aggregates;
drop table app.report_data_rows;
drop table app.report_data_weeks;
drop table app.report_data_collections;
drop table app.dashboard_shares;
drop table app.dashboard_widgets;
drop table app.dashboards;
drop function app.fill_week_from_collection();
drop function app.give_widgets_to_new_owner();
drop function app.fill_widget_owner();
drop function app.json_digest(jsonb);
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
