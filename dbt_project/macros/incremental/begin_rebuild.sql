{% macro begin_rebuild() -%}
    {{ return(adapter.dispatch('begin_rebuild')()) }}
{%- endmacro %}

{% macro default__begin_rebuild() -%}
{%- endmacro %}

{% macro postgres__begin_rebuild() -%}
    {#- Little is known of rows in scope: whatever is guessed about them, hashing stays linear. #}
    set local enable_nestloop = {{ 'on' if rebuilds_few_slices() else 'off' }};
    set local enable_mergejoin = off;
    set local enable_sort = off;
    set local work_mem = '{{ var("rebuild_work_mem") }}';
    set local warehouse.summaries_follow = 'later';

    {#- What it reads is locked first, as by those who write there, so that none waits crosswise. #}
    {%- for unique_id in model.depends_on.nodes if execute %}
        {%- set input = graph.nodes.get(unique_id, {}) %}
        {%- if input.get('config', {}).get('materialized') == 'incremental' %}
    lock table {{ input.relation_name }} in share mode;
        {%- elif 'frozen_by' in input.get('columns', {}) %}
    {{ refuse_what_another_run_froze(input.relation_name) }}
        {%- endif %}
    {%- endfor %}
    select pg_advisory_xact_lock({{ summary_lock(this.identifier) }});
    {%- if execute and not is_incremental() %}
    update {{ source('sqp', 'slice_builds').render() }}
    set load_id = null
    where model_name = '{{ this.identifier }}';
    {%- endif %}
{%- endmacro %}
