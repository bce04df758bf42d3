with weekly_summary as (
    select *
    from {{ ref('weekly_summary') }}
),

landed as (
    select *
    from {{ ref('stg_landing__sqp_asin') }}
    where period_type = 'WEEK'
)

select
    coalesce(landed.period_start, weekly_summary.period_start) as period_start,
    coalesce(landed.account_id, weekly_summary.account_id) as account_id,
    coalesce(landed.marketplace_id, weekly_summary.marketplace_id) as marketplace_id,
    coalesce(landed.asin, weekly_summary.asin) as asin,
    coalesce(landed.query, weekly_summary.query) as query
from landed
full join weekly_summary
    on
        landed.period_start = weekly_summary.period_start
        and landed.account_id = weekly_summary.account_id
        and landed.marketplace_id = weekly_summary.marketplace_id
        and landed.asin = weekly_summary.asin
        and landed.query_digest = weekly_summary.query_digest
where
    landed.own_impression_count is distinct from weekly_summary.total_impressions
    or landed.own_click_count is distinct from weekly_summary.total_clicks
    or landed.own_cart_add_count is distinct from weekly_summary.cart_adds
    or landed.own_purchase_count is distinct from weekly_summary.total_purchases
    or landed.total_query_impression_count
    is distinct from weekly_summary.total_query_impression_count
    or landed.total_click_count is distinct from weekly_summary.total_click_count
    or landed.total_cart_add_count is distinct from weekly_summary.total_cart_add_count
    or landed.total_purchase_count is distinct from weekly_summary.total_purchase_count
