{% macro within_touched_periods(day, period) -%}
    {%- if not execute -%}
        {{ return('true') }}
    {%- endif -%}
    {%- set touched -%}
        select
            min({{ first_day_of_period(period, 'period_start') }}) as first_day,
            max({{ last_day_of_period(period, 'period_start') }}) as last_day
        from (select * from {{ ref('int_sqp__slices_to_rebuild') }}) as slices
    {%- endset -%}
    {%- set bounds = run_query(touched).rows[0] -%}
    {%- if bounds['first_day'] is none -%}
        {{ return('false') }}
    {%- endif -%}
    {%- set first_day = "cast('" ~ bounds['first_day'] ~ "' as date)" -%}
    {%- set last_day = "cast('" ~ bounds['last_day'] ~ "' as date)" -%}
    {{ return(day ~ ' between ' ~ first_day ~ ' and ' ~ last_day) }}
{%- endmacro %}
