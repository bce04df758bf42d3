{% macro weeks_later(day, weeks) -%}
    {{ return(adapter.dispatch('weeks_later')(day, weeks)) }}
{%- endmacro %}

{% macro postgres__weeks_later(day, weeks) -%}
    {{ day }} + {{ 7 * weeks }}
{%- endmacro %}

{% macro bigquery__weeks_later(day, weeks) -%}
    date_add({{ day }}, interval {{ 7 * weeks }} day)
{%- endmacro %}
