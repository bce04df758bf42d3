{% macro changed_queries_table() -%}
    {{ return(source('sqp', 'changed_queries').include(database=false).render()) }}
{%- endmacro %}
