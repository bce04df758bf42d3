{% macro conversion_rate(purchases, clicks) -%}
    {{ ratio(purchases, clicks) }}
{%- endmacro %}
