{% macro within_slices_to_rebuild(relation) -%}
    {{ return(adapter.dispatch('within_slices_to_rebuild')(relation)) }}
{%- endmacro %}

{% macro postgres__within_slices_to_rebuild(relation) -%}
    {%- set slices = '(select * from ' ~ ref('int_sqp__slices_to_rebuild') ~ ')' -%}
    {%- set ranges = day_ranges('week', 'select * from ' ~ ref('int_sqp__slices_to_rebuild')) -%}
    {%- set key = ['account_id', 'marketplace_id', 'asin', 'period_start'] -%}
    {%- if not ranges -%}
        {{ return('false') }}
    {%- endif -%}
    {{ within_days(relation ~ '.period_start', ranges) }}
        {%- for column in key %}
        and {{ relation }}.{{ column }} = any(array(select slices.{{ column }} from {{ slices }} as slices))
        {%- endfor %}
        and ({{ prefixed(key, relation) }}) in (
            select {{ prefixed(key, 'slices') }}
            from {{ slices }} as slices
        )
{%- endmacro %}

{% macro bigquery__within_slices_to_rebuild(relation) -%}
    {{ first_day_of_period('month', relation ~ '.period_start') }} in (
            select {{ first_day_of_period('month', 'slices.period_start') }}
            from (select * from {{ ref('int_sqp__slices_to_rebuild') }}) as slices
        )
{%- endmacro %}
