"""Who may see and edit a dashboard that is not his own, and what only its owner may change."""

from migrations.operations import roll_back, run_sql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# The policies of dashboards and of shares would ask each other for ever: this function asks as a
# role that row security does not bind, and tells only which dashboards the caller may see or edit.
UPGRADE = """
set local role app_owner;
create function private.shared_dashboard_ids(p_permission text)
returns setof uuid
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $function$
    select shares.dashboard_id
    from app.dashboard_shares as shares
    inner join app.dashboards on shares.dashboard_id = dashboards.id
    where
        shares.shared_with_user_id = (select auth.uid())
        and dashboards.deleted_at is null
        and (shares.permission_level = 'edit' or p_permission = 'view')
    union all
    select dashboards.id
    from app.dashboards
    where
        p_permission = 'view'
        and (dashboards.is_public or dashboards.is_template)
        and dashboards.deleted_at is null
        and (select auth.uid()) is not null
$function$;
comment on function private.shared_dashboard_ids(text) is
    'The dashboards that the current tenant may view or edit without owning them: shared with'
    ' him, and for viewing also the public ones and the templates.';

create function app.keep_dashboard_with_its_owner()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
begin
    if (new.is_public, new.is_template, new.user_id, new.dashboard_id)
        is distinct from (old.is_public, old.is_template, old.user_id, old.dashboard_id)
        and (select auth.uid()) is distinct from old.user_id
        and (select auth.uid()) is not null
    then
        raise exception 'only the owner of dashboard % may change who sees it', old.dashboard_id
            using errcode = '42501';
    end if;
    return new;
end;
$function$;
comment on function app.keep_dashboard_with_its_owner() is
    'Trigger function: an editor of a shared dashboard cannot publish it or give it away.';
grant execute on function private.shared_dashboard_ids(text) to authenticated, etl, dbt;
create index idx_dashboards_is_template on app.dashboards (is_template) where is_template;
set local role none;
alter function private.shared_dashboard_ids(text) owner to rls_definer;
"""

DOWNGRADE = """
drop index app.idx_dashboards_is_template;
drop function app.keep_dashboard_with_its_owner();
drop function private.shared_dashboard_ids(text);
"""


def upgrade() -> None:
    run_sql(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
