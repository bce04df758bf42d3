{% macro own_and_market_columns() -%}
    own_impression_count as total_impressions,
    own_click_count as total_clicks,
    own_cart_add_count as cart_adds,
    own_purchase_count as total_purchases,
    total_query_impression_count,
    total_click_count,
    total_cart_add_count,
    total_purchase_count,
    {{ click_through_rate('own_click_count', 'own_impression_count') }} as avg_ctr,
    {{ conversion_rate('own_purchase_count', 'own_click_count') }} as avg_cvr,
    {{ share_of_market('own_impression_count', 'total_query_impression_count') }} as impression_share,
    {{ share_of_market('own_click_count', 'total_click_count') }} as click_share,
    {{ share_of_market('own_cart_add_count', 'total_cart_add_count') }} as cart_add_share,
    {{ share_of_market('own_purchase_count', 'total_purchase_count') }} as purchase_share
{%- endmacro %}
