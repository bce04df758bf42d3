with monthly_summary as (
    select *
    from {{ ref('monthly_summary') }}
),

weekly_summary as (
    select
        account_id,
        marketplace_id,
        asin,
        query_digest,
        {{ first_day_of_period('month', 'period_start') }} as period_start,
        sum(total_impressions) as total_impressions,
        sum(total_clicks) as total_clicks,
        sum(cart_adds) as cart_adds,
        sum(total_purchases) as total_purchases
    from {{ ref('weekly_summary') }}
    group by
        account_id,
        marketplace_id,
        asin,
        query_digest,
        {{ first_day_of_period('month', 'period_start') }}
)

select
    coalesce(monthly_summary.period_start, weekly_summary.period_start) as period_start,
    coalesce(monthly_summary.account_id, weekly_summary.account_id) as account_id,
    coalesce(monthly_summary.marketplace_id, weekly_summary.marketplace_id) as marketplace_id,
    coalesce(monthly_summary.asin, weekly_summary.asin) as asin,
    coalesce(monthly_summary.query_digest, weekly_summary.query_digest) as query_digest
from monthly_summary
full join weekly_summary
    on
        monthly_summary.period_start = weekly_summary.period_start
        and monthly_summary.account_id = weekly_summary.account_id
        and monthly_summary.marketplace_id = weekly_summary.marketplace_id
        and monthly_summary.asin = weekly_summary.asin
        and monthly_summary.query_digest = weekly_summary.query_digest
where
    monthly_summary.total_impressions is distinct from weekly_summary.total_impressions
    or monthly_summary.total_clicks is distinct from weekly_summary.total_clicks
    or monthly_summary.cart_adds is distinct from weekly_summary.cart_adds
    or monthly_summary.total_purchases is distinct from weekly_summary.total_purchases
