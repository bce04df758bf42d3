{% macro is_same_view(built, held) -%}
    {%- set compared -%}
        select pg_get_viewdef(held.oid) = pg_get_viewdef('{{ built.render() }}'::regclass) as is_same
        from pg_catalog.pg_class as held
        where held.oid = to_regclass('{{ held.render() }}') and held.relkind = 'v'
    {%- endset -%}
    {%- set found = run_query(compared).rows -%}
    {{ return(found | length == 1 and found[0]['is_same']) }}
{%- endmacro %}
