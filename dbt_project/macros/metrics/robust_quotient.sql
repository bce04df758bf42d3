{% macro robust_quotient(numerator, denominator) -%}
    {{ return(adapter.dispatch('robust_quotient')(numerator, denominator)) }}
{%- endmacro %}

{% macro postgres__robust_quotient(numerator, denominator) -%}
    {{ numerator }} / {{ denominator }}
{%- endmacro %}

{% macro bigquery__robust_quotient(numerator, denominator) -%}
    cast({{ numerator }} as bignumeric) / cast({{ denominator }} as bignumeric)
{%- endmacro %}
