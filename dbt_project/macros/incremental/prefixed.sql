{% macro prefixed(columns, relation) -%}
    {%- for column in columns -%}
        {{ relation }}.{{ column }}
        {%- if not loop.last %}, {% endif -%}
    {%- endfor -%}
{%- endmacro %}
