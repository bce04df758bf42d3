{% macro click_through_rate(clicks, impressions) -%}
    {{ ratio(clicks, impressions) }}
{%- endmacro %}
