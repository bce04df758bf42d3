{{ config(meta={'follows': ['monthly_summary'], 'rebuild': {'period': 'month', 'reach': [0]}}) }}

with monthly_summary as (
    select *
    from {{ ref('monthly_summary') }}
),

months as (
    select *
    from monthly_summary
    where {{ in_touched_periods('monthly_summary') }}
),

totals as (
    {% call query_totals('months') -%}
    ,
        max(market_weeks) as market_weeks
    {%- endcall %}
),

final as (
    select
        account_id,
        marketplace_id,
        query_digest,
        query,
        asins,
        market_weeks,
        search_query_volume,
        {{ own_and_market_columns() }},
        period_start,
        period_end,
        {{ statement_time() }} as updated_at
    from totals
)

select *
from final
