"""What the marts have seen of the summaries, and alerts among the quality checks."""

from migrations.operations import roll_back, run_as_owner

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None

UPGRADE = """
create table sqp.mart_builds (
    model_name text primary key,
    built_until timestamptz
);

create table sqp.mart_changes (
    id bigint generated always as identity primary key,
    model_name text not null,
    account_id text not null,
    marketplace_id text not null,
    week_start date not null,
    changed_at timestamptz not null default clock_timestamp()
);
create index idx_mart_changes_model
on sqp.mart_changes (model_name, account_id, marketplace_id, week_start);

create function private.note_changed_week(
    p_account_id text, p_marketplace_id text, p_week_start date
)
returns void
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $function$
    select pg_advisory_xact_lock_shared(hashtextextended('marts of the warehouse', 0));
    insert into sqp.mart_changes (model_name, account_id, marketplace_id, week_start)
    select mart_builds.model_name, p_account_id, p_marketplace_id, p_week_start
    from sqp.mart_builds;
$function$;
comment on function private.note_changed_week(text, text, date) is
    'Tells every mart that rows of this week in sqp.weekly_summary were changed by something other'
    ' than a build; the next build of the mart takes it up.';
revoke all on function private.note_changed_week(text, text, date) from public;
grant execute on function private.note_changed_week(text, text, date) to etl, dbt;

alter table sqp.data_quality_checks
drop constraint data_quality_checks_check_type_check,
add constraint data_quality_checks_check_type_check check (check_type in (
    'row_count', 'sum_validation', 'null_check', 'schema', 'range', 'identity', 'volume',
    'rejected_rows', 'dbt_test', 'default_partition', 'alert'
));
"""

DOWNGRADE = """
delete from sqp.data_quality_checks where check_type = 'alert';
alter table sqp.data_quality_checks
drop constraint data_quality_checks_check_type_check,
add constraint data_quality_checks_check_type_check check (check_type in (
    'row_count', 'sum_validation', 'null_check', 'schema', 'range', 'identity', 'volume',
    'rejected_rows', 'dbt_test', 'default_partition'
));
drop function private.note_changed_week(text, text, date);
drop table sqp.mart_changes;
drop table sqp.mart_builds;
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
