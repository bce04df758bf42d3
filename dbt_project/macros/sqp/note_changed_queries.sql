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

    changes as (
        select
            summaries.model_name,
            weeks.account_id,
            weeks.marketplace_id,
            weeks.period_start,
            cast(null as bytea) as query_digest
        from weeks
        cross join unnest(array['monthly_summary', 'quarterly_summary']) as summaries (model_name)
        where weeks.queries > {{ var('most_changed_queries') }}
        union all
        select
            summaries.model_name,
            queries.account_id,
            queries.marketplace_id,
            queries.period_start,
            queries.query_digest
        from weeks
        inner join queries
            on {{ columns_match(['account_id', 'marketplace_id', 'period_start'], 'weeks', 'queries') }}
        cross join unnest(array['monthly_summary', 'quarterly_summary']) as summaries (model_name)
        where weeks.queries <= {{ var('most_changed_queries') }}
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
    )

    insert into {{ source('sqp', 'changed_queries').include(database=false).render() }} (
        model_name, account_id, marketplace_id, period_start, query_digest
    )
    select *
    from changes
{%- endmacro %}
