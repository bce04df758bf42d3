{% macro day_ranges(period, days) -%}
    {%- if not execute -%}
        {{ return([]) }}
    {%- endif -%}
    {%- set touched -%}
        select distinct
            {{ first_day_of_period(period, 'touched.period_start') }} as first_day,
            {{ last_day_of_period(period, 'touched.period_start') }} as last_day
        from (
            {{ days }}
        ) as touched
        order by first_day
    {%- endset -%}
    {%- set ranges = [] -%}
    {%- for row in run_query(touched).rows -%}
        {%- do ranges.append({
            'first_day': "cast('" ~ row['first_day'] ~ "' as date)",
            'last_day': "cast('" ~ row['last_day'] ~ "' as date)",
        }) -%}
    {%- endfor -%}
    {%- if ranges | length > var('most_day_ranges') -%}
        {{ return([{
            'first_day': ranges[0].first_day, 'last_day': ranges[-1].last_day,
        }]) }}
    {%- endif -%}
    {{ return(ranges) }}
{%- endmacro %}
