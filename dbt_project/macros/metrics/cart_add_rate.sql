{% macro cart_add_rate(cart_adds, clicks) -%}
    {{ ratio(cart_adds, clicks) }}
{%- endmacro %}
