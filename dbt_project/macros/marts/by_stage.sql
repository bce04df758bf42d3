{% macro by_stage(relation, columns, chosen=none) -%}
    {%- for stage in chosen or stages() %}
    {%- set own, market = stages()[stage] %}
    select
        {{ columns | join(', ') }},
        '{{ stage }}' as stage,
        {{ own }} as own_count,
        {{ market }} as market_count
    from {{ relation }}
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
{%- endmacro %}
