{% macro ratio(numerator, denominator) -%}
    cast(
        case
            when {{ numerator }} / 9999 < {{ denominator }}
                then cast({{ numerator }} as numeric) / {{ denominator }}
        end as numeric(10, 6)
    )
{%- endmacro %}
