{% macro weighted_mean(price, weight) -%}
    {{ return(adapter.dispatch('weighted_mean')(price, weight)) }}
{%- endmacro %}

{% macro postgres__weighted_mean(price, weight) -%}
    cast(
        sum({{ price }} * {{ weight }})
        / nullif(sum(case when {{ price }} is not null then {{ weight }} end), 0)
        as numeric(14, 4)
    )
{%- endmacro %}

{% macro bigquery__weighted_mean(price, weight) -%}
    {%- set mean -%}
        sum(cast({{ price }} as bignumeric) * {{ weight }})
        / nullif(sum(case when {{ price }} is not null then {{ weight }} end), 0)
    {%- endset -%}
    {{ rounded(mean, 14, 4) }}
{%- endmacro %}
