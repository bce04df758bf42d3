"""What row security, grants and keys must look like everywhere, asked of the catalogue.

Each query lists what is wrong; an empty answer is right.
"""

OURS = "('app', 'landing', 'sqp', 'reporting', 'staging', 'intermediate', 'private')"

WITHOUT_FORCED_ROW_SECURITY = f"""
select relations.oid::regclass::text
from pg_class as relations
inner join pg_namespace as namespaces on relations.relnamespace = namespaces.oid
where
    namespaces.nspname in {OURS}
    and relations.relkind in ('r', 'p')
    and not (relations.relrowsecurity and relations.relforcerowsecurity)
"""

PARTITIONS_WITH_GRANTS = f"""
select partitions.oid::regclass::text || ' to ' || grants.grantee::regrole::text
from pg_class as partitions
inner join pg_namespace as namespaces on partitions.relnamespace = namespaces.oid
cross join lateral aclexplode(partitions.relacl) as grants
where
    partitions.relispartition
    and namespaces.nspname in {OURS}
    and grants.grantee <> partitions.relowner
"""

VIEWS_WITHOUT_INVOKER_RIGHTS = f"""
select views.oid::regclass::text
from pg_class as views
inner join pg_namespace as namespaces on views.relnamespace = namespaces.oid
where
    namespaces.nspname in {OURS}
    and (
        views.relkind = 'm'
        or views.relkind = 'v'
        and not coalesce('security_invoker=true' = any(views.reloptions), false)
    )
"""

DEFINERS_WITHOUT_PINNED_PATH = f"""
select functions.oid::regprocedure::text
from pg_proc as functions
inner join pg_namespace as namespaces on functions.pronamespace = namespaces.oid
inner join pg_roles as owners on functions.proowner = owners.oid
where
    namespaces.nspname in {OURS}
    and functions.prosecdef
    and (
        owners.rolcanlogin
        or not coalesce(functions.proconfig @> array['search_path=pg_catalog, pg_temp'], false)
    )
"""

FUNCTIONS_OPEN_TO_EVERYBODY = f"""
select functions.oid::regprocedure::text
from pg_proc as functions
inner join pg_namespace as namespaces on functions.pronamespace = namespaces.oid
where
    namespaces.nspname in {OURS}
    and has_function_privilege('anon', functions.oid, 'execute')
"""

POLICIES_THAT_ASK_PER_ROW = """
select policyname || ' on ' || schemaname || '.' || tablename
from pg_policies
where
    regexp_replace(
        coalesce(qual, '') || coalesce(with_check, ''), 'SELECT auth[.]uid[(][)]', '', 'g'
    ) like '%auth.uid()%'
"""

FOREIGN_KEYS_WITHOUT_INDEX = f"""
select keys.conrelid::regclass::text || '.' || keys.conname
from pg_constraint as keys
inner join pg_class as tables on keys.conrelid = tables.oid
inner join pg_namespace as namespaces on tables.relnamespace = namespaces.oid
where
    keys.contype = 'f'
    and keys.conparentid = 0
    and namespaces.nspname in {OURS}
    and not exists (
        select from pg_index as indexes
        where
            indexes.indrelid = keys.conrelid
            and indexes.indpred is null
            and exists (
                select from generate_series(0, indexes.indnkeyatts - 1) as position
                where
                    indexes.indkey[position] = keys.conkey[1]
                    and keys.conkey @> (indexes.indkey::smallint[])[0:position]
            )
    )
"""

TENANT_COLUMNS_NOT_INDEXED_FIRST = """
select policies.relation || '.' || policies.tenant_column
from (
    select
        relation,
        coalesce(
            declaration -> 'tenant' ->> 'column',
            declaration -> 'tenant' ->> 'account',
            declaration -> 'tenant' ->> 'run'
        ) as tenant_column
    from app.table_policies
    where jsonb_typeof(declaration -> 'tenant') = 'object'
) as policies
inner join pg_class as tables
    on tables.oid = to_regclass(policies.relation) and tables.relkind in ('r', 'p')
where
    not exists (
        select from pg_index as indexes
        inner join pg_attribute as columns
            on indexes.indrelid = columns.attrelid and indexes.indkey[0] = columns.attnum
        where
            indexes.indrelid = tables.oid
            and indexes.indpred is null
            and columns.attname = policies.tenant_column
    )
"""

TENANTS_WRITE_WHAT_THEY_MAY_ONLY_READ = """
select grants.table_schema || '.' || grants.table_name || ': ' || grants.privilege_type
from information_schema.role_table_grants as grants
inner join app.table_policies as policies
    on policies.relation = grants.table_schema || '.' || grants.table_name
where
    grants.grantee in ('authenticated', 'anon', 'PUBLIC')
    and grants.privilege_type <> 'SELECT'
    and policies.declaration ->> 'access' is distinct from 'edit'
"""

ETL_CHANGES_THE_SCHEMA = f"""
select 'create in ' || nspname
from pg_namespace
where nspname in {OURS} and has_schema_privilege('etl', oid, 'create')
union all
select 'member of ' || rolname
from pg_roles
where rolname in ('app_owner', 'rls_definer', 'dbt') and pg_has_role('etl', oid, 'member')
union all
select reader || ' may work as ' || rolname
from pg_roles
cross join (values ('authenticated'), ('anon')) as readers (reader)
where
    rolname in ('app_owner', 'rls_definer', 'etl', 'dbt', 'backup')
    and pg_has_role(reader, oid, 'member')
union all
select 'owns ' || oid::regclass::text
from pg_class
where relowner = 'etl'::regrole
union all
select rolname || ' is a superuser'
from pg_roles
where rolname in ('app_owner', 'rls_definer', 'etl', 'dbt', 'backup') and rolsuper
union all
select rolname || ' can log in'
from pg_roles
where rolname in ('app_owner', 'rls_definer') and rolcanlogin
"""

FAULTS = {
    name.lower(): query
    for name, query in globals().items()
    if name.isupper() and name != "OURS" and isinstance(query, str)
}
