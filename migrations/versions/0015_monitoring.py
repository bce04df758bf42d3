"""What an operator looks at: slow queries, sizes, use of indexes, and indexes that are missing."""

from migrations.operations import roll_back, run_as_owner, run_sql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# Only a server that loads the library at its start can count statements, and only its superuser
# may make the extension: where either is missing, app.slow_queries is empty, and all else works.
STATEMENT_STATISTICS = """
do $do$
begin
    if exists (select from pg_catalog.pg_extension where extname = 'pg_stat_statements')
        or not exists (
            select from pg_catalog.pg_available_extensions where name = 'pg_stat_statements'
        )
        or coalesce(current_setting('shared_preload_libraries', true), '')
        !~ '(^|[,"/ ])pg_stat_statements([",. ]|$)'
    then
        return;
    end if;
    create extension pg_stat_statements with schema public;
    comment on extension pg_stat_statements is
        'Statistics of all statements that ran on this server. Made by the warehouse.';
    revoke all on public.pg_stat_statements, public.pg_stat_statements_info from public;
    revoke all on function public.pg_stat_statements(boolean) from public;
    revoke all on function public.pg_stat_statements_info() from public;
    grant select on public.pg_stat_statements to app_owner, etl, dbt;
    grant execute on function public.pg_stat_statements(boolean) to app_owner, etl, dbt;
exception
    when insufficient_privilege or invalid_schema_name then
        raise notice 'app.slow_queries stays empty: % (%)', sqlerrm, sqlstate;
end;
$do$;
"""

UPGRADE = """
create function private.statement_statistics()
returns table (
    role_name name,
    query text,
    calls bigint,
    total_exec_time double precision,
    mean_exec_time double precision,
    max_exec_time double precision,
    rows bigint,
    shared_blocks_read bigint,
    temporary_blocks_written bigint
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    place name := (
        select namespaces.nspname
        from pg_catalog.pg_extension as extensions
        inner join pg_catalog.pg_namespace as namespaces
            on extensions.extnamespace = namespaces.oid
        where extensions.extname = 'pg_stat_statements'
    );
begin
    if place is null then
        return;
    end if;
    return query execute format(
        'select roles.rolname, statements.query, statements.calls,'
        ' statements.total_exec_time, statements.mean_exec_time, statements.max_exec_time,'
        ' statements.rows, statements.shared_blks_read, statements.temp_blks_written'
        ' from %I.pg_stat_statements as statements'
        ' left join pg_catalog.pg_roles as roles on statements.userid = roles.oid'
        ' where statements.dbid = ('
        '    select databases.oid from pg_catalog.pg_database as databases'
        '    where databases.datname = current_database()'
        ' )',
        place
    );
exception
    when object_not_in_prerequisite_state then
        return;
end;
$function$;
comment on function private.statement_statistics() is
    'The statements of this database that pg_stat_statements has counted; nothing where the'
    ' extension is missing or the server does not load it.';
grant execute on function private.statement_statistics() to etl, dbt;

create function private.indexes_of_foreign_keys()
returns table (constraint_oid oid, index_oid oid)
language sql
stable
set search_path = pg_catalog, pg_temp
as $function$
    select distinct foreign_keys.oid, indexes.indexrelid
    from pg_catalog.pg_constraint as foreign_keys
    inner join pg_catalog.pg_index as indexes on foreign_keys.conrelid = indexes.indrelid
    inner join pg_catalog.pg_class as index_classes on indexes.indexrelid = index_classes.oid
    inner join pg_catalog.pg_am as methods on index_classes.relam = methods.oid
    inner join pg_catalog.pg_index as parent_keys
        on
            foreign_keys.confrelid = parent_keys.indrelid
            and parent_keys.indisunique
            and parent_keys.indpred is null
    cross join generate_series(1, cardinality(foreign_keys.conkey)) as prefixes (width)
    where
        foreign_keys.contype = 'f'
        and methods.amname = 'btree'
        and indexes.indisvalid
        and indexes.indpred is null
        and (indexes.indkey::smallint[])[0:prefixes.width - 1] <@ foreign_keys.conkey
        and (parent_keys.indkey::smallint[])[0:parent_keys.indnkeyatts - 1] <@ array(
            select keys.parent_column
            from unnest(foreign_keys.conkey, foreign_keys.confkey)
            as keys (own_column, parent_column)
            where
                keys.own_column = any((indexes.indkey::smallint[])[0:prefixes.width - 1])
        )
$function$;
comment on function private.indexes_of_foreign_keys() is
    'Which index finds the rows that refer to a row of the parent: its first columns are columns of'
    ' the foreign key, and are enough to name one row of the parent.';
grant execute on function private.indexes_of_foreign_keys() to etl, dbt;

create view app.slow_queries with (security_invoker = true) as
select
    statements.role_name,
    statements.query,
    statements.calls,
    statements.total_exec_time,
    statements.mean_exec_time,
    statements.max_exec_time,
    statements.rows,
    statements.shared_blocks_read,
    statements.temporary_blocks_written
from private.statement_statistics() as statements
order by statements.total_exec_time desc;

create view app.table_sizes with (security_invoker = true) as
with parts as (
    select
        coalesce(pg_catalog.pg_partition_root(tables.oid), tables.oid) as table_oid,
        tables.oid as part_oid,
        tables.relispartition as is_partition,
        tables.relkind in ('r', 'm') as has_storage,
        nullif(tables.reltuples, -1) as estimated_rows
    from pg_catalog.pg_class as tables
    where tables.relkind in ('r', 'p', 'm')
),

sizes as (
    select
        parts.table_oid,
        count(*) filter (where parts.is_partition and parts.has_storage) as partitions,
        sum(parts.estimated_rows) filter (where parts.has_storage) as estimated_rows,
        coalesce(sum(pg_catalog.pg_table_size(parts.part_oid)), 0) as table_bytes,
        coalesce(sum(pg_catalog.pg_indexes_size(parts.part_oid)), 0) as index_bytes
    from parts
    group by parts.table_oid
)

select
    namespaces.nspname as schema_name,
    tables.relname as table_name,
    sizes.partitions,
    sizes.estimated_rows::bigint as estimated_rows,
    sizes.table_bytes::bigint as table_bytes,
    sizes.index_bytes::bigint as index_bytes,
    (sizes.table_bytes + sizes.index_bytes)::bigint as total_bytes,
    pg_catalog.pg_size_pretty(sizes.table_bytes + sizes.index_bytes) as total_size
from sizes
inner join pg_catalog.pg_class as tables on sizes.table_oid = tables.oid
inner join pg_catalog.pg_namespace as namespaces on tables.relnamespace = namespaces.oid
where namespaces.nspname !~ '^pg_' and namespaces.nspname <> 'information_schema'
order by total_bytes desc, schema_name, table_name;

create view app.partition_overview with (security_invoker = true) as
select
    parent_namespaces.nspname as schema_name,
    parents.relname as table_name,
    partitions.relname as partition_name,
    pg_catalog.pg_get_expr(partitions.relpartbound, partitions.oid) as bounds,
    partitions.oid = partitioned.partdefid as is_default,
    nullif(partitions.reltuples, -1)::bigint as estimated_rows,
    pg_catalog.pg_total_relation_size(partitions.oid) as total_bytes
from pg_catalog.pg_inherits as links
inner join pg_catalog.pg_partitioned_table as partitioned on links.inhparent = partitioned.partrelid
inner join pg_catalog.pg_class as parents on links.inhparent = parents.oid
inner join pg_catalog.pg_namespace as parent_namespaces
    on parents.relnamespace = parent_namespaces.oid
inner join pg_catalog.pg_class as partitions on links.inhrelid = partitions.oid
where
    parent_namespaces.nspname !~ '^pg_'
    and parent_namespaces.nspname <> 'information_schema'
order by schema_name, table_name, is_default, partition_name;

create view app.index_usage with (security_invoker = true) as
select
    statistics.schemaname as schema_name,
    statistics.relname as table_name,
    statistics.indexrelname as index_name,
    statistics.idx_scan,
    statistics.idx_tup_read,
    statistics.idx_tup_fetch,
    pg_catalog.pg_relation_size(statistics.indexrelid) as index_bytes
from pg_catalog.pg_stat_user_indexes as statistics
order by statistics.idx_scan desc, schema_name, index_name;

create view app.unused_indexes with (security_invoker = true) as
with scans as (
    select
        coalesce(
            pg_catalog.pg_partition_root(statistics.indexrelid), statistics.indexrelid
        ) as index_oid,
        sum(statistics.idx_scan) as idx_scan,
        sum(pg_catalog.pg_relation_size(statistics.indexrelid)) as index_bytes
    from pg_catalog.pg_stat_user_indexes as statistics
    group by 1
)

select
    namespaces.nspname as schema_name,
    tables.relname as table_name,
    index_classes.relname as index_name,
    scans.index_bytes::bigint as index_bytes,
    pg_catalog.pg_size_pretty(scans.index_bytes) as index_size,
    exists (
        select
        from private.indexes_of_foreign_keys() as serving
        where serving.index_oid = indexes.indexrelid
    ) as serves_a_foreign_key,
    databases.stats_reset as counted_since
from scans
inner join pg_catalog.pg_index as indexes on scans.index_oid = indexes.indexrelid
inner join pg_catalog.pg_class as index_classes on indexes.indexrelid = index_classes.oid
inner join pg_catalog.pg_class as tables on indexes.indrelid = tables.oid
inner join pg_catalog.pg_namespace as namespaces on tables.relnamespace = namespaces.oid
left join pg_catalog.pg_stat_database as databases
    on databases.datname = pg_catalog.current_database()
where
    scans.idx_scan = 0
    and not indexes.indisunique
    and not exists (
        select
        from pg_catalog.pg_constraint as constraints
        where constraints.conindid = indexes.indexrelid
    )
order by scans.index_bytes desc, schema_name, index_name;

create view app.missing_indexes with (security_invoker = true) as
with thresholds as (
    select 50 as scans, 10000 as rows_per_scan, 8 * 1024 * 1024 as table_bytes
),

usage as (
    select
        coalesce(pg_catalog.pg_partition_root(statistics.relid), statistics.relid) as table_oid,
        sum(statistics.seq_scan) as seq_scan,
        sum(statistics.seq_tup_read) as seq_tup_read,
        sum(pg_catalog.pg_table_size(statistics.relid)) as table_bytes
    from pg_catalog.pg_stat_user_tables as statistics
    group by 1
),

findings as (
    select
        'foreign key' as reason,
        foreign_keys.conrelid as table_oid,
        foreign_keys.conname as constraint_name,
        (
            select array_agg(columns.attname order by keys.place)
            from unnest(foreign_keys.conkey) with ordinality as keys (attnum, place)
            inner join pg_catalog.pg_attribute as columns
                on foreign_keys.conrelid = columns.attrelid and keys.attnum = columns.attnum
        ) as column_names
    from pg_catalog.pg_constraint as foreign_keys
    where
        foreign_keys.contype = 'f'
        and foreign_keys.conparentid = 0
        and not exists (
            select
            from private.indexes_of_foreign_keys() as serving
            where serving.constraint_oid = foreign_keys.oid
        )
    union all
    select
        'sequential scans' as reason,
        usage.table_oid,
        null::name as constraint_name,
        null::name[] as column_names
    from usage
    cross join thresholds
    where
        usage.seq_scan >= thresholds.scans
        and usage.seq_tup_read >= thresholds.rows_per_scan * usage.seq_scan
        and usage.table_bytes >= thresholds.table_bytes
)

select
    findings.reason,
    namespaces.nspname as schema_name,
    tables.relname as table_name,
    findings.constraint_name,
    findings.column_names,
    usage.seq_scan::bigint as seq_scan,
    usage.seq_tup_read::bigint as seq_tup_read,
    usage.table_bytes::bigint as table_bytes
from findings
inner join pg_catalog.pg_class as tables on findings.table_oid = tables.oid
inner join pg_catalog.pg_namespace as namespaces on tables.relnamespace = namespaces.oid
left join usage on findings.table_oid = usage.table_oid
where namespaces.nspname !~ '^pg_' and namespaces.nspname <> 'information_schema'
order by findings.reason, usage.seq_tup_read desc nulls last, schema_name, table_name;
"""

DOWNGRADE = """
drop view app.missing_indexes;
drop view app.unused_indexes;
drop view app.index_usage;
drop view app.partition_overview;
drop view app.table_sizes;
drop view app.slow_queries;
drop function private.indexes_of_foreign_keys();
drop function private.statement_statistics();
do $do$
begin
    if exists (
        select
        from pg_catalog.pg_extension as extensions
        where
            extensions.extname = 'pg_stat_statements'
            and obj_description(extensions.oid, 'pg_extension') like '%Made by the warehouse.'
    ) then
        drop extension pg_stat_statements;
    end if;
exception
    when dependent_objects_still_exist or insufficient_privilege then
        raise notice 'pg_stat_statements stays: % (%)', sqlerrm, sqlstate;
end;
$do$;
"""


def upgrade() -> None:
    run_sql(STATEMENT_STATISTICS)
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
