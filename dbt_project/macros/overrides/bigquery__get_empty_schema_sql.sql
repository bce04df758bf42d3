{% macro bigquery__get_empty_schema_sql(columns) -%}
    {{ dbt.bigquery__get_empty_schema_sql(bigquery_columns(columns)) }}
{%- endmacro %}
