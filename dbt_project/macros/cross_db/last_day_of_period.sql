{% macro last_day_of_period(period, day) -%}
    {{ return(adapter.dispatch('last_day_of_period')(period, day)) }}
{%- endmacro %}

{% macro postgres__last_day_of_period(period, day) -%}
    {%- set length = {'week': '1 week', 'month': '1 month', 'quarter': '3 months'}[period] -%}
    cast({{ first_day_of_period(period, day) }} + interval '{{ length }}' - interval '1 day' as date)
{%- endmacro %}

{% macro bigquery__last_day_of_period(period, day) -%}
    last_day({{ day }}, {{ period }})
{%- endmacro %}
