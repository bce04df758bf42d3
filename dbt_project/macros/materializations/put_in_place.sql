{% macro put_in_place(built) -%}
    {#- What has the name is looked up now, under the lock: dbt's cache is as old as the run. -#}
    {%- set kinds -%}
        select case relkind when 'v' then 'view' when 'm' then 'materialized_view' else 'table' end as kind
        from pg_catalog.pg_class
        where oid = to_regclass('{{ this.render() }}')
    {%- endset -%}
    {%- for row in run_query(kinds).rows -%}
        {% do adapter.drop_relation(this.incorporate(type=row['kind'])) %}
    {%- endfor -%}
    {% do adapter.rename_relation(built, this.incorporate(type=built.type)) %}
{%- endmacro %}
