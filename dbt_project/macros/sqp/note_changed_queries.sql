{% macro note_changed_queries(rows) -%}
    insert into {{ source('sqp', 'changed_queries').render() }} (
        summary, account_id, marketplace_id, period_start, query_digest
    )
    select
        summaries.summary,
        changed.account_id,
        changed.marketplace_id,
        changed.period_start,
        changed.query_digest
    from (
        select distinct
            counted.account_id,
            counted.marketplace_id,
            counted.period_start,
            case
                when counted.queries <= {{ var('most_changed_queries') }} then counted.query_digest
            end as query_digest
        from (
            select
                queries.*,
                count(*) over (
                    partition by queries.account_id, queries.marketplace_id, queries.period_start
                ) as queries
            from (
                select distinct
                    account_id,
                    marketplace_id,
                    period_start,
                    query_digest
                from (
                    {{ rows }}
                ) as changed_rows
            ) as queries
        ) as counted
    ) as changed
    cross join (
        values ('monthly_summary'), ('quarterly_summary')
    ) as summaries (summary)
{%- endmacro %}
