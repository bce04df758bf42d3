{% macro protect_partitions() -%}
    do $do$
    declare
        partition regclass;
    begin
        for partition in
            select partitions.oid
            from pg_catalog.pg_class as partitions
            inner join pg_catalog.pg_namespace as namespaces
                on partitions.relnamespace = namespaces.oid
            where
                partitions.relispartition
                and partitions.relkind in ('r', 'p')
                and namespaces.nspname in ('app', 'landing', 'sqp', 'reporting')
                and not (partitions.relrowsecurity and partitions.relforcerowsecurity)
        loop
            execute format(
                'alter table %s enable row level security, force row level security', partition
            );
        end loop;
    end;
    $do$;
{%- endmacro %}
