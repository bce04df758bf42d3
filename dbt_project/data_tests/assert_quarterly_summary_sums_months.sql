with quarterly_summary as (
    select *
    from {{ ref('quarterly_summary') }}
),

monthly_summary as (
    select
        account_id,
        marketplace_id,
        asin,
        query_digest,
        {{ first_day_of_period('quarter', 'period_start') }} as period_start,
        sum(total_impressions) as total_impressions,
        sum(total_clicks) as total_clicks,
        sum(cart_adds) as cart_adds,
        sum(total_purchases) as total_purchases
    from {{ ref('monthly_summary') }}
    group by
        account_id,
        marketplace_id,
        asin,
        query_digest,
        {{ first_day_of_period('quarter', 'period_start') }}
)

select
    coalesce(quarterly_summary.period_start, monthly_summary.period_start) as period_start,
    coalesce(quarterly_summary.account_id, monthly_summary.account_id) as account_id,
    coalesce(quarterly_summary.marketplace_id, monthly_summary.marketplace_id) as marketplace_id,
    coalesce(quarterly_summary.asin, monthly_summary.asin) as asin,
    coalesce(quarterly_summary.query_digest, monthly_summary.query_digest) as query_digest
from quarterly_summary
full join monthly_summary
    on
        quarterly_summary.period_start = monthly_summary.period_start
        and quarterly_summary.account_id = monthly_summary.account_id
        and quarterly_summary.marketplace_id = monthly_summary.marketplace_id
        and quarterly_summary.asin = monthly_summary.asin
        and quarterly_summary.query_digest = monthly_summary.query_digest
where
    quarterly_summary.total_impressions is distinct from monthly_summary.total_impressions
    or quarterly_summary.total_clicks is distinct from monthly_summary.total_clicks
    or quarterly_summary.cart_adds is distinct from monthly_summary.cart_adds
    or quarterly_summary.total_purchases is distinct from monthly_summary.total_purchases
