{% macro funnel_steps(relation, ids, dates) -%}
    {%- set names = stages().keys() | list -%}
    {%- for stage in names[1:] %}
    {%- set own, market = stages()[stage] %}
    {%- set own_before, market_before = stages()[names[loop.index0]] %}
    select
        {{ ids | join(', ') }},
        '{{ stage }}' as step,
        {{ loop.index }} as step_number,
        {{ own_before }} as own_entered,
        {{ own }} as own_kept,
        {{ market_before }} as market_entered,
        {{ market }} as market_kept,
        {{ rounded('1 - ' ~ ratio(own, own_before), 10, 6) }} as own_drop,
        {{ rounded('1 - ' ~ ratio(market, market_before), 10, 6) }} as market_drop,
        {{ rounded(ratio(market, market_before) ~ ' - ' ~ ratio(own, own_before), 10, 6) }}
            as drop_gap,
        {{ dates | join(', ') }}
    from {{ relation }}
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}
{%- endmacro %}
