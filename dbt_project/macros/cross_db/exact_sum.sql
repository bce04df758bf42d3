{% macro exact_sum(count) -%}
    {{ return(adapter.dispatch('exact_sum')(count)) }}
{%- endmacro %}

{% macro postgres__exact_sum(count) -%}
    cast(sum(cast({{ count }} as double precision)) as bigint)
{%- endmacro %}

{% macro bigquery__exact_sum(count) -%}
    sum({{ count }})
{%- endmacro %}
