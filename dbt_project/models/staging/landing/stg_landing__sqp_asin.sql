with delivered as (
    select *
    from {{ source('landing', 'sqp_asin') }}
),

slices as (
    select *
    from {{ ref('stg_landing__sqp_slices') }}
),

in_force as (
    select
        delivered.slice_id,
        delivered.load_id,
        delivered.account_id,
        delivered.marketplace_id,
        delivered.period_type,
        delivered.period_start,
        delivered.period_end,
        delivered.asin,
        delivered.parent_asin,
        delivered.product_name,
        delivered.client_name,
        delivered.search_query,
        delivered.query,
        delivered.query_digest,
        delivered.search_query_score,
        delivered.search_query_volume,
        delivered.total_query_impression_count,
        delivered.asin_impression_count as own_impression_count,
        delivered.asin_impression_share as own_impression_share,
        delivered.total_click_count,
        delivered.total_click_rate,
        delivered.asin_click_count as own_click_count,
        delivered.asin_click_share as own_click_share,
        delivered.total_median_click_price,
        delivered.asin_median_click_price as own_median_click_price,
        delivered.total_same_day_shipping_click_count,
        delivered.total_one_day_shipping_click_count,
        delivered.total_two_day_shipping_click_count,
        delivered.total_cart_add_count,
        delivered.total_cart_add_rate,
        delivered.asin_cart_add_count as own_cart_add_count,
        delivered.asin_cart_add_share as own_cart_add_share,
        delivered.total_median_cart_add_price,
        delivered.asin_median_cart_add_price as own_median_cart_add_price,
        delivered.total_same_day_shipping_cart_add_count,
        delivered.total_one_day_shipping_cart_add_count,
        delivered.total_two_day_shipping_cart_add_count,
        delivered.total_purchase_count,
        delivered.total_purchase_rate,
        delivered.asin_purchase_count as own_purchase_count,
        delivered.asin_purchase_share as own_purchase_share,
        delivered.total_median_purchase_price,
        delivered.asin_median_purchase_price as own_median_purchase_price,
        delivered.total_same_day_shipping_purchase_count,
        delivered.total_one_day_shipping_purchase_count,
        delivered.total_two_day_shipping_purchase_count,
        delivered.currency_code,
        delivered.source_line,
        delivered.slice_digest,
        delivered.loaded_at,
        slices.source_file,
        slices.accepted_at
    from delivered
    inner join slices
        on
            delivered.period_start = slices.period_start
            and delivered.slice_id = slices.slice_id
            and delivered.load_id = slices.load_id
)

select *
from in_force
