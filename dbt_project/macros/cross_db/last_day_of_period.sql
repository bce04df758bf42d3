{% macro last_day_of_period(period, day) -%}
    {{ return(adapter.dispatch('last_day_of_period')(period, day)) }}
{%- endmacro %}

{% macro postgres__last_day_of_period(period, day) -%}
    cast(
        date_trunc('{{ period }}', cast({{ day }} as timestamp))
        + interval '{{ {'month': 1, 'quarter': 3}[period] }} months' - interval '1 day' as date
    )
{%- endmacro %}

{% macro bigquery__last_day_of_period(period, day) -%}
    last_day({{ day }}, {{ period }})
{%- endmacro %}
