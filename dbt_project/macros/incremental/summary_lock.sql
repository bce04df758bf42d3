{% macro summary_lock(summary) -%}
    hashtextextended('rebuild of {{ summary }}', 0)
{%- endmacro %}
