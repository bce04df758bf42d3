{% macro days_of_calendar(first_day, last_day) -%}
    {{ return(adapter.dispatch('days_of_calendar')(first_day, last_day)) }}
{%- endmacro %}

{% macro postgres__days_of_calendar(first_day, last_day) -%}
    select cast(days.moment as date) as date_day
    from generate_series(
        cast('{{ first_day }}' as timestamp), cast('{{ last_day }}' as timestamp), interval '1 day'
    ) as days (moment)
{%- endmacro %}

{% macro bigquery__days_of_calendar(first_day, last_day) -%}
    select date_day
    from unnest(
        generate_date_array(date '{{ first_day }}', date '{{ last_day }}')
    ) as date_day
{%- endmacro %}
