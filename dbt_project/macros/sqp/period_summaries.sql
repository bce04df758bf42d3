{% macro period_summaries() -%}
    {%- set found = [] -%}
    {%- for name in var('sqp_summaries') if name != 'weekly_summary' -%}
        {%- do found.append(graph.nodes['model.' ~ project_name ~ '.' ~ name]) -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}
