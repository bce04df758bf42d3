{% macro touched_partitions() -%}
    {%- set first_day = first_day_of_period(config.meta_get('period') or 'month', 'slices.period_start') -%}
    {%- set touched -%}
        select distinct {{ first_day }} as first_day
        from {{ ref('int_sqp__slices_to_rebuild') }} as slices
        order by first_day
    {%- endset -%}
    {%- set partitions = [] -%}
    {%- for row in run_query(touched).rows -%}
        {%- do partitions.append("date '" ~ row['first_day'] ~ "'") -%}
    {%- endfor -%}
    {{ return(partitions) }}
{%- endmacro %}
