{% macro rounded(expression, precision, scale) -%}
    {{ return(adapter.dispatch('rounded')(expression, precision, scale)) }}
{%- endmacro %}

{% macro postgres__rounded(expression, precision, scale) -%}
    cast({{ expression }} as numeric({{ precision }}, {{ scale }}))
{%- endmacro %}

{% macro bigquery__rounded(expression, precision, scale) -%}
    cast(round(cast({{ expression }} as bignumeric), {{ scale }}) as numeric)
{%- endmacro %}
