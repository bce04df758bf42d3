{% macro share_of_market(own, total) -%}
    {{ ratio(own, total) }}
{%- endmacro %}
