{% macro weighted_mean(price, weight) -%}
    cast(
        sum({{ price }} * {{ weight }})
        / nullif(sum(case when {{ price }} is not null then {{ weight }} end), 0)
        as numeric(14, 4)
    )
{%- endmacro %}
