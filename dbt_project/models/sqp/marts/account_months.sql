{{
    config(
        meta={'follows': ['query_months'], 'rebuild': {'period': 'month', 'reach': [0]}},
        unique_key=['account_id', 'period_start', 'marketplace_id'],
        indexes=[{'columns': ['account_id', 'period_start', 'marketplace_id'], 'unique': true}],
    )
}}

with query_months as (
    select *
    from {{ ref('query_months') }}
),

totals as (
    select
        account_id,
        marketplace_id,
        period_start,
        max(period_end) as period_end,
        cast(count(*) as bigint) as queries,
        max(market_weeks) as weeks,
        cast(sum(total_impressions) as bigint) as own_impression_count,
        cast(sum(total_clicks) as bigint) as own_click_count,
        cast(sum(cart_adds) as bigint) as own_cart_add_count,
        cast(sum(total_purchases) as bigint) as own_purchase_count,
        cast(sum(total_query_impression_count) as bigint) as total_query_impression_count,
        cast(sum(total_click_count) as bigint) as total_click_count,
        cast(sum(total_cart_add_count) as bigint) as total_cart_add_count,
        cast(sum(total_purchase_count) as bigint) as total_purchase_count
    from query_months
    where {{ in_touched_periods('query_months') }}
    group by account_id, marketplace_id, period_start
),

final as (
    select
        account_id,
        marketplace_id,
        queries,
        weeks,
        {{ own_and_market_columns() }},
        period_start,
        period_end,
        {{ statement_time() }} as updated_at
    from totals
)

select *
from final
