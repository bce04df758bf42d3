{% macro ratio(numerator, denominator) -%}
    cast(
        case
            when cast({{ numerator }} as numeric) < 9999 * cast({{ denominator }} as numeric)
                then cast({{ numerator }} as numeric) / {{ denominator }}
        end as numeric(10, 6)
    )
{%- endmacro %}
