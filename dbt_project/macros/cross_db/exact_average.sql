{% macro exact_average(expression) -%}
    {{ return(adapter.dispatch('exact_average')(expression)) }}
{%- endmacro %}

{% macro postgres__exact_average(expression) -%}
    avg({{ expression }})
{%- endmacro %}

{% macro bigquery__exact_average(expression) -%}
    avg(cast({{ expression }} as bignumeric))
{%- endmacro %}
