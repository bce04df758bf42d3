with account_months as (
    select *
    from {{ ref('account_months') }}
),

quarters as (
    select
        account_id,
        marketplace_id,
        {{ first_day_of_period('quarter', 'period_start') }} as period_start,
        {{ last_day_of_period('quarter', 'period_start') }} as period_end,
        cast(sum(weeks) as bigint) as weeks,
        cast(sum(total_impressions) as bigint) as own_impression_count,
        cast(sum(total_clicks) as bigint) as own_click_count,
        cast(sum(cart_adds) as bigint) as own_cart_add_count,
        cast(sum(total_purchases) as bigint) as own_purchase_count,
        cast(sum(total_query_impression_count) as bigint) as total_query_impression_count,
        cast(sum(total_click_count) as bigint) as total_click_count,
        cast(sum(total_cart_add_count) as bigint) as total_cart_add_count,
        cast(sum(total_purchase_count) as bigint) as total_purchase_count
    from account_months
    group by
        account_id,
        marketplace_id,
        {{ first_day_of_period('quarter', 'period_start') }},
        {{ last_day_of_period('quarter', 'period_start') }}
),

shares as (
    select
        account_id,
        marketplace_id,
        weeks,
        {{ own_and_market_columns() }},
        period_start,
        period_end,
        {{ months_later('period_start', -3) }} as previous_start,
        {{ months_later('period_start', -12) }} as year_before_start
    from quarters
),

final as (
    select
        shares.account_id,
        shares.marketplace_id,
        shares.weeks,
        {%- for own, market in stages().values() %}
        shares.{{ own }},
        shares.{{ market }},
        {%- endfor %}
        shares.avg_ctr,
        shares.avg_cvr,
        {%- for stage in stages() %}
        shares.{{ stage }}_share,
        {{ rounded('shares.' ~ stage ~ '_share - previous.' ~ stage ~ '_share', 10, 6) }}
            as {{ stage }}_share_change,
        {{ rounded('shares.' ~ stage ~ '_share - year_before.' ~ stage ~ '_share', 10, 6) }}
            as {{ stage }}_share_year_change,
        {%- endfor %}
        shares.period_start,
        shares.period_end
    from shares
    left join shares as previous
        on
            shares.account_id = previous.account_id
            and shares.marketplace_id = previous.marketplace_id
            and shares.previous_start = previous.period_start
    left join shares as year_before
        on
            shares.account_id = year_before.account_id
            and shares.marketplace_id = year_before.marketplace_id
            and shares.year_before_start = year_before.period_start
)

select *
from final
