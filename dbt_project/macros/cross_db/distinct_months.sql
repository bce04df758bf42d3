{% macro distinct_months(day) -%}
    {{ return(adapter.dispatch('distinct_months')(day)) }}
{%- endmacro %}

{#- Counting distinct values sorts the rows; gathering a bit for each month lets them be hashed. -#}
{% macro postgres__distinct_months(day) -%}
    cast(bit_count(cast(bit_or(1 << cast(date_part('month', {{ day }}) as integer)) as bit(13))) as integer)
{%- endmacro %}

{% macro bigquery__distinct_months(day) -%}
    count(distinct extract(month from {{ day }}))
{%- endmacro %}
