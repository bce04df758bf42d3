{% macro begin_mart() -%}
    {{ return(adapter.dispatch('begin_mart')()) }}
{%- endmacro %}

{% macro default__begin_mart() -%}
{%- endmacro %}

{% macro postgres__begin_mart() -%}
    {%- set follows = config.meta_get('follows', []) -%}
    {%- set summaries = follows | select('in', var('sqp_summaries')) | list -%}
    {%- set marts = follows | reject('in', var('sqp_summaries')) | list -%}
    {%- set slice_builds = source('sqp', 'slice_builds').render() -%}
    {%- set mart_builds = source('sqp', 'mart_builds').render() -%}
    {%- set mart_changes = source('sqp', 'mart_changes').render() -%}
    {#- Temporary tables are analyzed, groups of them are not: hash joins stay linear. #}
    set local enable_nestloop = off;
    set local enable_mergejoin = off;
    set local work_mem = '{{ var("rebuild_work_mem") }}';

    select pg_advisory_xact_lock(hashtextextended('rebuild {{ this }}', 0));

    {#- Before a mart's first build, whoever notes a change has told it, or waits until it is known. #}
    select pg_advisory_xact_lock(hashtextextended('marts of the warehouse', 0))
    where not exists (
        select 1
        from {{ mart_builds }}
        where model_name = '{{ this.identifier }}'
    );
    insert into {{ mart_builds }} (model_name)
    values ('{{ this.identifier }}')
    on conflict (model_name) do nothing;

    {#- What is written from here on is built again next time: it may be read already, or not. #}
    create temporary table mart_seen on commit drop as
    select
        coalesce(min(built_until), '-infinity') as built_until
    from (
        {%- for summary in summaries %}
        select coalesce(max(built_at), '-infinity') as built_until
        from {{ slice_builds }}
        where model_name = '{{ summary }}'
        {% if not loop.last or marts %}union all{% endif %}
        {%- endfor %}
        {%- for mart in marts %}
        select coalesce(max(built_until), '-infinity') as built_until
        from {{ mart_builds }}
        where model_name = '{{ mart }}'
        {% if not loop.last %}union all{% endif %}
        {%- endfor %}
    ) as inputs;

    create temporary table touched_periods (
        account_id text not null,
        marketplace_id text not null,
        period_start date not null
    ) on commit drop;

    with changes as (
        delete from {{ mart_changes }} as own_changes
        where
            own_changes.model_name = '{{ this.identifier }}'
            {%- if marts %}
            and not exists (
                select 1
                from {{ mart_changes }} as awaited
                where
                    awaited.model_name in ('{{ marts | join("', '") }}')
                    and awaited.account_id = own_changes.account_id
                    and awaited.marketplace_id = own_changes.marketplace_id
                    and awaited.week_start = own_changes.week_start
            )
            {%- endif %}
        returning own_changes.account_id, own_changes.marketplace_id, own_changes.week_start
    ),

    weeks as (
        select account_id, marketplace_id, week_start
        from changes
        union
        select slices.account_id, slices.marketplace_id, slices.period_start
        from {{ slice_builds }} as builds
        inner join {{ source('landing', 'sqp_slices').render() }} as slices
            on builds.slice_id = slices.slice_id
        where
            builds.model_name in ('{{ var("sqp_summaries") | join("', '") }}')
            and builds.built_at > coalesce(
                (
                    select mart_builds.built_until
                    from {{ mart_builds }} as mart_builds
                    where mart_builds.model_name = '{{ this.identifier }}'
                ),
                '-infinity'
            )
    )

    insert into touched_periods (account_id, marketplace_id, period_start)
    select distinct
        weeks.account_id,
        weeks.marketplace_id,
        {{ touched_period('weeks.week_start', config.meta_get('rebuild')) }}
    from weeks
    cross join unnest(array[{{ config.meta_get('rebuild').reach | join(', ') }}]) as reach (periods);

    analyze touched_periods;
{%- endmacro %}
