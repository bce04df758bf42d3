"""What the summaries have still to take in: slices that came into force, queries that changed."""

from migrations.operations import roll_back, run_as_owner

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

UPGRADE = """
create table sqp.changed_queries (
    change_id bigint generated always as identity primary key,
    model_name varchar(255) not null,
    account_id text not null,
    marketplace_id text not null,
    period_start date not null,
    query_digest bytea,
    noted_by xid8 not null default pg_current_xact_id(),
    noted_at timestamptz not null default clock_timestamp()
);
create index changed_queries_noted_by on sqp.changed_queries (noted_by);

alter table sqp.slice_builds
add column wanted_load_id bigint,
alter column load_id drop not null,
alter column built_at drop not null,
alter column built_at drop default;

insert into sqp.changed_queries (model_name, account_id, marketplace_id, period_start)
select distinct
    summaries.model_name,
    slices.account_id,
    slices.marketplace_id,
    slices.period_start
from landing.sqp_slices as slices
cross join (values ('monthly_summary'), ('quarterly_summary')) as summaries (model_name)
where
    slices.report_view = 'asin'
    and slices.period_type = 'WEEK'
    and slices.accepted_load_id is not null
    and not exists (
        select
        from sqp.slice_builds as built
        where
            built.model_name = summaries.model_name
            and built.slice_id = slices.slice_id
            and built.load_id = slices.accepted_load_id
    );
delete from sqp.slice_builds where model_name <> 'weekly_summary';
insert into sqp.slice_builds as built (model_name, slice_id, wanted_load_id)
select 'weekly_summary', slice_id, accepted_load_id
from landing.sqp_slices
where report_view = 'asin' and period_type = 'WEEK' and accepted_load_id is not null
on conflict (model_name, slice_id) do update
set wanted_load_id = excluded.wanted_load_id;
create index slice_builds_waiting on sqp.slice_builds (slice_id)
where load_id is distinct from wanted_load_id;

create function sqp.want_accepted_load()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
begin
    insert into sqp.slice_builds as built (model_name, slice_id, wanted_load_id)
    values ('weekly_summary', new.slice_id, new.accepted_load_id)
    on conflict (model_name, slice_id) do update
    set wanted_load_id = excluded.wanted_load_id
    where built.wanted_load_id is distinct from excluded.wanted_load_id;
    return null;
end;
$function$;
comment on function sqp.want_accepted_load() is
    'Notes that sqp.weekly_summary is to hold the load of a slice that has come into force.';
revoke execute on function sqp.want_accepted_load() from public;
"""

# The triggers of the summaries, which a build made, note what they see in the table that goes. The
# months and quarters are not recorded slice by slice any more: they are built again from all weeks.
DOWNGRADE = """
drop function sqp.want_accepted_load() cascade;
drop function if exists sqp.update_aggregate_summaries() cascade;
drop function if exists sqp.lock_aggregate_summaries() cascade;
drop function if exists sqp.rebuild_monthly_summary();
drop function if exists sqp.rebuild_quarterly_summary();
drop index sqp.slice_builds_waiting;
delete from sqp.slice_builds where load_id is null;
alter table sqp.slice_builds
drop column wanted_load_id,
alter column load_id set not null,
alter column built_at set default clock_timestamp(),
alter column built_at set not null;
drop table sqp.changed_queries;
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
