{% macro create_partitioned_table_as(relation, sql) -%}
    {%- set partition_by = config.get('partition_by') -%}
    {%- set columns = adapter.dispatch('get_column_names', 'dbt')() -%}
    {%- set rows = make_temp_relation(relation, '__rows') -%}

    create table {{ relation }}
    {{ get_assert_columns_equivalent(sql) }}
    {{ get_table_columns_and_constraints() }}
    partition by range ({{ partition_by.field }});

    create temporary table {{ rows }} on commit drop as (
        {{ sql }}
    );

    {{ create_partitions(relation, rows) }}

    insert into {{ relation }} ({{ columns }})
    select {{ columns }}
    from {{ rows }};
{%- endmacro %}
