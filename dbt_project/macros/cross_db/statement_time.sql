{% macro statement_time() -%}
    {{ return(adapter.dispatch('statement_time')()) }}
{%- endmacro %}

{% macro postgres__statement_time() -%}
    statement_timestamp()
{%- endmacro %}

{% macro bigquery__statement_time() -%}
    current_timestamp()
{%- endmacro %}
