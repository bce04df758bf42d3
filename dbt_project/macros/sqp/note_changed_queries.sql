{% macro note_changed_queries(rows) -%}
    with queries as materialized (
        select distinct
            account_id,
            marketplace_id,
            period_start,
            query_digest
        from (
            {{ rows }}
        ) as changed_rows
    ),

    weeks as (
        select
            account_id,
            marketplace_id,
            period_start,
            count(*) as queries
        from queries
        group by account_id, marketplace_id, period_start
    ),

    changed as (
        select
            account_id,
            marketplace_id,
            period_start,
            cast(null as bytea) as query_digest
        from weeks
        where queries > {{ var('most_changed_queries') }}
        union all
        select queries.*
        from queries
        inner join weeks
            on {{ columns_match(['account_id', 'marketplace_id', 'period_start'], 'queries', 'weeks') }}
        where weeks.queries <= {{ var('most_changed_queries') }}
    )

    insert into {{ changed_queries_table() }} (
        model_name, account_id, marketplace_id, period_start, query_digest
    )
    select
        summaries.model_name,
        changed.*
    from changed
    cross join unnest(array['{{ period_summaries() | map(attribute="name") | join("', '") }}']) as summaries (model_name)
    {%- if marts() %}
    union all
    select
        marts.model_name,
        weeks.account_id,
        weeks.marketplace_id,
        weeks.period_start,
        cast(null as bytea) as query_digest
    from weeks
    cross join unnest(array['{{ marts() | map(attribute="name") | join("', '") }}']) as marts (model_name)
    {%- endif %}
{%- endmacro %}
