{% macro today_utc() -%}
    {{ return(adapter.dispatch('today_utc')()) }}
{%- endmacro %}

{% macro postgres__today_utc() -%}
    cast(statement_timestamp() at time zone 'UTC' as date)
{%- endmacro %}

{% macro bigquery__today_utc() -%}
    current_date('UTC')
{%- endmacro %}
