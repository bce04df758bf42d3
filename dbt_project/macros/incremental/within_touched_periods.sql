{% macro within_touched_periods(day, period) -%}
    {%- if not execute -%}
        {{ return('true') }}
    {%- endif -%}
    {%- set touched -%}
        select
            min({{ first_day_of_period(period, 'period_start') if period != 'week' else 'period_start' }}) as first_day,
            max({{ last_day_of_period(period, 'period_start') if period != 'week' else 'period_start' }}) as last_day
        from (select * from {{ ref('int_sqp__slices_to_rebuild') }}) as slices
    {%- endset -%}
    {%- set bounds = run_query(touched).rows[0] -%}
    {%- if bounds['first_day'] is none -%}
        {{ return('false') }}
    {%- endif -%}
    {{ return(
        day ~ " between cast('" ~ bounds['first_day'] ~ "' as date) and cast('" ~ bounds['last_day'] ~ "' as date)"
    ) }}
{%- endmacro %}
