{% macro months_later(day, months) -%}
    {{ return(adapter.dispatch('months_later')(day, months)) }}
{%- endmacro %}

{% macro postgres__months_later(day, months) -%}
    cast({{ day }} + interval '{{ months }} months' as date)
{%- endmacro %}

{% macro bigquery__months_later(day, months) -%}
    date_add({{ day }}, interval {{ months }} month)
{%- endmacro %}
