{% macro postgres__create_table_as(temporary, relation, sql) -%}
    {%- if config.get('partition_by') and not temporary -%}
        {{ create_partitioned_table_as(relation, sql) }}
    {%- else -%}
        {{ dbt.postgres__create_table_as(temporary, relation, sql) }}
    {%- endif -%}
{%- endmacro %}
