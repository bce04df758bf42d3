{% macro first_day_of_period(period, day) -%}
    {{ return(adapter.dispatch('first_day_of_period')(period, day)) }}
{%- endmacro %}

{% macro postgres__first_day_of_period(period, day) -%}
    {%- if period == 'week' -%}
        {{ day }} - cast(extract(dow from {{ day }}) as integer)
    {%- else -%}
        cast(date_trunc('{{ period }}', cast({{ day }} as timestamp)) as date)
    {%- endif -%}
{%- endmacro %}

{% macro bigquery__first_day_of_period(period, day) -%}
    date_trunc({{ day }}, {{ period }})
{%- endmacro %}
