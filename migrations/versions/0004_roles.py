"""Roles of least privilege, who owns what, and who the current tenant is."""

from migrations.operations import run_sql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Roles belong to the whole server: other databases may use them, so that a downgrade leaves them.
# What a host such as Supabase has made under one of these names stays as the host made it.
UPGRADE = """
do $do$
declare
    wanted record;
begin
    perform pg_advisory_xact_lock(hashtextextended('roles of the warehouse', 0));
    for wanted in
        select *
        from (
            values
            ('app_owner', 'nologin', false),
            ('rls_definer', 'nologin bypassrls', false),
            ('etl', 'login bypassrls', true),
            ('dbt', 'login bypassrls', true),
            ('backup', 'login bypassrls', false),
            ('authenticated', 'nologin', true),
            ('anon', 'nologin', true)
        ) as roles (role_name, attributes, queries)
        where not exists (
            select from pg_catalog.pg_roles where pg_roles.rolname = roles.role_name
        )
    loop
        execute format('create role %I %s', wanted.role_name, wanted.attributes);
        if wanted.queries then
            execute format(
                'alter role %I set search_path = app, sqp, reporting, landing, public',
                wanted.role_name
            );
            execute format('alter role %I set timezone = ''UTC''', wanted.role_name);
            execute format(
                'alter role %I set idle_in_transaction_session_timeout = ''10min''',
                wanted.role_name
            );
        end if;
    end loop;
    if not pg_has_role('backup', 'pg_read_all_data', 'usage') then
        begin
            grant pg_read_all_data to backup;
        exception
            when insufficient_privilege then
                raise warning 'an administrator must run: grant pg_read_all_data to backup';
        end;
    end if;
    if not pg_has_role('app_owner', 'dbt', 'usage') then
        grant dbt to app_owner;
    end if;
    if not pg_has_role('rls_definer', 'app_owner', 'usage') then
        grant app_owner to rls_definer;
    end if;
    if not (
        pg_has_role(session_user, 'rls_definer', 'usage')
        and pg_has_role(session_user, 'etl', 'usage')
        and pg_has_role(session_user, 'backup', 'usage')
    ) then
        execute format('grant rls_definer, etl, dbt, backup to %I', session_user);
    end if;
end;
$do$;

create schema reporting authorization app_owner;
create schema private authorization app_owner;

do $do$
declare
    found record;
begin
    for found in
        select namespaces.nspname as schema_name,
            case
                when namespaces.nspname in ('app', 'landing', 'sqp') then 'app_owner' else 'dbt'
            end as new_owner
        from pg_catalog.pg_namespace as namespaces
        where namespaces.nspname in ('app', 'landing', 'sqp', 'staging', 'intermediate')
    loop
        execute format('alter schema %I owner to %I', found.schema_name, found.new_owner);
    end loop;
    grant create on schema sqp, reporting to dbt;
    for found in
        select
            case tables.relkind
                when 'v' then 'view' when 'm' then 'materialized view' else 'table'
            end as kind,
            tables.oid::regclass as relation,
            case
                when namespaces.nspname in ('app', 'landing')
                    or tables.relname in ('sync_log', 'data_quality_checks', 'slice_builds')
                    then 'app_owner'
                else 'dbt'
            end as new_owner
        from pg_catalog.pg_class as tables
        inner join pg_catalog.pg_namespace as namespaces on tables.relnamespace = namespaces.oid
        where
            namespaces.nspname in ('app', 'landing', 'sqp', 'staging', 'intermediate')
            and tables.relkind in ('r', 'p', 'v', 'm')
    loop
        execute format('alter %s %s owner to %I', found.kind, found.relation, found.new_owner);
    end loop;
end;
$do$;
alter function app.create_monthly_partition(text, date) owner to app_owner;

set local role app_owner;
alter default privileges for role app_owner revoke execute on functions from public;
grant usage on schema app, landing, sqp, reporting to etl, dbt, backup, authenticated, anon;
grant usage on schema private to etl, dbt, authenticated, anon;
revoke execute on function app.create_monthly_partition(text, date) from public;
grant execute on function app.create_monthly_partition(text, date) to etl, dbt;

alter table app.schema_migrations add column checksum varchar(64);

create table app.applied_declarations (
    is_only_row boolean primary key default true check (is_only_row),
    fingerprint varchar(64) not null,
    applied_at timestamptz not null default clock_timestamp()
);

create function private.drop_generated_objects()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
declare
    found record;
begin
    delete from app.applied_declarations;
    for found in
        select policies.polname as object_name, policies.polrelid::regclass as relation
        from pg_catalog.pg_policy as policies
        where
            obj_description(policies.oid, 'pg_policy') like 'generated%'
            and policies.polname not in ('owner_all', 'loader_reads')
    loop
        execute format('drop policy %I on %s', found.object_name, found.relation);
    end loop;
    for found in
        select triggers.tgname as object_name, triggers.tgrelid::regclass as relation
        from pg_catalog.pg_trigger as triggers
        where
            triggers.tgparentid = 0
            and obj_description(triggers.oid, 'pg_trigger') like 'generated%'
    loop
        execute format('drop trigger %I on %s', found.object_name, found.relation);
    end loop;
end;
$function$;
comment on function private.drop_generated_objects() is
    'Takes away the policies and triggers that are generated from the tables'' declarations, so'
    ' that a downgrade can drop what they refer to. Row security stays on: nobody sees more, and'
    ' the owner no less.';
set local role none;

do $do$
begin
    if to_regprocedure('auth.uid()') is null then
        create schema if not exists auth;
        create function auth.uid()
        returns pg_catalog.uuid
        language sql
        stable
        as $function$
            select coalesce(
                nullif(pg_catalog.current_setting('request.jwt.claim.sub', true), ''),
                nullif(pg_catalog.current_setting('request.jwt.claims', true), '')
                    ::pg_catalog.jsonb ->> 'sub'
            )::pg_catalog.uuid
        $function$;
        comment on function auth.uid() is
            'The current tenant: the id in app.users that the setting request.jwt.claim.sub, or sub'
            ' of request.jwt.claims, names for this transaction. Made by the warehouse.';
    end if;
    grant usage on schema auth to app_owner, rls_definer, etl, dbt, authenticated, anon;
    grant execute on function auth.uid() to app_owner, rls_definer, etl, dbt, authenticated, anon;
    if not has_schema_privilege('rls_definer', 'auth', 'usage') then
        raise exception 'an administrator must run: grant usage on schema auth to app_owner,'
            ' rls_definer, etl, dbt' using errcode = '42501';
    end if;
end;
$do$;
"""

DOWNGRADE = """
do $do$
begin
    if obj_description(to_regprocedure('auth.uid()'), 'pg_proc') like '%Made by the warehouse.' then
        drop function auth.uid();
        drop schema auth;
    end if;
end;
$do$;
drop function private.drop_generated_objects();
drop table app.applied_declarations;
alter table app.schema_migrations drop column checksum;
revoke execute on function app.create_monthly_partition(text, date) from etl, dbt;
grant execute on function app.create_monthly_partition(text, date) to public;
revoke create on schema sqp, reporting from dbt;
revoke usage on schema app, landing, sqp, reporting, private
from etl, dbt, backup, authenticated, anon;
alter default privileges for role app_owner grant execute on functions to public;
drop schema private;
drop schema reporting;
reassign owned by app_owner to session_user;
"""


def upgrade() -> None:
    run_sql(UPGRADE)


def downgrade() -> None:
    run_sql(DOWNGRADE)
