"""The schemas, the record of migrations, and the entry point that makes partitions."""

from migrations.operations import run_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = """
create schema landing;
comment on schema landing is 'Raw deliveries: as delivered, typed, with load id and load time.';
create schema sqp;
comment on schema sqp is
    'Search Query Performance: the sync''s records and the summaries that dashboards read.';

create table app.schema_migrations (
    version varchar(255) primary key,
    applied_at timestamptz not null default clock_timestamp(),
    rollback_sql text not null
);
comment on table app.schema_migrations is
    'One row per migration in force, with the SQL that takes it back.';

create function app.create_monthly_partition(p_table text, p_date date)
returns text
language plpgsql
set search_path = ''
as $function$
declare
    parent regclass := p_table::regclass;
    parent_schema text;
    parent_name text;
    key_type text;
    first_day date := date_trunc('month', p_date::timestamp)::date;
    next_month date := (date_trunc('month', p_date::timestamp) + interval '1 month')::date;
    partition_name text;
    existing oid;
begin
    select namespaces.nspname, tables.relname, key_types.typname
    into parent_schema, parent_name, key_type
    from pg_catalog.pg_class as tables
    inner join pg_catalog.pg_namespace as namespaces on tables.relnamespace = namespaces.oid
    inner join pg_catalog.pg_partitioned_table as partitioned
        on tables.oid = partitioned.partrelid and partitioned.partstrat = 'r'
    inner join pg_catalog.pg_attribute as keys
        on tables.oid = keys.attrelid and partitioned.partattrs[0] = keys.attnum
    inner join pg_catalog.pg_type as key_types on keys.atttypid = key_types.oid
    where tables.oid = parent;

    if parent_name is null then
        raise exception '% is not partitioned by range', p_table using errcode = '42P17';
    end if;
    partition_name := parent_name || to_char(first_day, '"_"YYYY"_"MM');
    if octet_length(partition_name) > 63 then
        raise exception 'partition name % is longer than 63 bytes', partition_name
            using errcode = '42622';
    end if;

    -- One maker of a table's partitions at a time; the lock goes with the transaction.
    perform pg_advisory_xact_lock(hashtextextended('partitions of ' || parent::oid::text, 0));
    existing := to_regclass(format('%I.%I', parent_schema, partition_name));
    if exists (
        select from pg_catalog.pg_inherits
        where inhrelid = existing and inhparent = parent::oid
    ) then
        return partition_name;
    end if;
    if existing is not null then
        raise exception '%.% exists and is not a partition of %',
            parent_schema, partition_name, p_table using errcode = '42P07';
    end if;

    execute format(
        'create table %I.%I (like %I.%I including defaults including constraints)',
        parent_schema, partition_name, parent_schema, parent_name
    );
    -- A bare date literal would mean midnight in the session's zone for a timestamptz key.
    execute format(
        'alter table %I.%I attach partition %I.%I for values from (%L) to (%L)',
        parent_schema, parent_name, parent_schema, partition_name,
        first_day || case key_type when 'timestamptz' then ' 00:00:00+00' else '' end,
        next_month || case key_type when 'timestamptz' then ' 00:00:00+00' else '' end
    );
    return partition_name;
end;
$function$;
comment on function app.create_monthly_partition(text, date) is
    'Makes sure that the table has a partition for the month of the date, and returns its name.'
    ' Safe to repeat and safe for concurrent callers; bounds are months in UTC.';
"""

DOWNGRADE = """
drop function app.create_monthly_partition(text, date);
drop table app.schema_migrations;
drop schema sqp;
drop schema landing;
"""


def upgrade() -> None:
    run_sql(UPGRADE)


def downgrade() -> None:
    run_sql(DOWNGRADE)
