{% macro begin_rebuild() -%}
    {{ return(adapter.dispatch('begin_rebuild')()) }}
{%- endmacro %}

{% macro default__begin_rebuild() -%}
{%- endmacro %}

{% macro postgres__begin_rebuild() -%}
    {#- CTEs and temporary tables have no statistics: whatever is guessed, hash joins stay linear. #}
    set local enable_nestloop = off;
    set local enable_mergejoin = off;
    set local work_mem = '{{ var("rebuild_work_mem") }}';

    select pg_advisory_xact_lock(hashtextextended('rebuild {{ this }}', 0));
    {%- for unique_id in model.depends_on.nodes if execute %}
        {%- set input = graph.nodes.get(unique_id, {}) %}
        {%- if input.get('config', {}).get('materialized') == 'incremental' %}
    lock table {{ input.relation_name }} in share mode;
        {%- endif %}
    {%- endfor %}
    {%- if execute and not is_incremental() %}
    delete from {{ source('sqp', 'slice_builds').render() }}
    where model_name = '{{ this.identifier }}';
    {%- endif %}
{%- endmacro %}
