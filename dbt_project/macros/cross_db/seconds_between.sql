{% macro seconds_between(start, end) -%}
    {{ return(adapter.dispatch('seconds_between')(start, end)) }}
{%- endmacro %}

{% macro postgres__seconds_between(start, end) -%}
    cast(floor(extract(epoch from {{ end }} - {{ start }})) as bigint)
{%- endmacro %}

{% macro bigquery__seconds_between(start, end) -%}
    timestamp_diff({{ end }}, {{ start }}, second)
{%- endmacro %}
