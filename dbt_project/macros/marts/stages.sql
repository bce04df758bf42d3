{% macro stages() -%}
    {{ return({
        'impression': ['total_impressions', 'total_query_impression_count'],
        'click': ['total_clicks', 'total_click_count'],
        'cart_add': ['cart_adds', 'total_cart_add_count'],
        'purchase': ['total_purchases', 'total_purchase_count'],
    }) }}
{%- endmacro %}
