"""Amazon Marketing Cloud: accounts, instances, workflows and what came of each execution."""

from migrations.operations import roll_back, run_as_owner

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

UPGRADE = """
create table app.amc_accounts (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references app.users (id) on delete restrict,
    account_id varchar(255) not null
        constraint amc_accounts_id_is_an_entity check (account_id ~ '^ENTITY.'),
    account_name varchar(255) check (account_name <> ''),
    marketplace_id varchar(50) not null check (marketplace_id <> ''),
    region varchar(50) not null check (region in ('NA', 'EU', 'FE')),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    constraint amc_accounts_one_per_marketplace unique (user_id, account_id, marketplace_id),
    constraint amc_accounts_of_one_user unique (id, user_id)
);

create table app.amc_instances (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    account_id uuid not null,
    instance_id varchar(255) not null check (instance_id <> ''),
    instance_name varchar(255) not null check (instance_name <> ''),
    region varchar(50) not null check (region in ('NA', 'EU', 'FE')),
    status varchar(50) not null default 'pending'
        check (status in ('pending', 'active', 'failed', 'disconnected', 'unknown')),
    remote_status varchar(50) check (remote_status <> ''),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    constraint amc_instances_one_per_user unique (user_id, instance_id),
    constraint amc_instances_of_one_user unique (id, user_id),
    constraint amc_instances_of_an_account_of_the_user foreign key (account_id, user_id)
        references app.amc_accounts (id, user_id) on update cascade on delete restrict
);
create index idx_amc_instances_account on app.amc_instances (account_id, user_id);

create table app.workflows (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references app.users (id) on delete restrict,
    instance_id uuid,
    workflow_id varchar(255) not null
        constraint workflows_id_is_accepted_by_amazon check (workflow_id ~ '^[A-Za-z0-9._-]+$'),
    amc_workflow_id varchar(255) check (amc_workflow_id ~ '^[A-Za-z0-9._-]+$'),
    name varchar(255) not null check (name <> ''),
    description text,
    sql_query text not null check (sql_query ~ '[^[:space:]]'),
    parameters jsonb not null default '{}'
        check (jsonb_typeof(parameters) = 'object' and pg_column_size(parameters) < 262144),
    status varchar(50) not null default 'draft' check (status in ('draft', 'active', 'archived')),
    is_template boolean not null default false,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    constraint workflows_one_per_id unique (user_id, workflow_id),
    constraint workflows_of_one_user unique (id, user_id),
    constraint workflows_run_on_an_instance check (is_template or instance_id is not null),
    constraint workflows_of_an_instance_of_the_user foreign key (instance_id, user_id)
        references app.amc_instances (id, user_id) on update cascade on delete restrict
);
create index idx_workflows_instance on app.workflows (instance_id, user_id);
create unique index workflows_one_per_amc_workflow on app.workflows (instance_id, amc_workflow_id)
where amc_workflow_id is not null;

create table app.workflow_executions (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    workflow_id uuid not null,
    execution_id varchar(255) not null check (execution_id <> ''),
    amc_execution_id varchar(255) check (amc_execution_id <> ''),
    status varchar(50) not null default 'pending' check (
        status in ('pending', 'running', 'succeeded', 'failed', 'cancelled', 'unknown')
    ),
    remote_status varchar(50) check (remote_status <> ''),
    attempt bigint not null default 1 check (attempt between 1 and 1e15),
    execution_parameters jsonb not null default '{}' check (
        jsonb_typeof(execution_parameters) = 'object'
        and pg_column_size(execution_parameters) < 262144
    ),
    row_count bigint check (row_count between 0 and 1e15),
    size_bytes bigint check (size_bytes between 0 and 1e15),
    error_message text,
    started_at timestamptz,
    completed_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint workflow_executions_one_per_id unique (user_id, execution_id),
    constraint workflow_executions_of_one_user unique (id, user_id),
    constraint workflow_executions_end_after_their_start check (completed_at >= started_at),
    constraint workflow_executions_end check (
        (status in ('succeeded', 'failed', 'cancelled')) = (completed_at is not null)
    ),
    constraint workflow_executions_of_a_workflow_of_the_user foreign key (workflow_id, user_id)
        references app.workflows (id, user_id) on update cascade on delete restrict
);
create index idx_workflow_executions_workflow on app.workflow_executions (workflow_id, user_id);
create index idx_workflow_executions_user
on app.workflow_executions (user_id, created_at desc);
create index idx_workflow_executions_open on app.workflow_executions (status)
where status in ('pending', 'running', 'unknown');
create unique index workflow_executions_one_per_amc_execution
on app.workflow_executions (workflow_id, amc_execution_id)
where amc_execution_id is not null;
"""

DOWNGRADE = """
drop table app.workflow_executions;
drop table app.workflows;
drop table app.amc_instances;
drop table app.amc_accounts;
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
