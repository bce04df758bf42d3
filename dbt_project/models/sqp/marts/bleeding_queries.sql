{{
    config(
        meta={'follows': ['monthly_summary'], 'rebuild': {'period': 'month', 'reach': [0]}},
        unique_key=['account_id', 'period_start', 'marketplace_id', 'asin', 'query_digest'],
        indexes=[
            {
                'columns': ['account_id', 'period_start', 'marketplace_id', 'asin', 'query_digest'],
                'unique': true,
            },
            {'columns': ['account_id', 'marketplace_id', 'period_start', 'lost_purchases']},
            {'columns': ['account_id', 'marketplace_id', 'period_start', 'is_zero_purchase', 'total_clicks']},
        ],
    )
}}

with monthly_summary as (
    select *
    from {{ ref('monthly_summary') }}
),

clicked as (
    select
        *,
        {{ conversion_rate('total_purchase_count', 'total_click_count') }} as market_cvr
    from monthly_summary
    where
        {{ in_touched_periods('monthly_summary') }}
        and total_clicks >= {{ var('bleeding_min_clicks') }}
        and total_purchase_count > 0
        and total_click_count > 0
),

judged as (
    select
        *,
        total_purchases = 0 as is_zero_purchase,
        avg_cvr < {{ var('bleeding_cvr_ratio') }} * market_cvr as is_bleeding,
        {{ rounded('total_clicks * market_cvr - total_purchases', 18, 4) }} as lost_purchases
    from clicked
),

final as (
    select
        account_id,
        marketplace_id,
        asin,
        query_digest,
        query,
        total_clicks,
        total_purchases,
        avg_cvr,
        market_cvr,
        click_share,
        purchase_share,
        lost_purchases,
        is_zero_purchase,
        is_bleeding,
        period_start,
        period_end,
        {{ statement_time() }} as updated_at
    from judged
    where is_zero_purchase or is_bleeding
)

select *
from final
