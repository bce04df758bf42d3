{% macro ratio(numerator, denominator) -%}
    {{ return(adapter.dispatch('ratio')(numerator, denominator)) }}
{%- endmacro %}

{% macro postgres__ratio(numerator, denominator) -%}
    cast(
        case
            when ({{ numerator }}) / 9999 < ({{ denominator }})
                then cast({{ numerator }} as numeric) / ({{ denominator }})
        end as numeric(10, 6)
    )
{%- endmacro %}

{% macro bigquery__ratio(numerator, denominator) -%}
    {%- set quotient -%}
        case
            when ({{ numerator }}) / 9999 < ({{ denominator }})
                then cast({{ numerator }} as bignumeric) / ({{ denominator }})
        end
    {%- endset -%}
    {{ rounded(quotient, 10, 6) }}
{%- endmacro %}
