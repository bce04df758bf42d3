{% macro json_text(document, key) -%}
    {{ return(adapter.dispatch('json_text')(document, key)) }}
{%- endmacro %}

{% macro postgres__json_text(document, key) -%}
    {{ document }} ->> '{{ key }}'
{%- endmacro %}

{% macro bigquery__json_text(document, key) -%}
    json_value({{ document }}, '$.{{ key }}')
{%- endmacro %}
