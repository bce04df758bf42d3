{% macro forget_changed_queries() -%}
    {{ return(adapter.dispatch('forget_changed_queries')()) }}
{%- endmacro %}

{% macro postgres__forget_changed_queries() -%}
    {%- if not flags.EMPTY %}
    delete from {{ changed_queries_table() }}
    where change_id = any(array(
        select frozen.change_id
        from {{ ref('int_sqp__queries_to_rebuild').render() }} as frozen
        where frozen.model_name = '{{ this.identifier }}'
    ))
    {%- endif %}
{%- endmacro %}

{% macro bigquery__forget_changed_queries() -%}
    {{ record_slice_builds() }}
{%- endmacro %}
