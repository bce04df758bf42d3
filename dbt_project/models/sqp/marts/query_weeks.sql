{{ config(meta={'follows': ['weekly_summary'], 'rebuild': {'period': 'week', 'reach': [0]}}) }}

with weekly_summary as (
    select *
    from {{ ref('weekly_summary') }}
),

weeks as (
    select *
    from weekly_summary
    where {{ in_touched_periods('weekly_summary') }}
),

totals as (
    {{ query_totals('weeks') }}
),

final as (
    select
        account_id,
        marketplace_id,
        query_digest,
        query,
        asins,
        search_query_volume,
        {{ own_and_market_columns() }},
        period_start,
        period_end,
        {{ statement_time() }} as updated_at
    from totals
)

select *
from final
