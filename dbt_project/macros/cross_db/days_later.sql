{% macro days_later(moment, days) -%}
    {{ return(adapter.dispatch('days_later')(moment, days)) }}
{%- endmacro %}

{% macro postgres__days_later(moment, days) -%}
    {{ moment }} + interval '{{ days }} days'
{%- endmacro %}

{% macro bigquery__days_later(moment, days) -%}
    timestamp_add({{ moment }}, interval {{ days }} day)
{%- endmacro %}
