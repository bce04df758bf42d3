{% macro relations_of_the_warehouse() -%}
    {%- set found -%}
        select
            namespaces.nspname || '.' || relations.relname as relation,
            relations.relkind::text as kind
        from pg_catalog.pg_class as relations
        inner join pg_catalog.pg_namespace as namespaces on relations.relnamespace = namespaces.oid
        where
            relations.relkind in ('r', 'p', 'v', 'm')
            and not relations.relispartition
            and namespaces.nspname <> 'information_schema'
            and namespaces.nspname !~ '^pg_'
    {%- endset -%}
    {%- set kinds = {} -%}
    {%- for row in run_query(found).rows -%}
        {%- do kinds.update({row['relation']: row['kind']}) -%}
    {%- endfor -%}
    {{ return(kinds) }}
{%- endmacro %}
