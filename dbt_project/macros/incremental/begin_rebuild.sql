{% macro begin_rebuild() -%}
    {{ return(adapter.dispatch('begin_rebuild')()) }}
{%- endmacro %}

{% macro default__begin_rebuild() -%}
{%- endmacro %}

{% macro postgres__begin_rebuild() -%}
    select pg_advisory_xact_lock(hashtextextended('rebuild {{ this.schema }}.{{ this.identifier }}', 0));
    {%- if execute %}
        {%- for unique_id in model.depends_on.nodes if graph.nodes.get(unique_id, {}).get('config', {}).get('materialized') == 'incremental' %}
    lock table {{ graph.nodes[unique_id].relation_name }} in share mode;
        {%- endfor %}
        {%- if not is_incremental() and not flags.EMPTY %}
    delete from {{ source('sqp', 'slice_builds').render() }} where model_name = '{{ this.identifier }}';
        {%- endif %}
    {%- endif %}
{%- endmacro %}
