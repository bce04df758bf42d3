{% macro rebuilds_few_slices() -%}
    {%- if not execute or this.identifier != 'weekly_summary' or not rebuilds_touched_only() -%}
        {{ return(false) }}
    {%- endif -%}
    {%- set counted = run_query('select count(*) as slices from ' ~ ref('int_sqp__slices_to_rebuild')) -%}
    {{ return(counted.rows[0]['slices'] <= var('few_slices')) }}
{%- endmacro %}
