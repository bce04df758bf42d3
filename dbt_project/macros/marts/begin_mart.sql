{% macro begin_mart() -%}
    {{ return(adapter.dispatch('begin_mart')()) }}
{%- endmacro %}

{% macro default__begin_mart() -%}
{%- endmacro %}

{% macro postgres__begin_mart() -%}
    {%- set changed_queries = changed_queries_table() -%}
    {%- set rebuild = config.meta_get('rebuild') -%}
    {#- Temporary tables are analyzed, groups of them are not: hash joins stay linear. #}
    set local enable_nestloop = off;
    set local enable_mergejoin = off;
    set local work_mem = '{{ var("rebuild_work_mem") }}';
    select pg_advisory_xact_lock({{ summary_lock(this.identifier) }});

    {#- What is committed from here on stays noted: it may be read already, or not. A change that
        what the mart follows has still to take in waits for it. #}
    create temporary table touched_periods on commit drop as
    with changes as (
        delete from {{ changed_queries }} as noted
        where
            noted.model_name = '{{ this.identifier }}'
            and not exists (
                select 1
                from {{ changed_queries }} as awaited
                where
                    awaited.model_name in ('{{ config.meta_get("follows") | join("', '") }}')
                    and awaited.account_id = noted.account_id
                    and awaited.marketplace_id = noted.marketplace_id
                    and awaited.period_start = noted.period_start
            )
        returning noted.account_id, noted.marketplace_id, noted.period_start
    )

    select distinct
        changes.account_id,
        changes.marketplace_id,
        {{ touched_period('changes.period_start', rebuild) }} as period_start
    from changes
    cross join unnest(array[{{ rebuild.reach | join(', ') }}]) as reach (periods);

    analyze touched_periods;
{%- endmacro %}
