{% macro begin_rebuild() -%}
    {{ return(adapter.dispatch('begin_rebuild')()) }}
{%- endmacro %}

{% macro default__begin_rebuild() -%}
{%- endmacro %}

{% macro postgres__begin_rebuild() -%}
    {#- CTEs and temporary tables have no statistics: only hash joins stay linear whatever is guessed. #}
    set local enable_nestloop = off;
    set local enable_mergejoin = off;
    set local work_mem = '{{ var("rebuild_work_mem") }}';
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
