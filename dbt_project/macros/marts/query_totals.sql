{% macro query_totals(relation) -%}
    select
        account_id,
        marketplace_id,
        query_digest,
        period_start,
        max(period_end) as period_end,
        max(query) as query,
        cast(count(*) as bigint) as asins,
        max(search_query_volume) as search_query_volume,
        cast(sum(total_impressions) as bigint) as own_impression_count,
        cast(sum(total_clicks) as bigint) as own_click_count,
        cast(sum(cart_adds) as bigint) as own_cart_add_count,
        cast(sum(total_purchases) as bigint) as own_purchase_count,
        max(total_query_impression_count) as total_query_impression_count,
        max(total_click_count) as total_click_count,
        max(total_cart_add_count) as total_cart_add_count,
        max(total_purchase_count) as total_purchase_count
        {{- caller() if caller }}
    from {{ relation }}
    group by account_id, marketplace_id, query_digest, period_start
{%- endmacro %}
